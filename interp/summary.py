"""Summaries of labelled results: a mean over prompts with its interval, what a patch recovers, adjusted p-values.

One number has one interval: the verdict, the page and a notebook all ask here, so they show the same floats. A summary
is a dataset of ``mean``, ``low``, ``high`` and ``n``, and its attributes say what kind of interval that is, at which
level and with which seed. ``interp.stats`` has the same on plain arrays.

>>> import numpy as np, xarray as xr
>>> effect = xr.DataArray(np.array([[1.0, 0.0], [3.0, 0.5], [2.0, 1.0]]), dims=("prompt", "head"))
>>> found = mean(effect)
>>> found["mean"].values.tolist()
[2.0, 0.5]
>>> found.attrs["interval"], found.attrs["level"], found.attrs["seed"]
('percentile bootstrap', 0.95, 0)

What a patch recovers is summarised by a ratio of means, and not by the mean of the prompts' own ratios: a prompt whose
clean and corrupted runs hardly differ has a ratio of any size, and would outweigh all others.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from interp import stats
from interp.errors import InterpError, shown, unknown_name
from interp.language import say, say_stored

NUMBERS = "fiub"
"""The kinds of NumPy types that hold numbers."""
PARTS = ("mean", "low", "high", "n")
"""The variables of every summary."""
DIRECTIONS = ("denoising", "noising")

_RECOVERED = re.compile(r"recovered($|_)")
_PATCHED = ("patched", "estimated")
"""How the metric after a patch is called, beside ``recovered``: by an exact patch, or by an estimate of one."""


def of(result: xr.Dataset, name: str, dim: str = "prompt", *, seed: int = stats.SEED) -> xr.Dataset:
    """The summary of one variable of a result: of what a patch recovers by ``recovered``, else by ``mean``.

    A variable is of the first kind if it is called ``recovered`` or ``recovered_...``; what it was computed from stands
    in the same result under ``patched`` (or ``estimated``), ``clean`` and ``corrupted``. Summarise a whole variable
    and pick cells afterwards: the last digits of a sum may depend on what is summed beside it.

    Args:
        result: a result of this library.
        name: the variable.
        dim: what is averaged over.
        seed: of the bootstrap.

    Raises:
        InterpError: the result lacks the variable or what it was computed from, or has no such dimension.

    >>> from interp import summary
    >>> found = xr.Dataset({"attention": (("prompt", "head"), np.array([[0.2, 0.4], [0.4, 0.6]]))})
    >>> summary.of(found, "attention").n.values.tolist()
    [2, 2]
    """
    values = _variable(result, name)
    if not _RECOVERED.match(name):
        return mean(values, dim, seed=seed)
    end = name.removeprefix("recovered")
    measured = next((f"{first}{end}" for first in _PATCHED if f"{first}{end}" in result), f"patched{end}")
    lacking = [one for one in (measured, "clean", "corrupted") if one not in result]
    lacking += [] if "minimum_gap" in result.attrs else ["the attribute minimum_gap"]
    if lacking:
        raise InterpError(f"{shown(name)} is summarised from what was patched. The result lacks {', '.join(lacking)}.")
    patched, clean, corrupted = (result[one] for one in (measured, "clean", "corrupted"))
    return recovered(patched, clean, corrupted, dim, minimum_gap=float(result.attrs["minimum_gap"]), seed=seed)


def mean(
    values: xr.DataArray,
    dim: str = "prompt",
    *,
    level: float = stats.LEVEL,
    n_resamples: int = stats.RESAMPLES,
    seed: int = stats.SEED,
) -> xr.Dataset:
    """Mean over ``dim`` with a percentile bootstrap interval (Efron 1979); NaN is left out.

    Args:
        values: numbers with a dimension ``dim``, in any units.
        dim: what is averaged over; its entries are independent of each other.
        level: of the interval.
        n_resamples: how often the entries are drawn.
        seed: of the draws.

    Returns:
        ``mean``, ``low`` and ``high`` in the units of ``values``, and ``n`` (how many finite values), each over the
        other dimensions. Fewer than two finite values have no interval: its ends are NaN.

    Raises:
        InterpError: no such dimension, values that are no numbers, or a level that does not lie between 0 and 1.

    >>> found = mean(xr.DataArray(np.array([1.0, 2.0, 6.0]), dims="prompt"))
    >>> float(found["mean"]), int(found["n"])
    (3.0, 3)
    """
    array = _array(values, dim)
    present = np.isfinite(array)
    count = present.sum(axis=0)
    bounds = stats.bootstrap_interval(array, level=level, n_resamples=n_resamples, seed=seed)
    value = np.where(count > 0, np.where(present, array, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    attrs = {"summary": "mean", **_interval_attrs(dim, level, n_resamples, seed)}
    return _summary(values, dim, (value, *bounds, count), str(values.attrs.get("units", "")), attrs)


def recovered(
    patched: xr.DataArray,
    clean: xr.DataArray,
    corrupted: xr.DataArray,
    dim: str = "prompt",
    *,
    minimum_gap: float,
    level: float = stats.LEVEL,
    n_resamples: int = stats.RESAMPLES,
    seed: int = stats.SEED,
) -> xr.Dataset:
    """What a patch recovers over all prompts: mean(patched - corrupted) / mean(clean - corrupted), with an interval.

    0 is corrupted behaviour and 1 is clean, in both directions. The change of a mean is measured by the mean gap, as in
    Wang et al. (2022, arXiv 2211.00593) and in TransformerLens's patching demonstrations. A prompt with a small gap
    counts in both means like any other: nothing is divided by its own gap, and to leave prompts out by their gap would
    be to choose among outcomes. A prompt is left out of a cell only where it was not patched (NaN). The interval is a
    percentile bootstrap over prompts of the ratio (``stats.ratio_interval``).

    Args:
        patched: the metric after the patch, with a dimension ``dim``.
        clean: the metric of the clean run, over ``dim`` alone.
        corrupted: likewise of the corrupted run.
        dim: what is averaged over.
        minimum_gap: smallest mean gap, in units of the metric, that is worth dividing by.
        level: of the interval.
        n_resamples: how often the prompts are drawn.
        seed: of the draws.

    Returns:
        ``mean`` (the ratio of means), ``low`` and ``high``, as fractions of the gap, and ``n`` (the prompts of both
        means). All but ``n`` are NaN where the mean gap is below ``minimum_gap``, and the ends of the interval also
        below two prompts. Attributes ``minimum_gap`` and ``n_small_gap``, the number of prompts with a smaller gap of
        their own.

    Raises:
        InterpError: no such dimension, a clean or corrupted that is not one number per prompt, values that are no
            numbers, or a level that does not lie between 0 and 1.

    >>> clean, corrupted = (xr.DataArray(np.array(values), dims="prompt") for values in ([4.0, 0.1], [0.0, 0.0]))
    >>> patched = xr.DataArray(np.array([[2.0], [1.0]]), dims=("prompt", "head"))
    >>> found = recovered(patched, clean, corrupted, minimum_gap=0.5)
    >>> round(float(found["mean"][0]), 3), found.attrs["n_small_gap"]  # the prompts' own ratios are 0.5 and 10
    (0.732, 1)
    """
    after, best, worst = _array(patched, dim), _array(clean, dim), _array(corrupted, dim)
    for name, one in (("clean", best), ("corrupted", worst)):
        if one.shape != (len(after),):
            raise InterpError(f"{name} has shape {one.shape}. Give one number for each of the {len(after)} {dim}s.")
    shape = (len(after), *(1,) * (after.ndim - 1))
    gap, moved = (best - worst).reshape(shape), after - worst.reshape(shape)
    present = np.isfinite(moved) & np.isfinite(gap)
    count = present.sum(axis=0)
    top, bottom = (np.where(present, part, 0.0).sum(axis=0) for part in (moved, gap))
    worth = (np.abs(bottom) >= minimum_gap * count) & (bottom != 0)
    bounds = stats.ratio_interval(moved, gap, level=level, n_resamples=n_resamples, seed=seed)
    parts = (np.where(worth, part, np.nan) for part in (top / np.where(worth, bottom, 1.0), *bounds))
    attrs = {
        "summary": "ratio of means",
        **_interval_attrs(dim, level, n_resamples, seed),
        "minimum_gap": minimum_gap,
        "n_small_gap": int((np.abs(gap) < minimum_gap).sum()),
    }
    return _summary(patched, dim, (*parts, count), "fraction", attrs)


def in_words(summary: xr.Dataset) -> str:
    """What kind of interval a summary has.

    >>> in_words(mean(xr.DataArray(np.array([1.0, 2.0]), dims="fold"), "fold"))
    '95% percentile bootstrap over folds (2,000 resamples, seed 0)'
    """
    return _in_words(summary.attrs)


def usual_interval(dim: str = "prompt") -> str:
    """The kind of interval that a summary has where nothing else is asked for, in words.

    >>> usual_interval("fold")
    '95% percentile bootstrap over folds (2,000 resamples, seed 0)'
    """
    return _in_words(_interval_attrs(dim, stats.LEVEL, stats.RESAMPLES, stats.SEED))


def usual_attrs(dim: str = "prompt") -> dict[str, str | int | float]:
    """The same as attributes of a result that holds such intervals.

    >>> usual_attrs()["interval"], usual_attrs()["interval_seed"]
    ('percentile bootstrap over prompts', 0)
    """
    usual = _interval_attrs(dim, stats.LEVEL, stats.RESAMPLES, stats.SEED)
    settings = {f"interval_{name}": usual[name] for name in ("level", "n_resamples", "seed")}
    return {"interval": f"{usual['interval']} over {dim}s", **settings}


def _in_words(said: Mapping[Any, Any]) -> str:
    return say(
        "{level:.0%} {interval} over {over} ({resamples:,} resamples, seed {seed})",
        level=said["level"],
        interval=say_stored(str(said["interval"])),
        over=say_stored(f"{said['over']}s"),
        resamples=said["n_resamples"],
        seed=said["seed"],
    )


# ---- effects ----


def effect(summary: xr.Dataset, direction: str) -> xr.Dataset:
    """How much a place matters, on one scale for both directions: 0 is not at all, 1 is the whole gap.

    What is recovered by denoising (is the place sufficient?), and what is lost, 1 - recovered, by noising (is it
    needed?). The ends of the interval change places where the sign does.

    Args:
        summary: of what a patch recovers, by ``recovered``.
        direction: ``"denoising"`` or ``"noising"``.

    Raises:
        InterpError: another direction.

    >>> clean, corrupted = (xr.DataArray(np.array(values), dims="prompt") for values in ([2.0, 2.0], [0.0, 0.0]))
    >>> found = recovered(xr.DataArray(np.array([0.5, 0.5]), dims="prompt"), clean, corrupted, minimum_gap=0.1)
    >>> float(effect(found, "denoising")["mean"]), float(effect(found, "noising")["mean"])
    (0.25, 0.75)
    """
    return _subtracted_from(1, summary) if _is_lost(direction) else summary


def turned(summary: xr.Dataset) -> xr.Dataset:
    """The summary of the same numbers with the other sign, whose interval ends change places.

    >>> found = turned(mean(xr.DataArray(np.array([1.0, 2.0, 6.0]), dims="prompt")))
    >>> float(found["mean"]), bool(found["low"] < found["high"])
    (-3.0, True)
    """
    return _subtracted_from(0, summary)


def _subtracted_from(whole: float, summary: xr.Dataset) -> xr.Dataset:
    return summary.assign({
        name: (whole - summary[other]).assign_attrs(summary[name].attrs)
        for name, other in (("mean", "mean"), ("low", "high"), ("high", "low"))
    })  # fmt: skip


def moved(patched: xr.DataArray, clean: xr.DataArray, corrupted: xr.DataArray, direction: str) -> xr.DataArray:
    """How far a patch moves the metric of each prompt, in its units: the numerator of the ratio that ``effect`` shows.

    patched - corrupted by denoising, clean - patched by noising. ``effect`` is 0 exactly where its mean is 0.

    Raises:
        InterpError: another direction.

    >>> clean, corrupted = (xr.DataArray(np.array(values), dims="prompt") for values in ([2.0, 3.0], [0.0, 1.0]))
    >>> moved(xr.DataArray(np.array([1.5, 2.5]), dims="prompt"), clean, corrupted, "noising").values.tolist()
    [0.5, 0.5]
    """
    return clean - patched if _is_lost(direction) else patched - corrupted


def _is_lost(direction: str) -> bool:
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    return direction == "noising"


def p_values(values: xr.DataArray, dim: str = "prompt", *, seed: int = stats.SEED) -> xr.DataArray:
    """Two-sided p-value per cell for a mean of 0, adjusted for the number of cells: ``stats.max_t_p_values``.

    Args:
        values: numbers with a dimension ``dim``; the cells are all other dimensions together.
        dim: what is averaged over.
        seed: of the sign flips; recorded with the kind of test in the attributes.

    Returns:
        The p-values, in (0, 1], over the other dimensions.

    Raises:
        InterpError: no such dimension, or values that are no numbers.

    >>> rng = np.random.default_rng(0)
    >>> values = xr.DataArray(rng.normal(size=(20, 3)) + [5, 0, 0], dims=("prompt", "head"))
    >>> (p_values(values) < 0.05).values.tolist()
    [True, False, False]
    """
    array = _array(values, dim)
    cells = array.reshape(len(array), -1)
    first = _without(values, dim)
    attrs = {
        "units": "",
        "test": "sign flips, max-T over all cells",
        "over": dim,
        "seed": seed,
        "cells": cells.shape[1],
    }
    found = stats.max_t_p_values(cells, seed=seed).reshape(first.shape)
    return first.copy(data=found).assign_attrs(attrs).rename("p_value")


# ---- labels ----


def _variable(result: xr.Dataset, name: str) -> xr.DataArray:
    if name not in result:
        have = ", ".join(map(str, result.data_vars))
        raise InterpError(f"The result has no variable {shown(name)}. It has: {have}.")
    return result[name]


def _array(values: xr.DataArray, dim: str) -> np.ndarray:
    """The numbers in float64, ``dim`` first."""
    if not isinstance(values, xr.DataArray):
        raise InterpError(f"A summary is of an xarray.DataArray, not {type(values).__name__}. Plain arrays: stats.")
    if dim not in values.dims:
        have = ", ".join(map(str, values.dims)) or "none"
        raise InterpError(f"The values have no dimension {shown(dim)} to average over. They have: {have}.")
    if values.dtype.kind not in NUMBERS:
        raise InterpError(f"{shown(str(values.name))} holds {values.dtype}, not numbers. It has no mean.")
    return np.ascontiguousarray(values.transpose(dim, ...).values, dtype=np.float64)


def _without(values: xr.DataArray, dim: str) -> xr.DataArray:
    """A labelled array over the other dimensions, to be filled."""
    rest: list[Hashable] = [other for other in values.dims if other != dim]
    coords = {name: one for name, one in values.coords.items() if dim not in one.dims}
    return xr.DataArray(np.empty([values.sizes[other] for other in rest]), coords=coords, dims=rest)


def _interval_attrs(dim: str, level: float, n_resamples: int, seed: int) -> dict[str, Any]:
    return {
        "interval": "percentile bootstrap", "over": dim, "level": level, "n_resamples": n_resamples, "seed": seed
    }  # fmt: skip


def _summary(
    values: xr.DataArray, dim: str, parts: tuple[np.ndarray, ...], units: str, attrs: dict[str, Any]
) -> xr.Dataset:
    value, low, high, count = parts
    first = _without(values, dim)
    low, high = (np.where(count > 1, bound, np.nan) for bound in (low, high))
    numbers = (("mean", value, units), ("low", low, units), ("high", high, units), ("n", count, f"{dim}s"))
    data = {name: first.copy(data=part).assign_attrs(units=unit) for name, part, unit in numbers}
    return xr.Dataset(data, attrs=attrs)
