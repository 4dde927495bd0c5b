"""The vocabulary of a question: which word is studied, where it goes, who reads it there, and what to call them.

Analyses, the verdict and the page ask here for the roles they are about, so that none of them knows one task's words.
A task states as much as it likes; the rest is derived from the prompts.

>>> stated = Vocabulary(source="subject", target="verb", words={"en": {"subject": "the subject"}})
>>> found = stated.completed(("subject", "other", "verb", "answer"), differing={"subject": 8})
>>> found.readers, found.distractors
(('answer',), ('other',))
>>> found.name("subject"), found.name("verb"), found.name("answer")
('the subject', "'verb'", 'the answer position')
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from interp._keys import TEXT, Key, Reader, mapping, named
from interp.errors import InterpError, shown, unknown_name
from interp.language import LANGUAGES, spoken
from interp.prompts.template import ANSWER

SAYS, PREFERS, DOES_NOT = OUTCOMES = ("says it", "prefers it", "does not")
"""What a model can do with an answer: have it as its top token, put it before the other answer, or neither."""

GUESSING = 0.5
"""Share of prompts on which a model without the behaviour prefers one of two given answers to the other."""

_ONE = ("source", "target")
_SEVERAL = ("readers", "meeting", "distractors")
_AFTER = "after_"
_KNOWN_WORDS = {"en": {ANSWER: "the answer position"}, "es": {ANSWER: "la posición de la respuesta"}}
_BEHIND = {"en": "the token after {}", "es": "el token que sigue a {}"}
_ASKED_FOR = {"en": "the correct answer", "es": "la respuesta correcta"}


@dataclass(frozen=True)
class Vocabulary:
    """The roles that a question is about, and their names in words. None means: not stated.

    Attributes:
        source: the role that carries what is studied; it differs between clean and corrupted.
        target: the role to which it is thought to go.
        readers: roles where it is read to give the answer.
        meeting: roles, besides the later of source and target, that have seen both and where they can meet.
        distractors: roles that could be taken for source or target.
        words: language -> role -> its name within a sentence, such as ``"the colour"``.
        asked_for: language -> the right answer within a sentence, such as ``"the asked noun's colour"``.

    >>> stated = Vocabulary(source="color", target="noun", words={"en": {"color": "the colour"}})
    >>> stated.name("color", "en")
    'the colour'
    """

    source: str | None = None
    target: str | None = None
    readers: tuple[str, ...] | None = None
    meeting: tuple[str, ...] | None = None
    distractors: tuple[str, ...] | None = None
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asked_for: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source is not None and self.source == self.target:
            raise InterpError(
                f"The vocabulary has {shown(self.source)} as source and as target. Name two roles, or only one of them."
            )
        for name in _SEVERAL:
            roles = getattr(self, name) or ()
            twice = next((role for role in roles if roles.count(role) > 1), None)
            if twice is not None:
                raise InterpError(f"{name} of the vocabulary has {shown(twice)} twice. Remove one.")

    def check(self, roles: Collection[str], where: str = "") -> None:
        """Refuse a role that no prompt has.

        Raises:
            InterpError: an unknown role, or words for one.
        """
        named: dict[str, tuple[str, ...]] = {
            name: (role,) for name in _ONE if (role := getattr(self, name)) is not None
        }
        named |= {name: getattr(self, name) or () for name in _SEVERAL}
        named |= {f"words.{language}": tuple(words) for language, words in self.words.items()}
        for name, found in named.items():
            for role in found:
                if role not in roles:
                    raise unknown_name("role", role, roles, f" in {name} of the vocabulary{where}")

    def completed(self, roles: Sequence[str], differing: Mapping[str, int]) -> Vocabulary:
        """The whole vocabulary of prompts with these roles: what is not stated, or not among them, is derived.

        Args:
            roles: the roles of the prompts, in order.
            differing: role -> in how many prompts its tokens differ between clean and corrupted.

        Returns:
            ``source`` is the role that differs in most prompts, the first of several, and None if none does;
            ``target`` is the answer position; ``readers`` is the answer position; ``meeting`` is the tokens right
            after source and target (roles ``after_...``); ``distractors`` are all roles that are left.
        """
        source, target = (role if role in roles else None for role in (self.source, self.target))
        if source is None:
            free = [role for role in roles if role not in (target, ANSWER) and differing.get(role, 0) > 0]
            source = max(free, key=lambda role: differing[role], default=None)
        if target is None and source != ANSWER:
            target = ANSWER
        readers = self._those_of(self.readers, roles) or (ANSWER,)
        meeting = self._those_of(self.meeting, roles)
        if meeting is None:
            meeting = tuple(role for role in roles if role in (f"{_AFTER}{source}", f"{_AFTER}{target}"))
        distractors = self._those_of(self.distractors, roles)
        if distractors is None:
            distractors = tuple(role for role in roles if role not in (source, target, *readers, *meeting))
        return replace(
            self, source=source, target=target, readers=readers, meeting=meeting, distractors=distractors
        )  # fmt: skip

    @staticmethod
    def _those_of(stated: tuple[str, ...] | None, roles: Sequence[str]) -> tuple[str, ...] | None:
        return None if stated is None else tuple(role for role in stated if role in roles)

    def agreed(self, other: Vocabulary) -> Vocabulary:
        """What both state alike; the rest is not stated."""
        alike = {one.name for one in fields(self) if getattr(self, one.name) == getattr(other, one.name)}
        return Vocabulary(**{name: getattr(self, name) for name in alike})

    def places(self, last: str) -> tuple[str, ...]:
        """Where source and target can meet: at ``last``, the later of the two, and at the meeting places after it."""
        earlier = self.source if last == self.target else self.target
        return (last, *(role for role in self.meeting or () if role not in (last, earlier, f"{_AFTER}{earlier}")))

    def name(self, role: str, language: str | None = None) -> str:
        """A role within a sentence: the stated words, else the role's own name in quotes.

        Args:
            role: the role.
            language: of the sentence; None is the one spoken now (``interp.language``).
        """
        language = language or spoken()
        stated = {**_KNOWN_WORDS[language], **self.words.get(language, {})}
        if role in stated:
            return stated[role]
        if role.startswith(_AFTER):
            return _BEHIND[language].format(self.name(role.removeprefix(_AFTER), language))
        return f"'{role}'"

    def correct(self, language: str | None = None) -> str:
        """The right answer within a sentence; ``language`` as for ``name``."""
        language = language or spoken()
        return self.asked_for.get(language, _ASKED_FOR[language])

    def as_json(self) -> str:
        """The vocabulary as text; ``from_json`` reads it back to an equal one."""
        stated = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps({key: value for key, value in stated.items() if value is not None}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read what ``as_json`` wrote.

        Raises:
            InterpError: it is something else.
        """
        try:
            return read(json.loads(text), " of a result")
        except (ValueError, RecursionError) as error:
            raise InterpError(f"The vocabulary of a result is damaged: {error}") from error


