"""Filling a rung's templates with a balanced draw of words.

Where a tokenizer does not let a pair line up, other words are drawn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest

from interp.errors import InterpError
from interp.prompts import Drop, PromptPairs, Template
from interp.prompts.pairing import align_template, first_reasons, shortfall
from interp.prompts.template import ANSWER, Rendered
from interp.prompts.tokens import SupportsTokenizer, encode_plain, unknown_id
from interp.tasks.schema import Rung, Table, Task

_STRICT_TRIES, _TRIES = 200, 400  # tries to draw one prompt: the first 200 take the least used words, the rest any
_CORRUPTED = " in corrupted"
_TOO_FEW = "The lexicon has too few words."
_REFUSED = 0.25  # a word in a refused pair counts as used this much; in a kept pair it counts 1


@dataclass(frozen=True)
class _Draw:
    number: int
    variant: str
    text: str
    clean: dict[str, str]
    corrupted: dict[str, str]
    change: tuple[tuple[str, str, str], ...]  # slot, clean word, corrupted word
    counted: dict[str, str]  # the words whose use is counted


def build(task: Task, rung: Rung, model: SupportsTokenizer, *, n: int, seed: int) -> PromptPairs:
    """At most ``n`` pairs of ``rung``, its templates taking turns; see `interp.tasks.build`."""
    _check_twins(task, model)
    drawer = _Drawer(task, rung, random.Random(f"{task.name}/{rung.name}/{seed}"))
    built: dict[str, list[PromptPairs]] = {variant: [] for variant in rung.templates}
    drops: list[Drop] = []
    for place, variant in enumerate(rung.templates):
        wanted = len(range(place, n, len(rung.templates)))
        while (missing := wanted - sum(map(len, built[variant]))) > 0:
            draws = [draw for _ in range(missing) if (draw := drawer.draw(variant)) is not None]
            if not draws:
                break
            pairs, refused = _aligned(task, rung, variant, draws, model)
            drops += [replace(drop, index=draws[drop.index].number) for drop in refused]
            drawer.refuse([draws[drop.index] for drop in refused])
            built[variant] += [pairs] if pairs is not None else []
    sizes = [sum(map(len, parts)) for parts in built.values()]
    if sum(sizes) == 0:
        reasons = first_reasons(drops) if drops else _TOO_FEW
        raise InterpError(
            f"No pair of rung {rung.name!r} of task {task.name!r} can be built with this tokenizer. {reasons}"
        )
    if sum(sizes) < n:
        drops.append(shortfall(n, sum(sizes)))
    pairs = PromptPairs.concat([part for parts in built.values() for part in parts])
    pairs = pairs.select(_taking_turns(sizes))
    for role in rung.roles:
        if role not in (*pairs.roles, ANSWER):
            pairs = pairs.with_role_after(role.removeprefix("after_"))
    pairs = pairs.keep_roles(rung.roles)
    return replace(pairs, drops=tuple(drops), stated=task.vocabulary)


def example(task: Task, rung: Rung, *, seed: int = 0) -> tuple[Rendered, Rendered]:
    """One clean prompt of a rung and its corrupted partner, in words: no tokenizer has been asked whether they line up.

    Raises:
        InterpError: the lexicon has too few words.
    """
    variant, template = next(iter(rung.templates.items()))
    draw = _Drawer(task, rung, random.Random(f"{task.name}/{rung.name}/{seed}")).draw(variant)
    if draw is None:
        raise InterpError(f"No prompt of rung {rung.name!r} of task {task.name!r} can be made: {_TOO_FEW}")
    clean, corrupted = (
        template.render({slot: words[slot] for slot in template.slots}) for words in (draw.clean, draw.corrupted)
    )
    return clean, corrupted


def _check_twins(task: Task, model: SupportsTokenizer) -> None:
    """Refuse two words of a lexicon that a tokenizer reads as one, as some do that fold case or drop accents."""
    for slot, words in task.lexicon.items():
        seen: dict[tuple[int, ...], str] = {}
        mark = unknown_id(model.tokenizer)
        for word, (ids, _) in zip(words, encode_plain(model, [f" {word}" for word in words]), strict=True):
            if mark not in ids and seen.setdefault(tuple(ids), word) != word:
                raise InterpError(
                    f"The lexicon of {slot} of task {task.name!r} holds {seen[tuple(ids)]!r} and {word!r}, which this "
                    "tokenizer reads as one word. Remove one."
                )


def _aligned(
    task: Task, rung: Rung, variant: str, draws: list[_Draw], model: SupportsTokenizer
) -> tuple[PromptPairs | None, tuple[Drop, ...]]:
    template = rung.templates[variant]
    slots = (*template.slots, *_slots_of(rung.incorrect_answer))
    columns, drops = align_template(
        template,
        clean=[{slot: word for slot, word in draw.clean.items() if slot in slots} for draw in draws],
        corrupted=[{slot: word for slot, word in draw.corrupted.items() if slot in slots} for draw in draws],
        tokenizer=model,
        answer_policy=task.answer_policy,
        differ_only_at=[role for slot in rung.corrupted.slots for role in template.roles_of(slot)],
        incorrect_answer=rung.incorrect_answer,
    )
    if columns is None:
        return None, drops
    variants = (variant,) * len(columns["answers"])
    return PromptPairs(**columns, variants=variants, task=task.name, name=rung.name), drops


class _Drawer:
    """Draws words so that each is used about equally often, never the same prompt twice.

    A change of words that was refused once is not tried again: whether it lines up is a matter of those words.
    """

    def __init__(self, task: Task, rung: Rung, rng: random.Random) -> None:
        self.rung, self.rng = rung, rng
        self.tables = {slot: table for table in task.tables for slot in table.columns}
        self.used: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self.seen: set[str] = set()
        self.refused: set[tuple[tuple[str, str, str], ...]] = set()
        self.number = 0

    def draw(self, variant: str) -> _Draw | None:
        """A prompt that was not drawn before and a change that was not refused, or None if none is found."""
        template, rule = self.rung.templates[variant], self.rung.corrupted
        must_change = rule.slots[:1] if rule.other else rule.slots
        for attempt in range(_TRIES):
            strict = attempt < _STRICT_TRIES
            clean = self._clean(variant, strict)
            if clean is None:
                return None
            corrupted = self._corrupt(variant, clean, strict)
            change = tuple((slot, clean[slot], corrupted[slot]) for slot in rule.slots)
            text = template.render({slot: clean[slot] for slot in template.slots}).text
            if change in self.refused or any(clean[slot] == corrupted[slot] for slot in must_change):
                self._count(variant, self._moved(clean), _REFUSED)
            elif text not in self.seen:
                counted = clean | {slot + _CORRUPTED: corrupted[slot] for slot in self._moved(clean)}
                draw = _Draw(self.number, variant, text, clean, corrupted, change, counted)
                self.number += 1
                self.seen.add(text)
                self._count(variant, counted, 1)
                return draw
        return None

    def refuse(self, draws: list[_Draw]) -> None:
        """Count the words of these draws as refused, not as used, and never draw their changes again."""
        for draw in draws:
            self.refused.add(draw.change)
            self.seen.discard(draw.text)
            self._count(draw.variant, draw.counted, -1)
            self._count(draw.variant, self._moved(draw.clean), _REFUSED)

    def _clean(self, variant: str, strict: bool) -> dict[str, str] | None:
        """A word for every slot; a prompt holds no word of a list and no first word of a row twice."""
        rung = self.rung
        needed = (*rung.corrupted.slots, *rung.templates[variant].slots, *rung.same.values())
        needed += (*rung.corrupted.copy.values(), *_slots_of(rung.incorrect_answer))
        clean: dict[str, str] = {}
        held: list[str] = []
        for slot in needed:
            if slot in clean or slot in rung.same:
                continue
            table = self.tables[slot]
            rows = [row for row in table.rows if row[0] not in held]
            if not rows:
                return None
            row = self._pick(variant, table.columns[0], rows, strict)
            clean |= zip(table.columns, row, strict=True)
            held.append(row[0])
        return clean | {slot: clean[source] for slot, source in rung.same.items()}

    def _corrupt(self, variant: str, clean: dict[str, str], strict: bool) -> dict[str, str]:
        rule = self.rung.corrupted
        corrupted = dict(clean)
        if rule.other:
            table = self.tables[rule.other]
            rows = self._other_rows(table, clean)
            if rows:
                row = self._pick(variant, table.columns[0] + _CORRUPTED, rows, strict)
                corrupted |= zip(table.columns, row, strict=True)
        elif rule.swap:
            first, second = rule.swap
            corrupted[first], corrupted[second] = clean[second], clean[first]
        else:
            corrupted |= {slot: clean[source] for slot, source in rule.copy.items()}
        return corrupted

    def _other_rows(self, table: Table, clean: dict[str, str]) -> list[tuple[str, ...]]:
        """The rows that may take the place of the clean one."""
        rule = self.rung.corrupted
        held = {clean[self.tables[slot].columns[0]] for slot in clean if slot in self.tables}
        found = []
        for row in table.rows:
            words = dict(zip(table.columns, row, strict=True))
            change = tuple((slot, clean[slot], words[slot]) for slot in rule.slots)
            kept = not rule.keep or words[rule.keep] == clean[rule.keep]
            if row[0] not in held and words[rule.other] != clean[rule.other] and kept and change not in self.refused:
                found.append(row)
        return found

    def _moved(self, words: dict[str, str]) -> dict[str, str]:
        """The words of the slots that change, and of those that are drawn with them."""
        tables = [self.tables[slot] for slot in self.rung.corrupted.slots if slot in self.tables]
        return {slot: words[slot] for table in tables for slot in table.columns}

    def _pick(self, variant: str, slot: str, rows: list[tuple[str, ...]], strict: bool) -> tuple[str, ...]:
        if not strict:
            return self.rng.choice(rows)
        return min(rows, key=lambda row: (self.used[slot, row[0]], self.used[variant, slot, row[0]], self.rng.random()))

    def _count(self, variant: str, words: dict[str, str], times: float) -> None:
        for slot, word in words.items():
            self.used[slot, word] += times
            self.used[variant, slot, word] += times


def _slots_of(answer: str | None) -> tuple[str, ...]:
    return Template("", answer).slots if answer else ()


def _taking_turns(sizes: list[int]) -> list[int]:
    """An order in which groups take turns, from their sizes: groups of 2 and 2 give 0, 2, 1, 3.

    The groups lie one after another: the first has the indices 0 and 1, the second 2 and 3.
    """
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    groups = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return [i for turn in zip_longest(*groups) for i in turn if i is not None]
