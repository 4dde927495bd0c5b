"""Attribution against NumPy on the raw Hugging Face weights, TransformerLens's own, and ablations one at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import AutoModelForCausalLM, CohereConfig, CohereForCausalLM

from analyses import head_attribution
from interp import results, run
from interp.ablation import resample_donors
from interp.errors import InterpError
from interp.interventions import Ablate
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.prompts.vocabulary import Vocabulary
from interp.sweeps import score
from tests.tiny import LOGITS, VOCAB, random_ids
from tests.tolerance import allowed, close

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama"])
LAYERS, HEADS = 3, 4


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


def make_pairs(lengths: list[int], color: list[int], noun: list[tuple[int, int]], asked: list[int]) -> PromptPairs:
    clean = [random_ids(1, length, seed=i)[0].tolist() for i, length in enumerate(lengths)]
    corrupted = [list(row) for row in clean]
    for row, at in zip(corrupted, color, strict=True):
        row[at] = (row[at] + 7) % VOCAB
    n = len(lengths)
    return PromptPairs.from_tokens(
        clean, corrupted, correct=np.arange(5, 5 + n), incorrect=np.arange(20, 20 + n),
        roles={"color": color, "noun": np.array(noun), "asked": asked},
        vocabulary=Vocabulary(target="noun", readers=("asked", "answer")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    """Seven ragged pairs; "noun" is two tokens, and comes before the colour in the fifth."""
    nouns = [(3, 5), (2, 4), (4, 6), (3, 5), (1, 3), (3, 5), (4, 6)]
    return make_pairs([9, 7, 9, 8, 7, 9, 9], [1, 1, 2, 2, 4, 1, 2], nouns, [7, 5, 6, 6, 5, 7, 7])


SHARED = [0, 1, 2, 4, 5, 6]
"""The pairs whose length another one shares, as resampling needs."""


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, pairs: PromptPairs) -> Any:
    """The whole analysis, once per model."""
    cache: dict[str, xr.Dataset] = {}

    def result(name: str) -> xr.Dataset:
        if name not in cache:
            cache[name] = head_attribution.run(request.getfixturevalue(name), pairs.select(SHARED), seed=3)
        return cache[name]

    return result


# ---- direct logit attribution ----


def numpy_attribution(directory: Path, pairs: PromptPairs, *, folded: bool) -> dict[str, np.ndarray]:
    """Contributions of every component from raw weights and plain Hugging Face activations, in float64.

    Folding moves the values' biases (and the part of LayerNorm's bias that goes through them) out of the heads: every
    attention row sums to 1, so they are a constant of the layer.
    """
    hf = AutoModelForCausalLM.from_pretrained(directory).double().eval()
    weights = {name: value.detach().numpy() for name, value in hf.state_dict().items()}
    is_gpt2 = hf.config.model_type == "gpt2"
    blocks = hf.transformer.h if is_gpt2 else hf.model.layers
    kept: dict[str, np.ndarray] = {}

    def keep(name: str, *, incoming: bool) -> Any:
        return lambda module, inputs, output: kept.update({name: (inputs[0] if incoming else output).detach().numpy()})

    for i, block in enumerate(blocks):
        out = block.attn.c_proj if is_gpt2 else block.self_attn.o_proj
        out.register_forward_hook(keep(f"z{i}", incoming=True))
        block.mlp.register_forward_hook(keep(f"mlp{i}", incoming=False))
    (hf.transformer.ln_f if is_gpt2 else hf.model.norm).register_forward_hook(keep("final", incoming=True))
    parts: dict[str, list[float]] = {}
    for i in range(len(pairs)):
        ids = pairs.clean.ids[i, : pairs.clean.lengths[i]]
        at = int(pairs.answer_position[i])
        with torch.no_grad():
            hf(torch.tensor(ids)[None])
        unembed = weights["lm_head.weight"]
        answer = unembed[pairs.correct[i]] - unembed[pairs.incorrect[i]]
        final = kept["final"][0, at]
        if is_gpt2:
            scale = np.sqrt(final.var() + hf.config.layer_norm_epsilon)
            gain, shift = weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"]
        else:
            scale = np.sqrt((final**2).mean() + hf.config.rms_norm_eps)
            gain, shift = weights["model.norm.weight"], np.zeros_like(final)

        def through(x: np.ndarray, scale: float = scale, gain: np.ndarray = gain, answer: np.ndarray = answer) -> float:
            return float(((x - x.mean() if is_gpt2 else x) / scale * gain) @ answer)

        mine = {"bias": float(shift @ answer)}
        if is_gpt2:
            mine["embed"] = through(weights["transformer.wte.weight"][ids[at]])
            mine["pos_embed"] = through(weights["transformer.wpe.weight"][at])
        else:
            mine["embed"] = through(weights["model.embed_tokens.weight"][ids[at]])
        for layer in range(LAYERS):
            size = kept["final"].shape[-1]
            if is_gpt2:
                w_o, b_o = (weights[f"transformer.h.{layer}.attn.c_proj.{kind}"] for kind in ("weight", "bias"))
                qkv, bias = (weights[f"transformer.h.{layer}.attn.c_attn.{kind}"] for kind in ("weight", "bias"))
                constant = weights[f"transformer.h.{layer}.ln_1.bias"] @ qkv[:, 2 * size :] + bias[2 * size :]
            else:
                w_o, b_o = weights[f"model.layers.{layer}.self_attn.o_proj.weight"].T, np.zeros(size)
                constant = np.zeros(w_o.shape[0])
            constant = constant if folded else np.zeros_like(constant)
            for head, (z, w, c) in enumerate(
                zip(
                    np.split(kept[f"z{layer}"][0, at], HEADS),
                    np.split(w_o, HEADS),
                    np.split(constant, HEADS),
                    strict=True,
                )
            ):
                mine[f"L{layer}H{head}"] = through((z - c) @ w)
                mine["bias"] += through(c @ w)
            mine["bias"] += through(b_o)
            mine[f"MLP{layer}"] = through(kept[f"mlp{layer}"][0, at])
        for label, value in mine.items():
            parts.setdefault(label, []).append(value)
    return {label: np.array(values) for label, values in parts.items()}


@BOTH
@pytest.mark.parametrize("numerics", ["compatibility", "raw"])
def test_contributions_equal_numpy_on_raw_weights(
    name: str, numerics: Any, pairs: PromptPairs, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(f"{name}_directory")
    model = HookedTransformer.from_pretrained(directory, numerics=numerics)
    got = head_attribution.run(model, pairs, ablations=())
    expected = numpy_attribution(directory, pairs, folded=numerics == "compatibility")
    assert set(got["component"].values) == set(expected)
    assert ("pos_embed" in expected) == (name == "gpt2")
    for label, values in expected.items():
        mine = got["contribution"].sel(component=label).values
        close(mine, values, size=LOGITS, what=label)
    assert np.abs(expected["L1H2"]).max() > 0.01  # there is something to compare


def test_contributions_equal_transformer_lens(gpt2: HookedTransformer) -> None:
    """Its ActivationCache attributes one position of prompts of one length, with the same frozen scale."""
    same = make_pairs([8, 8, 8], [1, 1, 1], [(2, 3)] * 3, [5, 5, 5])
    with torch.inference_mode():
        _, cache = gpt2.bridge.run_with_cache(torch.tensor(same.clean.ids))
        stack, labels = cache.get_full_resid_decomposition(
            layer=-1, expand_neurons=False, pos_slice=-1, return_labels=True
        )
        theirs = cache.logit_attrs(
            stack, tokens=torch.tensor(same.correct), incorrect_tokens=torch.tensor(same.incorrect), pos_slice=-1
        )
    mine = head_attribution.run(gpt2, same, ablations=())["contribution"]
    by_label = {label: theirs[i].numpy() for i, label in enumerate(labels)}
    for layer in range(LAYERS):
        for head in range(HEADS):
            close(mine.sel(component=f"L{layer}H{head}"), by_label[f"L{layer}H{head}"], size=LOGITS)
        close(mine.sel(component=f"MLP{layer}"), by_label[f"{layer}_mlp_out"], size=LOGITS)
    for label in ("embed", "pos_embed"):
        close(mine.sel(component=label), by_label[label], size=LOGITS)


@BOTH
def test_contributions_sum_to_the_logit_difference_of_each_ragged_prompt(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    got = head_attribution.run(model, pairs, ablations=())
    close(got["contribution"].sum("component"), got["logit_difference"], size=LOGITS)
    np.testing.assert_array_equal(got["total"], got["contribution"].sum("component"))
    for i in range(len(pairs)):
        logits = model.forward(torch.tensor(pairs.clean.rows()[i])[None])[0, int(pairs.answer_position[i])]
        expected = float(logits[pairs.correct[i]] - logits[pairs.incorrect[i]])
        close(got["logit_difference"][i], expected, size=logits)
    kinds = got["component_kind"].values.tolist()
    assert [kinds.count(kind) for kind in ("embed", "head", "mlp", "bias")] == [1, LAYERS * HEADS, LAYERS, 1]
    one = got.sel(component="L2H1")
    assert (int(one["component_layer"]), int(one["component_head"])) == (2, 1)


def test_a_sum_that_is_off_is_an_error_that_names_the_cause(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capped(model: Any, pairs: Any) -> np.ndarray:
        return 0.5 * np.tanh(score(model, pairs) / 0.5)

    monkeypatch.setattr(head_attribution, "score", capped)
    with pytest.raises(InterpError, match=r"Contributions sum to \S+ but logit difference is \S+ \(prompt \d"):
        head_attribution.run(gpt2, pairs, ablations=())
    monkeypatch.setattr(gpt2.bridge.cfg, "output_logits_soft_cap", 30.0)
    with pytest.raises(InterpError, match="soft-capped at 30"):
        head_attribution.run(gpt2, pairs, ablations=())


def test_an_architecture_that_scales_its_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohere multiplies its logits after the unembedding. The self-check at load refuses it; suppose it did not."""
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=24, logit_scale=0.0625, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    CohereForCausalLM(config).eval().save_pretrained(tmp_path)
    monkeypatch.setattr("interp.model.load.held_identities", lambda model, sites: {})
    model = HookedTransformer.from_pretrained(tmp_path, numerics="raw")
    pairs = make_pairs([6, 6], [1, 1], [(2, 3)] * 2, [4, 4])
    with pytest.raises(InterpError, match="Contributions sum to"):
        head_attribution.run(model, pairs, ablations=())


