"""What a task file may say, and the checks that its parts fit together.

A task of kind ``words`` fills templates from a lexicon; one of kind ``random_tokens`` needs ids only.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from interp import _yaml
from interp.alignment import AnswerPolicy
from interp.errors import InterpError, shown, unknown_name
from interp.prompts import ANSWER, Template

Kind = Literal["words", "random_tokens"]


@dataclass(frozen=True)
class Corruption:
    """How the corrupted prompt is made from the clean one; exactly one of the three is used.

    Attributes:
        other: this slot takes another word of its list, one that the prompt does not hold.
        swap: these two slots exchange their words.
        copy: slot -> the slot whose clean word it takes.
    """

    other: str = ""
    swap: tuple[str, ...] = ()
    copy: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots whose words change."""
        return (self.other,) if self.other else (*self.swap, *self.copy)


@dataclass(frozen=True)
class Rung:
    """One difficulty of a task.

    Attributes:
        name: short name.
        description: what the prompts hold and how the corrupted ones are made.
        main: whether this is the rung that the task is about.
        templates: variant -> template; one template has the variant "".
        corrupted: how corrupted prompts are made.
        same: slot -> the slot whose clean word it repeats.
        incorrect_answer: template of the incorrect answer, filled with the clean words; None for the
            corrupted prompt's own answer.
        roles: roles of interest, in the order in which results show them; ``after_noun`` is the token behind ``noun``.
        block: length of the repeated block, for ``random_tokens``.
    """

    name: str
    description: str
    main: bool = False
    templates: Mapping[str, Template] = field(default_factory=dict)
    corrupted: Corruption = field(default_factory=Corruption)
    same: Mapping[str, str] = field(default_factory=dict)
    incorrect_answer: str | None = None
    roles: tuple[str, ...] = ()
    block: int = 0


@dataclass(frozen=True)
class Task:
    """A family of prompts that ask one question, as a ladder of rungs.

    Attributes:
        name: as in ``tasks.load(name)``.
        language: ``"en"``, ``"es"``, or ``"none"`` for tasks without words.
        title: for a heading.
        question: what the task asks of a model.
        source: where it comes from.
        kind: ``"words"`` or ``"random_tokens"``.
        answer_policy: how answers of several tokens are scored unless ``build`` is told otherwise.
        lexicon: slot -> its words.
        rungs: from easy to hard.
    """

    name: str
    language: str
    title: str
    question: str
    source: str
    kind: str
    answer_policy: AnswerPolicy
    lexicon: Mapping[str, tuple[str, ...]]
    rungs: tuple[Rung, ...]

    @property
    def main(self) -> Rung:
        """The rung that the task is about."""
        return next(rung for rung in self.rungs if rung.main)

    def rung(self, name: str | None = None) -> Rung:
        """The rung of that name; the main one without a name."""
        if name is None:
            return self.main
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise unknown_name("rung", name, [rung.name for rung in self.rungs], f" of task {shown(self.name)}")


_TASK_KEYS = ("name", "language", "title", "question", "source")
_TASK_OPTIONS = ("kind", "answer_policy", "lexicon", "rungs")
_RUNG_KEYS = ("name", "description")
_WORD_RUNG_OPTIONS = ("main", "template", "templates", "answer", "corrupted", "same", "incorrect_answer", "roles")
_TOKEN_RUNG_OPTIONS = ("main", "block")


def read_task(path: Path) -> Task:
    """The task in a YAML file.

    Raises:
        InterpError: the file is missing or not YAML, or a key is unknown, missing or does not fit; the message
            names the key, the file, and the nearest match.
    """
    content = _yaml.read(path, path.name)
    return _Reader(path.name).task(content)


