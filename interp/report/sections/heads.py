"""Which heads: the head table, what they look at, what they write, and what is lost without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from interp.report.blocks import Block, Details, Facts, Figure, Notice, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.lines import Point, bars
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.sections.patching import head_grid
from interp.report.summary import INTERVALS, mean_over
from interp.report.tables import Table, joined, mean_table
from interp.report.verdict import Verdict

SHOWN_HEADS = 12
SHOWN_COMPONENTS = 14
TOLERANCE = 1e-2
"""How far, in logits, a prompt's contributions may be from its logit difference before the page warns (float32)."""

_ABLATIONS = {
    "zero": "its output set to zero",
    "mean": "its output set to the mean over prompts",
    "resample": "its output taken from another prompt",
}


def section(attribution: Result | None, verdict: Verdict) -> Section | None:
    """The head table, attention edges, direct logit attribution and ablations."""
    blocks: list[Block] = []
    if verdict.heads:
        blocks += _head_table(verdict)
    if attribution is not None:
        marks = verdict.marks()
        if attribution.has("attention"):
            blocks.append(_edges(attribution, marks))
        blocks += _contributions(attribution, marks)
        if attribution.has("ablation_effect"):
            blocks.append(_ablations(attribution, marks))
    elif verdict.heads:
        blocks.append(
            Notice(
                "note",
                "No attribution",
                "This run has no results/head_attribution.nc, so attention, direct contributions and ablations are left out.",
            )
        )
    if not blocks:
        return None
    lead = (
        "Movers read the answer's word and write it somewhere else; readers fetch it from there when it is asked for."
    )
    return Section("heads", "Which heads", lead, blocks)


def _head_table(verdict: Verdict) -> list[Block]:
    named = sum(label != "none" for label in verdict.labels)
    shown = max(named, min(SHOWN_HEADS, len(verdict.heads)))
    kinds = [
        f"{verdict.labels.count(kind)} {kind}{'s' if verdict.labels.count(kind) != 1 else ''}"
        for kind in ("mover", "reader")
    ]
    title = f"{kinds[0]} and {kinds[1]} among {len(verdict.heads)} heads"
    what = "Means over prompts with 95% intervals"
    top = verdict.reading_table(what + (f", the first {shown} heads" if shown < len(verdict.heads) else ""), shown)
    return [
        Details(title, (top,), open=True),
        Details(f"All {len(verdict.heads)} heads, bounds in columns of their own", (verdict.full_table(what),)),
    ]


def _edges(attribution: Result, marks: Mapping[tuple[int, int], str]) -> Figure:
    summary = mean_over(attribution.need("attention", "prompt", "edge", "layer", "head"))
    scale = Scale.rising(0, 1, units="share", name="attention weight, mean")
    panels, parts = [], []
    for i, edge in enumerate(attribution.labels("edge")):
        one = summary.isel(edge=i, drop=True)
        arrow = edge.replace("<-", " ← ")
        panels.append(
            Panel(
                arrow,
                heatmap(
                    head_grid(one, "head", marks),
                    scale,
                    key=f"edge-{i}",
                    title=f"Attention {arrow}",
                    description="Mean attention weight by layer and head",
                ),
            )
        )
        parts.append(
            (edge, mean_table(edge, one, (("layer", "layer"), ("head", "head")), units="share", name="attention"))
        )
    table = joined(f"Attention weights. Intervals: {INTERVALS.format(dim='prompt')}", "edge", parts)
    reading = "noun ← color reads: how much of the noun's attention goes to the colour, in [0, 1], averaged over prompts. It says where a head looks, not yet that it matters."
    if not any(edge.startswith("noun<-color") for edge in attribution.labels("edge")):
        reading = "A ← B reads: how much of A's attention goes to B, in [0, 1], averaged over prompts. It says where a head looks, not yet that it matters."
    return Figure(
        "edges",
        "Who looks at whom",
        reading,
        tuple(panels),
        (table,),
        legend=colour_legend(scale, key="edges-l", marks=bool(marks)),
        source=attribution.attr("source"),
        file=attribution.file,
    )


def _contributions(attribution: Result, marks: Mapping[tuple[int, int], str]) -> list[Block]:
    contribution = attribution.need("contribution", "prompt", "component")
    labels = attribution.labels("component")
    summary = mean_over(contribution)
    mean = summary["mean"].values
    ranked = sorted(range(len(labels)), key=lambda i: (-abs(float(np.nan_to_num(mean[i]))), i))
    top, rest = ranked[:SHOWN_COMPONENTS], ranked[SHOWN_COMPONENTS:]
    points = [_point(summary.isel(component=i)) for i in top]
    names = [labels[i] for i in top]
    if rest:
        names.append(f"{len(rest)} others")
        points.append(_point(mean_over(contribution.isel(component=rest).sum("component"))))
    names.append("all together")
    points.append(_point(mean_over(contribution.sum("component"))))
    panels = [
        Panel(
            "Largest contributions",
            bars(names, points, axis="contribution to logit(correct) − logit(incorrect) (logits)", key="dla-bars", title="Direct logit attribution", description="Mean contribution of components with 95% intervals", tones=["" for _ in names[:-1]] + ["total"]),
        )
    ]  # fmt: skip
    heads = _head_map(attribution, summary)
    if heads is not None:
        scale = Scale.centred(
            float(np.nanmax(np.abs(heads["mean"].values))), units="logits", name="direct contribution"
        )
        drawn = heatmap(
            head_grid(heads, "head", marks),
            scale,
            key="dla-heads",
            title="Direct contribution of every head",
            description="Mean contribution by layer and head",
        )
        panels.append(Panel("Every head", drawn, legend=colour_legend(scale, key="dla-heads-l", marks=bool(marks))))
    rows = [
        (label, *(float(summary[k].values[i]) for k in ("mean", "low", "high")), int(summary["n"].values[i]))
        for i, label in enumerate(labels)
    ]
    rows_table = mean_table(
        "Contributions", summary, (("component", "component"),), units="logits", name="contribution"
    )
    assert len(rows) == len(rows_table.rows)
    reading = (
        attribution.attr("reading")
        or "Positive bars push towards the correct answer. Only the direct path to the output is counted."
    )
    figure = Figure(
        "dla",
        "What each part writes directly to the answer",
        reading,
        tuple(panels),
        (
            Table(
                f"Contribution of every component. Intervals: {INTERVALS.format(dim='prompt')}",
                rows_table.columns,
                rows_table.rows,
            ),
        ),
        source=attribution.attr("source"),
        file=attribution.file,
    )
    return [figure, _sum_check(attribution, contribution)]


