"""The logit lens is the final norm and unembedding of the stream: by hand on plain Hugging Face models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from analyses import logit_lens
from interp import AnsweredPrompts, HookedTransformer, InterpError, PromptPairs, lenses
from interp.run import logits_at
from tests.tolerance import close, near

CLEAN = np.array([[5, 9, 13, 2, 7], [8, 9, 1, 2, 30], [4, 22, 6, 17, 3]])
CORRECT, INCORRECT = [11, 12, 40], [20, 21, 41]


@pytest.fixture
def pairs() -> PromptPairs:
    corrupted = CLEAN.copy()
    corrupted[:, 1] = 33
    roles = {"noun": 1, "asked": 3}
    return PromptPairs.from_tokens(CLEAN, corrupted, correct=CORRECT, incorrect=INCORRECT, roles=roles)


def streams(hf: Any) -> torch.Tensor:
    """[layer, prompt, position, d_model] of the stream after each block, by plain hooks."""
    found: list[torch.Tensor] = []
    blocks = hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers
    hooks = [
        block.register_forward_hook(lambda module, given, out: found.append(out[0] if isinstance(out, tuple) else out))
        for block in blocks
    ]
    with torch.no_grad():
        hf(torch.tensor(CLEAN))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_lens_is_that_of_the_plain_model(family: str, pairs: PromptPairs, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(family)
    path: Path = request.getfixturevalue(f"{family}_directory")
    hf = AutoModelForCausalLM.from_pretrained(path).eval()
    norm = hf.transformer.ln_f if family == "gpt2" else hf.model.norm
    with torch.no_grad():
        logits = hf.lm_head(norm(streams(hf))).double()  # [layer, prompt, position, vocab]
    said = logits.log_softmax(dim=-1)
    found = lenses.logit_lens(model, pairs)
    size = float(logits.abs().max())
    for role, position in (("noun", 1), ("asked", 3), ("answer", 4)):
        for answer, tokens in (("correct", CORRECT), ("incorrect", INCORRECT)):
            expected = torch.stack([said[:, i, position, token] for i, token in enumerate(tokens)])
            here = found.sel(role=role, answer=answer)
            close(here["log_probability"], expected, size=size)
            close(here["probability"], expected.exp(), size=size)
            above = torch.stack([
                (logits[:, i, position] > logits[:, i, position, token, None]).sum(-1) for i, token in enumerate(tokens)
            ])  # fmt: skip
            assert (here["rank"].values == above.numpy()).all()
        final = said[-1:, :, position]
        divergence = (final.exp() * (final - said[:, :, position])).sum(-1).T
        close(found["kl"].sel(role=role), divergence, size=size)


def test_after_the_last_layer_it_is_the_models_own_output(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = lenses.logit_lens(gpt2, pairs).sel(role="answer").isel(layer=-1)
    own = logits_at(gpt2, pairs.clean).double().log_softmax(dim=-1)
    expected = np.stack([own[np.arange(3), tokens] for tokens in (CORRECT, INCORRECT)], axis=1)
    close(found["log_probability"], expected)
    near(found["kl"], 0.0, 0.0, why="a distribution does not diverge from itself")


def test_it_is_read_in_batches_as_at_once(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lenses.logit_lens(gpt2, pairs)
    monkeypatch.setattr(lenses, "LOGITS_AT_ONCE", 1)
    told: list[tuple[int, int]] = []
    parts = lenses.logit_lens(gpt2, pairs, progress=lambda done, total: told.append((done, total)))
    for name in whole.data_vars:
        close(parts[name], whole[name], size=10.0)
    assert told == [(done, 9) for done in range(1, 10)]


def test_it_takes_positions_and_prompts_with_one_answer(gpt2: HookedTransformer) -> None:
    prompts = AnsweredPrompts.from_tokens(CLEAN, correct=CORRECT)
    found = lenses.logit_lens(gpt2, prompts, at=[4])
    assert dict(found.sizes) == {"prompt": 3, "layer": 3, "position": 1, "answer": 1}
    by_role = lenses.logit_lens(gpt2, prompts)
    close(found["log_probability"].isel(position=0), by_role["log_probability"].sel(role="answer"))


def test_the_analysis_is_the_lens_of_some_roles_and_prompts(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = logit_lens.run(gpt2, pairs, roles=["asked"], max_prompts=2)
    assert (found["role"].values.tolist(), found.sizes["prompt"]) == (["asked"], 2)
    assert found["answer"].attrs["long_name"].startswith("the answer to the clean prompt")
    with pytest.raises(InterpError, match=r"'nuon'.*Did you mean 'noun'"):
        logit_lens.run(gpt2, pairs, roles=["nuon"])
