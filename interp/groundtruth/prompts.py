"""The prompts of the hand-made models: two nouns with a colour each, and one of the nouns again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from interp.prompts import PromptPairs, Vocabulary
from interp.prompts.template import ANSWER

NOUNS = ("cat", "dog", "box", "car", "hat", "cup", "pen", "bag")
COLORS = ("black", "white", "red", "blue", "green", "brown")
WORDS = ("<start>", ".", "the", "is", *NOUNS, *COLORS)
"""Every token; a token's id is its place here."""
START, STOP, THE, IS = range(4)
NOUN_IDS = range(4, 4 + len(NOUNS))
COLOR_IDS = range(4 + len(NOUNS), len(WORDS))


@dataclass(frozen=True)
class Form:
    """How a prompt is written.

    Attributes:
        clause: its tokens, with ``noun`` and ``color`` where those stand.
        question: what comes after the two clauses; ``noun`` is the noun that is asked about.
    """

    clause: tuple[int | str, ...]
    question: tuple[int | str, ...]

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return 1 + 2 * len(self.clause) + len(self.question)


BEFORE = Form(("color", "noun", STOP), ("noun",))
"""``<start> black cat . white dog . cat``: the noun comes after its colour, and can hold it."""
AFTER = Form((THE, "noun", IS, "color", STOP), (THE, "noun", IS))
"""``<start> the cat is black . the dog is white . the cat is``: the noun cannot see its colour."""


def draw(form: Form, name: str, *, n: int, seed: int, differs: Literal["color", "asked"] = "color") -> PromptPairs:
    """Pairs that differ in the colour of the noun that is asked about, or in which of the two nouns that is.

    Roles, of the clean prompt: ``color`` and ``noun`` of the asked one, ``stop`` behind them, ``other_color`` and
    ``other_noun``, ``asked`` where the noun is said again before the answer position, and the answer position.
    """
    rng = np.random.default_rng(seed)
    clean, corrupted, roles = [], [], []
    for _ in range(n):
        nouns = rng.choice(NOUN_IDS, 2, replace=False)
        own, corrupted_own = rng.choice(COLOR_IDS, 2, replace=False)
        other = rng.choice(COLOR_IDS)  # it may be the same, or it would say which colour the asked noun has not
        asked = int(rng.integers(2))
        if differs == "asked":
            other, corrupted_own = corrupted_own, own
        clean.append(_written(form, nouns, (own, other), asked))
        corrupted.append(_written(form, nouns, (corrupted_own, other), asked))
        if differs == "asked":
            corrupted[-1][_places(form, asked)["asked"]] = int(nouns[1])
        roles.append(_places(form, asked))
    places = {role: [one[role] for one in roles] for role in roles[0]}
    where = {"color": places["color"], "asked": places["other_color"]}[differs]
    rows = np.arange(n)
    return PromptPairs.from_tokens(
        clean, corrupted, correct=np.array(clean)[rows, places["color"]],
        incorrect=np.array(corrupted)[rows, where], roles=places, task="ground-truth", name=name,
        vocabulary=_VOCABULARIES[differs],
    )  # fmt: skip


_VOCABULARIES = {
    "color": Vocabulary(
        source="color", target="noun", readers=("answer",), meeting=("stop",), distractors=("other_color", "other_noun")
    ),
    "asked": Vocabulary(source="asked", target=ANSWER, distractors=("other_color", "other_noun")),
}
"""What the prompts differ in -> source and target."""


def _written(form: Form, nouns: np.ndarray, colors: tuple[int, int], asked: int) -> list[int]:
    """A prompt: the asked noun stands in the clause ``asked``, the other in the other one."""
    row = [START]
    for clause in range(2):
        which = 0 if clause == asked else 1
        words = {"noun": int(nouns[which]), "color": int(colors[which])}
        row += [words[part] if isinstance(part, str) else part for part in form.clause]
    return row + [int(nouns[0]) if isinstance(part, str) else part for part in form.question]


def _places(form: Form, asked: int) -> dict[str, int]:
    """Where the roles stand."""
    starts = (1 + asked * len(form.clause), 1 + (1 - asked) * len(form.clause))
    found = {f"{kind}{role}": start + form.clause.index(role)
             for kind, start in zip(("", "other_"), starts, strict=True) for role in ("color", "noun")}  # fmt: skip
    found["stop"] = starts[0] + form.clause.index(STOP)
    place = 1 + 2 * len(form.clause) + form.question.index("noun")
    return found if place == form.length - 1 else {**found, "asked": place}
