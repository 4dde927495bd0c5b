"""What carries the answer: exact patching of blocks and heads, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.markup import figure_number, token
from interp.report.palette import Scale
from interp.report.summary import INTERVALS, mean_over
from interp.report.tables import interval_text, joined, mean_table
from interp.report.verdict import Verdict
from interp.sites import SITES, head_label

BLOCK_SITES = ("resid_pre", "attn_out", "mlp_out")
HEAD_SITES = ("z", "q", "k", "v", "pattern")
GAP = "share of the clean–corrupted gap"
_LIMITS = (1.0, 1.5)
"""The colours reach this far: to 1 unless an effect passes it by a tenth, and never beyond 1.5."""
_DIRECTIONS = {
    "denoising": ("Denoising: is it sufficient?", "Recovered: corrupted run, this one place made clean"),
    "noising": ("Noising: is it needed?", "Lost = 1 − recovered: clean run, this one place corrupted"),
}


def section(patching: Result, verdict: Verdict) -> Section:
    """Heatmaps of every patched site, denoising and noising side by side."""
    directions = patching.labels("direction")
    unknown = [name for name in directions if name not in _DIRECTIONS]
    if unknown:
        from interp.errors import InterpError

        raise InterpError(
            f"{patching.file}: direction '{unknown[0]}' is neither denoising nor noising; run the study again."
        )
    blocks: list[Block] = [
        Facts(
            (
                ("Denoising (left):", "the corrupted prompt runs, one place is overwritten with its clean value. 1 means that this place alone brings the clean answer back: it is sufficient."),
                ("Noising (right):", "the clean prompt runs, one place is overwritten with its corrupted value. Shown is what is lost, 1 − recovered: 1 means that without this place nothing is left: it is needed."),
                ("Units:", "0 is no effect and 1 the whole gap between the clean and the corrupted logit difference. Values beyond 0 and 1 are real and kept; the tables give recovered itself for both directions."),
            ),
            "How to read these maps",
        )
    ]  # fmt: skip
    blocks += _undefined(patching)
    for site in BLOCK_SITES:
        if patching.has(f"recovered_{site}"):
            blocks.append(_block_figure(patching, site))
        if patching.has(f"recovered_{site}_position"):
            blocks.append(_position_figure(patching, site))
    for site in HEAD_SITES:
        if patching.has(f"recovered_{site}"):
            blocks.append(_head_figure(patching, site, verdict.marks()))
        if patching.has(f"recovered_{site}_role"):
            blocks.append(_role_figure(patching, site, verdict.marks()))
    lead = patching.attr("question") or "Which activations carry the answer, at which word and layer?"
    return Section("patching", "What carries it", lead, blocks)


def head_axis(array: xr.DataArray) -> str:
    """``kv_head`` where a grouped-query model has fewer keys and values than queries, else ``head``."""
    return "kv_head" if "kv_head" in array.dims else "head"


def importance(summary: xr.Dataset, direction: str) -> xr.Dataset:
    """What a direction's map shows: recovered for denoising, 1 − recovered for noising, bounds swapped along."""
    if direction == "denoising":
        return summary
    return xr.Dataset(
        {"mean": 1 - summary["mean"], "low": 1 - summary["high"], "high": 1 - summary["low"], "n": summary["n"]}
    )


def _undefined(patching: Result) -> list[Block]:
    name = next(
        (
            str(n)
            for n in patching.data.data_vars
            if str(n).startswith("recovered_") and "prompt" in patching.data[n].dims
        ),
        None,
    )
    if name is None:
        return []
    array = patching.data[name].transpose("prompt", ...).values
    empty = int((~np.isfinite(array.reshape(array.shape[0], -1))).all(axis=1).sum())
    if not empty:
        return []
    text = f"For {empty} of {array.shape[0]} prompts the gap between clean and corrupted is too small to divide by; their recovered is undefined and left out (see n in the tables)."
    return [Notice("note", "Small gaps", text)]


def _scale(*values: np.ndarray) -> Scale:  # type: ignore[type-arg]
    size = max((float(np.nanmax(np.abs(v))) for v in values if np.isfinite(v).any()), default=1.0)
    limit = _LIMITS[0] if size <= 1.1 * _LIMITS[0] else min(np.ceil(size * 10) / 10, _LIMITS[1])
    return Scale.centred(float(limit), units=GAP, name="recovered, or lost")


