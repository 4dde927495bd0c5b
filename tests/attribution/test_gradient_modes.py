"""Gradients are taken whatever the caller has turned off, with the same numbers, and the caller's mode comes back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import boot_native

from interp.attribution import attribution_patching, edge_attribution
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from tests.tiny import VOCAB, make_mistral, random_ids

Mode = Callable[[], AbstractContextManager[object]]
MODES: dict[str, Mode] = {
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def pairs() -> PromptPairs:
    clean = random_ids(2, 7, seed=4)
    corrupted = clean.copy()
    corrupted[:, 2] = (corrupted[:, 2] + 1) % VOCAB
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 2})


def estimates(model: HookedTransformer) -> dict[str, np.ndarray]:
    found = {
        method: attribution_patching(model, pairs(), "q", method=method)
        for method in ("gradient", "integrated", *(["atp*"] if model.blocks is not None else []))
    }
    if model.blocks is not None:
        found["edges"] = edge_attribution(model, pairs(), method="eap-ig-inputs")
    return {name: one["estimated_effect"].values for name, one in found.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_estimates_are_the_same_where_gradients_are_off(name: str, mode: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    expected = estimates(model)
    with MODES[mode]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = estimates(model)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    for method, values in found.items():
        np.testing.assert_array_equal(values, expected[method])
        assert np.nan_to_num(np.abs(values)).max() > 1e-4, method


@pytest.mark.parametrize("mode", MODES)
def test_a_model_loaded_where_gradients_are_off_has_them(
    mode: str, gpt2: HookedTransformer, gpt2_directory: Path, tmp_path: Path
) -> None:
    expected = estimates(gpt2)
    with MODES[mode]():
        again = HookedTransformer.from_pretrained(gpt2_directory)
        mistral = HookedTransformer.from_pretrained(make_mistral(tmp_path))
    for method, values in estimates(again).items():
        np.testing.assert_array_equal(values, expected[method])
    assert np.abs(estimates(mistral)["gradient"]).max() > 1e-4  # through the bridge's hooks


def test_a_bridge_made_in_inference_mode_is_given_ordinary_weights() -> None:
    sizes = {
        "n_layers": 2, "d_model": 16, "n_ctx": 12, "d_head": 4, "n_heads": 4, "d_vocab": VOCAB, "act_fn": "gelu",
        "normalization_type": "LN", "seed": 3,
    }  # fmt: skip
    ordinary = HookedTransformer.from_bridge(boot_native(sizes))
    with torch.inference_mode():
        bridge = boot_native(sizes)
    before = {name: weight.clone() for name, weight in bridge.original_model.named_parameters()}
    model = HookedTransformer.from_bridge(bridge)
    for name, weight in bridge.original_model.named_parameters():
        assert not weight.is_inference()
        assert torch.equal(weight, before[name])
    found, expected = (attribution_patching(one, pairs(), "z", audit=None) for one in (model, ordinary))
    np.testing.assert_array_equal(found["estimated_effect"], expected["estimated_effect"])
