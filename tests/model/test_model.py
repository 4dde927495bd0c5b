"""The hooked model against Hugging Face, against NumPy, and against itself."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from interp import run
from interp.errors import InterpError
from interp.model import HookedTransformer, live_sites, resolve_device
from interp.model.load import held_identities
from interp.model.source import weights_sha256
from tests.conftest import REPOSITORY
from tests.tiny import VOCAB, make_gpt2, make_llama, make_opt, random_ids
from tests.tiny_tokenizers import pieces
from tests.tolerance import allowed, close

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture
def reference(name: str, request: pytest.FixtureRequest) -> Any:
    """The same weights in plain Hugging Face, in another object (the bridge wraps a model in place)."""
    return AutoModelForCausalLM.from_pretrained(request.getfixturevalue(f"{name}_directory")).eval()


def log_probabilities(logits: torch.Tensor) -> np.ndarray:
    """Centring the unembedding shifts all logits of a position alike; probabilities are what must agree."""
    return logits.log_softmax(-1).numpy()


@BOTH
def test_log_probabilities_equal_hugging_face(model: HookedTransformer, reference: Any) -> None:
    ids = torch.from_numpy(random_ids(4, 13))
    with torch.no_grad():
        expected = reference(ids).logits
    close(log_probabilities(model.forward(ids)), log_probabilities(expected))


def test_raw_numerics_equal_hugging_face_logits(llama_directory: Path, gpt2_directory: Path) -> None:
    ids = torch.from_numpy(random_ids(2, 9))
    for directory in (gpt2_directory, llama_directory):
        raw = HookedTransformer.from_pretrained(directory, numerics="raw")
        assert raw.numerics == "raw"
        with torch.no_grad():
            expected = AutoModelForCausalLM.from_pretrained(directory)(ids).logits
        close(raw.forward(ids), expected)


@pytest.mark.slow
def test_parity_at_the_shape_of_gpt2_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    assert (hf.config.n_layer, hf.config.n_head, hf.config.n_embd, hf.config.vocab_size) == (12, 12, 768, 50257)
    hf.save_pretrained(tmp_path)
    ids = torch.randint(0, 50257, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = hf(ids).logits
    got = HookedTransformer.from_pretrained(tmp_path).forward(ids)
    close(log_probabilities(got), log_probabilities(expected))


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def rotate(x: np.ndarray, *, base: float = 10000.0) -> np.ndarray:
    """Rotary positions of the Llama family, from the formula: pairs (i, i + d/2) turn by position / base^(2i/d)."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] / base ** (np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@BOTH
def test_attention_rederived_in_numpy_from_captured_q_k_v(model: HookedTransformer) -> None:
    acts = run.capture(model, random_ids(3, 11), ["q", "k", "v", "scores", "pattern", "z"])
    q, k, v = (acts[name].values.astype(np.float64) for name in ("q", "k", "v"))
    repeat = model.cfg.n_heads // model.cfg.n_kv_heads
    for layer in range(model.cfg.n_layers):
        queries, keys, values = q[:, layer], k[:, layer], v[:, layer]
        if model.has_site("rot_q"):
            queries, keys = rotate(queries), rotate(keys)
        keys, values = keys.repeat(repeat, axis=2), values.repeat(repeat, axis=2)
        scores = np.einsum("pihd,pjhd->phij", queries, keys) / np.sqrt(model.cfg.d_head)
        future = np.triu(np.ones(scores.shape[-2:], dtype=bool), k=1)
        visible = np.broadcast_to(~future, scores.shape)
        close(acts["scores"].values[:, layer][visible], scores[visible], "product")
        weights = softmax(np.where(future, -np.inf, scores))
        close(acts["pattern"].values[:, layer], weights, "product", size=scores[visible])
        z = np.einsum("phij,pjhd->pihd", weights, values)
        close(acts["z"].values[:, layer], z, "product", size=v[:, layer])


