"""Models that know nothing: random weights on the prompts of the hand-made ones, to count false alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from interp.groundtruth.prompts import AFTER, BEFORE, COLOR_IDS, WORDS, Form, draw
from interp.model import HookedTransformer
from interp.prompts import PromptPairs

N_PROMPTS = 48
"""Pairs of prompts that a random model is asked."""


@dataclass(frozen=True)
class _Kind:
    """The sizes of random models; ``std`` is that of their weights, large enough for attention that is not even."""

    form: Form
    n_layers: int
    d_model: int
    attn_only: bool
    std: float
    n_heads: int = 4


_KINDS = (
    _Kind(BEFORE, 2, 32, True, 0.25),
    _Kind(AFTER, 2, 32, True, 0.25),
    _Kind(BEFORE, 3, 48, False, 0.15),
    _Kind(AFTER, 3, 48, False, 0.15),
)


def at_random(seed: int, *, blind: bool = False) -> tuple[HookedTransformer, PromptPairs]:
    """A model with random weights, and prompts. Seeds take turns at sizes, at MLPs, and at how prompts are written.

    The colours mean nothing to it: whatever is said of how they reach the answer is said by chance.

    Args:
        seed: of the weights and of the prompts.
        blind: embed all colours as the first one. Then nothing of a colour is anywhere in the model.

    >>> from interp import groundtruth
    >>> model, pairs = groundtruth.at_random(3)
    >>> model.cfg.n_layers, len(pairs)
    (3, 48)
    """
    from transformer_lens.model_bridge.sources import boot_native

    kind = _KINDS[seed % len(_KINDS)]
    config: dict[str, Any] = {
        "n_layers": kind.n_layers, "d_model": kind.d_model, "n_ctx": kind.form.length,
        "d_head": kind.d_model // kind.n_heads, "n_heads": kind.n_heads, "d_vocab": len(WORDS),
        "d_mlp": 4 * kind.d_model, "attn_only": kind.attn_only, "act_fn": "relu", "normalization_type": "LN",
    }  # fmt: skip
    bridge = boot_native(config, model_name="random")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in bridge.original_model.parameters():
            if weight.ndim > 1:  # norms and biases stay as they are made: ones, and zeros
                weight.copy_(kind.std * torch.randn(weight.shape, generator=generator))
        if blind:
            embedding = bridge.embed.weight
            embedding[list(COLOR_IDS)] = embedding[COLOR_IDS[0]].clone()
    model = HookedTransformer.from_bridge(bridge, name=f"random weights {seed}")
    return model, draw(kind.form, "random", n=N_PROMPTS, seed=seed)
