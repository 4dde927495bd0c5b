"""The families of models whose arithmetic is written here, one file each: how its blocks are read off a bridge.

To add one: write its file, add its line to ``FAMILIES``, and its tiny configuration to the tests. Loading compares
every site with the bridge's, so a family that is read wrongly is swept through hooks, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from interp.model.arithmetic import Blocks, UnsupportedModelError
from interp.model.families import gpt2, llama, native

if TYPE_CHECKING:
    from interp.model import HookedTransformer

FAMILIES: Mapping[str, Callable[[HookedTransformer], Blocks]] = {
    "GPT2LMHeadModel": gpt2.blocks,
    "LlamaForCausalLM": llama.blocks,
    "TransformerLensNative": native.blocks,
}
"""Architecture -> how its blocks are read."""


def blocks_of(model: HookedTransformer) -> Blocks:
    """The pieces of a loaded model, each product by the way that was measured to be fastest.

    Raises:
        UnsupportedModelError: another architecture, or a variant of a family that is not written in its file.
    """
    architecture = model.cfg.architecture
    if architecture not in FAMILIES:
        raise UnsupportedModelError(f"{architecture} is none of {', '.join(FAMILIES)}")
    return FAMILIES[architecture](model).measured()
