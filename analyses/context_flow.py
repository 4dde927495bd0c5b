"""The verdict: what attention, patching, attribution, ablation and probing say together about every head.

Runs nothing: it joins the results of the other analyses. A head is named only for what patching it alone at one word
does, corrected for the number of heads that were tried; the other methods are asked whether they agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from analyses.head_evidence import LEVEL, Cell, Estimate, Evidence, ends, number, rung_index
from interp import mini, summary
from interp import results as labelled
from interp.errors import InterpError, shown
from interp.prompts.vocabulary import PREFERS, Vocabulary
from interp.results import Variable

if TYPE_CHECKING:
    from interp.prompts import PromptPairs

EXPLAINING = ("activation_patching", "head_attribution", "probing")
WIDE = 0.3
"""An interval of a recovered fraction that is wider than this is called wide in the answer."""
NAMED = 3
"""At most this many heads of a kind are named in the answer; the rest are counted."""
LISTED = 8
"""At most this many heads are spelled out where the methods disagree; the table has all."""

_IDENTITY = ("model", "weights_sha256", "architecture", "numerics", "dtype", "device", "bos", "answer_policy")


def check(*, minimum_effect: float) -> None:
    """Refuse what no results can make right.

    Raises:
        InterpError: ``minimum_effect`` is no fraction.
    """
    if not 0 < minimum_effect < 1:
        raise InterpError(f"minimum_effect is {shown(minimum_effect)}. Give a fraction between 0 and 1.")


def check_askable(pairs: PromptPairs, *, source: str | None = None, target: str | None = None) -> None:
    """Refuse roles that cannot be source and target of these pairs; the arguments are those of ``run``.

    Raises:
        InterpError: both are one role.
    """
    _stated(pairs.vocabulary, source, target)


def run(
    results: Mapping[str, xr.Dataset],
    *,
    source: str | None = None,
    target: str | None = None,
    minimum_effect: float = 0.1,
    seed: int = 0,
    not_asked: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Join the results of a run into one row per head, a label for each, and an answer in two sentences.

    The roles are those of the prompts' vocabulary (``pairs.vocabulary``), which every result carries. Attention only
    looks back, so ``target`` and ``source`` can meet at whichever comes later in the prompts, or at the ``meeting``
    places of the vocabulary; the attribute ``meeting`` is the one where the strongest mover acts.

    An effect is the recovered fraction when the head's ``z`` alone is patched in at one role (denoising), or
    1 - recovered when it is patched out (noising), as a ratio of means over prompts (``interp.summary``). It counts if
    it is at least ``minimum_effect``, its 95% bootstrap interval lies above 0, and its p-value, adjusted over all
    heads, roles and directions (``stats.max_t_p_values``), is at most 0.05. A head is a ``mover`` if an effect where
    they can meet counts, a ``reader`` if one at a reader's role does, by the larger where both do; else ``none``. Where
    the target is the answer position itself there are movers only.

    Where the source comes last, clean and corrupted differ at the meeting role itself, so patching there also shows
    heads that copy the source's own token: a mover must then also look at the target.

    Args:
        results: analysis name -> result; ``behavior`` is needed, ``activation_patching``, ``head_attribution`` and
            ``probing`` are used where given, others are ignored.
        source: role of the word that carries the context, instead of the vocabulary's.
        target: role of the word that it belongs to, likewise.
        minimum_effect: least fraction of the clean-corrupted gap that counts.
        seed: of the sign flips; intervals are those of ``interp.summary``, whatever the seed.
        not_asked: analysis -> why it could not be asked of these prompts, to be told among the limits.

    Returns:
        Per head (``head_label``): ``label``, ``acts_at`` (role), ``directions`` (``both``, or the one that counts),
        ``agreement`` (what each method says), ``p_value`` (smallest adjusted), and the means with 95% intervals
        (``*_interval``) of ``attention`` (meeting role to the other, a share), ``recovered_z_{role}`` (direction),
        ``contribution`` (logits) and ``ablation_effect`` (ablation, logits), as far as they were measured. Attributes
        ``answer``, ``gate`` (passed or failed), ``outcome`` (as in ``behavior``), ``gate_reason``, ``rung``,
        ``meeting``, ``agreement``, ``disagreement``, ``limits``. If the behaviour gate failed there are no heads, and
        the answer says so.

    Raises:
        InterpError: no ``behavior``, results of different models or different rungs, no vocabulary, or a bad
            ``minimum_effect``.

    Without patching nothing can be said of heads, and the answer says so:

    >>> from analyses import behavior, context_flow
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> verdict = context_flow.run({"behavior": behavior.run(model, pairs)})
    >>> verdict.attrs["gate"], verdict.attrs["answer"][-50:]
    ('passed', 'not answered: this run has no activation_patching.')
    """
    if "behavior" not in results:
        raise InterpError("context_flow needs the result 'behavior': without it nothing says the model does the task.")
    check(minimum_effect=minimum_effect)
    used = {name: results[name] for name in ("behavior", *EXPLAINING) if name in results}
    _check_same(used)
    vocabulary = _vocabulary(used, source, target)
    behavior = _Behavior.of(used, vocabulary)
    extra: dict[str, str | int | float] = {
        "rung": behavior.rung,
        "gate": "passed" if behavior.passes else "failed",
        "outcome": behavior.outcome,
        "gate_reason": behavior.reason,
        "source_role": vocabulary.source or "",
        "target_role": vocabulary.target or "",
        "vocabulary": vocabulary.as_json(),
        "minimum_effect": minimum_effect,
        "level": LEVEL,
        **summary.usual_attrs(),
    }
    if not behavior.passes:
        answer = (
            f"{behavior.model} does not do {behavior.task} ({behavior.reason.removeprefix('fails: ')}). "
            "So nothing is explained and no head is named."
        )
        return _build(used, behavior.variables(), {}, {**extra, "answer": answer}, seed, ("behavior",), vocabulary)
    if vocabulary.source is None or vocabulary.target is None:
        extra["answer"] = f"{behavior.sentence()} {_NO_SOURCE}"
        return _build(used, behavior.variables(), {}, extra, seed, ("behavior",), vocabulary)
    verdict = _Verdict.of(used, vocabulary, minimum_effect, seed, not_asked or {})
    extra |= {
        "answer": f"{behavior.sentence()} {_on_fewer(verdict.sentence(), used, behavior.n)}{_measured(used)}",
        "meeting": verdict.heads.arrival,
        "meeting_note": verdict.heads.meeting.note,
        "n_cells_tested": verdict.heads.n_tested,
        "agreement": verdict.agreement(),
        "disagreement": verdict.disagreement(),
        "limits": verdict.limits(behavior.model),
    }
    coords, about = verdict.coords(), (*EXPLAINING, "behavior")
    return _build(used, {**behavior.variables(), **verdict.variables()}, coords, extra, seed, about, vocabulary)


