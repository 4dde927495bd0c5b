"""The sizes of a model, as its bridge states them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model.

    ``n_kv_heads < n_heads`` means grouped-query attention. ``vocab`` counts the ids that prompts may hold and
    ``vocab_out`` those that have a logit. They are equal except in models that answer in another vocabulary.

    ``length_boundary`` is a number of tokens above which rotary angles change for a whole batch: prompts on both sides
    of it cannot be run together, since a prompt's numbers would depend on its neighbours. None for most models.

    >>> from interp import HookedTransformer
    >>> cfg = HookedTransformer.from_pretrained("mini").cfg
    >>> cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.grouped_query
    (4, 4, 128, False)
    """

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_ctx: int
    vocab: int
    vocab_out: int
    length_boundary: int | None = None

    @property
    def grouped_query(self) -> bool:
        """Whether several query heads share one key-value head."""
        return self.n_kv_heads != self.n_heads

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis of a site that is the same for all prompts."""
        return {
            "head": self.n_heads,
            "kv_head": self.n_kv_heads,
            "d_model": self.d_model,
            "d_head": self.d_head,
            "neuron": self.d_mlp,
        }


def config_of(bridge: Any) -> ModelConfig:
    """The sizes that a bridge states."""
    c = bridge.cfg
    return ModelConfig(
        architecture=str(c.architecture),
        n_layers=int(c.n_layers),
        n_heads=int(c.n_heads),
        n_kv_heads=int(c.n_key_value_heads or c.n_heads),
        d_model=int(c.d_model),
        d_head=int(c.d_head),
        d_mlp=int(c.d_mlp or 4 * c.d_model),
        n_ctx=int(c.n_ctx),
        vocab=int(c.d_vocab),
        vocab_out=int(c.d_vocab_out if c.d_vocab_out and c.d_vocab_out > 0 else c.d_vocab),
        length_boundary=_length_boundary(getattr(bridge.original_model, "config", None)),
    )


_ONE_ROTATION = ("default", "linear", "yarn", "llama3", "proportional", "ntk_alpha", "mrope")
"""Rotary scalings in which the angle at a position does not depend on the length of the prompt."""


def _length_boundary(hf_config: Any) -> int | None:
    """Where rotary angles begin to depend on the longest prompt of a batch: 0 if everywhere, None if nowhere.

    Dynamic scaling starts above the context that the model was trained with, which is all that may be read here.
    """
    stated = getattr(hf_config, "rope_parameters", None) or {}
    found = []
    for scaling in (stated, *(part for part in stated.values() if isinstance(part, dict))):  # one per kind of layer
        kind = scaling.get("rope_type")
        if kind == "longrope":
            found.append(int(scaling["original_max_position_embeddings"]))
        elif kind not in (None, "dynamic", *_ONE_ROTATION):
            found.append(0)
    return min(found, default=None)
