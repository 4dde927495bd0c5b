"""Means over prompts or folds, with intervals: the only statistics the report computes itself."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp import stats

LEVEL = 0.95
INTERVALS = "95% percentile bootstrap over {dim}s (2,000 resamples, seed 0)"


def mean_over(values: xr.DataArray, dim: str = "prompt") -> xr.Dataset:
    """Mean over ``dim`` with a 95% bootstrap interval, NaN left out.

    Returns ``mean``, ``low``, ``high`` (in the units of ``values``) and ``n`` (how many finite values), each over
    the other dims. Fewer than two finite values have no interval: its ends are NaN.
    """
    ordered = values.transpose(dim, ...)
    array = np.asarray(ordered.values, dtype=np.float64)
    count = np.isfinite(array).sum(axis=0)
    total = np.where(np.isfinite(array), array, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    low, high = (np.where(count > 1, bound, np.nan) for bound in stats.bootstrap_interval(array, axis=0, level=LEVEL))
    first = ordered.isel({dim: 0}, drop=True)
    return xr.Dataset(
        {
            name: first.copy(data=data.reshape(first.shape))
            for name, data in (("mean", mean), ("low", low), ("high", high), ("n", count))
        }
    )


def importance(summary: xr.Dataset, direction: str) -> xr.Dataset:
    """How much a place matters, on one scale for both directions: 0 not at all, 1 the whole gap.

    Recovered for denoising (is it sufficient?), 1 - recovered for noising (is it needed?), its bounds swapped along.
    """
    if direction == "denoising":
        return summary
    mean, low, high = (1 - summary[name] for name in ("mean", "high", "low"))
    return xr.Dataset({"mean": mean, "low": low, "high": high, "n": summary["n"]})
