"""Attribution to tokens, held to Hugging Face's own embeddings and to what integrated gradients have to sum to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from interp import HookedTransformer, InterpError
from interp.attribution import input_attribution
from interp.prompts import AnsweredPrompts
from tests.tiny import LOGITS, random_ids, without_blocks
from tests.tolerance import close, near


def asked(n: int = 2, length: int = 7) -> AnsweredPrompts:
    """Some prompts of random tokens with an answer each."""
    return AnsweredPrompts.from_tokens(random_ids(n, length), correct=[5, 9][:n])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gradients_are_those_of_the_plain_models_embeddings(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(f"{kind}_directory")
    model = HookedTransformer.from_pretrained(path, device="cpu", numerics="raw")
    prompts = asked()
    found = input_attribution(model, prompts, steps=2)
    plain = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    tokens = plain.get_input_embeddings()(torch.tensor(prompts.clean.ids)).detach().requires_grad_()
    said = plain(inputs_embeds=tokens).logits[:, -1].log_softmax(dim=-1)
    value = said.gather(-1, torch.tensor(prompts.correct)[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(value.sum(), tokens)
    product = tokens.detach() * gradient
    close(found["value"], value, size=LOGITS)
    close(found["input_x_gradient"], product.sum(dim=-1), "gradient", size=product.abs().sum(dim=-1).max())
    close(found["saliency"], gradient.norm(dim=-1), "gradient")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_integrated_gradients_sum_to_what_changes(kind: str, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(kind)
    prompts = asked()
    found = input_attribution(model, prompts, steps=48)
    whole = found["integrated_gradients"].sum("position")
    near(whole, found["value"] - found["baseline"], 0.01, why="the rule's error with 48 nodes; nats")
    close(found["incomplete"], whole - (found["value"] - found["baseline"]), size=LOGITS)
    fewer = input_attribution(model, prompts, steps=1)
    assert float(abs(fewer["incomplete"]).max()) > float(abs(found["incomplete"]).max())


def test_through_hooks_it_is_the_same(gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = asked()
    own = input_attribution(gpt2, prompts, steps=3)
    without_blocks(monkeypatch, gpt2)
    hooked = input_attribution(gpt2, prompts, steps=3)
    for name in own.data_vars:
        close(hooked[name], own[name], "gradient", size=LOGITS, what=name)


def test_beyond_a_prompts_end_is_nothing(gpt2: HookedTransformer) -> None:
    both = AnsweredPrompts.from_tokens([[5, 6, 7, 8], [5, 6, 7]], correct=[1, 1])
    alone = AnsweredPrompts.from_tokens([[5, 6, 7]], correct=1)
    found, one = (input_attribution(gpt2, prompts, steps=2) for prompts in (both, alone))
    assert np.isnan(found["saliency"][1, 3])
    for name in ("input_x_gradient", "integrated_gradients", "saliency"):
        close(found[name][1, :3], one[name][0], "gradient", size=LOGITS)


def test_what_has_no_gradient_is_refused(gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="has no gradient"):
        input_attribution(gpt2, asked(), metric="rank")
    with pytest.raises(InterpError, match="steps is 0"):
        input_attribution(gpt2, asked(), steps=0)
