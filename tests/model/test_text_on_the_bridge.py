"""What is written for TransformerLens works on ``model.bridge``, on text too, with the tokens that interp reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp.model import HookedTransformer
from interp.prompts.tokens import encode
from tests.model.test_gguf import write_gguf
from tests.tiny_tokenizers import pieces
from tests.tolerance import close

WORDS = ("a", "b", " a", " b")


def with_tokenizer(original: Path, place: Path, *, adds_bos: bool) -> Path:
    copy = Path(shutil.copytree(original, place / "model"))
    pieces(*WORDS, adds_bos=adds_bos).save_pretrained(copy)
    return copy


MAKES: dict[str, Callable[[pytest.FixtureRequest, Path], tuple[str | Path, tuple[str, str]]]] = {
    "mini": lambda of, place: ("mini", ("The cat is black. The", "El gato es")),
    "gpt2": lambda of, place: (
        with_tokenizer(of.getfixturevalue("gpt2_directory"), place, adds_bos=False), ("a b a", "b b a b a")
    ),
    "llama, whose tokenizer adds the BOS": lambda of, place: (
        with_tokenizer(of.getfixturevalue("llama_directory"), place, adds_bos=True), ("a b a", "b b a b a")
    ),
    "gguf": lambda of, place: (
        write_gguf(place / "tiny.gguf", of.getfixturevalue("llama_directory")), ("ab a", "cd a b")
    ),
}  # fmt: skip


@pytest.mark.parametrize("bos", ["prepend", "none"])
@pytest.mark.parametrize("kind", MAKES)
def test_texts_are_the_same_tokens_and_give_the_same_numbers(
    kind: str, bos: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source, texts = MAKES[kind](request, tmp_path)
    model = HookedTransformer.from_pretrained(source, bos=bos, device="cpu")
    bridge = model.bridge
    for text in texts:
        ids = torch.tensor(encode(model, text).ids)
        assert bridge.to_tokens(text).tolist() == ids.tolist()
        assert len(bridge.to_str_tokens(text)) == ids.shape[1]
        logits, cache = bridge.run_with_cache(text)
        close(logits, model.forward(ids))
        assert cache["blocks.0.hook_resid_pre"].shape == (1, ids.shape[1], model.cfg.d_model)
        hooked = bridge.run_with_hooks(text, fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: torch.zeros_like(z))])
        assert not torch.equal(hooked, logits)
        written = bridge.generate(text, max_new_tokens=2, do_sample=False, stop_at_eos=False, verbose=False)
        assert written.replace("<s>", "").startswith(text[:2])
    lengths = encode(model, list(texts)).lengths
    both = bridge(list(texts))  # shorter texts are padded on the right
    for i, text in enumerate(texts):
        close(both[i, : lengths[i]], model.forward(torch.tensor(encode(model, text).ids))[0])
