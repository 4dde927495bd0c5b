"""The text `mini` learns from: scenes that bind colours to nouns, questions about them, and filler.

Everything is drawn from corpus.yaml with an explicit generator, so a seed fixes the corpus. A
`Scene` keeps its frame and its bindings apart: the same scene can be asked about either noun, or
rendered with its colours reassigned, which is what the controls of evaluate.py do.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

LANGUAGES = ("en", "es")
SOURCE = Path(__file__).with_name("corpus.yaml")
MIXED = "mixed"
# Families whose colour stands far before its noun are learnt last and drawn more often.
FAMILY_WEIGHTS = {"before": 2, "adjective": 2, "founding": 2, "wish": 2}

Pairing = Literal["trained", "held_out"]


@dataclass(frozen=True)
class Grammar:
    """One language of corpus.yaml: its words and its sentence frames."""

    language: str
    colors: list[str]
    nouns: list[str]
    held_out: dict[str, str]
    people: list[str]
    places: list[str]
    things: list[str]
    adjectives: list[str]
    materials: list[str]
    fillers: list[str]
    questions: dict[str, str]
    families: dict[str, list[str]]
    asks: dict[str, list[str]]
    units: list[str]
    ioi: list[str]

    def words(self) -> list[str]:
        """Words that tests and tasks rely on: one token each, with a leading space."""
        return [*self.colors, *self.nouns, *self.people, *self.adjectives, *self.materials]

    def is_held_out(self, noun: str, color: str) -> bool:
        """Whether this pair is never bound in training."""
        return self.held_out.get(noun) == color


@cache
def load_grammar(language: str) -> Grammar:
    """The grammar of `language` ("en" or "es")."""
    if language not in LANGUAGES:
        raise ValueError(f"Unknown language {language!r}. Choose one of {', '.join(LANGUAGES)}.")
    content = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return Grammar(language=language, **content["languages"][language])


def family_names(language: str) -> list[str]:
    """The binding families of `language`, in the order of corpus.yaml."""
    return list(load_grammar(language).families)


@dataclass(frozen=True)
class Scene:
    """A context with its bindings. `frame` still has its slots; fillers are already written out."""

    grammar: Grammar
    family: str
    frame: str
    nouns: tuple[str, ...]
    colors: tuple[str, ...]
    extras: dict[str, str] = field(hash=False)

    def context(self, colors: tuple[str, ...] | None = None) -> str:
        """The context text, with other `colors` in the order of the nouns if they are given."""
        slots = dict(self.extras)
        for index, (noun, color) in enumerate(zip(self.nouns, colors or self.colors, strict=True)):
            slots[f"n{index}"], slots[f"c{index}"] = noun, color
        return self.frame.format(**slots)

    def question(self, kind: str, asked: int) -> tuple[str, str]:
        """Text before and after the answer of a question about noun number `asked`."""
        frame = self.grammar.questions[kind]
        before, after = frame.split(" {c}")
        slots = {"n": self.nouns[asked], "a": self.extras[f"a{asked}"], "m": self.extras[f"m{asked}"]}
        return before.format(**slots), after

    def kinds(self, asked: int) -> list[str]:
        """Question frames that this scene supports: an adjective is asked about only if it was told."""
        found = ["plain", "asked", "named", "remember"]
        if f"{{a{asked}}}" in self.frame:
            found.append("phrase")
            if f"{{m{asked}}}" in self.frame:
                found.append("material")
        return found


@dataclass(frozen=True)
class Document:
    """Training text as segments `(text, is_answer)`, and every (noun, colour) that it binds."""

    language: str
    family: str
    segments: tuple[tuple[str, bool], ...]
    bindings: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The document as it is read."""
        return "".join(text for text, _ in self.segments)


def _extras(rng: random.Random, grammar: Grammar) -> dict[str, str]:
    slots: dict[str, str] = {}
    for letter, words, count in (
        ("p", grammar.people, 3),
        ("w", grammar.places, 3),
        ("t", grammar.things, 3),
        ("a", grammar.adjectives, 3),
        ("m", grammar.materials, 3),
    ):
        slots |= {f"{letter}{i}": word for i, word in enumerate(rng.sample(words, count))}
    return slots


def filler(rng: random.Random, grammar: Grammar) -> str:
    """One sentence with no colour and no noun of the lexicon."""
    return rng.choice(grammar.fillers).format(**_extras(rng, grammar))