# ---- what the results are about ----

_NO_SOURCE = (
    "Which heads carry it cannot be asked: clean and corrupted differ in no word that has a role. Name that word as a "
    "role of the prompts."
)


def _vocabulary(used: Mapping[str, xr.Dataset], source: str | None, target: str | None) -> Vocabulary:
    """The vocabulary of the prompts that are explained, with what the study says instead.

    Raises:
        InterpError: the results have none, and source and target are not both given.
    """
    stated = next((str(text) for name in (*EXPLAINING, "behavior") if (text := _attribute(used, name))), None)
    if stated is None:
        if source is None or target is None:
            raise InterpError(
                "The results do not say which roles they are about. Give source= and target=, or run the study again."
            )
        found = Vocabulary().completed((source, f"after_{source}", target, f"after_{target}"), {})
    else:
        found = Vocabulary.from_json(stated)
    return _stated(found, source, target)


def _stated(vocabulary: Vocabulary, source: str | None, target: str | None) -> Vocabulary:
    """A vocabulary with what the study says instead."""
    return replace(vocabulary, source=source or vocabulary.source, target=target or vocabulary.target)


def _attribute(used: Mapping[str, xr.Dataset], name: str) -> object:
    return used[name].attrs.get("vocabulary") if name in used else None


def _check_same(used: Mapping[str, xr.Dataset]) -> None:
    """Refuse results of different models, or explanations of different rungs."""
    for key, names in (("weights_sha256", tuple(used)), ("task", tuple(name for name in EXPLAINING if name in used))):
        values = {name: str(used[name].attrs[key]) for name in names}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{name} {value[:24]}" for name, value in values.items())
            raise InterpError(f"The results to join have different {key} ({listed}). Join the results of one run.")


