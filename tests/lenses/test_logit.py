"""The logit lens is the final norm and unembedding of the stream: by hand on plain Hugging Face models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import AutoModelForCausalLM

from analyses import logit_lens
from interp import AnsweredPrompts, HookedTransformer, InterpError, PromptPairs, lenses
from interp.lenses import reading
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
            here = found.sel(site="resid_post", role=role, answer=answer)
            close(here["log_probability"], expected, size=size)
            close(here["probability"], expected.exp(), size=size)
            above = torch.stack([
                (logits[:, i, position] > logits[:, i, position, token, None]).sum(-1) for i, token in enumerate(tokens)
            ])  # fmt: skip
            assert (here["rank"].values == above.numpy()).all()
        final = said[-1:, :, position]
        divergence = (final.exp() * (final - said[:, :, position])).sum(-1).T
        close(found["kl"].sel(site="resid_post", role=role), divergence, size=size)


def test_after_the_last_layer_it_is_the_models_own_output(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = lenses.logit_lens(gpt2, pairs).sel(site="resid_post", role="answer").isel(layer=-1)
    own = logits_at(gpt2, pairs.clean).double().log_softmax(dim=-1)
    expected = np.stack([own[np.arange(3), tokens] for tokens in (CORRECT, INCORRECT)], axis=1)
    close(found["log_probability"], expected)
    near(found["kl"], 0.0, 0.0, why="a distribution does not diverge from itself")


def test_it_is_read_in_batches_as_at_once(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lenses.logit_lens(gpt2, pairs)
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 1)
    told: list[tuple[int, int]] = []
    parts = lenses.logit_lens(gpt2, pairs, progress=lambda done, total: told.append((done, total)))
    for name in ("rank", "log_probability", "kl", "top_probability"):
        close(parts[name], whole[name], size=10.0)
    assert told == [(done, 27) for done in range(1, 28)]  # 9 places at 3 sites


def test_it_takes_positions_and_prompts_with_one_answer(gpt2: HookedTransformer) -> None:
    prompts = AnsweredPrompts.from_tokens(CLEAN, correct=CORRECT)
    found = lenses.logit_lens(gpt2, prompts, at=[4])
    assert dict(found.sizes) == {
        "prompt": 3, "site": 3, "layer": 3, "position": 1, "answer": 1, "ci_bound": 2, "criterion": 1,
    }  # fmt: skip
    by_role = lenses.logit_lens(gpt2, prompts)
    close(found["log_probability"].isel(position=0), by_role["log_probability"].sel(role="answer"))


def test_the_analysis_is_the_lens_of_some_roles_and_prompts(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = logit_lens.run(gpt2, pairs, roles=["asked"], max_prompts=2)
    assert (found["role"].values.tolist(), found.sizes["prompt"]) == (["asked"], 2)
    assert found["answer"].attrs["long_name"].startswith("the answer to the clean prompt")
    with pytest.raises(InterpError, match=r"'nuon'.*Did you mean 'noun'"):
        logit_lens.run(gpt2, pairs, roles=["nuon"])


def test_the_stream_before_a_layer_is_that_after_the_one_before(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = lenses.logit_lens(gpt2, pairs)["log_probability"]
    close(found.sel(site="resid_pre")[:, 1:], found.sel(site="resid_post")[:, :-1])


def test_between_attention_and_mlp_it_is_the_plain_models(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs
) -> None:
    hf = AutoModelForCausalLM.from_pretrained(gpt2_directory).eval()
    found: list[torch.Tensor] = []
    hooks = [
        block.ln_2.register_forward_hook(lambda module, given, out: found.append(given[0]))
        for block in hf.transformer.h
    ]
    with torch.no_grad():
        hf(torch.tensor(CLEAN))
        said = hf.lm_head(hf.transformer.ln_f(torch.stack(found)[:, :, 4])).double().log_softmax(dim=-1)
    for hook in hooks:
        hook.remove()
    read = lenses.logit_lens(gpt2, pairs, sites=["resid_mid"]).sel(site="resid_mid", role="answer", answer="correct")
    close(read["log_probability"], said[:, np.arange(3), CORRECT].T, size=10.0)


def test_the_top_token_is_held_against_the_token_that_follows(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = lenses.logit_lens(gpt2, pairs, at=["noun", "answer"], sites=["resid_post"]).isel(site=0, layer=-1)
    logits = logits_at(gpt2, pairs.clean, np.tile([1, 4], (3, 1))).double()
    follows = np.stack([CLEAN[:, 2], CORRECT], axis=1)
    assert (found["top_right"].values == (logits.argmax(-1).numpy() == follows)).all()
    close(found["top_probability"], logits.softmax(-1).amax(-1))
    at_the_end = lenses.logit_lens(gpt2, AnsweredPrompts.from_tokens(CLEAN, correct=CORRECT, answer_position=3), at=[4])
    assert np.isnan(at_the_end["top_right"].values).all()


def test_what_is_no_state_of_the_stream_is_refused(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    with pytest.raises(InterpError, match=r"'z' is no state of the residual stream.*resid_post, resid_mid, resid_pre"):
        lenses.logit_lens(gpt2, pairs, sites=["z"])


# ---- where the answer appears ----


def said_by_layer(rank: list[list[int]], ahead: list[list[int]]) -> xr.Dataset:
    """What a lens would return of prompts x layers, the correct answer ahead of the incorrect one by ``ahead``."""
    both = np.stack([np.array(ahead, float), np.zeros_like(ahead)], axis=-1)
    ranks = np.stack([np.array(rank, float), np.zeros_like(rank)], axis=-1)
    dims = ("prompt", "layer", "answer")
    coords = {"layer": np.arange(len(rank[0])), "answer": ["correct", "incorrect"]}
    return xr.Dataset({"rank": (dims, ranks), "log_probability": (dims, both)}, coords=coords)


def test_the_answer_appears_where_it_stays_on_top_or_passes_the_other() -> None:
    lens = said_by_layer(
        rank=[[0, 0, 0], [0, 5, 0], [3, 0, 1], [9, 9, 9]], ahead=[[1, 1, 1], [-1, 1, -1], [0, 0, 2], [-1, 0, -1]]
    )
    found = lenses.appears(lens)
    assert found.sel(criterion="top").values.tolist() == [0, 2, np.inf, np.inf]
    assert found.sel(criterion="ahead").values.tolist() == [0, 1, 2, np.inf]


def test_prompts_in_which_it_never_appears_are_counted(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    found = lenses.logit_lens(gpt2, pairs)
    each = lenses.appears(found)
    assert np.isinf(each).any()
    assert (found["never"].values == np.isinf(each.values).sum(axis=0)).all()
    assert (found["appears"].values == np.sort(each.values, axis=0)[1]).all()  # the lower median of three


def test_what_no_lens_said_is_refused() -> None:
    with pytest.raises(InterpError, match="no variable 'rank'"):
        lenses.appears(xr.Dataset())
