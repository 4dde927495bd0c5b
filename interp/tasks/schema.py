"""What a task file may say, and the checks that its parts fit together.

A task of kind ``words`` fills templates from a lexicon; one of kind ``random_tokens`` needs ids only; one of kind
``file`` reads its pairs.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from interp._keys import Reader
from interp.errors import InterpError, shown, unknown_name
from interp.prompts import Template, vocabulary
from interp.prompts.alignment import AnswerPolicy
from interp.prompts.template import ANSWER
from interp.prompts.vocabulary import NOTHING_STATED, Vocabulary
from interp.tasks import keys

TOKEN_ROLES = ("copied", "previous", ANSWER)
"""The roles of prompts of random tokens: what is copied, the token before it, and the last token."""


@dataclass(frozen=True)
class Corruption:
    """How the corrupted prompt is made from the clean one; exactly one of ``other``, ``swap``, ``copy`` is used.

    Attributes:
        other: this slot takes another word of its list, one that the prompt does not hold. In a table the whole row
            is another one, in which this slot has another word.
        keep: with ``other``, the column of the table in which the other row has the same word.
        row: with ``other``, the slots of the prompt that change with it: the columns of its table.
        swap: these two slots exchange their words.
        copy: slot -> the slot whose clean word it takes.

    >>> Corruption(swap=("first", "second")).slots
    ('first', 'second')
    """

    other: str = ""
    keep: str = ""
    row: tuple[str, ...] = ()
    swap: tuple[str, ...] = ()
    copy: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots whose words may change; with ``other`` the first of them always does."""
        return tuple(dict.fromkeys((self.other, *self.row))) if self.other else (*self.swap, *self.copy)