def _figure(
    patching: Result, variable: str, dims: Sequence[tuple[str, str]], panels: Sequence[Panel], *, key: str, title: str,
    reading: str, scale: Scale, by: xr.Dataset, marks: bool = False,
) -> Figure:  # fmt: skip
    parts = [
        (name, mean_table(name, by.isel(direction=i, drop=True), dims, units=GAP, name="recovered"))
        for i, name in enumerate(patching.labels("direction"))
    ]
    table = joined(f"{variable}: mean over prompts. Intervals: {INTERVALS.format(dim='prompt')}", "direction", parts)
    return Figure(
        key,
        title,
        reading,
        tuple(panels),
        (table,),
        legend=colour_legend(scale, key=f"{key}-l", marks=marks),
        source=patching.attr("source"),
        file=patching.file,
    )


def _block_figure(patching: Result, site: str) -> Figure:
    variable = f"recovered_{site}"
    summary = mean_over(patching.need(variable, "direction", "prompt", "layer", "role"))
    scale = _scale(summary["mean"].values)
    panels = []
    for i, direction in enumerate(patching.labels("direction")):
        grid = Grid.of(
            importance(summary.isel(direction=i, drop=True), direction),
            "layer",
            "role",
            row_title="layer",
            column_title="role",
        )
        panels.append(
            Panel(
                _DIRECTIONS[direction][0],
                heatmap(
                    grid,
                    scale,
                    key=f"{site}-{direction}",
                    title=f"{site}, {direction}",
                    description=f"{_DIRECTIONS[direction][1]}, by layer and role",
                    cell=(49.0, 28.0),
                ),
                _DIRECTIONS[direction][1],
            )
        )
    reading = f"{site}: {SITES[site].description}. {_strongest(patching, summary, 'role')}"
    return _figure(
        patching,
        variable,
        (("layer", "layer"), ("role", "role")),
        panels,
        key=f"patch-{site}",
        title=f"{site} by layer and role",
        reading=reading,
        scale=scale,
        by=summary,
    )


def _position_figure(patching: Result, site: str) -> Figure:
    variable = f"recovered_{site}_position"
    summary = mean_over(patching.need(variable, "direction", "prompt", "layer", "position"))
    scale = _scale(summary["mean"].values)
    count = patching.data.sizes["position"]
    tokens = (
        [token(text) for text in patching.labels("token")] if patching.has("token") else [str(i) for i in range(count)]
    )
    layers = patching.labels("layer")
    cells = {(r, c): f"layer {layer} · {tokens[c]} ({c})" for r, layer in enumerate(layers) for c in range(count)}
    panels = []
    for i, direction in enumerate(patching.labels("direction")):
        shown = importance(summary.isel(direction=i, drop=True), direction)
        grid = Grid.of(
            shown,
            "layer",
            "position",
            row_title="layer",
            column_title="position (token of the first prompt)",
            columns=tokens,
            cells=cells,
        )
        panels.append(
            Panel(
                _DIRECTIONS[direction][0],
                heatmap(
                    grid,
                    scale,
                    key=f"{site}-position-{direction}",
                    title=f"{site} by position, {direction}",
                    description=f"{_DIRECTIONS[direction][1]}, by layer and position",
                    annotate=False,
                    cell=(20.0, 22.0),
                ),
                _DIRECTIONS[direction][1],
                wide=True,
            )
        )
    reading = (
        f"{site} at every position. All prompts share one template, so a column is the same place in each of them."
    )
    return _figure(
        patching,
        variable,
        (("layer", "layer"), ("position", "position")),
        panels,
        key=f"patch-{site}-position",
        title=f"{site} by layer and position",
        reading=reading,
        scale=scale,
        by=summary,
    )


