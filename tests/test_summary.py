"""Summaries of labelled results: by hand, against NumPy and scipy, and by coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats as reference

from interp import stats, summary
from interp.errors import InterpError
from tests.tolerance import close, near


def labelled(values: object, *dims: str) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims or ("prompt",))


def test_a_mean_keeps_the_other_axes_and_says_how_its_interval_was_made() -> None:
    values = np.random.default_rng(0).normal(size=(2, 12, 3))
    array = xr.DataArray(
        values, dims=("layer", "prompt", "head"), coords={"layer": [4, 9], "prompt": range(12)}, attrs={"units": "nats"}
    )
    found = summary.mean(array, level=0.9, n_resamples=500, seed=7)
    assert dict(found.sizes) == {"layer": 2, "head": 3}
    assert list(found.coords) == ["layer"]
    close(found["mean"].values, values.mean(axis=1), "arithmetic", dtype="float64")
    low, high = stats.bootstrap_interval(values, axis=1, level=0.9, n_resamples=500, seed=7)
    close(found["low"].values, low, "product", dtype="float64")
    close(found["high"].values, high, "product", dtype="float64")
    assert (found["n"] == 12).all()
    assert found["mean"].attrs["units"] == found["low"].attrs["units"] == "nats"
    assert found.attrs == {
        "summary": "mean", "interval": "percentile bootstrap", "over": "prompt",
        "level": 0.9, "n_resamples": 500, "seed": 7,
    }  # fmt: skip
    assert summary.in_words(found) == "90% percentile bootstrap over prompts (500 resamples, seed 7)"


def test_a_mean_leaves_nan_out_and_has_no_interval_below_two_values() -> None:
    found = summary.mean(labelled([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]], "fold", "role"), "fold")
    close(found["mean"].values, [2.0, 5.0, np.nan], "arithmetic", dtype="float64")
    assert found["n"].values.tolist() == [2, 1, 0]
    assert np.isfinite(found["low"].values).tolist() == [True, False, False]


# Worked by hand. Gaps 4, 2 and 0.1; moved 2, 0.5 and 1, then 4, 2 and 0.1. The prompts' own ratios of the first head
# are 0.5, 0.25 and 10: their mean is 3.6. The ratio of means is 3.5 / 6.1.
CLEAN, CORRUPTED = labelled([3.0, 1.0, 2.1]), labelled([-1.0, -1.0, 2.0])
PATCHED = labelled([[1.0, 3.0], [-0.5, 1.0], [3.0, 2.1]], "prompt", "head")


def test_recovered_is_the_ratio_of_means_and_counts_small_gaps_without_dividing_by_them() -> None:
    found = summary.recovered(PATCHED, CLEAN, CORRUPTED, minimum_gap=0.5)
    close(found["mean"].values, [3.5 / 6.1, 1.0], "product", dtype="float64")
    assert found["n"].values.tolist() == [3, 3]
    assert (found.attrs["summary"], found.attrs["minimum_gap"], found.attrs["n_small_gap"]) == (
        "ratio of means",
        0.5,
        1,
    )
    close([found["low"][1], found["high"][1]], [1.0, 1.0], "product", dtype="float64")
    # All 27 ways to draw three prompts of three: of the first head's ratios the smallest is 0.25, the largest 10.
    ways = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    ratios = np.array([2.0, 0.5, 1.0])[ways].sum(axis=1) / np.array([4.0, 2.0, 0.1])[ways].sum(axis=1)
    close([found["low"][0], found["high"][0]], [ratios.min(), ratios.max()], "product", dtype="float64")


def test_a_prompt_that_was_not_patched_counts_in_neither_mean() -> None:
    patched = PATCHED.copy()
    patched[0, 0] = np.nan
    found = summary.recovered(patched, CLEAN, CORRUPTED, minimum_gap=0.5)
    close(found["mean"].values, [1.5 / 2.1, 1.0], "product", dtype="float64")
    assert found["n"].values.tolist() == [2, 3]


def test_nothing_is_recovered_of_a_mean_gap_that_is_too_small() -> None:
    found = summary.recovered(PATCHED, CLEAN, CORRUPTED, minimum_gap=2.04)  # the mean gap is 6.1 / 3
    assert all(np.isnan(found[name]).all() for name in ("mean", "low", "high"))
    same = summary.recovered(PATCHED, CLEAN, CLEAN, minimum_gap=0.0)
    assert all(np.isnan(same[name]).all() for name in ("mean", "low", "high"))


def test_the_interval_of_a_ratio_is_close_to_scipys() -> None:
    rng = np.random.default_rng(2)
    gap = rng.gamma(2.0, 1.5, size=40)
    moved = 0.4 * gap + rng.normal(scale=0.3, size=40)
    low, high = stats.ratio_interval(moved, gap, n_resamples=20_000)

    def ratio(top: np.ndarray, bottom: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(top.mean(axis=axis) / bottom.mean(axis=axis))

    other = reference.bootstrap(
        (moved, gap), ratio, paired=True, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    near((low, high), (other.low, other.high), 0.005, why="20,000 resamples in each, drawn differently")
    with pytest.raises(InterpError, match="shapes that go together, got"):
        stats.ratio_interval(moved, gap[1:])


@pytest.mark.slow
@pytest.mark.parametrize("n", [24, 60])
def test_the_interval_of_recovered_covers_it_about_as_often_as_it_says(n: int) -> None:
    """Gaps scatter widely, some of them near 0 or below, and what is recovered scatters with the gap."""
    rng = np.random.default_rng(0)
    draws, truth = 2000, 0.35
    gap = rng.gamma(2.0, 1.5, size=(n, draws)) - 0.5
    share = truth + 0.2 * rng.normal(size=(n, draws))
    moved = share * gap + 0.3 * (1 + np.abs(gap)) * rng.normal(size=(n, draws))
    low, high = stats.ratio_interval(moved, gap, n_resamples=1000)
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.98


def test_an_effect_is_recovered_or_lost_by_its_direction_and_moved_is_its_top() -> None:
    found = summary.recovered(PATCHED, CLEAN, CORRUPTED, minimum_gap=0.5)
    assert summary.effect(found, "denoising") is found
    lost = summary.effect(found, "noising")
    for name, other in (("mean", "mean"), ("low", "high"), ("high", "low")):
        assert lost[name].values.tolist() == (1 - found[other]).values.tolist()
    assert (lost["n"] == found["n"]).all()
    assert lost.attrs == found.attrs
    gap = float((CLEAN - CORRUPTED).mean())
    for direction in ("denoising", "noising"):
        top = summary.moved(PATCHED, CLEAN, CORRUPTED, direction).mean("prompt") / gap
        close(top.values, summary.effect(found, direction)["mean"].values, "product", dtype="float64", size=1.0)
    for ask in (lambda: summary.effect(found, "both"), lambda: summary.moved(PATCHED, CLEAN, CORRUPTED, "both")):
        with pytest.raises(InterpError, match="direction 'both'"):
            ask()


def test_p_values_are_those_of_max_t_over_all_cells() -> None:
    values = np.random.default_rng(1).normal(size=(2, 15, 4)) + 0.5
    found = summary.p_values(xr.DataArray(values, dims=("role", "prompt", "head"), coords={"role": ["a", "b"]}), seed=3)
    assert found.dims == ("role", "head")
    expected = stats.max_t_p_values(values.transpose(1, 0, 2).reshape(15, 8), seed=3)
    assert found.values.reshape(-1).tolist() == expected.tolist()
    assert (found.attrs["cells"], found.attrs["seed"]) == (8, 3)


def test_a_variable_is_summarised_by_what_it_is() -> None:
    result = xr.Dataset(
        {"recovered_z": PATCHED, "patched_z": PATCHED, "clean": CLEAN, "corrupted": CORRUPTED, "attention": PATCHED},
        attrs={"minimum_gap": 0.5},
    )
    ratio = summary.recovered(PATCHED, CLEAN, CORRUPTED, minimum_gap=0.5)
    assert summary.of(result, "recovered_z").identical(ratio)
    assert summary.of(result, "attention").identical(summary.mean(PATCHED))
    estimated = result.rename(recovered_z="recovered", patched_z="estimated")
    assert summary.of(estimated, "recovered").identical(ratio)


BAD = {
    "an axis that is not there": (lambda: summary.mean(CLEAN, "fold"), "no dimension 'fold' .* They have: prompt"),
    "a plain array": (lambda: summary.mean(CLEAN.values), "not ndarray"),
    "texts": (lambda: summary.mean(xr.DataArray(["a"], dims="prompt", name="label")), "'label' holds <U1, not numbers"),
    "a level in percent": (lambda: summary.mean(CLEAN, level=95), "between 0 and 1, got 95"),
    "a clean per head": (lambda: summary.recovered(PATCHED, PATCHED, CORRUPTED, minimum_gap=0), r"shape \(3, 2"),
    "a variable that is not there": (lambda: summary.of(xr.Dataset({"a": CLEAN}), "b"), "no variable 'b'. It has: a"),
    "recovered alone": (
        lambda: summary.of(xr.Dataset({"recovered_z": PATCHED, "clean": CLEAN}), "recovered_z"),
        "lacks patched_z, corrupted, the attribute minimum_gap",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_summarised_is_one_clear_line(case: str) -> None:
    ask, message = BAD[case]
    with pytest.raises(InterpError, match=message) as caught:
        ask()
    assert "\n" not in str(caught.value)
