"""Does the model do the task at all? Baselines of every rung, and the gate that an explanation has to pass.

Explaining a behaviour that is not there gives figures all the same, so nothing is explained before this is asked.
A rung passes if the model prefers the right answer on its clean prompts, prefers the other answer on its corrupted
ones (so it is the context that decides), and the distance between the two is worth dividing by. Of a rung that passes
it is told whether the model says the right answer, or only prefers it to the other one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from interp import results, stats, summary, tasks
from interp._arguments import check_model, check_pairs
from interp.errors import InterpError, shown, unknown_name
from interp.language import in_each, say
from interp.prompts import PromptPairs, tokens
from interp.prompts.vocabulary import DOES_NOT, GUESSING, PREFERS, SAYS
from interp.results import Variable
from interp.run import logits_at
from interp.sweeps import Meter, Plan, Progress, Reading, passes, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts.tokens import Prompts


def check(*, minimum_gap: float, minimum_preferred: float) -> None:
    """Refuse thresholds that no model can meet or miss.

    Raises:
        InterpError: names the one that is out of range.
    """
    if not 0 <= minimum_preferred <= 1:
        raise InterpError(f"minimum_preferred is {shown(minimum_preferred)}. Give a share between 0 and 1.")
    if not minimum_gap >= 0:
        raise InterpError(f"minimum_gap is {shown(minimum_gap)}. Give a number of logits, 0 or more.")


def run(
    model: HookedTransformer,
    rungs: Mapping[str, PromptPairs] | PromptPairs,
    *,
    descriptions: Mapping[str, str] | None = None,
    main: str | None = None,
    minimum_gap: float = 0.5,
    minimum_preferred: float = 0.75,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure the behaviour on every rung, and say of each whether it may be explained.

    A rung passes if all of this holds; ``reason`` (in Spanish ``reason_es``) says so, or what does not hold, with the
    numbers:

    - ``preferred`` is at least ``minimum_preferred``, and its 95% Wilson interval lies above guessing (0.5);
    - the corrupted prompts prefer the other answer on average (``corrupted_mean`` below 0);
    - ``gap``, the mean of clean - corrupted, is at least ``minimum_gap``, and its 95% bootstrap interval lies above 0.

    ``outcome`` tells three things apart: the model ``says it`` (the rung passes, and on at least ``minimum_preferred``
    of the prompts the answer is the top token), ``prefers it`` (the rung passes), or ``does not``.

    Args:
        model: the model.
        rungs: name -> pairs, easiest first; or one set of pairs.
        descriptions: rung -> one line; by default that of the bundled task the pairs come from.
        main: the rung that the study is about; by default the one its task marks, else the last.
        minimum_gap: in logits (nats for whole answers).
        minimum_preferred: share in [0, 1].
        progress: True for a bar, or called with rungs done and rungs in all.

    Returns:
        Dims prompt (all rungs, one after the other; ``rung_of`` says which) and rung. Per prompt ``clean`` and
        ``corrupted``: logit(correct) - logit(incorrect) after the clean and the corrupted prompt, both about the clean
        prompt's answers (with the policy ``sum_logprob`` the difference of the two answers' summed log-probabilities);
        ``clean_top1``, ``corrupted_top1`` (of the incorrect answer, which is the corrupted prompt's own), in 0/1, over
        the whole vocabulary, every token of an answer counting; ``clean_preferred`` in 0/1, a tie counting against;
        ``clean_rank`` (tokens above, 0 is top), ``clean_probability``. Per rung the means, their intervals
        (``ci_bound``) and the gate. ``role_start`` and ``role_stop`` are character ranges of the roles in ``text`` (-1
        where a rung lacks the role), left out for prompts without text. The attribute ``explained_rung`` names the rung
        to be explained: the main one if it passes, else the last of the ladder that does; it is empty if none does. The
        attributes ``interval``, ``interval_level``, ``interval_n_resamples`` and ``interval_seed`` say how the interval
        of a mean was made.

    Raises:
        InterpError: no rungs, an unknown name in ``main`` or ``descriptions``, or thresholds out of range.

    >>> from analyses import behavior
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = behavior.run(model, pairs)
    >>> found.outcome.values.tolist(), found.clean_rank.values.tolist()  # rank 0: the answer is the top token
    (['says it'], [0, 0, 0, 0])
    """
    if not isinstance(rungs, Mapping):
        check_pairs(model, rungs)
    check_model(model)
    ladder = _ladder(rungs)
    for pairs in ladder.values():
        check_pairs(model, pairs)
    described = _descriptions(ladder, descriptions)
    of_interest = _main(ladder, main)
    check(minimum_gap=minimum_gap, minimum_preferred=minimum_preferred)
    read: list[_Answers] = []
    meter = Meter(progress, len(ladder))
    for pairs in ladder.values():
        read.append(_read(model, pairs))
        meter.add(1)
    gates = [_gate(answers, minimum_gap, minimum_preferred) for answers in read]
    units = _units(ladder)
    variables = {**_per_prompt(model, ladder, read, units), **_per_rung(gates, units)}
    variables["chance"] = Variable(
        ("rung",), [1 / len(_candidates(pairs)) for pairs in ladder.values()], "share",
        "1 / number of different answers of the rung",
    )  # fmt: skip
    flags = np.array([name == of_interest for name in ladder], np.int8)
    variables["main"] = Variable(("rung",), flags, "", "whether the study is about this rung")
    variables["description"] = Variable(
        ("rung",), np.array([described[name] for name in ladder]), "", "what the rung asks"
    )
    return results.build(
        variables,
        coords=_coords(model, ladder, read),
        title="Behaviour",
        question="Does the model do the task, and does the context decide its answer?",
        reading="clean and corrupted: above 0 the correct answer is ahead; gap: how far the context moves it.",
        source="logit difference: Wang et al. 2022, arXiv 2211.00593; intervals: Wilson 1927, Efron 1979",
        of=(model, _Provenance(ladder, of_interest)),
        seed=stats.SEED,
        extra={
            "minimum_gap": minimum_gap,
            "minimum_preferred": minimum_preferred,
            "level": stats.LEVEL,
            "explained_rung": _explained(dict(zip(ladder, gates, strict=True)), of_interest),
            **summary.usual_attrs(),
        },
    )


