"""Which heads: the head table, what they look at, what they write, and what is lost without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from interp import summary
from interp.language import called, say, say_stored
from interp.language import edge as in_words
from interp.report.blocks import Block, Details, Facts, Figure, Notice, Panel, Section
from interp.report.heat import colour_legend, head_grid, heatmap
from interp.report.inputs import Result
from interp.report.lines import Point, bars
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.tables import joined, mean_table
from interp.report.verdict import Verdict

SHOWN_HEADS = 12
SHOWN_COMPONENTS = 14
SHOWN_EDGES = 9

TOLERANCE = 1e-2
"""How far, in logits, a prompt's contributions may be from its logit difference before the page warns (float32)."""


def _ablations() -> dict[str, str]:
    """What each kind of ablation does to a head."""
    return {
        "zero": say("its output set to zero"),
        "zero_raw": say("its output set to what is zero in the raw model"),
        "mean": say("its output set to the mean over prompts"),
        "resample": say("its output taken from another prompt"),
    }


Marks = Mapping[tuple[int, int], str]


def _layer_head() -> tuple[tuple[str, str], ...]:
    return (("layer", say("layer")), ("head", say("head")))


def section(attribution: Result | None, verdict: Verdict) -> Section | None:
    """The head table, attention edges, direct logit attribution and ablations; ``None`` if there is none of them."""
    blocks: list[Block] = _head_table(verdict) if verdict.heads else []
    if attribution is not None:
        marks = verdict.marks()
        if attribution.has("attention"):
            blocks.append(_edges(attribution, marks))
        blocks += _contributions(attribution, marks)
        if attribution.has("ablation_effect"):
            blocks.append(_ablated(attribution, marks))
    elif blocks:
        text = say(
            "This run has no results/head_attribution.nc: attention, direct contributions and ablations are left out."
        )
        blocks.append(Notice("note", "", text))
    if not blocks:
        return None
    lead = say(
        "A mover brings the source to where it meets the target; a reader fetches it from there to give the answer."
    )
    return Section("heads", say("Which heads"), lead, blocks)


def _head_table(verdict: Verdict) -> list[Block]:
    named = sum(label != "none" for label in verdict.labels)
    shown = max(named, min(SHOWN_HEADS, len(verdict.heads)))
    title = say(
        "Movers: {movers}. Readers: {readers}. Heads in all: {heads}.",
        movers=verdict.labels.count("mover"), readers=verdict.labels.count("reader"), heads=len(verdict.heads),
    )  # fmt: skip
    what = say("Means over prompts with 95% intervals")
    reading = say(
        "Where: the word where the head acts; for the others, where its effect is largest. Sufficient and needed: 1 "
        "matters, 0 has no effect."
    )
    first = what
    if shown < len(verdict.heads):
        first = say("{what}; the first {shown} heads", what=what, shown=shown)
    said = verdict.sentences()
    blocks: list[Block] = [Facts(said, say("What the methods say of single heads"))] if said else []
    whole = say(
        "Everything that was measured. recovered is (patched − corrupted) / (clean − corrupted) in both directions: in "
        "noising 0 is needed and 1 no effect."
    )
    return [
        Details(title, (verdict.reading_table(first, shown),), open=True, reading=reading),
        *blocks,
        Details(say("All {n} heads, every number", n=len(verdict.heads)), (verdict.full_table(what),), reading=whole),
    ]


