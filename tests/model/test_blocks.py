"""The written-out arithmetic of GPT-2 and Llama against Hugging Face, and site by site against TransformerLens."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from interp import sites
from interp.interventions import Replace
from interp.model import HookedTransformer, load
from interp.model.arithmetic import Blocks, UnsupportedModelError
from interp.model.checks import against_blocks
from interp.model.families import blocks_of
from interp.sweeps import score, sweep
from tests.tiny import LOGITS, make_gpt2, make_llama, make_mistral, make_opt, make_qwen2, random_ids, scattered_pairs
from tests.tolerance import allowed, close

IDS = torch.tensor(random_ids(3, 9, seed=8))
BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])
VARIANTS = [
    (make_gpt2, {}),
    (make_gpt2, {"activation_function": "relu", "n_inner": 40}),
    (make_gpt2, {"activation_function": "gelu", "layer_norm_epsilon": 1e-2}),
    (make_llama, {}),
    (make_llama, {"num_key_value_heads": 4, "rms_norm_eps": 1e-2}),
    (make_llama, {"num_key_value_heads": 1, "hidden_act": "gelu"}),
    (make_llama, {"attention_bias": True, "mlp_bias": True}),
    (make_llama, {"head_dim": 12}),
    (make_llama, {"tie_word_embeddings": True}),
    (make_qwen2, {}),
    (
        make_llama,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8,
            }
        },
    ),
]


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


def our_logits(pieces: Blocks, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return pieces.logits(pieces.forward(ids))


@pytest.mark.parametrize(
    ("make", "options", "numerics"),
    [
        *((*variant, "compatibility") for variant in VARIANTS),
        (make_gpt2, {}, "raw"),
        (make_llama, {}, "raw"),
        (make_qwen2, {}, "raw"),
    ],
)
def test_log_probabilities_equal_a_fresh_hugging_face_model(
    make: Any, options: dict[str, Any], numerics: Any, tmp_path: Path
) -> None:
    """Folding and centring move logits by a constant, so log-probabilities are compared."""
    directory = make(tmp_path, **options)
    model = HookedTransformer.from_pretrained(directory, numerics=numerics)
    reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
    for name, wanted in options.items():
        if name != "rope_parameters":
            assert getattr(reference.config, name) == wanted
    with torch.inference_mode():
        expected = reference(IDS).logits.log_softmax(-1)
    assert model.why_no_blocks == ""
    assert expected.std() > 0.1
    close(our_logits(model.blocks).log_softmax(-1), expected)
    if numerics == "raw":
        close(our_logits(model.blocks), reference(IDS).logits)


@BOTH
def test_every_site_equals_the_transformer_lens_cache(model: HookedTransformer) -> None:
    seen: dict[tuple[str, int], torch.Tensor] = {}
    order: list[str] = []

    def tap(site: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        seen[site, layer] = value
        order.append(site)
        return value

    with torch.inference_mode():
        logits, cache = model.bridge.run_with_cache(IDS)
        pieces = model.blocks
        ours = pieces.logits(pieces.forward(IDS, tap=tap))
    close(ours, logits)
    names = order[: len(order) // 3]
    assert (
        names
        == "resid_pre q k v rot_q rot_k scores pattern z attn_out resid_mid mlp_pre mlp_post mlp_out resid_post".split()
    )
    assert order == names * 3
    future = torch.triu(torch.ones(9, 9, dtype=torch.bool), diagonal=1)
    for (site, layer), value in seen.items():
        if not model.has_site(site):  # without rotation
            assert torch.equal(value, seen[site.removeprefix("rot_"), layer])
            continue
        theirs = cache[sites.site(site).hook_name(layer)]
        if site == "scores":
            assert (value[..., future] == -torch.inf).all()
            value, theirs = value[..., ~future], theirs[..., ~future]
        close(value, theirs, what=site)


@BOTH
def test_attention_in_one_step_is_the_same(model: HookedTransformer) -> None:
    pieces = model.blocks
    names: set[str] = set()

    def tap(site: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        names.add(site)
        return value

    with torch.inference_mode():
        plain = pieces.forward(IDS)
        close(pieces.forward(IDS, tap=tap, fused=True), plain)
        assert names.isdisjoint({"scores", "pattern"})
        assert "z" in names
        close(pieces.forward(IDS, fused=False), plain)
    # With a gradient wanted, products are PyTorch's own.
    close(pieces.forward(IDS).detach(), plain)


@BOTH
def test_stopping_before_a_layer_gives_the_stream_before_it(model: HookedTransformer) -> None:
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(IDS)
        for layer in range(3):
            found = model.blocks.forward(IDS, stop_at_layer=layer)
            close(found, cache[f"blocks.{layer}.hook_resid_pre"])


@BOTH
@pytest.mark.parametrize(
    "site", ["resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "mlp_pre", "mlp_post"]
)
def test_what_a_tap_returns_is_used_from_there_on(model: HookedTransformer, site: str) -> None:
    """Including the skip connection behind ``resid_mid``; the answer is an intervention's, by bridge hooks."""
    pairs = scattered_pairs()
    kept: dict[int, torch.Tensor] = {}

    def keep(name: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        if name == site:
            kept[layer] = value
        return value

    def put(name: str, layer: int, value: torch.Tensor) -> torch.Tensor:
        return kept[1] if (name, layer) == (site, 1) else value

    with torch.inference_mode():
        pieces = model.blocks
        pieces.forward(torch.tensor(pairs.corrupted.ids), tap=keep)
        logits = pieces.logits(pieces.forward(torch.tensor(pairs.clean.ids), tap=put))
    each, at = np.arange(len(pairs)), pairs.answer_position
    found = logits.numpy()[each, at, pairs.correct] - logits.numpy()[each, at, pairs.incorrect]
    change = Replace(site=site, values={1: kept[1]}, layers=[1])
    close(found, score(model, pairs, interventions=[change]), size=LOGITS)
    assert np.abs(found - score(model, pairs)).max() > 1e-4


@BOTH
def test_casting_changes_products_and_leaves_norms_and_streams(model: HookedTransformer) -> None:
    pieces = model.blocks
    cast = pieces.cast(torch.bfloat16)
    assert cast.layers[0].q.weight.dtype == cast.layers[2].mlp_out.weight.dtype == torch.bfloat16
    assert cast.layers[0].ln1.weight.dtype == cast.unembed.weight.dtype == cast.token.dtype == torch.float32
    assert pieces.layers[0].q.weight.dtype == torch.float32
    with torch.inference_mode():
        stream = cast.forward(IDS)
    assert stream.dtype == torch.float32
    error = (our_logits(cast) - our_logits(pieces)).abs().max()
    assert 0 < error < 0.05 * our_logits(pieces).abs().max()


@BOTH
def test_weights_are_views_of_the_bridge_and_not_copies(model: HookedTransformer) -> None:
    """A weight changed in place in the bridge is changed here too, also in pieces that were read before."""
    pieces = model.blocks
    ours = [weight for block in pieces.layers for weight in (block.q.weight, block.o.weight, block.mlp_out.weight)]
    theirs = {parameter.untyped_storage().data_ptr() for parameter in model.bridge.original_model.parameters()}
    owned = [*ours, pieces.token, pieces.unembed.weight]
    assert all(weight.untyped_storage().data_ptr() in theirs for weight in owned)
    assert not any(weight.requires_grad for weight in owned)
    before = our_logits(pieces)
    weight = model.bridge.blocks[1].attn.o.original_component.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-1.5)
        after = our_logits(pieces)
        assert (after - before).abs().max() > 1e-3
        close(after, model.forward(IDS))
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert torch.equal(our_logits(pieces), before)