def _head_figure(patching: Result, site: str, marks: Mapping[tuple[int, int], str]) -> Figure:
    variable = f"recovered_{site}"
    axis = head_axis(patching.data[variable])
    summary = mean_over(patching.need(variable, "direction", "prompt", "layer", axis))
    scale = _scale(summary["mean"].values)
    panels = []
    for i, direction in enumerate(patching.labels("direction")):
        grid = head_grid(importance(summary.isel(direction=i, drop=True), direction), axis, marks)
        panels.append(
            Panel(
                _DIRECTIONS[direction][0],
                heatmap(
                    grid,
                    scale,
                    key=f"head-{site}-{direction}",
                    title=f"{site} of every head, {direction}",
                    description=f"{_DIRECTIONS[direction][1]}, by layer and {axis}",
                ),
                _DIRECTIONS[direction][1],
            )
        )
    shared = (
        " This model is grouped-query: several query heads share one key and value head (kv_head)."
        if axis == "kv_head"
        else ""
    )
    reading = f"{site}: {SITES[site].description}; all positions at once.{shared} {_strongest(patching, summary, axis)}"
    return _figure(
        patching,
        variable,
        (("layer", "layer"), (axis, axis)),
        panels,
        key=f"patch-{site}",
        title=f"{site} of every head",
        reading=reading,
        scale=scale,
        by=summary,
        marks=bool(marks) and axis == "head",
    )


def _role_figure(patching: Result, site: str, marks: Mapping[tuple[int, int], str]) -> Figure:
    variable = f"recovered_{site}_role"
    axis = head_axis(patching.data[variable])
    summary = mean_over(patching.need(variable, "direction", "prompt", "layer", axis, "role"))
    scale = _scale(summary["mean"].values)
    panels = []
    for i, direction in enumerate(patching.labels("direction")):
        for r, role in enumerate(patching.labels("role")):
            grid = head_grid(importance(summary.isel(direction=i, role=r, drop=True), direction), axis, marks)
            drawn = heatmap(
                grid,
                scale,
                key=f"role-{site}-{r}-{direction}",
                title=f"{site} at {role}, {direction}",
                description=_DIRECTIONS[direction][1],
            )
            panels.append(Panel(f"at {role}", drawn, group=" ".join(_DIRECTIONS[direction]) if r == 0 else ""))
    reading = f"{site} of one head at one word only: where a head does its work. {_strongest(patching, summary, axis, 'role')}"
    return _figure(
        patching,
        variable,
        (("layer", "layer"), (axis, axis), ("role", "role")),
        panels,
        key=f"patch-{site}-role",
        title=f"{site} of every head, one word at a time",
        reading=reading,
        scale=scale,
        by=summary,
        marks=bool(marks) and axis == "head",
    )


def head_grid(summary: xr.Dataset, axis: str, marks: Mapping[tuple[int, int], str]) -> Grid:
    """Layer by head, tooltips naming the head, the verdict's heads outlined."""
    n_layers, n_heads = summary.sizes["layer"], summary.sizes[axis]
    cells = {
        (layer, head): head_label(layer, head) if axis == "head" else f"layer {layer}, kv_head {head}"
        for layer in range(n_layers)
        for head in range(n_heads)
    }
    kept = {at: kind for at, kind in marks.items() if axis == "head" and at[0] < n_layers and at[1] < n_heads}
    return Grid.of(summary, "layer", axis, row_title="layer", column_title=axis, cells=cells, marks=kept)


def _strongest(patching: Result, summary: xr.Dataset, *axes: str) -> str:
    """The most sufficient cell of a site, in words."""
    directions = patching.labels("direction")
    if "denoising" not in directions:
        return ""
    one = summary.isel(direction=directions.index("denoising"), drop=True).transpose("layer", *axes)
    values = one["mean"].values
    if not np.isfinite(values).any():
        return ""
    at = np.unravel_index(int(np.nanargmax(values)), values.shape)
    names = [patching.labels(axis)[int(i)] for axis, i in zip(axes, at[1:], strict=True)]
    if axes[0] == "head":
        where = head_label(int(at[0]), int(at[1])) + (f" at {names[1]}" if len(axes) > 1 else "")
    else:
        where = f"layer {patching.labels('layer')[int(at[0])]}, {' '.join(f'{axis} {name}' for axis, name in zip(axes, names, strict=True))}"
    low, high = (float(one[bound].values[at]) for bound in ("low", "high"))
    return f"Most sufficient: {where}, recovering {figure_number(float(values[at]), 2)} {interval_text(low, high)} of the gap."
