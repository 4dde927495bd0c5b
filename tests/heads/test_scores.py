"""A score's parts sum to the model's own score, and each part is what plain NumPy makes of Hugging Face's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import boot_native
from transformers import GPT2LMHeadModel, LlamaForCausalLM, Olmo2ForCausalLM

from interp import HookedTransformer, InterpError, heads
from interp.errors import UnaskableError
from interp.heads.choice import mean_attention
from interp.run import capture
from tests.families import FAMILIES
from tests.tiny import make_mistral, make_qwen2, ragged_pairs, scattered_pairs
from tests.tolerance import close

LAYER, HEAD = 2, 3
BOTH = ["query_writer", "key_writer"]


def attention_only(path: Path, **sizes: object) -> HookedTransformer:
    del path
    bridge = boot_native({
        "n_layers": 3, "d_model": 32, "n_ctx": 24, "d_head": 8, "n_heads": 4, "d_vocab": 60, "attn_only": True,
        "act_fn": "relu", "normalization_type": "LN", **sizes,
    })  # fmt: skip
    generator = torch.Generator().manual_seed(9)
    for name, weight in bridge.original_model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = 1 + 0.3 * noise if "ln" in name and name.endswith("weight") else 0.25 * noise
    return HookedTransformer.from_bridge(bridge, name="attention only")


def capped(path: Path) -> HookedTransformer:
    return attention_only(path, attn_scores_soft_cap=2.0)


def loaded(make: Callable[[Path], Path]) -> Callable[[Path], HookedTransformer]:
    return lambda path: HookedTransformer.from_pretrained(make(path))


MODELS: dict[str, Callable[[Path], HookedTransformer]] = {
    "mistral": loaded(make_mistral),
    "qwen2": loaded(make_qwen2),
    "attention only": attention_only,
    "capped": capped,
    "qwen3 (norm of q and k)": loaded(FAMILIES["qwen3"].build),
    "bloom (bias by distance)": loaded(FAMILIES["bloom"].build),
    "gemma2": loaded(FAMILIES["gemma2"].build),  # norms behind attention and MLP, and a cap
    "granite": loaded(FAMILIES["granite"].build),  # multiplies what it adds
    "gptj": loaded(FAMILIES["gptj"].build),  # turns its queries unseen, and shows no scores
}
SLOW = (
    "gpt1", "opt post-norm",  # normalise the stream after each addition
    "olmo2", "olmo3", "exaone4",  # have no norm before attention
    "gemma3", "glm4", "granite moe", "neox", "neox sequential", "phi3", "falcon", "codegen",
)  # fmt: skip
MODELS |= {name: loaded(FAMILIES[name].build) for name in SLOW}
QUICK = [name for name in MODELS if name not in SLOW]


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", *QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_the_parts_sum_to_the_models_own_score(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = MODELS[name](tmp_path) if name in MODELS else request.getfixturevalue(name)
    pairs = ragged_pairs()
    found = heads.score_attribution(model, pairs, head=(LAYER, HEAD), dest="noun", src="color")
    fixed = found["fixed"] if "fixed" in found else 0.0
    assert ("fixed" in found) == name.startswith("bloom")
    size = float(abs(found["score"]).max())
    dest, src = (pairs.clean.role_positions(role) for role in ("noun", "color"))
    for run, prompts in (("", pairs.clean), ("corrupted_", pairs.corrupted)):
        terms = found["term"] - (found["term_change"] if run else 0)
        made = (terms.sum(BOTH) + fixed).values
        own = capture(model, prompts, ["pattern"], layers=[LAYER])["pattern"].values[:, 0, HEAD]
        rows = np.arange(len(pairs))
        close(found[f"{run}weight"], own[rows, dest, src])
        close(made, found[f"{run}score"], size=size)
        if model.has_site("scores"):
            scores = capture(model, prompts, ["scores"], layers=[LAYER])["scores"].values[:, 0, HEAD]
            shown = 2.0 * np.tanh(made / 2.0) if name == "gemma2" else made  # its own scores are shown capped
            close(shown, scores[rows, dest, src], size=size)
            assert found.attrs["largest_error"] < 1e-5
    assert found.attrs["cap"] == (2.0 if name in ("capped", "gemma2") else 0.0)
    close(found["query_part"], found["term"].sum("key_writer"), size=size)
    close(found["key_part"], found["term"].sum("query_writer"), size=size)
    close(found["key_part_change"].sum("key_writer"), found["term_change"].sum(BOTH), size=size)


def test_in_float64_they_sum_to_its_last_digits(llama_directory: Path) -> None:
    model = HookedTransformer.from_pretrained(llama_directory, dtype="float64")
    found = heads.score_attribution(model, scattered_pairs(), head=(LAYER, HEAD), dest="noun", src="color")
    assert found["term"].dtype == np.float64
    close(found["term"].sum(BOTH), found["score"], dtype="float64", size=float(abs(found["term"]).max()))


def test_each_part_is_what_numpy_makes_of_the_weights(gpt2_directory: Path) -> None:
    """GPT-2, layer 1: everything that writes before it, from the plain model's weights and hooks, in float64."""
    path, pairs = gpt2_directory, scattered_pairs()
    plain = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager").double().eval()
    seen: dict[str, np.ndarray] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        seen[name] = value.detach().numpy()

    block, later = plain.transformer.h[0], plain.transformer.h[1]
    block.attn.c_proj.register_forward_pre_hook(lambda module, given: keep("z", given[0]))
    block.mlp.register_forward_hook(lambda module, given, out: keep("mlp", out))
    later.ln_1.register_forward_pre_hook(lambda module, given: keep("stream", given[0]))
    ids = torch.from_numpy(np.array(pairs.clean.ids))
    with torch.no_grad():
        plain(ids)
    weights = {name: value.detach().numpy() for name, value in plain.named_parameters()}
    dest, src = 6, 4
    parts = {"embed": weights["transformer.wte.weight"][pairs.clean.ids], "pos_embed": None}
    parts["pos_embed"] = np.broadcast_to(weights["transformer.wpe.weight"][:8], parts["embed"].shape)
    w_o = weights["transformer.h.0.attn.c_proj.weight"].reshape(4, 8, 32)
    z = seen["z"].reshape(4, 8, 4, 8)
    parts |= {f"L0H{h}": z[:, :, h] @ w_o[h] for h in range(4)}
    parts["MLP0"] = seen["mlp"]
    parts["b_O"] = np.broadcast_to(weights["transformer.h.0.attn.c_proj.bias"], parts["embed"].shape)
    stream = seen["stream"]
    close(sum(parts.values()), stream, dtype="float64")
    scale = np.sqrt(stream.var(-1, keepdims=True) + later.ln_1.eps)
    gamma, beta = later.ln_1.weight.detach().numpy(), later.ln_1.bias.detach().numpy()
    columns = weights["transformer.h.1.attn.c_attn.weight"].reshape(32, 3, 4, 8)
    biases = weights["transformer.h.1.attn.c_attn.bias"].reshape(3, 4, 8)

    def side(which: int, at: int) -> np.ndarray:
        read = [(gamma * (x - x.mean(-1, keepdims=True)) / scale)[:, at] for x in parts.values()]
        own = [np.broadcast_to(x, read[0].shape) @ columns[:, which, 2] for x in (*read, beta)]
        return np.stack([*own, np.broadcast_to(biases[which, 2], own[0].shape)], axis=1)

    expected = np.einsum("pqx,pkx->pqk", side(0, dest), side(1, src)) / np.sqrt(8)
    model = HookedTransformer.from_pretrained(path, dtype="float64", numerics="raw")
    found = heads.score_attribution(model, pairs.clean, head=(1, 2), dest=dest, src=src)
    assert found["query_writer"].values.tolist() == [*parts, "norm bias", "b_Q"]
    assert found["key_writer"].values.tolist() == [*parts, "norm bias", "b_K"]
    close(found["term"], expected, dtype="float64")
    close(found["term"].sum(BOTH), found["score"], dtype="float64", size=float(np.abs(expected).max()))


