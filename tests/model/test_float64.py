"""A float64 model is float64 throughout: held to the formulas in NumPy, and to Hugging Face where that is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from interp import run
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import sweep
from tests.families import FAMILIES
from tests.tiny import LLAMA_SIZES, VOCAB, random_ids
from tests.tolerance import close

Numerics = pytest.mark.parametrize("numerics", ["compatibility", "raw"])
N_HEADS, N_KV, D_HEAD = 4, 2, 8


def _pairs() -> PromptPairs:
    clean = random_ids(2, 7, seed=3)
    corrupted = clean.copy()
    corrupted[:, 2] = (corrupted[:, 2] + 7) % VOCAB
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, answer_position=6)


# ---- a Llama, from the formulas ----


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def _softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _rotate(x: np.ndarray) -> np.ndarray:
    """Pairs (i, i + d/2) of a head turn by position / 10000^(2i/d)."""
    half = D_HEAD // 2
    angle = np.arange(x.shape[1])[:, None, None] / 10000.0 ** (np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def _llama(
    path: Path, ids: np.ndarray, new: dict[int, np.ndarray] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits, and the streams before each block; ``new`` puts streams in."""
    weights = {name: value.astype(np.float64) for name, value in load_file(path / "model.safetensors").items()}
    stream, streams = weights["model.embed_tokens.weight"][ids], []
    future = np.triu(np.ones((ids.shape[1],) * 2, dtype=bool), k=1)
    for layer in range(LLAMA_SIZES["num_hidden_layers"]):
        stream = (new or {}).get(layer, stream)
        streams.append(stream)
        part = {name.split(f"layers.{layer}.")[1]: w for name, w in weights.items() if f"layers.{layer}." in name}
        x = _norm(stream, part["input_layernorm.weight"])
        q, k, v = (
            (x @ part[f"self_attn.{name}_proj.weight"].T).reshape(*ids.shape, -1, D_HEAD) for name in ("q", "k", "v")
        )
        q, k = _rotate(q), _rotate(k)
        k, v = k.repeat(N_HEADS // N_KV, axis=2), v.repeat(N_HEADS // N_KV, axis=2)
        scores = np.einsum("pihd,pjhd->phij", q, k) / np.sqrt(D_HEAD)
        pattern = _softmax(np.where(future, -np.inf, scores))
        z = np.einsum("phij,pjhd->pihd", pattern, v).reshape(*ids.shape, -1)
        stream = stream + z @ part["self_attn.o_proj.weight"].T
        x = _norm(stream, part["post_attention_layernorm.weight"])
        gate = x @ part["mlp.gate_proj.weight"].T
        neurons = gate / (1 + np.exp(-gate)) * (x @ part["mlp.up_proj.weight"].T)
        stream = stream + neurons @ part["mlp.down_proj.weight"].T
    return _norm(stream, weights["model.norm.weight"]) @ weights["lm_head.weight"].T, streams


def _difference(logits: np.ndarray) -> np.ndarray:
    return logits[:, -1, 5] - logits[:, -1, 9]


@Numerics
def test_a_llama_is_the_formulas_to_the_last_digits(numerics: Any, llama_directory: Path) -> None:
    model, pairs = HookedTransformer.from_pretrained(llama_directory, dtype="float64", numerics=numerics), _pairs()
    assert max(model.checks.values()) < 1e-12
    clean, corrupted = pairs.clean.ids, pairs.corrupted.ids
    logits, streams = _llama(llama_directory, clean)
    got = model.forward(torch.tensor(clean)).log_softmax(-1)
    close(got, np.log(_softmax(logits)), dtype="float64")
    effects = sweep(model, pairs, "resid_pre", positions=[2, 6])["patched"]
    _, others = _llama(llama_directory, corrupted)
    for layer in range(model.cfg.n_layers):
        for position in (2, 6):
            new = others[layer].copy()
            new[:, position] = streams[layer][:, position]
            expected = _difference(_llama(llama_directory, corrupted, {layer: new})[0])
            close(effects.sel(layer=layer, position=position), expected, dtype="float64", size=logits[:, -1])


@Numerics
def test_a_gpt2_is_plain_hugging_face_to_the_last_digits(numerics: Any, gpt2_directory: Path) -> None:
    """Its code, unlike a Llama's, computes in the dtype of the weights."""
    model = HookedTransformer.from_pretrained(gpt2_directory, dtype="float64", numerics=numerics)
    hf = AutoModelForCausalLM.from_pretrained(gpt2_directory, dtype=torch.float64, attn_implementation="eager").eval()
    ids = torch.tensor(random_ids(3, 11))
    with torch.no_grad():
        expected = hf(ids).logits.log_softmax(-1)
    close(model.forward(ids).log_softmax(-1), expected, dtype="float64")
    acts = run.capture(model, ids.numpy(), ["pattern", "resid_post"])
    assert acts["pattern"].dtype == np.float64
    close(acts["pattern"].sum("src_position"), 1, "product", dtype="float64")


def test_mini_loads_in_float64() -> None:
    model = HookedTransformer.from_pretrained("mini", dtype="float64")
    assert model.provenance()["dtype"] == "float64"
    assert set(model.checks) >= {"hugging_face", "resume", "blocks"}
    assert max(model.checks.values()) < 1e-12


@pytest.mark.parametrize(
    "name",
    ["gemma2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3", "neox", "bloom", "gptj", "opt"))],
)
def test_hooks_are_float64_throughout(name: str, tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(FAMILIES[name].build(tmp_path), dtype="float64")
    assert model.blocks is None
    assert max(model.checks.values()) < 1e-12


def test_nothing_of_it_is_left_behind(gpt2_directory: Path) -> None:
    HookedTransformer.from_pretrained(gpt2_directory, dtype="float64")
    assert torch.ones(1).float().dtype == torch.ones(1, dtype=torch.float64).to(torch.float32).dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
