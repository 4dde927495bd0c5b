"""The exact-sweep engine against answers that do not come from it.

References are plain TransformerLens hooks over whole passes (``tests.oracle``) and interventions through bridge hooks
over a whole forward pass (``score``). Planned operations and bytes are held to what PyTorch counts.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from interp import run, sites, tasks
from interp.errors import InterpError
from interp.interventions import Ablate, Intervention, Knockout
from interp.model import HookedTransformer, products
from interp.prompts import PromptPairs
from interp.readouts import projection
from interp.sweeps import (
    Ablation,
    AttentionKnockout,
    Patching,
    Where,
    ablation_sweep,
    knockout_sweep,
    path_patching,
    plan,
    score,
    sweep,
    sweep_sites,
)
from interp.sweeps import through_hooks as hooks
from interp.sweeps.exact import cost as limits
from interp.sweeps.exact import execute
from interp.sweeps.exact import planner as exact_planner
from interp.sweeps.exact.planner import Group
from tests.combinations import combinations
from tests.oracle import one_by_one, patched
from tests.sweeps.test_sweep import hooks_left
from tests.tiny import (
    HEADS,
    LOGITS,
    STREAMS,
    VOCAB,
    make_gpt2,
    make_llama,
    make_mistral,
    make_opt,
    make_qwen2,
    ragged_pairs,
    random_ids,
    scattered_pairs,
    without_blocks,
)
from tests.tolerance import allowed, close

NAMES = ["gpt2", "llama"]
BOTH = pytest.mark.parametrize("name", NAMES)
BOTH_WAYS = ["denoising", "noising"]
DIRECTIONS = pytest.mark.parametrize("direction", BOTH_WAYS)
MINI_LOGITS = 24.0
"""The largest logits of ``mini``."""
SITES = (*STREAMS, *HEADS)
N_LAYERS = 3


@pytest.fixture
def model(name: str, request: pytest.FixtureRequest) -> HookedTransformer:
    return request.getfixturevalue(name)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return scattered_pairs()


@pytest.fixture(scope="module")
def ragged() -> PromptPairs:
    return ragged_pairs()


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return HookedTransformer.from_pretrained(make_opt(tmp_path_factory.mktemp("opt")))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    return HookedTransformer.from_pretrained(make_mistral(tmp_path_factory.mktemp("mistral")))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(gpt2: HookedTransformer, llama: HookedTransformer) -> Iterator[None]:
    """No hook, no gradient, and gradients still on."""
    before = hooks_left(gpt2), hooks_left(llama)
    yield
    assert (hooks_left(gpt2), hooks_left(llama)) == before
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def runs_of(pairs: PromptPairs, direction: str) -> tuple[str, Any]:
    """The run that is changed, and the prompts whose activations are put into it."""
    return ("corrupted", pairs.clean) if direction == "denoising" else ("clean", pairs.corrupted)


def same(found: Any, expected: np.ndarray, size: float = LOGITS) -> None:
    """Equal but for rounding, of values that are not all one value (a test of nothing)."""
    close(found, expected, size=size)
    assert expected.size == 1 or np.ptp(expected) > 30 * allowed("pass", size=size)


# ---- every site, at positions and roles ----


def expected_cells(
    model: HookedTransformer, pairs: PromptPairs, site: str, direction: str, places: Sequence[Any]
) -> np.ndarray:
    """[prompt, layer, (head,) place], one whole pass per cell."""
    has_heads = sites.site(site).has_heads
    heads: list[int | None] = list(range(model.n_heads_of(site))) if has_heads else [None]
    found = one_by_one(model, pairs, site, direction, heads, places)
    return found if has_heads else found[:, :, 0]


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", SITES)
def test_every_site_by_position(model: HookedTransformer, pairs: PromptPairs, site: str, direction: str) -> None:
    """A token before all changes, a changed one after an equal one, and one after the answer."""
    positions = [1, 4, 7]
    effect = sweep(model, pairs, site, direction, positions=positions)
    same(effect.patched, expected_cells(model, pairs, site, direction, positions))
    unchanged = effect[runs_of(pairs, direction)[0]]
    assert (effect.patched.sel(position=7) == unchanged).all()


def test_every_site_of_a_qwen_2_runs_on_its_weights(tmp_path: Path, pairs: PromptPairs) -> None:
    qwen = HookedTransformer.from_pretrained(make_qwen2(tmp_path))
    assert qwen.why_no_blocks == ""
    for site in SITES:
        effect = sweep(qwen, pairs, site, positions=[4])
        assert effect.attrs["engine"] == "weights"
        same(effect.patched, expected_cells(qwen, pairs, site, "denoising", [4]))


@BOTH
@pytest.mark.parametrize("site", SITES)
def test_rows_of_many_starts_enter_together(model: HookedTransformer, pairs: PromptPairs, site: str) -> None:
    """Each row computes its own tokens only, though rows that start later stand in one array with it."""
    positions = [2, 3, 4, 5, 6]
    same(
        sweep(model, pairs, site, positions=positions).patched,
        expected_cells(model, pairs, site, "denoising", positions),
    )


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", SITES)
def test_every_site_by_roles_of_several_tokens_in_ragged_prompts(
    model: HookedTransformer, ragged: PromptPairs, site: str, direction: str
) -> None:
    roles = ["color", "noun", "answer"]
    effect = sweep(model, ragged, site, direction, roles=roles)
    same(effect.patched, expected_cells(model, ragged, site, direction, roles))


@BOTH
@DIRECTIONS
def test_a_role_that_holds_equal_tokens_between_changed_ones(
    model: HookedTransformer, pairs: PromptPairs, direction: str
) -> None:
    for site in ("resid_pre", "resid_mid", "mlp_post", "z", "q", "v", "pattern"):
        effect = sweep(model, pairs, site, direction, roles=["scene"])
        same(effect.patched, expected_cells(model, pairs, site, direction, ["scene"]))


# ---- windows, sets and groups of neurons ----


def span_of(layer: int, window: int) -> list[int]:
    first = layer - (window - 1) // 2
    return [at for at in range(first, first + window) if 0 <= at < N_LAYERS]


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", SITES)
def test_windows_equal_several_replacements_at_once(
    model: HookedTransformer, pairs: PromptPairs, ragged: PromptPairs, site: str, direction: str
) -> None:
    has_heads = sites.site(site).has_heads
    units: list[Any] = [[head] for head in range(model.n_heads_of(site))] if has_heads else [None]
    for window, these, places in ((2, pairs, [4]), (3, ragged, ["noun"])):
        where = {"positions": places} if these is pairs else {"roles": places}
        effect = sweep(model, these, site, direction, window=window, **where)
        cells = [
            ([(at, unit) for at in span_of(layer, window)], place)
            for layer in range(N_LAYERS)
            for unit in units
            for place in places
        ]
        same(effect.patched.values.reshape(len(these), -1), patched(model, these, site, direction, cells))
        assert effect.attrs["window"] == window


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("site", HEADS)
def test_sets_of_heads_equal_several_replacements_at_once(
    model: HookedTransformer, ragged: PromptPairs, site: str, direction: str
) -> None:
    members = {
        "across": [(0, 1), (2, 0), (0, 0)],
        "one layer": [(1, 0), (1, 1)],
        "one head": [(-1, 1)],
        "other": [(1, 1), (2, 1)],
    }
    parts = {
        "across": [(0, [0, 1]), (2, [0])],
        "one layer": [(1, [0, 1])],
        "one head": [(2, [1])],
        "other": [(1, [1]), (2, [1])],
    }
    for where, places in (({}, [None]), ({"roles": ["color", "noun"]}, ["color", "noun"])):
        effect = sweep(model, ragged, site, direction, sets=members, **where)
        assert list(effect.set.values) == list(members)
        cells = [(parts[label], place) for label in members for place in places]
        expected = patched(model, ragged, site, direction, cells)
        same(effect.patched.values.reshape(len(ragged), -1), expected)


@BOTH
@DIRECTIONS
def test_sets_of_layers_equal_several_replacements_at_once(
    model: HookedTransformer, ragged: PromptPairs, direction: str
) -> None:
    members = {"ends": [0, 2], "first": [0], "late": [1, -1]}
    for site in STREAMS:
        effect = sweep(model, ragged, site, direction, sets=members, roles=["color", "noun"])
        assert effect.patched.dims == ("prompt", "set", "role")
        cells = [([(layer % 3, None) for layer in of], at) for of in members.values() for at in ("color", "noun")]
        expected = patched(model, ragged, site, direction, cells)
        same(effect.patched.values.reshape(len(ragged), -1), expected)


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("window", [1, 2])
def test_groups_of_neurons_equal_a_hook_on_those_neurons(
    model: HookedTransformer, ragged: PromptPairs, direction: str, window: int
) -> None:
    base, source = runs_of(ragged, direction)
    new = run.activations(model, source, "mlp_post")
    groups = np.array_split(np.arange(model.cfg.d_mlp), 5)
    effect = sweep(model, ragged, "mlp_post", direction, neuron_groups=5, window=window, roles=["color", "answer"])
    assert effect.patched.dims == ("prompt", "layer", "neuron_group", "role")
    assert effect.neuron_group.values[1] == f"{groups[1][0]}-{groups[1][-1]}"
    each = torch.arange(len(ragged))
    at, right, wrong = (torch.tensor(a) for a in (ragged.answer_position, ragged.correct, ragged.incorrect))
    for layer in range(N_LAYERS):
        for g, group in enumerate(groups):
            for r, role in enumerate(("color", "answer")):
                mask = torch.tensor(run.token_mask(ragged.clean, role))[:, :, None]
                mask = mask & torch.isin(torch.arange(model.cfg.d_mlp), torch.tensor(group))
                hooks = [
                    (f"blocks.{own}.mlp.hook_post", lambda x, hook, m=mask, v=new[own]: torch.where(m, v, x))
                    for own in span_of(layer, window)
                ]
                with torch.inference_mode():
                    ids = torch.tensor(getattr(ragged, base).ids)
                    last = model.bridge.run_with_hooks(ids, fwd_hooks=hooks)[each, at]
                gap = (last[each, right] - last[each, wrong]).numpy()
                close(effect.patched[:, layer, g, r], gap, size=LOGITS)


# ---- ablations and knockouts ----


@BOTH
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
@pytest.mark.parametrize("site", SITES)
def test_ablations_equal_the_intervention(
    model: HookedTransformer, pairs: PromptPairs, ragged: PromptPairs, site: str, kind: Any
) -> None:
    has_heads = sites.site(site).has_heads
    units: list[Any] = [[head] for head in range(model.n_heads_of(site))] if has_heads else [None]
    for these, which, places, window in ((pairs, "clean", [4], 1), (ragged, "corrupted", ["noun"], 2)):
        where: dict[str, Any] = {"positions": places} if these is pairs else {"roles": places}
        if these is ragged and kind == "mean" and site == "pattern":
            with pytest.raises(InterpError, match="prompts of one length"):
                ablation_sweep(model, these, site, kind, **where)
            continue
        effect = ablation_sweep(model, these, site, kind, which=which, window=window, seed=4, **where)
        cells = [(layer, unit, place) for layer in range(N_LAYERS) for unit in units for place in places]
        expected = [
            score(
                model, these, which,
                interventions=[Ablate(site=site, kind=kind, layers=span_of(layer, window), heads=unit, at=at, seed=4)],
            )
            for layer, unit, at in cells
        ]  # fmt: skip
        same(effect.ablated.values.reshape(len(these), -1), np.stack(expected, axis=1))
        close(effect.unchanged, score(model, these, which), size=LOGITS)
        np.testing.assert_array_equal(effect.ablation_effect, effect.ablated - effect.unchanged)
        assert effect.ablation_effect.values.std() > 3 * allowed("pass", size=LOGITS)


@BOTH
def test_ablating_whole_heads_and_sets(model: HookedTransformer, ragged: PromptPairs) -> None:
    effect = ablation_sweep(model, ragged, "z", "mean", sets={"two": [(0, 1), (2, 3)]})
    both = [Ablate(site="z", kind="mean", layers=[0], heads=[1]), Ablate(site="z", kind="mean", layers=[2], heads=[3])]
    same(effect.ablated[:, 0], score(model, ragged, interventions=both))


@BOTH
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("by_head", [False, True])
def test_knockouts_equal_the_intervention(
    model: HookedTransformer, pairs: PromptPairs, ragged: PromptPairs, window: int, by_head: bool
) -> None:
    units: list[Any] = [[head] for head in range(model.cfg.n_heads)] if by_head else [None]
    for these, which, edges in (
        (pairs, "clean", ["noun<-scene", "answer<-color"]),
        (ragged, "corrupted", ["noun<-color", "answer<-noun", "answer<-color"]),
    ):
        effect = knockout_sweep(model, these, edges, which=which, window=window, by_head=by_head)
        assert effect.cut.dims == ("prompt", "layer", *(("head",) if by_head else ()), "edge")
        expected = [
            score(
                model, these, which,
                interventions=[
                    Knockout(
                        dest=edge.split("<-")[0], src=edge.split("<-")[1], layers=span_of(layer, window), heads=unit
                    )
                ],
            )
            for layer in range(N_LAYERS)
            for unit in units
            for edge in edges
        ]  # fmt: skip
        same(effect.cut.values.reshape(len(these), -1), np.stack(expected, axis=1))
        np.testing.assert_array_equal(effect.cut_effect, effect.cut - effect.unchanged)


def test_a_source_that_comes_after_its_destination_is_no_row(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    effect = knockout_sweep(gpt2, pairs, ["color<-noun"])
    assert effect.attrs["rows_run"] == 0
    assert (effect.cut_effect == 0).all()


# ---- other numbers than the logit difference ----


@BOTH
@DIRECTIONS
@pytest.mark.parametrize("metric", ["log_probability", "probability", "rank"])
def test_other_metrics(model: HookedTransformer, ragged: PromptPairs, metric: str, direction: str) -> None:
    for site in ("resid_pre", "mlp_post", "resid_mid"):
        effect = sweep(model, ragged, site, direction, metric, roles=["color", "noun"], minimum_gap=0.0)
        cells = [([(layer, None)], at) for layer in range(N_LAYERS) for at in ("color", "noun")]
        expected = patched(model, ragged, site, direction, cells, metric)
        found = effect.patched.values.reshape(len(ragged), -1)
        close(found, expected, size=LOGITS)
        close(effect.clean, score(model, ragged, "clean", metric), size=LOGITS)
        close(effect.corrupted, score(model, ragged, "corrupted", metric), size=LOGITS)


@pytest.fixture(scope="module")
def whole(ragged: PromptPairs) -> PromptPairs:
    """Answers of one to three tokens, scored whole."""
    return replace(
        ragged,
        answer_position=ragged.clean.lengths - 1,
        answer_policy="sum_logprob",
        correct_tokens=((5, 6), (5,), (5, 1, 2), (7, 8)),
        incorrect_tokens=((9,), (9, 10, 11), (13, 4), (9, 3)),
    )


@combinations([("gpt2", "denoising"), ("llama", "noising")], name=NAMES, direction=BOTH_WAYS)
def test_whole_answers_equal_scoring_each_answer(model: HookedTransformer, whole: PromptPairs, direction: str) -> None:
    """The patched prompt is continued by the answer; each token's log-probability is read off a whole pass."""
    base, _ = runs_of(whole, direction)
    for site, heads in (("resid_pre", None), ("k", [1])):
        effect = sweep(model, whole, site, direction, roles=["color", "noun"], minimum_gap=0.0)
        for layer in (0, 2):
            for role in ("color", "noun"):
                sums = []
                for answers in (whole.correct_tokens, whole.incorrect_tokens):
                    longer = [[*row, *more[:-1]] for row, more in zip(rows_of(whole, base), answers, strict=True)]
                    other = [[*row, *more[:-1]] for row, more in zip(source_of(whole, base), answers, strict=True)]
                    sums.append(summed(model, whole, site, layer, heads, role, longer, other, answers))
                found = effect.patched.sel(layer=layer, role=role)
                found = found if heads is None else found[:, heads[0]]
                close(found, np.array(sums[0]) - np.array(sums[1]), size=sums)