@dataclass(frozen=True)
class Table:
    """Slots that are drawn together, a row at a time; a plain list of words is a table of one column.

    Attributes:
        columns: the slots.
        rows: one word for each column; no two rows begin with the same word.

    >>> Table(("noun", "verb"), (("key", "is"), ("keys", "are"))).columns
    ('noun', 'verb')
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


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
        file: where the pairs are, for ``file``, with the names of its ``columns``, further columns as ``labels``, and
            the ``split`` of a data set.

    >>> one = Rung("recall", "One thing.", templates={"": Template("The {noun} is {color}.", answer=" {color}")})
    >>> one.templates[""].roles
    ('noun', 'color')
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
    file: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    split: str | None = None

    @property
    def kept_and_changed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The places of its templates whose words corrupted leaves as they are, and those where it changes them."""
        templates, slots = self.templates.values(), self.corrupted.slots
        changed = dict.fromkeys(role for one in templates for slot in slots for role in one.roles_of(slot))
        every = dict.fromkeys(role for one in templates for role in one.roles)
        return tuple(role for role in every if role not in changed), tuple(changed)

    @property
    def pair_roles(self) -> tuple[str, ...]:
        """The roles of its pairs: those of interest, and the answer position."""
        return tuple(dict.fromkeys((*self.roles, ANSWER)))

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots whose word every prompt has; none where prompts are random tokens, the labels of a file."""
        if self.file:
            return self.labels
        further = Template("", self.incorrect_answer).slots if self.incorrect_answer else ()
        each = [(*template.slots, *further) for template in self.templates.values()]
        return tuple(dict.fromkeys(slot for slot in each[0] if all(slot in slots for slots in each))) if each else ()


@dataclass(frozen=True)
class Task:
    """A family of prompts that ask one question, as a ladder of rungs.

    Attributes:
        name: as in ``tasks.load(name)``.
        language: ``"en"``, ``"es"``, or ``"none"`` for tasks without words.
        title: for a heading.
        question: what the task asks of a model.
        source: where it comes from.
        kind: ``"words"``, ``"random_tokens"`` or ``"file"``.
        answer_policy: how answers of several tokens are scored unless ``build`` is told otherwise.
        tables: the words of every slot, in tables of slots that are drawn together.
        rungs: from easy to hard.
        vocabulary: what is stated of the roles; pairs complete it.

    >>> from interp import tasks
    >>> task = tasks.load("color-noun")
    >>> [rung.name for rung in task.rungs], task.main.name
    (['recall', 'repeated_frame', 'two', 'three'], 'two')
    """

    name: str
    language: str
    title: str
    question: str
    source: str
    kind: str
    answer_policy: AnswerPolicy
    tables: tuple[Table, ...]
    rungs: tuple[Rung, ...]
    vocabulary: Vocabulary = NOTHING_STATED

    @property
    def lexicon(self) -> dict[str, tuple[str, ...]]:
        """Slot -> its different words."""
        return {
            slot: tuple(dict.fromkeys(row[column] for row in table.rows))
            for table in self.tables
            for column, slot in enumerate(table.columns)
        }

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


def parse_task(content: object, where: str) -> Task:
    """The task that the content of a YAML file states; ``where`` names the file in messages.

    Raises:
        InterpError: a key is unknown, missing or does not fit; the message names the key, the file, and the nearest
            match.

    >>> parse_task({"name": "mine"}, "mine.yaml")
    Traceback (most recent call last):
    interp.errors.InterpError: mine.yaml: the task has no language. Add it.
    """
    return _Reader(where).task(content)


class _Reader(Reader):
    """Checks that the parts of one task file fit together."""

    def task(self, content: Any) -> Task:
        top = self.keys(content, "the task", keys.TASK)
        words = {key: self.text(top, key, "the task") for key in ("name", "language", "title", "question", "source")}
        kind = self.one_of(top.get("kind", "words"), "kind", keys.KINDS)
        policy = self.one_of(top.get("answer_policy", "single"), "answer_policy", keys.POLICIES)
        if kind == "words" and not top.get("lexicon"):
            self.fail("the task has no lexicon, or an empty one. Give each slot its words: {noun: [cat, dog]}.")
        tables = self.lexicon(top.get("lexicon", {}))
        read = {"words": self.word_rung, "random_tokens": self.token_rung, "file": self.file_rung}[kind]
        rungs = tuple(read(rung, tables) for rung in self.items(top["rungs"], "rungs"))
        names = [rung.name for rung in rungs]
        if len(set(names)) < len(names):
            self.fail(f"two rungs share a name ({', '.join(names)}). Rename one.")
        if sum(rung.main for rung in rungs) != 1:
            self.fail("exactly one rung must say main: true.")
        said = self.vocabulary(top.get("vocabulary", {}), rungs)
        return Task(
            **words, kind=kind, answer_policy=policy, tables=tables, rungs=rungs, vocabulary=said
        )  # fmt: skip

    def vocabulary(self, content: Any, rungs: Sequence[Rung]) -> Vocabulary:
        """What the task states of its roles; source and target must be in every rung, the others in some."""
        try:
            said = vocabulary.read(content, " of the task")
            said.check({role: None for rung in rungs for role in (*rung.roles, ANSWER)})
        except InterpError as error:
            self.fail(str(error))
        for what, role in (("source", said.source), ("target", said.target)):
            lacking = [rung.name for rung in rungs if role not in (None, ANSWER, *rung.roles)]
            if lacking:
                self.fail(f"{what} of the vocabulary is {shown(role)}, a role that rung {shown(lacking[0])} lacks.")
        for rung in rungs:
            kept, changed = rung.kept_and_changed
            if said.source in kept:
                self.fail(
                    f"source of the vocabulary is {shown(said.source)}, which corrupted of rung {shown(rung.name)} "
                    f"leaves as it is. Name a role that it changes: {', '.join(changed)}."
                )
        return said

    def word_rung(self, content: Any, tables: Sequence[Table]) -> Rung:
        where = _rung_in_words(content)
        rung = self.keys(content, where, keys.WORD_RUNG)
        name = self.text(rung, "name", where)
        if ("template" in rung) == ("templates" in rung):
            self.fail(f"{where} needs either template or templates (variant: template).")
        answer = self.as_written(rung["answer"], f"answer of {where}")
        if "template" in rung:
            texts = {"": self.as_written(rung["template"], f"template of {where}")}
        else:
            texts = self.texts(rung["templates"], f"templates of {where}")
            if not texts:
                self.fail(f"templates of {where} is empty. Give at least one (variant: template).")
        templates = {ask: self.template(text, answer, where) for ask, text in texts.items()}
        used = dict.fromkeys(slot for template in templates.values() for slot in template.slots)
        same = self.texts(rung.get("same", {}), f"same of {where}")
        lexicon = [slot for table in tables for slot in table.columns]
        for slot in (*used, *same.values()):
            self.known(slot, lexicon if slot not in same else used, "slot", where)
        mates = {slot: table.columns for table in tables for slot in table.columns}
        drawn = dict.fromkeys(mate for slot in used for mate in mates.get(slot, (slot,)))
        corrupted = self.corruption(rung["corrupted"], where)
        for slot in (*filter(None, (corrupted.other,)), *corrupted.copy.values()):
            self.known(slot, drawn, "slot", where)
        if corrupted.other:
            corrupted = self.whole_row(corrupted, mates, used, where)
        for slot in (*corrupted.swap, *corrupted.copy, *same):
            self.known(slot, used, "slot", where)
        shared = [r for r in next(iter(templates.values())).roles if all(r in t.roles for t in templates.values())]
        if not shared:
            self.fail(f"{where} has no word in braces that all its templates share. Write one as a slot: {{noun}}.")
        roles = tuple(self.names(rung.get("roles", shared), f"roles of {where}"))
        for role in roles:
            self.known(role, (*shared, *(f"after_{one}" for one in shared), ANSWER), "role", where)
        other = None
        if "incorrect_answer" in rung:
            other = self.as_written(rung["incorrect_answer"], f"incorrect_answer of {where}")
            for slot in self.template("", other, where).slots:
                self.known(slot, drawn, "slot", f"incorrect_answer of {where}")
        description = self.text(rung, "description", where)
        main = self.flag(rung, "main", where)
        made = Rung(name, description, main, templates, corrupted, same, other, roles)
        self.changes(made, answer, tables, where)
        return made

    def changes(self, rung: Rung, answer: str, tables: Sequence[Table], where: str) -> None:
        """Refuse a rung whose corrupted prompts, or their answers, could only be those of the clean ones."""
        rule, same = rung.corrupted, rung.same
        for slot, source in rule.copy.items():
            if slot == source or source == same.get(slot) or slot == same.get(source):
                self.fail(f"copy of {where} gives {shown(slot)} the word that it has. Name a slot with another word.")
        words = {
            row[table.columns.index(rule.other)]
            for table in tables
            if rule.other in table.columns
            for row in table.rows
        }
        if len(words) == 1:
            self.fail(f"corrupted of {where} takes another word of {shown(rule.other)}, which has one only. Add words.")
        if rung.incorrect_answer is None and not set(rule.slots) & set(Template("", answer).slots):
            self.fail(
                f"the answer of {where} stays the same in corrupted, which changes {', '.join(rule.slots)}. Change a "
                "slot of the answer, or give an incorrect_answer."
            )

    def token_rung(self, content: Any, tables: Sequence[Table]) -> Rung:
        where = _rung_in_words(content)
        rung = self.keys(content, where, keys.TOKEN_RUNG)
        if tables:
            self.fail("a task of random tokens has no lexicon. Remove it.")
        block = rung["block"]
        if isinstance(block, bool) or not isinstance(block, int) or block < keys.SMALLEST_BLOCK:
            self.fail(f"block of {where} is {shown(block)}. Give a whole number from {keys.SMALLEST_BLOCK}.")
        name, description = (self.text(rung, key, where) for key in ("name", "description"))
        return Rung(name, description, self.flag(rung, "main", where), roles=TOKEN_ROLES, block=block)

    def file_rung(self, content: Any, tables: Sequence[Table]) -> Rung:
        where = _rung_in_words(content)
        rung = self.keys(content, where, keys.FILE_RUNG)
        if tables:
            self.fail("a task whose pairs are in a file has no lexicon. Remove it.")
        columns = self.texts(rung.get("columns", {}), f"columns of {where}")
        for column in columns:
            self.known(column, keys.COLUMNS, "column", where)
        roles = tuple(self.names(rung["roles"], f"roles of {where}"))
        labels = tuple(self.names(rung["labels"], f"labels of {where}")) if "labels" in rung else ()
        return Rung(
            self.text(rung, "name", where),
            self.text(rung, "description", where),
            self.flag(rung, "main", where),
            roles=roles,
            file=self.text(rung, "file", where),
            columns=columns,
            labels=labels,
            split=self.text(rung, "split", where) if "split" in rung else None,
        )

    def corruption(self, content: Any, where: str) -> Corruption:
        kinds = self.keys(content, f"corrupted of {where}", keys.CORRUPTED)
        if len({*kinds} - {"keep"}) != 1:
            self.fail(f"corrupted of {where} needs exactly one of other, swap, copy.")
        if "other" in kinds:
            keep = self.text(kinds, "keep", where) if "keep" in kinds else ""
            return Corruption(other=self.text(kinds, "other", where), keep=keep)
        if "keep" in kinds:
            self.fail(f"keep in corrupted of {where} goes with other alone. Remove it.")
        ((kind, value),) = kinds.items()
        if kind == "copy":
            copied = self.texts(value, f"copy of {where}")
            if not copied:
                self.fail(f"copy of {where} is empty. Say which slot takes which slot's word: {{slot: other slot}}.")
            return Corruption(copy=copied)
        pair = tuple(self.names(value, f"swap of {where}"))
        if len(pair) != 2 or len(set(pair)) != 2:
            self.fail(f"swap of {where} must name two slots.")
        return Corruption(swap=pair)

    def whole_row(
        self, rule: Corruption, mates: Mapping[str, tuple[str, ...]], used: Iterable[str], where: str
    ) -> Corruption:
        """``other`` with the slots of its table that the prompt has."""
        columns = mates.get(rule.other, ())  # none: it repeats another slot
        if rule.keep:
            self.known(rule.keep, [slot for slot in columns if slot != rule.other], "column to keep", where)
        return replace(rule, row=tuple(slot for slot in columns if slot in used))

    def lexicon(self, content: Any) -> tuple[Table, ...]:
        tables = []
        for key, words in self.mapping(content, "lexicon").items():
            columns = tuple(column.strip() for column in key.split(","))
            where = f"lexicon of {key}"
            found = self.items(words, where)
            rows = [self.words(row if len(columns) > 1 else [row], columns, where) for row in found]
            twice = next((word for word, count in Counter(row[0] for row in rows).items() if count > 1), None)
            if twice is not None:
                column = " in its first column: a row is known by its first word" if len(columns) > 1 else ""
                self.fail(f"{where} holds {shown(twice)} twice{column}. Remove one.")
            tables.append(Table(columns, tuple(rows)))
        slots = Counter(slot for table in tables for slot in table.columns)
        for slot, count in slots.items():
            if count > 1:
                self.fail(f"lexicon has the slot {shown(slot)} twice. Rename one.")
        return tuple(tables)

    def words(self, content: Any, columns: tuple[str, ...], where: str) -> tuple[str, ...]:
        if not isinstance(content, list) or len(content) != len(columns):
            self.fail(f"{where} holds {shown(content)}. Give rows of {len(columns)} words: [{', '.join(columns)}].")
        for word in content:
            if not isinstance(word, str) or not word.strip():
                self.fail(f"{where} holds {shown(word)}. Give words; quote true, false and numbers.")
            if word != word.strip():
                self.fail(f"{where} holds {shown(word)}, with a space at its end. Write it without.")
        return tuple(unicodedata.normalize("NFC", word) for word in content)  # one word, however it was typed

    def template(self, text: str, answer: str, where: str) -> Template:
        try:
            return Template(text, answer)
        except InterpError as error:
            self.fail(f"{where}: {error}")

    def one_of(self, value: object, key: str, options: tuple[str, ...]) -> Any:
        self.known(value, options, key, "the task")
        return value


def _rung_in_words(content: Any) -> str:
    """A rung as a message names it, whatever it holds."""
    name = content.get("name") if isinstance(content, dict) else None
    return f"rung {shown(name)}" if isinstance(name, str) else "a rung"
