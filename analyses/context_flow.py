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
from jaxtyping import Float

from analyses import claims
from analyses.head_evidence import LEVEL, MINIMUM_EFFECT, Cell, Estimate, Evidence, ends, number, rung_index
from analyses.looking import Look
from interp import _depth as depth
from interp import mini, stats, summary
from interp import results as labelled
from interp.errors import InterpError, shown
from interp.language import LANGUAGES, in_each, key, listed, say, say_stored, sentence, speaking, spoken
from interp.prompts.vocabulary import DOES_NOT, GUESSING, PREFERS, Vocabulary
from interp.results import Variable

if TYPE_CHECKING:
    from interp.prompts import PromptPairs

EXPLAINING = ("activation_patching", "head_attribution", "probing")
VOTING = ("logit_lens", "places", "circuit", "qk_attribution", "head_roles", "composition")
"""Analyses that no label rests on and that vote on the claims."""
OF_WEIGHTS = ("composition",)
"""Those of them that are about no prompts."""
WIDE = 0.3
"""An interval of a recovered fraction that is wider than this is called wide in the answer."""
NAMED = 3
"""At most this many heads of a kind are named in the answer; the rest are counted."""
HALF = 0.5
"""Below this share of the gap the source passes through the target in part only."""
TRACE = 0.01
"""From this share of the gap, too little to count but surely there, hardly anything passes; below, nothing."""
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
    minimum_effect: float = MINIMUM_EFFECT,
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
        not_asked: analysis -> why it could not be asked of these prompts or this model, to be told among the limits.

    Returns:
        Per head (``head_label``): ``label``, ``acts_at`` (role), ``directions`` (``both``, or the one that counts),
        ``agreement`` (what each method says), ``p_value`` (smallest adjusted), and the means with 95% intervals
        (``*_interval``) of ``attention`` (meeting role to the other, a share), ``recovered_z_{role}`` (direction),
        ``contribution`` (logits) and ``ablation_effect`` (ablation, logits), as far as they were measured. Attributes
        ``answer_short`` (one sentence that says yes or no first: does the source pass through the target?), ``answer``,
        ``gate`` (passed or failed), ``outcome`` (as in ``behavior``), ``gate_reason``, ``rung``, ``meeting``,
        ``meeting_note``, ``also_needed`` (the heads that the answer needs beside, empty if none), ``agreement``,
        ``disagreement``, ``limits``. Where a patch of one component counts, also one row per ``claim``: what it does
        (``claim_component``, ``claim_job``: moves, stores, reads out, inhibits or positions only; ``claim_role``), the
        ``vote`` of every ``voter`` on it (1 supports, 0 cannot tell, -1 contradicts, NaN not measured) with
        ``vote_size`` and ``vote_interval``, and ``claim_grade`` (supported by all, supported by some, contradicted).
        What is said in words is said in Spanish too, under the same name with ``_es``. If the behaviour gate failed
        there are no heads, and the answer says so; a gate opened for a model that only guesses has failed all the same.

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
    used = {name: results[name] for name in ("behavior", *EXPLAINING, *VOTING) if name in results}
    _check_same(used)
    vocabulary = _vocabulary(used, source, target)
    behavior = _Behavior.of(used, vocabulary)
    extra: dict[str, str | int | float] = {
        "rung": behavior.rung,
        "gate": "passed" if behavior.passes else "failed",
        "outcome": behavior.outcome,
        "source_role": vocabulary.source or "",
        "target_role": vocabulary.target or "",
        "vocabulary": vocabulary.as_json(),
        "minimum_effect": minimum_effect,
        "level": LEVEL,
        **summary.usual_attrs(),
    }
    if not behavior.passes or vocabulary.source is None or vocabulary.target is None:
        extra |= in_each(behavior.alone)
        return _build(used, behavior.variables(), {}, extra, seed, ("behavior",), vocabulary)
    verdict = _Verdict.of(used, vocabulary, minimum_effect, seed, not_asked or {})
    extra |= {"meeting": verdict.heads.arrival, "n_cells_tested": verdict.heads.n_tested}
    extra |= in_each(lambda: {**behavior.said(), **verdict.said(behavior, used)})
    found = claims.of(verdict.heads, used, vocabulary, minimum_effect)
    coords, about = {**verdict.coords(), **claims.coords(found)}, (*EXPLAINING, "behavior")
    columns = {**behavior.variables(), **verdict.variables(), **claims.variables(found, vocabulary)}
    return _build(used, columns, coords, extra, seed, about, vocabulary)