NOTHING_STATED = Vocabulary()
"""All of it is derived from the prompts."""


_ROLES = {"type": "array", "items": TEXT, "uniqueItems": True}


def _in_each_language(holds: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": dict.fromkeys(LANGUAGES, holds), "additionalProperties": False}


KEYS = (
    Key("source", TEXT, "The role that carries what is studied; without it, the one that corrupted changes."),
    Key("target", TEXT, "The role where it is thought to go; without it, the answer position."),
    Key("readers", _ROLES, "Roles where it is read to give the answer; without them, the answer position."),
    Key("meeting", _ROLES, "Roles, besides the later of source and target, where the two can meet."),
    Key("distractors", _ROLES, "Roles that could be taken for source or target; without them, all that are left."),
    Key("words", _in_each_language(named(TEXT)), 'What to call a role within a sentence: {en: {color: "the colour"}}.'),
    Key("asked_for", _in_each_language(TEXT), "The right answer within a sentence, such as: the asked noun's colour."),
)
"""What a task may state of its roles."""

HOLDS = mapping(KEYS)


def read(content: Any, where: str) -> Vocabulary:
    """A vocabulary from plain values, as YAML or JSON have them.

    Args:
        content: a mapping with any of the attributes of ``Vocabulary`` as keys.
        where: where it stands, for messages, such as ``" of mine.yaml"``.

    Raises:
        InterpError: a key that is unknown, or of another kind.
    """
    reader, here = Reader(), f"vocabulary{where}"
    found = reader.keys(content, here, KEYS)
    stated: dict[str, Any] = {key: _line(reader.text(found, key, here)) for key in _ONE if key in found}
    stated |= {key: _roles(reader, found[key], f"{key} of {here}") for key in _SEVERAL if key in found}
    words = _by_language(reader, found.get("words", {}), f"words of {here}")
    stated["words"] = {
        language: {
            role: _line(reader.as_written(name, f"{role} in words.{language} of {here}"))
            for role, name in reader.mapping(said, f"words.{language} of {here}").items()
        }
        for language, said in words.items()
    }
    asked_for = _by_language(reader, found.get("asked_for", {}), f"asked_for of {here}")
    stated["asked_for"] = {
        language: _line(reader.text(asked_for, language, f"asked_for of {here}")) for language in asked_for
    }
    return Vocabulary(**stated)


def _by_language(reader: Reader, content: Any, where: str) -> dict[str, Any]:
    found = reader.mapping(content, where)
    for language in found:
        reader.known(language, LANGUAGES, "language", where)
    return found


def _roles(reader: Reader, content: Any, where: str) -> tuple[str, ...]:
    if not isinstance(content, list):
        reader.fail(f"{where} must be a list of roles, not {shown(content)}.")
    return tuple(_line(role) for role in (reader.names(content, where) if content else ()))


def _line(text: str) -> str:
    return " ".join(text.split())