def rows_of(pairs: PromptPairs, which: str) -> list[list[int]]:
    """The ids up to the answer's position: what follows it is not read."""
    ids = getattr(pairs, which).ids
    return [row[: at + 1].tolist() for row, at in zip(ids, pairs.answer_position, strict=True)]


def source_of(pairs: PromptPairs, base: str) -> list[list[int]]:
    return rows_of(pairs, "clean" if base == "corrupted" else "corrupted")


def summed(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    layer: int,
    heads: Sequence[int] | None,
    role: str,
    longer: list[list[int]],
    other: list[list[int]],
    answers: Sequence[Sequence[int]],
) -> list[float]:
    """One prompt at a time, by the bridge's own hooks: the summed log-probability of its answer after the patch."""
    name = sites.site(site).hook_name(layer)
    out = []
    for i, (row, source, answer) in enumerate(zip(longer, other, answers, strict=True)):
        start, end = pairs.clean.spans(role)[i]
        with torch.inference_mode():
            _, cache = model.bridge.run_with_cache(torch.tensor([source]))
            new = cache[name]

            def put(tensor: torch.Tensor, hook: Any, new: torch.Tensor = new, at: Any = slice(start, end)) -> Any:
                tensor = tensor.clone()
                if heads is None:
                    tensor[:, at] = new[:, at]
                else:
                    tensor[:, at, heads] = new[:, at, heads]
                return tensor

            log_p = model.bridge.run_with_hooks(torch.tensor([row]), fwd_hooks=[(name, put)])[0].log_softmax(-1)
        first = len(row) - len(answer)
        out.append(sum(float(log_p[first + k, token]) for k, token in enumerate(answer)))
    return out


