"""Patching against the plain loop over TransformerLens hooks, against a model solved by hand, and against itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from analyses import activation_patching
from interp import results, sites, sweep
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.readouts import projection
from tests.tiny import LOGITS, VOCAB, make_gpt2, random_ids
from tests.tolerance import close

CORRECT, INCORRECT = 5, 9
N_LAYERS = 3
ROLES = {"color": slice(3, 4), "noun": slice(5, 7), "answer": slice(7, 8)}
DIRECTIONS = ("denoising", "noising")


@pytest.fixture(scope="module")
def pairs(gpt2: HookedTransformer) -> PromptPairs:
    """Three pairs of 8 tokens that differ at position 3 ("color"); "noun" is two tokens.

    The answers are the tokens whose logits the difference moves most, so that there is a gap to recover.
    """
    clean = random_ids(3, 8)
    corrupted = clean.copy()
    corrupted[:, 3] = (corrupted[:, 3] + 1 + np.arange(3)) % VOCAB
    with torch.no_grad():
        moved = (gpt2.bridge(torch.tensor(clean)) - gpt2.bridge(torch.tensor(corrupted)))[:, -1]
    roles: dict[str, Any] = {"color": 3, "noun": np.array([[5, 7]] * 3)}
    return PromptPairs.from_tokens(
        clean, corrupted, correct=moved.argmax(1).numpy(), incorrect=moved.argmin(1).numpy(), roles=roles
    )


@pytest.fixture(scope="module")
def patched(gpt2: HookedTransformer, pairs: PromptPairs) -> xr.Dataset:
    """Everything, on the tiny GPT-2."""
    return activation_patching.run(gpt2, pairs)


def serial_loop(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    layer: int,
    head: int | None = None,
    tokens: slice = slice(None),
) -> np.ndarray:
    """The logit difference [prompt] after one patch, with nothing but TransformerLens's own hooks."""
    clean, corrupted = torch.tensor(pairs.clean.ids), torch.tensor(pairs.corrupted.ids)
    base, source = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
    name = sites.SITES[site].hook_name(layer)
    kept: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept["value"] = tensor.detach().clone()

    def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        out = tensor.clone()
        if site == "pattern":
            out[:, head, tokens] = kept["value"][:, head, tokens]
        elif head is None:
            out[:, tokens] = kept["value"][:, tokens]
        else:
            out[:, tokens, head] = kept["value"][:, tokens, head]
        return out

    with torch.no_grad():
        model.bridge.run_with_hooks(source, fwd_hooks=[(name, keep)])
        logits = model.bridge.run_with_hooks(base, fwd_hooks=[(name, put)])[:, -1]
    rows, found = np.arange(len(pairs)), logits.double().numpy()
    return np.asarray(found[rows, pairs.correct] - found[rows, pairs.incorrect])