class _Reader:
    """Checks one file; every message begins with its name."""

    def __init__(self, file: str) -> None:
        self.file = file

    def task(self, content: Any) -> Task:
        top = self.keys(content, "the task", _TASK_KEYS, _TASK_OPTIONS)
        words = {key: self.text(top, key, "the task") for key in _TASK_KEYS}
        kind = self.one_of(top.get("kind", "words"), "kind", get_args(Kind))
        policy = self.one_of(top.get("answer_policy", "single"), "answer_policy", get_args(AnswerPolicy))
        lexicon = self.lexicon(top.get("lexicon", {}))
        read = self.word_rung if kind == "words" else self.token_rung
        rungs = tuple(read(rung, lexicon) for rung in self.items(top.get("rungs"), "rungs"))
        names = [rung.name for rung in rungs]
        if len(set(names)) < len(names):
            self.fail(f"two rungs share a name ({', '.join(names)}). Rename one.")
        if sum(rung.main for rung in rungs) != 1:
            self.fail("exactly one rung must say main: true.")
        return Task(**words, kind=kind, answer_policy=policy, lexicon=lexicon, rungs=rungs)

    def word_rung(self, content: Any, lexicon: Mapping[str, tuple[str, ...]]) -> Rung:
        rung = self.keys(content, "a rung", (*_RUNG_KEYS, "answer", "corrupted"), _WORD_RUNG_OPTIONS)
        name = self.text(rung, "name", "a rung")
        where = f"rung {shown(name)}"
        if ("template" in rung) == ("templates" in rung):
            self.fail(f"{where} needs either template or templates (variant: template).")
        answer = self.as_written(rung, "answer", where)
        if "template" in rung:
            texts = {"": self.as_written(rung, "template", where)}
        else:
            texts = self.texts(rung["templates"], f"templates of {where}")
        templates = {ask: self.template(text, answer, where) for ask, text in texts.items()}
        used = dict.fromkeys(slot for template in templates.values() for slot in template.slots)
        same = self.texts(rung.get("same", {}), f"same of {where}")
        corrupted = self.corruption(rung["corrupted"], where)
        for slot in (*used, *same.values()):
            self.known(slot, lexicon if slot not in same else used, "slot", where)
        for slot in (*corrupted.slots, *corrupted.copy.values(), *same):
            self.known(slot, used, "slot", where)
        shared = [r for r in next(iter(templates.values())).roles if all(r in t.roles for t in templates.values())]
        roles = tuple(self.names(rung.get("roles", shared), f"roles of {where}"))
        for role in roles:
            self.known(role, (*shared, *(f"after_{one}" for one in shared), ANSWER), "role", where)
        other = rung.get("incorrect_answer")
        if other is not None:
            other = self.as_written(rung, "incorrect_answer", where)
            for slot in self.template("", other, where).slots:
                self.known(slot, used, "slot", f"incorrect_answer of {where}")
        description = self.text(rung, "description", where)
        main = self.flag(rung.get("main", False), where)
        return Rung(name, description, main, templates, corrupted, same, other, roles)

    def token_rung(self, content: Any, lexicon: Mapping[str, tuple[str, ...]]) -> Rung:
        rung = self.keys(content, "a rung", (*_RUNG_KEYS, "block"), _TOKEN_RUNG_OPTIONS)
        if lexicon:
            self.fail("a task of random tokens has no lexicon. Remove it.")
        block = rung["block"]
        if isinstance(block, bool) or not isinstance(block, int) or block < 2:
            self.fail(f"block is {shown(block)}. Give a whole number from 2.")
        name, description = (self.text(rung, key, "a rung") for key in _RUNG_KEYS)
        return Rung(name, description, self.flag(rung.get("main", False), name), block=block)

    def corruption(self, content: Any, where: str) -> Corruption:
        kinds = self.keys(content, f"corrupted of {where}", (), ("other", "swap", "copy"))
        if len(kinds) != 1:
            self.fail(f"corrupted of {where} needs exactly one of other, swap, copy.")
        ((kind, value),) = kinds.items()
        if kind == "other":
            return Corruption(other=self.text(kinds, "other", where))
        if kind == "copy":
            return Corruption(copy=self.texts(value, f"copy of {where}"))
        pair = tuple(self.names(value, f"swap of {where}"))
        if len(pair) != 2:
            self.fail(f"swap of {where} must name two slots.")
        return Corruption(swap=pair)

    def lexicon(self, content: Any) -> dict[str, tuple[str, ...]]:
        lexicon = {}
        for slot, words in self.mapping(content, "lexicon").items():
            found = self.items(words, f"lexicon of {slot}")
            for word in found:
                if not isinstance(word, str) or not word.strip():
                    self.fail(f"lexicon of {slot} holds {shown(word)}. Give words; quote true, false and numbers.")
                if word != word.strip():
                    self.fail(f"lexicon of {slot} holds {shown(word)}, with a space at its end. Write it without.")
            found = [unicodedata.normalize("NFC", word) for word in found]  # a word is one word however it was typed
            twice = next((word for word, count in Counter(found).items() if count > 1), None)
            if twice is not None:
                self.fail(f"lexicon of {slot} holds {shown(twice)} twice. Remove one.")
            lexicon[slot] = tuple(found)
        return lexicon

    def template(self, text: str, answer: str, where: str) -> Template:
        try:
            return Template(text, answer)
        except InterpError as error:
            self.fail(f"{where}: {error}")

    def keys(self, content: Any, where: str, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
        found = self.mapping(content, where)
        for key in found:
            self.known(key, (*required, *(o for o in optional if o not in required)), "key", where)
        for key in required:
            if key not in found:
                self.fail(f"{where} has no {key}. Add it.")
        return found

    def known(self, name: object, options: Any, what: str, where: str) -> None:
        if name not in options:
            raise unknown_name(what, name, options, f" in {where} of {self.file}")

    def one_of(self, value: object, key: str, options: tuple[str, ...]) -> Any:
        self.known(value, options, key, "the task")
        return value

    def text(self, content: Mapping[str, Any], key: str, where: str) -> str:
        return self.as_written(content, key, where).strip()

    def as_written(self, content: Mapping[str, Any], key: str, where: str) -> str:
        value = content[key]
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{key} of {where} must be text, not {shown(value)}.")
        return value

    def flag(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            self.fail(f"main of {where} must be true or false, not {shown(value)}.")
        return value

    def mapping(self, content: Any, where: str) -> dict[str, Any]:
        if not isinstance(content, dict):
            self.fail(f"{where} must be a mapping of keys to values.")
        return content

    def names(self, content: Any, where: str) -> list[str]:
        for name in self.items(content, where):
            if not isinstance(name, str):
                self.fail(f"{where} holds {shown(name)}. Give names; quote true, false and numbers.")
        return list(content)

    def texts(self, content: Any, where: str) -> dict[str, str]:
        found = self.mapping(content, where)
        return {key: self.as_written(found, key, where) for key in found}

    def items(self, content: Any, where: str) -> list[Any]:
        if not isinstance(content, list) or not content:
            self.fail(f"{where} must be a list with at least one item.")
        return content

    def fail(self, reason: str) -> NoReturn:
        raise InterpError(f"{self.file}: {reason}")