@plans_of(run)
def planned(model: HookedTransformer, rungs: Mapping[str, PromptPairs] | PromptPairs) -> list[Plan]:
    """What ``run`` computes with the same options: each prompt once, or once for each answer. Nothing is run.

    >>> from analyses import behavior
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> [plan.rows for plan in behavior.planned(model, pairs)]  # clean and corrupted
    [4, 4]
    """
    return [
        passes(model, prompts, forward=2 if pairs.answer_policy == "sum_logprob" else 1)
        for pairs in _ladder(rungs).values()
        for prompts in (pairs.clean, pairs.corrupted)
    ]


# ---- what was asked for ----


def _ladder(rungs: Mapping[str, PromptPairs] | PromptPairs) -> dict[str, PromptPairs]:
    if isinstance(rungs, PromptPairs):
        return {rungs.name or rungs.task or "own prompts": rungs}
    if not rungs:
        raise InterpError("There are no rungs to measure. Give one set of pairs, or a mapping of name to pairs.")
    return dict(rungs)


def _main(ladder: Mapping[str, PromptPairs], main: str | None) -> str:
    if main is not None:
        if main not in ladder:
            raise unknown_name("main rung", main, ladder)
        return main
    for name, pairs in ladder.items():
        rung = _task_rung(pairs)
        if rung is not None and rung.main:
            return name
    return list(ladder)[-1]


def _descriptions(ladder: Mapping[str, PromptPairs], descriptions: Mapping[str, str] | None) -> dict[str, str]:
    for name in descriptions or {}:
        if name not in ladder:
            raise unknown_name("rung in descriptions", name, ladder)
    found = {}
    for name, pairs in ladder.items():
        rung = _task_rung(pairs)
        found[name] = (descriptions or {}).get(name, "" if rung is None else rung.description)
    return found


def _task_rung(pairs: PromptPairs) -> tasks.Rung | None:
    """The bundled rung the pairs were built from, if they were."""
    if pairs.task not in tasks.names():
        return None
    return next((rung for rung in tasks.load(pairs.task).rungs if rung.name == pairs.name), None)


