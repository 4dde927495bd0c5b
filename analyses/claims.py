"""What each component does: one causal method makes a claim, and every other method that can speak to it votes.

Reads what ``context_flow`` joins; runs nothing. A claim is made where patching a component alone at one word counts
(or, for ``positions only``, where every ablation hurts and no patch moves anything). Attention, contributions, probes
and lenses never make a claim: they see what could be used, not what is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from analyses.head_evidence import LEVEL, Cell, Estimate, Evidence, number
from analyses.looking import Look
from interp import summary
from interp.language import LANGUAGES, key, listed, say, say_stored, speaking
from interp.prompts.template import ANSWER
from interp.prompts.vocabulary import Vocabulary
from interp.results import Variable

Job: TypeAlias = Literal["moves", "stores", "reads out", "inhibits", "positions only"]
Grade: TypeAlias = Literal["supported by all", "supported by some", "contradicted"]

SUPPORTS, SILENT, CONTRADICTS = 1.0, 0.0, -1.0
"""A vote: the method points the way the claim does; it cannot tell; it says otherwise, and surely."""


@dataclass(frozen=True)
class Vote:
    """What one method says of one claim.

    Attributes:
        method: its name, as results have it.
        stance: 1 supports, 0 cannot tell, -1 contradicts.
        size: what it measured; NaN where that is no number.
        low: lower end of its 95% interval.
        high: upper end.
        units: of the three.
    """

    method: str
    stance: float
    size: float
    low: float
    high: float
    units: str

    @classmethod
    def of(cls, method: str, estimate: Estimate, index: int, units: str, stance: float) -> Vote:
        """A vote with the numbers of one component."""
        mean, low, high = (float(values[index]) for values in (estimate.mean, estimate.low, estimate.high))
        return cls(method, stance, mean, low, high, units)

    def text(self) -> str:
        """Method and number, in words."""
        name = say_stored(self.method)
        if not np.isfinite(self.size):
            return name
        shown = number(self.size)
        if np.isfinite([self.low, self.high]).all():
            shown += f" [{number(self.low)}, {number(self.high)}]"
        if self.units == "logits":
            shown = say("{size} logits", size=shown)
        return f"{name} {shown}"


@dataclass(frozen=True)
class Claim:
    """That a component does a job at a word, with what every method says of it.

    Attributes:
        component: ``L3H2`` or ``MLP3``.
        job: ``moves``: it brings the source to a word where source and target meet. ``stores``: it writes the source
            where the stream holds it already, at the source's own word, or an MLP where they meet. ``reads out``: it
            turns the source into the answer at a reader's word. ``inhibits``: it works against the answer.
            ``positions only``: the answer needs it, and it carries nothing of the source.
        role: where; empty for ``positions only``.
        effect: the largest effect that makes the claim; for sorting.
        votes: one for each method that measured something that bears on it.
    """

    component: str
    job: Job
    role: str
    effect: float
    votes: tuple[Vote, ...]

    @property
    def grade(self) -> Grade:
        """``contradicted`` if one method says otherwise, ``supported by all`` if none is silent."""
        stances = {vote.stance for vote in self.votes}
        if CONTRADICTS in stances:
            return "contradicted"
        return "supported by some" if SILENT in stances else "supported by all"

    def text(self, vocabulary: Vocabulary) -> str:
        """The claim in one sentence with its grade."""
        source, where = vocabulary.name(vocabulary.source or ""), vocabulary.name(self.role) if self.role else ""
        told = {"component": self.component, "source": source, "where": where}
        said: dict[str, str] = {
            "moves": say("{component} moves {source} to {where}", **told),
            "stores": say("{component} stores {source} at {where}", **told),
            "reads out": say("{component} reads {source} out at {where}", **told),
            "inhibits": say("{component} works against the answer at {where}", **told),
            "positions only": say("{component} is needed and carries nothing of {source}", **told),
        }
        by = {stance: [vote for vote in self.votes if vote.stance == stance] for stance in (1.0, 0.0, -1.0)}
        yes = listed([say_stored(vote.method) for vote in by[SUPPORTS]])
        if self.grade == "supported by all":
            grade = say("supported by all that measured it ({yes})", yes=yes)
        else:
            grade = say("supported by {yes}", yes=yes)
            if by[SILENT]:
                grade += "; " + say("not decided by {silent}", silent=listed([vote.text() for vote in by[SILENT]]))
            if by[CONTRADICTS]:
                against = listed([vote.text() for vote in by[CONTRADICTS]])
                grade += "; " + say("contradicted by {against}", against=against)
        return f"{said[self.job]}: {grade}."


def of(
    heads: Evidence, used: Mapping[str, xr.Dataset], vocabulary: Vocabulary, minimum_effect: float
) -> tuple[Claim, ...]:
    """Every claim that patching makes of a head or an MLP, those of each job together, the largest effect first."""
    evidence = _Votes(heads, used, vocabulary, minimum_effect)
    found = [*_of_heads(evidence), *_of_mlps(evidence)]
    jobs = ("moves", "stores", "reads out", "inhibits", "positions only")
    return tuple(sorted(found, key=lambda claim: (jobs.index(claim.job), -claim.effect, claim.component)))


def coords(claims: Sequence[Claim]) -> dict[str, Any]:
    """One row a claim, one column a method."""
    if not claims:
        return {}
    methods = list(dict.fromkeys(vote.method for claim in claims for vote in claim.votes))
    return {"claim": [f"{claim.component} {claim.job}" for claim in claims], "voter": methods}


DIMS = {"claim": "what a component is claimed to do", "voter": "the method that votes on it"}
"""The axes of the claims in a result, each with its meaning."""


def variables(claims: Sequence[Claim], vocabulary: Vocabulary) -> dict[str, Variable]:
    """The claims as columns of a result; empty where there are none."""
    if not claims:
        return {}
    methods = coords(claims)["voter"]
    stance = np.full((len(claims), len(methods)), np.nan)
    size, bounds = stance.copy(), np.full((*stance.shape, 2), np.nan)
    for i, claim in enumerate(claims):
        for vote in claim.votes:
            at = i, methods.index(vote.method)
            stance[at], size[at], bounds[at] = vote.stance, vote.size, (vote.low, vote.high)
    each, both = ("claim",), ("claim", "voter")
    texts: dict[str, tuple[list[str], str]] = {
        "claim_component": ([claim.component for claim in claims], "component"),
        "claim_job": ([claim.job for claim in claims], "moves, stores, reads out, inhibits or positions only"),
        "claim_role": ([claim.role for claim in claims], "where"),
        "claim_grade": ([claim.grade for claim in claims], "supported by all, supported by some, or contradicted"),
    }
    out = {name: Variable(each, np.array(values), "", said) for name, (values, said) in texts.items()}
    for language in LANGUAGES:
        with speaking(language):
            told = np.array([claim.text(vocabulary) for claim in claims])
        out[key("claim_said", language)] = Variable(each, told, "", "the claim in words")
    out["vote"] = Variable(both, stance, "", "1 supports, 0 cannot tell, -1 contradicts; none: not measured")
    out["vote_size"] = Variable(both, size, "", "what the method measured, in its own units")
    out["vote_interval"] = Variable((*both, "ci_bound"), bounds, "", "95% interval of what the method measured")
    return out


# ---- who claims ----


@dataclass(frozen=True)
class _Votes:
    """How each kind of evidence votes."""

    heads: Evidence
    used: Mapping[str, xr.Dataset]
    vocabulary: Vocabulary
    minimum_effect: float

    @cached_property
    def look(self) -> Look | None:
        """Why the head that was asked about looks."""
        return Look.of(self.used.get("qk_attribution"))

    @cached_property
    def excess(self) -> xr.Dataset | None:
        """What every head does beyond its null, if that was measured."""
        found = self.used.get("head_roles")
        return None if found is None else summary.mean(found["excess"])

    def place(self, head: int) -> dict[str, int]:
        """Where a result has the head."""
        return {"layer": int(self.heads.layer[head]), "head": int(self.heads.head[head])}

    @property
    def least(self) -> float:
        """The least effect that counts, in logits; 0 where no logits were patched for."""
        return self.minimum_effect * abs(self.heads.gap) if np.isfinite(self.heads.gap) else 0.0

    def patched(self, cells: Sequence[Cell], role: str, index: int, *, against: bool = False) -> Iterator[Vote]:
        """Both directions at one role, of one of the heads or MLPs of the cells."""
        for cell in cells:
            if cell.role == role and np.isfinite(cell.effect.mean[index]):
                counts = cell.against[index] if against else cell.counts[index]
                surely_not = (
                    cell.effect.low[index] > -self.minimum_effect
                    if against
                    else cell.effect.high[index] < self.minimum_effect
                )
                stance = SUPPORTS if counts else CONTRADICTS if surely_not else SILENT
                yield Vote.of(cell.direction, cell.effect, index, "fraction", stance)

    def looks(self, head: int) -> Iterator[Vote]:
        """Attention from where a labelled head acts to where it can find the source: more than an even spread."""
        edge = self.heads.strongest_edge(head)
        if edge is not None:
            one, even = self.heads.attention[edge], self.heads.uniform.get(self.heads.acts_at(head), 0.0)
            stance = SUPPORTS if one.low[head] > even else CONTRADICTS if one.high[head] <= even else SILENT
            yield Vote.of("attention", one, head, "share", stance)

    def has_a_reason(self, head: int, role: str) -> Iterator[Vote]:
        """What the best of the patched paths into its query and key does to its attention, if it surely does anything.

        Where none does, the head looks for what is the same in both prompts, which says nothing of what it carries.
        """
        path = None if self.look is None else self.look.path
        if path is not None and path.sure and self.look is not None and self.look.is_of(self.heads.names[head], role):
            yield Vote("paths into query and key", SUPPORTS, path.mean, path.low, path.high, "share")

    def has_role(self, head: int, head_role: str, measure: str) -> Iterator[Vote]:
        """Whether a head has a role by measurement; against it speaks a measure that is surely too small to count."""
        found = self.used.get("head_roles")
        if found is None or self.excess is None:
            return
        at = self.place(head)
        one = self.excess.sel({"measure": measure, **at})
        mean, low, high = (float(one[end]) for end in ("mean", "low", "high"))
        if np.isfinite(mean):
            named = bool(found["named"].sel({"head_role": head_role, **at}))
            stance = SUPPORTS if named else CONTRADICTS if high < float(found["least"].sel(measure=measure)) else SILENT
            yield Vote("head role", stance, mean, low, high, str(found["measure_units"].sel(measure=measure).values))

    def moves_by_role(self, head: int, role: str) -> Iterator[Vote]:
        """Whether the head is a mover by measurement, where the roles were measured along this claim's words."""
        found = self.used.get("head_roles")
        edge = "" if found is None else str(found.attrs["edge"])
        if edge in {f"{role}<-{word}" for word in self.heads.sources(head)}:
            yield from self.has_role(head, "mover", "carrying")

    def holds_positions(self, head: int) -> Iterator[Vote]:
        """Whether the head does one of the things that need no source: look back, find repeats, continue them."""
        found = self.used.get("head_roles")
        if found is None:
            return
        at = self.place(head)
        jobs = ("previous token", "duplicate token", "induction")
        named = [job for job in jobs if bool(found["named"].sel({"head_role": job, **at}))]
        if named:
            yield from self.has_role(head, named[0], named[0])
        else:
            yield Vote("head role", SILENT, np.nan, np.nan, np.nan, "")

    def composes(self, head: int) -> Iterator[Vote]:
        """Whether the weights let the head read what a mover of an earlier layer writes, beyond random weights.

        Of all movers and of keys and values, the one that is least likely by chance, corrected for their number.
        Weights say what is possible, so that they never contradict.
        """
        found = self.used.get("composition")
        if found is None:
            return
        name, layer = self.heads.names[head], self.heads.layer
        movers = [self.heads.names[one] for one in self.heads.labelled("mover") if layer[one] < layer[head]]
        if not movers or name not in found["reader_head"].values:
            return
        pairs = found.sel(kind=["k", "v"], writer_head=movers, reader_head=name).stack(pair=("kind", "writer_head"))
        best = pairs.isel(pair=int(np.argmin(pairs["p_value"].values)))
        stance = SUPPORTS if float(best["p_value"]) * pairs.sizes["pair"] <= LEVEL else SILENT
        yield Vote("composition", stance, float(best["above_baseline"]), np.nan, np.nan, "")

    def ablated(self, head: int, *, raises: bool = False) -> Iterator[Vote]:
        """Every ablation: it costs the answer, or raises it."""
        for kind, one in self.heads.ablation.items():
            low, high = float(one.low[head]), float(one.high[head])
            low, high = (-high, -low) if raises else (low, high)
            stance = SUPPORTS if high < 0 else CONTRADICTS if low > -self.least else SILENT
            yield Vote.of(f"{kind} ablation", one, head, "logits", stance)

    def writes(self, head: int, *, against: bool = False) -> Iterator[Vote]:
        """Its direct contribution to the answer's logits."""
        one = self.heads.contribution
        if one is not None and np.isfinite(one.mean[head]):
            low, high = float(one.low[head]), float(one.high[head])
            low, high = (-high, -low) if against else (low, high)
            stance = SUPPORTS if low > 0 else CONTRADICTS if high <= 0 else SILENT
            yield Vote.of("direct contribution", one, head, "logits", stance)

    def probed(self, role: str, layer: int) -> Iterator[Vote]:
        """Whether a probe reads the source in the stream after the layer, better than its control and than chance.

        Better than chance is what the permutation test over all places says, where the probes have one.
        """
        found = self.used.get("probing")
        if found is None or role not in found["role"].values or layer + 1 not in found["layer"].values:
            return
        if str(found.attrs.get("target")) != self.vocabulary.source or "resid_pre" not in found["site"].values:
            return
        at = found.sel(site="resid_pre", role=role, layer=layer + 1)
        if not np.isfinite(at["accuracy"].values).any():
            return
        accuracy, control = summary.mean(at["accuracy"], "fold"), float(at["control_accuracy"].mean("fold"))
        mean, low, high = (float(accuracy[name]) for name in ("mean", "low", "high"))
        chance = float(found["chance"])
        reads = float(at["p_value"]) <= LEVEL if "p_value" in at else low > chance
        stance = SUPPORTS if reads and low > control else CONTRADICTS if high <= chance else SILENT
        yield Vote("probe", stance, mean, low, high, "share")

    def placed(self, role: str, layer: int) -> Iterator[Vote]:
        """Whether the answer uses what stands at the word behind the layer: erased there, and exchanged there.

        A place that is not used there can have been read before, so these never contradict. An eraser fitted to few
        prompts takes more than the words, so that erasure has to cost more than that of shuffled words.
        """
        found = self.used.get("places")
        if found is None or role not in found["role"].values or str(found.attrs.get("site")) != "resid_pre":
            return
        later = [int(one) for one in found["layer"].values if one > layer]
        if not later:
            return
        at = found.sel(role=role, layer=min(later))
        for name, axis, asked, control, said in (
            ("recovered_erasure", "eraser", "leace", "shuffled", "erasure"),
            ("recovered_interchange", "subspace", "means", "random", "interchange"),
        ):
            lost = summary.effect(summary.of(at, name), "noising")
            one, by_chance = lost.sel({axis: asked}), lost.sel({axis: control})
            mean, low, high = (float(one[end]) for end in ("mean", "low", "high"))
            if np.isfinite(mean):
                surely = low > max(0.0, float(by_chance["high"])) and mean >= self.minimum_effect
                yield Vote(said, SUPPORTS if surely else SILENT, mean, low, high, "fraction")

    def in_circuit(self, component: str, *, inside: bool = True) -> Iterator[Vote]:
        """Whether the circuit that was found keeps an edge from the component (or none), with the strongest one.

        A circuit whose estimates failed their audit has no vote.
        """
        found = self.used.get("circuit")
        if found is None or not int(found.attrs.get("trusted", 0)) or "role" in found.dims:
            return
        if component not in found["sender"].values:
            return
        at = found.sel(sender=component)
        kept = at["kept"].values.astype(bool)
        scores = np.where(np.isfinite(at["score"].values) & (kept if kept.any() else True), at["score"].values, 0.0)
        strongest = int(np.argmax(np.abs(scores)))
        ends = at["score_interval"].isel(receiver=strongest)
        low, high = (float(ends.sel(ci_bound=end)) for end in ("low", "high"))
        stance = SUPPORTS if bool(kept.any()) is inside else CONTRADICTS
        yield Vote("circuit", stance, float(scores[strongest]), low, high, "logits")

    def said_by_lens(self, layer: int) -> Iterator[Vote]:
        """Whether the layer brings the stream at the answer closer to the answer, by the logit lens."""
        found = self.used.get("logit_lens")
        if found is None or ANSWER not in found["role"].values or "incorrect" not in found["answer"].values:
            return
        if not {layer - 1, layer} <= {int(one) for one in found["layer"].values} or "site" not in found.dims:
            return
        if "resid_post" not in found["site"].values:
            return
        margin = found["log_probability"].sel(role=ANSWER, site="resid_post")
        margin = margin.sel(answer="correct") - margin.sel(answer="incorrect")
        gained = summary.mean(margin.sel(layer=layer) - margin.sel(layer=layer - 1))
        mean, low, high = (float(gained[name]) for name in ("mean", "low", "high"))
        # A lens that sees nothing early does not show that nothing is known there, so it never contradicts.
        yield Vote("logit lens", SUPPORTS if low > 0 else SILENT, mean, low, high, "nats")


