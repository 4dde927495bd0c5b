"""`AnsweredPrompts`: prompts with the answers to score, without a corrupted half. Import it from `interp.prompts`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from interp import _cells
from interp.errors import InterpError
from interp.prompts.alignment import Problem, resolve_answer
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts, RoleSpec, SupportsTokenizer, encode, marked, numbers


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AnsweredPrompts:
    """Prompts with an answer each: all that an ablation or a knockout needs.

    What is removed from a run is measured on that run alone, so nothing has to be corrupted. The attributes are those
    of ``PromptPairs``.

    Attributes:
        clean: the prompts.
        correct: scored token of the correct answer, per prompt.
        incorrect: scored token of the incorrect answer, per prompt; None where no metric compares two answers.
        answer_position: position whose logits predict the scored token, per prompt.

    >>> prompts = AnsweredPrompts.from_tokens([[5, 6, 7], [8, 9, 7]], correct=[1, 2], roles={"first": 0})
    >>> len(prompts), prompts.roles, prompts.answer_position.tolist()
    (2, ('first', 'answer'), [2, 2])
    """

    clean: Prompts
    correct: Int[np.ndarray, " prompt"]
    incorrect: Int[np.ndarray, " prompt"] | None
    answer_position: Int[np.ndarray, " prompt"]

    @classmethod
    def from_tokens(
        cls,
        ids: Any,
        *,
        correct: int | Sequence[int] | np.ndarray,
        incorrect: int | Sequence[int] | np.ndarray | None = None,
        roles: Mapping[str, RoleSpec] | None = None,
        answer_position: int | Sequence[int] | np.ndarray = -1,
        tokenizer: Any = None,
    ) -> AnsweredPrompts:
        """From token ids, taken as they are. Arguments as in ``PromptPairs.from_tokens``.

        Raises:
            InterpError: ids, roles, positions or answers that do not fit.
        """
        places = dict(roles or {})
        if ANSWER in places:
            raise InterpError('Role "answer" is reserved. Give its place as answer_position=.')
        prompts = Prompts.from_ids(ids, places | {ANSWER: answer_position}, tokenizer)
        return cls(
            clean=prompts,
            correct=numbers(correct, "correct", len(prompts)),
            incorrect=None if incorrect is None else numbers(incorrect, "incorrect", len(prompts)),
            answer_position=prompts.role_positions(ANSWER),
        )

    @classmethod
    def from_texts(
        cls,
        texts: str | Sequence[str],
        *,
        correct: str | Sequence[str],
        incorrect: str | Sequence[str] | None = None,
        tokenizer: SupportsTokenizer,
    ) -> AnsweredPrompts:
        """From texts and answers of one token each, such as ``" black"``; one answer serves for all texts.

        Raises:
            InterpError: an empty text, an answer of several tokens, or not one answer for each text.
        """
        prompts = encode(tokenizer, texts)
        lines = prompts.texts or ()
        right = _one_token_each(tokenizer, lines, correct, "correct")
        wrong = None if incorrect is None else _one_token_each(tokenizer, lines, incorrect, "incorrect")
        last = prompts.lengths - 1
        roles = {ANSWER: np.stack([last, last + 1], axis=1)}
        return cls(clean=prompts.with_roles(roles), correct=right, incorrect=wrong, answer_position=last)

    def __post_init__(self) -> None:
        n = len(self.clean)
        for name in ("correct", "incorrect", "answer_position"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, numbers(value, name, n))
        if self.incorrect is not None and (self.correct == self.incorrect).any():
            i = int((self.correct == self.incorrect).argmax())
            raise InterpError(f"Prompt {i}: correct and incorrect are both {self.correct[i]}. Give two answers.")
        if (self.answer_position >= self.clean.lengths).any():
            i = int((self.answer_position >= self.clean.lengths).argmax())
            raise InterpError(
                f"answer_position of prompt {i} is {self.answer_position[i]}, which has {self.clean.lengths[i]} tokens."
            )

    def __repr__(self) -> str:
        """How many, and the first with its roles and answers."""
        other = "" if self.incorrect is None else f", not #{int(self.incorrect[0])}"
        return f"AnsweredPrompts({len(self)}, first {marked(self.clean, 0)!r} -> #{int(self.correct[0])}{other})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first ones with their roles in colour, and a table of all."""
        return _cells.html(self)

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles."""
        return tuple(self.clean.roles)

    def select(self, indices: Sequence[int] | np.ndarray) -> AnsweredPrompts:
        """The prompts at ``indices``, in that order."""
        clean = self.clean.select(indices)  # refuses what is out of range
        index = np.asarray(indices).reshape(-1)
        wrong = None if self.incorrect is None else self.incorrect[index]
        return replace(
            self,
            clean=clean,
            correct=self.correct[index],
            incorrect=wrong,
            answer_position=self.answer_position[index],
        )

    def sha256(self) -> str:
        """Fingerprint of everything that is run and scored."""
        digest = hashlib.sha256(self.clean.sha256().encode())
        for role in sorted(self.roles):
            digest.update(role.encode() + self.clean.roles[role].astype("<i8").tobytes())
        for array in (self.correct, self.incorrect, self.answer_position):
            digest.update(b"none" if array is None else array.astype("<i8").tobytes())
        return digest.hexdigest()

    def provenance(self) -> dict[str, str | int]:
        """Attributes that identify these prompts in a result."""
        return {
            "task": "own prompts",
            "n_prompts": len(self),
            "n_dropped": 0,
            "tokens_sha256": self.sha256(),
            "answer_policy": "single",
            "bos": self.clean.bos,
        }


def _one_token_each(
    tokenizer: SupportsTokenizer, texts: Sequence[str], answers: str | Sequence[str], what: str
) -> Int[np.ndarray, " prompt"]:
    words = [answers] * len(texts) if isinstance(answers, str) else list(answers)
    if len(words) != len(texts):
        raise InterpError(f"There are {len(texts)} texts and {len(words)} {what} answers. Give one, or one for each.")
    ids = []
    for i, (text, word) in enumerate(zip(texts, words, strict=True)):
        found = resolve_answer(tokenizer, text, word)
        if isinstance(found, Problem):
            raise InterpError(f"Prompt {i}: {found.reason}.")
        ids.append(found)
    return np.array(ids)
