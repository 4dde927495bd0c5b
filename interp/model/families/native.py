"""Models that TransformerLens makes itself (``boot_native``), as toy models are: with an MLP, or of attention alone."""

from __future__ import annotations

from typing import Any

from interp.model.arithmetic import Block, Blocks, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.families import reading
from interp.model.families.family import Family

WRITTEN = {"normalization_type": "LN", "positional_embedding_type": "standard", "gated_mlp": False}
"""The settings that are written here, each with its value."""


def blocks(model: BridgedModel) -> Blocks:
    """The pieces of a native model.

    Raises:
        UnsupportedModelError: a variant that is not written here.
    """
    bridge, cfg = model.bridge, model.bridge.cfg
    for name, value in WRITTEN.items():
        if getattr(cfg, name) != value:
            raise UnsupportedModelError(f"{name} is {getattr(cfg, name)!r}, only {value!r} is written here")
    for name in ("attn_scores_soft_cap", "output_logits_soft_cap"):
        if (getattr(cfg, name, None) or 0) > 0:
            raise UnsupportedModelError(f"{name} is not written here")
    if getattr(cfg, "attn_scale", -1) > 0 or not getattr(cfg, "use_attn_scale", True):
        raise UnsupportedModelError("scores have a scale of their own")
    return Blocks(
        **reading.around(model, tuple(_block(block) for block in bridge.blocks)),
        place=reading.original(bridge.pos_embed).weight.detach(),
        final=reading.layer_norm(bridge.ln_final),
        angles=None,
    )


def _block(block: Any) -> Block:
    has_mlp = hasattr(block, "mlp")
    maps = reading.attention(block)
    d_model = maps["o"].weight.shape[1]
    return Block(
        ln1=reading.layer_norm(block.ln1),
        ln2=reading.layer_norm(block.ln2 if has_mlp else block.ln1),
        **maps,
        **(reading.plain_mlp(block) if has_mlp else reading.no_mlp(d_model, maps["o"].weight)),
    )


FAMILY = Family(blocks)