def _edges(attribution: Result, marks: Marks) -> Figure:
    found = attribution.summary("attention", "prompt", "edge", "layer", "head")
    scale = Scale.rising(0, 1, units=say("share"), name=say("attention weight, mean"))
    edges = attribution.labels("edge")
    largest = np.nan_to_num(found["mean"].transpose("edge", ...).values, nan=-1).reshape(len(edges), -1).max(axis=1)
    ranked = sorted((i for i in range(len(edges)) if largest[i] >= 0), key=lambda i: (-float(largest[i]), i))
    panels, parts = [], []
    for i, edge in enumerate(edges):
        one, arrow = found.isel(edge=i, drop=True), in_words(edge)
        if i in ranked[:SHOWN_EDGES]:
            panels.append(
                _head_panel(one, marks, scale, f"edge-{i}", arrow, say("Mean attention weight, {edge}", edge=arrow))
            )
        parts.append((arrow, mean_table(edge, one, _layer_head(), units=say("share"), name=say("attention"))))
    reader, _, read = (called("role", part) for part in edges[0].partition("<-"))
    reading = say(
        "{reader} ← {read} reads: how much of the attention of {reader} goes to {read}, in [0, 1]. It says where a "
        "head looks, not yet that it matters.",
        reader=reader, read=read,
    )  # fmt: skip
    if len(ranked) > SHOWN_EDGES:
        reading += " " + say(
            "The {shown} edges with the strongest head are drawn; the table has all {n}.",
            shown=SHOWN_EDGES, n=len(edges),
        )  # fmt: skip
    return Figure.of(
        attribution,
        "edges",
        say("Who looks at whom"),
        reading,
        panels=tuple(panels),
        tables=(
            joined(
                say("Attention weights. Intervals: {interval}", interval=summary.in_words(found)), say("edge"), parts
            ),
        ),
        legend=colour_legend(scale, key="edges-l", marks=bool(marks)),
    )


def _head_panel(
    one: xr.Dataset, marks: Marks, scale: Scale, key: str, title: str, description: str, subtitle: str = ""
) -> Panel:
    drawn = heatmap(head_grid(one, "head", marks), scale, key=key, title=title, description=description)
    return Panel(title, drawn, subtitle)


def _contributions(attribution: Result, marks: Marks) -> list[Block]:
    contribution = attribution.need("contribution", "prompt", "component")
    labels = attribution.labels("component")
    found = attribution.summary("contribution", "prompt", "component")
    size = np.abs(np.nan_to_num(found["mean"].values))
    ranked = sorted(range(len(labels)), key=lambda i: (-float(size[i]), i))
    top, rest = ranked[:SHOWN_COMPONENTS], ranked[SHOWN_COMPONENTS:]
    shown = [(labels[i], _point(found.isel(component=i)), "") for i in top]
    if rest:
        others = summary.mean(contribution.isel(component=rest).sum("component"))
        shown.append((say("{n} others", n=len(rest)), _point(others), ""))
    shown.append((say("all together"), _point(summary.mean(contribution.sum("component"))), "total"))
    names, points, tones = zip(*shown, strict=True)
    drawn = bars(
        names,
        points,
        axis=say("contribution to logit(correct) − logit(incorrect) (logits)"),
        key="dla-bars",
        title=say("Direct logit attribution"),
        description=say("Mean contribution of components with 95% intervals"),
        tones=tones,
    )
    panels = [Panel(say("Largest contributions"), drawn)]
    heads = head_map(attribution, found)
    if heads is not None:
        scale = Scale.centred(_largest(heads), units="logits", name=say("direct contribution"))
        grid = head_grid(heads, "head", marks)
        title = say("Direct contribution of every head")
        drawn = heatmap(
            grid, scale, key="dla-heads", title=title, description=say("Mean contribution by layer and head")
        )
        panels.append(
            Panel(say("Every head"), drawn, legend=colour_legend(scale, key="dla-heads-l", marks=bool(marks)))
        )
    heading = say("Contribution of every component. Intervals: {interval}", interval=summary.in_words(found))
    table = mean_table(heading, found, (("component", say("component")),), units="logits", name=say("contribution"))
    reading = say(
        "Blue bars push towards the correct answer, orange ones towards the incorrect one. Only the direct path to the "
        "output is counted, through the final norm with its scale frozen."
    )
    title = say("What each part writes directly to the answer")
    figure = Figure.of(attribution, "dla", title, reading, panels=tuple(panels), tables=(table,))
    return [figure, _sum_check(attribution, contribution)]


