"""Names and habits of TransformerLens are answered with what to write here."""

from __future__ import annotations

import copy

import pytest
import torch

import interp
from interp import HookedTransformer, InterpError, PromptPairs
from interp.interventions import Ablate, Replace
from interp.prompts import tokens
from interp.prompts.tokens import Prompts
from interp.readouts import projection
from tests.tiny import scattered_pairs


@pytest.mark.parametrize(
    "name",
    "run_with_cache to_tokens to_str_tokens run_with_hooks generate W_Q W_E OV hooks to_single_token embed ln_final "
    "add_hook reset_hooks parameters state_dict eval".split(),
)
def test_a_name_of_the_bridge_says_where_it_is(name: str, mini: HookedTransformer) -> None:
    with pytest.raises(AttributeError, match=rf"use model\.bridge\.{name}\."):
        getattr(mini, name)
    assert getattr(mini.bridge, name) is not None
    assert not hasattr(mini, name)


def test_a_name_that_nobody_has_is_missing_as_anywhere(mini: HookedTransformer) -> None:
    with pytest.raises(AttributeError, match="object has no attribute 'W_Z'"):
        _ = mini.W_Z
    with pytest.raises(AttributeError, match="object has no attribute '_ipython_display_'"):
        _ = mini._ipython_display_
    assert copy.copy(mini).cfg == mini.cfg  # looks names up before there is a bridge


def test_the_advice_does_what_it_says(mini: HookedTransformer) -> None:
    with pytest.raises(AttributeError, match=r"Here: interp\.capture\(model, texts, sites=\['q'\]\) has the queries"):
        _ = mini.W_Q
    acts = interp.capture(mini, ["The cat is"], sites=["q"])
    assert acts["q"].sizes["position"] == len(tokens.encode(mini, "The cat is").tokens[0])


def test_a_model_is_not_called(mini: HookedTransformer) -> None:
    with pytest.raises(InterpError, match=r"model\.bridge\(text\) gives logits; model\.forward\(ids\) takes token ids"):
        mini("The cat is")
    assert torch.equal(
        mini.bridge("The cat is"), mini.forward(torch.tensor(tokens.encode(mini, "The cat is").ids)).clone()
    )


HOOKS = {
    "blocks.0.hook_resid_pre": ("resid_pre", 0),
    "blocks.3.attn.hook_z": ("z", 3),
    "blocks.0.attn.hook_pattern": ("pattern", 0),
    "hook_z": ("z", None),
    "blocks.1.hook_mlp_out": ("mlp_out", 1),
    "blocks.2.mlp.hook_post": ("mlp_post", 2),
    "hook_embed": ("embed", None),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_name_of_a_hook_is_answered_with_the_site_wherever_a_site_is_named(
    hook: str, gpt2: HookedTransformer
) -> None:
    pairs, (site, layer) = scattered_pairs(), HOOKS[hook]
    asks = {
        "sweep": lambda: interp.sweep(gpt2, pairs, hook),
        "sweep_sites": lambda: interp.sweep_sites(gpt2, pairs, [hook]),
        "capture": lambda: interp.capture(gpt2, pairs.clean, sites=[hook]),
        "ablation": lambda: interp.ablation_sweep(gpt2, pairs, hook, "zero"),
        "projection": lambda: interp.sweep(gpt2, pairs, "z", metric=projection(0, "noun", site=hook)),
        "attribution": lambda: interp.attribution.attribution_patching(gpt2, pairs, hook),
        "Ablate": lambda: interp.run.logits_at(gpt2, pairs.clean, interventions=[Ablate(site=hook, kind="zero")]),
        "Replace": lambda: interp.run.logits_at(
            gpt2, pairs.clean, interventions=[Replace(site=hook, values={0: torch.zeros(4, 8)})]
        ),
        "has_site": lambda: gpt2.has_site(hook),
    }
    for name, ask in asks.items():
        with pytest.raises(InterpError) as refused:
            ask()
        assert f"name of site '{site}'. Ask for '{site}'" in str(refused.value), name
        assert ("layers=[" in str(refused.value)) == (layer is not None)
        assert layer is None or f"layers=[{layer}]" in str(refused.value)


def test_what_stands_in_the_wrong_place_is_said(gpt2: HookedTransformer, tmp_path: object) -> None:
    pairs = scattered_pairs()
    effect = interp.sweep(gpt2, pairs, "z")
    wrong = {
        "The first argument is PromptPairs and the second the model. Give the model first.": (
            lambda: interp.sweep(pairs, gpt2, "z"),  # type: ignore[arg-type]
            lambda: interp.sweep_sites(pairs, gpt2, ["z"]),  # type: ignore[arg-type]
            lambda: interp.ablation_sweep(pairs, gpt2, "z", "zero"),  # type: ignore[arg-type]
            lambda: interp.knockout_sweep(pairs, gpt2, ["noun<-color"]),  # type: ignore[arg-type]
            lambda: interp.path_patching(pairs, gpt2),  # type: ignore[arg-type]
            lambda: interp.lenses.logit_lens(pairs, gpt2),  # type: ignore[arg-type]
            lambda: interp.attribution.attribution_patching(pairs, gpt2, "z"),  # type: ignore[arg-type]
        ),
        "The second argument is str, not pairs. Make them with PromptPairs.from_template": (
            lambda: interp.sweep(gpt2, "The cat is", "z"),  # type: ignore[arg-type]
            lambda: interp.knockout_sweep(gpt2, "The cat is", ["noun<-color"]),  # type: ignore[arg-type]
        ),
        "The second argument is list, not pairs. Make them with": (
            lambda: interp.sweep(gpt2, ["The cat is"], "z"),  # type: ignore[arg-type]
        ),
        "The path is Dataset. Give the result, then its path.": (
            lambda: interp.results.save("x.nc", effect),  # type: ignore[arg-type]
        ),
        "The first argument is list and the second the model. Give the model first.": (
            lambda: interp.capture(["The cat"], gpt2, sites=["z"]),  # type: ignore[arg-type]
        ),
        "The first argument is str, not a model.": (
            lambda: interp.explain("The cat is", gpt2.name, "cat", "is"),  # type: ignore[arg-type]
        ),
    }
    for says, asks in wrong.items():
        for ask in asks:
            with pytest.raises(InterpError) as refused:
                ask()
            assert says in str(refused.value)


def test_ids_where_pairs_belong(gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match="The second argument is Prompts, not pairs"):
        interp.sweep(gpt2, Prompts.from_ids([[1, 2]]), "z")  # type: ignore[arg-type]
    with pytest.raises(InterpError, match="Give one of its values"):
        interp.sweep(gpt2, {"two": scattered_pairs()}, "z")  # type: ignore[arg-type]
    assert isinstance(scattered_pairs(), PromptPairs)