@dataclass(frozen=True)
class _Behavior:
    """What the model does on the rung that is explained."""

    model: str
    task: str
    rung: str
    passes: bool
    outcome: str
    reason: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    preferred: float
    wanted: str

    @classmethod
    def of(cls, used: Mapping[str, xr.Dataset], vocabulary: Vocabulary) -> _Behavior:
        index = rung_index(used)
        row = used["behavior"].isel(rung=index)
        low, high = (float(bound) for bound in row["accuracy_interval"].values)
        rung, task = str(row["rung"].values), str(used["behavior"].attrs["task"]).partition("/")[0]
        return cls(
            model=str(used["behavior"].attrs["model"]),
            task=task if task == rung else f"{task}/{rung}",
            rung=rung,
            passes=bool(row["passes"].values),
            outcome=str(row["outcome"].values),
            reason=str(row["reason"].values) if "reason" in row else "",
            n=int(row["n"].values),
            accuracy=float(row["accuracy"].values),
            interval=(low, high),
            preferred=float(row["preferred"].values),
            wanted=vocabulary.correct(),
        )

    def sentence(self) -> str:
        low, high = self.interval
        if self.outcome == PREFERS:
            return (
                f"On {self.n} prompts of {self.task} {self.model} prefers {self.wanted} to the other answer in "
                f"{self.preferred:.0%} but does not say it: it is the top token in {self.accuracy:.0%} (95% CI "
                f"{low:.0%} to {high:.0%})."
            )
        return (
            f"On {self.n} prompts of {self.task} {self.model} gives {self.wanted} as its top token in "
            f"{self.accuracy:.0%} (95% CI {low:.0%} to {high:.0%}) and prefers it to the other answer in "
            f"{self.preferred:.0%}."
        )

    def variables(self) -> dict[str, Variable]:
        return {
            "accuracy": Variable((), self.accuracy, "share", "share of clean prompts whose top token is correct"),
            "accuracy_interval": Variable(
                ("ci_bound",), list(self.interval), "share", "95% Wilson interval of accuracy"
            ),
            "preferred": Variable((), self.preferred, "share", "share of clean prompts that prefer the correct answer"),
        }


# ---- what the evidence says, in words and as a table ----


