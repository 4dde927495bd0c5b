"""What must hold of statistics, metrics and alignment whatever the numbers, on random cases; a seed names its case."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch

from interp import readouts, stats
from interp.prompts.alignment import misalignments
from interp.prompts.tokens import Prompts
from tests.tolerance import close

SEEDS = pytest.mark.parametrize("seed", range(20))


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers of a size between 1e-6 and 1e6, about a mean of that size."""
    rng = np.random.default_rng([seed, 7])
    return (rng.normal(size=shape) + rng.normal()) * 10 ** rng.uniform(-6, 6)


# ---- statistics ----


@SEEDS
def test_a_bootstrap_interval_moves_and_stretches_with_the_values(seed: int) -> None:
    values = drawn(seed, 2 + seed, 3)
    low, high = stats.bootstrap_interval(values, n_resamples=300, seed=seed)
    assert (low <= high).all()
    assert (values.min(axis=0) <= low).all()
    assert (high <= values.max(axis=0)).all()
    size = 10 * np.abs(values).max()
    for factor, shift in ((3.0, 0.0), (1.0, 5 * values.max()), (-2.0, values.min())):
        ends = stats.bootstrap_interval(factor * values + shift, n_resamples=300, seed=seed)
        expected = (low, high) if factor > 0 else (high, low)
        close(ends, np.array(expected) * factor + shift, "product", dtype="float64", size=size)
    apart = [stats.bootstrap_interval(values[:, i], n_resamples=300, seed=seed) for i in range(3)]
    close(np.array(apart).T, (low, high), "product", dtype="float64")
    same = np.full((4, 1), values.max())
    close(stats.bootstrap_interval(same), [[values.max()], [values.max()]], "arithmetic", dtype="float64")


@SEEDS
def test_a_wilson_interval_is_the_set_of_rates_that_the_score_test_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 200))
    successes = int(rng.choice([0, n, rng.integers(0, n + 1)]))
    low, high = stats.wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    z = NormalDist().inv_cdf(0.975)
    for end in (low, high):
        if 0 < end < 1:  # at its ends the rate lies exactly z standard errors off
            close(abs(successes / n - end), z * (end * (1 - end) / n) ** 0.5, "product", dtype="float64", size=1)
    close(stats.wilson_interval(n - successes, n), (1 - high, 1 - low), "product", dtype="float64", size=1)
    wide, narrow = stats.wilson_interval(successes, n, level=0.99), stats.wilson_interval(10 * successes, 10 * n)
    assert wide[0] <= low <= narrow[0]
    assert narrow[1] <= high <= wide[1]


@SEEDS
def test_p_values_do_not_depend_on_sign_size_or_order_of_cells(seed: int) -> None:
    values = drawn(seed, 5 + seed, 4)
    if seed % 2:
        values[0, 1] = np.nan
    p = stats.max_t_p_values(values, n_resamples=200, seed=seed)
    assert ((p > 0) & (p <= 1)).all()
    factors = np.array([2.0, -0.25, 1024.0, -1.0])  # powers of two: nothing is rounded
    close(stats.max_t_p_values(values * factors, n_resamples=200, seed=seed), p, "arithmetic", dtype="float64")
    order = np.random.default_rng(seed).permutation(4)
    close(stats.max_t_p_values(values[:, order], n_resamples=200, seed=seed), p[order], "arithmetic", dtype="float64")
    one = values[:, 0]
    alone = stats.sign_flip_p_value(one, n_resamples=200, seed=seed)
    assert 0 < alone <= 1
    assert alone == stats.sign_flip_p_value(-one, n_resamples=200, seed=seed)
    assert alone == stats.sign_flip_p_value(4 * one, n_resamples=200, seed=seed)
    # Another cell can only make it harder to be the largest.
    single = stats.max_t_p_values(values[:, :1], n_resamples=200, seed=seed)
    assert single[0] <= p[0]


@SEEDS
def test_rank_correlations_see_order_alone(seed: int) -> None:
    a, b = drawn(seed, 9), drawn(seed + 100, 9)
    if seed % 2:
        a[1] = a[0]  # a tie
    rising = np.arctan(a / np.abs(a).max()) + 3
    least = 0.3 * np.ptp(b)
    for measure in (stats.spearman, lambda x, y: stats.rank_agreement(x, y, least=least)):
        value = measure(a, b)
        assert -1 <= value <= 1
        close(measure(rising, b), value, "product", dtype="float64", size=1)
        close(measure(-a, b), -value, "product", dtype="float64", size=1)
        order = np.random.default_rng(seed).permutation(9)
        close(measure(a[order], b[order]), value, "product", dtype="float64", size=1)
        close(measure(b, b), 1, "product", dtype="float64")
    close(stats.spearman(b, a), stats.spearman(a, b), "product", dtype="float64", size=1)


