"""Intervals and tests on plain NumPy arrays. Every function that draws random numbers takes a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import InterpError, shown

LEVEL = 0.95
"""Level of an interval where none is given."""
RESAMPLES = 2000
"""Resamples of a bootstrap where no number is given."""
SEED = 0
"""Seed of a bootstrap where none is given."""


def bootstrap_interval(
    values: Float[np.ndarray, ...],
    *,
    axis: int = 0,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval of the mean along ``axis`` (Efron 1979), in the units of ``values``.

    The same resampled rows are used for every other cell, so cells of one array can be compared. NaN entries are left
    out of each mean; a cell with no finite entry gets NaN. With one row there is no spread to resample: both bounds
    are NaN.

    Returns:
        ``(low, high)``, each of the shape of ``values`` without ``axis``.

    >>> low, high = bootstrap_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> bool(low < 2.5 < high)
    True

    Raises:
        InterpError: a level that does not lie between 0 and 1.
    """
    data = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0)
    present = np.isfinite(data)
    return _interval_of_ratio(np.where(present, data, 0.0), present.astype(np.float64), level, n_resamples, seed)


def ratio_interval(
    top: Float[np.ndarray, "row ..."],
    bottom: Float[np.ndarray, "row ..."],
    *,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval, over rows, of a ratio of means: the mean of ``top`` over that of ``bottom``.

    The rows are resampled, and the ratio is that of the resampled means (Efron and Tibshirani 1993, section 10.6). A
    row counts in both means or in neither: it is left out of a cell where ``top`` or ``bottom`` is NaN there. The
    interval means little if the mean of ``bottom`` may be 0.

    Args:
        top: one row per independent observation, one value per cell.
        bottom: of the same shape, or of one that broadcasts to it.
        level: share of such intervals that hold the ratio.
        n_resamples: how often the rows are drawn.
        seed: of the draws.

    Returns:
        ``(low, high)``, each of the shape of ``top`` without its first axis; NaN below two rows.

    >>> low, high = ratio_interval(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    >>> float(low), float(high)
    (0.5, 0.5)

    Raises:
        InterpError: a level that does not lie between 0 and 1, or shapes that do not go together.
    """
    return _interval_of_ratio(*_present(top, bottom), level, n_resamples, seed)


def ratio_statistic_interval(
    top: Float[np.ndarray, "row ..."],
    bottom: Float[np.ndarray, "row ..."],
    statistic: Callable[[Float[np.ndarray, "resample ..."]], Float[np.ndarray, "resample ..."]],
    *,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval, over rows, of a number that is made of several ratios of means.

    Rows are drawn as in ``ratio_interval``, so the ratios of one resample belong together.

    Args:
        top: one row per independent observation, one value per cell.
        bottom: of the same shape, or of one that broadcasts to it.
        statistic: takes the ratios of all resamples, with the axes of ``top`` after the first, to the number of each.
        level: share of such intervals that hold the number.
        n_resamples: how often the rows are drawn.
        seed: of the draws.

    Returns:
        ``(low, high)``, each of the shape that ``statistic`` gives, without its first axis; NaN below two rows.

    >>> top, bottom = np.array([[1.0, 4.0], [2.0, 8.0], [3.0, 12.0]]), np.array([[2.0], [4.0], [6.0]])
    >>> low, high = ratio_statistic_interval(top, bottom, lambda ratios: ratios.sum(axis=1))  # 1/2 + 2
    >>> float(low), float(high)
    (2.5, 2.5)

    Raises:
        InterpError: a level that does not lie between 0 and 1, or shapes that do not go together.
    """
    upper, lower = _present(top, bottom)
    if not 0 < level < 1:
        raise InterpError(f"level must lie between 0 and 1, got {shown(level)}.")
    n = len(upper)
    counts = _resample_counts(n, n_resamples, seed) if n > 1 else np.full((1, n), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (counts @ upper.reshape(n, -1)) / (counts @ lower.reshape(n, -1))
    made = np.asarray(statistic(ratios.reshape(-1, *upper.shape[1:])), dtype=np.float64)
    low, high = _quantiles(made.reshape(len(made), -1), level)
    return low.reshape(made.shape[1:]), high.reshape(made.shape[1:])


def ratio_difference_interval(
    first: tuple[Float[np.ndarray, "row ..."], Float[np.ndarray, "row ..."]],
    second: tuple[Float[np.ndarray, "other ..."], Float[np.ndarray, "other ..."]],
    *,
    paired: bool,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval of how far one ratio of means lies above another: ``second`` minus ``first``.

    Each is ``(top, bottom)`` as ``ratio_interval`` takes them; with 1 for ``bottom`` it is a mean.

    Args:
        first: what is subtracted, one value per row and cell.
        second: what it is subtracted from; the same cells.
        paired: the rows of both are the same observations in the same order, and are drawn together; otherwise the two
            are drawn independently of each other.
        level: share of such intervals that hold the difference.
        n_resamples: how often the rows are drawn.
        seed: of the draws.

    Returns:
        ``(low, high)``, each of the shape of the cells, in the units of the ratios; NaN where either has fewer than two
        rows.

    Raises:
        InterpError: paired rows of different numbers, cells of different shapes, or a level that does not lie between
            0 and 1.

    >>> one, two = (np.array([1.0, 2.0, 3.0]), np.ones(3)), (np.array([2.0, 3.0, 4.0]), np.ones(3))
    >>> [round(float(end), 6) for end in ratio_difference_interval(one, two, paired=True)]
    [1.0, 1.0]
    """
    sides = [_present(*side) for side in (first, second)]
    (n, *shape), (other_n, *other_shape) = (top.shape for top, _ in sides)
    if shape != other_shape or (paired and n != other_n):
        raise InterpError(
            f"A difference needs equal cells, and equal rows where they are paired, got {(n, *shape)} and "
            f"{(other_n, *other_shape)}."
        )
    _check_level(level)
    if min(n, other_n) < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    counts = _resample_counts(n, n_resamples, seed)
    draws = (counts, counts if paired else _resample_counts(other_n, n_resamples, seed + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = [
            (drawn @ top.reshape(len(top), -1)) / (drawn @ bottom.reshape(len(bottom), -1))
            for drawn, (top, bottom) in zip(draws, sides, strict=True)
        ]
    low, high = _quantiles(ratios[1] - ratios[0], level)
    return low.reshape(shape), high.reshape(shape)


def share_difference_interval(
    first: Bool[np.ndarray, " row"], second: Bool[np.ndarray, " other"], *, paired: bool, level: float = LEVEL
) -> tuple[float, float]:
    """Interval of how far one share of successes lies above another, ``second`` minus ``first`` (Newcombe 1998).

    Built from the Wilson intervals of both (method 10), so that shares of 0 and 1 have an honest one; for paired rows
    their correlation enters.

    Args:
        first: one success or failure per row.
        second: likewise.
        paired: the rows of both are the same observations in the same order.
        level: share of such intervals that hold the difference.

    Returns:
        ``(low, high)``, within [-1, 1].

    Raises:
        InterpError: paired rows of different numbers, or a level that does not lie between 0 and 1.

    >>> low, high = share_difference_interval(np.arange(80) < 48, np.arange(70) < 56, paired=False)
    >>> round(low, 4), round(high, 4)  # as in Newcombe's first example
    (0.0524, 0.3339)
    """
    one, two = (np.asarray(values, dtype=bool) for values in (first, second))
    if paired and len(one) != len(two):
        raise InterpError(f"Paired rows must be as many on both sides, got {len(one)} and {len(two)}.")
    (p, low, high), (q, other_low, other_high) = (
        (float(values.mean()) if len(values) else 0.5, *wilson_interval(int(values.sum()), len(values), level=level))
        for values in (one, two)
    )
    correlation = 0.0
    if paired and 0 < p < 1 and 0 < q < 1:
        correlation = float(np.corrcoef(one, two)[0, 1])
    below, above = q - other_low, other_high - q
    down, up = (
        math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b)) for a, b in ((below, high - p), (above, p - low))
    )
    return q - p - down, q - p + up


def _present(
    top: Float[np.ndarray, "row ..."], bottom: Float[np.ndarray, "row ..."]
) -> tuple[Float[np.ndarray, "row ..."], Float[np.ndarray, "row ..."]]:
    """Both in float64 and of the shape of ``top``, with 0 in both where either is NaN."""
    upper, lower = (np.asarray(values, dtype=np.float64) for values in (top, bottom))
    try:
        lower = np.broadcast_to(lower, upper.shape)
    except ValueError:
        raise InterpError(
            f"ratio_interval needs shapes that go together, got {upper.shape} and {lower.shape}."
        ) from None
    present = np.isfinite(upper) & np.isfinite(lower)
    return np.where(present, upper, 0.0), np.where(present, lower, 0.0)


def _interval_of_ratio(
    top: Float[np.ndarray, "row ..."], bottom: Float[np.ndarray, "row ..."], level: float, n_resamples: int, seed: int
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """The interval of the sum of ``top`` over the sum of ``bottom``. A row with 0 in both has no part in a cell."""
    _check_level(level)
    n, shape = top.shape[0], top.shape[1:]
    if n < 2:
        empty = np.full(shape, np.nan)
        return empty, empty.copy()
    counts = _resample_counts(n, n_resamples, seed)
    totals, weights = (counts @ values.reshape(n, -1) for values in (top, bottom))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = totals / weights
    low, high = _quantiles(ratios, level)
    return low.reshape(shape), high.reshape(shape)


def _quantiles(
    ratios: Float[np.ndarray, "resample cell"], level: float
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """The ends between which the middle of the resamples lies, per cell, as far as they are finite."""
    tail = (1 - level) / 2
    bounds = np.full((2, ratios.shape[1]), np.nan)
    known = np.isfinite(ratios)
    # Resamples without a finite row need the slow quantile; nearly all columns have none.
    whole, holed = known.all(axis=0), known.any(axis=0) & ~known.all(axis=0)
    bounds[:, whole] = np.quantile(np.ascontiguousarray(ratios[:, whole].T), [tail, 1 - tail], axis=1)
    if holed.any():
        finite = np.where(known[:, holed], ratios[:, holed], np.nan)
        bounds[:, holed] = np.nanquantile(finite, [tail, 1 - tail], axis=0)
    return bounds[0], bounds[1]


def _resample_counts(n: int, n_resamples: int, seed: int) -> Float[np.ndarray, "resample row"]:
    """How often each of ``n`` rows was drawn, per resample: a resampled mean becomes one matrix product."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def median(values: Float[np.ndarray, "row ..."]) -> Float[np.ndarray, ...]:
    """The lower median over rows: the least value that at least half of the rows do not exceed.

    It is always one of the values. Infinite ones count as larger than all others, so that what never happens in a row
    can be counted and not dropped.

    >>> median(np.array([1.0, 2.0, np.inf])).item(), median(np.array([1.0, np.inf, np.inf])).item()
    (2.0, inf)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    return np.asarray(ordered[(len(ordered) - 1) // 2])


def median_interval(
    values: Float[np.ndarray, "row ..."], *, level: float = LEVEL, n_resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval of ``median`` over rows, in the units of ``values``; its ends may be infinite.

    Returns:
        ``(low, high)``, each of the shape of ``values`` without its first axis; NaN below two rows.

    Raises:
        InterpError: a level that does not lie between 0 and 1.

    >>> low, high = median_interval(np.array([1.0, 1.0, 2.0, 2.0, np.inf]))
    >>> low.item(), high.item()
    (1.0, inf)
    """
    data = np.asarray(values, dtype=np.float64)
    n, shape = len(data), data.shape[1:]
    _check_level(level)
    if n < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    counts = _resample_counts(n, n_resamples, seed)
    ends = [_resampled_medians(column, counts, level) for column in data.reshape(n, -1).T]
    low, high = np.array(ends).reshape(-1, 2).T
    return low.reshape(shape), high.reshape(shape)


def _resampled_medians(
    values: Float[np.ndarray, " row"], counts: Float[np.ndarray, "resample row"], level: float
) -> tuple[float, float]:
    """The values between which the middle of the resampled medians lies. None is between two values: one may be inf."""
    order = np.argsort(values, kind="stable")
    reached = counts[:, order].cumsum(axis=1)
    places = np.sort((reached >= len(values) / 2).argmax(axis=1))
    tail = (1 - level) / 2
    at = (math.ceil(share * len(places)) - 1 for share in (tail, 1 - tail))
    low, high = (float(values[order][places[max(0, i)]]) for i in at)
    return low, high


def calibration_error(
    confidence: Float[np.ndarray, "row item ..."], right: Float[np.ndarray, "row item ..."], *, bins: int = 10
) -> Float[np.ndarray, ...]:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599), in [0, 1].

    The predictions are put into ``bins`` of equal width by their confidence; one on an edge goes into the bin below it.
    Within each, the mean confidence is held against the share that is right; the error is the mean of the absolute
    differences, weighted by the predictions in each bin. With few predictions it is above 0 by chance alone.

    Args:
        confidence: probability of each prediction, in [0, 1], of several items a row.
        right: 1 where it is right, 0 where it is not; NaN leaves the prediction out.
        bins: how many.

    Returns:
        One number for each cell of the axes after ``item``; NaN without a prediction.

    Of the two predictions with confidence 0.75 one is right:

    >>> calibration_error(np.array([[0.75, 0.75]]), np.array([[1.0, 0.0]])).item()
    0.25

    Raises:
        InterpError: shapes that differ, or fewer than one bin.
    """
    gaps, counts = _binned_gaps(confidence, right, bins)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(gaps.sum(axis=0)).sum(axis=-1) / counts.sum(axis=0))


def calibration_interval(
    confidence: Float[np.ndarray, "row item ..."],
    right: Float[np.ndarray, "row item ..."],
    *,
    bins: int = 10,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Percentile bootstrap interval of ``calibration_error``, whose rows are drawn whole.

    Returns:
        ``(low, high)``, each of the shape of the cells; NaN below two rows.

    Raises:
        InterpError: as ``calibration_error``, or a level that does not lie between 0 and 1.

    >>> sure, right = np.full((4, 1), 0.9), np.ones((4, 1))
    >>> [round(end.item(), 6) for end in calibration_interval(sure, right)]
    [0.1, 0.1]
    """
    gaps, counts = _binned_gaps(confidence, right, bins)
    n, shape = len(gaps), counts.shape[1:]
    _check_level(level)
    if n < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    drawn = _resample_counts(n, n_resamples, seed)
    with np.errstate(invalid="ignore"):
        errors = np.stack([
            np.abs(drawn @ gap).sum(axis=-1) / (drawn @ count)
            for gap, count in zip(
                np.moveaxis(gaps.reshape(n, -1, bins), 1, 0), counts.reshape(n, -1).T, strict=True
            )
        ], axis=1)  # fmt: skip
    low, high = _quantiles(errors, level)
    return low.reshape(shape), high.reshape(shape)


def _binned_gaps(
    confidence: Float[np.ndarray, "row item ..."], right: Float[np.ndarray, "row item ..."], bins: int
) -> tuple[Float[np.ndarray, "row ... bin"], Float[np.ndarray, "row ..."]]:
    """Per row and bin the sum of confidence - right over its items, and per row how many items count."""
    sure, hit = (np.asarray(values, dtype=np.float64) for values in (confidence, right))
    if sure.shape != hit.shape or sure.ndim < 2:
        raise InterpError(
            f"calibration_error needs confidence and right of one shape (row, item, ...), got {sure.shape} and "
            f"{hit.shape}."
        )
    if bins < 1:
        raise InterpError(f"bins is {shown(bins)}. Use at least one.")
    present = np.isfinite(hit)
    gap = np.where(present, sure - np.where(present, hit, 0.0), 0.0)
    into = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)  # a confidence of 0 belongs to the first bin
    gaps = np.stack([(gap * (into == one)).sum(axis=1) for one in range(bins)], axis=-1)
    return gaps, present.sum(axis=1).astype(np.float64)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InterpError(f"level must lie between 0 and 1, got {shown(level)}.")


def slope_through_origin(x: Float[np.ndarray, "*rows item"], y: Float[np.ndarray, "*rows item"]) -> Any:
    """The slope b of ``y = b x`` with the least sum of absolute errors, along the last axis; NaN where all x are 0.

    It is the median of ``y / x`` weighted by ``abs(x)``: items whose y is wrong do not move it unless they hold half
    of all ``abs(x)``, and items whose x is 0 have no part in it. Where the median falls between two ratios it is their
    mean.

    The first two items say 2; the third, far off, does not move them.

    >>> float(slope_through_origin(np.array([1.0, 2.0, 1.0]), np.array([2.0, 4.0, 90.0])))
    2.0
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if x.shape != y.shape:
        raise InterpError(f"slope_through_origin needs equal shapes, got {x.shape} and {y.shape}.")
    weight = np.abs(x)
    ratio = np.divide(y, x, out=np.zeros_like(x), where=weight > 0)
    order = np.argsort(ratio, axis=-1, kind="stable")
    ratio, weight = (np.take_along_axis(values, order, axis=-1) for values in (ratio, weight))
    reached, total = weight.cumsum(axis=-1), weight.sum(axis=-1, keepdims=True)
    # The slack keeps an exact half a half despite rounding.
    slack = 1e-12 * total
    ends = ((reached >= total / 2 - slack) & (weight > 0), (reached > total / 2 + slack) & (weight > 0))
    low, high = (np.take_along_axis(ratio, end.argmax(axis=-1)[..., None], axis=-1)[..., 0] for end in ends)
    return np.where(total[..., 0] > 0, (low + high) / 2, np.nan)


def slope_interval(
    x: Float[np.ndarray, "row item"],
    y: Float[np.ndarray, "row item"],
    *,
    level: float = LEVEL,
    n_resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Percentile bootstrap interval, over rows, of the slope through the origin of the row means; NaN below two rows.

    The same resampled rows are used for x and y, and the items are held fixed.

    >>> x = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
    >>> slope_interval(x, 2 * x)  # every row says 2
    (2.0, 2.0)
    """
    n = len(x)
    if n < 2:
        return float("nan"), float("nan")
    counts = _resample_counts(n, n_resamples, seed) / n
    slopes = slope_through_origin(counts @ np.asarray(x, np.float64), counts @ np.asarray(y, np.float64))
    tail = (1 - level) / 2
    known = slopes[np.isfinite(slopes)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(successes: float, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), within [0, 1]; (0, 1) when ``n`` is 0.

    Honest at 0 of n and n of n, where the textbook interval has no width. Where each of the n observations is itself a
    share, ``successes`` is their sum, and the interval errs on the wide side.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 2), round(high, 2)
    (0.49, 0.94)
    >>> wilson_interval(0, 10)[0]
    0.0
    """
    if n < 0 or not 0 <= successes <= max(n, 0):
        raise InterpError(f"wilson_interval needs 0 <= successes <= n, got {successes} of {n}.")
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(0.5 + level / 2)
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At 0 of n and n of n an end is the rate itself, whatever rounding makes of it.
    return float(max(0.0, min(p, centre - half))), float(min(1.0, max(p, centre + half)))


def exact_interval(successes: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934), within [0, 1]; (0, 1) when ``n`` is 0.

    It holds the proportion at least as often as it says, whatever that is: for rates that are promised.

    >>> low, high = exact_interval(0, 100)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    from scipy.stats import binomtest

    if n < 0 or not 0 <= successes <= max(n, 0):
        raise InterpError(f"exact_interval needs 0 <= successes <= n, got {successes} of {n}.")
    if n == 0:
        return 0.0, 1.0
    found = binomtest(successes, n).proportion_ci(confidence_level=level, method="exact")
    return float(found.low), float(found.high)


def _normal_quantile(p: float) -> float:
    return NormalDist().inv_cdf(p)


def sign_flip_p_value(values: Float[np.ndarray, " prompt"], *, n_resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided sign-flip permutation p-value for a mean of zero.

    The observed sample is counted as one of the flipped ones, so p is never 0.

    Five prompts that agree: of the 32 ways to choose their signs two are as extreme, so the p-value is near 2/32.

    >>> abs(sign_flip_p_value(np.array([1.0, 2.0, 1.5, 0.5, 1.0])) - 2 / 32) < 0.01
    True
    >>> sign_flip_p_value(np.array([1.0, -1.0]))
    1.0
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[np.isfinite(data)]
    if data.size == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(n_resamples, data.size))
    null = np.abs((signs * data).mean(axis=1))
    observed = abs(data.mean())
    # The relative slack keeps a tie a tie despite rounding.
    return float((1 + np.sum(null >= observed * (1 - 1e-12))) / (1 + n_resamples))


def max_t_p_values(
    values: Float[np.ndarray, "prompt cell"], *, n_resamples: int = 10_000, seed: int = 0
) -> Float[np.ndarray, " cell"]:
    """Two-sided p-value per cell for a mean of zero, adjusted for the number of cells (Westfall and Young 1993).

    All cells of a prompt change sign together, and a cell's t statistic is compared with the largest of all cells, so
    the chance of even one false finding among all cells is at most the level, however the cells depend on each other.
    Assumes that under the null a prompt's values are as likely as their negatives. The observed sample is counted as
    one of the flipped ones, so p is never 0. NaN entries are left out of their cell's mean. A cell with fewer than two
    values has p 1.

    Eight prompts, two cells: the first has one sign throughout, the second has either as often.

    >>> always, either = np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1, 0.9]), np.array([1.0, -1.0] * 4)
    >>> p_values = max_t_p_values(np.stack([always, either], axis=1))
    >>> bool(p_values[0] < 0.05), float(p_values[1])
    (True, 1.0)
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2:
        raise InterpError(f"max_t_p_values needs values of shape (prompt, cell), got {data.shape}.")
    present = np.isfinite(data)
    data, count = np.where(present, data, 0.0), present.sum(axis=0)
    squares = (data**2).sum(axis=0)
    # Signs leave the sum of squares as it is, so only the sum has to be computed again.
    observed = _t_statistics(data.sum(axis=0)[None], squares, count)[0]
    rng = np.random.default_rng(seed)
    reached = np.ones(data.shape[1])
    block = 1000
    for start in range(0, n_resamples, block):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(min(block, n_resamples - start), len(data)))
        largest = _t_statistics(signs @ data, squares, count).max(axis=1, initial=0.0)
        # The relative slack keeps a tie a tie despite rounding.
        reached += (largest[:, None] >= observed[None] * (1 - 1e-9)).sum(axis=0)
    return np.where(count > 1, reached / (1 + n_resamples), 1.0)


