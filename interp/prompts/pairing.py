"""From a template and its words to prompts that line up, and the log of what does not.

Import `Drop` from `interp.prompts`, where `PromptPairs.from_template` is made of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InterpError
from interp.prompts.alignment import AnswerPolicy, Answers, Problem, misalignments, resolve_answers
from interp.prompts.template import ANSWER, Rendered, Slots, Template, fill, in_one_form, parse
from interp.prompts.tokens import Prompts, SupportsTokenizer, check_fits, encode_marked, extend

SHORTFALL = "shortfall"  # the kind of drop that says how many of the pairs asked for are missing


@dataclass(frozen=True)
class Drop:
    """A pair that was asked for and left out.

    Attributes:
        index: its place in what was asked for; -1 for a shortfall of the whole set.
        reason: why, and what to do.
        clean_text: the clean prompt.
        corrupted_text: the corrupted prompt.
        kind: the reason in one word: length, span, identical, difference, unknown, answer or shortfall.

    >>> from interp import HookedTransformer, PromptPairs
    >>> slots = [{"color": "black"}, {"color": "white"}]
    >>> pairs = PromptPairs.from_template(
    ...     Template("The {color} cat is", answer=" {color}"),
    ...     clean=slots,
    ...     corrupted=[{"color": "white"}, {"color": "white"}],
    ...     tokenizer=HookedTransformer.from_pretrained("mini"),
    ... )
    >>> len(pairs), [(drop.index, drop.kind) for drop in pairs.drops]
    (1, [(1, 'identical')])
    """

    index: int
    reason: str
    clean_text: str = ""
    corrupted_text: str = ""
    kind: str = ""


def shortfall(asked: int, found: int) -> Drop:
    """The entry that ends a drop log when there are fewer pairs than were asked for."""
    reason = f"{asked} pairs were asked for and {found} different ones could be built"
    return Drop(-1, f"{reason}; ask for fewer or give more words", kind=SHORTFALL)


def first_reasons(drops: Sequence[Drop], limit: int = 3) -> str:
    """The first reasons of a drop log, one of each kind before a second of any, on one line."""
    counts: Counter[str] = Counter()
    turns = []
    for drop in drops:
        turns.append((counts[drop.kind], drop))
        counts[drop.kind] += 1
    chosen = [drop for _, drop in sorted(turns, key=lambda turn: turn[0])[:limit]]
    shown = "; ".join(d.reason if d.kind == SHORTFALL else f"pair {d.index}: {d.reason}" for d in chosen)
    more = f" ({len(drops) - limit} more)" if len(drops) > limit else ""
    return f"First reasons: {shown}{more}."


def align_template(
    template: Template,
    *,
    clean: Sequence[Slots],
    corrupted: Sequence[Slots],
    tokenizer: SupportsTokenizer,
    answer_policy: AnswerPolicy,
    differ_only_at: Collection[str] | None = None,
    incorrect_answer: str | None = None,
) -> tuple[dict[str, Any] | None, tuple[Drop, ...]]:
    """The fields of `PromptPairs` for the pairs that line up (None if none does), and the others' drops."""
    if not isinstance(template, Template):
        raise InterpError(f"The template is {type(template).__name__}. Make one: Template(text, answer=...).")
    for name, given in (("clean", clean), ("corrupted", corrupted)):
        if isinstance(given, Mapping | str) or not all(isinstance(slots, Mapping) for slots in given):
            raise InterpError(f'{name} must be a list of slots, one mapping for each prompt, as [{{"noun": "cat"}}].')
    if len(clean) != len(corrupted):
        raise InterpError(
            f"There are {len(clean)} clean and {len(corrupted)} corrupted prompts. "
            "Give one corrupted prompt for each clean one."
        )
    clean, corrupted = in_one_form(clean, corrupted)
    also = [piece.slot for piece in parse(incorrect_answer or "") if piece.slot]
    whole = [template.render(s, where=f" in clean prompt {i}", also=also) for i, s in enumerate(clean)]
    other = [template.render(s, where=f" in corrupted prompt {i}", also=also) for i, s in enumerate(corrupted)]
    incorrect = [r.answer for r in other]
    if incorrect_answer is not None:
        incorrect = [fill(incorrect_answer, s, where=f" in clean prompt {i}") for i, s in enumerate(clean)]
    return align(
        whole,
        other,
        incorrect,
        slots=(clean, corrupted),
        tokenizer=tokenizer,
        answer_policy=answer_policy,
        differ_only_at=differ_only_at,
    )