def test_an_answer_that_does_not_come_last_cannot_be_scored_whole(gpt2: HookedTransformer, ragged: PromptPairs) -> None:
    inside = replace(
        ragged, answer_policy="sum_logprob",
        correct_tokens=((5,), (5,), (5, 1), (7,)), incorrect_tokens=((9,), (9,), (13,), (9,)),
    )  # fmt: skip
    assert inside.answer_position[2] < inside.clean.lengths[2] - 1
    with pytest.raises(InterpError, match="Prompt 2 is scored at token 6 of 9: an answer of several tokens"):
        sweep(gpt2, inside, "resid_pre")


@BOTH
def test_the_plan_of_whole_answers_is_what_the_sweep_reports(model: HookedTransformer, whole: PromptPairs) -> None:
    for metric in ("logit_difference", "log_probability"):
        planned = plan(model, whole, "resid_pre", metric=metric)
        effect = sweep(model, whole, "resid_pre", metric=metric, minimum_gap=0.0)
        for name in ("rows_run", "rows_in_all", "planned_flop", "planned_peak_bytes", "batches"):
            attribute = {"rows_run": "rows", "planned_flop": "flop", "planned_peak_bytes": "peak_bytes"}.get(name, name)
            assert getattr(planned, attribute) == effect.attrs[name], name
        assert planned.rows_in_all == effect.patched.size * (2 if metric == "logit_difference" else 1)


@BOTH
def test_whole_answers_are_screened_by_their_difference(model: HookedTransformer, whole: PromptPairs) -> None:
    exact = sweep(model, whole, "resid_pre", minimum_gap=0.0)
    screened = sweep(model, whole, "resid_pre", minimum_gap=0.0, precision="bfloat16")
    assert exact.attrs["rows_run"] <= 2 * 64, "every row is checked"
    off = np.abs(screened.patched - exact.patched).values
    assert off.max() > 10 * allowed("pass", size=LOGITS)
    close(screened.attrs["screening_max_error"], off.max(), size=LOGITS)
    assert screened.patched.attrs["units"] == screened.clean.attrs["units"] == "nats"
    assert screened.patched.attrs["long_name"] == "difference of summed log-probabilities after the patch"


def test_progress_over_both_whole_answers_never_goes_back(gpt2: HookedTransformer, whole: PromptPairs) -> None:
    seen: list[tuple[int, int]] = []
    effect = sweep(gpt2, whole, "z", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * effect.patched.size, 2 * effect.patched.size)
    assert len({total for _, total in seen}) == 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# ---- identities ----