def _mixed_frame(rng: random.Random, grammar: Grammar) -> str:
    """One to three single-binding units, any order, sometimes a filler between them."""
    parts: list[str] = []
    for index in range(rng.choices((1, 2, 3), (2, 4, 3))[0]):
        unit = rng.choice(grammar.units)
        parts.append(re.sub(r"\{([a-z])0\}", rf"{{\g<1>{index}}}", unit))
        if rng.random() < 0.2:
            parts.append("{filler}")
    return " ".join(parts)


def draw_scene(
    rng: random.Random, language: str, family: str, *, pairing: Pairing = "trained", frame: str | None = None
) -> Scene:
    """A scene of `family` with different nouns and different colours.

    "trained": no binding is a held-out pair. "held_out": exactly one binding is, at a random
    place in the context.
    """
    grammar = load_grammar(language)
    if family != MIXED and family not in grammar.families:
        raise ValueError(f"Unknown family {family!r}. Choose one of {', '.join(grammar.families)}, {MIXED}.")
    if frame is None:
        frame = _mixed_frame(rng, grammar) if family == MIXED else rng.choice(grammar.families[family])
    while "{filler}" in frame:
        frame = frame.replace("{filler}", filler(rng, grammar), 1)
    count = len(set(re.findall(r"\{n(\d)\}", frame)))
    while True:
        nouns, colors = rng.sample(grammar.nouns, count), rng.sample(grammar.colors, count)
        if pairing == "held_out":
            noun = rng.choice(sorted(grammar.held_out))
            place, color = rng.randrange(count), grammar.held_out[noun]
            if noun in nouns or color in colors:
                continue
            nouns[place], colors[place] = noun, color
        found = sum(grammar.is_held_out(n, c) for n, c in zip(nouns, colors, strict=True))
        if found == (pairing == "held_out"):
            return Scene(grammar, family, frame, tuple(nouns), tuple(colors), _extras(rng, grammar))


def binding_document(rng: random.Random, language: str, family: str) -> Document:
    """A scene, then several questions drawn with replacement.

    With replacement matters: asking once about each noun can be answered by elimination.
    """
    grammar = load_grammar(language)
    scene = draw_scene(rng, language, family)
    opening = [filler(rng, grammar) for _ in range(rng.choices((0, 1, 2), (6, 3, 1))[0])]
    opening.append(scene.context())
    if rng.random() < 0.2:
        opening.append(filler(rng, grammar))
    segments: list[tuple[str, bool]] = [(" ".join(opening), False)]
    for _ in range(rng.randint(1, 5)):
        asked = rng.randrange(len(scene.nouns))
        kind = "plain" if rng.random() < 0.6 else rng.choice(scene.kinds(asked))
        before, after = scene.question(kind, asked)
        segments += [(" " + before, False), (" " + scene.colors[asked], True), (after, False)]
        if rng.random() < 0.1:
            segments.append((" " + filler(rng, grammar), False))
    bindings = tuple(zip(scene.nouns, scene.colors, strict=True))
    return Document(language, family, tuple(segments), bindings)


def ioi_document(rng: random.Random, language: str) -> Document:
    """Who was given the thing: the person who did not give it. Sometimes twice, with other people."""
    grammar = load_grammar(language)
    segments: list[tuple[str, bool]] = []
    if rng.random() < 0.3:
        segments.append((filler(rng, grammar), False))
    for _ in range(rng.randint(1, 2)):
        slots = _extras(rng, grammar)
        before, after = rng.choice(grammar.ioi).rsplit(" {p0}", 1)
        lead = " " if segments else ""
        segments += [(lead + before.format(**slots), False), (" " + slots["p0"], True), (after, False)]
    return Document(language, "ioi", tuple(segments))


def filler_document(rng: random.Random, language: str) -> Document:
    """A few filler sentences and nothing else."""
    grammar = load_grammar(language)
    text = " ".join(filler(rng, grammar) for _ in range(rng.randint(2, 6)))
    return Document(language, "filler", ((text, False),))


def draw_document(rng: random.Random) -> Document:
    """One document of the corpus: mostly bindings, some IOI, some plain filler."""
    language = rng.choice(LANGUAGES)
    kind = rng.random()
    if kind < 0.06:
        return filler_document(rng, language)
    if kind < 0.14:
        return ioi_document(rng, language)
    if rng.random() < 0.35:
        return binding_document(rng, language, MIXED)
    names = family_names(language)
    (family,) = rng.choices(names, [FAMILY_WEIGHTS.get(name, 1) for name in names])
    return binding_document(rng, language, family)