def _of_heads(evidence: _Votes) -> Iterator[Claim]:
    heads = evidence.heads
    for head, name in enumerate(heads.names):
        layer = int(heads.layer[head])
        if heads.label(head) != "none":
            role = heads.acts_at(head)
            mover = heads.label(head) == "mover"
            votes = [
                *evidence.patched(heads.cells, role, head),
                *evidence.looks(head),
                *evidence.has_a_reason(head, role),
                *evidence.ablated(head),
                *evidence.in_circuit(name),
                *(evidence.moves_by_role(head, role) if mover else evidence.composes(head)),
            ]
            if role == ANSWER:
                votes += [*evidence.writes(head), *evidence.said_by_lens(layer)]
            elif mover:
                votes += [*evidence.probed(role, layer), *evidence.placed(role, layer)]
            yield Claim(name, "moves" if mover else "reads out", role, _effect(heads, head, role), tuple(votes))
        for role in dict.fromkeys(cell.role for cell in heads.cells if cell.against[head]):
            votes = [*evidence.patched(heads.cells, role, head, against=True), *evidence.ablated(head, raises=True)]
            if role == ANSWER:
                votes += [
                    *evidence.writes(head, against=True),
                    *evidence.has_role(head, "inhibition", "writing against"),
                ]
            largest = max(-float(c.effect.mean[head]) for c in heads.cells if c.role == role and c.against[head])
            yield Claim(name, "inhibits", role, largest, tuple(votes))
        if is_needed(heads, head) and moves_nothing(heads, head):
            votes = [
                *evidence.ablated(head),
                *evidence.in_circuit(name, inside=False),
                *evidence.holds_positions(head),
            ]
            for way, one in heads.everywhere.items():
                votes.append(Vote.of(f"{way} at all words", one, head, "fraction", SUPPORTS))
            yield Claim(name, "positions only", "", -float(mildest(heads, head).mean[head]), tuple(votes))


