"""What each component does: one causal method makes a claim, and every other method that can speak to it votes.

Reads what ``context_flow`` joins; runs nothing. A claim is made where patching a component alone at one word counts
(or, for ``positions only``, where every ablation hurts and no patch moves anything). Attention, contributions, probes
and lenses never make a claim: they see what could be used, not what is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from analyses.head_evidence import LEVEL, Cell, Estimate, Evidence, number
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
        shown = f"{number(self.size)} [{number(self.low)}, {number(self.high)}]"
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

    def looks(self, role: str, head: int, sources: Sequence[str]) -> Iterator[Vote]:
        """Attention from a role to where the source can be found: more than an even spread, at the best of them."""
        edges = {name: one for name, one in self.heads.attention.items() if name.partition("<-")[0] == role}
        known = [one for name, one in edges.items() if name.partition("<-")[2] in sources]
        known = [one for one in known if np.isfinite(one.mean[head])]
        if known:
            best = max(known, key=lambda one: float(one.mean[head]))
            even = self.heads.uniform.get(role, 0.0)
            stance = SUPPORTS if best.low[head] > even else CONTRADICTS if best.high[head] <= even else SILENT
            yield Vote.of("attention", best, head, "share", stance)

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

        A place that is not used there can have been read before, so these never contradict.
        """
        found = self.used.get("places")
        if found is None or role not in found["role"].values or str(found.attrs.get("site")) != "resid_pre":
            return
        later = [int(one) for one in found["layer"].values if one > layer]
        if not later:
            return
        at = found.sel(role=role, layer=min(later))
        for name, axis, asked, control, said in (
            ("recovered_erasure", "eraser", "leace", "random", "erasure"),
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
    source, meeting = evidence.vocabulary.source or "", heads.meeting
    found_at = (meeting.other, source)
    arrivals = tuple(dict.fromkeys((*meeting.places, *(heads.acts_at(head) for head in heads.labelled("mover")))))
    for head, name in enumerate(heads.names):
        layer = int(heads.layer[head])
        if heads.label(head) != "none":
            role = heads.acts_at(head)
            mover = heads.label(head) == "mover"
            votes = [
                *evidence.patched(heads.cells, role, head),
                *evidence.looks(role, head, found_at if mover else (*found_at, *arrivals)),
                *evidence.ablated(head),
                *evidence.in_circuit(name),
            ]
            if role == ANSWER:
                votes += [*evidence.writes(head), *evidence.said_by_lens(layer)]
            elif mover:
                votes += [*evidence.probed(role, layer), *evidence.placed(role, layer)]
            yield Claim(name, "moves" if mover else "reads out", role, _effect(heads, head, role), tuple(votes))
        for role in dict.fromkeys(cell.role for cell in heads.cells if cell.against[head]):
            votes = [*evidence.patched(heads.cells, role, head, against=True), *evidence.ablated(head, raises=True)]
            if role == ANSWER:
                votes += evidence.writes(head, against=True)
            largest = max(-float(c.effect.mean[head]) for c in heads.cells if c.role == role and c.against[head])
            yield Claim(name, "inhibits", role, largest, tuple(votes))
        if is_needed(heads, head) and moves_nothing(heads, head):
            votes = [*evidence.ablated(head), *evidence.in_circuit(name, inside=False)]
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
