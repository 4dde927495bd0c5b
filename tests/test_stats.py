"""Statistics against scipy, against exact answers, and by coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from interp import stats
from interp.errors import InterpError
from tests.tolerance import close, near


def test_bootstrap_interval_is_close_to_scipys() -> None:
    values = np.random.default_rng(3).normal(size=40)
    low, high = stats.bootstrap_interval(values, n_resamples=20_000)
    other = reference.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    near((low, high), (other.low, other.high), 0.02, why="20,000 resamples in each, drawn differently")


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(loc=2.0, size=(30, 400))
    low, high = stats.bootstrap_interval(samples, n_resamples=1000)
    share = np.mean((low <= 2) & (high >= 2))
    assert 0.89 < share < 0.98  # the percentile interval is a little short at n = 30


def test_bootstrap_interval_along_any_axis_and_with_missing_values() -> None:
    values = np.random.default_rng(1).normal(size=(3, 25))
    low, high = stats.bootstrap_interval(values, axis=1)
    assert low.shape == high.shape == (3,)
    one_low, _ = stats.bootstrap_interval(values[2])
    close(low[2], float(one_low), "product", dtype="float64")
    values[0] = np.nan
    values[1, :5] = np.nan
    low, high = stats.bootstrap_interval(values, axis=1)
    assert np.isnan(low[0])
    assert low[1] < np.nanmean(values[1]) < high[1]


def test_bootstrap_interval_of_one_value_is_unknown_not_zero_wide() -> None:
    low, high = stats.bootstrap_interval(np.array([3.0]))
    assert np.isnan(low)
    assert np.isnan(high)
    with pytest.raises(InterpError, match="level"):
        stats.bootstrap_interval(np.ones(3), level=95)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (7, 9), (50, 200)])
def test_wilson_interval_equals_scipys(successes: int, n: int) -> None:
    other = reference.binomtest(successes, n).proportion_ci(method="wilson")
    close(stats.wilson_interval(successes, n), (other.low, other.high), "product", dtype="float64")


def test_wilson_interval_edges() -> None:
    assert stats.wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(InterpError, match="successes"):
        stats.wilson_interval(4, 3)


def test_sign_flip_p_value_equals_enumeration() -> None:
    values = np.array([1.0, 2.0, 0.5, 3.0, -0.2])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    exact = np.mean(np.abs((signs * values).mean(1)) >= abs(values.mean()) - 1e-12)
    near(
        stats.sign_flip_p_value(values, n_resamples=40_000),
        exact,
        0.01,
        why="40,000 draws of signs: four standard errors",
    )
    assert stats.sign_flip_p_value(np.full(5, np.nan)) == 1.0


def test_spearman_equals_scipys_with_ties() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 50).astype(float), rng.normal(size=50)
    close(stats.spearman(a, b), reference.spearmanr(a, b).statistic, "product", dtype="float64")
    assert np.isnan(stats.spearman(np.ones(4), np.arange(4.0)))
    with pytest.raises(InterpError, match="equal lengths"):
        stats.spearman(np.ones(3), np.ones(4))