@BOTH
def test_patterns_sum_to_one_and_are_causal(model: HookedTransformer) -> None:
    pattern = run.capture(model, random_ids(3, 11), "pattern").pattern
    assert pattern.dims == ("prompt", "layer", "head", "dest_position", "src_position")
    assert float(pattern.min()) >= 0
    assert float(pattern.max()) <= 1
    close(pattern.sum("src_position"), 1, "product")
    future = pattern.where(pattern.src_position > pattern.dest_position, 0)
    assert float(abs(future).max()) == 0


@BOTH
def test_residual_identities(model: HookedTransformer) -> None:
    names = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "result", "embed"]
    acts = run.capture(model, random_ids(3, 11), names)
    close(acts.resid_pre + acts.attn_out, acts.resid_mid, "arithmetic")
    close(acts.resid_mid + acts.mlp_out, acts.resid_post, "arithmetic")
    close(acts.resid_post[:, :-1], acts.resid_pre[:, 1:], "arithmetic")
    bias = np.stack([model.b_O(layer).numpy() for layer in range(model.cfg.n_layers)])
    close(acts.result.sum("head") + bias[:, None, :], acts.attn_out, "product", size=acts.result)
    start = acts.embed.values
    if model.has_site("pos_embed"):
        start = start + run.capture(model, random_ids(3, 11), "pos_embed").pos_embed.values
    close(start, acts.resid_pre[:, 0], "arithmetic")


@BOTH
def test_keys_and_values_say_kv_head_only_when_grouped(model: HookedTransformer) -> None:
    acts = run.capture(model, random_ids(1, 5), ["q", "k", "v", "z"])
    expected = "kv_head" if model.cfg.grouped_query else "head"
    assert acts.k.dims == acts.v.dims == ("prompt", "layer", "position", expected, "d_head")
    assert acts.q.dims == acts.z.dims == ("prompt", "layer", "position", "head", "d_head")
    assert acts.sizes[expected] == model.cfg.n_kv_heads


@BOTH
def test_resuming_at_any_block_equals_the_forward_pass(model: HookedTransformer) -> None:
    ids = torch.from_numpy(random_ids(3, 9))
    at = torch.tensor([8, 4, 0])
    expected = model.forward(ids)[torch.arange(3), at]
    streams = run.activations(model, run.as_prompts(model, ids.numpy()), "resid_pre")
    for layer, stream in streams.items():
        close(model.resume(stream, layer, logits_at=at), expected)


