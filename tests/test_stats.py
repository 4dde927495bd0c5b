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


def test_the_slope_through_the_origin_has_the_least_absolute_errors() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 15))
    slopes = stats.slope_through_origin(x, y)
    assert slopes.shape == (7,)
    # The sum of absolute errors is piecewise linear in the slope: its least value is at one of the ratios.
    for i in range(7):
        losses = [np.abs(y[i] - ratio * x[i]).sum() for ratio in y[i] / x[i]]
        close(np.abs(y[i] - slopes[i] * x[i]).sum(), min(losses), "product", dtype="float64")


def test_the_slope_ignores_wrong_items_up_to_half_of_the_weight_and_items_at_zero() -> None:
    x = np.array([3.0, -2.0, 1.0, 0.0, 5.0])
    y = 0.25 * x
    y[3], y[4] = 100.0, -70.0  # no weight; 5 of 11
    assert float(stats.slope_through_origin(x, y)) == 0.25
    x[4] = 6.5  # more than half
    assert float(stats.slope_through_origin(x, y)) == -70 / 6.5
    x[4] = 6.0  # half: between the two
    close(stats.slope_through_origin(x, y), (0.25 - 70 / 6) / 2, "product", dtype="float64")
    assert np.isnan(stats.slope_through_origin(np.zeros(3), np.ones(3)))
    with pytest.raises(InterpError, match="equal shapes"):
        stats.slope_through_origin(np.zeros(3), np.zeros(2))