def _units(ladder: Mapping[str, PromptPairs]) -> str:
    """Logits, or nats where whole answers are scored."""
    kinds = {"nats" if pairs.answer_policy == "sum_logprob" else "logits" for pairs in ladder.values()}
    return " or ".join(sorted(kinds))


@dataclass(frozen=True)
class _Provenance:
    """Where several rungs came from, as one; the vocabulary is that of the main rung."""

    ladder: Mapping[str, PromptPairs]
    main: str

    def provenance(self) -> dict[str, str | int]:
        """Counts are summed, names are joined, and the fingerprint covers every rung in order."""
        parts = [pairs.provenance() for pairs in self.ladder.values()]
        if len(parts) == 1:
            return parts[0]
        digest = hashlib.sha256("".join(str(part["tokens_sha256"]) for part in parts).encode()).hexdigest()
        joined: dict[str, str | int] = {
            key: "+".join(dict.fromkeys(str(part[key]) for part in parts)) for key in ("answer_policy", "bos")
        }
        names = dict.fromkeys(pairs.task or "own prompts" for pairs in self.ladder.values())
        return {
            **joined,
            "task": "+".join(names),
            "tokens_sha256": digest,
            "vocabulary": self.ladder[self.main].vocabulary.as_json(),
            "n_prompts": sum(int(part["n_prompts"]) for part in parts),
            "n_dropped": sum(int(part["n_dropped"]) for part in parts),
        }


# ---- reading the answers ----


@dataclass(frozen=True)
class _Answers:
    """What the model says to the prompts of one rung; every array is [prompt].

    Attributes:
        clean: logit difference after the clean prompt.
        corrupted: the same after the corrupted prompt, about the clean prompt's answers.
        clean_rank: tokens ranked above the correct answer.
        corrupted_rank: tokens ranked above the incorrect answer, after the corrupted prompt.
        log_probability: of the correct answer after the clean prompt, nats.
        top: id of the most likely next token after the clean prompt.
    """

    clean: Float[np.ndarray, " prompt"]
    corrupted: Float[np.ndarray, " prompt"]
    clean_rank: Float[np.ndarray, " prompt"]
    corrupted_rank: Float[np.ndarray, " prompt"]
    log_probability: Float[np.ndarray, " prompt"]
    top: Int[np.ndarray, " prompt"]


def _read(model: HookedTransformer, pairs: PromptPairs) -> _Answers:
    clean, rank, log_probability, top = _after(model, pairs, "clean")
    corrupted, corrupted_rank, _, _ = _after(model, pairs, "corrupted")
    return _Answers(clean, corrupted, rank, corrupted_rank, log_probability, top)


