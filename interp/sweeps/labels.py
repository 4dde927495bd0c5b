"""What the results of all sweeps share: variables, coordinates, and attributes that say how they were computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from interp import readouts, results
from interp.errors import InterpError, shown
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.results import Variable
from interp.sweeps.cells import Cells
from interp.sweeps.engine import Screening
from interp.sweeps.reading import AnyPairs, described
from interp.sweeps.statement import Done

if TYPE_CHECKING:
    from interp.model import HookedTransformer


@dataclass(frozen=True)
class About:
    """What the numbers of a patch sweep are.

    Attributes:
        direction: ``"denoising"`` or ``"noising"``.
        metric: what results call it.
        units: of the metric.
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN.
    """

    direction: str
    metric: str
    units: str
    minimum_gap: float

    @classmethod
    def of(cls, pairs: PromptPairs, direction: str, metric: AnyReadout, minimum_gap: float | None) -> About:
        """With the metric's own smallest gap where none is given."""
        gap = readouts.readout(metric).minimum_gap if minimum_gap is None else minimum_gap
        if not isinstance(gap, int | float) or not gap >= 0:
            raise InterpError(f"minimum_gap is {shown(gap)}. Give a number of the metric's units, 0 or more.")
        return cls(direction, *described(pairs, metric), gap)


def how_computed(found: Done, screening: Screening | None) -> dict[str, Any]:
    """Attributes that say how a sweep was computed."""
    plan = found.plan
    attrs: dict[str, Any] = {
        "engine": "weights" if plan.engine == "weights" else "hooks",
        "rows_run": plan.rows,
        "rows_in_all": plan.rows_in_all,
        "rows_kept": plan.kept,
        "batches": plan.batches,
        "planned_flop": plan.flop,
        "planned_peak_bytes": plan.peak_bytes,
    }
    if plan.engine != "weights":
        attrs["engine_reason"] = plan.engine
    if screening is not None:
        attrs |= {
            "precision": "bfloat16",
            "screening_max_error": screening.max_error,
            "screening_rms_error": screening.rms_error,
            "screening_rows": screening.rows,
        }
    return attrs


def patch_variables(
    found: Done,
    patched: Float[np.ndarray, "prompt ..."],
    dims: tuple[str, ...],
    about: About,
) -> dict[str, Variable]:
    """What every patch sweep reports: the metric after each patch, of both runs, and what is recovered."""
    clean, corrupted = found.clean_and_corrupted(about.direction)
    recovered = readouts.recovered(
        *(torch.from_numpy(part) for part in (patched, clean, corrupted)), minimum_gap=about.minimum_gap
    )
    metric, units = about.metric, about.units
    return {
        "patched": Variable(dims, patched, units, f"{metric} after the patch"),
        "clean": Variable(("prompt",), clean, units, f"{metric} of the clean run"),
        "corrupted": Variable(("prompt",), corrupted, units, f"{metric} of the corrupted run"),
        "recovered": Variable(dims, recovered.numpy(), "fraction", "(patched - corrupted) / (clean - corrupted)"),
    }


def patch_attributes(found: Done, about: About, screening: Screening | None = None) -> dict[str, Any]:
    """What every patch sweep states about itself."""
    clean, corrupted = found.clean_and_corrupted(about.direction)
    return {
        "direction": about.direction,
        "metric": about.metric,
        "minimum_gap": about.minimum_gap,
        "n_small_gap": int((np.abs(clean - corrupted) < about.minimum_gap).sum()),
        "changed_something": int((found.changed != found.base[:, None]).any()),
        **how_computed(found, screening),
    }


def token_coords(pairs: AnyPairs, cells: Cells) -> dict[str, Any]:
    """The axes of a sweep's result, with the tokens that stand at each position where there is one text.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import patch_cells
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
    >>> token_coords(pairs, patch_cells(model, pairs, "z", {"roles": ["color"]}))["role"]
    ['color']
    """
    coords: dict[str, Any] = {"prompt": np.arange(len(pairs)), **cells.coords}
    if "position" in cells.dims and pairs.clean.tokens is not None:
        at = np.asarray(cells.coords["position"])
        coords["clean_token"] = ("position", np.array(pairs.clean.tokens[0])[at])
        if isinstance(pairs, PromptPairs) and pairs.corrupted.tokens is not None:
            coords["corrupted_token"] = ("position", np.array(pairs.corrupted.tokens[0])[at])
    return coords


# ---- ablations and knockouts ----

_HELPS = {
    "more": "; negative means that it helps the answer",
    "less": "; positive means that it helps the answer",
    "unknown": "",
}
"""Whether more or less of a read-out is better -> what the sign of an effect then says."""


def effect_of_change(
    model: HookedTransformer,
    pairs: AnyPairs,
    found: Done,
    name: str,
    metric: AnyReadout,
    cells: Cells,
    *,
    title: str,
    question: str,
    source: str,
    seed: int,
    extra: dict[str, Any],
) -> xr.Dataset:
    """The result of a sweep that changes one run: the metric after each change, before it, and their difference."""
    values: Float[np.ndarray, "prompt ..."] = found.changed.reshape(len(pairs), *cells.shape)
    effect = values - found.base.reshape(-1, *(1,) * (values.ndim - 1))
    readout = readouts.readout(metric)
    dims, units = ("prompt", *cells.dims), readout.units
    effect_name = {"ablated": "ablation_effect", "cut": "cut_effect"}[name]
    return results.build(
        {
            name: Variable(dims, values, units, f"{readout.name} after the change"),
            "unchanged": Variable(("prompt",), found.base, units, f"{readout.name} of the unchanged run"),
            effect_name: Variable(dims, effect, units, f"{name} - unchanged"),
        },
        coords=token_coords(pairs, cells),
        title=title,
        question=question,
        reading=f"{effect_name}: the metric after the change minus before{_HELPS[readout.better]}.",
        source=source,
        of=(model, pairs),
        seed=seed,
        extra={"metric": readout.name, "changed_something": int((effect != 0).any()), **extra},
    )