def max_over_cells_p_values(statistics: Float[np.ndarray, "draw cell"]) -> Float[np.ndarray, " cell"]:
    """One-sided p-value per cell from draws under a null, adjusted for the number of cells (Westfall and Young 1993).

    The first draw is the observed one, the others are made from it in a way that the null leaves as likely (labels
    exchanged, signs changed). Each cell is standardised by the mean and the spread of all its draws, the observed one
    among them, so that cells of different noise can be compared; a cell counts against the largest of all cells of each
    draw. So p is the share of draws whose largest is at least as large, never below 1 / draws, and exact for any number
    of draws (Phipson and Smyth 2010). A cell that no draw changes has p 1; one with a NaN has NaN and is left out.

    >>> rng = np.random.default_rng(0)
    >>> drawn = rng.normal(size=(100, 3))
    >>> drawn[0] = [9.0, 0.0, 0.0]
    >>> p_values = max_over_cells_p_values(drawn)
    >>> float(p_values[0]), bool(p_values[1] > 0.3)
    (0.01, True)

    Raises:
        InterpError: no draw besides the observed one, or another shape.
    """
    data = np.asarray(statistics, dtype=np.float64)
    if data.ndim != 2 or len(data) < 2:
        raise InterpError(
            f"max_over_cells_p_values needs statistics of shape (draw, cell) and at least two draws, got {data.shape}."
        )
    known = np.isfinite(data).all(axis=0)
    found = np.full(data.shape[1], np.nan)
    if not known.any():
        return found
    spread = data[:, known].std(axis=0)
    size = np.abs(data[:, known]).max(axis=0)
    varies = spread > 1e-12 * np.maximum(size, 1e-300)
    away = np.where(varies, (data[:, known] - data[:, known].mean(axis=0)) / np.where(varies, spread, 1.0), -np.inf)
    largest = away.max(axis=1)
    # The slack keeps a tie a tie despite rounding.
    found[known] = (largest[:, None] >= away[0] - 1e-9).mean(axis=0)
    return found