# ---- what the results are about ----


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
    of_one = (
        ("weights_sha256", tuple(used)),
        ("task", tuple(name for name in (*EXPLAINING, *VOTING) if name in used and name not in OF_WEIGHTS)),
    )
    for attribute, names in of_one:
        values = {name: str(used[name].attrs[attribute]) for name in names}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{name} {value[:24]}" for name, value in values.items())
            raise InterpError(
                f"The results to join have different {attribute} ({listed}). Join the results of one run."
            )


@dataclass(frozen=True)
class _Behavior:
    """What the model does on the rung that is explained; ``reasons`` is what the gate says of it, by language."""

    model: str
    task: str
    rung: str
    passes: bool
    opened: bool
    outcome: str
    reasons: Mapping[str, str]
    n: int
    accuracy: float
    interval: tuple[float, float]
    preferred: float
    vocabulary: Vocabulary

    @classmethod
    def of(cls, used: Mapping[str, xr.Dataset], vocabulary: Vocabulary) -> _Behavior:
        index = rung_index(used)
        row = used["behavior"].isel(rung=index)
        low, high = (float(bound) for bound in row["accuracy_interval"].values)
        above = _above_guessing(float(row["preferred"].values), int(row["n"].values))
        rung, task = str(row["rung"].values), str(used["behavior"].attrs["task"]).partition("/")[0]
        named = {language: key("reason", language) for language in LANGUAGES}
        return cls(
            model=str(used["behavior"].attrs["model"]),
            task=task if task == rung else f"{task}/{rung}",
            rung=rung,
            passes=bool(row["passes"].values) and above,
            opened=bool(row["passes"].values) and not above,
            outcome=str(row["outcome"].values) if above else DOES_NOT,
            reasons={language: str(row[name].values) for language, name in named.items() if name in row},
            n=int(row["n"].values),
            accuracy=float(row["accuracy"].values),
            interval=(low, high),
            preferred=float(row["preferred"].values),
            vocabulary=vocabulary,
        )

    def reason(self) -> str:
        """What the gate says of it, in English where the baselines say nothing else; or why they do not suffice."""
        if self.opened:
            return say(
                "the gate is open, but preferring the right answer on {preferred:.0%} of {n} prompts is not above "
                "guessing, and what a head does to a guess is chance",
                preferred=self.preferred,
                n=self.n,
            )
        return self.reasons.get(spoken(), self.reasons.get(LANGUAGES[0], ""))

    def said(self) -> dict[str, str]:
        """What is said of it however the explanation goes."""
        return {"gate_reason": self.reason()}

    def alone(self) -> dict[str, str]:
        """What is said where nothing is explained: the gate failed, or there is no source to ask about."""
        if self.passes:
            no_source = say(
                "Which heads carry it cannot be asked: clean and corrupted differ in no word that has a role. Name "
                "that word as a role of the prompts."
            )
            short = say("Not answered: clean and corrupted differ in no word that has a role.")
            return {**self.said(), "answer_short": short, "answer": f"{self.sentence()} {no_source}"}
        reason = self.reason()
        for word in (say("passes: {why}", why=""), say("fails: {why}", why="")):
            reason = reason.removeprefix(word)
        return {
            **self.said(),
            "answer_short": say(
                "No: {model} does not do {task}, so there is nothing to explain.", model=self.model, task=self.task
            ),
            "answer": say(
                "{model} does not do {task} ({reason}). So nothing is explained and no head is named.",
                model=self.model,
                task=self.task,
                reason=reason,
            ),
        }

    def sentence(self) -> str:
        low, high = self.interval
        told: dict[str, Any] = {
            "n": self.n, "task": self.task, "model": self.model, "wanted": self.vocabulary.correct(),
            "preferred": self.preferred, "accuracy": self.accuracy, "low": low, "high": high,
        }  # fmt: skip
        if self.outcome == PREFERS:
            return say(
                "On {n} prompts of {task} {model} prefers {wanted} to the other answer in {preferred:.0%} but does not "
                "say it: it is the top token in {accuracy:.0%} (95% CI {low:.0%} to {high:.0%}).",
                **told,
            )
        return say(
            "On {n} prompts of {task} {model} gives {wanted} as its top token in {accuracy:.0%} (95% CI {low:.0%} to "
            "{high:.0%}) and prefers it to the other answer in {preferred:.0%}.",
            **told,
        )

    def variables(self) -> dict[str, Variable]:
        return {
            "accuracy": Variable((), self.accuracy, "share", "share of clean prompts whose top token is correct"),
            "accuracy_interval": Variable(
                ("ci_bound",), list(self.interval), "share", "95% Wilson interval of accuracy"
            ),
            "preferred": Variable((), self.preferred, "share", "share of clean prompts that prefer the correct answer"),
        }


