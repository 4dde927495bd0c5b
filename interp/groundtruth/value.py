"""``GroundTruth``: a model, prompts that it answers, and what is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interp import _cells

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

Does = Literal["moves", "reads", "converts", "stands in", "selects", "constant", "decoy", "unread", "idle"]
"""What a head or an MLP of such a model does."""

DOES: Mapping[Does, str] = {
    "moves": "brings the source to the word where it is read",
    "reads": "brings it from there to the answer",
    "converts": "rewrites it, as an MLP, between the two",
    "stands in": "reads it where the reader is gone",
    "selects": "decides where a reader looks, and holds nothing of the source",
    "constant": "writes the same whatever the prompt, and the model leans on it",
    "decoy": "attends as a mover or a reader does, and writes nothing of it",
    "unread": "writes the source where nobody reads it",
    "idle": "spreads its attention and writes a little noise",
}
"""The kinds of component, in words."""

CARRYING: tuple[Does, ...] = ("moves", "reads", "converts", "stands in")
"""Through these the source reaches the answer."""
NEEDED: tuple[Does, ...] = (*CARRYING, "selects")
"""Without these, or with these of another prompt, the answer is lost."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """A model whose circuit is known, with prompts that it answers.

    Attributes:
        name: of the variant.
        summary: what it is there to show, in one sentence.
        model: the model.
        pairs: prompts that it answers; clean and corrupted differ in the source alone.
        components: head or MLP (``L0H0``, ``MLP1``) -> what it does.
        edges: the direct paths on which the source reaches the answer, as (sender, receiver) in the names of
            ``interp.path_patching``.
        held: (layer, role) where the stream before that layer holds the source.
        used: those of ``held`` from where the answer is still to take it.
        expected: method -> which failure theory predicts of it here, and why.

    >>> from interp import groundtruth
    >>> truth = groundtruth.build("plain")
    >>> sorted(truth.edges)
    [('L0H0', 'L1H0.v'), ('L1H0', 'logits'), ('embed', 'L0H0.v')]
    >>> sorted(truth.used)
    [(0, 'color'), (1, 'noun'), (2, 'answer')]
    """

    name: str
    summary: str
    model: HookedTransformer
    pairs: PromptPairs
    components: Mapping[str, Does]
    edges: frozenset[tuple[str, str]]
    held: frozenset[tuple[int, str]]
    used: frozenset[tuple[int, str]]
    expected: Mapping[str, str]

    def _repr_html_(self) -> str:
        return _cells.html(self)

    @property
    def carrying(self) -> frozenset[str]:
        """The components through which the source reaches the answer."""
        return frozenset(name for name, does in self.components.items() if does in CARRYING)

    @property
    def needed(self) -> frozenset[str]:
        """The components without which the answer is lost: those that carry, and those that select."""
        return frozenset(name for name, does in self.components.items() if does in NEEDED)

    @property
    def redundant(self) -> bool:
        """Whether one component stands in for another, so that none of them is missed alone."""
        return "stands in" in self.components.values()