def test_the_slopes_interval_covers_it_about_as_often_as_it_says() -> None:
    """Rows scatter about twice x; the interval over rows holds 2 in about 95 of 100 draws."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        x = 1 + 0.1 * rng.normal(size=(30, 4))
        low, high = stats.slope_interval(x, (2 + 0.5 * rng.normal(size=(30, 1))) * x, n_resamples=400, seed=trial)
        held += low <= 2 <= high
    assert 0.88 < held / 200 < 0.99
    assert np.isnan(stats.slope_interval(np.ones((1, 3)), np.ones((1, 3)))).all()
    close(stats.slope_interval(x, 3 * x), [3, 3], "product", dtype="float64")
    assert np.isnan(stats.slope_interval(np.zeros((5, 2)), np.ones((5, 2)))).all()


def test_rank_agreement_is_gamma_of_the_pairs_that_differ() -> None:
    b = np.array([0.0, 0.05, 0.5, 1.0])
    assert stats.rank_agreement(np.array([3.0, 1, 7, 9]), b, least=0.1) == 1  # the first two are nearly equal
    assert stats.rank_agreement(-b, b, least=0.1) == -1
    close(stats.rank_agreement(np.array([0.0, 0, 2, 1]), b, least=0.1), (4 - 1) / 5, "product", dtype="float64")
    close(stats.rank_agreement(np.array([0.0, 0, 1, 1]), b, least=0.1), 4 / 5, "product", dtype="float64")  # a tie
    assert np.isnan(stats.rank_agreement(b, b, least=2.0))
    a, c = np.random.default_rng(0).normal(size=(2, 25))
    gamma = reference.kendalltau(a, c).statistic  # without ties gamma is tau
    close(stats.rank_agreement(a, c, least=1e-12), gamma, "product", dtype="float64")
    for bad in ({"least": 0.0}, {"least": float("nan")}):
        with pytest.raises(InterpError, match="least above 0"):
            stats.rank_agreement(a, c, **bad)
    with pytest.raises(InterpError, match="equal lengths"):
        stats.rank_agreement(a, c[1:], least=1.0)


def test_the_difference_of_two_means_is_close_to_scipys() -> None:
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=40), rng.normal(0.4, size=60)
    low, high = stats.ratio_difference_interval(
        (one, np.ones(40)), (two, np.ones(60)), paired=False, n_resamples=20_000
    )

    def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return a.mean(axis=axis) - b.mean(axis=axis)

    found = reference.bootstrap((two, one), difference, method="percentile", n_resamples=20_000, rng=1)
    other = found.confidence_interval
    near((low, high), (other.low, other.high), 0.02, why="20,000 resamples in each, drawn differently")


def test_paired_rows_are_drawn_together() -> None:
    rng = np.random.default_rng(6)
    top, gap = rng.normal(1.0, 3.0, size=(30, 2)), rng.uniform(1.0, 2.0, size=(30, 1))
    first, second = (top, gap), (top + 0.5 * gap, gap)  # half a gap more in every row, so the ratio is 0.5 more
    low, high = stats.ratio_difference_interval(first, second, paired=True)
    near((low, high), np.full((2, 2), 0.5), 1e-12, why="the same rows are drawn on both sides")
    low, high = stats.ratio_difference_interval(first, second, paired=False)
    assert (high - low > 0.5).all()


def test_the_interval_of_a_difference_covers_it_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    one, two = rng.normal(size=(40, 400)), rng.normal(1.0, 2.0, size=(25, 400))
    low, high = stats.ratio_difference_interval(
        (one, np.ones_like(one)), (two, np.ones_like(two)), paired=False, n_resamples=1000
    )
    assert 0.89 < np.mean((low <= 1) & (high >= 1)) < 0.98


@pytest.mark.parametrize(
    ("counts", "expected"),  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
    [
        (((56, 70), (48, 80)), (0.0524, 0.3339)),
        (((9, 10), (3, 10)), (0.1705, 0.8090)),
        (((10, 10), (0, 10)), (0.6075, 1.0)),
        (((5, 56), (0, 29)), (-0.0381, 0.1926)),
    ],
)
def test_the_difference_of_two_shares_is_newcombes(
    counts: tuple[tuple[int, int], tuple[int, int]], expected: tuple[float, float]
) -> None:
    one, two = (np.arange(n) < successes for successes, n in counts)
    near(stats.share_difference_interval(two, one, paired=False), expected, 5e-5, why="printed to four decimals")


def test_shares_of_the_same_prompts_differ_less_than_shares_of_others() -> None:
    one = np.arange(40) < 30
    two = np.arange(40) < 34
    low, high = stats.share_difference_interval(one, two, paired=True)
    wide = stats.share_difference_interval(one, two, paired=False)
    assert wide[0] < low < 0.1 < high < wide[1]


def test_shares_of_opposite_rows_differ_by_twice_the_ends_of_one() -> None:
    """Where one side is right exactly where the other is wrong their correlation is -1, and the ends add up."""
    one = np.arange(100) < 30
    low, high = stats.wilson_interval(30, 100)
    found = stats.share_difference_interval(one, ~one, paired=True)
    close(found, (0.4 - 2 * (high - 0.3), 0.4 + 2 * (0.3 - low)), "product", dtype="float64")


def test_what_cannot_be_subtracted_is_refused() -> None:
    one, two = (np.ones(3), np.ones(3)), (np.ones(4), np.ones(4))
    with pytest.raises(InterpError, match="equal rows where they are paired"):
        stats.ratio_difference_interval(one, two, paired=True)
    with pytest.raises(InterpError, match="as many on both sides, got 3 and 4"):
        stats.share_difference_interval(np.ones(3, bool), np.ones(4, bool), paired=True)
    assert all(np.isnan(end) for end in stats.ratio_difference_interval(one, (np.ones(1), np.ones(1)), paired=False))


def test_the_median_counts_what_never_happens() -> None:
    values = np.array([[1.0, np.inf], [3.0, np.inf], [np.inf, 2.0], [2.0, np.inf], [4.0, 1.0]])
    assert stats.median(values).tolist() == [3.0, np.inf]
    assert stats.median(values[:4]).tolist() == [2.0, np.inf]  # the lower of the middle two
    low, high = stats.median_interval(values)
    assert (low <= stats.median(values)).all()
    assert (stats.median(values) <= high).all()
    assert high[0] == np.inf
    assert np.isnan(stats.median_interval(values[:1])).all()
    with pytest.raises(InterpError, match="level"):
        stats.median_interval(values, level=95)


def test_the_interval_of_the_median_is_about_scipys() -> None:
    values = np.random.default_rng(5).integers(0, 30, 41).astype(float)
    ends = stats.median_interval(values, n_resamples=5000)
    other = reference.bootstrap((values,), np.median, method="percentile", n_resamples=5000, rng=1).confidence_interval
    near(ends, (other.low, other.high), 1.0, why="whole numbers, drawn differently")


def test_the_calibration_error_is_that_of_bins_by_hand() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(size=(20, 3))
    right = (rng.uniform(size=(20, 3)) < sure**2).astype(float)
    right[3, 1] = np.nan
    counted = np.isfinite(right)
    error, bins = 0.0, np.digitize(sure[counted], np.linspace(0, 1, 11)[1:-1])
    for one in range(10):
        chosen = bins == one
        if chosen.any():
            error += chosen.mean() * abs(sure[counted][chosen].mean() - right[counted][chosen].mean())
    close(stats.calibration_error(sure, right), error, "product", dtype="float64", size=1.0)
    low, high = stats.calibration_interval(sure, right)
    assert low < high
    assert (low, high) == stats.calibration_interval(sure, right, bins=10)
    both = np.stack([sure, sure], axis=-1), np.stack([right, right], axis=-1)
    assert (np.stack(stats.calibration_interval(*both)).T == [low, high]).all()


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    """Two bins: 0.5 is in the first with 0.4, so that one right and one wrong offset each other by 0.1."""
    found = stats.calibration_error(np.array([[0.4, 0.5]]), np.array([[0.0, 1.0]]), bins=2)
    close(found, 0.05, "product", dtype="float64")
    apart = stats.calibration_error(np.array([[0.4, 0.6]]), np.array([[0.0, 1.0]]), bins=2)
    close(apart, 0.4, "product", dtype="float64")


def test_what_has_no_calibration_is_refused() -> None:
    with pytest.raises(InterpError, match="one shape"):
        stats.calibration_error(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(InterpError, match="bins is 0"):
        stats.calibration_error(np.ones((2, 2)), np.ones((2, 2)), bins=0)
    assert np.isnan(stats.calibration_error(np.ones((2, 1)), np.full((2, 1), np.nan)))


def enumerated(values: np.ndarray) -> np.ndarray:
    """Max-T p-values of cells from every choice of the prompts' signs, each cell's t by its own rows."""

    def t(signed: np.ndarray) -> np.ndarray:
        found = []
        for column in signed.T:
            known = column[np.isfinite(column)]
            found.append(abs(known.mean()) / (known.std(ddof=1) / np.sqrt(len(known))))
        return np.array(found)

    n = len(values)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * n)).reshape(n, -1).T
    largest = np.array([t(one[:, None] * values).max() for one in signs])
    return (largest[:, None] >= t(values) * (1 - 1e-9)).mean(axis=0)


def test_max_t_p_values_equal_enumeration() -> None:
    values = np.random.default_rng(6).normal([0.3, 0.7, 1.0, 1.3], size=(8, 4))
    values[0, 1] = values[3, 1] = np.nan
    expected = enumerated(values)
    assert len(set(expected)) == 4
    assert expected.max() < 1
    near(stats.max_t_p_values(values, n_resamples=20_000), expected, 0.015, why="20,000 draws of signs, four errors")
    # The cells beside it count, and a cell that has fewer than two values does not.
    alone = stats.max_t_p_values(values[:, :1], n_resamples=20_000)
    assert alone[0] < expected[0] - 0.02
    lonely = np.full((8, 1), np.nan)
    lonely[2] = 5.0
    found = stats.max_t_p_values(np.concatenate([values, lonely, np.zeros((8, 1))], axis=1), n_resamples=20_000)
    near(found[:4], expected, 0.015, why="as above")
    assert found[4:].tolist() == [1.0, 1.0]
    # Two values in a cell are enough for a number: alike they agree in half of all signs.
    pair = np.array([[1.0], [1.0]])
    near(stats.max_t_p_values(pair, n_resamples=20_000), [0.5], 0.015, why="as above")
    with pytest.raises(InterpError, match=r"shape \(prompt, cell\), got \(8,\)"):
        stats.max_t_p_values(values[:, 0])


def test_the_least_p_value_of_drawn_signs_is_one_over_their_number() -> None:
    values = np.arange(1.0, 41.0)
    assert stats.sign_flip_p_value(values, n_resamples=99) == 1 / 100
    assert stats.max_t_p_values(values[:, None], n_resamples=99).tolist() == [1 / 100]
    assert stats.max_t_p_values(values[:, None], n_resamples=1500).tolist() == [1 / 1501]  # in two blocks
    assert stats.max_over_cells_p_values(np.array([[9.0], *[[0.1 * i] for i in range(9)]])).tolist() == [0.1]


def test_the_exact_interval_is_that_of_the_beta_distribution() -> None:
    for successes, n in ((3, 10), (1, 2), (99, 100)):
        ends = reference.beta.ppf([0.025, 0.975], [successes, successes + 1], [n - successes + 1, n - successes])
        near(stats.exact_interval(successes, n), ends, 1e-9, why="scipy looks for its ends by steps")
    ends = reference.beta.ppf([0.05, 0.95], [3, 4], [8, 7])
    near(stats.exact_interval(3, 10, level=0.9), ends, 1e-9, why="scipy looks for its ends by steps")
    assert stats.exact_interval(0, 0) == (0.0, 1.0)
    assert stats.exact_interval(10, 10)[1] == 1.0
    for successes, n in ((4, 3), (-1, 3), (0, -1)):
        with pytest.raises(InterpError, match="0 <= successes <= n"):
            stats.exact_interval(successes, n)
        with pytest.raises(InterpError, match="0 <= successes <= n"):
            stats.wilson_interval(successes, n)


def test_wilsons_interval_at_other_levels_is_scipys() -> None:
    other = reference.binomtest(7, 9).proportion_ci(confidence_level=0.8, method="wilson")
    close(stats.wilson_interval(7, 9, level=0.8), (other.low, other.high), "product", dtype="float64")


def test_ratios_are_resampled_as_means_are() -> None:
    rng = np.random.default_rng(8)
    top, bottom = rng.normal(2, 1, size=(12, 2, 3)), rng.uniform(1, 2, size=(12, 1, 3))
    whole = stats.ratio_statistic_interval(top, bottom, lambda ratios: ratios)
    close(whole, stats.ratio_interval(top, bottom), "product", dtype="float64")
    assert whole[0].shape == (2, 3)
    # A row that is unknown on either side has no part in either mean.
    holed, without = top.copy(), bottom.copy()
    holed[4], without[7] = np.nan, np.nan
    kept = [i for i in range(12) if i not in (4, 7)]
    near(
        stats.ratio_interval(holed, without, n_resamples=20_000),
        stats.ratio_interval(top[kept], bottom[kept], n_resamples=20_000),
        0.05,
        why="20,000 resamples of ten rows, drawn differently",
    )
    # Below two rows nothing is known; a level is between 0 and 1.
    assert all(np.isnan(end).all() for end in stats.ratio_statistic_interval(top[:1], bottom[:1], lambda r: r))
    assert all(end.shape == (2, 3) for end in stats.ratio_interval(top[:1], bottom[:1]))
    for level in (0.0, 1.0):
        with pytest.raises(InterpError, match="level must lie between 0 and 1"):
            stats.ratio_statistic_interval(top, bottom, lambda ratios: ratios, level=level)
        with pytest.raises(InterpError, match="level must lie between 0 and 1"):
            stats.ratio_interval(top, bottom, level=level)
    with pytest.raises(InterpError, match="shapes that go together"):
        stats.ratio_interval(top, bottom[:5])


def test_two_rows_are_enough_for_an_interval() -> None:
    two = np.array([1.0, 3.0])
    for ends in (
        stats.bootstrap_interval(two),
        stats.median_interval(two),
        stats.ratio_interval(two, np.ones(2)),
        stats.ratio_statistic_interval(two, np.ones(2), lambda ratios: ratios),
        stats.slope_interval(two[:, None], 2 * two[:, None] + [[0.0], [1.0]]),
        stats.ratio_difference_interval((two, np.ones(2)), (np.array([1.0, 7.0]), np.ones(2)), paired=True),
    ):
        assert np.isfinite(ends).all()
        assert ends[0] < ends[1]
    assert stats.bootstrap_interval(two) == (1.0, 3.0)  # each is drawn twice in a quarter of the resamples
    low, high = stats.calibration_interval(np.array([[0.9], [0.8]]), np.array([[1.0], [0.0]]))
    near((low, high), (0.1, 0.8), 1e-12, why="either row is drawn twice in a quarter of the resamples")


def test_a_seed_names_the_resamples_and_two_samples_have_different_ones() -> None:
    values = np.random.default_rng(9).normal(size=(20, 2))
    assert (stats.bootstrap_interval(values)[0] == stats.bootstrap_interval(values, seed=0)[0]).all()
    assert (stats.bootstrap_interval(values)[0] != stats.bootstrap_interval(values, seed=1)[0]).all()
    ones = np.ones(20)
    same = stats.ratio_difference_interval((values[:, 0], ones), (values[:, 0], ones), paired=True)
    assert same == (0.0, 0.0)
    apart = stats.ratio_difference_interval((values[:, 0], ones), (values[:, 0], ones), paired=False)
    assert apart[0] < 0 < apart[1]


def test_a_resample_without_a_known_row_is_left_out() -> None:
    low, high = stats.bootstrap_interval(np.array([[1.0, 1.0], [np.nan, 2.0], [np.nan, 3.0]]))
    assert (low[0], high[0]) == (1.0, 1.0)
    assert 1 <= low[1] < 2 < high[1] <= 3


@pytest.mark.parametrize("n", [30, 100])
def test_the_interval_of_the_median_is_that_of_its_own_resamples(n: int) -> None:
    values = np.random.default_rng(11).normal(size=9)
    counts = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), size=n)
    medians = [np.sort(np.repeat(values, drawn))[4] for drawn in counts]
    assert stats.median_interval(values, n_resamples=n) == tuple(
        np.quantile(medians, [0.025, 0.975], method="inverted_cdf")
    )


def test_signs_are_drawn_as_often_as_asked_also_in_several_blocks() -> None:
    alike = np.ones((2, 1))  # the two agree in half of all draws
    near(stats.max_t_p_values(alike, n_resamples=1500), [0.5], 0.06, why="1,500 draws of signs: four standard errors")


def test_an_empty_cell_has_no_part_in_the_largest() -> None:
    weak = np.array([1.0, -1.1, 1.2, -0.9, 1.0, -0.7])[:, None]
    beside = np.concatenate([weak, np.full((6, 1), np.nan), np.zeros((6, 1))], axis=1)
    assert stats.max_t_p_values(beside)[0] == stats.max_t_p_values(weak)[0] < 1


def test_cells_of_other_noise_are_standardised_before_the_largest_is_taken() -> None:
    drawn = np.random.default_rng(12).normal(size=(50, 3)) * [1.0, 100.0, 0.01] + [5.0, 0.0, 1.0]
    z = [[(row[i] - drawn[:, i].mean()) / drawn[:, i].std() for i in range(3)] for row in drawn]
    expected = [sum(max(row) >= z[0][i] - 1e-9 for row in z) / 50 for i in range(3)]
    assert len(set(expected)) > 1
    close(stats.max_over_cells_p_values(drawn), expected, "arithmetic", dtype="float64")
    for wrong in (drawn[:1], drawn[:, 0]):
        with pytest.raises(InterpError, match="at least two draws"):
            stats.max_over_cells_p_values(wrong)
    close(stats.max_over_cells_p_values(drawn * 1e-20), expected, "arithmetic", dtype="float64")
    assert stats.max_over_cells_p_values(np.array([[1.0], [0.0]])) == [0.5]
    beside = np.insert(drawn, 1, [9.0, np.nan, *np.zeros(48)], axis=1)  # a draw without a number has no place
    close(stats.max_over_cells_p_values(beside)[[0, 2, 3]], expected, "arithmetic", dtype="float64")
    assert np.isnan(stats.max_over_cells_p_values(beside)[1])


def test_spearman_of_two_items_and_of_a_constant_side() -> None:
    close(stats.spearman(np.array([1.0, 2.0]), np.array([5.0, 3.0])), -1.0, "product", dtype="float64")
    assert np.isnan(stats.spearman(np.arange(4.0), np.ones(4)))
    assert np.isnan(stats.spearman(np.ones(1), np.ones(1)))
