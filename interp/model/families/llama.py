"""Llama: RMSNorm, rotary positions, a gated MLP, shared keys and values (Touvron et al. 2023, arXiv 2302.13971)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from interp.model.arithmetic import Block, Blocks
from interp.model.bridged import BridgedModel
from interp.model.families import reading
from interp.model.families.family import Family


def blocks(model: BridgedModel) -> Blocks:
    """The pieces of a Llama.

    Raises:
        UnsupportedModelError: a variant that is not written here.
    """
    bridge = model.bridge

    def angles(length: int) -> tuple[Tensor, Tensor]:
        """The rotary angles that the model itself uses for prompts of a length, scaling included."""
        cos, sin = model.block_call(length).kwargs[0]["position_embeddings"]
        return cos[0], sin[0]

    return Blocks(
        **reading.around(model, tuple(_block(block) for block in bridge.blocks)),
        place=None,
        final=reading.rms_norm(bridge.ln_final),
        angles=angles,
    )


def _block(block: Any) -> Block:
    return Block(
        ln1=reading.rms_norm(block.ln1),
        ln2=reading.rms_norm(block.ln2),
        **reading.attention(block),
        mlp_in=reading.linear(getattr(block.mlp, "in")),
        gate=reading.linear(block.mlp.gate),
        mlp_out=reading.linear(block.mlp.out),
    )


FAMILY = Family(blocks)