def _sum_check(attribution: Result, contribution: xr.DataArray) -> Facts | Notice:
    target = attribution.need("logit_difference", "prompt").values.astype(np.float64)
    total = contribution.values.astype(np.float64).sum(axis=1)
    worst = float(np.max(np.abs(total - target)))
    text = f"the contributions of all {contribution.sizes['component']} components sum to the logit difference of each prompt; the largest deviation over {len(target)} prompts is {worst:.1e} logits (mean {figure_number(float(total.mean()), 3)} against {figure_number(float(target.mean()), 3)})."
    if worst > TOLERANCE:
        return Notice(
            "warn",
            "The contributions do not add up",
            f"The largest deviation from the logit difference is {worst:.2e} logits; do not trust single bars below that size.",
        )
    return Facts((("Sum check:", text),))


def _head_map(attribution: Result, summary: xr.Dataset) -> xr.Dataset | None:
    if not attribution.has("component_layer", "component_head"):
        return None
    layer, head = (
        attribution.need(name, "component").values.astype(int) for name in ("component_layer", "component_head")
    )
    chosen = np.flatnonzero((head >= 0) & (layer >= 0))
    if chosen.size == 0:
        return None
    shape = int(layer[chosen].max()) + 1, int(head[chosen].max()) + 1
    maps = {}
    for name in ("mean", "low", "high", "n"):
        grid = np.full(shape, 0 if name == "n" else np.nan)
        grid[layer[chosen], head[chosen]] = summary[name].values[chosen]
        maps[name] = (("layer", "head"), grid)
    return xr.Dataset(maps)


def _ablations(attribution: Result, marks: Mapping[tuple[int, int], str]) -> Figure:
    summary = mean_over(attribution.need("ablation_effect", "prompt", "ablation", "layer", "head"))
    size = float(np.nanmax(np.abs(summary["mean"].values))) if np.isfinite(summary["mean"].values).any() else 1.0
    scale = Scale.centred(size, units="logits", name="ablated − clean logit difference")
    panels, parts = [], []
    for i, kind in enumerate(attribution.labels("ablation")):
        one = summary.isel(ablation=i, drop=True)
        panels.append(
            Panel(
                f"{kind} ablation",
                heatmap(
                    head_grid(one, "head", marks),
                    scale,
                    key=f"ablation-{i}",
                    title=f"Effect of {kind} ablation",
                    description="Change of the logit difference by layer and head",
                ),
                _ABLATIONS.get(kind, ""),
            )
        )
        parts.append(
            (kind, mean_table(kind, one, (("layer", "layer"), ("head", "head")), units="logits", name="effect"))
        )
    table = joined(f"Ablation effects. Intervals: {INTERVALS.format(dim='prompt')}", "ablation", parts)
    reading = "Negative (orange): the answer gets worse without the head. Zero is the harshest and takes the model furthest from what it knows; resample keeps activations realistic."
    return Figure(
        "ablations",
        "What is lost without a head",
        reading,
        tuple(panels),
        (table,),
        legend=colour_legend(scale, key="ablations-l", marks=bool(marks)),
        source=attribution.attr("source"),
        file=attribution.file,
    )


def _point(summary: xr.Dataset) -> Point:
    return Point(float(summary["mean"]), float(summary["low"]), float(summary["high"]), int(summary["n"]))


def method_vectors(patching: Result | None, attribution: Result | None) -> Sequence[tuple[str, xr.Dataset]]:
    """How much each head matters, by method, as means over prompts on (layer, head); larger is more."""
    found: list[tuple[str, xr.Dataset]] = []
    if patching is not None and patching.has("recovered_z"):
        summary = mean_over(patching.need("recovered_z", "direction", "prompt", "layer", "head"))
        from interp.report.sections.patching import importance

        for i, direction in enumerate(patching.labels("direction")):
            found.append((f"z {direction}", importance(summary.isel(direction=i, drop=True), direction)))
    if attribution is not None:
        heads = _head_map(attribution, mean_over(attribution.need("contribution", "prompt", "component")))
        if heads is not None:
            found.append(("DLA", heads))
        if attribution.has("ablation_effect"):
            summary = mean_over(-attribution.need("ablation_effect", "prompt", "ablation", "layer", "head"))
            for i, kind in enumerate(attribution.labels("ablation")):
                found.append((f"{kind} ablation", summary.isel(ablation=i, drop=True)))
    return found


def agreement_grid(names: Sequence[str], values: np.ndarray, count: int) -> Grid:  # type: ignore[type-arg]
    """The grid of rank agreements between methods."""
    return Grid(
        values,
        names,
        names,
        "",
        "",
        count=np.full(values.shape, count),
        cells={(i, j): f"{a} and {b}" for i, a in enumerate(names) for j, b in enumerate(names)},
    )