def _sum_check(attribution: Result, contribution: xr.DataArray) -> Facts | Notice:
    target = attribution.need("logit_difference", "prompt").values.astype(np.float64)
    total = contribution.values.astype(np.float64).sum(axis=1)
    worst = float(np.max(np.abs(total - target)))
    if worst > TOLERANCE:
        text = say(
            "The largest deviation from a logit difference is {worst:.2e} logits; trust no bar below that size.",
            worst=worst,
        )
        return Notice("warn", say("The contributions do not add up"), text)
    text = say(
        "the contributions of all {parts} components sum to the logit difference of each prompt; the largest deviation "
        "over {n} prompts is {worst:.1e} logits (mean {total} against {target}).",
        parts=contribution.sizes["component"], n=len(target), worst=worst,
        total=figure_number(float(total.mean())), target=figure_number(float(target.mean())),
    )  # fmt: skip
    return Facts(((say("Sum check:"), text),))


def _ablated(attribution: Result, marks: Marks) -> Figure:
    found = _ablation_effect(attribution)
    scale = Scale.centred(_largest(found), units="logits", name=say("ablated − clean logit difference"))
    panels, parts = [], []
    for i, kind in enumerate(attribution.labels("ablation")):
        one, title = found.isel(ablation=i, drop=True), say_stored(f"{kind} ablation")
        description = say("Change of the logit difference by layer and head")
        panels.append(_head_panel(one, marks, scale, f"ablation-{i}", title, description, _ablations().get(kind, "")))
        parts.append(
            (called("ablation", kind), mean_table(kind, one, _layer_head(), units="logits", name=say("effect")))
        )
    reading = say(
        "In logits of the answer. Negative (orange): the answer gets worse without the head. Zero takes the model "
        "furthest from what it knows; resample keeps activations realistic."
    )
    return Figure.of(
        attribution,
        "ablations",
        say("What is lost without a head"),
        reading,
        panels=tuple(panels),
        tables=(
            joined(
                say("Ablation effects. Intervals: {interval}", interval=summary.in_words(found)), say("ablation"), parts
            ),
        ),
        legend=colour_legend(scale, key="ablations-l", marks=bool(marks)),
    )


def _ablation_effect(attribution: Result) -> xr.Dataset:
    return attribution.summary("ablation_effect", "prompt", "ablation", "layer", "head")


def _largest(found: xr.Dataset) -> float:
    values = found["mean"].values
    return float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0


def _point(found: xr.Dataset) -> Point:
    return Point(float(found["mean"]), float(found["low"]), float(found["high"]), int(found["n"]))


def head_map(attribution: Result, found: xr.Dataset) -> xr.Dataset | None:
    """The contributions of heads on (layer, head); ``None`` if components do not say which they are."""
    if not attribution.has("component_layer", "component_head"):
        return None
    layer, head = (
        attribution.need(name, "component").values.astype(int) for name in ("component_layer", "component_head")
    )
    chosen = np.flatnonzero((head >= 0) & (layer >= 0))
    if chosen.size == 0:
        return None
    shape = int(layer[chosen].max()) + 1, int(head[chosen].max()) + 1
    maps: dict[str, Any] = {}
    for name in ("mean", "low", "high", "n"):
        grid = np.full(shape, 0 if name == "n" else np.nan)
        grid[layer[chosen], head[chosen]] = found[name].values[chosen]
        maps[name] = (("layer", "head"), grid)
    return xr.Dataset(maps)


def method_maps(patching: Result | None, attribution: Result | None) -> dict[str, xr.Dataset]:
    """How much each head matters, by method, as means over prompts on (layer, head); larger is more."""
    maps: dict[str, xr.Dataset] = {}
    if patching is not None and patching.has("recovered_z"):
        found = patching.summary("recovered_z", "direction", "prompt", "layer", "head")
        for i, direction in enumerate(patching.labels("direction")):
            maps[f"z {direction}"] = summary.effect(found.isel(direction=i, drop=True), direction)
    if attribution is not None:
        heads = head_map(attribution, attribution.summary("contribution", "prompt", "component"))
        if heads is not None:
            maps["DLA"] = heads
        if attribution.has("ablation_effect"):
            found = summary.turned(_ablation_effect(attribution))
            for i, kind in enumerate(attribution.labels("ablation")):
                maps[f"{kind} ablation"] = found.isel(ablation=i, drop=True)
    return maps