def _above_guessing(preferred: float, n: int) -> bool:
    """Whether the right answer is preferred more often than by guessing, whatever the gate was told to let through.

    The prompts share their few answers, so that in a model which does not do the task a head's effects on them agree
    by chance more often than independent ones would, and no correction for the number of heads sees that.
    """
    return stats.wilson_interval(round(preferred * n), n)[0] > GUESSING


# ---- what the evidence says, in words and as a table ----


@dataclass(frozen=True)
class _Verdict:
    """The evidence on the heads, and what else the words need."""

    heads: Evidence
    vocabulary: Vocabulary
    n_prompts: Mapping[str, int]
    missing: tuple[str, ...]
    not_asked: Mapping[str, str]
    probing: xr.Dataset | None

    @classmethod
    def of(
        cls,
        used: Mapping[str, xr.Dataset],
        vocabulary: Vocabulary,
        minimum_effect: float,
        seed: int,
        not_asked: Mapping[str, str],
    ) -> _Verdict:
        return cls(
            heads=Evidence.of(used, vocabulary, minimum_effect, seed),
            vocabulary=vocabulary,
            n_prompts={name: int(data.attrs["n_prompts"]) for name, data in used.items() if name in EXPLAINING},
            missing=tuple(name for name in EXPLAINING if name not in used and name not in not_asked),
            not_asked=not_asked,
            probing=used.get("probing"),
        )

    @property
    def thing(self) -> str:
        """The source within a sentence."""
        return self._place(ends(self.vocabulary)[0])

    def _place(self, role: str) -> str:
        """A role within a sentence."""
        return self.vocabulary.name(role)

    def said(self, behavior: _Behavior, used: Mapping[str, xr.Dataset]) -> dict[str, str]:
        """Everything that is said in words, by the attribute that holds it."""
        parts = (
            behavior.sentence(),
            _on_fewer(self.sentence(), used, behavior.n) + _measured(used),
            self.at_target(),
            self.needed(),
            self.elsewhere(),
            self.reason_to_look(used.get("qk_attribution")),
        )
        return {
            "answer_short": self.short(),
            "answer": " ".join(part for part in parts if part),
            "also_needed": self.needed(),
            "meeting_note": self.heads.meeting.note(),
            "agreement": self.agreement(),
            "disagreement": self.disagreement(),
            "limits": self.limits(behavior.model),
        }

    # ---- yes or no ----

    def short(self) -> str:
        """One sentence: whether the source passes through the target, and which way it goes."""
        if not self.heads.cells and self.heads.passage is None:
            return say("Not answered: no head was measured at one of these words.")
        route = self._route()
        return say("{verdict}; {route}.", verdict=self._yes_or_no(), route=route) if route else f"{self._yes_or_no()}."

    def _yes_or_no(self) -> str:
        """Whether the source passes through the target: by patching all its stream, else by the heads acting there."""
        meeting, passage = self.heads.meeting, self.heads.passage
        ends_at: dict[str, Any] = {"source": self.thing, "target": self._place(ends(self.vocabulary)[1])}
        if meeting.answers:  # the gate has shown that the answer, which is given there, follows the source
            return say("Yes: {source} reaches {target}", **ends_at)
        if meeting.source_is_last:
            return say("No: {target} stands before {source}, and attention only looks back", **ends_at)
        if passage is None:
            if any(self.heads.acts_at(head) == meeting.role for head in self.heads.labelled("mover")):
                return say("Yes: {source} passes through {target}", **ends_at)
            return say("Not measured: whether {source} passes through {target}", **ends_at)
        if passage.passes is None:
            return say("Not certain: whether {source} passes through {target} cannot be told here", **ends_at)
        if not passage.passes:
            if passage.effect.mean[0] >= TRACE and passage.effect.low[0] > 0:
                return say("No: hardly anything of {source} passes through {target}", **ends_at)
            return say("No: {source} does not pass through {target}", **ends_at)
        if passage.effect.mean[0] < HALF:
            return say("Yes, in part: {source} passes through {target}", **ends_at)
        return say("Yes: {source} passes through {target}", **ends_at)

    def _route(self) -> str:
        """The way that the source takes, as a clause."""
        movers, readers = self.heads.labelled("mover"), self.heads.labelled("reader")
        if not movers and not readers:
            return self._without_heads() if self.heads.cells else ""
        parts = []
        for role, found in self._by_place(movers):
            heads, meeting = self._carrying(found, role), self.heads.meeting
            if role != meeting.role:
                parts.append(say("it goes to {where} through {heads}", where=self._place(role), heads=heads))
            elif meeting.source_is_last:
                other = self._place(meeting.other)
                parts.append(say("it meets {other} at its own word through {heads}", other=other, heads=heads))
            else:
                parts.append(say("it comes there through {heads}", heads=heads))
        places = {role for role, _ in self._by_place(movers)}
        for role, found in self._by_place(readers):
            edge = self.heads.strongest_edge(found[0])
            onwards = edge is not None and edge.partition("<-")[2] in places
            told = {"where": self._place(role), "heads": self._carrying(found, role)}
            if onwards:
                parts.append(say("from there to {where} through {heads}", **told))
            elif movers or not self.heads.meeting.source_is_last:
                parts.append(say("it is read at {where} by {heads}", **told))
            else:
                parts.append(say("{source} is read at {where} by {heads}", source=self.thing, **told))
        if movers:
            return listed(parts)
        if self.heads.meeting.source_is_last:
            other = self._place(self.heads.meeting.other)
            return say(
                "no single head stands out that brings {other} to {source}, and {way}",
                other=other, source=self.thing, way=listed(parts),
            )  # fmt: skip
        return say("no single head stands out that brings it, and {way}", way=listed(parts))

    def _without_heads(self) -> str:
        """The way where no single head stands out: the words whose stream carries the source, if it was patched."""
        if self.heads.too_few is not None:
            return say("on {n} prompts no head can be told from chance: give more", n=self.heads.too_few)
        if self.heads.passage is None:
            return say("no single head stands out")
        if not self.heads.stations:
            return say("no single head stands out, and no other word measurably carries it")
        places = listed([self._place(role) for role in self.heads.stations])
        return say("no single head stands out, though the residual stream at {places} carries it", places=places)

    def _named(self, heads: Sequence[int]) -> str:
        """Heads by name, the rest counted."""
        told = [self.heads.names[head] for head in heads[:NAMED]]
        return listed(told + self._more(heads))

    def _carrying(self, heads: Sequence[int], role: str) -> str:
        """Heads by name, and whether they do only a part: less than half in either direction, all of them together."""
        sums = [float(cell.effect.mean[list(heads)].sum()) for cell in self.heads.cells if cell.role == role]
        named = self._named(heads)
        return say("{heads} (in part)", heads=named) if sums and max(sums) < HALF else named

    def _more(self, heads: Sequence[int]) -> list[str]:
        """How many heads are left out of a list of them."""
        return [say("{count} more", count=len(heads) - NAMED)] if len(heads) > NAMED else []

    def at_target(self) -> str:
        """The figures behind yes or no."""
        passage = self.heads.passage
        if passage is None or self.heads.meeting.answers or self.heads.meeting.source_is_last:
            return ""
        told: dict[str, Any] = {
            "target": self._place(ends(self.vocabulary)[1]),
            "size": passage.effect.text(0),
            "depth": depth.of("resid_pre", passage.layer),
        }
        if passage.direction == "denoising":
            return say(
                "Patching all of the residual stream at {target} recovers at most {size} of the gap ({depth}).", **told
            )
        return say("Patching all of the residual stream at {target} loses at most {size} of the gap ({depth}).", **told)

    def needed(self) -> str:
        """The heads without which the answer is lost though they carry nothing of the source."""
        found = [
            head
            for head in range(len(self.heads))
            if claims.is_needed(self.heads, head) and claims.moves_nothing(self.heads, head)
        ]
        found.sort(key=lambda head: float(claims.mildest(self.heads, head).mean[head]))
        if not found:
            return ""
        costs = [number(-claims.mildest(self.heads, head).mean[head]) for head in found[:NAMED]]
        return say(
            "The answer also needs {heads} (each ablation costs at least {costs} logits), though patching them alone "
            "moves little: what they do is the same in both prompts.",
            heads=self._named(found),
            costs=listed(costs + (["..."] if len(found) > NAMED else [])),
        )

    def elsewhere(self) -> str:
        """The heads that carry something of the source at words where heads were not patched."""
        found = [
            head for head in range(len(self.heads)) if self.heads.label(head) == "none" and self._acts_unseen(head)
        ]
        if not found:
            return ""
        whole = self.heads.everywhere["denoising"]
        found.sort(key=lambda head: -whole.mean[head])
        sizes = [f"{self.heads.names[head]} {number(whole.mean[head])}" for head in found[:NAMED]]
        return say(
            "Part of the work is done at words where no head was patched alone; patched at all words at once, these "
            "heads bring back so much of the gap: {heads}.",
            heads=listed(sizes + self._more(found)),
        )

    def _acts_unseen(self, head: int) -> bool:
        """Whether patching the head in at all words at once counts, though nowhere does by itself."""
        one = self.heads.everywhere.get("denoising")
        return one is not None and bool(one.mean[head] >= self.heads.minimum_effect and one.low[head] > 0)

    def reason_to_look(self, qk_attribution: xr.Dataset | None) -> str:
        """Why a named head looks where it acts, if that was asked of it."""
        look = Look.of(qk_attribution)
        named = self.heads.labelled("mover") + self.heads.labelled("reader")
        if look is None or not any(look.is_of(self.heads.names[head], self.heads.acts_at(head)) for head in named):
            return ""
        return look.text(self.vocabulary)

    # ---- do the methods agree ----

    def checks(self, head: int) -> Iterator[tuple[str, bool, str]]:
        """(method, whether it points the way the label does, number), for a labelled head."""
        role, edge, direct = self.heads.acts_at(head), self.heads.strongest_edge(head), self.heads.contribution
        if edge is not None:
            src, weight = edge.partition("<-")[2], self.heads.attention[edge].mean[head]
            looks = bool(self.heads.looks(head, role, src))
            yield say("attention to {word}", word=self._place(src)), looks, number(weight)
        for cell in self.heads.cells:
            if cell.role == role:
                yield cell.direction, bool(cell.counts[head]), cell.effect.text(head)
        for kind, estimate in self.heads.ablation.items():
            size = say("{size} logits", size=estimate.text(head))
            yield say_stored(f"{kind} ablation"), bool(estimate.high[head] < 0), size
        if direct is not None and role == "answer":
            size = say("{size} logits", size=direct.text(head))
            yield say("direct contribution"), bool(direct.low[head] > 0), size

    def agreement_of(self, head: int) -> str:
        """What every method says of a head, in words; for a head without a label only what contradicts that."""
        if self.heads.label(head) == "none":
            return "; ".join(self._unexplained(head))
        checks = list(self.checks(head))
        yes = [name for name, agrees, _ in checks if agrees]
        no = [f"{name} {size}" for name, agrees, size in checks if not agrees]
        if not no:
            return say("all {count} agree", count=len(yes))
        return say("agree: {yes}; disagree: {no}", yes=", ".join(yes), no=", ".join(no))

    def _unexplained(self, head: int) -> Iterator[str]:
        """Signs of a head that is not labelled: worth knowing, since a label needs patching at these words."""
        for cell in self.heads.cells:
            told = {"direction": cell.direction, "role": self._place(cell.role), "size": cell.effect.text(head)}
            if cell.against[head]:
                yield say("works against the answer at {role}: {direction} {size}", **told)
            if cell.counts[head] and not self.heads.believed(cell, head):
                other = self._place(self.heads.meeting.other)
                yield say("{direction} at {role} {size}, but it does not look at {other}", other=other, **told)
        least, direct = self.heads.minimum_effect * abs(self.heads.gap), self.heads.contribution
        little = not any(cell.counts[head] or cell.against[head] for cell in self.heads.cells)
        if claims.is_needed(self.heads, head):
            size = claims.mildest(self.heads, head).text(head)
            yield (
                say("every ablation hurts (the mildest by {size} logits), though patching here does little", size=size)
                if little
                else say("every ablation hurts (the mildest by {size} logits)", size=size)
            )
        if direct is not None and direct.low[head] > 0 and direct.mean[head] >= least:
            size = direct.text(head)
            yield (
                say("writes {size} logits directly, though patching here does little", size=size)
                if little
                else say("writes {size} logits directly", size=size)
            )
        for direction, one in self.heads.everywhere.items():
            if one.mean[head] >= self.heads.minimum_effect and one.low[head] > 0:
                yield say(
                    "{direction} at all words at once {size}, so it acts at a word that was not tested",
                    direction=direction,
                    size=one.text(head),
                )

    def agreement(self) -> str:
        """How many labelled heads all methods agree on, and what the probe says."""
        named = self.heads.labelled("mover") + self.heads.labelled("reader")
        agreeing = sum(all(agrees for _, agrees, _ in self.checks(head)) for head in named)
        heads = ""
        if len(named) == 1 and not agreeing:
            heads = say("The methods that measure heads do not all agree on the one named head.")
        elif named and not agreeing:
            heads = say("The methods that measure heads agree on none of the {count} named heads.", count=len(named))
        elif named:
            heads = say(
                "Every method that measures heads agrees on {agreeing} of {count} named heads.",
                agreeing=agreeing,
                count=len(named),
            )
        probe = _probe(self.probing, self.heads.arrival, self.vocabulary)
        return " ".join(part for part in (heads, probe) if part) or say("No head is named.")

    def disagreement(self) -> str:
        """Heads on which the methods do not agree, spelled out."""
        named = self.heads.labelled("mover") + self.heads.labelled("reader")
        rest = [head for head in range(len(self.heads)) if head not in named]
        lines = [
            f"{self.heads.names[head]} ({say_stored(self.heads.label(head))}): {self.agreement_of(head)}"
            for head in named
            if not all(agrees for _, agrees, _ in self.checks(head))
        ]
        lines += [f"{self.heads.names[head]}: {self.agreement_of(head)}" for head in rest if self.agreement_of(head)]
        if len(lines) > LISTED:
            lines[LISTED:] = [say("{count} more heads: see the table", count=len(lines) - LISTED)]
        return ". ".join(lines) or "none"

    # ---- in words ----

    def sentence(self) -> str:
        """Which heads bring the context to the word and which read it there."""
        if not self.heads.cells:
            return say("Which heads carry {source} is not answered: {why}.", source=self.thing, why=self._unanswered())
        movers, readers = self.heads.labelled("mover"), self.heads.labelled("reader")
        if not movers and not readers:
            if self.heads.too_few is not None:
                return say(
                    "With {n} prompts no p-value can be as low as {level}, so that no head is named whatever its "
                    "effect: {largest}. Six are the least, and more are better (--n).",
                    n=self.heads.too_few, level=LEVEL, largest=self._largest(None),
                )  # fmt: skip
            return say("No single head stands out: {largest}.", largest=self._largest(None))
        read = self._joined([
            say("at {where} by {heads}", where=self._place(role), heads=self._listed(found))
            for role, found in self._by_place(readers)
        ])  # fmt: skip
        if not movers:
            return self._only_read(read)
        where, own = self.heads.meeting, self.heads.meeting.source_is_last
        ways = []
        for role, found in self._by_place(movers):
            if own and role == where.role:
                ways.append(
                    say(
                        "meets {other} at its own word through {heads}",
                        other=self._place(where.other),
                        heads=self._listed(found),
                    )
                )
            else:
                ways.append(say("reaches {where} through {heads}", where=self._place(role), heads=self._listed(found)))
        route = sentence(f"{self.thing} {self._joined(ways)}")
        if readers:
            return say("{route}, and is read {read}.", route=route, read=read)
        if set(self.vocabulary.readers or ()) <= set(where.places):
            return f"{route}."
        return say("{route}, and no single head stands out as the one that reads it there.", route=route)

    @staticmethod
    def _joined(parts: Sequence[str]) -> str:
        """Clauses one after the other; each may hold commas of its own."""
        return say(" and ").join(parts)

    def _unanswered(self) -> str:
        """Why nothing can be said of heads."""
        if "activation_patching" in self.missing:
            return say("this run has no {analysis}", analysis="activation_patching")
        return say("this run has no head patched at one of these words with a gap that is large enough to divide by")

    def _only_read(self, read: str) -> str:
        """The sentence where no head brings the source, but some read it."""
        meeting = self.heads.meeting
        measured = any(cell.role in meeting.places for cell in self.heads.cells)
        told = {
            "why": self._largest(meeting.places) if measured else say("nothing was patched there"),
            "source": self.thing,
            "where": self._place(meeting.role),
            "other": self._place(meeting.other),
            "read": read,
        }
        if meeting.source_is_last:
            return say("No single head brings {other} to {source}'s own word ({why}); {source} is read {read}.", **told)
        return say("No single head brings {source} to {where} ({why}); {source} is read {read}.", **told)

    def _by_place(self, heads: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Labelled heads by the role where they act, the strongest first."""
        roles = dict.fromkeys(self.heads.acts_at(head) for head in heads)
        return [(role, [head for head in heads if self.heads.acts_at(head) == role]) for role in roles]

    def _listed(self, heads: Sequence[int]) -> str:
        """Heads with their numbers: the first in full, two more in short, the rest counted."""
        told = [f"{self.heads.names[head]} ({self._told(head, brief=head != heads[0])})" for head in heads[:NAMED]]
        return listed(told + self._more(heads))

    def _told(self, head: int, *, brief: bool) -> str:
        role, said = self.heads.acts_at(head), []
        here = {cell.direction: cell for cell in self.heads.cells if cell.role == role}
        edge = self.heads.strongest_edge(head)
        if edge is not None and not brief:
            said.append(
                say(
                    "attention to {word} {weight}",
                    word=self._place(edge.partition("<-")[2]),
                    weight=number(self.heads.attention[edge].mean[head]),
                )
            )
        if "denoising" in here:
            effect = here["denoising"].effect
            said.append(
                say("recovered {size}", size=number(effect.mean[head]))
                if brief
                else say("recovered {size} when patched in alone", size=effect.text(head))
            )
        if "noising" in here:
            effect = here["noising"].effect
            said.append(
                say("lost {size}", size=number(effect.mean[head]))
                if brief
                else say("lost {size} when patched out", size=effect.text(head))
            )
        if len(here) == 2 and self.heads.directions(head) != "both":
            said.append(self._one_way(head, here))
        counting = [cell.effect for cell in here.values() if cell.counts[head]]
        if any(effect.high[head] - effect.low[head] > WIDE for effect in counting):
            said.append(say("a wide interval") if brief else say("a wide interval, so take the size as rough"))
        return ", ".join(said)

    def _one_way(self, head: int, here: Mapping[str, Cell]) -> str:
        """What to say of a head whose effect counts in one direction only: absent in the other, or just not certain."""
        patched_in = bool(here["denoising"].counts[head])
        effect = here["noising" if patched_in else "denoising"].effect
        if effect.mean[head] >= self.heads.minimum_effect and effect.low[head] > 0:
            return say("certain only when patched in") if patched_in else say("certain only when patched out")
        return say("sufficient but not needed") if patched_in else say("needed but not sufficient")

    def _largest(self, roles: Sequence[str] | None) -> str:
        """The largest effect that still does not count, at some roles or anywhere."""
        cells = [
            cell
            for cell in self.heads.cells
            if (roles is None or cell.role in roles) and np.isfinite(cell.effect.mean).any()
        ]
        if not cells:
            return say("no effect could be measured, since the gap between clean and corrupted is too small")
        cell = max(cells, key=lambda cell: float(np.nanmax(cell.effect.mean)))
        head = int(np.nanargmax(cell.effect.mean))
        effect = cell.effect.mean[head]
        if effect < self.heads.minimum_effect:
            why = say("below the {least:.2f} that counts", least=self.heads.minimum_effect)
        elif cell.counts[head]:
            why = say("of a head that does not look at {other}", other=self._place(self.heads.meeting.other))
        else:
            why = say(
                "not certain among {count} cells tried (adjusted p {p:.2g})",
                count=self.heads.n_tested,
                p=cell.p_values[head],
            )
        return say(
            "the largest effect is {head} at {where} with {size} of the gap ({direction}), {why}",
            head=self.heads.names[head],
            where=self._place(cell.role),
            size=cell.effect.text(head),
            direction=cell.direction,
            why=why,
        )

    def limits(self, model: str) -> str:
        """What the labels do not say."""
        places = ", ".join(dict.fromkeys(self._place(cell.role) for cell in self.heads.cells)) or say("no role")
        said = [
            say(
                "A label is about one head patched alone at {places}: heads that only work together, or at other "
                "words, have none",
                places=places,
            ),
            self.heads.meeting.note(),
        ]
        if len(set(self.n_prompts.values())) > 1:
            counts = ", ".join(f"{name} {n}" for name, n in self.n_prompts.items())
            said.append(say("the analyses used different numbers of prompts ({counts})", counts=counts))
        said += [
            say("{name} cannot be asked here: {reason}", name=name, reason=reason.rstrip("."))
            for name, reason in self.not_asked.items()
        ]
        if self.missing:
            said.append(say("not run: {analyses}", analyses=", ".join(self.missing)))
        if model == mini.NAME:
            said.append(say_stored(mini.CAVEAT))
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
            )
        }
        for language in LANGUAGES:
            with speaking(language):
                told = np.array([self.agreement_of(head) for head in rows])
            out[key("agreement", language)] = Variable(("head_label",), told, "", "what the methods say")
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
    said = " " + say("The effects are on this read-out: {metric}.", metric=metric.replace("_", " "))
    if metric.startswith("projection"):
        said += " " + say("Heads and words that come after what it reads cannot change it.")
    return said


def _on_fewer(text: str, used: Mapping[str, xr.Dataset], n: int) -> str:
    """The sentence, with the number of prompts it rests on where that is smaller than the number of the gate."""
    explained = min((int(used[name].attrs["n_prompts"]) for name in EXPLAINING if name in used), default=n)
    if explained >= n:
        return text
    return say("On the {n} of them that were patched, {text}", n=explained, text=f"{text[0].lower()}{text[1:]}")


def _p_values(probing: xr.Dataset, role: str, accuracy: Float[np.ndarray, " layer"]) -> Float[np.ndarray, " layer"]:
    """The p-values of the probes at a role, one per layer; NaN where the result has none."""
    if "p_value" not in probing:
        return np.full(accuracy.shape, np.nan)
    return np.where(np.isfinite(accuracy), probing["p_value"].sel(role=role).isel(site=0).values, np.nan)


def _probe(probing: xr.Dataset | None, role: str, vocabulary: Vocabulary) -> str:
    """Where a probe reads the source best at a role, with its control, and what may be doubted of that."""
    if probing is None or role not in probing["role"].values:
        return ""
    means = probing[["accuracy", "control_accuracy"]].sel(role=role).mean("fold").isel(site=0)
    accuracy = means["accuracy"].values
    if not np.isfinite(accuracy).any():
        return ""
    p_values = _p_values(probing, role, accuracy)
    beyond = p_values <= LEVEL
    best = int(np.nanargmax(np.where(beyond, accuracy, np.nan) if beyond.any() else accuracy))
    control = float(means["control_accuracy"].values[best])
    chance = float(probing["chance"])
    held_out = probing.attrs.get(key("held_out_in_words", spoken()), probing.attrs.get("held_out_in_words"))
    told: dict[str, Any] = {
        "thing": vocabulary.name(str(probing.attrs["target"])),
        "place": vocabulary.name(role),
        "depth": depth.of(str(means["site"].values), means["layer"].values[best]),
        "figures": say(
            "{accuracy:.2f} with {held_out} held out, control {control:.2f}, chance {chance:.2f}",
            accuracy=accuracy[best],
            held_out=say("the group") if held_out is None else str(held_out),
            control=control,
            chance=chance,
        ),
    }
    p = p_values[best]
    if np.isfinite(p):
        told["figures"] = say("{figures}, p {p:.3f} over all places", figures=told["figures"], p=p)
    if accuracy[best] <= chance:
        return say("No probe reads {thing} at {place}: the best, {depth}, has {figures}.", **told)
    if p > LEVEL:
        return say(
            "Whether a probe reads {thing} at {place} is not sure: the best, {depth}, has {figures}; with labels "
            "exchanged within pairs, the best of all places does as well in about {share:.0%} of the draws.",
            share=p,
            **told,
        )
    if accuracy[best] <= control:
        return say(
            "A probe says nothing for or against it: it reads {thing} at {place} best {depth}, {figures}, and a "
            "control that can only memorize does as well.",
            **told,
        )
    return say("A probe reads {thing} at {place} best {depth}: {figures}.", **told)


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
    first = next(used[name] for name in about if name in used)
    told = in_each(lambda: {"reading": _reading(vocabulary)})
    return labelled.build(
        variables,
        coords={**coords, "ci_bound": ["lower", "upper"]},
        title="Verdict",
        question="Which heads bring the context to the word, which read it there, and do the methods agree?",
        reading=told.pop("reading"),
        source="max-T: Westfall and Young 1993; patching directions: Heimersheim and Nanda 2024, arXiv 2404.15255",
        of=(_Origin(first.attrs),),
        seed=seed,
        extra={**extra, **told},
        dims={name: meaning for name, meaning in claims.DIMS.items() if name in coords},
    )


def _reading(vocabulary: Vocabulary) -> str:
    """How to read the labels."""
    readers = [vocabulary.name(role) for role in vocabulary.readers or () if role != vocabulary.target]
    said = [say("mover: patching this head alone where source and target meet changes the answer.")]
    if readers:
        said.append(say("reader: patching it at {places} does.", places=say(" or at ").join(readers)))
    said.append(say("Effects count from the stated minimum, with p adjusted over all heads."))
    return " ".join(said)
