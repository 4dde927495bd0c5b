"""`Prompts`: tokenised prompts with roles, and the small checks that keep them sound.

Import from `interp.prompts.tokens`, which makes them from text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int

from interp import _cells
from interp.errors import InterpError, unknown_name

_T = TypeVar("_T")


@dataclass(frozen=True)
class Span:
    """Token positions ``start`` up to and without ``stop``; the BOS, where there is one, is position 0."""

    start: int
    stop: int


RoleSpec = int | Span | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """Tokenised prompts with roles: what ``capture`` and every run take.

    Attributes:
        ids: token ids, dims (prompt, position), padded on the right with 0.
        lengths: tokens per prompt, padding excluded.
        roles: role -> first and one-past-last token position, dims (prompt, 2).
        texts: the text of each prompt, or None if ids were given.
        tokens: each token as text, per prompt, or None without a tokenizer.
        bos: ``"prepended"``, ``"none"`` or ``"given"`` (ids were taken as they came).

    >>> prompts = Prompts.from_ids([[5, 6, 7], [8, 9]], roles={"first": 0, "last": -1})
    >>> prompts.lengths.tolist(), prompts.role_positions("last").tolist()
    ([3, 2], [2, 1])
    """

    ids: Int[np.ndarray, "prompt position"]
    lengths: Int[np.ndarray, " prompt"]
    roles: Mapping[str, Int[np.ndarray, "prompt 2"]] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    tokens: tuple[tuple[str, ...], ...] | None = None
    bos: str = "given"

    def __post_init__(self) -> None:
        ids, lengths = _frozen(self.ids), _frozen(self.lengths)
        if ids.ndim != 2 or len(ids) == 0:
            raise InterpError("There are no prompts. Give at least one.")
        if lengths.shape != (len(ids),) or lengths.min() < 1 or lengths.max() > ids.shape[1]:
            raise InterpError(f"lengths must be one number from 1 to {ids.shape[1]} for each of {len(ids)} prompts.")
        if ids.min() < 0:
            raise InterpError(
                f"Prompt {ids.min(axis=1).argmin()} holds the negative id {ids.min()}. Token ids start at 0."
            )
        roles = {role: _frozen(spans) for role, spans in self.roles.items()}
        for role, spans in roles.items():
            if spans.shape != (len(ids), 2):
                raise InterpError(f"Role {role!r} needs a start and a stop for each of {len(ids)} prompts.")
            wrong = (spans[:, 0] < 0) | (spans[:, 1] <= spans[:, 0]) | (spans[:, 1] > lengths)
            if wrong.any():
                i = int(wrong.argmax())
                start, stop = spans[i].tolist()
                raise InterpError(
                    f"Role {role!r} covers positions {start} to {stop - 1} of prompt {i}, which has "
                    f"{lengths[i]} tokens. Give positions inside the prompt."
                )
        for name, value in (("ids", ids), ("lengths", lengths), ("roles", roles)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_ids(
        cls,
        ids: Any,
        roles: Mapping[str, RoleSpec] | None = None,
        tokenizer: Any = None,
        *,
        bos: str = "given",
    ) -> Prompts:
        """Prompts from token ids, taken as they are (no BOS is added).

        Args:
            ids: one sequence of ids per prompt; lengths may differ. Arrays and tensors are accepted.
            roles: role -> a position for all prompts (negative: from each prompt's end), a ``Span`` for all,
                one position per prompt, or an array (prompt, 2) of starts and stops.
            tokenizer: a model or a Hugging Face tokenizer, used to show tokens as text; None shows none.
            bos: what to record about the BOS.

        Raises:
            InterpError: no prompts, an empty one, something that is not an id, or a role outside its prompt.
        """
        rows = _id_rows(ids)
        lengths = np.array([len(row) for row in rows])
        spans = {role: role_spans(role, spec, lengths) for role, spec in (roles or {}).items()}
        reader = getattr(tokenizer, "tokenizer", tokenizer)
        tokens = None if reader is None else row_texts(reader, rows)
        found = cls(padded(rows), lengths, spans, None, tokens, bos)
        found._check_roles_known(unknown_id(reader))
        return found

    @classmethod
    def concat(cls, parts: Sequence[Prompts]) -> Prompts:
        """All prompts of ``parts``, in order; they must agree on their roles and on the BOS."""
        if not parts:
            raise InterpError("There are no prompts to join. Give at least one set.")
        first = parts[0]
        for other in parts[1:]:
            if set(other.roles) != set(first.roles):
                odd = ", ".join(sorted(set(other.roles) ^ set(first.roles)))
                raise InterpError(f"Prompts to join must have the same roles, but only one side has {odd}.")
            if other.bos != first.bos:
                raise InterpError(f"Prompts to join must treat the BOS alike, but have {first.bos} and {other.bos}.")
        return cls(
            ids=padded([row for part in parts for row in part.rows()]),
            lengths=np.concatenate([part.lengths for part in parts]),
            roles={role: np.concatenate([part.roles[role] for part in parts]) for role in first.roles},
            texts=_joined([part.texts for part in parts]),
            tokens=_joined([part.tokens for part in parts]),
            bos=first.bos,
        )

    def _check_roles_known(self, unknown: int | None) -> None:
        for role, spans in self.roles.items():
            for i, (start, stop) in enumerate(spans):
                if unknown is not None and unknown in self.ids[i, start:stop]:
                    raise InterpError(
                        f"Role {role!r} of prompt {i} holds id {unknown}, which stands for any word that the tokenizer "
                        "does not know. Give a role to words that it knows."
                    )

    def __repr__(self) -> str:
        """How many, how long, and the first with its roles."""
        low, high = int(self.lengths.min()), int(self.lengths.max())
        tokens = str(low) if low == high else f"{low} to {high}"
        return f"Prompts({len(self)} of {tokens} tokens, BOS {self.bos}, first {marked(self, 0)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first ones with their roles in colour, and a table of all."""
        return _cells.html(self)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> list[list[int]]:
        """The ids of each prompt without padding."""
        return [row[:length].tolist() for row, length in zip(self.ids, self.lengths, strict=True)]

    def select(self, indices: Sequence[int] | np.ndarray) -> Prompts:
        """The prompts at ``indices``, in that order, with padding cut to the longest of them."""
        index = _int_array(indices, "The selection").reshape(-1) if len(indices) else np.zeros(0, dtype=np.int64)
        if len(index) == 0:
            raise InterpError("The selection has no prompts. Choose at least one.")
        outside = index[(index < -len(self)) | (index >= len(self))]
        if len(outside):
            raise InterpError(f"The selection asks for prompt {outside[0]}, but there are {len(self)}.")
        lengths = self.lengths[index]
        return Prompts(
            ids=self.ids[index, : lengths.max()],
            lengths=lengths,
            roles={role: spans[index] for role, spans in self.roles.items()},
            texts=None if self.texts is None else tuple(self.texts[i] for i in index),
            tokens=None if self.tokens is None else tuple(self.tokens[i] for i in index),
            bos=self.bos,
        )

    def with_roles(self, roles: Mapping[str, Int[np.ndarray, "prompt 2"]]) -> Prompts:
        """The same prompts with exactly these roles."""
        return replace(self, roles=dict(roles))

    def spans(self, role: str) -> Int[np.ndarray, "prompt 2"]:
        """First and one-past-last token position of ``role`` per prompt."""
        if role not in self.roles:
            raise unknown_name("role", role, self.roles)
        return self.roles[role]

    def role_positions(self, role: str, which: Literal["first", "last"] = "last") -> Int[np.ndarray, " prompt"]:
        """Position of the first or last token of ``role`` in each prompt."""
        if which not in ("first", "last"):
            raise unknown_name("token of a role", which, ("first", "last"))
        spans = self.spans(role)
        return spans[:, 0].copy() if which == "first" else spans[:, 1] - 1

    @cached_property
    def aligned_positions(self) -> bool:
        """Whether a position means the same in every prompt: equal lengths and equal places of every role."""
        same = bool((self.lengths == self.lengths[0]).all())
        return same and all(bool((spans == spans[0]).all()) for spans in self.roles.values())

    def sha256(self) -> str:
        """Fingerprint of the token ids; padding, roles and texts do not enter."""
        digest = hashlib.sha256(self.lengths.astype("<i8").tobytes())
        for row in self.rows():
            digest.update(np.asarray(row, dtype="<i8").tobytes())
        return digest.hexdigest()


def role_spans(role: str, spec: RoleSpec, lengths: Int[np.ndarray, " prompt"]) -> Int[np.ndarray, "prompt 2"]:
    """Starts and stops of a role given in any of the forms that ``Prompts.from_ids`` takes."""
    n = len(lengths)
    if isinstance(spec, Span):
        return np.tile(np.array([spec.start, spec.stop]), (n, 1))
    places = _int_array(spec, f"Role {role!r}")
    if places.shape == (n, 2):
        return places
    if places.shape not in ((), (n,)):
        raise InterpError(
            f"Role {role!r} must be a position, a Span, or one position for each of {n} prompts, "
            f"but has shape {places.shape}."
        )
    start = np.where(places < 0, places + lengths, places)
    return np.stack([start, start + 1], axis=1)


def numbers(values: Any, what: str, n: int) -> Int[np.ndarray, " prompt"]:
    """One id or position for each of ``n`` prompts, from one number for all or one for each."""
    array = _int_array(values, what)
    if array.shape not in ((), (n,)):
        raise InterpError(f"{what} must be one number, or one for each of {n} prompts, not {array.size}.")
    if array.size and array.min() < 0:
        raise InterpError(f"{what} holds {array.min()}. It must not be negative.")
    return _frozen(np.broadcast_to(array, (n,)))


def token_texts(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Each token as text, spaces included; part of a letter shows as U+FFFD, a NUL (which no file holds) as U+2400."""
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    texts = (
        piece.replace("\u2581", " ") if piece and piece.startswith("\u2581") else decode(tokenizer, [token])
        for piece, token in zip(pieces, ids, strict=True)
    )
    return tuple(text.replace("\0", "\u2400") for text in texts)


def row_texts(tokenizer: Any, rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[tuple[str, ...], ...]:
    """The ``token_texts`` of each row, in which no id is decoded twice."""
    known = sorted({int(token) for row in rows for token in row})
    texts = dict(zip(known, token_texts(tokenizer, known), strict=True))
    return tuple(tuple(texts[int(token)] for token in row) for row in rows)


def unknown_id(tokenizer: Any) -> int | None:
    """The id that a tokenizer reads for any word it does not know; None where it knows every word.

    Byte-level tokenizers know every word. Many of them name an id for unknown words all the same, which is that of
    their BOS or of the end of a text: it does not count.
    """
    found = getattr(tokenizer, "unk_token_id", None)
    marks = (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None))
    return None if found is None or found in marks else int(found)


def marked(prompts: Prompts, i: int) -> str:
    """A prompt with each role's name behind its word, for reading; the BOS and the role ``answer`` are left out.

    >>> marked(Prompts.from_ids([[5, 6, 7]], roles={"noun": 1}), 0)
    '5 6[noun] 7'
    """
    length = int(prompts.lengths[i])
    texts = [f"{'' if at == 0 else ' '}{token}" for at, token in enumerate(prompts.ids[i, :length].tolist())]
    if prompts.tokens is not None:
        texts = list(prompts.tokens[i])
    for role, spans in prompts.roles.items():
        if role != "answer":
            texts[int(spans[i, 1]) - 1] += f"[{role}]"
    return "".join(texts[1 if prompts.bos == "prepended" else 0 :])


def excerpt(text: str, *, end: bool = False, limit: int = 48) -> str:
    """A text shortened to one line for a message, from its beginning or its end."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    return f"...{line[-limit:]}" if end else f"{line[:limit]}..."


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of some ids as it stands, special tokens included."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def padded(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Rows of ids as one array, zeros after the shorter ones."""
    ids = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def _id_rows(ids: Any) -> list[list[int]]:
    rows = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(rows, Iterable):
        raise InterpError(f"Token ids must be one list per prompt, not {type(ids).__name__}, as in [[1, 2, 3]].")
    rows = list(rows)
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    if not rows:
        raise InterpError("There are no prompts: the list of ids is empty. Give at least one.")
    if not all(isinstance(row, Sequence) and not isinstance(row, str) for row in rows):
        raise InterpError("Token ids must be one list per prompt. Wrap a single prompt in a list: [[1, 2, 3]].")
    for i, row in enumerate(rows):
        if not row:
            raise InterpError(f"Prompt {i} is empty. Give it at least one token.")
        if _int_array(row, f"Prompt {i}").min() < 0:
            raise InterpError(f"Prompt {i} holds the negative id {min(row)}. Token ids start at 0.")
    return [list(map(int, row)) for row in rows]


def _int_array(values: Any, what: str) -> np.ndarray:
    """Integers, or an error that names ``what``; booleans and fractions are not integers."""
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iu":
        raise InterpError(f"{what} must be whole numbers, but is {excerpt(str(values))}.")
    return array.astype(np.int64)


def _frozen(values: Any) -> np.ndarray:
    array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array


def _joined(parts: Sequence[tuple[_T, ...] | None]) -> tuple[_T, ...] | None:
    if any(part is None for part in parts):
        return None
    return tuple(item for part in parts if part is not None for item in part)