def test_rotary_parts_are_turned_as_hugging_face_turns_them(llama: HookedTransformer, llama_directory: Path) -> None:
    """The first layer of a Llama reads the embedding alone: its score is one term."""
    pairs = scattered_pairs()
    plain = LlamaForCausalLM.from_pretrained(llama_directory).double().eval()
    weights = {name: value.detach().numpy() for name, value in plain.named_parameters()}
    x = weights["model.embed_tokens.weight"][pairs.clean.ids]
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + plain.config.rms_norm_eps)
    x = x * weights["model.layers.0.input_layernorm.weight"]
    q = x @ weights["model.layers.0.self_attn.q_proj.weight"][24:32].T
    k = x @ weights["model.layers.0.self_attn.k_proj.weight"][8:16].T

    def turned(vectors: np.ndarray, at: int) -> np.ndarray:
        angles = at * 10000.0 ** (-np.arange(4) / 4)
        left, right = vectors[:, at, :4], vectors[:, at, 4:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=1)

    expected = (turned(q, 6) * turned(k, 4)).sum(-1) / np.sqrt(8)
    found = heads.score_attribution(llama, pairs, head=(0, 3), dest=6, src=4)
    assert found["term"].shape[1:] == (1, 1)
    close(found["term"][:, 0, 0], expected)