@BOTH
def test_the_model_is_untouched_after_an_exception_in_a_hook(model: HookedTransformer) -> None:
    ids = torch.from_numpy(random_ids(2, 7))
    before = model.forward(ids)

    def fail(_: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.forward(ids, hooks=[("blocks.1.attn.hook_z", fail)])
    with pytest.raises(ZeroDivisionError):
        model.resume(torch.zeros(1, 7, 32), 0, logits_at=torch.tensor([6]), hooks=[("blocks.1.attn.hook_z", fail)])
    assert torch.equal(model.forward(ids), before)


def test_self_check_reports_every_identity(gpt2: HookedTransformer) -> None:
    assert set(gpt2.checks) == {"result_sum", "pattern_sum", "padding", "resume", "blocks", "hugging_face"}
    assert max(gpt2.checks.values()) < allowed("pass", size=1)


def test_self_check_refuses_heads_that_do_not_sum_to_attn_out(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gpt2.W_O
    monkeypatch.setattr(gpt2, "W_O", lambda layer: right(layer).flip(0))
    with pytest.raises(InterpError, match=r"result_sum.*head results plus bias equal the output of W_O"):
        held_identities(gpt2, gpt2.sites)


def test_self_check_refuses_logits_that_are_not_finite(tmp_path: Path) -> None:
    make_gpt2(tmp_path)
    hf = GPT2LMHeadModel.from_pretrained(tmp_path)
    hf.transformer.h[1].mlp.c_fc.bias.data[0] = torch.inf
    hf.save_pretrained(tmp_path)
    with pytest.raises(InterpError, match="not finite"):
        HookedTransformer.from_pretrained(tmp_path)


def test_a_setting_that_the_bridge_does_not_know_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bridge divides scores by sqrt(d_head) whatever ``scale_attn_weights`` says; Hugging Face does not."""
    make_gpt2(tmp_path, scale_attn_weights=False)
    with pytest.raises(InterpError, match=r"differs from Hugging Face's own GPT2LMHeadModel by 0\.0\d+ of the largest"):
        HookedTransformer.from_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="interp.model.load"):
        half = HookedTransformer.from_pretrained(tmp_path, dtype="float16")
    assert half.checks["hugging_face"] > 0.02
    assert any("differs from Hugging Face's own" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("make", [make_gpt2, make_llama, make_opt])
def test_every_model_is_held_to_hugging_face(
    make: Callable[..., Path], dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    after = "product" if dtype == "float32" else "arithmetic"  # sums of half precision are kept in float32
    with caplog.at_level(logging.WARNING, logger="interp.model.load"):
        model = HookedTransformer.from_pretrained(make(tmp_path), dtype=dtype)
    assert 0 < model.checks["hugging_face"] < allowed(after, size=1, dtype=dtype)
    assert not any("differs from Hugging Face" in record.getMessage() for record in caplog.records)


def test_a_hook_that_gives_another_tensor_is_no_site(tmp_path: Path) -> None:
    """Of an OPT the bridge fires ``hook_attn_scores`` with the pattern."""
    model = HookedTransformer.from_pretrained(make_opt(tmp_path))
    assert "pattern" in model.sites
    assert "scores" not in model.sites
    with pytest.raises(
        InterpError, match=r"'scores' does not exist .* of which the pattern is not the softmax\. It has"
    ):
        run.capture(model, random_ids(1, 5), "scores")


def test_fingerprint_follows_the_weights_and_nothing_else(tmp_path: Path) -> None:
    first, second = make_gpt2(tmp_path / "a"), make_gpt2(tmp_path / "b")
    a, b = (GPT2LMHeadModel.from_pretrained(path) for path in (first, second))
    assert weights_sha256(a) == weights_sha256(b)
    b.transformer.h[0].ln_1.bias.data[3] += 1e-6
    assert weights_sha256(a) != weights_sha256(b)
    loaded = HookedTransformer.from_pretrained(first)
    assert loaded.weights_sha256 == weights_sha256(a)
    assert loaded.provenance()["weights_sha256"] == loaded.weights_sha256


def test_from_bridge_keeps_the_numbers_of_the_bridge(gpt2_directory: Path) -> None:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf = GPT2LMHeadModel.from_pretrained(gpt2_directory, attn_implementation="eager").eval()
    ids = torch.from_numpy(random_ids(2, 6))
    with torch.no_grad():
        expected = hf(ids, use_cache=False).logits.numpy()
    bridge = build_bridge_from_module(hf, "GPT2LMHeadModel", hf_config=hf.config)
    wrapped = HookedTransformer.from_bridge(bridge, name="mine")
    assert (wrapped.name, wrapped.numerics, wrapped.bos_policy) == ("mine", "raw", "none")
    close(wrapped.forward(ids), expected)
    with pytest.raises(InterpError, match="TransformerBridge"):
        HookedTransformer.from_bridge(torch.nn.Linear(2, 2))


# ---- bad input ----


def test_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=r"is not a model directory: it has no config\.json"):
        HookedTransformer.from_pretrained(tmp_path)


def test_directory_without_weights(tmp_path: Path, gpt2_directory: Path) -> None:
    shutil.copy(gpt2_directory / "config.json", tmp_path)
    with pytest.raises(InterpError, match="has no weights"):
        HookedTransformer.from_pretrained(tmp_path)


def test_pickled_checkpoints_are_refused_without_being_read(tmp_path: Path, gpt2_directory: Path) -> None:
    shutil.copy(gpt2_directory / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(InterpError, match=r"pickled checkpoint \(pytorch_model\.bin\), which can run code"):
        HookedTransformer.from_pretrained(tmp_path)


@pytest.mark.parametrize("keep", [0.5, 0.999, 0.0005])
def test_truncated_safetensors(tmp_path: Path, gpt2_directory: Path, keep: float) -> None:
    shutil.copytree(gpt2_directory, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InterpError, match="truncated or not a safetensors file"):
        HookedTransformer.from_pretrained(tmp_path)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GIF89a")
    with pytest.raises(InterpError, match="not a GGUF file"):
        HookedTransformer.from_pretrained(tmp_path / "a.gguf")


def test_a_missing_path_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(InterpError, match="no such file or directory"):
        HookedTransformer.from_pretrained("./no/such/model")


def test_a_hub_name_that_cannot_be_had_offers_a_way_out() -> None:
    with pytest.raises(
        InterpError, match=r"'no-such-model'.*could not be fetched.*use 'mini' or a local directory"
    ) as e:
        HookedTransformer.from_pretrained("no-such-model")
    assert "\n" not in str(e.value)


@pytest.mark.slow
def test_a_hub_name_is_read_through_the_hub_cache(
    gpt2_directory: Path, gpt2: HookedTransformer, tmp_path: Path, python: Callable[..., Any]
) -> None:
    """The hub itself is out of reach of tests; its cache, as a download leaves it, is not."""
    revision = "0" * 40
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(gpt2_directory, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    pieces("a", "b").save_pretrained(repository / "snapshots" / revision)
    code = (
        "from interp import HookedTransformer; m = HookedTransformer.from_pretrained('someone/tiny'); "
        "print(m.name, m.bos_policy, m.weights_sha256)"
    )
    done = python("-c", code, env={**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)})
    assert done.stdout.split() == ["someone/tiny", "prepend", gpt2.weights_sha256], done.stderr


def test_unknown_device_dtype_and_site(gpt2: HookedTransformer, llama: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="Unknown device 'tpu9'"):
        resolve_device("tpu9")
    with pytest.raises(InterpError, match="Unknown dtype 'float8'"):
        HookedTransformer.from_pretrained("mini", dtype="float8")
    with pytest.raises(InterpError, match=r"Unknown site 'patern'\. Did you mean 'pattern'\?"):
        gpt2.check_site("patern")
    with pytest.raises(InterpError, match=r"Site 'pos_embed' does not exist in .*LlamaForCausalLM"):
        llama.check_site("pos_embed")


def test_a_prompt_longer_than_the_context(gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="at most 24"):
        gpt2.forward(torch.zeros((1, 25), dtype=torch.long))
    with pytest.raises(InterpError, match=r"25 tokens.*at most 24"):
        run.capture(gpt2, random_ids(2, 25), "z")


def test_cuda_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        assert resolve_device("auto").type == "cuda"
        return
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(InterpError, match="no CUDA GPU"):
        resolve_device("cuda")


@pytest.mark.parametrize(("precision", "tolerance"), [("highest", 2e-4), ("high", 2e-2), ("medium", 5e-2)])
def test_rounded_products_are_warned_of_and_stated(
    precision: str, tolerance: float, gpt2_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TF32 makes a right model differ by 4e-4 on a GPU: it loads, and every result says what its products were."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        model = HookedTransformer.from_pretrained(gpt2_directory, device="cpu")
        assert live_sites.allowed(torch.float32) == tolerance
        assert live_sites.allowed(torch.float64) == 1e-9
        assert run.capture(model, [[1, 2]], "z").attrs["matmul_precision"] == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert (f"precision '{precision}'" in caplog.text) == (precision != "highest")


@pytest.mark.cuda
@BOTH
def test_a_gpu_gives_the_numbers_of_the_cpu(
    model: HookedTransformer, name: str, gpu: str, request: pytest.FixtureRequest
) -> None:
    on_gpu = HookedTransformer.from_pretrained(request.getfixturevalue(f"{name}_directory"), device=gpu)
    assert (model.device.type, on_gpu.device.type) == ("cpu", gpu)
    ids = random_ids(4, 11)
    names = [site for site in model.sites if site != "scores"]  # -inf above the diagonal
    here, there = run.capture(model, ids, names), run.capture(on_gpu, ids, names)
    for site in names:
        close(there[site].values, here[site].values, what=site)
    close(on_gpu.forward(torch.from_numpy(ids)), model.forward(torch.from_numpy(ids)))
    close(there.pattern.sum("src_position"), 1, "product")
    assert VOCAB == on_gpu.cfg.vocab
