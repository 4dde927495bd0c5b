"""Ablations: what zero means in the raw model, prompts without a corrupted half, references that do not vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from interp import ablation, run
from interp.errors import InterpError
from interp.interventions import Ablate, Replace
from interp.model import HookedTransformer
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.prompts.tokens import Prompts
from interp.sweeps import Ablation, ablation_sweep, knockout_sweep, plan, score
from tests import tiny
from tests.tiny import VOCAB, ragged_pairs, random_ids, scattered_pairs
from tests.tolerance import close


def make_neox(path: Path) -> Path:
    torch.manual_seed(4)
    sizes = {
        "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48,
        "vocab_size": VOCAB, "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return tiny._save(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)), path)


Out = Callable[[Any, int], torch.nn.Module]
FAMILIES: dict[str, tuple[Callable[[Path], Path], Out]] = {
    "gpt2": (tiny.make_gpt2, lambda hf, layer: hf.transformer.h[layer].attn.c_proj),
    "neox": (make_neox, lambda hf, layer: hf.gpt_neox.layers[layer].attention.dense),
    "opt": (tiny.make_opt, lambda hf, layer: hf.model.decoder.layers[layer].self_attn.out_proj),
    "qwen2": (tiny.make_qwen2, lambda hf, layer: hf.model.layers[layer].self_attn.o_proj),
    "llama": (tiny.make_llama, lambda hf, layer: hf.model.layers[layer].self_attn.o_proj),
}


def without_a_head(path: Path, out_of: Out, pairs: AnsweredPrompts) -> np.ndarray:
    """[prompt, layer, head] the logit difference by Hugging Face's own model, one head's mix of values set to zero."""
    hf = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    n, width = len(pairs), hf.config.hidden_size // hf.config.num_attention_heads
    found = np.empty((n, hf.config.num_hidden_layers, hf.config.num_attention_heads))
    for layer, head in np.ndindex(found.shape[1:]):

        def clear(module: Any, inputs: Any, head: int = head) -> tuple[torch.Tensor]:
            mixed = inputs[0].clone()
            mixed[..., head * width : (head + 1) * width] = 0
            return (mixed,)

        handle = out_of(hf, layer).register_forward_pre_hook(clear)
        with torch.inference_mode():
            logits = hf(torch.tensor(np.array(pairs.clean.ids)), use_cache=False).logits
        handle.remove()
        scored = logits[torch.arange(n), torch.tensor(np.array(pairs.answer_position))].double().numpy()
        found[:, layer, head] = scored[np.arange(n), pairs.correct] - scored[np.arange(n), pairs.incorrect]
    return found


def answered(n: int = 3, length: int = 7, seed: int = 5) -> AnsweredPrompts:
    return AnsweredPrompts.from_tokens(
        random_ids(n, length, seed=seed), correct=5, incorrect=9, roles={"word": 2, "late": 5}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_raw_zero_is_that_of_a_hook_on_hugging_faces_own_model(family: str, tmp_path: Path) -> None:
    make, out_of = FAMILIES[family]
    model, pairs = HookedTransformer.from_pretrained(make(tmp_path)), answered()
    expected = without_a_head(tmp_path, out_of, pairs)
    found = ablation_sweep(model, pairs, "z", "zero_raw")["ablated"].values
    size = np.abs(expected).max() + 10
    close(found, expected, size=size)
    by_hook = score(model, pairs, interventions=[Ablate(site="z", kind="zero_raw", layers=1, heads=[2])])
    close(by_hook, expected[:, 1, 2], size=size)
    of_result = score(model, pairs, interventions=[Ablate(site="result", kind="zero_raw", layers=1, heads=[2])])
    close(of_result, expected[:, 1, 2], size=size)
    folded = ablation_sweep(model, pairs, "z", "zero")["ablated"].values
    if family == "llama":  # its values and its norm have no bias, so nothing was moved
        close(folded, expected, size=size)
    else:
        assert np.abs(folded - expected).max() > 0.05


def test_a_raw_zero_of_the_values_is_that_of_the_raw_model(gpt2: HookedTransformer, gpt2_directory: Path) -> None:
    raw, pairs = HookedTransformer.from_pretrained(gpt2_directory, numerics="raw"), answered()
    for site in ("v", "z", "q", "mlp_post", "attn_out", "resid_mid"):
        expected = ablation_sweep(raw, pairs, site, "zero")["ablated"].values
        size = np.abs(expected).max() + 10
        close(ablation_sweep(gpt2, pairs, site, "zero_raw")["ablated"], expected, size=size, what=site)
        close(ablation_sweep(raw, pairs, site, "zero_raw")["ablated"], expected, size=size, what=site)
        differs = np.abs(ablation_sweep(gpt2, pairs, site, "zero")["ablated"].values - expected).max() > 0.05
        assert differs == (site in ("v", "z")), site


def test_a_raw_zero_is_refused_where_it_is_not_known(gpt2: HookedTransformer) -> None:
    with pytest.raises(InterpError, match=r"Site 'pattern' has no 'zero_raw' in folded numerics. Ablate 'z'"):
        ablation_sweep(gpt2, answered(), "pattern", "zero_raw")
    wrapped = HookedTransformer.from_bridge(gpt2.bridge)
    with pytest.raises(InterpError, match=r"What folding took out of the values .* is not known"):
        ablation_sweep(wrapped, answered(), "z", "zero_raw")


# ---- prompts alone ----


@pytest.mark.parametrize("kind", ["zero", "zero_raw", "mean", "resample"])
@pytest.mark.parametrize("site", ["z", "mlp_out"])
def test_prompts_alone_give_the_numbers_of_pairs(gpt2: HookedTransformer, kind: Any, site: str) -> None:
    pairs = scattered_pairs()
    alone = AnsweredPrompts(
        clean=pairs.clean, correct=pairs.correct, incorrect=pairs.incorrect, answer_position=pairs.answer_position
    )
    for options in ({}, {"roles": ["scene"]}, {"positions": [3, 5]}):
        expected = ablation_sweep(gpt2, pairs, site, kind, **options)
        found = ablation_sweep(gpt2, alone, site, kind, **options)
        np.testing.assert_array_equal(found["ablated"], expected["ablated"])
        assert found.ablated.dims == expected.ablated.dims
    asked = Ablation(site, kind)
    assert plan(gpt2, alone, asked).rows == plan(gpt2, pairs, asked).rows


def test_knockouts_and_scores_take_prompts_alone(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    alone = AnsweredPrompts(
        clean=pairs.clean, correct=pairs.correct, incorrect=pairs.incorrect, answer_position=pairs.answer_position
    )
    np.testing.assert_array_equal(score(gpt2, alone), score(gpt2, pairs))
    edges = ["noun<-color"]
    np.testing.assert_array_equal(knockout_sweep(gpt2, alone, edges).cut, knockout_sweep(gpt2, pairs, edges).cut)
    for call in (
        lambda: score(gpt2, alone, "corrupted"),
        lambda: ablation_sweep(gpt2, alone, "z", "zero", which="corrupted"),
        lambda: knockout_sweep(gpt2, alone, edges, which="corrupted"),
    ):
        with pytest.raises(InterpError, match="AnsweredPrompts have no corrupted run"):
            call()


def test_one_answer_is_enough_for_a_metric_that_compares_none(gpt2: HookedTransformer) -> None:
    ids = random_ids(3, 7, seed=5)
    alone = AnsweredPrompts.from_tokens(ids, correct=5)
    found = ablation_sweep(gpt2, alone, "z", "zero", "log_probability")
    both = ablation_sweep(gpt2, answered(), "z", "zero", "log_probability")
    np.testing.assert_array_equal(found["ablated"], both["ablated"])
    with pytest.raises(InterpError, match="compares two answers, but these prompts have no incorrect one"):
        ablation_sweep(gpt2, alone, "z", "zero")


def test_prompts_alone_are_read_from_text() -> None:
    model = HookedTransformer.from_pretrained("mini")
    texts = ["The cat is black. The cat is", "The dog is white. The dog is"]
    alone = AnsweredPrompts.from_texts(
        texts, correct=[" black", " white"], incorrect=[" white", " black"], tokenizer=model
    )
    assert (score(model, alone) > 0).all()
    assert [model.tokenizer.decode([token]) for token in alone.correct] == [" black", " white"]
    assert list(alone.answer_position) == list(alone.clean.lengths - 1)
    for answers, expected in ((" blacker and", "tokens"), ([" black"], "There are 2 texts and 1 correct answers")):
        with pytest.raises(InterpError, match=expected):
            AnsweredPrompts.from_texts(texts, correct=answers, tokenizer=model)


def test_answers_and_places_of_prompts_alone_are_checked() -> None:
    ids = random_ids(2, 5)
    for options, expected in (
        ({"correct": 5, "incorrect": 5}, "correct and incorrect are both 5"),
        ({"correct": [1, 2, 3]}, "correct must be one number, or one for each of 2 prompts"),
        ({"correct": 5, "answer_position": 7}, "Role 'answer' covers positions 7 to 7"),
        ({"correct": 5, "roles": {"answer": 1}}, 'Role "answer" is reserved'),
    ):
        with pytest.raises(InterpError, match=expected):
            AnsweredPrompts.from_tokens(ids, **options)
    chosen = answered().select([2, 0])
    assert (len(chosen), chosen.roles) == (2, ("word", "late", "answer"))
    assert chosen.sha256() != answered().sha256()


# ---- references ----


def test_a_mean_over_references_is_that_of_their_activations(gpt2: HookedTransformer) -> None:
    pairs, others = answered(), Prompts.from_ids(random_ids(5, 7, seed=11))
    mean = run.activations(gpt2, others, "z")[1].mean(dim=0)
    patch = Replace(site="z", values={1: mean.expand(len(pairs), *mean.shape)}, layers=1, heads=[2])
    expected = score(gpt2, pairs, interventions=[patch])
    found = ablation_sweep(gpt2, pairs, "z", "mean", references=others)["ablated"]
    close(found.sel(layer=1, head=2), expected, size=10)
    by_hook = Ablate(site="z", kind="mean", layers=1, heads=[2], references=others)
    close(score(gpt2, pairs, interventions=[by_hook]), expected, size=10)


def test_a_mean_over_references_of_other_lengths_is_one_for_all_tokens(gpt2: HookedTransformer) -> None:
    pairs, others = answered(), ragged_pairs().clean
    read = run.capture(gpt2, others, "mlp_out")["mlp_out"].sel(layer=1).values  # prompt position d_model
    mean = torch.tensor(np.nanmean(read.reshape(-1, read.shape[-1]), axis=0))
    patch = Replace(site="mlp_out", values={1: mean.expand(len(pairs), 7, -1)}, layers=1, at="word")
    expected = score(gpt2, pairs, interventions=[patch])
    found = ablation_sweep(gpt2, pairs, "mlp_out", "mean", references=others, roles=["word"])["ablated"]
    close(found.sel(layer=1, role="word"), expected, size=10)


def test_a_resample_of_references_takes_the_values_of_one_of_them(gpt2: HookedTransformer) -> None:
    pairs, others = answered(), Prompts.from_ids(random_ids(2, 7, seed=11))
    values = run.activations(gpt2, others, "z")[1]
    each = np.stack(
        [
            score(
                gpt2,
                pairs,
                interventions=[Replace(site="z", values={1: one.expand(3, *one.shape)}, layers=1, heads=[2])],
            )
            for one in values
        ]
    )
    found = (
        ablation_sweep(gpt2, pairs, "z", "resample", references=others, seed=3)["ablated"].sel(layer=1, head=2).values
    )
    assert (np.abs(each - found).min(axis=0) < 1e-4).all()
    with pytest.raises(InterpError, match=r"is the only one of 7 tokens|no other to resample from"):
        ablation_sweep(gpt2, pairs, "z", "resample", references=Prompts.from_ids(random_ids(2, 6)))
    with pytest.raises(InterpError, match="References are for 'mean' and 'resample': leave them out with 'zero'"):
        ablation_sweep(gpt2, pairs, "z", "zero", references=others)
    with pytest.raises(InterpError, match="Prompt 0 holds token id 60"):
        ablation_sweep(gpt2, pairs, "z", "mean", references=Prompts.from_ids([[60] * 7]))


@pytest.mark.parametrize("kind", ["mean", "resample"])
def test_references_that_do_not_vary_are_refused(gpt2: HookedTransformer, kind: Any) -> None:
    one, same = answered(1), AnsweredPrompts.from_tokens(np.tile(random_ids(1, 7), (3, 1)), correct=5, incorrect=9)
    for pairs in (one, same):
        for call in (
            lambda pairs=pairs: ablation_sweep(gpt2, pairs, "z", kind),
            lambda pairs=pairs: plan(gpt2, pairs, Ablation("z", kind)),
            lambda pairs=pairs: run.capture(gpt2, pairs.clean, "z", interventions=[Ablate(site="z", kind=kind)]),
        ):
            with pytest.raises(InterpError, match=r"does not vary|no other to resample from"):
                call()
    with pytest.raises(InterpError, match="does not vary"):
        ablation_sweep(gpt2, one, "z", "mean", references=one.clean)
    ablation_sweep(gpt2, one, "z", kind, references=answered(1, seed=6).clean)  # another prompt does vary


def test_places_where_the_reference_does_not_vary_are_named(
    gpt2: HookedTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = random_ids(4, 7, seed=2)
    ids[:, :3] = ids[0, :3]  # one beginning, as a template gives
    pairs = AnsweredPrompts.from_tokens(ids, correct=5, incorrect=9, roles={"first": 1, "late": 5})
    found = ablation_sweep(gpt2, pairs, "resid_pre", "mean")
    assert found.attrs["does_not_vary"] == "0, 1, 2"
    assert "does not vary at 0, 1, 2" in caplog.text
    close(found.ablation_effect.sel(position=[0, 1, 2]), 0.0, size=10)
    assert np.abs(found.ablation_effect.sel(position=4)).max() > 0.01
    assert ablation_sweep(gpt2, pairs, "resid_pre", "mean", roles=["late"]).attrs["does_not_vary"] == "nowhere"
    for options in ({"roles": ["first"]}, {"positions": [0, 2]}):
        with pytest.raises(InterpError, match="The reference of this 'mean' ablation does not vary"):
            ablation_sweep(gpt2, pairs, "resid_pre", "mean", **options)


def test_a_resample_never_draws_a_twin(gpt2: HookedTransformer) -> None:
    ids = np.repeat(random_ids(2, 6, seed=8), [3, 1], axis=0)
    pairs = AnsweredPrompts.from_tokens(ids, correct=5, incorrect=9)
    for seed in range(5):
        donors = ablation.Reference.of(gpt2, pairs.clean, "resample", seed=seed).donors
        assert (donors.ids != pairs.clean.ids).any(axis=1).all()


def test_a_mean_of_heads_as_many_as_tokens_is_no_pattern(gpt2: HookedTransformer) -> None:
    """The mean over all tokens of ``z`` where n_heads equals d_head was once taken for an attention pattern."""
    pairs = ragged_pairs()
    assert isinstance(pairs, PromptPairs)
    with pytest.raises(InterpError, match="A mean over attention patterns needs prompts of one length"):
        score(gpt2, pairs, interventions=[Ablate(site="pattern", kind="mean")])
    twice = replace(pairs, name="again")
    score(gpt2, twice, interventions=[Ablate(site="z", kind="mean")])
