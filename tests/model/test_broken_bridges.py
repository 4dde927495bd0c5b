"""What is noticed at load: a bridge that is wrong in one way is refused, or loses the site that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from analyses import head_attribution
from interp import run
from interp.attribution import attribution_patching
from interp.errors import InterpError
from interp.model import HookedTransformer, checks
from interp.model import live_sites as proofs
from interp.model.bridged import BridgedModel
from interp.model.live_sites import live_sites
from interp.model.load import held_identities
from interp.prompts import PromptPairs
from interp.sites import SITES
from interp.sweeps import sweep
from tests.families import FAMILIES
from tests.tiny import VOCAB, make_gpt2, make_llama, make_opt, random_ids
from tests.tolerance import close, near

Make = Callable[[str], Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A family's model, loaded once."""
    root, found = tmp_path_factory.mktemp("families"), {}

    def load(name: str) -> HookedTransformer:
        if name not in found:
            family = FAMILIES[name]
            numerics = "raw" if family.raw else "compatibility"
            found[name] = HookedTransformer.from_pretrained(family.build(root / name), numerics=numerics)  # type: ignore[arg-type]
        return found[name]

    return load


# ---- sites ----


@pytest.mark.parametrize(
    ("site", "hook", "reason"),
    [
        ("attn_out", "blocks.{layer}.attn.hook_out", "does not give what attention adds"),  # before the block's norm
        ("mlp_out", "blocks.{layer}.mlp.hook_out", "does not give what the MLP adds"),
        ("resid_mid", "blocks.{layer}.hook_resid_pre", "does not give the stream between"),
        ("mlp_post", "blocks.{layer}.hook_mlp_out", "no one row of neurons"),
        ("z", "blocks.{layer}.hook_resid_pre", r"gives a tensor \[10, 32\], not \[10, 4, 8\]"),
        ("pattern", "blocks.{layer}.attn.hook_z", r"gives a tensor \[10, 4, 8\], not \[4, 10, 10\]"),
        ("scores", "blocks.{layer}.attn.hook_pattern", "of which the pattern is not the softmax"),
    ],
)
def test_a_hook_that_gives_another_tensor_makes_no_site(
    site: str, hook: str, reason: str, loaded: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("gemma3")
    assert site in live_sites(model).sites
    monkeypatch.setitem(SITES, site, replace(SITES[site], hook=hook))
    found = live_sites(model)
    assert site not in found.sites
    assert re.search(reason, found.misnamed[site])
    others = {"z": {"result"}, "pattern": {"scores"}, "mlp_post": {"mlp_pre"}}.get(site, set())
    assert set(found.misnamed) <= {site} | others


@pytest.mark.parametrize("kind", [make_gpt2, make_llama])
def test_scores_are_told_from_the_pattern_where_attention_is_uniform(
    kind: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model before training looks everywhere alike: the softmax of its pattern is its pattern."""
    kind(tmp_path)
    hf = _without_attention(tmp_path)
    hf.save_pretrained(tmp_path)
    model = HookedTransformer.from_pretrained(tmp_path)
    pattern = run.capture(model, random_ids(1, 6), "pattern")["pattern"].values[0, 0, 0]
    close(pattern[5], 1 / 6, "product")
    assert "scores" in model.sites
    monkeypatch.setitem(SITES, "scores", replace(SITES["scores"], hook="blocks.{layer}.attn.hook_pattern"))
    assert "not the softmax" in live_sites(model).misnamed["scores"]


def _without_attention(path: Path) -> Any:
    hf = AutoModelForCausalLM.from_pretrained(path)
    for name, weight in hf.named_parameters():
        if "c_attn" in name:
            weight.data[..., : 2 * 32] = 0
        if "q_proj" in name or "k_proj" in name:
            weight.data.zero_()
    return hf


@pytest.mark.parametrize("name", ["mixtral", "granite moe"])  # the latter scales what its experts put out
def test_of_a_mixture_of_experts_the_output_is_no_neuron(name: str, loaded: Make) -> None:
    model = loaded(name)
    with pytest.raises(InterpError, match=r"'mlp_post' does not exist .*: its hook gives the MLP's output"):
        run.capture(model, random_ids(1, 5), "mlp_post")
    with pytest.raises(InterpError, match="'mlp_post' does not exist"):
        sweep(model, _pairs(), "mlp_post")


def test_the_number_of_neurons_is_read_off_the_model(tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(make_opt(tmp_path, ffn_dim=40))
    assert model.cfg.d_mlp == 40
    assert run.capture(model, random_ids(1, 5), "mlp_post").sizes["neuron"] == 40


def test_sites_of_some_layers_only_are_left_out(loaded: Make) -> None:
    model = loaded("lfm2")
    assert {"resid_pre", "resid_post", "resid_mid"} <= set(model.sites)
    with pytest.raises(InterpError, match=r"'attn_out' does not exist .*: only layers 1 have it"):
        sweep(model, _pairs(), "attn_out")
    with pytest.raises(InterpError, match=r"can be read but not changed: it is changed through attn_out"):
        sweep(model, _pairs(), "resid_mid")


# ---- identities ----


def test_a_forgotten_soft_cap_is_refused(loaded: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gemma2")
    held_identities(model, model.sites)
    monkeypatch.setattr(model.bridge.adapter, "apply_output_logits_transform", lambda logits: logits)
    with pytest.raises(InterpError, match="'resume'"):
        held_identities(model, model.sites)


def test_rows_of_attention_without_their_sink_are_refused(loaded: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt-oss")
    rows = run.capture(model, random_ids(2, 6), "pattern")["pattern"].sum("src_position")
    assert float(rows.min()) < 0.95
    assert "scores" in model.sites
    held_identities(model, model.sites)
    monkeypatch.setattr(checks, "sinks", lambda model, layer: None)
    with pytest.raises(InterpError, match="'pattern_sum'"):
        held_identities(model, model.sites)
    monkeypatch.undo()
    right = proofs.sinks
    monkeypatch.setattr(checks, "sinks", lambda model, layer: right(model, layer) + 0.5)
    with pytest.raises(InterpError, match="'pattern_sum'"):
        held_identities(model, model.sites)


def test_a_pattern_that_nothing_is_declared_of_is_left_out_and_the_model_is_used(
    loaded: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPT-OSS of a name that no family has: its rows lack what its sinks take, and the rest of it is right."""
    model = loaded("gpt-oss")
    monkeypatch.setattr(model, "cfg", replace(model.cfg, architecture="UnheardOf"))
    found = live_sites(model)
    assert "rows do not sum to 1" in found.misnamed["pattern"]
    assert set(found.sites) == set(model.sites) - {"pattern"}
    assert set(held_identities(model, found.sites)) == {"result_sum", "pattern_sum", "padding", "resume"}


def test_numbers_that_depend_on_the_neighbours_are_refused(loaded: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Phi-3 that turns all tokens of a batch by other angles where its longest prompt has more than 8."""
    model = loaded("phi3 long")
    assert model.cfg.length_boundary == 8
    held_identities(model, model.sites)
    monkeypatch.setattr(model, "cfg", replace(model.cfg, length_boundary=None))
    with pytest.raises(InterpError, match="'padding'"):
        held_identities(model, model.sites)


def test_short_and_long_prompts_are_run_apart_where_angles_change(loaded: Make) -> None:
    model, ids = loaded("phi3 long"), random_ids(1, 12)[0].tolist()
    mixed = [ids[:6], ids]
    with pytest.raises(InterpError, match=r"Prompts 0 and 1 have 6 and 12 tokens, but above 8 .* apart\.$"):
        run.capture(model, mixed, "resid_post")
    for group in ([ids[:6], ids[:8]], [ids, ids[:9]]):
        together = run.capture(model, group, "resid_post")["resid_post"]
        for row, prompt in enumerate(group):
            alone = run.capture(model, [prompt], "resid_post")["resid_post"].values[0]
            close(together.values[row, :, : len(prompt)], alone, size=together.values[np.isfinite(together.values)])


def test_dynamic_scaling_never_starts_within_the_context(loaded: Make) -> None:
    model = loaded("llama dynamic")
    ids = random_ids(1, model.cfg.n_ctx)[0].tolist()
    alone = run.logits_at(model, run.as_prompts(model, [ids[:20]]))
    beside = run.logits_at(model, run.as_prompts(model, [ids[:20], ids]))[:1]
    close(beside, alone)
    with pytest.raises(InterpError, match="at most 64"):
        run.as_prompts(model, [[1] * 65])


# ---- what comes after the last block ----


def test_gradients_go_through_the_soft_cap(loaded: Make, tmp_path: Path) -> None:
    """Along a straight path the gradients add up to the whole effect; without the cap that would be another."""
    model, pairs = loaded("gemma2"), _pairs()
    hf = AutoModelForCausalLM.from_pretrained(FAMILIES["gemma2"].build(tmp_path), attn_implementation="eager")
    with torch.no_grad():
        clean, corrupted = (hf(torch.tensor(part.ids)).logits[:, -1] for part in (pairs.clean, pairs.corrupted))
    gap = (clean - corrupted)[:, 5] - (clean - corrupted)[:, 9]
    found = attribution_patching(
        model, pairs, "resid_post", layers=[2], positions=[6], method="integrated", steps=200, audit=None
    )
    effect = found["estimated_effect"].values.squeeze((1, 2))
    near(effect, gap, 1e-3 * float(gap.abs().max()), why="two hundred steps of an integral")


@pytest.mark.parametrize(("name", "reason"), [("gemma2", "soft-capped at 3"), ("opt post-norm", "no final norm")])
def test_direct_attribution_says_why_it_is_not_possible(name: str, reason: str, loaded: Make) -> None:
    with pytest.raises(InterpError, match=reason):
        head_attribution.run(loaded(name), _pairs(), ablations=())


# ---- modes ----


def _with_dropout() -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": VOCAB, "n_positions": 24}
    config = GPT2Config(**sizes, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5, bos_token_id=0, eos_token_id=0)
    hf = GPT2LMHeadModel(config)
    return build_bridge_from_module(hf, "GPT2LMHeadModel", hf_config=hf.config, model_name="own")


def test_a_bridge_in_training_runs_without_dropout_and_stays_in_training() -> None:
    bridge = _with_dropout()
    ids = torch.from_numpy(random_ids(2, 6))
    bridge.eval()
    with torch.no_grad():
        expected = bridge(ids)
    bridge.train()
    model = HookedTransformer.from_bridge(bridge)  # wrapped in training
    close(model.forward(ids), expected)
    bridge.eval()
    bridge.train()  # and put back into it
    close(model.forward(ids), expected)
    stream = run.activations(model, run.as_prompts(model, ids.numpy()), "resid_pre")[1]
    close(model.resume(stream, 1, logits_at=torch.full((2,), 5)), expected[:, 5])
    assert bridge.original_model.training
    assert any(isinstance(module, torch.nn.Dropout) and module.training for module in bridge.original_model.modules())
    with torch.no_grad():
        assert float((bridge(ids) - expected).abs().max()) > 1e-3  # its own runs have dropout as before


# ---- anything else ----


def test_whatever_a_bridge_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("first\nsecond")

    make_gpt2(tmp_path)
    monkeypatch.setattr(BridgedModel, "forward", fail)
    with pytest.raises(InterpError, match=r"is a GPT2LMHeadModel, which .* \(ZeroDivisionError: first\)\.") as refusal:
        HookedTransformer.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith("It cannot be used with numerics='raw' either.")


def _pairs() -> PromptPairs:
    clean = random_ids(2, 7, seed=3)
    corrupted = clean.copy()
    corrupted[:, 2] = (corrupted[:, 2] + 7) % VOCAB
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, answer_position=6)
