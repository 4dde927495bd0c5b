"""Random small architectures, saved with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)  # fmt: skip

VOCAB, LONGEST = 37, 16
_ENDS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
DTYPES = ("float32", "float32", "float64")
"""What a model is loaded in, one as often as another."""
ROPES: tuple[dict[str, Any], ...] = (
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "default", "rope_theta": 100.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
    {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
)  # fmt: skip


def make(rng: np.random.Generator, directory: Path) -> str:
    """Save a random architecture; its description."""
    family = str(rng.choice(["gpt2", "gpt2", "llama", "llama", "gpt_neox", "opt", "mistral", "qwen2"]))
    config, model = _BUILDERS[family](rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Norm weights and biases are random too, so that a forgotten one shows.
        parameter.data = 1 + 0.3 * noise if "norm" in name or name.split(".")[-2].startswith("ln") else 0.25 * noise
    model.eval().save_pretrained(directory)
    return f"{family} {config}"


def _sizes(rng: np.random.Generator) -> tuple[int, int, int]:
    """Layers, heads and the size of a head."""
    return int(rng.choice([1, 2, 3, 3, 4])), int(rng.choice([1, 2, 4])), int(rng.choice([4, 8]))


def _gpt2(rng: np.random.Generator) -> tuple[dict[str, Any], GPT2LMHeadModel]:
    layers, heads, d_head = _sizes(rng)
    config = {
        "n_layer": layers, "n_head": heads, "n_embd": heads * d_head, "n_positions": LONGEST,
        "n_inner": [None, 12, 40][rng.integers(3)],
        "activation_function": str(rng.choice(["gelu_new", "gelu", "relu", "silu"])),
        # scale_attn_weights=False is no case: TransformerLens does not know it, and such a model is refused at load.
        "scale_attn_by_inverse_layer_idx": not rng.integers(4),
        "tie_word_embeddings": bool(rng.integers(2)), "layer_norm_epsilon": float(rng.choice([1e-5, 1e-2])),
    }  # fmt: skip
    return config, GPT2LMHeadModel(GPT2Config(**_ENDS, **config))


def _rotary(rng: np.random.Generator) -> dict[str, Any]:
    layers, heads, d_head = _sizes(rng)
    return {
        "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": heads * d_head,
        "num_key_value_heads": int(rng.choice([n for n in (1, 2, 4) if heads % n == 0])),
        "intermediate_size": int(rng.choice([12, 40])), "max_position_embeddings": LONGEST,
        "tie_word_embeddings": bool(rng.integers(2)), "rms_norm_eps": float(rng.choice([1e-6, 1e-2])),
        "hidden_act": str(rng.choice(["silu", "gelu"])), "rope_parameters": ROPES[rng.integers(len(ROPES))],
    }  # fmt: skip


def _llama(rng: np.random.Generator) -> tuple[dict[str, Any], LlamaForCausalLM]:
    config = _rotary(rng) | {"attention_bias": bool(rng.integers(2)), "mlp_bias": bool(rng.integers(2))}
    return config, LlamaForCausalLM(LlamaConfig(**_ENDS, **config))


def _mistral(rng: np.random.Generator) -> tuple[dict[str, Any], MistralForCausalLM]:
    config = _rotary(rng) | {"sliding_window": [None, 3][rng.integers(2)]}
    return config, MistralForCausalLM(MistralConfig(**_ENDS, **config))


def _qwen2(rng: np.random.Generator) -> tuple[dict[str, Any], Qwen2ForCausalLM]:
    config = _rotary(rng)
    return config, Qwen2ForCausalLM(Qwen2Config(**_ENDS, **config))


def _gpt_neox(rng: np.random.Generator) -> tuple[dict[str, Any], GPTNeoXForCausalLM]:
    layers, heads, d_head = _sizes(rng)
    config = {
        "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": heads * d_head,
        "intermediate_size": int(rng.choice([12, 40])), "max_position_embeddings": LONGEST,
        "use_parallel_residual": bool(rng.integers(2)), "hidden_act": str(rng.choice(["gelu", "relu"])),
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": float(rng.choice([0.5, 1.0])),
        },
    }  # fmt: skip
    return config, GPTNeoXForCausalLM(GPTNeoXConfig(**_ENDS, **config))


def _opt(rng: np.random.Generator) -> tuple[dict[str, Any], OPTForCausalLM]:
    layers, heads, d_head = _sizes(rng)
    width = heads * d_head
    config = {
        "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": width, "word_embed_proj_dim": width,
        "ffn_dim": int(rng.choice([12, 40])), "max_position_embeddings": LONGEST,
        "activation_function": str(rng.choice(["relu", "gelu"])),
    }  # fmt: skip
    return config, OPTForCausalLM(OPTConfig(pad_token_id=1, **_ENDS, **config))


_BUILDERS = {
    "gpt2": _gpt2, "llama": _llama, "mistral": _mistral, "qwen2": _qwen2, "gpt_neox": _gpt_neox, "opt": _opt,
}  # fmt: skip