@dataclass(frozen=True)
class _Verdict:
    """The evidence on the heads, and what else the words need."""

    heads: Evidence
    vocabulary: Vocabulary
    n_prompts: Mapping[str, int]
    missing: tuple[str, ...]
    not_asked: Mapping[str, str]
    probe: str

    @classmethod
    def of(
        cls,
        used: Mapping[str, xr.Dataset],
        vocabulary: Vocabulary,
        minimum_effect: float,
        seed: int,
        not_asked: Mapping[str, str],
    ) -> _Verdict:
        heads = Evidence.of(used, vocabulary, minimum_effect, seed)
        return cls(
            heads=heads,
            vocabulary=vocabulary,
            n_prompts={name: int(data.attrs["n_prompts"]) for name, data in used.items() if name in EXPLAINING},
            missing=tuple(name for name in EXPLAINING if name not in used and name not in not_asked),
            not_asked=not_asked,
            probe=_probe(used.get("probing"), heads.arrival, vocabulary),
        )

    @property
    def thing(self) -> str:
        """The source within a sentence."""
        return self._place(ends(self.vocabulary)[0])

    def _place(self, role: str) -> str:
        """A role within a sentence."""
        return self.vocabulary.name(role)

    # ---- do the methods agree ----

    def checks(self, head: int) -> Iterator[tuple[str, bool, str]]:
        """(method, whether it points the way the label does, number), for a labelled head."""
        role, edge, direct = self.heads.acts_at(head), self.heads.strongest_edge(head), self.heads.contribution
        if edge is not None:
            src, weight = edge.partition("<-")[2], self.heads.attention[edge].mean[head]
            yield f"attention to {self._place(src)}", bool(self.heads.looks(head, role, src)), number(weight)
        for cell in self.heads.cells:
            if cell.role == role:
                yield cell.direction, bool(cell.counts[head]), cell.effect.text(head)
        for kind, estimate in self.heads.ablation.items():
            yield f"{kind} ablation", bool(estimate.high[head] < 0), f"{estimate.text(head)} logits"
        if direct is not None and role == "answer":
            yield "direct contribution", bool(direct.low[head] > 0), f"{direct.text(head)} logits"

    def agreement_of(self, head: int) -> str:
        """What every method says of a head, in words; for a head without a label only what contradicts that."""
        if self.heads.label(head) == "none":
            return "; ".join(self._unexplained(head))
        checks = list(self.checks(head))
        yes = [name for name, agrees, _ in checks if agrees]
        no = [f"{name} {size}" for name, agrees, size in checks if not agrees]
        if not no:
            return f"all {len(yes)} agree"
        return f"agree: {', '.join(yes)}; disagree: {', '.join(no)}"

    def _unexplained(self, head: int) -> Iterator[str]:
        """Signs of a head that is not labelled: worth knowing, since a label needs patching at these words."""
        for cell in self.heads.cells:
            if cell.against[head]:
                yield f"works against the answer at {cell.role}: {cell.direction} {cell.effect.text(head)}"
            if cell.counts[head] and not self.heads.believed(cell, head):
                size = f"{cell.direction} at {cell.role} {cell.effect.text(head)}"
                yield f"{size}, but it does not look at {self.heads.meeting.other}"
        least, direct = self.heads.minimum_effect * abs(self.heads.gap), self.heads.contribution
        hurts = [one for one in self.heads.ablation.values() if one.high[head] < 0 and one.mean[head] <= -least]
        if hurts and len(hurts) == len(self.heads.ablation):
            mildest = max(hurts, key=lambda one: one.mean[head])
            yield f"every ablation hurts (the mildest by {mildest.text(head)} logits), though patching here does little"
        if direct is not None and direct.low[head] > 0 and direct.mean[head] >= least:
            yield f"writes {direct.text(head)} logits directly, though patching here does little"
        for direction, one in self.heads.everywhere.items():
            if one.mean[head] >= self.heads.minimum_effect and one.low[head] > 0:
                yield f"{direction} at all words at once {one.text(head)}, so it acts at a word that was not tested"

    def agreement(self) -> str:
        """How many labelled heads all methods agree on, and what the probe says."""
        named = self.heads.labelled("mover") + self.heads.labelled("reader")
        agreeing = sum(all(agrees for _, agrees, _ in self.checks(head)) for head in named)
        heads = f"Every method that was run agrees on {agreeing} of {len(named)} named heads." if named else ""
        return " ".join(part for part in (heads, self.probe) if part) or "No head is named."

    def disagreement(self) -> str:
        """Heads on which the methods do not agree, spelled out."""
        named = self.heads.labelled("mover") + self.heads.labelled("reader")
        rest = [head for head in range(len(self.heads)) if head not in named]
        parts = [f"{self.heads.names[head]} ({self.heads.label(head)}): {self.agreement_of(head)}" for head in named]
        lines = [part for part in parts if "disagree" in part]
        lines += [f"{self.heads.names[head]}: {self.agreement_of(head)}" for head in rest if self.agreement_of(head)]
        if len(lines) > LISTED:
            lines[LISTED:] = [f"{len(lines) - LISTED} more heads: see the table"]
        return ". ".join(lines) or "none"

    # ---- in words ----

    def sentence(self) -> str:
        """Which heads bring the context to the word and which read it there."""
        if not self.heads.cells:
            lacking = "activation_patching"
            if lacking not in self.missing:
                lacking = "head patched at one of these words with a gap that is large enough to divide by"
            return f"Which heads carry {self.thing} is not answered: this run has no {lacking}."
        movers, readers = self.heads.labelled("mover"), self.heads.labelled("reader")
        if not movers and not readers:
            return f"No single head stands out: {self._largest(None)}."
        read = " and ".join(
            f"at {self._place(role)} by {self._listed(found)}" for role, found in self._by_place(readers)
        )
        where, own = self._place(self.heads.meeting.role), self.heads.meeting.source_is_last
        if not movers:
            measured = any(cell.role in self.heads.meeting.places for cell in self.heads.cells)
            why = self._largest(self.heads.meeting.places) if measured else "nothing was patched there"
            brings = f"brings {self.thing} to {where}"
            if own:
                brings = f"brings {self._place(self.heads.meeting.other)} to {self.thing}'s own word"
            return f"No single head {brings} ({why}); {self.thing} is read {read}."
        ways = []
        for role, found in self._by_place(movers):
            meets = own and role == self.heads.meeting.role
            reaches = (
                f"meets {self._place(self.heads.meeting.other)} at its own word"
                if meets
                else f"reaches {self._place(role)}"
            )
            ways.append(f"{reaches} through {self._listed(found)}")
        route = f"{self.thing[0].upper()}{self.thing[1:]} {' and '.join(ways)}"
        if not readers and set(self.vocabulary.readers or ()) <= set(self.heads.meeting.places):
            return f"{route}."
        if not readers:
            return f"{route}, and no single head stands out as the one that reads it there."
        return f"{route}, and is read {read}."

    def _by_place(self, heads: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Labelled heads by the role where they act, the strongest first."""
        roles = dict.fromkeys(self.heads.acts_at(head) for head in heads)
        return [(role, [head for head in heads if self.heads.acts_at(head) == role]) for role in roles]

    def _listed(self, heads: Sequence[int]) -> str:
        """Heads with their numbers: the first in full, two more in short, the rest counted."""
        told = [f"{self.heads.names[head]} ({self._told(head, brief=head != heads[0])})" for head in heads[:NAMED]]
        if len(heads) > NAMED:
            told.append(f"{len(heads) - NAMED} more")
        return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"

    def _told(self, head: int, *, brief: bool) -> str:
        role, said = self.heads.acts_at(head), []
        here = {cell.direction: cell for cell in self.heads.cells if cell.role == role}
        edge = self.heads.strongest_edge(head)
        if edge is not None and not brief:
            weight = number(self.heads.attention[edge].mean[head])
            said.append(f"attention to {self._place(edge.partition('<-')[2])} {weight}")
        for direction, verb, how in (("denoising", "recovered", "in alone"), ("noising", "lost", "out")):
            if direction in here:
                effect = here[direction].effect
                size = number(effect.mean[head]) if brief else f"{effect.text(head)} when patched {how}"
                said.append(f"{verb} {size}")
        if len(here) == 2 and self.heads.directions(head) != "both":
            said.append(self._one_way(head, here))
        counting = [cell.effect for cell in here.values() if cell.counts[head]]
        if any(effect.high[head] - effect.low[head] > WIDE for effect in counting):
            said.append("a wide interval" if brief else "a wide interval, so take the size as rough")
        return ", ".join(said)

    def _one_way(self, head: int, here: Mapping[str, Cell]) -> str:
        """What to say of a head whose effect counts in one direction only: absent in the other, or just not certain."""
        counts, other = ("denoising", "noising") if here["denoising"].counts[head] else ("noising", "denoising")
        effect = here[other].effect
        if effect.mean[head] >= self.heads.minimum_effect and effect.low[head] > 0:
            return f"certain only when patched {'in' if counts == 'denoising' else 'out'}"
        return "sufficient but not needed" if counts == "denoising" else "needed but not sufficient"

    def _largest(self, roles: Sequence[str] | None) -> str:
        """The largest effect that still does not count, at some roles or anywhere."""
        cells = [
            cell
            for cell in self.heads.cells
            if (roles is None or cell.role in roles) and np.isfinite(cell.effect.mean).any()
        ]
        if not cells:
            return "no effect could be measured, since the gap between clean and corrupted is too small"
        cell = max(cells, key=lambda cell: float(np.nanmax(cell.effect.mean)))
        head = int(np.nanargmax(cell.effect.mean))
        effect = cell.effect.mean[head]
        if effect < self.heads.minimum_effect:
            why = f"below the {self.heads.minimum_effect:.2f} that counts"
        elif cell.counts[head]:
            why = f"of a head that does not look at {self._place(self.heads.meeting.other)}"
        else:
            why = f"not certain among {self.heads.n_tested} cells tried (adjusted p {cell.p_values[head]:.2g})"
        return (
            f"the largest effect is {self.heads.names[head]} at {self._place(cell.role)} with "
            f"{cell.effect.text(head)} of the gap ({cell.direction}), {why}"
        )

    def limits(self, model: str) -> str:
        """What the labels do not say."""
        places = ", ".join(dict.fromkeys(self._place(cell.role) for cell in self.heads.cells)) or "no role"
        said = [
            f"A label is about one head patched alone at {places}: heads that only work together, or at other words, "
            "have none",
            self.heads.meeting.note,
        ]
        if len(set(self.n_prompts.values())) > 1:
            counts = ", ".join(f"{name} {n}" for name, n in self.n_prompts.items())
            said.append(f"the analyses used different numbers of prompts ({counts})")
        said += [
            f"{name} cannot be asked of these prompts: {reason.rstrip('.')}" for name, reason in self.not_asked.items()
        ]
        if self.missing:
            said.append(f"not run: {', '.join(self.missing)}")
        if model == mini.NAME:
            said.append(mini.CAVEAT)
        return "; ".join(said) + "."

    # ---- as arrays ----

    def coords(self) -> dict[str, Any]:
        if not len(self.heads):
            return {}
        coords: dict[str, Any] = {
            "head_label": self.heads.names,
            "layer": ("head_label", self.heads.layer),
            "head": ("head_label", self.heads.head),
        }
        directions = list(dict.fromkeys(direction for _, direction in self.heads.recovered))
        coords |= {"direction": directions} if directions else {}
        return coords | ({"ablation": list(self.heads.ablation)} if self.heads.ablation else {})

    def variables(self) -> dict[str, Variable]:
        """The columns of the head table, and their intervals."""
        if not len(self.heads):
            return {}
        rows = range(len(self.heads))
        out = {
            name: Variable(("head_label",), np.array([tell(head) for head in rows]), "", long_name)
            for name, tell, long_name in (
                ("label", self.heads.label, "mover, reader or none"),
                ("acts_at", self.heads.acts_at, "acts at"),
                ("directions", self.heads.directions, "directions that count"),
                ("agreement", self.agreement_of, "what the methods say"),
            )
        }
        edge = f"{self.heads.arrival}<-{self.heads.meeting.other}"
        if edge in self.heads.attention:
            out |= _columns("attention", [self.heads.attention[edge]], None, "share", f"attention {edge}")
        for role in dict.fromkeys(role for role, _ in self.heads.recovered):
            estimates = [one for (at, _), one in self.heads.recovered.items() if at == role]
            out |= _columns(f"recovered_z_{role}", estimates, "direction", "fraction", f"recovered, z at {role}")
        if self.heads.contribution is not None:
            out |= _columns("contribution", [self.heads.contribution], None, "logits", "direct contribution")
        if self.heads.ablation:
            estimates = list(self.heads.ablation.values())
            out |= _columns("ablation_effect", estimates, "ablation", "logits", "ablated - clean logit difference")
        if self.heads.cells:
            smallest = np.min([cell.p_values for cell in self.heads.cells], axis=0)
            out["p_value"] = Variable(("head_label",), smallest, "", "smallest p-value, adjusted over all cells")
        return out


def _columns(
    name: str, estimates: Sequence[Estimate], dim: str | None, units: str, long_name: str
) -> dict[str, Variable]:
    dims = ("head_label",) if dim is None else (dim, "head_label")
    mean = np.stack([one.mean for one in estimates])
    both = np.stack([np.stack([one.low, one.high], axis=-1) for one in estimates])
    return {
        name: Variable(dims, mean[0] if dim is None else mean, units, long_name),
        f"{name}_interval": Variable(
            (*dims, "ci_bound"), both[0] if dim is None else both, units, f"95% bootstrap interval of {long_name}"
        ),
    }


def _measured(used: Mapping[str, xr.Dataset]) -> str:
    """What the effects are effects on, where that is not the answer's logit difference."""
    patching = used.get("activation_patching")
    metric = "logit_difference" if patching is None else str(patching.attrs.get("metric", "logit_difference"))
    if metric == "logit_difference":
        return ""
    said = f" The effects are on this read-out: {metric.replace('_', ' ')}."
    if metric.startswith("projection"):
        said += " Heads and words that come after what it reads cannot change it."
    return said


def _on_fewer(sentence: str, used: Mapping[str, xr.Dataset], n: int) -> str:
    """The sentence, with the number of prompts it rests on where that is smaller than the number of the gate."""
    explained = min((int(used[name].attrs["n_prompts"]) for name in EXPLAINING if name in used), default=n)
    if explained >= n:
        return sentence
    return f"On the {explained} of them that were patched, {sentence[0].lower()}{sentence[1:]}"


def _probe(probing: xr.Dataset | None, role: str, vocabulary: Vocabulary) -> str:
    """Where a probe reads the source best at a role, with its control, and what may be doubted of that."""
    if probing is None or role not in probing["role"].values:
        return ""
    means = probing[["accuracy", "control_accuracy"]].sel(role=role).mean("fold").isel(site=0)
    accuracy = means["accuracy"].values
    if not np.isfinite(accuracy).any():
        return ""
    best = int(np.nanargmax(accuracy))
    control, layer = float(means["control_accuracy"].values[best]), means["layer"].values[best]
    chance, held_out = float(probing["chance"]), str(probing.attrs.get("held_out_in_words", "the group"))
    thing, place = (vocabulary.name(name) for name in (str(probing.attrs["target"]), role))
    figures = f"{accuracy[best]:.2f} with {held_out} held out, control {control:.2f}, chance {chance:.2f}"
    if accuracy[best] <= chance:
        return f"No probe reads {thing} at {place}: the best, at layer {layer}, has {figures}."
    doubt = "; memory alone can do as much" if accuracy[best] <= control else ""
    return f"A probe reads {thing} at {place} best at layer {layer}: {figures}{doubt}."


# ---- the result ----


@dataclass(frozen=True)
class _Origin:
    """Provenance taken over from the results that are joined."""

    attrs: Mapping[str, Any]

    def provenance(self) -> dict[str, str | int]:
        """What identifies the model and the prompts."""
        keys = ("task", "n_prompts", "tokens_sha256", *_IDENTITY)
        return {key: self.attrs[key] for key in keys if key in self.attrs}


def _build(
    used: Mapping[str, xr.Dataset],
    variables: Mapping[str, Variable],
    coords: Mapping[str, Any],
    extra: Mapping[str, str | int | float],
    seed: int,
    about: Sequence[str],
    vocabulary: Vocabulary,
) -> xr.Dataset:
    readers = [vocabulary.name(role) for role in vocabulary.readers or () if role != vocabulary.target]
    read = f" reader: patching it at {' or at '.join(readers)} does." if readers else ""
    first = next(used[name] for name in about if name in used)
    return labelled.build(
        variables,
        coords={**coords, "ci_bound": ["lower", "upper"]},
        title="Verdict",
        question="Which heads bring the context to the word, which read it there, and do the methods agree?",
        reading=f"mover: patching this head alone where source and target meet changes the answer.{read} "
        "Effects count from the stated minimum, with p adjusted over all heads.",
        source="max-T: Westfall and Young 1993; patching directions: Heimersheim and Nanda 2024, arXiv 2404.15255",
        of=(_Origin(first.attrs),),
        seed=seed,
        extra=extra,
    )