def align(
    whole: Sequence[Rendered],
    other: Sequence[Rendered],
    incorrect: Sequence[str],
    *,
    slots: tuple[Sequence[Slots], Sequence[Slots]],
    tokenizer: SupportsTokenizer,
    answer_policy: AnswerPolicy,
    differ_only_at: Collection[str] | None = None,
) -> tuple[dict[str, Any] | None, tuple[Drop, ...]]:
    """As ``align_template``, of prompts as they are written.

    Args:
        whole: the clean prompts.
        other: the corrupted ones.
        incorrect: the incorrect answers.
        slots: the words of the clean and of the corrupted prompts.
        tokenizer: the model.
        answer_policy: how answers of several tokens are scored.
        differ_only_at: roles outside which clean and corrupted must be equal.
    """
    clean, corrupted = slots
    texts, answers = [r.text for r in whole], [r.answer for r in whole]
    clean_prompts, unknown = encode_marked(tokenizer, texts, [r.roles for r in whole])
    corrupted_prompts, also_unknown = encode_marked(tokenizer, [r.text for r in other], [r.roles for r in other])
    problems = misalignments(clean_prompts, corrupted_prompts, differ_only_at=differ_only_at)
    for i, words in enumerate(first or second for first, second in zip(unknown, also_unknown, strict=True)):
        if words:
            problems[i] = Problem("unknown", f"it holds {words}; choose words that it knows")
    resolved = resolve_answers(tokenizer, texts, answers, incorrect, answer_policy)
    kept: dict[int, Answers] = {}
    drops = []
    for i, found in enumerate(resolved):
        issue = problems[i] or found
        if isinstance(issue, Answers):
            kept[i] = issue
        else:
            drops.append(Drop(i, issue.reason, texts[i], other[i].text, issue.kind))
    if not kept:
        return None, tuple(drops)

    index, scored = list(kept), list(kept.values())
    shared = [a.correct[: a.shared] for a in scored]
    clean_prompts = extend(clean_prompts.select(index), shared, tokenizer)
    corrupted_prompts = extend(corrupted_prompts.select(index), shared, tokenizer)
    position = clean_prompts.lengths - 1
    forced = [max(len(a.correct), len(a.incorrect)) - 1 if answer_policy == "sum_logprob" else 0 for a in scored]
    check_fits(clean_prompts, tokenizer, extra=np.array(forced))
    columns = {
        "clean": _with_answer(clean_prompts, position),
        "corrupted": _with_answer(corrupted_prompts, position),
        "correct": np.array([a.correct[a.shared] for a in scored]),
        "incorrect": np.array([a.incorrect[a.shared] for a in scored]),
        "answer_position": position,
        "answer_policy": answer_policy,
        "correct_tokens": tuple(a.correct for a in scored),
        "incorrect_tokens": tuple(a.incorrect for a in scored),
        "answers": tuple(answers[i] for i in index),
        "incorrect_answers": tuple(incorrect[i] for i in index),
        "slots": tuple(dict(clean[i]) for i in index),
        "corrupted_slots": tuple(dict(corrupted[i]) for i in index),
    }
    return columns, tuple(drops)


def _with_answer(prompts: Prompts, position: np.ndarray) -> Prompts:
    return prompts.with_roles({**prompts.roles, ANSWER: np.stack([position, position + 1], axis=1)})
