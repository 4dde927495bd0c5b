"""What several tests of explanations are asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interp import HookedTransformer
from interp.mini import WEIGHTS

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@pytest.fixture(scope="session")
def raw() -> HookedTransformer:
    """Mini as it was trained: nothing folded, so that its streams are Hugging Face's."""
    return HookedTransformer.from_pretrained("mini", numerics="raw")


@pytest.fixture(scope="session")
def plain() -> GPT2LMHeadModel:
    """The same weights as Hugging Face runs them."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(WEIGHTS, attn_implementation="eager").eval()