@SEEDS
def test_the_slope_through_the_origin_stretches_with_both_sides_and_is_met_by_what_is_on_a_line(seed: int) -> None:
    x, y = drawn(seed, 8), drawn(seed + 100, 8)
    slope = float(stats.slope_through_origin(x, y))
    close(stats.slope_through_origin(x, -4 * y), -4 * slope, "arithmetic", dtype="float64")
    close(stats.slope_through_origin(-2 * x, y), -slope / 2, "arithmetic", dtype="float64")
    close(stats.slope_through_origin(x[::-1], y[::-1]), slope, "arithmetic", dtype="float64")
    close(stats.slope_through_origin(x, slope * x), slope, "arithmetic", dtype="float64")


# ---- metrics ----


@SEEDS
def test_the_signs_of_metrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(3, 7)) * 10 ** rng.uniform(-2, 2))
    right = torch.from_numpy(rng.integers(0, 7, size=3))
    wrong = (right + torch.from_numpy(rng.integers(1, 7, size=3))) % 7
    size = logits.abs().max()

    def measured(name: str, now: torch.Tensor, first: torch.Tensor = right, second: torch.Tensor = wrong):
        return readouts.readout(name)(now, first, second)

    difference = measured("logit_difference", logits)
    close(measured("logit_difference", logits, wrong, right), -difference, dtype="float64", size=size)
    every = torch.stack([measured("probability", logits, torch.full((3,), token), wrong) for token in range(7)])
    close(every.sum(dim=0), 1, dtype="float64")
    assert (measured("log_probability", logits) <= 0).all()
    close(measured("log_probability", logits).exp(), measured("probability", logits), dtype="float64", size=1)
    for row in range(3):
        falling = sorted(logits[row].tolist(), reverse=True)
        assert int(measured("rank", logits)[row]) == falling.index(float(logits[row, right[row]]))
    # More of the right answer is never worse, and more of the wrong one never better, by any metric.
    up, down = logits.clone(), logits.clone()
    up[range(3), right] += 0.1 * size
    down[range(3), wrong] += 0.1 * size
    better = {"logit_difference": 1, "log_probability": 1, "probability": 1, "rank": -1, "cross_entropy": -1}
    assert set(better) == {name for name, one in readouts.READOUTS.items() if one.needs != "clean logits"}
    for name, sign in better.items():
        assert (sign * (measured(name, up) - measured(name, logits)) >= 0).all(), name
        assert (sign * (measured(name, down) - measured(name, logits)) <= 0).all(), name


@SEEDS
def test_recovered_is_0_at_corrupted_1_at_clean_and_linear_between(seed: int) -> None:
    clean, corrupted = (torch.from_numpy(drawn(seed + shift, 5)) for shift in (0, 100))
    gap, share = (clean - corrupted).abs().max() * 1e-3, torch.linspace(-1, 2, 7, dtype=torch.float64)
    patched = corrupted[:, None] + (clean - corrupted)[:, None] * share
    found = readouts.recovered(patched, clean, corrupted, minimum_gap=float(gap))
    kept = (clean - corrupted).abs() >= gap
    size = float(torch.stack([clean, corrupted]).abs().max() / (clean - corrupted)[kept].abs().min())
    close(found[kept], share.expand(int(kept.sum()), 7), "arithmetic", dtype="float64", size=max(size, 1))
    assert torch.isnan(found[~kept]).all()
    other = readouts.recovered(patched, corrupted, clean, minimum_gap=float(gap))
    close(other[kept], 1 - found[kept], "arithmetic", dtype="float64", size=max(size, 1))


# ---- alignment ----


@SEEDS
def test_pairs_line_up_exactly_where_shape_and_roles_agree_and_some_token_differs(seed: int) -> None:
    """Each prompt gets one random fault, or none; what is found is what was made."""
    rng = np.random.default_rng(seed)
    clean, corrupted, spans, others, made = [], [], [], [], []
    for _ in range(6):
        length = int(rng.integers(4, 9))
        start, end = sorted(rng.choice(np.arange(1, length), size=2, replace=False).tolist())
        ids = rng.integers(3, 50, size=length)
        other, span = ids.copy(), (start, end)
        other[start] += 100
        fault = str(rng.choice(["none", "length", "span", "identical", "difference"]))
        if fault == "length":
            other = np.append(other, 9)
        elif fault == "span":
            span = (start - 1, end - 1)
        elif fault == "identical":
            other = ids.copy()
        elif fault == "difference":
            other[0] += 100
        clean.append(ids.tolist())
        corrupted.append(other.tolist())
        spans.append((start, end))
        others.append(span)
        made.append(fault)
    here = Prompts.from_ids(clean, {"word": np.array(spans)}, None, bos="given")
    there = Prompts.from_ids(corrupted, {"word": np.array(others)}, None, bos="given")

    def kinds(first: Prompts, second: Prompts, **options: object) -> list[str]:
        return ["none" if problem is None else problem.kind for problem in misalignments(first, second, **options)]

    assert kinds(here, there, differ_only_at=["word"]) == made
    assert kinds(there, here, differ_only_at=["word"]) == made
    assert kinds(here, there) == ["none" if kind == "difference" else kind for kind in made]
    assert kinds(here, here) == ["identical"] * 6
