"""Filling a rung's templates with a balanced draw of words.

Where a tokenizer does not let a pair line up, other words are drawn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest

from interp.errors import InterpError
from interp.prompts import ANSWER, Drop, PromptPairs, align_template, first_reasons, shortfall
from interp.tasks.schema import Rung, Task
from interp.tokens import SupportsTokenizer, encode_plain, unknown_id

_STRICT_TRIES, _TRIES = 200, 400  # draws of one prompt: the first ones take the least used words
_CORRUPTED = " in corrupted"
_REFUSED = 0.25  # how much a refused use of a word counts, against 1 for a kept one


@dataclass(frozen=True)
class _Draw:
    number: int
    variant: str
    text: str
    clean: dict[str, str]
    corrupted: dict[str, str]
    change: tuple[tuple[str, str, str], ...]  # slot, clean word, corrupted word


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
        reasons = first_reasons(drops) if drops else "The lexicon has too few words."
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
    return replace(pairs, drops=tuple(drops))


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
    columns, drops = align_template(
        template,
        clean=[draw.clean for draw in draws],
        corrupted=[draw.corrupted for draw in draws],
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
        self.lexicon, self.rung, self.rng = task.lexicon, rung, rng
        self.used: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self.seen: set[str] = set()
        self.refused: set[tuple[tuple[str, str, str], ...]] = set()
        self.number = 0

    def draw(self, variant: str) -> _Draw | None:
        """A prompt that was not drawn before and a change that was not refused, or None if none is found."""
        template, changed = self.rung.templates[variant], self.rung.corrupted.slots
        slots = [s for s in dict.fromkeys((*changed, *template.slots)) if s not in self.rung.same]
        for attempt in range(_TRIES):
            strict = attempt < _STRICT_TRIES
            clean: dict[str, str] = {}
            for slot in slots:
                options = [word for word in self.lexicon[slot] if word not in clean.values()]
                if not options:
                    return None
                clean[slot] = self._pick(variant, slot, options, strict)
            clean |= {slot: clean[source] for slot, source in self.rung.same.items()}
            corrupted = self._corrupt(variant, clean, strict)
            change = tuple((slot, clean[slot], corrupted[slot]) for slot in changed)
            text = template.render(clean).text
            if change in self.refused or any(before == after for _, before, after in change):
                self._count(variant, {slot: clean[slot] for slot in changed if slot in slots}, _REFUSED)
            elif text not in self.seen:
                draw = _Draw(self.number, variant, text, clean, corrupted, change)
                self.number += 1
                self.seen.add(text)
                self._count(variant, clean | _marked(change), 1)
                return draw
        return None

    def refuse(self, draws: list[_Draw]) -> None:
        """Take back that these were used, and never draw their changes again."""
        for draw in draws:
            self.refused.add(draw.change)
            self.seen.discard(draw.text)
            self._count(draw.variant, draw.clean | _marked(draw.change), -1)
            self._count(draw.variant, {slot: before for slot, before, _ in draw.change}, _REFUSED)

    def _corrupt(self, variant: str, clean: dict[str, str], strict: bool) -> dict[str, str]:
        rule = self.rung.corrupted
        corrupted = dict(clean)
        if rule.other:
            options = [
                word
                for word in self.lexicon[rule.other]
                if word not in clean.values() and ((rule.other, clean[rule.other], word),) not in self.refused
            ]
            if options:
                corrupted[rule.other] = self._pick(variant, f"{rule.other}{_CORRUPTED}", options, strict)
        elif rule.swap:
            first, second = rule.swap
            corrupted[first], corrupted[second] = clean[second], clean[first]
        else:
            corrupted |= {slot: clean[source] for slot, source in rule.copy.items()}
        return corrupted

    def _pick(self, variant: str, slot: str, options: list[str], strict: bool) -> str:
        if not strict:
            return self.rng.choice(options)
        return min(options, key=lambda w: (self.used[slot, w], self.used[variant, slot, w], self.rng.random()))

    def _count(self, variant: str, words: dict[str, str], times: float) -> None:
        for slot, word in words.items():
            self.used[slot, word] += times
            self.used[variant, slot, word] += times


def _marked(change: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """The changed words under names of their own, so that their use is counted apart."""
    return {slot + _CORRUPTED: after for slot, _, after in change}


def _taking_turns(sizes: list[int]) -> list[int]:
    """Indices of groups that lie one after another, so that their members take turns."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    groups = [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return [i for turn in zip_longest(*groups) for i in turn if i is not None]