# ---- models whose arithmetic is not written here ----


@pytest.mark.parametrize(("make", "architecture"), [(make_opt, "OPTForCausalLM"), (make_mistral, "MistralForCausalLM")])
def test_another_architecture_says_why_it_has_no_pieces(
    make: Any, architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = HookedTransformer.from_pretrained(make(tmp_path), numerics="raw")
    reason = f"{architecture} is none of GPT2LMHeadModel, LlamaForCausalLM, Qwen2ForCausalLM, TransformerLensNative"
    assert model.why_no_blocks == reason
    assert f"is swept through hooks, which is slower: {reason}" in caplog.text
    assert "blocks" not in model.checks
    assert model.blocks is None
    with pytest.raises(UnsupportedModelError, match="is none of"):
        blocks_of(model)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.inference_mode():  # and the model itself is as usable as ever
        close(model.forward(IDS), reference(IDS).logits)


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (make_gpt2, {"scale_attn_by_inverse_layer_idx": True}, "attention is scaled by layer"),
        (make_llama, {"hidden_act": "tanh"}, "the activation tanh is not written here"),
        (make_qwen2, {"use_sliding_window": True, "max_window_layers": 1}, "some layers attend within a window"),
    ],
)
def test_a_variant_that_is_not_written_says_why(make: Any, options: Any, reason: str, tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(make(tmp_path, **options), numerics="raw")
    assert model.why_no_blocks == reason
    assert sweep(model, scattered_pairs(), "z").attrs["engine_reason"] == reason


def broken(pieces: Blocks, part: str) -> Blocks:
    """The same model with one piece changed a little."""
    block = pieces.layers[1]
    if part == "norm":
        other = replace(block, ln2=replace(block.ln2, eps=0.3))
    elif part == "weight":
        weight = block.v.weight.clone()
        weight[3, 5] += 0.5
        other = replace(block, v=replace(block.v, weight=weight))
    else:
        return replace(pieces, scale=1.02 * pieces.scale)
    return replace(pieces, layers=(pieces.layers[0], other, pieces.layers[2]))


@BOTH
@pytest.mark.parametrize("part", ["norm", "weight", "scale"])
def test_a_piece_that_is_wrong_is_found_at_load_and_the_model_falls_back(
    name: str, part: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = load.blocks_of
    exact = sweep(request.getfixturevalue(name), scattered_pairs(), "z")
    monkeypatch.setattr(load, "blocks_of", lambda model: broken(right(model), part))
    model = HookedTransformer.from_pretrained(request.getfixturevalue(f"{name}_directory"))
    assert model.why_no_blocks.startswith("its arithmetic differs from the bridge's by ")
    assert model.checks["blocks"] > 2e-4
    assert model.blocks is None
    effect = sweep(model, scattered_pairs(), "z")
    assert effect.attrs["engine"] == "hooks"
    close(effect.patched, exact.patched, size=LOGITS)


@BOTH
def test_a_good_model_passes_the_check_with_room(
    model: HookedTransformer, name: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert HookedTransformer.from_pretrained(request.getfixturevalue(f"{name}_directory")).why_no_blocks == ""
    assert "swept through hooks" not in caplog.text
    found = against_blocks(model, model.blocks, model.sites)
    assert found.holds
    assert found.difference < allowed("pass", size=1)
    assert model.checks["blocks"] < allowed("pass", size=1)
