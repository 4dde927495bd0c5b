"""Tiny models with random weights, saved as Hugging Face directories: real architectures, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

VOCAB = 60


def make_gpt2(path: Path, **overrides: Any) -> Path:
    """A GPT-2 of 3 layers x 4 heads, d_model 32; weights large enough that attention is not uniform."""
    sizes = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": VOCAB, "n_positions": 24, **overrides}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **sizes))
    return _save(model, path)


def make_llama(path: Path, **overrides: Any) -> Path:
    """A Llama of 3 layers x 4 query heads on 2 key-value heads (grouped-query), RMSNorm, rotary positions."""
    sizes = {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": VOCAB,
        "max_position_embeddings": 24,
        **overrides,
    }
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(bos_token_id=0, eos_token_id=0, **sizes))
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
