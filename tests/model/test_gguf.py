"""GGUF files: a tiny one written here (its numbers known from the Llama it was made of), and SmolLM2 from PyPI."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp import run
from interp.errors import InterpError
from interp.model import HookedTransformer, checkpoint
from tests.tiny import VOCAB, random_ids
from tests.tolerance import close, near


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Llama.cpp stores the two halves of each rotary head interleaved."""
    return weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


Tensors = dict[str, np.ndarray]


def write_gguf(
    path: Path, directory: Path, *, change: Callable[[Tensors], Tensors] = dict, n_layers: int | None = None
) -> Path:
    """The Llama saved in ``directory`` as a float32 GGUF file with a byte-level tokenizer.

    ``change`` may spoil its tensors, and ``n_layers`` what it says of their number.
    """
    hf = AutoModelForCausalLM.from_pretrained(directory)
    c, state = hf.config, {name: value.numpy() for name, value in hf.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers if n_layers is None else n_layers)
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
    tensors: Tensors = {}
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
            tensors[f"{there}{new}.weight"] = permuted(weight, heads) if heads else weight
    tensors["token_embd.weight"] = state["model.embed_tokens.weight"]
    tensors["output_norm.weight"] = state["model.norm.weight"]
    tensors["output.weight"] = state["lm_head.weight"]
    for name, tensor in change(tensors).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if not any(part in k for part in parts)}


@pytest.fixture(scope="module")
def tiny_file(llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama_directory)


def test_a_gguf_file_gives_the_numbers_of_the_model_it_was_made_of(tiny_file: Path, llama: HookedTransformer) -> None:
    loaded = HookedTransformer.from_pretrained(tiny_file)
    assert (loaded.cfg.n_heads, loaded.cfg.n_kv_heads, loaded.name) == (4, 2, "tiny.gguf")
    assert loaded.tokenizer is not None
    ids = torch.tensor(random_ids(3, 9))
    close(loaded.forward(ids).log_softmax(-1), llama.forward(ids).log_softmax(-1))


def test_the_header_of_a_gguf_file_is_parsed_once(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path: Any, *rest: Any) -> None:
            parsed.append(path)
            super().__init__(path, *rest)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    HookedTransformer.from_pretrained(tiny_file)
    assert parsed == [tiny_file]
    assert gguf.GGUFReader is Counted


def test_a_truncated_gguf_file_is_one_line(tiny_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_file.read_bytes()[:3000])
    with pytest.raises(InterpError, match=r"broken\.gguf is truncated or damaged") as caught:
        HookedTransformer.from_pretrained(broken)
    assert "\n" not in str(caught.value)


LACKING: dict[str, tuple[dict[str, Any], str]] = {
    "a layer": ({"change": without("blk.1.")}, r"9 missing \(model\.layers\.1\.input_layernorm\.weight, "),
    "one weight": ({"change": without("blk.2.ffn_up")}, r"1 missing \(model\.layers\.2\.mlp\.up_proj\.weight\)"),
    "the embedding": ({"change": without("token_embd")}, r"1 missing \(model\.embed_tokens\.weight\)"),
    "the last norm": ({"change": without("output_norm")}, r"1 missing \(model\.norm\.weight\)"),
    "every name that is known": (
        {"change": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()}},
        r"30 missing \(lm_head\.weight, .* begins with 'module\.': take that away",
    ),
    "a layer of those that it states": ({"n_layers": 4}, r"9 missing \(model\.layers\.3\."),
    "a layer in what it states": ({"n_layers": 2}, r"blocks beyond its last: blk\.2\.attn_k\.weight, .* and 6 more"),
    "a place for biases": (
        {"change": lambda tensors: tensors | {"blk.0.attn_q.bias": np.ones(32, np.float32)}},
        r"tiny\.gguf holds \d+ numbers, the LlamaForCausalLM made of it has \d+",
    ),
    "a shape": (
        {"change": lambda tensors: tensors | {"output_norm.weight": np.ones(31, np.float32)}},
        r"1 of another shape \(model\.norm\.weight \(31,\) instead of \(32,\)\)",
    ),
    "layers within reason": ({"n_layers": 10**6}, r"states llama\.block_count = 1000000, its weights are 30 tensors"),
    "rotary factors that are read": (
        {"change": lambda tensors: tensors | {"rope_freqs.weight": np.full(4, 8, np.float32)}},
        r"scales its rotary frequencies \(rope_freqs\.weight\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lack", LACKING)
def test_a_gguf_file_that_lacks_something_is_refused(lack: str, llama_directory: Path, tmp_path: Path) -> None:
    damage, says = LACKING[lack]
    with pytest.raises(InterpError, match=says) as caught:
        HookedTransformer.from_pretrained(write_gguf(tmp_path / "tiny.gguf", llama_directory, **damage))
    assert "\n" not in str(caught.value)


def test_rotary_factors_of_one_change_nothing(llama_directory: Path, tiny_file: Path, tmp_path: Path) -> None:
    file = write_gguf(
        tmp_path / "tiny.gguf",
        llama_directory,
        change=lambda tensors: tensors | {"rope_freqs.weight": np.ones(4, np.float32)},
    )
    weights = [HookedTransformer.from_pretrained(each).weights_sha256 for each in (file, tiny_file)]
    assert weights[0] == weights[1]


def test_every_cut_of_a_gguf_file_is_one_line(tiny_file: Path, tmp_path: Path) -> None:
    data = tiny_file.read_bytes()
    broken = tmp_path / "broken.gguf"
    for size in (0, 3, 4, 10, 20, 24, 100, 500, 1500, len(data) // 2, len(data) - 1):
        broken.write_bytes(data[:size])
        with pytest.raises(InterpError) as caught:
            checkpoint.of_gguf(broken)
        assert "broken.gguf is " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_flipped_bits_of_a_gguf_header_are_one_line_or_harmless(tiny_file: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_file.read_bytes())
    broken = tmp_path / "broken.gguf"
    generator = np.random.default_rng(0)
    refused = 0
    for at in [*range(4, 24), *generator.integers(24, 4000, 60)]:
        flipped = data.copy()
        flipped[at] ^= 1 << int(generator.integers(8))
        broken.write_bytes(flipped)
        said = ""
        try:
            checkpoint.of_gguf(broken)
        except InterpError as error:
            said = str(error)
            refused += 1
        assert "\n" not in said
    assert refused > 20


def test_an_adapter_beside_a_gguf_file_is_noticed(tiny_file: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(tiny_file, tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InterpError, match=r"An adapter \(adapter_config\.json\) lies beside .*tiny\.gguf"):
        HookedTransformer.from_pretrained(file)


# ---- SmolLM2-135M (Apache-2.0), fetched from the package index and never bundled ----


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
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
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
