"""Pairs of prompts that differ in one stated way, built from templates with named slots.

A clean prompt gives the behaviour; its corrupted partner has as many tokens and differs only in what is
studied. A pair for which that cannot be shown is dropped with a reason, never mended. Token ids are the
business of `interp.prompts.tokens` and `interp.prompts.alignment`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int

from interp import _cells
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.prompts.alignment import AnswerPolicy, misalignments
from interp.prompts.answered import AnsweredPrompts
from interp.prompts.pairing import SHORTFALL, Drop, align_template, first_reasons, shortfall
from interp.prompts.template import ANSWER, Slots, Template
from interp.prompts.tokens import (
    Prompts,
    RoleSpec,
    SupportsTokenizer,
    excerpt,
    extend,
    marked,
    numbers,
    token_texts,
    unknown_id,
)
from interp.prompts.vocabulary import NOTHING_STATED, Vocabulary

__all__ = [
    "ANSWER",
    "SHORTFALL",
    "AnsweredPrompts",
    "Drop",
    "PromptPair",
    "PromptPairs",
    "Template",
    "align_template",
    "first_reasons",
    "shortfall",
]

_T = TypeVar("_T")

# The columns of PromptPairs that hold one item per prompt.
_ARRAYS = ("correct", "incorrect", "answer_position")
_PER_PROMPT = (
    *("correct_tokens", "incorrect_tokens", "answers", "incorrect_answers"),
    *("slots", "corrupted_slots", "variants"),
)


@dataclass(frozen=True)
class PromptPair:
    """One pair, for reading. Prompts without text show as their ids.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> pairs[0].correct != pairs[0].incorrect
    True
    """

    clean: str
    corrupted: str
    correct: str
    incorrect: str
    slots: Mapping[str, str]
    corrupted_slots: Mapping[str, str]
    variant: str


def check_max_prompts(n: int | None) -> None:
    """Refuse a number of prompts that leaves none; None is all.

    Raises:
        InterpError: below 1.
    """
    if n is not None and whole_number(n, "max_prompts") < 1:
        raise InterpError(f"max_prompts is {shown(n)}. Use at least one prompt.")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PromptPairs:
    """Clean and corrupted prompts that line up token by token, with the two answers to compare.

    Attributes:
        clean: the prompts that give the behaviour.
        corrupted: their partners: as many tokens, the same role spans, different somewhere.
        correct: scored token of the correct answer, per prompt.
        incorrect: scored token of the incorrect answer, per prompt.
        answer_position: position whose logits predict the scored token, per prompt.
        answer_policy: ``"single"`` (answers are one token), ``"first_differing"`` (leading tokens that both answers
            share are appended to both prompts, and the first that differs is scored) or ``"sum_logprob"`` (whole
            answers are scored by the sum of log-probabilities, see ``expand_answers``; ``correct`` and ``incorrect``
            are then the first tokens of the answers, which may be the same).
        correct_tokens: the whole correct answer, per prompt.
        incorrect_tokens: the whole incorrect answer, per prompt.
        answers: the correct answer as text, per prompt.
        incorrect_answers: the incorrect answer as text, per prompt.
        slots: the words of each clean prompt.
        corrupted_slots: the words of each corrupted prompt.
        variants: which of a rung's templates each prompt came from; "" where there is one only.
        continuation: after ``expand_answers``: the tokens to score, the first of them predicted at
            ``answer_position``, the second one position later, and so on.
        drops: what was left out and why.
        task: name of the task, if any.
        name: name of the rung or set, if any.
        stated: what is stated of the vocabulary; ``vocabulary`` completes it.

    >>> from interp import HookedTransformer, Template
    >>> template = Template("The {noun} is {color}. The {noun:asked} is", answer=" {color}")
    >>> pairs = PromptPairs.from_template(
    ...     template,
    ...     clean=[{"noun": "cat", "color": "black"}],
    ...     corrupted=[{"noun": "cat", "color": "white"}],
    ...     tokenizer=HookedTransformer.from_pretrained("mini"),
    ... )
    >>> pairs.roles, pairs.answers, pairs.incorrect_answers
    (('noun', 'color', 'asked', 'answer'), (' black',), (' white',))
    """

    clean: Prompts
    corrupted: Prompts
    correct: Int[np.ndarray, " prompt"]
    incorrect: Int[np.ndarray, " prompt"]
    answer_position: Int[np.ndarray, " prompt"]
    answer_policy: str
    correct_tokens: tuple[tuple[int, ...], ...]
    incorrect_tokens: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    incorrect_answers: tuple[str, ...]
    slots: tuple[dict[str, str], ...]
    corrupted_slots: tuple[dict[str, str], ...]
    variants: tuple[str, ...]
    continuation: tuple[tuple[int, ...], ...] = ()
    drops: tuple[Drop, ...] = ()
    task: str = ""
    name: str = ""
    stated: Vocabulary = NOTHING_STATED

    @classmethod
    def from_template(
        cls,
        template: Template,
        *,
        clean: Sequence[Slots],
        corrupted: Sequence[Slots],
        tokenizer: SupportsTokenizer,
        answer_policy: AnswerPolicy = "single",
        on_misaligned: Literal["drop", "raise"] = "drop",
        differ_only_at: Collection[str] | None = None,
        incorrect_answer: str | None = None,
        task: str = "",
        name: str = "",
        variant: str = "",
        vocabulary: Vocabulary = NOTHING_STATED,
    ) -> PromptPairs:
        """Fill a template twice per pair, and keep the pairs that line up.

        Args:
            template: text and answer.
            clean: the words of each clean prompt.
            corrupted: the words of each corrupted prompt, in the same order.
            tokenizer: the model (anything with a tokenizer and a BOS policy).
            answer_policy: how answers of several tokens are scored; see the class.
            on_misaligned: leave a pair that does not line up out and log it, or raise.
            differ_only_at: roles outside which clean and corrupted must be equal.
            incorrect_answer: a template filled with the clean words; by default the incorrect answer is the
                corrupted prompt's own answer.
            task: recorded as it is.
            name: recorded as it is.
            variant: recorded for every pair.
            vocabulary: what is to be said of the roles; the rest is derived.

        Raises:
            InterpError: no pairs, unequal numbers of prompts, slots that do not fit, a prompt longer than the
                context, no pair left, or a vocabulary with a role that the template lacks.
        """
        if on_misaligned not in ("drop", "raise"):
            raise unknown_name("value of on_misaligned", on_misaligned, ("drop", "raise"))
        columns, drops = align_template(
            template,
            clean=clean,
            corrupted=corrupted,
            tokenizer=tokenizer,
            answer_policy=answer_policy,
            differ_only_at=differ_only_at,
            incorrect_answer=incorrect_answer,
        )
        if drops and on_misaligned == "raise":
            first = drops[0]
            raise InterpError(f'Pair {first.index} ("{excerpt(first.clean_text)}"): {first.reason}.')
        if columns is None:
            raise InterpError(f"None of the {len(clean)} pairs can be used. {first_reasons(drops)}")
        n = len(columns["answers"])
        vocabulary.check(columns["clean"].roles)
        return cls(**columns, variants=(variant,) * n, drops=drops, task=task, name=name, stated=vocabulary)

    @classmethod
    def from_tokens(
        cls,
        clean: Any,
        corrupted: Any,
        *,
        correct: int | Sequence[int] | np.ndarray,
        incorrect: int | Sequence[int] | np.ndarray,
        roles: Mapping[str, RoleSpec] | None = None,
        answer_position: int | Sequence[int] | np.ndarray = -1,
        tokenizer: Any = None,
        bos: str = "given",
        task: str = "",
        name: str = "",
        drops: Sequence[Drop] = (),
        vocabulary: Vocabulary = NOTHING_STATED,
    ) -> PromptPairs:
        """Pairs from token ids, for models with or without a tokenizer. Ids are taken as they are.

        Args:
            clean: one sequence of ids per prompt.
            corrupted: as many sequences, each as long as its clean partner.
            correct: id of the correct answer, one per prompt or one for all.
            incorrect: id of the incorrect answer, alike.
            roles: role -> position (negative: from the end), ``Span``, or one position per prompt.
            answer_position: position whose logits predict the answer, one per prompt or one for all.
            tokenizer: a model or tokenizer, used only to show tokens as text.
            bos: what to record about the BOS.
            task: recorded as it is.
            name: recorded as it is.
            drops: recorded as they are.
            vocabulary: what is to be said of the roles; the rest is derived.

        Raises:
            InterpError: a pair that does not line up, or ids, roles, positions and a vocabulary that do not fit.
        """
        places = dict(roles or {})
        if ANSWER in places:
            raise InterpError('Role "answer" is reserved. Give its place as answer_position=.')
        places[ANSWER] = answer_position
        vocabulary.check(places)
        clean_prompts = Prompts.from_ids(clean, places, tokenizer, bos=bos)
        corrupted_prompts = Prompts.from_ids(corrupted, places, tokenizer, bos=bos)
        n = len(clean_prompts)
        if len(corrupted_prompts) != n:
            raise InterpError(
                f"There are {n} clean and {len(corrupted_prompts)} corrupted prompts. "
                "Give one corrupted prompt for each clean one."
            )
        for i, problem in enumerate(misalignments(clean_prompts, corrupted_prompts)):
            if problem is not None:
                raise InterpError(f"Pair {i}: {problem.reason}.")
        right, wrong = numbers(correct, "correct", n), numbers(incorrect, "incorrect", n)
        if (right == wrong).any():
            i = int((right == wrong).argmax())
            raise InterpError(f"Pair {i}: correct and incorrect are both {right[i]}. Give two answers.")
        reader = getattr(tokenizer, "tokenizer", tokenizer)
        unknown = unknown_id(reader)
        for what, ids in (("correct", right), ("incorrect", wrong)):
            if unknown is not None and unknown in ids:
                raise InterpError(
                    f"Pair {ids.tolist().index(unknown)}: {what} is {unknown}, the id of any word that the tokenizer "
                    "does not know. Give the id of a word."
                )
        empty: tuple[dict[str, str], ...] = ({},) * n
        return cls(
            clean=clean_prompts,
            corrupted=corrupted_prompts,
            correct=right,
            incorrect=wrong,
            answer_position=clean_prompts.role_positions(ANSWER),
            answer_policy="single",
            correct_tokens=tuple((int(token),) for token in right),
            incorrect_tokens=tuple((int(token),) for token in wrong),
            answers=_shown(reader, right),
            incorrect_answers=_shown(reader, wrong),
            slots=empty,
            corrupted_slots=empty,
            variants=("",) * n,
            drops=tuple(drops),
            task=task,
            name=name,
            stated=vocabulary,
        )

    @classmethod
    def concat(cls, parts: Sequence[PromptPairs]) -> PromptPairs:
        """All pairs of ``parts`` in order, with the drops of all; roles and answer policy must agree.

        The vocabulary keeps what all parts state alike.
        """
        if not parts:
            raise InterpError("There are no pairs to join. Give at least one set.")
        policies = dict.fromkeys(part.answer_policy for part in parts)
        if len(policies) > 1:
            raise InterpError(f"Pairs to join must share one answer policy, but have {', '.join(policies)}.")
        if len({bool(part.continuation) for part in parts}) > 1:
            raise InterpError("Only some of the pairs to join come from expand_answers. Join them before it.")
        tuples = (*_PER_PROMPT, "continuation", "drops")
        joined: dict[str, Any] = {
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS},
            **{name: tuple(item for part in parts for item in getattr(part, name)) for name in tuples},
        }
        return replace(
            parts[0],
            clean=Prompts.concat([part.clean for part in parts]),
            corrupted=Prompts.concat([part.corrupted for part in parts]),
            **joined,
            task="+".join(dict.fromkeys(part.task for part in parts if part.task)),
            name="+".join(dict.fromkeys(part.name for part in parts if part.name)),
            stated=reduce(Vocabulary.agreed, (part.stated for part in parts)),
        )

    def __post_init__(self) -> None:
        n = len(self.clean)
        for name in _ARRAYS:
            object.__setattr__(self, name, numbers(getattr(self, name), name, n))
        if not np.array_equal(self.clean.lengths, self.corrupted.lengths):
            raise InterpError("Clean and corrupted prompts must have equal token counts.")
        if set(self.clean.roles) != set(self.corrupted.roles) or ANSWER not in self.clean.roles:
            raise InterpError('Clean and corrupted prompts must have the same roles, "answer" among them.')

    def __repr__(self) -> str:
        """How many, the first with its roles, and how many were left out."""
        label = "/".join(part for part in (self.task, self.name) if part)
        first = self[0]
        dropped = sum(drop.kind != SHORTFALL for drop in self.drops)
        return (
            f"PromptPairs({len(self)}{f' of {label}' if label else ''}, first {marked(self.clean, 0)!r} -> "
            f"{first.correct!r}, corrupted {first.corrupted!r} -> {first.incorrect!r}, {dropped} left out)"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the first ones with their roles in colour, and a table of all."""
        return _cells.html(self)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, i: int) -> PromptPair:
        if not -len(self) <= i < len(self):
            raise IndexError(f"There is no pair {i}: there are {len(self)}.")
        return PromptPair(
            clean=_text(self.clean, i),
            corrupted=_text(self.corrupted, i),
            correct=self.answers[i],
            incorrect=self.incorrect_answers[i],
            slots=self.slots[i],
            corrupted_slots=self.corrupted_slots[i],
            variant=self.variants[i],
        )

    def __iter__(self) -> Iterator[PromptPair]:
        return (self[i] for i in range(len(self)))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles, ``answer`` last."""
        return tuple(self.clean.roles)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Which roles the question is about, and their names: as stated, else derived from these prompts."""
        differ = np.cumsum(np.pad(self.clean.ids != self.corrupted.ids, ((0, 0), (1, 0))), axis=1)
        rows = np.arange(len(self))
        spans = {role: self.clean.spans(role) for role in self.roles}
        differing = {role: int((differ[rows, at[:, 1]] > differ[rows, at[:, 0]]).sum()) for role, at in spans.items()}
        return self.stated.completed(self.roles, differing)

    @property
    def aligned_positions(self) -> bool:
        """Whether a position means the same in every pair: equal lengths and equal places of every role."""
        return self.clean.aligned_positions

    def select(self, indices: Sequence[int] | np.ndarray) -> PromptPairs:
        """The pairs at ``indices``, in that order; the drop log stays."""
        clean = self.clean.select(indices)  # refuses what is out of range
        index = [int(i) for i in np.asarray(indices).reshape(-1)]
        chosen: dict[str, Any] = {
            **{name: getattr(self, name)[index] for name in _ARRAYS},
            **{name: _pick(getattr(self, name), index) for name in _PER_PROMPT},
            "continuation": _pick(self.continuation, index) if self.continuation else (),
        }
        return replace(self, clean=clean, corrupted=self.corrupted.select(indices), **chosen)

    def spread(self, n: int | None) -> PromptPairs:
        """At most ``n`` pairs (None: all), evenly spaced, so that templates that take turns stay balanced.

        Raises:
            InterpError: ``n`` below 1.
        """
        check_max_prompts(n)
        if n is None or n >= len(self):
            return self
        return self.select(np.unique(np.linspace(0, len(self) - 1, n).round().astype(int)))

    def with_role_after(self, role: str) -> PromptPairs:
        """The same pairs with one more role, ``after_{role}``: the one token that follows ``role``.

        Models often gather what is said of a word on the token behind it, the first that has seen the whole word.

        Raises:
            InterpError: an unknown role, or a prompt that ends with it.
        """
        spans = self.clean.spans(role)
        after = np.stack([spans[:, 1], spans[:, 1] + 1], axis=1)
        more = {f"after_{role}": after}
        return replace(
            self,
            clean=self.clean.with_roles({**self.clean.roles, **more}),
            corrupted=self.corrupted.with_roles({**self.corrupted.roles, **more}),
        )

    def keep_roles(self, roles: Sequence[str]) -> PromptPairs:
        """The same pairs with only these roles, in this order, and ``answer`` last."""
        names = [*(role for role in roles if role != ANSWER), ANSWER]
        return replace(
            self,
            clean=self.clean.with_roles({role: self.clean.spans(role) for role in names}),
            corrupted=self.corrupted.with_roles({role: self.corrupted.spans(role) for role in names}),
        )

    def expand_answers(self) -> tuple[PromptPairs, PromptPairs]:
        """Two sets to score whole answers with: one continued by the correct answers, one by the incorrect.

        All but the last token of each answer are appended to both prompts (teacher forcing), and
        ``continuation`` holds the tokens to score. The log-probability of an answer is the sum over k of that
        of ``continuation[i][k]`` at position ``answer_position[i] + k``. Roles, ``answer`` among them, stay
        where they were. Under the other policies the continuation is the one scored token, and nothing is
        appended.
        """
        if self.answer_policy == "sum_logprob":
            return self._continued(self.correct_tokens), self._continued(self.incorrect_tokens)
        return (
            self._continued(tuple((int(token),) for token in self.correct)),
            self._continued(tuple((int(token),) for token in self.incorrect)),
        )

    def _continued(self, answers: tuple[tuple[int, ...], ...]) -> PromptPairs:
        forced = [answer[:-1] for answer in answers]
        for i, (more, at, length) in enumerate(zip(forced, self.answer_position, self.clean.lengths, strict=True)):
            if more and at != length - 1:
                raise InterpError(
                    f"Prompt {i} is scored at token {at} of {length}: an answer of several tokens can only continue a "
                    "prompt at its end. Shorten the prompt, or score one token."
                )
        clean, corrupted = extend(self.clean, forced), extend(self.corrupted, forced)
        return replace(self, clean=clean, corrupted=corrupted, continuation=answers)

    def sha256(self) -> str:
        """Fingerprint of everything that is run and scored: both prompts, roles, answers and policy."""
        digest = hashlib.sha256(self.answer_policy.encode())
        digest.update(f"{self.clean.sha256()}{self.corrupted.sha256()}".encode())
        for role in sorted(self.roles):
            digest.update(role.encode() + self.clean.roles[role].astype("<i8").tobytes())
        for array in (self.correct, self.incorrect, self.answer_position):
            digest.update(array.astype("<i8").tobytes())
        digest.update(repr((self.correct_tokens, self.incorrect_tokens, self.continuation)).encode())
        return digest.hexdigest()

    def provenance(self) -> dict[str, str | int]:
        """Attributes that identify these pairs in a result."""
        return {
            "task": "/".join(part for part in (self.task, self.name) if part) or "own prompts",
            "n_prompts": len(self),
            "n_dropped": sum(drop.kind != SHORTFALL for drop in self.drops),
            "tokens_sha256": self.sha256(),
            "answer_policy": self.answer_policy,
            "bos": self.clean.bos,
            "vocabulary": self.vocabulary.as_json(),
        }

    def summary(self) -> str:
        """One paragraph: how many pairs, how long, which roles, and what was dropped."""
        low, high = int(self.clean.lengths.min()), int(self.clean.lengths.max())
        label = "/".join(part for part in (self.task, self.name) if part)
        tokens = str(low) if low == high else f"{low} to {high}"
        text = (
            f"{len(self)} pairs{f' of {label}' if label else ''}: {tokens} tokens, "
            f"BOS {self.clean.bos}, answers scored as {self.answer_policy}, "
            f"roles {', '.join(self.roles)}."
        )
        if self.drops:
            kinds = Counter(drop.kind for drop in self.drops)
            counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
            text += f" Dropped: {counts}. {first_reasons(self.drops)}"
        return text


def _pick(items: Sequence[_T], index: Sequence[int]) -> tuple[_T, ...]:
    return tuple(items[i] for i in index)


def _shown(reader: Any, ids: np.ndarray) -> tuple[str, ...]:
    return tuple(f"#{token}" for token in ids) if reader is None else token_texts(reader, ids.tolist())


def _text(prompts: Prompts, i: int) -> str:
    if prompts.texts is not None:
        return prompts.texts[i]
    return "".join(prompts.tokens[i]) if prompts.tokens else " ".join(map(str, prompts.rows()[i]))
