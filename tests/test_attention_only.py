"""Models of attention alone, and of shared key-value heads, with default arguments, against a forward pass by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformer_lens.model_bridge.sources import boot_native

from analyses import (
    activation_patching,
    approximation_audit,
    attention_lesson,
    behavior,
    context_flow,
    head_attribution,
    probing,
)
from interp import run
from interp.attribution import attribution_patching, edge_attribution
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweep import ablation_sweep, path_patching, score
from tests.tiny import random_ids
from tests.tolerance import close

VOCAB, N_LAYERS, N_HEADS, D_HEAD = 60, 2, 4, 8
KINDS: dict[str, dict[str, int]] = {
    "plain": {},
    "shared key-values": {"n_key_value_heads": 2},
    "few answers": {"d_vocab_out": 11},
}


def made(kind: str) -> HookedTransformer:
    sizes = {
        "n_layers": N_LAYERS, "d_model": 32, "n_ctx": 24, "d_head": D_HEAD, "n_heads": N_HEADS, "d_vocab": VOCAB,
        "attn_only": True, "act_fn": "relu", "normalization_type": "LN", **KINDS[kind],
    }  # fmt: skip
    bridge = boot_native(sizes)
    generator = torch.Generator().manual_seed(9)
    for name, weight in bridge.original_model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = 1 + 0.3 * noise if "ln" in name and name.endswith("weight") else 0.25 * noise
    return HookedTransformer.from_bridge(bridge, name=kind)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> HookedTransformer:
    found = made(request.param)
    assert not {"mlp_out", "mlp_post", "resid_mid", "scores"} & set(found.sites)
    return found


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    clean = random_ids(6, 8, seed=1)
    clean[:, 5] = [20, 21, 22, 20, 21, 22]
    corrupted = clean.copy()
    clean[:, 3], corrupted[:, 3] = [30, 31] * 3, [31, 30] * 3
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 3, "noun": 5})


def by_hand(model: HookedTransformer, ids: np.ndarray, z: dict[tuple[int, int], Tensor | None] | None = None) -> Any:
    """Logits at the last token, and every head's mix of values, from the weights alone; ``z`` replaces some heads'."""
    weights = {
        name.replace("._original_component", ""): value
        for name, value in model.bridge.original_model.state_dict().items()
    }

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    tokens = torch.tensor(np.array(ids))
    n, length = tokens.shape
    stream = weights["tok_embed.weight"][tokens] + weights["pos.weight"][:length]
    mixed = {}
    for layer in range(N_LAYERS):
        x = norm(f"layers.{layer}.ln1", stream)
        q, k, v = (
            linear(f"layers.{layer}.attn.{name}", x).reshape(n, length, -1, D_HEAD).transpose(1, 2) for name in "qkv"
        )
        k, v = (part.repeat_interleave(N_HEADS // part.shape[1], dim=1) for part in (k, v))
        scores = q @ k.transpose(2, 3) / D_HEAD**0.5
        future = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        out = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        for head in range(N_HEADS):
            if z is not None and (layer, head) in z:
                value = z[layer, head]
                out[:, head] = 0 if value is None else value
            mixed[layer, head] = out[:, head].clone()
        stream = stream + linear(f"layers.{layer}.attn.o", out.transpose(1, 2).flatten(2))
    return linear("head", norm("ln_out", stream[:, -1])), mixed


def difference(logits: Tensor) -> np.ndarray:
    return (logits[:, 5] - logits[:, 9]).detach().double().numpy()


def test_the_forward_pass_by_hand_is_the_models(model: HookedTransformer, pairs: PromptPairs) -> None:
    logits, _ = by_hand(model, pairs.clean.ids)
    close(run.logits_at(model, pairs.clean), logits)


def test_activation_patching_of_heads_is_that_by_hand(model: HookedTransformer, pairs: PromptPairs) -> None:
    found = activation_patching.run(model, pairs)
    assert found.attrs["left_out"] == "mlp_out"
    assert {"recovered_attn_out", "recovered_pattern", "recovered_resid_pre_position"} <= set(found.data_vars)
    _, of_clean = by_hand(model, pairs.clean.ids)
    expected = np.empty((len(pairs), N_LAYERS, N_HEADS))
    for (layer, head), value in of_clean.items():
        expected[:, layer, head] = difference(by_hand(model, pairs.corrupted.ids, {(layer, head): value})[0])
    patched = found["patched_z"].sel(direction="denoising").transpose("prompt", "layer", "head")
    close(patched, expected, size=np.abs(expected).max() + 5)


def test_zero_ablation_of_heads_is_that_by_hand(model: HookedTransformer, pairs: PromptPairs) -> None:
    for kind in ("zero", "zero_raw"):
        found = ablation_sweep(model, pairs, "z", kind)["ablated"]
        for layer, head in ((0, 1), (1, 3)):
            expected = difference(by_hand(model, pairs.clean.ids, {(layer, head): None})[0])
            close(found.sel(layer=layer, head=head), expected, size=np.abs(expected).max() + 5)


def test_contributions_of_heads_sum_to_the_logit_difference(model: HookedTransformer, pairs: PromptPairs) -> None:
    found = head_attribution.run(model, pairs)
    kinds = set(found["component_kind"].values.astype(str))
    assert kinds == {"embed", "pos_embed", "head", "bias"}
    expected = difference(by_hand(model, pairs.clean.ids)[0])
    close(found["contribution"].sum("component"), expected, size=np.abs(found["contribution"]).sum("component").values)


def test_every_analysis_runs_with_its_defaults(model: HookedTransformer, pairs: PromptPairs) -> None:
    audit = approximation_audit.run(model, pairs)
    assert [str(name) for name in audit["approximation"].values] == [
        f"{site}, gradient" for site in ("resid_pre", "z", "v", "q", "k")
    ]
    assert audit.attrs["left_out"] == "q, AtP*; k, AtP*; edges, EAP; edges, EAP-IG (inputs)"
    lesson = attention_lesson.run(model, pairs)
    close(lesson["weight"].sum(), 1.0, "arithmetic")
    assert probing.run(model, pairs)["accuracy"].notnull().all()
    used = {
        "behavior": behavior.run(model, pairs, minimum_gap=0.0, minimum_preferred=0.0),
        "activation_patching": activation_patching.run(model, pairs),
        "head_attribution": head_attribution.run(model, pairs),
        "probing": probing.run(model, pairs),
    }
    used["behavior"]["passes"][:] = 1
    verdict = context_flow.run(used)
    assert verdict.attrs["answer"]
    assert verdict.sizes["head_label"] == N_LAYERS * N_HEADS


def test_gradient_estimates_hold_at_every_head(model: HookedTransformer, pairs: PromptPairs) -> None:
    found = attribution_patching(model, pairs, "z", "noising", method="atp*", audit=None)
    assert found["graddrop"].notnull().all()
    _, of_clean = by_hand(model, pairs.clean.ids)
    _, of_corrupted = by_hand(model, pairs.corrupted.ids)
    step = 1e-2  # a small step along the patch: its slope is the estimate
    for layer, head in ((0, 0), (1, 2)):
        moved = torch.lerp(of_clean[layer, head], of_corrupted[layer, head], step)
        slope = (difference(by_hand(model, pairs.clean.ids, {(layer, head): moved})[0]) - score(model, pairs)) / step
        estimated = found["estimated_effect"].sel(layer=layer, head=head).values
        assert np.abs(slope - estimated).max() < 0.05 * max(np.abs(estimated).max(), 0.05)


def test_what_needs_the_arithmetic_says_so(model: HookedTransformer, pairs: PromptPairs) -> None:
    for call in (
        lambda: path_patching(model, pairs),
        lambda: edge_attribution(model, pairs),
        lambda: attribution_patching(model, pairs, "q", method="atp*"),
    ):
        with pytest.raises(InterpError, match="TransformerLensNative"):
            call()


def test_ids_and_answers_have_vocabularies_of_their_own() -> None:
    model = made("few answers")
    assert (model.cfg.vocab, model.cfg.vocab_out) == (60, 11)
    ids = np.full((2, 6), 59)
    ids[:, 3] = [1, 2]
    other = ids.copy()
    other[:, 3] = [3, 4]
    assert score(model, PromptPairs.from_tokens(ids, other, correct=10, incorrect=9)).shape == (2,)
    with pytest.raises(
        InterpError, match="The correct id of prompt 0 is 11, but the model's output vocabulary is 0 to 10"
    ):
        score(model, PromptPairs.from_tokens(ids, other, correct=11, incorrect=9))
    with pytest.raises(InterpError, match="Prompt 0 holds token id 60, but the model's vocabulary ends at 59"):
        score(model, PromptPairs.from_tokens(ids + 1, other, correct=10, incorrect=9))
