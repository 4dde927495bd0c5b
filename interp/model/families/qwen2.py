"""Qwen 2: a Llama whose queries, keys and values have biases (Yang et al. 2024, arXiv 2407.10671)."""

from __future__ import annotations

from interp.model.arithmetic import Blocks, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.families import llama
from interp.model.families.family import Family


def blocks(model: BridgedModel) -> Blocks:
    """The pieces of a Qwen 2.

    Raises:
        UnsupportedModelError: some layers see a window of the last tokens only, which short prompts would not show.
    """
    if "sliding_attention" in model.bridge.original_model.config.layer_types:
        raise UnsupportedModelError("some layers attend within a window")
    return llama.blocks(model)


FAMILY = Family(blocks)
"""Every Qwen 2 and Qwen 2.5."""
