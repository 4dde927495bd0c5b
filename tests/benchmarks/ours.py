"""This package's side of the benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from interp.sweeps import sweep_sites
from tests.benchmarks.workload import Cell, Edge, Workload


@dataclass(frozen=True)
class Run:
    """What one run gave.

    Attributes:
        values: mean metric per cell or edge.
        largest_effect: largest change that any patch made to the mean metric.
        attributes: what the results say about their own cost, summed over sites (``engine`` joined).
    """

    values: dict[Any, float]
    largest_effect: float
    attributes: dict[str, Any]


def sites(work: Workload, names: tuple[str, ...], layers: tuple[int, ...]) -> Run:
    """Patch every cell of these sites, in one call."""
    values: dict[Cell, float] = {}
    parts = []
    effect = 0.0
    swept = sweep_sites(work.model, work.pairs, names, "denoising", "logit_difference", layers=layers)
    for name, result in swept.items():
        mean = result["patched"].mean("prompt").values
        effect = max(effect, float(np.abs(mean - float(result["corrupted"].mean())).max()))
        for row, layer in enumerate(layers):
            values |= {(name, layer, index): float(value) for index, value in enumerate(mean[row])}
        parts.append(result)
    return Run(values, effect, _attributes(parts))


def has_paths() -> bool:
    """Whether this version of the package patches paths."""
    try:
        from interp.sweeps import path_patching  # noqa: F401
    except ImportError:
        return False
    return True


def paths(work: Workload, senders: list[str] | None, receivers: list[str] | None) -> Run:
    """Patch every edge between these senders and receivers; None is all."""
    from interp.sweeps import path_patching

    result = path_patching(
        work.model, work.pairs, direction="denoising", metric="logit_difference", senders=senders, receivers=receivers
    )
    mean = result["patched"].mean("prompt").values
    labels = [[str(label) for label in result[axis].values] for axis in ("sender", "receiver")]
    values: dict[Edge, float] = {
        (labels[0][i], labels[1][j]): float(mean[i, j]) for i, j in np.argwhere(~np.isnan(mean)).tolist()
    }
    effect = float(np.nanmax(np.abs(mean - float(result["corrupted"].mean())))) if values else 0.0
    return Run(values, effect, _attributes([result]))


def _attributes(parts: list[xr.Dataset]) -> dict[str, Any]:
    """Sums of what every part states, the largest peak, and the engines; None where a part does not say."""
    out: dict[str, Any] = {}
    for name, join in (("planned_flop", sum), ("planned_peak_bytes", max), ("rows_run", sum), ("rows_in_all", sum)):
        stated = [part.attrs.get(name) for part in parts]
        known = [float(value) for value in stated if value is not None and not math.isnan(float(value))]
        out[name] = float(join(known)) if len(known) == len(stated) else None
    engines = dict.fromkeys(str(part.attrs["engine"]) for part in parts if "engine" in part.attrs)
    out["engine"] = ", ".join(engines) or None
    return out
