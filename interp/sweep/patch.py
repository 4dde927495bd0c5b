"""``sweep``: put one run's activations into another, cell by cell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from interp import metrics, results, sites
from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.results import Variable
from interp.sweep import hooks
from interp.sweep.cells import Axis, Cells, Sets, patch_cells
from interp.sweep.execute import Done, Progress, Sweep, execute, make_plan
from interp.sweep.plan import Plan
from interp.sweep.readout import Readout, whole_answers

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Direction: TypeAlias = Literal["denoising", "noising"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

MINIMUM_GAP = {"logit_difference": 0.1, "log_probability": 0.05, "probability": 0.01, "rank": 1.0}
"""Smallest clean-corrupted gap, in the metric's units, that is worth normalising by."""

SCREENED_ROWS = 64
"""Rows that a bfloat16 sweep runs again in the model's own precision, to say how far off it is."""


def sweep(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: str = "logit_difference",
    *,
    axis: Axis | None = None,
    roles: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    sets: Sets | None = None,
    neuron_groups: int | None = None,
    minimum_gap: float | None = None,
    precision: Precision = "float32",
    memory: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Patch every cell of a site and report the metric after each.

    Denoising runs the corrupted prompt and puts in the clean activation (is it sufficient?); noising runs the clean
    prompt and puts in the corrupted one (is it needed?). Heimersheim and Nanda 2024 (arXiv 2404.15255).

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        site: ``resid_pre resid_mid resid_post attn_out mlp_out mlp_post`` (cells: layer x position or role) or
            ``z q k v pattern`` (cells: layer x head, all positions at once unless roles or positions are given).
        direction: ``"denoising"`` or ``"noising"``.
        metric: name from ``interp.metrics``.
        axis: ``"position"`` or ``"role"``; None takes positions where all prompts line up, else roles.
        roles: only these roles (a role of several tokens is patched whole).
        positions: only these positions.
        layers: only these layers.
        window: patch that many layers together, centred on each layer (cut off at the first and last).
        sets: name -> (layer, head) pairs (layers, at sites without heads) that are patched together; the axis ``set``
            then takes the place of ``layer`` and ``head``.
        neuron_groups: patch ``mlp_post`` in that many groups of neighbouring neurons (axis ``neuron_group``).
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        precision: ``"float32"`` computes in the model's own data type. ``"bfloat16"`` makes the matrix products of the
            blocks in bfloat16, for screening: effects come from it, baselines do not, and the attributes
            ``screening_max_error`` and ``screening_rms_error`` (the metric's units) say how far off a random sample of
            ``screening_rows`` rows was.
        memory: bytes that may be used beside the model; None is half of what is free.
        progress: called with rows done and rows in all.

    Returns:
        ``patched`` (prompt, layer, ...), ``clean`` and ``corrupted`` (prompt) in the metric's units, and ``recovered``
        = (patched - corrupted) / (clean - corrupted): 0 is corrupted behaviour, 1 is clean, in both directions.
        Attributes say how it was computed: ``engine`` (``weights`` or ``hooks``), ``rows_run`` of ``rows_in_all``,
        ``planned_flop``, ``planned_peak_bytes``, ``batches``.

    Raises:
        InterpError: an unknown site, direction, metric or role, or positions that mean different things in different
            prompts.
    """
    check_direction(direction)
    options: dict[str, Any] = {
        "axis": axis, "roles": roles, "positions": positions, "layers": layers, "window": window, "sets": sets,
        "neuron_groups": neuron_groups,
    }  # fmt: skip
    how: dict[str, Any] = {"precision": precision, "memory": memory, "progress": progress}
    if whole_answers(pairs, metric):
        return _sweep_whole_answers(model, pairs, site, direction, metric, options, how, minimum_gap)
    cells = patch_cells(model, pairs, site, **options)
    wanted = _stated(pairs, site, direction, metric, cells)
    found, screening = run_sweep(model, wanted, **how)
    return _labelled(
        model, pairs, found,
        site=site, direction=direction, metric=metric, cells=cells, screening=screening,
        minimum_gap=MINIMUM_GAP[metric] if minimum_gap is None else minimum_gap,
    )  # fmt: skip


def plan(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: str = "logit_difference",
    *,
    memory: int | None = None,
    **cells: Any,
) -> Plan:
    """What ``sweep`` would compute with the same arguments, without computing it; printing it says it in words.

    Known from the tokens alone: rows whose activations turn out to be equal save more.
    """
    check_direction(direction)
    wanted = _stated(pairs, site, direction, metric, patch_cells(model, pairs, site, **cells))
    if model.no_blocks:
        rows = len(wanted.cells) * len(pairs)
        return Plan(site, rows, rows, (len(pairs),), (), float("nan"), 0, 0, engine=model.no_blocks)
    return make_plan(model, model.blocks(), wanted, memory=memory)


def _stated(pairs: PromptPairs, site: str, direction: str, metric: str, cells: Cells) -> Sweep:
    base, source = (pairs.corrupted, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupted)
    return Sweep(base, site, cells, Readout.of(pairs, metric), source)


def check_direction(direction: str) -> None:
    """Refuse anything but the names of the two directions."""
    if direction not in get_args(Direction):
        raise InterpError(f"Unknown direction '{direction}'. Choose 'denoising' or 'noising'.")


@dataclass(frozen=True)
class Screening:
    """How far a bfloat16 sweep was off, in the metric's units, over some of its rows."""

    max_error: float
    rms_error: float
    rows: int


def run_sweep(
    model: HookedTransformer,
    wanted: Sweep,
    *,
    precision: Precision = "float32",
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Done, Screening | None]:
    """Run a stated sweep by the fastest exact way this model allows.

    Raises:
        InterpError: an unknown precision, or screening a model that has no arithmetic of its own here.
    """
    if precision not in get_args(Precision):
        raise InterpError(f"Unknown precision '{precision}'. Choose 'float32' or 'bfloat16'.")
    if model.no_blocks:
        if precision != "float32":
            raise InterpError(f"precision='bfloat16' needs the model's own weights: {model.no_blocks}. Leave it out.")
        log.info("Sweeping %s through hooks, which is slower: %s.", model.name, model.no_blocks)
        return hooks.execute(model, wanted, progress=progress), None
    blocks = model.blocks()
    if precision == "float32":
        return execute(model, blocks, wanted, memory=memory, progress=progress), None
    screened = execute(model, blocks.cast(torch.bfloat16), wanted, memory=memory, progress=progress)
    only = np.zeros(screened.changed.shape, dtype=bool)
    run = np.argwhere(screened.changed != screened.base[:, None])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(run), size=min(SCREENED_ROWS, len(run)), replace=False)
    only[tuple(run[chosen].T)] = True
    exact = execute(model, blocks, wanted, memory=memory, only=only)
    effect = screened.changed - screened.base[:, None]
    error = (effect - (exact.changed - exact.base[:, None]))[only]
    found = Screening(
        float(np.abs(error).max(initial=0.0)), float(np.sqrt((error**2).mean())) if error.size else 0.0, int(only.sum())
    )
    return Done(exact.base[:, None] + effect, exact.base, exact.source, screened.plan), found


# ---- whole answers ----


def _sweep_whole_answers(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction,
    metric: str,
    options: dict[str, Any],
    how: dict[str, Any],
    minimum_gap: float | None,
) -> xr.Dataset:
    """Both whole answers swept by their log-probability; the difference is the metric."""
    if options["axis"] == "position" or options["positions"] is not None:
        raise InterpError("With whole answers (sum_logprob) prompts end at different places: sweep by role.")
    if options["roles"] is None and not sites.site(site).has_heads:
        options |= {"axis": "role", "roles": list(pairs.roles)}
    right, wrong = (
        sweep(model, part, site, direction, "log_probability", **options, **how) for part in pairs.expand_answers()
    )
    if metric == "log_probability":
        return right
    out = right.copy()
    for name in ("patched", "clean", "corrupted"):
        out[name] = (right[name] - wrong[name]).assign_attrs(right[name].attrs)
    gap = MINIMUM_GAP[metric] if minimum_gap is None else minimum_gap
    values = metrics.recovered(
        *(torch.from_numpy(out[name].values) for name in ("patched", "clean", "corrupted")), minimum_gap=gap
    )
    out["recovered"] = right["recovered"].copy(data=values.numpy())
    out.attrs |= {"metric": "difference of summed log-probabilities", "minimum_gap": gap}
    for name in ("rows_run", "rows_in_all", "planned_flop", "batches"):
        out.attrs[name] = right.attrs[name] + wrong.attrs[name]
    out.attrs["changed_something"] = max(right.attrs["changed_something"], wrong.attrs["changed_something"])
    out.attrs["n_small_gap"] = int((np.abs(out["clean"].values - out["corrupted"].values) < gap).sum())
    return out


# ---- the result ----


def how_computed(found: Done, screening: Screening | None) -> dict[str, Any]:
    """Attributes that say how a sweep was computed."""
    plan = found.plan
    attrs: dict[str, Any] = {
        "engine": "weights" if plan.engine == "weights" else "hooks",
        "rows_run": plan.rows,
        "rows_in_all": plan.rows_in_all,
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
    direction: str,
    metric: str,
    minimum_gap: float,
) -> dict[str, Variable]:
    """What every patch sweep reports: the metric after each patch, of both runs, and what is recovered."""
    clean, corrupted = found.clean_and_corrupted(direction)
    recovered = metrics.recovered(
        *(torch.from_numpy(part) for part in (patched, clean, corrupted)), minimum_gap=minimum_gap
    )
    units = metrics.UNITS[metric]
    return {
        "patched": Variable(dims, patched, units, f"{metric} after the patch"),
        "clean": Variable(("prompt",), clean, units, f"{metric} of the clean run"),
        "corrupted": Variable(("prompt",), corrupted, units, f"{metric} of the corrupted run"),
        "recovered": Variable(dims, recovered.numpy(), "fraction", "(patched - corrupted) / (clean - corrupted)"),
    }


def patch_attributes(
    found: Done, direction: str, metric: str, minimum_gap: float, screening: Screening | None = None
) -> dict[str, Any]:
    """What every patch sweep states about itself."""
    clean, corrupted = found.clean_and_corrupted(direction)
    return {
        "direction": direction,
        "metric": metric,
        "minimum_gap": minimum_gap,
        "n_small_gap": int((np.abs(clean - corrupted) < minimum_gap).sum()),
        "changed_something": int((found.changed != found.base[:, None]).any()),
        **how_computed(found, screening),
    }


def token_coords(pairs: PromptPairs, cells: Cells) -> dict[str, Any]:
    """The axes of a sweep's result, with the tokens that stand at each position where there is one text."""
    coords: dict[str, Any] = {"prompt": np.arange(len(pairs)), **cells.coords}
    if "position" in cells.dims and pairs.clean.tokens is not None:
        at = np.asarray(cells.coords["position"])
        coords["clean_token"] = ("position", np.array(pairs.clean.tokens[0])[at])
        coords["corrupted_token"] = ("position", np.array(pairs.corrupted.tokens[0])[at])  # type: ignore[index]
    return coords


def _labelled(
    model: HookedTransformer,
    pairs: PromptPairs,
    found: Done,
    *,
    site: str,
    direction: str,
    metric: str,
    cells: Cells,
    screening: Screening | None,
    minimum_gap: float,
) -> xr.Dataset:
    attrs = {"site": site, **patch_attributes(found, direction, metric, minimum_gap, screening)}
    if attrs["n_small_gap"]:
        log.warning(
            "%d of %d prompts have a clean-corrupted gap below %g %s; their 'recovered' is NaN.",
            attrs["n_small_gap"],
            len(pairs),
            minimum_gap,
            metrics.UNITS[metric],
        )
    if not attrs["changed_something"]:
        log.warning("No patch of '%s' changed the metric at all: the two prompts have equal activations there.", site)
    patched = found.changed.reshape(len(pairs), *cells.shape)
    return results.build(
        patch_variables(found, patched, ("prompt", *cells.dims), direction, metric, minimum_gap),
        coords=token_coords(pairs, cells),
        title=f"{direction} sweep of {site}",
        question=f"Which {site} is {'sufficient for' if direction == 'denoising' else 'needed for'} the answer?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean; values outside are real; NaN: the gap is too small.",
        source="Heimersheim and Nanda 2024, arXiv 2404.15255; Zhang and Nanda 2023, arXiv 2309.16042",
        of=(model, pairs),
        seed=0,
        extra=attrs,
    )