# ---- whole answers ----


def test_whole_answers_are_attributed_at_the_first_token_that_differs(
    gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    """The shared first token is appended: the same as pairs that have it in the prompt."""
    shared = 11
    whole = replace(
        pairs,
        answer_policy="sum_logprob",
        correct=np.full(len(pairs), shared),
        incorrect=np.full(len(pairs), shared),
        correct_tokens=tuple((shared, int(c), 3) for c in pairs.correct),
        incorrect_tokens=tuple((shared, int(c)) for c in pairs.incorrect),
    )
    longer = PromptPairs.from_tokens(
        [[*row, shared] for row in pairs.clean.rows()],
        [[*row, shared] for row in pairs.corrupted.rows()],
        correct=pairs.correct,
        incorrect=pairs.incorrect,
        roles={role: pairs.clean.roles[role] for role in ("color", "noun", "asked")},
        vocabulary=pairs.stated,
    )
    got = head_attribution.run(gpt2, whole, ablations=("zero",))
    expected = head_attribution.run(gpt2, longer, ablations=("zero",))
    for name in ("contribution", "attention", "ablated"):
        close(got[name], expected[name], what=name)
    assert got.attrs["readout"] == "first token in which the whole answers differ"
    assert (got.attrs["answer_policy"], got.attrs["tokens_sha256"]) == ("sum_logprob", whole.sha256())
    with pytest.raises(InterpError, match="expand_answers"):
        head_attribution.run(gpt2, whole.expand_answers()[0])


# ---- attention ----


@BOTH
def test_attention_sums_the_source_span_and_reads_the_last_token_of_the_destination(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    edges = ["noun<-color", "asked<-noun", "color<-noun", "noun<-noun"]
    got = head_attribution.run(model, pairs, ablations=(), edges=edges)["attention"]
    for i in range(len(pairs)):
        pattern = run.capture(model, [pairs.clean.rows()[i]], ["pattern"])["pattern"].values[0]
        spans = {role: [int(x) for x in pairs.clean.roles[role][i]] for role in pairs.roles}
        for edge in edges:
            dest, src = edge.split("<-")
            at, (start, stop) = spans[dest][1] - 1, spans[src]
            expected = pattern[:, :, at, start:stop].sum(-1)
            expected = np.full_like(expected, np.nan) if stop - 1 > at else expected
            close(got.sel(edge=edge)[i], expected, size=1, what=f"{edge} {i}")
    share = got.values[np.isfinite(got.values)]
    assert share.min() >= 0
    assert share.max() <= 1 + allowed("product", size=1)


def test_a_source_that_cannot_be_seen_is_nan_not_zero(found: Any) -> None:
    attention = found("gpt2")["attention"]
    assert np.isfinite(attention.sel(edge="noun<-color")[:3]).all()
    assert np.isnan(attention.sel(edge="noun<-color")[3]).all()
    assert np.isfinite(attention.sel(edge="color<-noun")[3]).all()


def test_default_edges_are_those_that_exist(gpt2: HookedTransformer, pairs: PromptPairs, found: Any) -> None:
    known = {"noun<-color", "color<-noun", "asked<-noun", "asked<-color", "answer<-color", "answer<-noun"}
    assert set(found("gpt2")["edge"].values) == known
    ordered = pairs.select([0, 1, 2, 3])
    edges = head_attribution.run(gpt2, ordered, ablations=())["edge"].values
    assert set(edges) == known - {"color<-noun"}
    longer = ordered.with_role_after("noun")
    edges = head_attribution.run(gpt2, longer, ablations=())["edge"].values
    assert {"after_noun<-color", "answer<-after_noun"} <= set(edges)
    other = PromptPairs.from_tokens(
        random_ids(2, 6), random_ids(2, 6, seed=1), correct=5, incorrect=9, roles={"first": 1, "second": 3}
    )
    edges = head_attribution.run(gpt2, other, ablations=())["edge"].values
    assert set(edges) == {"second<-first", "answer<-first", "answer<-second"}


def test_role_positions_are_those_of_the_last_token(found: Any, pairs: PromptPairs) -> None:
    got = found("gpt2")["role_position"]
    np.testing.assert_array_equal(got.sel(role="noun"), pairs.clean.roles["noun"][SHARED, 1] - 1)
    np.testing.assert_array_equal(got.sel(role="answer"), pairs.answer_position[SHARED])


# ---- ablation ----


@BOTH
@pytest.mark.parametrize("kind", head_attribution.BY_DEFAULT)
def test_ablations_in_batches_equal_one_head_at_a_time(
    name: str, model: HookedTransformer, kind: Any, pairs: PromptPairs, found: Any
) -> None:
    equal = pairs.select(SHARED)
    got = found(name)["ablated"].sel(ablation=kind)
    for layer in range(LAYERS):
        for head in range(HEADS):
            ablate = Ablate(site="z", kind=kind, layers=[layer], heads=[head], seed=3)
            expected = score(model, equal, interventions=[ablate])
            close(got.sel(layer=layer, head=head), expected, size=LOGITS)
    if kind == "resample":  # four prompts of one length: which is drawn depends on the seed
        drawn = [resample_donors(equal.clean, seed=seed).tolist() for seed in (3, 4)]
        assert drawn[0] != drawn[1]
    effect = found(name)["ablation_effect"].sel(ablation=kind)
    close(effect, got - found(name)["logit_difference"], "arithmetic", dtype="float64", size=LOGITS)
    assert np.abs(effect).max() > 0.05


@BOTH
def test_zero_ablation_equals_a_plain_hook(name: str, model: HookedTransformer, pairs: PromptPairs, found: Any) -> None:
    """One prompt and one head at a time, by TransformerLens's own hooks: no padding, no batch, no resuming."""
    for i, row in enumerate(SHARED):
        for layer, head in ((0, 1), (1, 3), (2, 0)):

            def silence(z: torch.Tensor, hook: Any, head: int = head) -> torch.Tensor:
                z = z.clone()
                z[:, :, head] = 0
                return z

            with torch.inference_mode():
                logits = model.bridge.run_with_hooks(
                    torch.tensor(pairs.clean.rows()[row])[None], fwd_hooks=[(f"blocks.{layer}.attn.hook_z", silence)]
                )[0, int(pairs.answer_position[row])]
            expected = float(logits[pairs.correct[row]] - logits[pairs.incorrect[row]])
            got = found(name)["ablated"].sel(ablation="zero", layer=layer, head=head)[i]
            close(got, expected, size=logits)


def test_progress_counts_every_ablated_row(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    told: list[tuple[int, int]] = []
    head_attribution.run(gpt2, pairs.select(SHARED), seed=3, progress=lambda *step: told.append(step))
    rows = 3 * len(SHARED) * LAYERS * HEADS
    done = [step for step, _ in told]
    assert done == sorted(done)
    assert told[-1] == (rows, rows)


def test_a_prompt_without_a_partner_of_its_length_is_not_resampled_but_still_ablated(
    gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    got = head_attribution.run(gpt2, pairs)["ablated"]
    assert np.isnan(got.sel(ablation="resample")[3]).all()
    assert np.isfinite(got.sel(ablation="resample")[SHARED]).all()
    assert np.isfinite(got.sel(ablation=["zero", "mean"])).all()
    alone = head_attribution.run(gpt2, pairs.select([3]))["ablated"]
    assert np.isnan(alone.sel(ablation=["mean", "resample"])).all()
    assert np.isfinite(alone.sel(ablation="zero")).all()


def test_where_a_run_is_costly_nothing_is_set_to_zero_unless_it_is_asked_for(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = pairs.select(SHARED)
    usual, planned = head_attribution.run(gpt2, few), head_attribution.planned(gpt2, few)
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    less = head_attribution.run(gpt2, few)
    assert usual["ablation"].values.tolist() == list(head_attribution.BY_DEFAULT)
    assert less["ablation"].values.tolist() == ["mean", "resample"]
    close(less["ablated"], usual["ablated"].sel(ablation=["mean", "resample"]), size=LOGITS)
    assert [len(planned), len(head_attribution.planned(gpt2, few))] == [3, 2]
    assert head_attribution.run(gpt2, few, ablations=["zero"])["ablation"].values.tolist() == ["zero"]


# ---- options, errors, files ----


def test_the_result_survives_a_file(found: Any, tmp_path: Path) -> None:
    saved = results.load(results.save(found("llama"), tmp_path / "head_attribution.nc"))
    xr.testing.assert_identical(saved, found("llama"))
    assert saved["ablated"].dims == ("ablation", "prompt", "layer", "head")
    assert saved["contribution"].attrs["units"] == "logits"


def test_options_choose_what_is_made(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    got = head_attribution.run(gpt2, pairs, ablations="mean", edges="answer<-color", max_prompts=2)  # type: ignore[arg-type]
    assert got["ablation"].values.tolist() == ["mean"]
    assert got["edge"].values.tolist() == ["answer<-color"]
    assert (got.sizes["prompt"], got.attrs["n_prompts"]) == (2, 2)
    bare = head_attribution.run(gpt2, pairs, ablations=(), edges=())
    assert not {"ablated", "attention"} & set(bare.data_vars)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablations": ["mena"]}, "Unknown ablation 'mena'. Did you mean 'mean'?"),
        ({"edges": ["noun<-colour"]}, "Unknown role 'colour' in edges. Did you mean 'color'?"),
        ({"edges": ["noun->color"]}, "Edge 'noun->color' is not destination<-source"),
        ({"max_prompts": 0}, "max_prompts is 0"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    options: dict[str, Any], message: str, gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    with pytest.raises(InterpError, match="^" + message.replace("?", r"\?").replace("(", r"\(")) as error:
        head_attribution.run(gpt2, pairs, **options)
    assert "\n" not in str(error.value)