def _t_statistics(
    sums: Float[np.ndarray, "resample cell"], squares: Float[np.ndarray, " cell"], count: Float[np.ndarray, " cell"]
) -> Float[np.ndarray, "resample cell"]:
    """Absolute t of each cell's mean; 0 where a cell has no values, very large where they are all equal."""
    n = np.maximum(count, 2)
    rest = np.maximum(squares - sums**2 / n, squares * 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(sums) / np.sqrt(rest * n / (n - 1))
    return np.where((squares > 0) & (count > 1), t, 0.0)


def spearman(a: Float[np.ndarray, " item"], b: Float[np.ndarray, " item"]) -> float:
    """Spearman rank correlation in [-1, 1], ties sharing their mean rank; NaN when either side is constant.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0])), 6)
    1.0
    """
    x, y = _ranks(np.asarray(a, dtype=np.float64)), _ranks(np.asarray(b, dtype=np.float64))
    if x.size != y.size:
        raise InterpError(f"spearman needs equal lengths, got {x.size} and {y.size}.")
    if x.size < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def rank_agreement(a: Float[np.ndarray, " item"], b: Float[np.ndarray, " item"], *, least: float) -> float:
    """How far ``a`` orders items as ``b`` does, over the pairs of items whose b differ by at least ``least``.

    Goodman and Kruskal's gamma (1954) of these pairs: 1 if all are ordered alike, -1 if none is, and a tie in ``a``
    counts as half. Pairs that are nearly equal in ``b`` have no part in it, so their noise is not ranked. NaN without
    a pair.

    The last two items are too close in b to be ranked. First both other pairs are in order, then one of them:

    >>> rank_agreement(np.array([1.0, 3.0, 2.0]), np.array([0.0, 1.0, 1.01]), least=0.5)
    1.0
    >>> rank_agreement(np.array([2.0, 3.0, 1.0]), np.array([0.0, 1.0, 1.01]), least=0.5)
    0.0
    """
    if not least > 0:
        raise InterpError(f"rank_agreement needs least above 0, got {least}.")
    x, y = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if x.size != y.size:
        raise InterpError(f"rank_agreement needs equal lengths, got {x.size} and {y.size}.")
    first, second = np.nonzero(y[:, None] - y[None, :] >= least)
    return float(np.sign(x[first] - x[second]).mean()) if first.size else float("nan")


def _ranks(values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)
