"""A head by its layer and index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from interp.errors import InterpError, shown
from interp.sites import head_label

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Kind: TypeAlias = Literal["q", "k", "v"]


@dataclass(frozen=True)
class Head:
    """A head by its layer and index, and the key-value head that it reads through.

    >>> from interp import HookedTransformer
    >>> head = Head.of(HookedTransformer.from_pretrained("mini"), (1, 0))
    >>> head.label, head.index("q"), head.index("k")
    ('L1H0', 0, 0)
    """

    layer: int
    head: int
    kv_head: int

    @classmethod
    def of(cls, model: HookedTransformer, head: tuple[int, int]) -> Head:
        """The head of a model.

        Raises:
            InterpError: it is no pair of numbers, or the model has no such head.
        """
        cfg = model.cfg
        if not (
            isinstance(head, tuple | list) and len(head) == 2 and all(isinstance(n, int | np.integer) for n in head)
        ):
            raise InterpError(f"head must be (layer, head), such as (1, 0), not {shown(head)}.")
        layer, index = int(head[0]), int(head[1])
        for name, given, size in (("layer", layer, cfg.n_layers), ("head", index, cfg.n_heads)):
            if not 0 <= given < size:
                raise InterpError(f"There is no {name} {given}: {model.name} has {size} (0 to {size - 1}).")
        return cls(layer, index, index // (cfg.n_heads // cfg.n_kv_heads))

    @property
    def label(self) -> str:
        """Its usual name."""
        return head_label(self.layer, self.head)

    def index(self, kind: Kind) -> int:
        """Its index among the queries, or among the keys or values."""
        return self.head if kind == "q" else self.kv_head

    def receiver(self, kind: Kind, grouped_query: bool) -> str:
        """The label of one of its inputs, as path patching calls it."""
        if kind == "q" or not grouped_query:
            return f"{self.label}.{kind}"
        return f"L{self.layer}KV{self.kv_head}.{kind}"