@BOTH
def test_patching_a_run_into_itself_is_skipped_and_changes_nothing(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    twice = replace(pairs, corrupted=pairs.clean)
    for site in SITES:
        effect = sweep(model, twice, site, roles=["scene", "noun"])
        assert effect.attrs["rows_run"] == 0
        assert (effect.patched == effect.clean).all()


@BOTH
def test_rows_that_are_run_again_without_a_change_give_the_same_run(
    model: HookedTransformer, ragged: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With row skipping off, every row goes the whole way and lands where the plain run does."""
    monkeypatch.setattr(execute.Sweep, "differs", property(lambda self: None))
    monkeypatch.setattr(execute, "_really_changed", lambda part, rows, base, source: rows)
    twice = replace(ragged, corrupted=ragged.clean)
    expected = score(model, twice)
    for site in SITES:
        for window in (1, 2):
            effect = sweep(model, twice, site, roles=["color", "noun"], window=window)
            assert effect.attrs["rows_run"] >= 0.4 * effect.attrs["rows_in_all"]
            unchanged = effect.patched - xr.DataArray(expected, dims="prompt")
            close(unchanged, 0, size=LOGITS)


@BOTH
@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
def test_changing_the_stream_everywhere_swaps_the_runs(model: HookedTransformer, pairs: PromptPairs, site: str) -> None:
    """Every token together: denoising gives the clean run, noising the corrupted one."""
    every = pairs.clean.with_roles({**pairs.clean.roles, "all": np.tile((0, 8), (4, 1))})
    whole_prompt = replace(pairs, clean=every, corrupted=pairs.corrupted.with_roles(every.roles))
    for direction, recovered in (("denoising", 1.0), ("noising", 0.0)):
        effect = sweep(model, whole_prompt, site, direction, roles=["all"], minimum_gap=1e-6)
        gap = np.abs(effect.clean - effect.corrupted).values
        error = np.abs(effect.recovered.values[..., 0] - recovered) * gap[:, None]
        close(error, 0, size=LOGITS)


# ---- batches, chunks and memory ----


def many(model: HookedTransformer, pairs: PromptPairs) -> dict[str, xr.Dataset]:
    """A sweep of every kind."""
    some = {"roles": ["color", "noun"]}
    return {
        "resid_pre": sweep(model, pairs, "resid_pre", **some),
        "z": sweep(model, pairs, "z", "noising"),
        "k": sweep(model, pairs, "k", **some),
        "pattern": sweep(model, pairs, "pattern", "noising", **some),
        "mlp_post": sweep(model, pairs, "mlp_post", neuron_groups=3, **some),
        "probability": sweep(model, pairs, "attn_out", metric="log_probability", **some),
        "window": sweep(model, pairs, "v", window=2, **some),
        "set": sweep(model, pairs, "resid_mid", sets={"a": [0, 2], "b": [1]}, **some),
        "zero": ablation_sweep(model, pairs, "z", "zero", **some),
        "mean": ablation_sweep(model, pairs, "k", "mean", window=2),
        "resample": ablation_sweep(model, pairs, "mlp_out", "resample", which="corrupted", **some),
        "knockout": knockout_sweep(model, pairs, ["noun<-color"], window=2),
        "by head": knockout_sweep(model, pairs, ["answer<-color"], by_head=True),
    }


def value(effect: xr.Dataset) -> np.ndarray:
    return np.asarray(effect[next(name for name in ("patched", "ablated", "cut") if name in effect)])


@combinations([("gpt2", "ragged"), ("llama", "pairs")], name=NAMES, these=["pairs", "ragged"])
@pytest.mark.parametrize(("setting", "small"), [("CACHE_BYTES", 1), ("TOKENS_PER_BATCH", {"cpu": 20})])
def test_small_chunks_and_batches_give_the_same_numbers(
    model: HookedTransformer,
    these: str,
    setting: str,
    small: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = request.getfixturevalue(these)
    before = many(model, prompts)
    monkeypatch.setattr(limits, setting, small)
    monkeypatch.setattr(limits, "BATCH_BYTES", {"cpu": 0})
    after = many(model, prompts)
    batches = [sum(effect.attrs["batches"] for effect in found.values()) for found in (before, after)]
    assert batches[1] > batches[0] + len(before) / 2
    for kind, effect in before.items():
        same(value(after[kind]), value(effect))
        assert after[kind].attrs["rows_run"] == effect.attrs["rows_run"]


@BOTH
def test_a_small_memory_gives_the_same_numbers(model: HookedTransformer, ragged: PromptPairs) -> None:
    for site in ("z", "mlp_post"):
        effect = sweep(model, ragged, site, memory=120_000)
        assert effect.attrs["batches"] > 2
        same(effect.patched, sweep(model, ragged, site).patched.values)


class Runs:
    """Stands in for ``run_batch``: counts what is run, and runs out of memory where it is told to."""

    def __init__(self, fails: Callable[[int, int], BaseException | None]) -> None:
        self.original, self.fails, self.calls = execute.run_batch, fails, 0
        self.done: list[tuple[int, int]] = []

    def __call__(self, chunk: Any, entries: Any, values: Any, readout: Any) -> Any:
        self.calls += 1
        assert torch.is_inference_mode_enabled()
        error = self.fails(self.calls, sum(entry.tokens for entry in entries))
        if error is not None:
            raise error
        self.done += [pair for e in entries for pair in zip(e.cell.tolist(), e.prompt.tolist(), strict=True)]
        out = self.original(chunk, entries, values, readout)
        assert not any(part.requires_grad for part in out)
        return out


def test_out_of_memory_halves_the_batch_and_keeps_what_is_finished(
    gpt2: HookedTransformer, ragged: PromptPairs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        expected = sweep(gpt2, ragged, "z", roles=["color", "noun"])
        monkeypatch.setattr(limits, "TOKENS_PER_BATCH", {"cpu": 60})
        monkeypatch.setattr(limits, "BATCH_BYTES", {"cpu": 0})
        # The third batch and all that large are refused.
        runs = Runs(lambda call, tokens, error=error: error if call > 2 and tokens > 30 else None)
        monkeypatch.setattr(execute, "run_batch", runs)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="interp.sweeps.exact.cost"):
            effect = sweep(gpt2, ragged, "z", roles=["color", "noun"])
        monkeypatch.undo()
        same(effect.patched, expected.patched.values)
        assert len(runs.done) == len(set(runs.done)) == effect.attrs["rows_run"]
        assert runs.calls > 4
        warnings = [record.getMessage() for record in caplog.records if "Out of memory" in record.getMessage()]
        assert len(warnings) == 1
        assert "going on with" in warnings[0]


def test_one_row_that_does_not_fit_is_said_in_one_line(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.logits_at(gpt2, pairs.clean)
    monkeypatch.setattr(execute, "run_batch", Runs(lambda call, tokens: torch.OutOfMemoryError("full")))
    with pytest.raises(InterpError, match="a single row"):
        sweep(gpt2, pairs, "z")
    assert torch.equal(run.logits_at(gpt2, pairs.clean), before)


def test_another_error_passes_through(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.logits_at(gpt2, pairs.clean)
    monkeypatch.setattr(execute, "run_batch", Runs(lambda call, tokens: RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sweep(gpt2, pairs, "z")
    assert torch.equal(run.logits_at(gpt2, pairs.clean), before)


# ---- plans ----


@BOTH
@pytest.mark.parametrize("site", SITES)
def test_the_plan_is_what_the_sweep_reports(model: HookedTransformer, ragged: PromptPairs, site: str) -> None:
    """Where no activations coincide, tokens alone say which rows are run."""
    for options in ({"roles": ["color", "noun"]}, {"roles": ["color"], "window": 2}):
        planned = plan(model, ragged, site, "noising", **options)
        effect = sweep(model, ragged, site, "noising", **options)
        assert planned.rows == effect.attrs["rows_run"]
        assert planned.rows_in_all == effect.attrs["rows_in_all"] == effect.patched.size
        assert planned.flop == effect.attrs["planned_flop"]
        assert planned.batches == effect.attrs["batches"]
        assert planned.peak_bytes == effect.attrs["planned_peak_bytes"]
        assert str(planned).startswith(f"{site}: {planned.rows} of {planned.rows_in_all} rows are computed")
        assert str(planned).count("\n") == 0
        assert "floating-point operations" in str(planned)


@BOTH
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_the_plan_of_ablations_and_knockouts_is_what_is_reported(
    model: HookedTransformer, ragged: PromptPairs, kind: Any
) -> None:
    where: dict[str, Any] = {"roles": ["color", "noun"], "window": 2}
    cut: dict[str, Any] = {"edges": ["noun<-color"], "window": 2, "by_head": True}
    for planned, effect in (
        (
            plan(model, ragged, Ablation("z", kind, where=Where(**where))),
            ablation_sweep(model, ragged, "z", kind, **where),
        ),
        (plan(model, ragged, AttentionKnockout(**cut)), knockout_sweep(model, ragged, **cut)),
    ):
        assert planned.rows == effect.attrs["rows_run"]
        assert planned.rows_in_all == effect.attrs["rows_in_all"]
        assert planned.flop == effect.attrs["planned_flop"]
        assert planned.peak_bytes == effect.attrs["planned_peak_bytes"]


@BOTH
def test_the_plan_of_a_screening_counts_the_rows_that_are_run_again(
    model: HookedTransformer, pairs: PromptPairs
) -> None:
    options: dict[str, Any] = {"positions": [2, 4, 5, 6]}
    exact = plan(model, pairs, "z", **options)
    planned = plan(model, pairs, "z", precision="bfloat16", **options)
    screened = sweep(model, pairs, "z", precision="bfloat16", **options)
    assert planned.rows == screened.attrs["rows_run"] == exact.rows > 64
    assert planned.flop > exact.flop
    assert abs(planned.flop / screened.attrs["planned_flop"] - 1) < 0.1
    half = sum(2 * matrix.weight.numel() for block in model.blocks.layers for matrix in block.matrices.values())
    assert planned.peak_bytes >= exact.peak_bytes - model.blocks.measured().packable_bytes + half


@pytest.mark.parametrize("name", ["opt", "mistral"])
@pytest.mark.parametrize("site", ["resid_pre", "mlp_post", "z"])
def test_the_plan_of_a_model_without_pieces_is_what_is_reported(
    model: HookedTransformer, pairs: PromptPairs, site: str
) -> None:
    planned = plan(model, pairs, site)
    assert f"through hooks ({model.cfg.architecture} is none of" in str(planned)
    effect = sweep(model, pairs, site)
    assert (planned.rows, planned.batches) == (effect.attrs["rows_run"], effect.attrs["batches"])
    assert (planned.flop, planned.peak_bytes) == (effect.attrs["planned_flop"], effect.attrs["planned_peak_bytes"])


def counted(
    call: Callable[[], xr.Dataset], monkeypatch: pytest.MonkeyPatch, *, watched: bool = True
) -> tuple[xr.Dataset, int]:
    """A result and its operations by PyTorch's counter.

    The counter knows neither oneDNN's linear layers, so products go through ``addmm`` here, nor the CPU's fused
    attention, which is counted as the rectangle of queries times keys (2 + 2 operations each). The plan counts the
    triangle that is seen, which is less: by at most 2 d_head h n^2 per row and layer, some per cent at these sizes.
    """
    monkeypatch.setattr(products, "_has_onednn", lambda: False)

    def attention(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
        rows, heads, dest, width = q
        return 2 * rows * heads * dest * k[2] * (width + v[3])

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={flash: attention})
    with counter:
        effect = call()
    assert not watched or any("attention" in str(name) for name in counter.get_flop_counts()["Global"])
    return effect, counter.get_total_flops()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HookedTransformer]:
    """Wide enough that matrix products, not attention, are most of the work."""
    root = tmp_path_factory.mktemp("wide")
    return {
        "gpt2": HookedTransformer.from_pretrained(make_gpt2(root / "gpt2", n_embd=64)),
        "llama": HookedTransformer.from_pretrained(make_llama(root / "llama", hidden_size=64, intermediate_size=160)),
        "mistral": HookedTransformer.from_pretrained(make_mistral(root / "mistral", hidden_size=64)),
        "opt": HookedTransformer.from_pretrained(
            make_opt(root / "opt", hidden_size=64, word_embed_proj_dim=64, ffn_dim=256)
        ),
    }


def long_pairs(n: int, length: int) -> PromptPairs:
    clean = random_ids(n, length, seed=5)
    corrupted = clean.copy()
    for place in (3, 8, 12):
        corrupted[:, place] = (corrupted[:, place] + 1 + np.arange(n) % (VOCAB - 1)) % VOCAB
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 3, "noun": 8})


FLOP_CASES = [
    *((site, {}) for site in SITES),
    *((site, {"positions": [3, 8]}) for site in ("resid_pre", "resid_mid", "z", "q", "pattern", "mlp_post")),
    *((site, {"window": 2}) for site in ("resid_pre", "z", "pattern", "mlp_post")),
    ("mlp_post", {"neuron_groups": 8}),
    ("resid_pre", {"metric": "log_probability"}),
    ("resid_mid", {"layers": [2]}),
    *(
        (swept, {"metric": projection(2, "noun", np.ones(64), site=read)})
        for swept, read in (("z", "resid_mid"), ("mlp_post", "attn_out"), ("resid_pre", "q"), ("v", "mlp_out"))
    ),
]


@BOTH
@pytest.mark.parametrize(("site", "options"), FLOP_CASES)
def test_planned_operations_are_those_that_are_made(
    wide: dict[str, HookedTransformer], name: str, site: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    effect, made = counted(lambda: sweep(wide[name], long_pairs(6, 16), site, **options), monkeypatch)
    assert 0.9 < effect.attrs["planned_flop"] / made < 1.02


@BOTH
def test_planned_operations_of_paths_and_knockouts_are_those_that_are_made(
    wide: dict[str, HookedTransformer], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = long_pairs(4, 16)
    for call in (
        lambda: path_patching(wide[name], pairs),
        lambda: path_patching(wide[name], pairs, receivers=["logits", "L1H0.q"]),
        *(
            partial(path_patching, wide[name], pairs, metric=projection(2, "noun", np.ones(64), site=site))
            for site in ("resid_pre", "resid_mid", "z", "q", "mlp_out")
        ),
        lambda: knockout_sweep(wide[name], pairs, ["noun<-color", "answer<-noun"], by_head=True),
    ):
        effect, made = counted(call, monkeypatch)
        assert 0.9 < effect.attrs["planned_flop"] / made < 1.02


@BOTH
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_planned_operations_of_ablations_are_those_that_are_made(
    wide: dict[str, HookedTransformer], name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ({"site": "z"}, {"site": "mlp_post", "positions": [3, 8]}, {"site": "resid_mid", "layers": [0, 1]}):
        effect, made = counted(
            lambda o=options: ablation_sweep(wide[name], long_pairs(6, 16), kind=kind, **o), monkeypatch
        )
        assert 0.9 < effect.attrs["planned_flop"] / made < 1.02


@pytest.mark.parametrize("name", ["opt", "mistral"])
@pytest.mark.parametrize(
    ("site", "options"), [("z", {}), ("resid_pre", {"positions": [3, 8]}), ("mlp_out", {"window": 2})]
)
def test_planned_operations_through_hooks_are_those_that_are_made(
    wide: dict[str, HookedTransformer],
    name: str,
    site: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = wide[name]
    if name == "opt" and site == "z":
        site = "v"
    model.block_call(16)  # what blocks are called with is recorded once per length
    effect, made = counted(lambda: sweep(model, long_pairs(6, 16), site, **options), monkeypatch, watched=False)
    assert 0.95 < effect.attrs["planned_flop"] / made < 1.05


def peak_bytes(call: Callable[[], xr.Dataset]) -> tuple[xr.Dataset, int]:
    """A result, and the most bytes that PyTorch's CPU allocator held for it at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        effect = call()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = int(np.cumsum([change for _, change in changes]).max())
    del profiled, events, changes
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):  # what is recorded takes some hundred MiB, which glibc would keep
        ctypes.CDLL(None).malloc_trim(0)
    return effect, held


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    """Llama of 6 layers, d_model 256: its activations are what takes memory."""
    sizes = {
        "num_hidden_layers": 6, "hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8,
        "num_key_value_heads": 2, "max_position_embeddings": 32,
    }  # fmt: skip
    return HookedTransformer.from_pretrained(make_llama(tmp_path_factory.mktemp("large"), **sizes))


@pytest.mark.parametrize(
    ("site", "options"),
    [
        ("k", {"layers": [0, 5]}),  # the traces are the most
        ("pattern", {"positions": [3, 8], "layers": [5]}),
        ("mlp_post", {"positions": [3, 8], "layers": [0]}),
        ("pattern", {"window": 2, "layers": [4], "memory": 20 * 2**20}),
    ],
)
def test_planned_bytes_are_an_upper_bound(large: HookedTransformer, site: str, options: dict[str, Any]) -> None:
    effect, held = peak_bytes(lambda: sweep(large, long_pairs(32, 32), site, **options))
    assert held > 10 * 2**20, "too little to measure"
    assert held <= effect.attrs["planned_peak_bytes"]


@pytest.mark.parametrize("memory", [4, 8, 30, 60])
@pytest.mark.parametrize("site", ["z", "resid_pre"])
def test_a_plan_keeps_to_the_memory_it_is_given(large: HookedTransformer, site: str, memory: int) -> None:
    assert plan(large, long_pairs(64, 32), site, memory=memory * 2**20).peak_bytes <= memory * 2**20


def test_a_plan_of_a_shallow_model_keeps_to_the_memory_it_is_given(tmp_path: Path) -> None:
    shallow = HookedTransformer.from_pretrained(make_gpt2(tmp_path, n_layer=2, n_embd=256, n_head=8, n_positions=32))
    for memory in (2, 3, 8):
        assert plan(shallow, long_pairs(64, 32), "z", memory=memory * 2**20).peak_bytes <= memory * 2**20
    for call in (plan, sweep):
        with pytest.raises(InterpError, match=r"needs 1\.\d MiB, 1\.0 MiB may be used"):
            call(shallow, long_pairs(64, 32), "z", memory=2**20)


@pytest.fixture(scope="module")
def large_mistral(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    sizes = {
        "num_hidden_layers": 3, "hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8,
        "num_key_value_heads": 2, "max_position_embeddings": 32,
    }  # fmt: skip
    return HookedTransformer.from_pretrained(make_mistral(tmp_path_factory.mktemp("large"), **sizes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "options"),
    [
        ("resid_pre", {"positions": [3, 8]}),
        ("pattern", {"layers": [1]}),
        ("z", {"window": 2, "memory": 12 * 2**20}),
        ("mlp_post", {"roles": ["color"], "memory": 8 * 2**20}),
    ],
)
def test_planned_bytes_through_hooks_are_an_upper_bound(
    large_mistral: HookedTransformer, site: str, options: dict[str, Any]
) -> None:
    prompts = long_pairs(16, 32)
    large_mistral.block_call(32)
    effect, held = peak_bytes(lambda: sweep(large_mistral, prompts, site, **options))
    planned = effect.attrs["planned_peak_bytes"]
    assert held > 2**20, "too little to measure"
    assert held <= planned <= options.get("memory", planned)
    if "memory" in options:
        unlimited = sweep(large_mistral, prompts, site, **{**options, "memory": None})
        same(effect.patched, unlimited.patched.values)


def test_out_of_memory_through_hooks_halves_the_batch_and_keeps_what_is_finished(
    mistral: HookedTransformer, ragged: PromptPairs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = sweep(mistral, ragged, "z", roles=["color", "noun"])
    original, done = mistral.resume, []

    def resume(stream: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        if len(stream) > 3 and done:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        done.append(len(stream))
        return original(stream, *rest, **named)

    monkeypatch.setattr(mistral, "resume", resume)
    monkeypatch.setattr(hooks.run, "rows_per_batch", lambda model, length: 10)
    with caplog.at_level(logging.WARNING, logger="interp.sweeps.exact.cost"):
        effect = sweep(mistral, ragged, "z", roles=["color", "noun"])
    same(effect.patched, expected.patched.values)
    assert sum(done) == effect.attrs["rows_run"]
    assert any("going on with 5" in record.getMessage() for record in caplog.records)
    monkeypatch.setattr(mistral, "resume", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(InterpError, match="a single row"):
        sweep(mistral, ragged, "z", roles=["color", "noun"])


# ---- screening in bfloat16 ----


@BOTH
def test_screening_says_how_far_off_it_is(model: HookedTransformer, pairs: PromptPairs) -> None:
    exact = sweep(model, pairs, "z", roles=["scene"])
    screened = sweep(model, pairs, "z", roles=["scene"], precision="bfloat16")
    off = (screened.patched - exact.patched).values
    assert exact.attrs["rows_run"] <= 64, "every row is checked"
    ran = screened.attrs["screening_rows"]
    assert 0 < ran <= screened.attrs["rows_run"]
    close(screened.attrs["screening_max_error"], np.abs(off).max(), size=LOGITS)
    close(screened.attrs["screening_rms_error"], np.sqrt((off**2).sum() / ran), size=LOGITS)
    effect = np.abs(exact.patched - exact.corrupted).values
    assert 0 < np.abs(off).max() < 0.05 * effect.max() + 0.02
    np.testing.assert_array_equal(screened.clean, exact.clean)
    np.testing.assert_array_equal(screened.corrupted, exact.corrupted)
    assert "screening_max_error" not in exact.attrs


@BOTH
def test_screening_checks_a_sample_of_a_larger_sweep(model: HookedTransformer, pairs: PromptPairs) -> None:
    for site, options in (("resid_pre", {}), ("v", {"window": 2, "positions": [2, 4, 5, 6]}), ("mlp_post", {})):
        exact = sweep(model, pairs, site, **options)
        screened = sweep(model, pairs, site, precision="bfloat16", **options)
        worst = np.abs(screened.patched - exact.patched).values.max()
        assert screened.attrs["screening_rows"] == min(64, screened.attrs["rows_run"])
        assert screened.attrs["screening_max_error"] <= worst + allowed("pass", size=LOGITS)
        assert worst < 5 * screened.attrs["screening_max_error"]
        effects = [(e.patched - e.corrupted).values.ravel() for e in (exact, screened)]
        assert np.corrcoef(*effects)[0, 1] > 0.95


def test_ablations_can_be_screened(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    exact = ablation_sweep(gpt2, pairs, "z", "mean")
    screened = ablation_sweep(gpt2, pairs, "z", "mean", precision="bfloat16")
    close(np.abs(screened.ablated - exact.ablated).max(), screened.attrs["screening_max_error"], size=LOGITS)
    np.testing.assert_array_equal(screened.unchanged, exact.unchanged)


# ---- through hooks, for other architectures ----


@BOTH
@combinations([("pairs", "noising"), ("ragged", "denoising")], these=["pairs", "ragged"], direction=BOTH_WAYS)
def test_hooks_give_the_numbers_of_the_weights(
    model: HookedTransformer,
    these: str,
    direction: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = request.getfixturevalue(these)
    weights = many(model, prompts)
    usual = (these == "pairs") == (direction == "noising")
    others = ("resid_post", "mlp_out", "q") if usual else SITES  # those are in none of ``many``
    everything = {site: sweep(model, prompts, site, direction, roles=["noun", "color"]) for site in others}
    without_blocks(monkeypatch, model)
    through = many(model, prompts)
    for kind, effect in weights.items():
        same(value(through[kind]), value(effect))
        assert (effect.attrs["engine"], through[kind].attrs["engine"]) == ("weights", "hooks")
        assert through[kind].attrs["engine_reason"] == "asked by the test"
    for site, effect in everything.items():
        other = sweep(model, prompts, site, direction, roles=["noun", "color"])
        same(other.patched, effect.patched.values)
        close(other.clean, effect.clean, size=LOGITS)
        close(other.corrupted, effect.corrupted, size=LOGITS)


@pytest.mark.parametrize(
    ("name", "site"),
    [*(("mistral", site) for site in SITES), *(("opt", site) for site in ("resid_mid", "mlp_post", "k"))],
)
@DIRECTIONS
def test_an_architecture_of_its_own_is_swept_through_hooks(
    model: HookedTransformer, pairs: PromptPairs, ragged: PromptPairs, site: str, direction: str
) -> None:
    for these, places in ((pairs, [2, 4, 6]), (ragged, ["color", "noun"])):
        where = {"positions": places} if these is pairs else {"roles": places}
        effect = sweep(model, these, site, direction, **where)
        assert effect.attrs["engine"] == "hooks"
        assert effect.attrs["engine_reason"].startswith(f"{model.cfg.architecture} is none of")
        same(effect.patched, expected_cells(model, these, site, direction, places))
    has_heads = sites.site(site).has_heads
    units: list[Any] = [[head] for head in range(model.n_heads_of(site))] if has_heads else [None]
    cells = [([(layer, unit), (layer + 1, unit)], "noun") for layer in (0, 1) for unit in units]
    effect = sweep(model, ragged, site, direction, window=2, roles=["noun"], layers=[0, 1])
    expected = patched(model, ragged, site, direction, cells)
    same(effect.patched.values.reshape(len(ragged), -1), expected)


def test_knockouts_and_ablations_of_an_architecture_of_its_own(mistral: HookedTransformer, ragged: PromptPairs) -> None:
    cut = knockout_sweep(mistral, ragged, ["noun<-color"])
    items = [Knockout(dest="noun", src="color", layers=[layer]) for layer in range(N_LAYERS)]
    expected = np.stack([score(mistral, ragged, interventions=[item]) for item in items], axis=1)
    same(cut.cut[..., 0], expected)
    ablated = ablation_sweep(mistral, ragged, "pattern", "zero", layers=[1], roles=["noun"])
    zero = [Ablate(site="pattern", kind="zero", layers=[1], heads=[head], at="noun") for head in range(4)]
    expected = np.stack([score(mistral, ragged, interventions=[item]) for item in zero], axis=1)
    same(ablated.ablated[:, 0, :, 0], expected)


@pytest.mark.parametrize(
    "call", [lambda m, p: sweep(m, p, "pattern"), lambda m, p: knockout_sweep(m, p, ["noun<-color"])]
)
def test_a_site_whose_edits_are_discarded_is_refused(
    opt: HookedTransformer, pairs: PromptPairs, call: Callable[..., Any]
) -> None:
    """OPT's attention runs inside Hugging Face's module: the bridge warns and goes on without the edit."""
    with pytest.raises(InterpError, match=r"pattern|scores"):
        call(opt, pairs)


def test_what_needs_the_weights_is_refused_in_one_line(opt: HookedTransformer, pairs: PromptPairs) -> None:
    with pytest.raises(InterpError, match="OPTForCausalLM is none of") as paths:
        path_patching(opt, pairs)
    with pytest.raises(InterpError, match=r"bfloat16.*OPTForCausalLM is none of") as screening:
        sweep(opt, pairs, "z", precision="bfloat16")
    assert "\n" not in str(paths.value) + str(screening.value)


def test_hooks_report_progress(opt: HookedTransformer, pairs: PromptPairs) -> None:
    seen: list[tuple[int, int]] = []
    effect = sweep(opt, pairs, "z", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (effect.patched.size, effect.patched.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# ---- the trained model ----


@pytest.mark.slow
@DIRECTIONS
@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "mlp_post"])
def test_the_trained_model_on_its_own_task(mini: HookedTransformer, site: str, direction: str) -> None:
    pairs = tasks.build("color-noun", tokenizer=mini, n=2)
    roles = list(pairs.roles)[:3]
    effect = sweep(mini, pairs, site, direction, roles=roles)
    has_heads = sites.site(site).has_heads
    heads: list[int | None] = list(range(4)) if has_heads else [None]
    expected = one_by_one(mini, pairs, site, direction, heads, roles)
    same(effect.patched, expected if has_heads else expected[:, :, 0], MINI_LOGITS)


@pytest.mark.slow
def test_windows_of_the_trained_model_on_its_own_task(mini: HookedTransformer) -> None:
    pairs = tasks.build("color-noun", tokenizer=mini, n=2)
    effect = sweep(mini, pairs, "z", window=3)
    spans = [range(max(layer - 1, 0), min(layer + 2, 4)) for layer in range(4)]
    cells = [([(at, [head]) for at in span], None) for span in spans for head in range(4)]
    expected = patched(mini, pairs, "z", "denoising", cells)
    same(effect.patched.values.reshape(len(pairs), -1), expected, MINI_LOGITS)


# ---- requests that cannot be met ----


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (sweep, {"site": "z", "window": 0}, "window is 0; it counts layers and is at least 1"),
        (sweep, {"site": "z", "layers": [3]}, "Layer 3 is out of range"),
        (sweep, {"site": "z", "sets": {"a": [(0, 1)]}, "layers": [0]}, "sets name their own layers"),
        (sweep, {"site": "z", "sets": {"a": [(0, 1)]}, "window": 2}, "sets name their own layers"),
        (sweep, {"site": "mlp_post", "sets": {"a": [0]}, "neuron_groups": 2}, "sets name their own layers"),
        (sweep, {"site": "z", "sets": {"a": [0]}}, r"Set 'a' holds 0; at site 'z' a set holds \(layer, head\) pairs"),
        (sweep, {"site": "resid_pre", "sets": {"a": [(0, 1)]}}, r"Set 'a' holds \(0, 1\); .* a set holds layers"),
        (sweep, {"site": "z", "sets": {"a": []}}, "Set 'a' is empty"),
        (sweep, {"site": "z", "sets": {"a": [(1, 4)]}}, r"Set 'a' holds head \(1, 4\), .* has 4 heads at 'z'"),
        (sweep, {"site": "z", "sets": {"a": [(7, 0)]}}, "Layer 7 is out of range"),
        (sweep, {"site": "z", "neuron_groups": 2}, "neuron_groups is for mlp_post; site 'z' has no neurons"),
        (sweep, {"site": "mlp_post", "neuron_groups": 0}, "neuron_groups is 0"),
        (sweep, {"site": "mlp_post", "neuron_groups": 1000}, "neuron_groups is 1000; .* 128 neurons per layer"),
        (sweep, {"site": "z", "precision": "float16"}, "Unknown precision 'float16'. Choose 'float32' or 'bfloat16'"),
        (sweep, {"site": "z", "memory": 10}, r"needs 0\.1 MiB, 0\.0 MiB may be used. Give memory="),
        (sweep, {"site": "rot_q"}, "rot_q"),
        (plan, {"site": "z", "direction": "sideways"}, "Unknown direction 'sideways'"),
        (ablation_sweep, {"site": "z", "kind": "median"}, "(?i)unknown ablation 'median'"),
        (ablation_sweep, {"site": "z", "kind": "zero", "which": "both"}, "Unknown run 'both'"),
        (ablation_sweep, {"site": "result", "kind": "zero"}, "Site 'result' is not swept"),
        (ablation_sweep, {"site": "z", "kind": "zero", "metric": "loss"}, "(?i)unknown metric 'loss'"),
        (knockout_sweep, {"edges": ["noun"]}, "Edge 'noun' is not destination<-source"),
        (knockout_sweep, {"edges": ["noun<-"]}, "is not destination<-source"),
        (knockout_sweep, {"edges": []}, "edges is empty"),
        (knockout_sweep, {"edges": ["noun<-colour"]}, "colour"),
        (knockout_sweep, {"edges": ["noun<-color"], "window": 0}, "window is 0"),
        (knockout_sweep, {"edges": ["noun<-color"], "which": "neither"}, "Unknown run 'neither'"),
    ],
)
def test_what_is_wrong_is_said(
    gpt2: HookedTransformer, pairs: PromptPairs, call: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError, match=message) as caught:
        call(gpt2, pairs, **arguments)
    assert "\n" not in str(caught.value)


def test_a_cut_that_leaves_nothing_to_attend_to_is_refused(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    first = {**pairs.clean.roles, "start": np.tile((0, 3), (4, 1))}
    blind = replace(pairs, clean=pairs.clean.with_roles(first), corrupted=pairs.corrupted.with_roles(first))
    with pytest.raises(InterpError, match="leaves token 0 of prompt 0 with nothing to attend to"):
        knockout_sweep(gpt2, blind, ["start<-start"])


def test_whole_answers_are_refused_where_one_number_is_needed(gpt2: HookedTransformer, whole: PromptPairs) -> None:
    for call in (
        lambda: ablation_sweep(gpt2, whole, "z", "zero"),
        lambda: knockout_sweep(gpt2, whole, ["noun<-color"]),
        lambda: path_patching(gpt2, whole),
    ):
        with pytest.raises(InterpError, match="expand_answers"):
            call()
    with pytest.raises(InterpError, match="sweep by role"):
        sweep(gpt2, whole, "resid_pre", positions=[1])


def test_a_prompt_without_a_partner_cannot_be_resampled(gpt2: HookedTransformer, ragged: PromptPairs) -> None:
    with pytest.raises(InterpError, match="the only one of 9 tokens"):
        ablation_sweep(gpt2, ragged.select([0, 1, 3]), "z", "resample")


def test_interventions_are_values(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    """The references above really act: an intervention moves the score."""
    item: Intervention = Ablate(site="z", kind="zero")
    assert np.abs(score(gpt2, pairs, interventions=[item]) - score(gpt2, pairs)).max() > 1e-2


# ---- several sites at once ----


@BOTH
@combinations(
    [
        ("pairs", "denoising", {}),
        ("ragged", "noising", {"roles": ["color", "noun"]}),
        ("ragged", "denoising", {"roles": ["noun"], "window": 2}),
        ("pairs", "noising", {"layers": [1, 2]}),
    ],
    these=["pairs", "ragged"],
    direction=BOTH_WAYS,
    options=[{}, {"roles": ["color", "noun"]}, {"roles": ["noun"], "window": 2}, {"layers": [1, 2]}],
)
def test_sites_swept_together_have_the_numbers_of_each_alone(
    model: HookedTransformer, these: str, direction: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    prompts = request.getfixturevalue(these)
    together = sweep_sites(model, prompts, SITES, direction, minimum_gap=0.0, **options)
    planned = plan(model, prompts, Patching(SITES, direction, where=Where(**options)))
    assert list(together) == list(SITES)
    for site, effect in together.items():
        alone = sweep(model, prompts, site, direction, minimum_gap=0.0, **options)
        for name in ("patched", "clean", "corrupted"):
            close(effect[name], alone[name], size=LOGITS)
        assert effect.attrs["site"] == site
        assert effect.attrs["title"] == alone.attrs["title"]
        assert effect.attrs["rows_in_all"] == alone.attrs["rows_in_all"]
        assert effect.attrs["rows_run"] <= alone.attrs["rows_run"]
    made = sum(effect.attrs["planned_flop"] for effect in together.values())
    close(planned.flop, made, "product", dtype="float64")
    assert planned.rows == sum(effect.attrs["rows_run"] for effect in together.values())
    assert planned.rows_in_all == sum(effect.patched.size for effect in together.values())


@BOTH
def test_what_says_the_same_is_run_once(model: HookedTransformer, pairs: PromptPairs) -> None:
    """``resid_mid`` and ``resid_post`` of a layer are ``resid_pre`` of the next: exactly equal, and not run again."""
    streams = sweep_sites(model, pairs, ["resid_pre", "resid_mid", "resid_post"])
    pre, mid, post = (effect.patched.values for effect in streams.values())
    np.testing.assert_array_equal(mid, post)
    np.testing.assert_array_equal(mid[:, :-1], pre[:, 1:])
    assert streams["resid_post"].attrs["rows_run"] == 0
    last = sweep(model, pairs, "resid_mid", layers=N_LAYERS - 1)
    assert streams["resid_mid"].attrs["rows_run"] == last.attrs["rows_run"] > 0
    assert (mid[:, -1] != streams["resid_mid"].corrupted.values[:, None]).any()


def test_sites_swept_together_cost_less_and_plan_what_is_made(
    wide: dict[str, HookedTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = long_pairs(6, 16)
    together: dict[str, xr.Dataset] = {}

    def call() -> xr.Dataset:
        together.update(sweep_sites(wide["gpt2"], pairs, SITES))
        return together["z"]

    _, made = counted(call, monkeypatch)
    planned = sum(effect.attrs["planned_flop"] for effect in together.values())
    assert 0.9 < planned / made < 1.02
    assert planned < 0.9 * sum(plan(wide["gpt2"], pairs, site).flop for site in SITES)


def test_batches_of_sites_together_are_counted_once(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOKENS_PER_BATCH", {"cpu": 60})
    monkeypatch.setattr(limits, "BATCH_BYTES", {"cpu": 0})
    planned = plan(gpt2, pairs, SITES)
    runs = Runs(lambda call, tokens: None)
    monkeypatch.setattr(execute, "run_batch", runs)
    together = sweep_sites(gpt2, pairs, SITES)
    assert runs.calls == planned.batches == sum(effect.attrs["batches"] for effect in together.values()) > 10
    assert planned.chunks == (len(pairs),)


def test_rows_that_start_far_apart_do_not_enter_together(
    gpt2: HookedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Group] = []
    original = execute.find_groups

    def find_groups(*rest: Any, **named: Any) -> list[Group]:
        made.extend(original(*rest, **named))
        return list(made)

    monkeypatch.setattr(execute, "find_groups", find_groups)
    groups = []
    for worth, most in ((0.0, 2.5), (float("inf"), 2.5), (float("inf"), 1.3)):
        made.clear()
        monkeypatch.setattr(exact_planner, "GROUP_FLOP", worth)
        monkeypatch.setattr(exact_planner, "MOST_PADDED", most)
        planned = plan(gpt2, long_pairs(2, 24), "resid_pre")
        assert sum(entry.rows for entry in made) == planned.rows
        riding = [entry for entry in made if not entry.scored]
        assert all(entry.tokens <= most * (entry.end - entry.starts).sum() for entry in riding)
        assert any(not entry.uniform for entry in riding) == (worth > 0)
        groups.append(sum(entry.layer == 1 for entry in riding))
    assert groups == [21, 1, groups[2]]
    assert 1 < groups[2] < 21


def test_planned_bytes_of_sites_together_are_an_upper_bound(large: HookedTransformer) -> None:
    effect, held = peak_bytes(
        lambda: sweep_sites(large, long_pairs(16, 32), ["z", "resid_mid", "pattern"], layers=[4, 5], memory=30 * 2**20)[
            "z"
        ]
    )
    assert 10 * 2**20 < held <= effect.attrs["planned_peak_bytes"] <= 30 * 2**20


@BOTH
def test_sites_together_through_hooks_in_bfloat16_and_of_whole_answers(
    model: HookedTransformer, pairs: PromptPairs, whole: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["resid_pre", "resid_post", "z"]
    for these, where in ((pairs, {"positions": [2, 4]}), (whole, {"roles": ["color", "noun"]})):
        expected = {site: sweep(model, these, site, minimum_gap=0.0, **where).patched for site in names}
        seen: list[tuple[int, int]] = []
        keep = seen.append
        found = sweep_sites(
            model, these, names, minimum_gap=0.0, progress=lambda *counts, keep=keep: keep(counts), **where
        )
        for site in names:
            close(found[site].patched, expected[site], size=LOGITS)
        assert seen[-1][0] == seen[-1][1]
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        for site, effect in sweep_sites(model, these, names, minimum_gap=0.0, precision="bfloat16", **where).items():
            assert 0 < np.abs(effect.patched - expected[site]).values.max() < 3 * effect.attrs["screening_max_error"]
            assert effect.attrs["screening_max_error"] < 0.1 * np.abs(expected[site]).values.max()
        without_blocks(monkeypatch, model)
        for site, effect in sweep_sites(model, these, names, minimum_gap=0.0, **where).items():
            close(effect.patched, expected[site], size=LOGITS)
            assert effect.attrs["engine"] == "hooks"
        monkeypatch.undo()


def test_no_site_is_said(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    with pytest.raises(InterpError, match="No site was asked for"):
        sweep_sites(gpt2, pairs, [])
