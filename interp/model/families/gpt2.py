"""GPT-2: LayerNorm, learned positions, an MLP without a gate (Radford et al. 2019)."""

from __future__ import annotations

from typing import Any

from interp.model.arithmetic import Block, Blocks, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.families import reading
from interp.model.families.family import Family


def blocks(model: BridgedModel) -> Blocks:
    """The pieces of a GPT-2.

    Raises:
        UnsupportedModelError: a variant that is not written here.
    """
    bridge = model.bridge
    if getattr(bridge.cfg, "scale_attn_by_inverse_layer_idx", False):
        raise UnsupportedModelError("attention is scaled by layer")
    return Blocks(
        **reading.around(model, tuple(_block(block) for block in bridge.blocks)),
        place=reading.original(bridge.pos_embed).weight.detach(),
        final=reading.layer_norm(bridge.ln_final),
        angles=None,
    )


def _block(block: Any) -> Block:
    return Block(
        ln1=reading.layer_norm(block.ln1),
        ln2=reading.layer_norm(block.ln2),
        **reading.attention(block),
        **reading.plain_mlp(block),
    )


FAMILY = Family(blocks)
