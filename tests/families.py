"""Tiny random models of every family that is tried: what to build, and which modules say what a site is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

VOCAB = 60


@dataclass(frozen=True)
class Family:
    """A family as Hugging Face builds it.

    Attributes:
        kind: the class of the model.
        sizes: its configuration.
        blocks: where its layers are.
        attn: modules of a layer whose output is ``attn_out``, the last to run first; the first that a layer has counts.
        mlp: the same for ``mlp_out``.
        o: modules of a layer whose input is ``z``.
        down: modules of a layer whose input is ``mlp_post``.
        act: modules of a layer whose input is ``mlp_pre``; some families have a function in their place.
        mid: modules of a layer whose input is ``resid_mid``.
        scale: what a block multiplies its outputs by before it adds them.
        refused: words of the one line that says why it cannot be used; empty where it can.
        raw: refused in compatibility numerics only.
    """

    kind: str
    sizes: dict[str, Any]
    blocks: str = "model.layers"
    attn: tuple[str, ...] = ("self_attn", "attn", "attention", "self_attention")
    mlp: tuple[str, ...] = ("mlp", "feed_forward", "block_sparse_moe")
    o: tuple[str, ...] = ("self_attn.o_proj", "self_attn.dense", "self_attn.out_proj")
    down: tuple[str, ...] = ("mlp.down_proj", "mlp.fc2", "mlp.c_proj", "fc2", "mlp.dense_4h_to_h", "mlp.fc_out")
    act: tuple[str, ...] = ("mlp.act_fn", "mlp.act", "mlp.activation_fn", "act_fn", "activation_fn", "mlp.activation")
    mid: tuple[str, ...] = ("post_attention_layernorm", "ln_2", "final_layer_norm")
    scale: float = 1.0
    refused: str = ""
    raw: bool = False

    def build(self, path: Path, **overrides: Any) -> Path:
        """Save a model of this family."""
        return save(self.kind, {**self.sizes, **overrides}, path)


def save(kind: str, sizes: dict[str, Any], path: Path) -> Path:
    """Save a model with weights that are large enough for attention not to be uniform; norms are random too."""
    import transformers

    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    model = cls(cls.config_class(**sizes))
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = 1 + 0.3 * noise if is_norm else 0.25 * noise
    model.eval().save_pretrained(path)
    return path


NOT_FOLDED = r"numerics \(.*With numerics='raw' it loads"
DIFFERS = r"differs from Hugging Face's own.*With numerics='raw' it loads"

_IDS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_SIZES = {
    **_IDS,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_HEAD = {"head_dim": 8}
_GPT = {**_IDS, "n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64}
_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

_POST = {"attn": ("post_attention_layernorm",), "mlp": ("post_feedforward_layernorm",)}
_SANDWICH = {**_POST, "mid": ("pre_feedforward_layernorm",)}
_AFTER = {**_POST, "mid": ("mlp",)}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel", _GPT, "transformer.h", o=("attn.c_proj",), mid=("ln_2",)
    ),
    "gpt2 scaled by layer": Family(
        "GPT2LMHeadModel",
        {**_GPT, "scale_attn_by_inverse_layer_idx": True},
        "transformer.h",
        o=("attn.c_proj",),
    ),
    "llama": Family("LlamaForCausalLM", _GROUPED),
    "llama biased": Family("LlamaForCausalLM", {**_GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama tied": Family(
        "LlamaForCausalLM",
        {
            **_GROUPED,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "llama yarn": Family(
        "LlamaForCausalLM",
        {
            **_GROUPED,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "neox": Family("GPTNeoXForCausalLM", _SIZES, "gpt_neox.layers", o=("attention.dense",), mid=()),
    "neox sequential": Family(
        "GPTNeoXForCausalLM", {**_SIZES, "use_parallel_residual": False}, "gpt_neox.layers", o=("attention.dense",)
    ),
    "opt": Family(
        "OPTForCausalLM",
        {**_IDS, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "word_embed_proj_dim": 32,
         "ffn_dim": 48, "max_position_embeddings": 64},
        "model.decoder.layers", mlp=("fc2",),
    ),
    "opt post-norm": Family(
        "OPTForCausalLM",
        {**_IDS, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "word_embed_proj_dim": 16,
         "ffn_dim": 48, "max_position_embeddings": 64, "do_layer_norm_before": False},
        "model.decoder.layers", mlp=("fc2",),
    ),
    "mistral": Family("MistralForCausalLM", {**_GROUPED, "sliding_window": None}),
    "mistral window": Family("MistralForCausalLM", {**_GROUPED, "sliding_window": 4}),
    "qwen2": Family("Qwen2ForCausalLM", _GROUPED),
    "qwen3": Family("Qwen3ForCausalLM", {**_GROUPED, **_HEAD}),
    "gemma": Family("GemmaForCausalLM", {**_GROUPED, **_HEAD}),
    "gemma2": Family(
        "Gemma2ForCausalLM", {**_GROUPED, **_HEAD, "query_pre_attn_scalar": 8, "sliding_window": 4,
         "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}, **_SANDWICH,
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM", {**_GROUPED, **_HEAD, "query_pre_attn_scalar": 8, "sliding_window": 4}, **_SANDWICH
    ),
    "olmo": Family("OlmoForCausalLM", _GROUPED),
    "olmo2": Family("Olmo2ForCausalLM", _GROUPED, **_AFTER),
    "olmo3": Family("Olmo3ForCausalLM", {**_GROUPED, "sliding_window": 4}, **_AFTER),
    "phi": Family("PhiForCausalLM", _GROUPED, mid=(), refused=NOT_FOLDED, raw=True),
    "phi3": Family("Phi3ForCausalLM", _GROUPED),
    "granite": Family(
        "GraniteForCausalLM",
        {**_GROUPED, "residual_multiplier": 0.22, "attention_multiplier": 0.3, "embedding_multiplier": 3.0,
         "logits_scaling": 4.0},
        scale=0.22,
    ),
    "granite moe": Family(
        "GraniteMoeForCausalLM",
        {**_GROUPED, "residual_multiplier": 0.22, "attention_multiplier": 0.3, "embedding_multiplier": 3.0,
         "logits_scaling": 4.0, "num_local_experts": 4, "num_experts_per_tok": 2},
        scale=0.22,
    ),
    "cohere": Family("CohereForCausalLM", {**_GROUPED, "logit_scale": 0.25}, mid=()),
    "cohere2": Family("Cohere2ForCausalLM", {**_GROUPED, "logit_scale": 0.25, "sliding_window": 4}, mid=()),
    "falcon": Family(
        "FalconForCausalLM",
        {**_IDS, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "multi_query": True,
         "parallel_attn": True, "bias": False, "max_position_embeddings": 64},
        "transformer.h", o=("self_attention.dense",), mid=(),
    ),
    "falcon new": Family(
        "FalconForCausalLM",
        {**_IDS, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "num_kv_heads": 2,
         "new_decoder_architecture": True, "max_position_embeddings": 64},
        "transformer.h", o=("self_attention.dense",), mid=(),
        refused=r"FalconForCausalLM, which this TransformerLens does not bridge \(RuntimeError.*raw' either"),
    "falcon alibi": Family(
        "FalconForCausalLM",
        {**_IDS, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "multi_query": False,
         "parallel_attn": False, "alibi": True, "new_decoder_architecture": False, "max_position_embeddings": 64},
        "transformer.h", o=("self_attention.dense",), mid=("post_attention_layernorm",),
    ),
    "bloom": Family(
        "BloomForCausalLM", {**_IDS, "n_layer": 3, "n_head": 4, "hidden_size": 32}, "transformer.h",
        attn=("self_attention.dense",), mlp=("mlp.dense_4h_to_h",), o=("self_attention.dense",),
    ),
    "mpt": Family(
        "MptForCausalLM", {**_IDS, "n_layers": 3, "n_heads": 4, "d_model": 32, "max_seq_len": 64}, "transformer.blocks",
        attn=("attn",), mlp=("ffn.down_proj",), o=("attn.out_proj",), down=("ffn.down_proj",), mid=("norm_2",),
    ),
    "gpt1": Family(
        "OpenAIGPTLMHeadModel", {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": VOCAB},
        "transformer.h", o=("attn.c_proj",), mid=(),
    ),
    "gptj": Family("GPTJForCausalLM", {**_GPT, "rotary_dim": 4}, "transformer.h", o=("attn.out_proj",), mid=()),
    "codegen": Family("CodeGenForCausalLM", {**_GPT, "rotary_dim": 4}, "transformer.h", o=("attn.out_proj",), mid=()),
    "gpt neo": Family(
        "GPTNeoForCausalLM",
        {**_IDS, "num_layers": 3, "num_heads": 4, "hidden_size": 32, "intermediate_size": 48,
         "attention_types": [[["global", "local", "global"], 1]], "window_size": 4, "max_position_embeddings": 64},
        "transformer.h", o=("attn.attention.out_proj",),
    ),
    "bigcode": Family("GPTBigCodeForCausalLM", _GPT, "transformer.h", o=("attn.c_proj",)),
    "smollm3": Family("SmolLM3ForCausalLM", _GROUPED),
    "stablelm": Family("StableLmForCausalLM", _GROUPED),
    "starcoder2": Family("Starcoder2ForCausalLM", _GROUPED),
    "nemotron": Family("NemotronForCausalLM", {**_GROUPED, **_HEAD}),
    "glm": Family("GlmForCausalLM", {**_GROUPED, **_HEAD}),
    "glm4": Family(
        "Glm4ForCausalLM", {**_GROUPED, **_HEAD}, attn=("post_self_attn_layernorm",), mlp=("post_mlp_layernorm",)
    ),
    "exaone4": Family("Exaone4ForCausalLM", {**_GROUPED, "sliding_window": 4}, **_AFTER),
    "arcee": Family("ArceeForCausalLM", _GROUPED),
    "apertus": Family("ApertusForCausalLM", _GROUPED, mid=("feedforward_layernorm",)),
    "ernie4_5": Family("Ernie4_5ForCausalLM", _GROUPED),
    "hunyuan": Family("HunYuanDenseV1ForCausalLM", {**_GROUPED, **_HEAD}),
    "seed-oss": Family("SeedOssForCausalLM", {**_GROUPED, **_HEAD}),
    "ministral3": Family("Ministral3ForCausalLM", {**_GROUPED, **_HEAD}),
    "nanochat": Family("NanoChatForCausalLM", _GROUPED),
    "vaultgemma": Family(
        "VaultGemmaForCausalLM", {**_GROUPED, **_HEAD, "query_pre_attn_scalar": 8, "sliding_window": 4},
        mid=("pre_feedforward_layernorm",), refused=r"does not support compatibility mode.*numerics='raw' either"),
    "bitnet": Family("BitNetForCausalLM", _GROUPED,
        refused=DIFFERS, raw=True),
    "xglm": Family(
        "XGLMForCausalLM",
        {**_IDS, "num_layers": 3, "attention_heads": 4, "d_model": 32, "ffn_dim": 48, "max_position_embeddings": 64},
        mlp=("fc2",),
    ),
    "jais2": Family("Jais2ForCausalLM", {**_GROUPED, **_HEAD}),
    "mixtral": Family("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2 moe": Family(
        "Qwen2MoeForCausalLM", {**_GROUPED, **_MOE, "num_experts": 4, "shared_expert_intermediate_size": 24}
    ),
    "qwen3 moe": Family("Qwen3MoeForCausalLM", {**_GROUPED, **_MOE, **_HEAD, "num_experts": 4}),
    "olmoe": Family("OlmoeForCausalLM", {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": Family("PhimoeForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        refused="PhimoeForCausalLM, which this TransformerLens does not bridge"),
    "gpt-oss": Family(
        "GptOssForCausalLM",
        {**_GROUPED, **_HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
        refused=DIFFERS, raw=True),
    "deepseek v2": Family(
        "DeepseekV2ForCausalLM",
        {**_SIZES, **_MLA, **_MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "deepseek v3": Family(
        "DeepseekV3ForCausalLM",
        {**_SIZES, **_MLA, **_MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "glm4 moe": Family(
        "Glm4MoeForCausalLM",
        {**_GROUPED, **_MOE, **_HEAD, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "llama4": Family(
        "Llama4ForCausalLM",
        {**_GROUPED, **_HEAD, "intermediate_size_mlp": 48, "num_local_experts": 4, "num_experts_per_tok": 1,
         "attention_chunk_size": 16},
        mlp=("feed_forward",),
    ),
    "lfm2": Family(
        "Lfm2ForCausalLM", {**_GROUPED, "layer_types": ["conv", "full_attention", "conv"]}, down=("feed_forward.w2",)
    ),
    "qwen3.5": Family(
        "Qwen3_5ForCausalLM",
        {**_GROUPED, **_HEAD, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
         "linear_value_head_dim": 8, "layer_types": ["linear_attention", "linear_attention", "full_attention"]},
    ),
    "qwen3 next": Family(
        "Qwen3NextForCausalLM",
        {**_GROUPED, **_HEAD, **_MOE, "num_experts": 4, "shared_expert_intermediate_size": 24,
         "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "layer_types": ["linear_attention", "linear_attention", "full_attention"]},
    ),
    "mamba": Family(
        "MambaForCausalLM", {**_IDS, "num_hidden_layers": 3, "hidden_size": 32, "state_size": 8, "time_step_rank": 4},
        "backbone.layers",
    ),
    "gemma4": Family(
        "Gemma4ForCausalLM",
        {**_GROUPED, **_HEAD, "sliding_window": 4, "global_head_dim": 8, "hidden_size_per_layer_input": 0,
         "vocab_size_per_layer_input": VOCAB},
        **_SANDWICH,
    ),
    "modernbert decoder": Family(
        "ModernBertDecoderForCausalLM", {**_SIZES, "cls_token_id": 0, "sep_token_id": 0, "local_attention": 4},
        o=("attn.Wo",), down=("mlp.Wo",), mid=("mlp_norm",),
    ),
    "phi3 long": Family(
        "Phi3ForCausalLM",
        {**_GROUPED, "original_max_position_embeddings": 8,
         "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
                             "long_factor": [2.0, 2.5, 3.0, 4.0], "original_max_position_embeddings": 8}},
    ),
    "llama dynamic": Family(
        "LlamaForCausalLM",
        {**_GROUPED, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
    ),
}  # fmt: skip