def _after(
    model: HookedTransformer, pairs: PromptPairs, which: Literal["clean", "corrupted"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logit difference, rank and log-probability of the prompt's own answer, and top token, after one kind of prompt.

    A policy that scores one token needs one pass; whole answers need one pass each, continued by that answer.
    """
    own = 0 if which == "clean" else 1
    parts = pairs.expand_answers()
    whole = pairs.answer_policy == "sum_logprob"
    logits = [_logits(model, part, which) for part in (parts if whole else parts[:1])]
    own_logits = logits[own if whole else 0]
    if whole:
        each = [_scores(part, "log_probability", of) for part, of in zip(parts, logits, strict=True)]
        difference = each[0] - each[1]
    else:
        difference = _scores(pairs, "logit_difference", logits[0])
    rank, log_probability = (_scores(parts[own], name, own_logits) for name in ("rank", "log_probability"))
    return difference, rank, log_probability, own_logits[:, 0].argmax(dim=-1).numpy()


def _logits(
    model: HookedTransformer, pairs: PromptPairs, which: Literal["clean", "corrupted"]
) -> Float[torch.Tensor, "prompt answer vocab"]:
    prompts: Prompts = getattr(pairs, which)
    return logits_at(model, prompts, Reading.of(pairs, "rank").positions.numpy())


def _scores(
    pairs: PromptPairs, metric: str, logits: Float[torch.Tensor, "prompt answer vocab"]
) -> Float[np.ndarray, " prompt"]:
    return Reading.of(pairs, metric)(logits).numpy()


def _candidates(pairs: PromptPairs) -> set[tuple[int, ...]]:
    """Every answer that is right or wrong somewhere in the rung."""
    return {*pairs.correct_tokens, *pairs.incorrect_tokens}


# ---- the gate ----


@dataclass(frozen=True)
class _Gate:
    """The summary of one rung, and the decision."""

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    preferred: float
    preferred_interval: tuple[float, float]
    clean_mean: float
    corrupted_mean: float
    gap: float
    gap_interval: tuple[float, float]
    outcome: str
    reasons: Mapping[str, str]

    @property
    def passes(self) -> bool:
        """Whether the rung may be explained."""
        return self.outcome != DOES_NOT


def _gate(answers: _Answers, minimum_gap: float, minimum_preferred: float) -> _Gate:
    n = len(answers.clean)
    top1, preferred = int((answers.clean_rank == 0).sum()), int((answers.clean > 0).sum())
    gap = summary.mean(xr.DataArray(answers.clean - answers.corrupted, dims="prompt"))
    mean, low, high = (float(gap[name]) for name in ("mean", "low", "high"))
    found = _Gate(
        n, top1 / n, stats.wilson_interval(top1, n), preferred / n, stats.wilson_interval(preferred, n),
        float(answers.clean.mean()), float(answers.corrupted.mean()), mean, (low, high), DOES_NOT, {},
    )  # fmt: skip
    outcome = DOES_NOT
    if not _problems(found, minimum_gap, minimum_preferred):
        outcome = SAYS if found.accuracy >= minimum_preferred else PREFERS
    return replace(
        found,
        outcome=outcome,
        reasons=in_each(lambda: {"reason": _reason(found, outcome, minimum_gap, minimum_preferred)}),
    )


def _reason(found: _Gate, outcome: str, minimum_gap: float, minimum_preferred: float) -> str:
    """Why the rung may be explained, or may not."""
    if outcome == DOES_NOT:
        return say("fails: {why}", why="; ".join(_problems(found, minimum_gap, minimum_preferred)))
    return say("passes: {why}", why=_praise(found, outcome))


def _explained(gates: Mapping[str, _Gate], main: str) -> str:
    """The main rung if it passes, else the last of the ladder that does, else none."""
    passing = [name for name, gate in gates.items() if gate.passes]
    return main if main in passing else passing[-1] if passing else ""


def _problems(found: _Gate, minimum_gap: float, minimum_preferred: float) -> list[str]:
    """What keeps the rung from being explained, each as a clause with its numbers."""
    problems = []
    told: dict[str, Any] = {
        "share": found.preferred, "n": found.n, "least": minimum_preferred, "guessing": GUESSING,
        "interval": _percent(*found.preferred_interval),
    }  # fmt: skip
    low, high = found.preferred_interval
    if low <= GUESSING <= high:
        problems.append(
            say(
                "prefers the right answer on {share:.0%} of {n} prompts, 95% interval {interval}, which includes the "
                "{guessing:.0%} of guessing",
                **told,
            )
        )
    elif low <= GUESSING:
        problems.append(
            say(
                "prefers the right answer on {share:.0%} of {n} prompts, 95% interval {interval}, which lies below the "
                "{guessing:.0%} of guessing",
                **told,
            )
        )
    elif found.preferred < minimum_preferred:
        problems.append(
            say(
                "prefers the right answer on {share:.0%} of {n} prompts, below the {least:.0%} required (95% interval "
                "{interval})",
                **told,
            )
        )
    if not found.corrupted_mean < 0:
        problems.append(
            say(
                "the corrupted prompts still favour the clean answer, by {mean:.2f} on average, so the context does "
                "not decide",
                mean=found.corrupted_mean,
            )
        )
    gap_low, gap_high = found.gap_interval
    if not found.gap >= minimum_gap:
        problems.append(
            say(
                "the gap between clean and corrupted is {gap:.2f}, below the {least:g} required",
                gap=found.gap,
                least=minimum_gap,
            )
        )
    elif math.isnan(gap_low):
        problems.append(say("one prompt has no interval: give at least two"))
    elif not gap_low > 0:
        problems.append(
            say(
                "the gap between clean and corrupted is {gap:.2f}, 95% interval {low:.2f} to {high:.2f}, which does "
                "not lie above 0",
                gap=found.gap,
                low=gap_low,
                high=gap_high,
            )
        )
    return problems


def _praise(found: _Gate, outcome: str) -> str:
    told: dict[str, Any] = {
        "share": found.preferred, "n": found.n, "interval": _percent(*found.preferred_interval), "guessing": GUESSING,
        "gap": found.gap, "low": found.gap_interval[0], "high": found.gap_interval[1], "clean": found.clean_mean,
        "corrupted": found.corrupted_mean, "accuracy": found.accuracy,
    }  # fmt: skip
    if outcome == SAYS:
        return say(
            "prefers the right answer on {share:.0%} of {n} prompts (95% interval {interval}, guessing "
            "{guessing:.0%}), and changing the context moves the answer by {gap:.2f} (95% interval {low:.2f} to "
            "{high:.2f}), from {clean:.2f} to {corrupted:.2f}; it is the top token on {accuracy:.0%}",
            **told,
        )
    return say(
        "prefers the right answer on {share:.0%} of {n} prompts (95% interval {interval}, guessing {guessing:.0%}), "
        "and changing the context moves the answer by {gap:.2f} (95% interval {low:.2f} to {high:.2f}), from "
        "{clean:.2f} to {corrupted:.2f}; it is not said: it is the top token on only {accuracy:.0%}",
        **told,
    )


def _percent(low: float, high: float) -> str:
    return say("{low:.0%} to {high:.0%}", low=low, high=high)


# ---- the result ----


def _per_prompt(
    model: HookedTransformer, ladder: Mapping[str, PromptPairs], read: Sequence[_Answers], units: str
) -> dict[str, Variable]:
    def joined(values: Callable[[_Answers], np.ndarray]) -> np.ndarray:
        return np.concatenate([values(answers) for answers in read])

    def of(values: Callable[[_Answers], np.ndarray], units: str, long_name: str) -> Variable:
        return Variable(("prompt",), joined(values), units, long_name)

    variables = {
        "clean": of(lambda a: a.clean, units, "logit difference after the clean prompt"),
        "corrupted": of(lambda a: a.corrupted, units, "logit difference after the corrupted prompt"),
        "clean_top1": of(
            lambda a: (a.clean_rank == 0).astype(np.int8), "", "whether the correct answer is the top token"
        ),
        "corrupted_top1": of(
            lambda a: (a.corrupted_rank == 0).astype(np.int8), "",
            "whether the incorrect answer is the top token after the corrupted prompt",
        ),
        "clean_preferred": of(
            lambda a: (a.clean > 0).astype(np.int8), "", "whether correct beats incorrect after the clean prompt"
        ),
        "clean_rank": of(lambda a: a.clean_rank.astype(np.int64), "tokens", "tokens ranked above the correct answer"),
        "clean_probability": of(
            lambda a: np.exp(a.log_probability), "", "probability of the correct answer after the clean prompt"
        ),
    }  # fmt: skip
    return variables | _role_ranges(model, ladder)


def _per_rung(gates: Sequence[_Gate], units: str) -> dict[str, Variable]:
    def of(name: str, units: str, long_name: str, dims: tuple[str, ...] = ("rung",)) -> Variable:
        return Variable(dims, np.array([getattr(gate, name) for gate in gates]), units, long_name)

    bounds = ("rung", "ci_bound")
    return {
        "n": of("n", "prompts", "number of prompts"),
        "accuracy": of("accuracy", "share", "share of clean prompts whose top token is the correct answer"),
        "accuracy_interval": of("accuracy_interval", "share", "95% Wilson interval of accuracy", bounds),
        "preferred": of("preferred", "share", "share of clean prompts that prefer the correct answer"),
        "preferred_interval": of("preferred_interval", "share", "95% Wilson interval of preferred", bounds),
        "clean_mean": of("clean_mean", units, "mean logit difference of the clean prompts"),
        "corrupted_mean": of("corrupted_mean", units, "mean logit difference of the corrupted prompts"),
        "gap": of("gap", units, "mean of clean - corrupted"),
        "gap_interval": of("gap_interval", units, "95% bootstrap interval of gap", bounds),
        "passes": Variable(
            ("rung",), np.array([gate.passes for gate in gates], np.int8), "", "whether the rung may be explained"
        ),
        "outcome": of("outcome", "", "whether the model says the answer, prefers it to the other one, or does not"),
        **{
            name: Variable(("rung",), np.array([gate.reasons[name] for gate in gates]), "", "why, with the numbers")
            for name in gates[0].reasons
        },
    }  # fmt: skip


def _coords(model: HookedTransformer, ladder: Mapping[str, PromptPairs], read: Sequence[_Answers]) -> dict[str, Any]:
    pairs = [pair for group in ladder.values() for pair in group]
    names = [name for name, group in ladder.items() for _ in range(len(group))]
    columns = {
        "rung_of": names,
        "text": [pair.clean for pair in pairs],
        "corrupted_text": [pair.corrupted for pair in pairs],
        "answer": [pair.correct for pair in pairs],
        "incorrect_answer": [pair.incorrect for pair in pairs],
        "top_token": _token_texts(model, np.concatenate([answers.top for answers in read])),
    }
    coords: dict[str, Any] = {name: ("prompt", np.array(values)) for name, values in columns.items()}
    coords |= {"prompt": np.arange(len(pairs)), "rung": list(ladder), "ci_bound": ["lower", "upper"]}
    roles = list(dict.fromkeys(role for group in ladder.values() for role in group.roles))
    return coords | ({"role": roles} if _have_text(model, ladder) else {})


def _token_texts(model: HookedTransformer, ids: Int[np.ndarray, " prompt"]) -> list[str]:
    if model.tokenizer is None:
        return [f"#{token}" for token in ids]
    return list(tokens.token_texts(model.tokenizer, ids.tolist()))


def _have_text(model: HookedTransformer, ladder: Mapping[str, PromptPairs]) -> bool:
    both = (prompts for pairs in ladder.values() for prompts in (pairs.clean, pairs.corrupted))
    return model.tokenizer is not None and all(prompts.texts is not None for prompts in both)


def _role_ranges(model: HookedTransformer, ladder: Mapping[str, PromptPairs]) -> dict[str, Variable]:
    """Where each role stands in the text, by characters; nothing for prompts that are ids only."""
    if not _have_text(model, ladder):
        return {}
    roles = list(dict.fromkeys(role for group in ladder.values() for role in group.roles))
    variables = {}
    for prefix, which in (("", "clean"), ("corrupted_", "corrupted")):
        ranges = np.concatenate([_characters(model, getattr(pairs, which), roles) for pairs in ladder.values()])
        for end, name in enumerate(("start", "stop")):
            words = f"{'first' if end == 0 else 'one past the last'} character of the role in the {which} prompt"
            variables[f"{prefix}role_{name}"] = Variable(("prompt", "role"), ranges[..., end], "characters", words)
    return variables


def _characters(model: HookedTransformer, prompts: Prompts, roles: Sequence[str]) -> Int[np.ndarray, "prompt role 2"]:
    """First and one-past-last character of each role, without the space before a word; -1 where it is not known."""
    texts = prompts.texts or ()
    out = np.full((len(prompts), len(roles), 2), -1)
    for i, (text, (ids, offsets)) in enumerate(zip(texts, tokens.encode_plain(model, texts), strict=True)):
        lead = int(prompts.lengths[i]) - len(ids)  # the BOS, if there is one
        if lead < 0 or prompts.ids[i, lead : prompts.lengths[i]].tolist() != ids:
            continue  # answer tokens appended to the prompt, which the tokenizer would cut otherwise
        for j, role in enumerate(roles):
            if role not in prompts.roles:
                continue
            first, stop = prompts.roles[role][i] - lead
            if first < 0:
                continue
            start, end = offsets[first][0], offsets[stop - 1][1]
            start += len(text[start:end]) - len(text[start:end].lstrip())
            out[i, j] = start, end
    return out
