"""The families of models, one file each: what is particular about them, and how their pieces are read off a bridge.

To add one: write its file, add its line to ``FAMILIES``, and its tiny configuration to the tests. Loading compares
every site with the bridge's, so a family that is read wrongly is swept through hooks, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from interp.model.arithmetic import Blocks, UnsupportedModelError
from interp.model.bridged import BridgedModel
from interp.model.families import gpt1, gpt2, gpt_oss, llama, native, opt, qwen2
from interp.model.families.family import Family

FAMILIES: Mapping[str, Family] = {
    "GPT2LMHeadModel": gpt2.FAMILY,
    "LlamaForCausalLM": llama.FAMILY,
    "Qwen2ForCausalLM": qwen2.FAMILY,
    "TransformerLensNative": native.FAMILY,
    "OPTForCausalLM": opt.FAMILY,
    "OpenAIGPTLMHeadModel": gpt1.FAMILY,
    "GptOssForCausalLM": gpt_oss.FAMILY,
}
"""Architecture -> what is declared of it."""


def family_of(model: BridgedModel) -> Family:
    """What is declared of a model's family: nothing particular, where it is none of ``FAMILIES``."""
    return FAMILIES.get(model.cfg.architecture, Family())


def blocks_of(model: BridgedModel) -> Blocks:
    """The pieces of a model, on its bridge's own weights.

    Raises:
        UnsupportedModelError: another architecture, or a variant of a family that is not written in its file.
    """
    read = family_of(model).blocks
    if read is None:
        written = ", ".join(name for name, family in FAMILIES.items() if family.blocks is not None)
        raise UnsupportedModelError(f"{model.cfg.architecture} is none of {written}")
    return read(model)