def test_a_part_that_went_through_a_norm_is_what_numpy_makes_of_the_weights(tmp_path: Path) -> None:
    """OLMo 2, layer 1, which reads the stream itself: what L0H1 wrote, through the norm behind attention."""
    path, pairs, heads_, width = FAMILIES["olmo2"].build(tmp_path / "olmo2"), scattered_pairs(), 4, 8
    plain = Olmo2ForCausalLM.from_pretrained(path, attn_implementation="eager").double().eval()
    seen: dict[str, np.ndarray] = {}
    block, later = plain.model.layers[0], plain.model.layers[1].self_attn

    def keep(name: str) -> Callable[[object, tuple[torch.Tensor, ...]], None]:
        return lambda _, given: seen.__setitem__(name, given[0].detach().numpy())

    block.self_attn.o_proj.register_forward_pre_hook(keep("z"))
    block.post_attention_layernorm.register_forward_pre_hook(keep("attention"))
    later.q_norm.register_forward_pre_hook(keep("q"))
    later.k_norm.register_forward_pre_hook(keep("k"))
    with torch.no_grad():
        plain(torch.from_numpy(np.array(pairs.clean.ids)))
    weights = {name: value.detach().numpy() for name, value in plain.named_parameters()}

    def rms(x: np.ndarray) -> np.ndarray:
        return np.sqrt((x**2).mean(-1, keepdims=True) + plain.config.rms_norm_eps)

    own = slice(width, 2 * width)
    wrote = seen["z"][..., own] @ weights["model.layers.0.self_attn.o_proj.weight"][:, own].T
    entered = weights["model.layers.0.post_attention_layernorm.weight"] * wrote / rms(seen["attention"])

    def part(kind: str, head: int, at: int) -> np.ndarray:
        columns = slice(head * width, (head + 1) * width)
        read = (entered @ weights[f"model.layers.1.self_attn.{kind}_proj.weight"].T)[:, at, columns]
        x = read * weights[f"model.layers.1.self_attn.{kind}_norm.weight"][columns] / rms(seen[kind])[:, at]
        angles = at * plain.config.rope_parameters["rope_theta"] ** (-np.arange(width // 2) / (width // 2))
        left, right = np.split(x, 2, axis=1)
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=1)

    expected = (part("q", 3, 6) * part("k", 1, 4)).sum(-1) / np.sqrt(width)
    model = HookedTransformer.from_pretrained(path)
    found = heads.score_attribution(model, pairs.clean, head=(1, heads_ - 1), dest=6, src=4)
    close(found["term"].sel(query_writer="L0H1", key_writer="L0H1"), expected)


def test_in_chunks_as_at_once(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, told = scattered_pairs(), []
    whole = heads.score_attribution(gpt2, pairs, head=(1, 0), dest="noun", src="color")
    monkeypatch.setattr("interp.heads.reading.PART_BYTES", 1)
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    parts = heads.score_attribution(gpt2, pairs, head=(1, 0), dest="noun", src="color", progress=progress)
    close(parts["term"], whole["term"])
    assert told == [(done, 8) for done in range(1, 9)]


def test_what_cannot_be_split_is_refused_in_one_line(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = scattered_pairs()
    with pytest.raises(InterpError, match=r"head must be \(layer, head\), such as \(1, 0\), not 'L1H0'"):
        heads.score_attribution(gpt2, pairs, head="L1H0", dest="noun", src="color")  # type: ignore[arg-type]
    with pytest.raises(InterpError, match=r"There is no head 4: .* has 4"):
        heads.score_attribution(gpt2, pairs, head=(1, 4), dest="noun", src="color")
    with pytest.raises(UnaskableError, match="attention is causal"):
        heads.score_attribution(gpt2, pairs, head=(1, 0), dest="color", src="noun")
    monkeypatch.setattr(gpt2, "b_O", lambda layer: torch.ones(32))
    with pytest.raises(
        InterpError, match="no sum of what its heads write, nor such a sum times a number or through a norm"
    ) as refused:
        heads.score_attribution(gpt2, pairs, head=(1, 0), dest="noun", src="color")
    assert "\n" not in str(refused.value)


def test_the_mean_attention_is_that_of_the_pattern(gpt2: HookedTransformer) -> None:
    pairs = ragged_pairs()
    dest, src = (pairs.clean.role_positions(role) for role in ("noun", "color"))
    pattern = capture(gpt2, pairs.clean, ["pattern"])["pattern"].values
    expected = pattern[np.arange(4), :, :, dest, src].mean(axis=0)
    close(mean_attention(gpt2, pairs, dest, src), expected)