def _effect(heads: Evidence, head: int, role: str) -> float:
    return max(float(cell.effect.mean[head]) for cell in heads.acting(head) if cell.role == role)


def _of_mlps(evidence: _Votes) -> Iterator[Claim]:
    cells, meeting = evidence.heads.mlps, evidence.heads.meeting
    storing = dict.fromkeys((evidence.vocabulary.source or "", *meeting.places))
    jobs: dict[str, Job] = {role: "reads out" for role in evidence.vocabulary.readers or ()}
    jobs |= {role: "stores" for role in storing}
    for role in dict.fromkeys(cell.role for cell in cells if cell.role in jobs):
        for layer in range(len(cells[0].counts)):
            claimed: tuple[tuple[bool, Job], ...] = ((False, jobs[role]), (True, "inhibits"))
            for against, job in claimed:
                votes = list(evidence.patched(cells, role, layer, against=against))
                claiming = [abs(vote.size) for vote in votes if vote.stance == SUPPORTS]
                if not claiming:
                    continue
                if job == "stores":
                    votes += [*evidence.probed(role, layer), *evidence.placed(role, layer)]
                elif job == "reads out" and role == ANSWER:
                    votes += evidence.said_by_lens(layer)
                if job != "inhibits":
                    votes += evidence.in_circuit(f"MLP{layer}")
                yield Claim(f"MLP{layer}", job, role, max(claiming), tuple(votes))


# ---- what is needed, and carries nothing ----


def is_needed(heads: Evidence, head: int) -> bool:
    """Whether a head without a label costs at least the least effect that counts, and surely some, by any ablation."""
    least = heads.minimum_effect * abs(heads.gap)
    return bool(
        heads.ablation
        and all(one.high[head] < 0 and one.mean[head] <= -least for one in heads.ablation.values())
        and heads.label(head) == "none"
    )


def moves_nothing(heads: Evidence, head: int) -> bool:
    """Whether patching a head alone is sure to move less than what counts, wherever that was done."""
    least = heads.minimum_effect
    effects = [cell.effect for cell in heads.cells] + list(heads.everywhere.values())
    return bool(effects) and all(-least < one.low[head] and one.high[head] < least for one in effects)


def mildest(heads: Evidence, head: int) -> Estimate:
    """The ablation that costs least."""
    return max(heads.ablation.values(), key=lambda one: float(one.mean[head]))
