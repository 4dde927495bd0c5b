"""Tiny models with random weights, saved as Hugging Face directories: real architectures, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sites import SITES

VOCAB = 60
LOGITS = 6.0  # the size of the largest logits of the models below, at which differences of them are rounded
STREAMS = tuple(name for name, site in SITES.items() if site.swept and not site.has_heads)
"""Every site without heads that is swept."""
HEADS = tuple(name for name, site in SITES.items() if site.swept and site.has_heads)
"""Every site with heads that is swept."""
LLAMA_SIZES = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": VOCAB,
    "max_position_embeddings": 24,
}


def make_gpt2(path: Path, **overrides: Any) -> Path:
    """A GPT-2 of 3 layers x 4 heads, d_model 32; weights large enough that attention is not uniform."""
    sizes = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": VOCAB, "n_positions": 24, **overrides}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes))
    return _save(model, path)


def make_llama(path: Path, **overrides: Any) -> Path:
    """A Llama of 3 layers x 4 query heads on 2 key-value heads (grouped-query), RMSNorm, rotary positions."""
    sizes = {**LLAMA_SIZES, **overrides}
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(bos_token_id=0, eos_token_id=0, **sizes))
    return _save(model, path)


def make_qwen2(path: Path, **overrides: Any) -> Path:
    """A Qwen 2 of ``make_llama``'s sizes: its queries, keys and values have biases."""
    sizes = {**LLAMA_SIZES, **overrides}
    torch.manual_seed(3)
    model = Qwen2ForCausalLM(Qwen2Config(bos_token_id=0, eos_token_id=0, **sizes))
    return _save(model, path)


def make_mistral(path: Path, **overrides: Any) -> Path:
    """A Mistral of ``make_llama``'s sizes: its arithmetic is not written here, and the bridge lets all be edited."""
    sizes = {**LLAMA_SIZES, **overrides}
    torch.manual_seed(3)
    model = MistralForCausalLM(MistralConfig(bos_token_id=0, eos_token_id=0, **sizes))
    return _save(model, path)


def make_opt(path: Path, **overrides: Any) -> Path:
    """An OPT of 3 layers x 4 heads, whose attention the bridge leaves to Hugging Face: patterns are read-only."""
    sizes = {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "vocab_size": VOCAB,
        "max_position_embeddings": 24,
        **overrides,
    }
    torch.manual_seed(2)
    model = OPTForCausalLM(OPTConfig(bos_token_id=0, eos_token_id=0, pad_token_id=1, **sizes))
    return _save(model, path)


def _save(model: Any, path: Path) -> Path:
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Norm weights and biases are random too, so that a forgotten one shows.
        parameter.data = 1 + 0.3 * noise if "norm" in name or name.split(".")[-2].startswith("ln") else 0.25 * noise
    model.eval().save_pretrained(path)
    return path


def random_ids(n: int, length: int, *, seed: int = 0) -> np.ndarray:
    """Token ids [prompt, position]."""
    return np.random.default_rng(seed).integers(0, VOCAB, (n, length))


def scattered_pairs() -> PromptPairs:
    """Four pairs of 8 tokens that differ at tokens 2 and 4, with roles of several tokens and an answer before the end.

    ``scene`` holds both differing tokens and an equal one between them.
    """
    clean = random_ids(4, 8, seed=3)
    corrupted = clean.copy()
    for place in (2, 4):
        corrupted[:, place] = (corrupted[:, place] + place + np.arange(4)) % VOCAB
    roles = {name: np.tile(span, (4, 1)) for name, span in (("scene", (2, 5)), ("color", (4, 5)), ("noun", (5, 7)))}
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles=roles, answer_position=6)


def ragged_pairs() -> PromptPairs:
    """Four pairs of 9, 6, 9 and 6 tokens: roles of several tokens, elsewhere in each; not every answer comes last."""
    color = np.array([[3, 6], [1, 3], [2, 4], [2, 3]])
    noun = np.array([[6, 8], [3, 5], [4, 6], [3, 5]])
    clean = [random_ids(1, length, seed=20 + i)[0].tolist() for i, length in enumerate((9, 6, 9, 6))]
    corrupted = [list(row) for row in clean]
    for row, (start, end) in zip(corrupted, color, strict=True):
        row[start] = (row[start] + 7) % VOCAB
        row[end - 1] = (row[end - 1] + 11) % VOCAB
    return PromptPairs.from_tokens(
        clean, corrupted, correct=5, incorrect=[9, 11, 13, 9], roles={"color": color, "noun": noun},
        answer_position=[8, 5, 6, 5],
    )  # fmt: skip


def without_blocks(monkeypatch: pytest.MonkeyPatch, model: HookedTransformer, why: str = "asked by the test") -> None:
    """From here on a model is run through hooks, as one is whose arithmetic is not written."""
    monkeypatch.setattr(model, "blocks", None)
    monkeypatch.setattr(model, "why_no_blocks", why)
