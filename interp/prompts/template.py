"""`Template`: a text with named slots, whose places are roles. Import it from `interp.prompts`."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from interp import _cells
from interp.errors import InterpError, shown, unknown_name
from interp.prompts.tokens import excerpt

ANSWER = "answer"  # the reserved role of the position that predicts the answer

Slots = Mapping[str, str]


class _Piece(NamedTuple):
    """A stretch of literal text, then a place under a role (empty at the end of a template).

    The place is filled by a slot, or holds a fixed text.
    """

    literal: str
    slot: str
    role: str
    fixed: str = ""


class Rendered(NamedTuple):
    """A filled template: its text, its answer, and the characters of every role."""

    text: str
    answer: str
    roles: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Template:
    """A text with slots, and the answer that should follow it.

    ``{noun}`` is a slot and also names a role. A slot that returns gives the roles ``noun@2``, ``noun@3``;
    ``{noun:asked}`` fills slot ``noun`` and names this place ``asked``. ``{'.':stop}`` is the text ``.`` under the
    role ``stop``. ``{{`` and ``}}`` are plain braces.

    Raises:
        InterpError: unbalanced braces, a slot without a proper name, or two places with the same role.

    >>> template = Template("The {noun} is {color}. The {noun:asked} is", answer=" {color}")
    >>> template.roles
    ('noun', 'color', 'asked')
    >>> template.render({"noun": "cat", "color": "black"}).text
    'The cat is black. The cat is'
    """

    text: str
    answer: str

    def _repr_html_(self) -> str:
        """What a notebook shows: its places in colour."""
        return _cells.html(self)

    def __post_init__(self) -> None:
        for role, count in Counter(self.roles).items():
            if role == ANSWER:
                raise InterpError(
                    f'Role "{ANSWER}" in template "{excerpt(self.text)}" is reserved for the last token. '
                    "Name the slot or the role otherwise."
                )
            if count > 1:
                raise InterpError(
                    f'Two places of template "{excerpt(self.text)}" have the role {role!r}. '
                    "Rename one, as in {slot:role}."
                )
        parse(self.answer)

    @cached_property
    def _pieces(self) -> tuple[_Piece, ...]:
        return parse(self.text)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the text, in order."""
        return tuple(piece.role for piece in self._pieces if piece.role)

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots to fill, in order of first use; those of the answer last."""
        return tuple(dict.fromkeys(p.slot for p in (*self._pieces, *parse(self.answer)) if p.slot))

    def roles_of(self, slot: str) -> tuple[str, ...]:
        """Every role that ``slot`` fills."""
        return tuple(piece.role for piece in self._pieces if piece.slot == slot)

    def render(self, slots: Slots, *, where: str = "", also: Collection[str] = ()) -> Rendered:
        """Fill every slot.

        Args:
            slots: slot -> its words.
            where: how a message says whose slots these are, such as ``" in clean pair 3"``.
            also: further slots that may be given without being used here.

        Raises:
            InterpError: a slot is missing, unknown, empty, or not text.
        """
        for slot, words in slots.items():
            if slot not in (known := (*self.slots, *also)):
                raise unknown_name("slot", slot, known, f'{where} of template "{excerpt(self.text)}"')
            if not isinstance(words, str) or not words.strip():
                raise InterpError(f"Slot {slot!r} is {shown(words)}{where}. Give it at least one word.")
        text, roles = "", {}
        for piece in self._pieces:
            text += piece.literal
            if piece.role:
                words = piece.fixed or _words(slots, piece.slot, self.text, where)
                roles[piece.role] = (len(text), len(text) + len(words))
                text += words
        return Rendered(text, fill(self.answer, slots, where=where), roles)


def in_one_form(*sets: Sequence[Slots]) -> tuple[list[dict[str, str]], ...]:
    """Slots with their letters in one Unicode form (NFC), so that a word is one word however it was typed.

    Raises:
        InterpError: a word that is written with and without a space at its end, and would count as two.
    """
    made = tuple(
        [{s: unicodedata.normalize("NFC", w) if isinstance(w, str) else w for s, w in slots.items()} for slots in one]
        for one in sets
    )
    seen: dict[tuple[str, str], str] = {}
    for slots in (slots for one in made for slots in one):
        for slot, word in slots.items():
            if isinstance(word, str) and seen.setdefault((slot, word.strip()), word) != word:
                other = seen[slot, word.strip()]
                raise InterpError(
                    f"Slot {slot!r} is {other!r} and {word!r}: one word, written in two ways. Choose one."
                )
    return made


def fill(text: str, slots: Slots, *, where: str = "") -> str:
    """``text`` with its slots filled, for a text whose places need no roles, such as an answer."""
    words = (p.literal + (p.fixed or (_words(slots, p.slot, text, where) if p.slot else "")) for p in parse(text))
    return "".join(words)


def parse(text: str) -> tuple[_Piece, ...]:
    """The pieces of a template text; un-renamed repeats of a slot are numbered from 2."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InterpError(
            f'Braces in template "{excerpt(text)}" do not match ({error}). '
            "Write {slot}, or {{ and }} for plain braces."
        ) from None
    pieces = []
    uses: Counter[str] = Counter()
    for literal, slot, role, conversion in parts:
        if slot is None:
            pieces.append(_Piece(literal, "", ""))
            continue
        if len(slot) > 2 and slot[0] == slot[-1] == "'" and (role or "").isidentifier() and not conversion:
            pieces.append(_Piece(literal, "", str(role), slot[1:-1]))
            continue
        if not slot.isidentifier() or conversion or not (role or slot).isidentifier():
            inside = slot + (f"!{conversion}" if conversion else "") + (f":{role}" if role else "")
            raise InterpError(
                f'Slot {{{inside}}} of template "{excerpt(text)}" needs a name of letters, digits and '
                "underscores, as in {noun} or {noun:asked}."
            )
        if not role:
            uses[slot] += 1
            role = slot if uses[slot] == 1 else f"{slot}@{uses[slot]}"
        pieces.append(_Piece(literal, slot, role))
    return tuple(pieces)


def _words(slots: Slots, slot: str, text: str, where: str) -> str:
    if slot not in slots:
        raise InterpError(
            f'Slot {slot!r} of template "{excerpt(text)}" is missing{where}; '
            f"given: {', '.join(slots) or 'nothing'}. Add {slot!r}."
        )
    return slots[slot]