def test_stream_and_block_sites_equal_the_serial_loop(
    gpt2: HookedTransformer, pairs: PromptPairs, patched: xr.Dataset
) -> None:
    for site in ("resid_pre", "attn_out", "mlp_out"):
        found = patched[f"patched_{site}"]
        assert found.dims == ("direction", "prompt", "layer", "role")
        for direction in DIRECTIONS:
            for layer in range(N_LAYERS):
                for role, tokens in ROLES.items():
                    expected = serial_loop(gpt2, pairs, site, direction, layer, tokens=tokens)
                    got = found.sel(direction=direction, layer=layer, role=role).values
                    close(got, expected, size=LOGITS, what=f"{site} {direction} {layer} {role}")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_head_sites_equal_the_serial_loop(name: str, pairs: PromptPairs, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(name)
    head_sites = ("z", "q", "k", "v", "pattern")
    result = activation_patching.run(model, pairs, sites=head_sites, head_roles=[])
    for site in head_sites:
        axis = "kv_head" if name == "llama" and site in ("k", "v") else "head"
        found = result[f"patched_{site}"]
        assert found.dims == ("direction", "prompt", "layer", axis)
        assert found.sizes[axis] == (2 if axis == "kv_head" else 4)
        for direction in DIRECTIONS:
            for layer in (0, N_LAYERS - 1):
                for head in (0, found.sizes[axis] - 1):
                    expected = serial_loop(model, pairs, site, direction, layer, head)
                    got = found.sel({"direction": direction, "layer": layer, axis: head}).values
                    close(got, expected, size=LOGITS, what=f"{site} {direction} {layer} {head}")
    assert "patched_z_role" not in result


def test_one_head_at_one_role_equals_the_serial_loop(
    gpt2: HookedTransformer, pairs: PromptPairs, patched: xr.Dataset
) -> None:
    assert patched.patched_z_role.dims == ("direction", "prompt", "layer", "head", "role")
    for direction in DIRECTIONS:
        for layer in range(N_LAYERS):
            for role, tokens in ROLES.items():
                expected = serial_loop(gpt2, pairs, "z", direction, layer, 2, tokens)
                got = patched.patched_z_role.sel(direction=direction, layer=layer, head=2, role=role).values
                close(got, expected, size=LOGITS, what=f"{direction} {layer} {role}")


def test_one_position_at_a_time_equals_the_serial_loop(
    gpt2: HookedTransformer, pairs: PromptPairs, patched: xr.Dataset
) -> None:
    assert patched.patched_resid_pre_position.dims == ("direction", "prompt", "layer", "position")
    for direction in DIRECTIONS:
        for position in range(8):
            expected = serial_loop(gpt2, pairs, "resid_pre", direction, 1, tokens=slice(position, position + 1))
            got = patched.patched_resid_pre_position.sel(direction=direction, layer=1, position=position).values
            close(got, expected, size=LOGITS, what=f"{direction} {position}")


def test_recovered_is_the_share_of_the_gap_that_is_there_after_the_patch(patched: xr.Dataset) -> None:
    gap = patched.clean - patched.corrupted
    assert float(abs(gap).min()) > patched.attrs["minimum_gap"]
    for name in (str(n).removeprefix("patched_") for n in patched.data_vars if str(n).startswith("patched_")):
        expected = (patched[f"patched_{name}"] - patched.corrupted) / gap
        got = patched[f"recovered_{name}"]
        close(got.values, expected.transpose(*got.dims).values, "arithmetic", dtype="float64")


def test_the_only_token_that_differs_carries_everything_at_layer_0(patched: xr.Dataset) -> None:
    """Denoising it there gives the clean run, noising it the corrupted one; other words do nothing there."""
    first = patched.recovered_resid_pre.sel(layer=0)
    size = LOGITS / np.abs(patched.clean - patched.corrupted).min()
    close(first.sel(direction="denoising", role="color"), 1, size=size)
    close(first.sel(direction="noising", role="color"), 0, size=size)
    assert (first.sel(direction="denoising", role=["noun", "answer"]) == 0).all()
    assert (first.sel(direction="noising", role=["noun", "answer"]) == 1).all()


# ---- a model solved by hand ----


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    """A GPT-2 of two layers whose blocks add nothing: the last token alone decides the logits."""
    from transformers import GPT2LMHeadModel

    path = make_gpt2(tmp_path_factory.mktemp("still"), n_layer=2, n_embd=8, n_head=2)
    model = GPT2LMHeadModel.from_pretrained(path)
    for name, parameter in model.named_parameters():
        if "attn.c_proj" in name or "mlp.c_proj" in name or "wpe" in name:
            parameter.data.zero_()
    model.save_pretrained(path)
    return HookedTransformer.from_pretrained(path)


def last_token_differs() -> PromptPairs:
    clean, corrupted = [[4, 3, 11], [8, 3, 12]], [[4, 3, 21], [8, 3, 22]]
    return PromptPairs.from_tokens(clean, corrupted, correct=CORRECT, incorrect=INCORRECT, roles={"noun": 1})


def test_where_the_blocks_add_nothing_the_last_token_is_all(still: HookedTransformer) -> None:
    """By hand: patching the answer position swaps the answer whole, at every layer; anything else does nothing."""
    result = activation_patching.run(still, last_token_differs(), sites=["resid_pre", "attn_out", "z"])
    at_answer = result.recovered_resid_pre.sel(role="answer")
    close(at_answer.sel(direction="denoising"), 1)
    close(at_answer.sel(direction="noising"), 0, size=1)
    at_noun = result.recovered_resid_pre.sel(role="noun")
    assert (at_noun.sel(direction="denoising") == 0).all()
    assert (at_noun.sel(direction="noising") == 1).all()
    for site in ("attn_out", "z", "z_role"):
        found = result[f"recovered_{site}"]
        close(found.sel(direction="denoising"), 0, size=1)
        close(found.sel(direction="noising"), 1)


def test_sweeps_without_any_effect_and_prompts_without_a_gap_are_named(still: HookedTransformer) -> None:
    pairs = last_token_differs()
    result = activation_patching.run(still, pairs, sites=["resid_pre", "attn_out"], by_position=False)
    assert result.attrs["no_effect"] == "attn_out denoising; attn_out noising"
    assert result.attrs["n_small_gap"] == 0
    # Now only a token differs that this model never reads: clean and corrupted say the same.
    clean = pairs.clean.ids.copy()
    clean[:, 0] += 1
    same = PromptPairs.from_tokens(clean, pairs.clean.ids, correct=CORRECT, incorrect=INCORRECT, roles={"noun": 1})
    flat = activation_patching.run(still, same, sites=["resid_pre"], directions=["noising"], by_position=False)
    assert flat.attrs["n_small_gap"] == 2
    assert flat.attrs["no_effect"] == "resid_pre noising"
    assert bool(flat.recovered_resid_pre.isnull().all())
    assert flat.direction.values.tolist() == ["noising"]


# ---- what is swept ----


def test_everything_the_schema_names_is_there(patched: xr.Dataset, pairs: PromptPairs) -> None:
    names = [*activation_patching.SITES, "z_role", "resid_pre_position"]
    expected = {f"{quantity}_{name}" for quantity in ("recovered", "patched") for name in names}
    assert set(patched.data_vars) == expected | {"clean", "corrupted"}
    assert patched.role.values.tolist() == ["color", "noun", "answer"]
    assert patched.direction.values.tolist() == list(DIRECTIONS)
    assert patched.attrs["tokens_sha256"] == pairs.sha256()
    assert patched.recovered_z.attrs["units"] == "fraction"
    assert patched.patched_z.attrs["units"] == "logits"


def test_rows_are_counted_per_sweep_and_in_all(patched: xr.Dataset) -> None:
    in_all = {"resid_pre": 3, "resid_pre_position": 8, "attn_out": 3, "mlp_out": 3, "z_role": 12} | {
        site: 4 for site in ("z", "q", "k", "v", "pattern")
    }
    for name, cells in in_all.items():
        assert patched.attrs[f"rows_in_all_{name}"] == 2 * 3 * N_LAYERS * cells
        assert 0 < patched.attrs[f"rows_run_{name}"] <= patched.attrs[f"rows_in_all_{name}"]
    assert patched.attrs["rows_in_all"] == 2 * 3 * N_LAYERS * sum(in_all.values())
    assert patched.attrs["rows_run"] == sum(patched.attrs[f"rows_run_{name}"] for name in in_all)
    # Before the layers mix anything, only the one token that differs has to be run.
    assert patched.attrs["rows_run_resid_pre"] == 2 * 3 * (1 + 3 + 3)


def test_roles_of_heads_are_chosen_apart_from_those_of_the_stream(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    result = activation_patching.run(
        gpt2, pairs, sites=["resid_pre", "z"], directions=["denoising"], roles=["color", "noun"], head_roles=["answer"]
    )
    assert result.role.values.tolist() == ["color", "noun", "answer"]
    assert bool(result.recovered_resid_pre.sel(role="answer").isnull().all())
    assert bool(result.recovered_resid_pre.sel(role=["color", "noun"]).notnull().all())
    assert bool(result.recovered_z_role.sel(role=["color", "noun"]).isnull().all())
    expected = sweep(gpt2, pairs, "z", roles=["answer"]).patched.values
    np.testing.assert_array_equal(result.patched_z_role.sel(role=["answer"]).values[0], expected)


def test_positions_are_swept_only_where_they_mean_the_same(gpt2: HookedTransformer) -> None:
    clean = [random_ids(1, 6, seed=1)[0].tolist(), random_ids(1, 8, seed=2)[0].tolist()]
    corrupted = [[(row[0] + 1) % VOCAB, *row[1:]] for row in clean]
    ragged = PromptPairs.from_tokens(clean, corrupted, correct=CORRECT, incorrect=INCORRECT, roles={"noun": [3, 4]})
    result = activation_patching.run(gpt2, ragged, sites=["resid_pre"], directions=["denoising"])
    assert set(result.data_vars) == {"clean", "corrupted", "recovered_resid_pre", "patched_resid_pre"}


def test_fewer_prompts_are_spread_over_the_set(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    both = activation_patching.run(gpt2, pairs, sites=["v"], directions=["denoising"])
    some = activation_patching.run(gpt2, pairs, sites=["v"], directions=["denoising"], max_prompts=2)
    assert some.attrs["n_prompts"] == 2
    close(some.patched_v.values, both.patched_v.values[:, [0, 2]], size=LOGITS)


@pytest.mark.parametrize("whole", [False, True], ids=["one token", "whole answers"])
def test_progress_counts_every_row_once_and_ends_at_the_total(
    gpt2: HookedTransformer, pairs: PromptPairs, whole: bool
) -> None:
    if whole:
        pairs = replace(
            pairs, answer_policy="sum_logprob", correct_tokens=((5, 6),) * 3, incorrect_tokens=((9, 7, 8),) * 3
        )
    told: list[tuple[int, int]] = []
    result = activation_patching.run(gpt2, pairs, sites=["resid_pre", "z"], progress=lambda *at: told.append(at))
    done = [at[0] for at in told]
    assert done == sorted(done)
    assert {at[1] for at in told} == {result.attrs["rows_in_all"]}
    assert told[-1] == (result.attrs["rows_in_all"],) * 2
    assert len(set(done)) >= (4 if not whole else 8)


def test_whole_answers_are_patched_by_their_summed_log_probability(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    """Answers (5, 6) and (9, 7, 8): each appended but for its last token, and the tokens' log-probabilities summed."""
    right, wrong = (5, 6), (9, 7, 8)
    whole = replace(pairs, answer_policy="sum_logprob", correct_tokens=(right,) * 3, incorrect_tokens=(wrong,) * 3)
    result = activation_patching.run(gpt2, whole, sites=["attn_out"], directions=["noising"])
    name, tokens = "blocks.1.hook_attn_out", slice(5, 7)
    found = []
    for answer in (right, wrong):
        tail = torch.tensor([answer[:-1]] * 3)
        clean, corrupted = (
            torch.cat([torch.tensor(prompts.ids), tail], 1) for prompts in (pairs.clean, pairs.corrupted)
        )
        kept: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor, hook: Any, kept: list[torch.Tensor] = kept) -> None:
            kept.append(tensor.clone())

        def put(tensor: torch.Tensor, hook: Any, kept: list[torch.Tensor] = kept) -> torch.Tensor:
            out = tensor.clone()
            out[:, tokens] = kept[0][:, tokens]
            return out

        with torch.no_grad():
            gpt2.bridge.run_with_hooks(corrupted, fwd_hooks=[(name, keep)])
            logits = gpt2.bridge.run_with_hooks(clean, fwd_hooks=[(name, put)]).double().log_softmax(-1)
        found.append(sum(logits[:, 7 + i, token] for i, token in enumerate(answer)))
    expected = np.asarray(found[0] - found[1])
    close(result.patched_attn_out.sel(role="noun", layer=1).values[0], expected)
    assert result.patched_attn_out.attrs["units"] == "nats"
    assert "recovered_resid_pre_position" not in result


def test_the_metric_can_be_chosen(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    result = activation_patching.run(gpt2, pairs, sites=["z"], directions=["noising"], metric="probability")
    assert result.attrs["metric"] == "probability"
    expected = sweep(gpt2, pairs, "z", "noising", "probability").patched.values
    np.testing.assert_array_equal(result.patched_z.values[0], expected)


def test_the_metric_can_have_settings(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    settings = {"projection": {"site": "z", "layer": 1, "at": "noun", "head": 2}}
    result = activation_patching.run(gpt2, pairs, sites=["v"], directions=["denoising"], metric=settings)
    one = projection(1, "noun", site="z", head=2)
    np.testing.assert_array_equal(result.patched_v.values[0], sweep(gpt2, pairs, "v", metric=one).patched.values)
    assert result.attrs["metric"] == "projection of z 1 head 2 at noun"
    assert result.patched_v.attrs["units"] == "fraction"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ["resid"]}, "Unknown site 'resid'."),
        ({"sites": []}, "There are no sites to patch."),
        ({"directions": ["denoise"]}, "Unknown direction 'denoise'. Did you mean 'denoising'?"),
        ({"directions": []}, "There is no direction to patch in."),
        ({"roles": ["colour"]}, "Unknown role 'colour' in roles. Did you mean 'color'?"),
        ({"head_roles": ["colour"]}, "Unknown role 'colour' in head_roles. Did you mean 'color'?"),
        ({"roles": []}, "Site 'resid_pre' is patched by role, but no role was asked for."),
        ({"metric": "logit_diff"}, "Unknown metric 'logit_diff'. Did you mean 'logit_difference'?"),
        (
            {"metric": {"kl": {}}},
            "A metric with settings is {'projection': {'layer': 3, 'at': 'noun'}}, not {'kl': {}}.",
        ),
        ({"metric": {"projection": {"layr": 1}}}, "Unknown setting 'layr' of projection. Did you mean 'layer'?"),
        ({"metric": {"projection": {"layer": 1}}}, "The settings of projection lack 'at'."),
        (
            {"metric": {"projection": {"layer": 9, "at": "noun"}}},
            "reads resid_pre of layer 9, but the model has 3 layers",
        ),
        ({"max_prompts": 0}, "max_prompts is 0. Use at least one prompt."),
    ],
)
def test_wrong_options_are_named_in_one_line(
    gpt2: HookedTransformer, pairs: PromptPairs, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError) as error:
        activation_patching.run(gpt2, pairs, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_result_is_the_same_after_saving(patched: xr.Dataset, tmp_path: Path) -> None:
    assert results.load(results.save(patched, tmp_path / "activation_patching.nc")).identical(patched)


def test_where_a_run_is_costly_queries_keys_and_positions_are_patched_only_if_asked_for(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared = {"recovered_q", "recovered_k", "recovered_v", "recovered_resid_pre_position"}
    asked: dict[str, Any] = {"directions": ["denoising"], "max_prompts": 1, "head_roles": []}
    usual = activation_patching.run(gpt2, pairs, **asked)
    planned = activation_patching.planned(gpt2, pairs, **asked)
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    less = activation_patching.run(gpt2, pairs, **asked)
    assert (usual.attrs["left_out"], less.attrs["left_out"]) == ("none", "q, k, v, resid_pre_position")
    assert spared <= set(usual) - set(less)
    close(less["patched_pattern"], usual["patched_pattern"], size=LOGITS)
    flop = [sum(plan.flop for plan in plans) for plans in (planned, activation_patching.planned(gpt2, pairs, **asked))]
    assert flop[1] < flop[0]
    assert "recovered_q" in activation_patching.run(gpt2, pairs, **asked, sites=["q"])
    assert "recovered_resid_pre_position" in activation_patching.run(
        gpt2, pairs, **asked, sites=["resid_pre"], by_position=True
    )
