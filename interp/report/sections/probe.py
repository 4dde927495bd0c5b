"""Where the answer can be read from the activations: probes against their controls."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from interp.report.blocks import Facts, Figure, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import Point, Series, curves, line_legend
from interp.report.markup import figure_number
from interp.report.summary import INTERVALS, mean_over
from interp.report.tables import Column, Table, joined, mean_table

_DIMS = ("site", "layer", "role", "fold")


def section(probing: Result) -> Section:
    """One figure per site: accuracy and control accuracy over layers, one panel per role."""
    parts = {name: probing.need(name, *_DIMS) for name in ("accuracy", "control_accuracy", "selectivity")}
    means = {name: mean_over(array, "fold") for name, array in parts.items()}
    majority = _majority(probing)
    sites = probing.labels("site")
    blocks = [_figure(probing, means, majority, site) for site in sites]
    facts = Facts((*_best(means, sites, probing), *_folds(probing)), "In short")
    lead = probing.attr("question") or "At which layer, and at which word, can a linear probe read the answer?"
    return Section("probing", "Where it can be read", lead, (*blocks, facts), "Where it is readable")


def _figure(probing: Result, means: dict[str, xr.Dataset], majority: dict[str, float], site: str) -> Figure:
    index = probing.labels("site").index(site)
    at_site = {name: summary.isel(site=index, drop=True) for name, summary in means.items()}
    layers = probing.labels("layer")
    panels = []
    for r, role in enumerate(probing.labels("role")):
        series = tuple(
            Series(label, tone, _points(at_site[name].isel(role=r)))
            for name, label, tone in (("control_accuracy", "control", "b"), ("accuracy", "probe", "a"))
        )
        if all(math.isnan(p.mean) for one in series for p in one.points):
            continue
        drawn = curves(
            layers, series, axis="layer", low=0.0, high=1.0, key=f"probe-{index}-{r}", title=f"Probe accuracy at {role}, {site}",
            description="Accuracy of the probe and of its control by layer, with 95% intervals.",
            rule=(majority.get(role, math.nan), "majority class"),
        )  # fmt: skip
        panels.append(Panel(f"at {role}", drawn))
    tables = [
        (
            heading,
            mean_table(heading, at_site[name], (("layer", "layer"), ("role", "role")), units="share", name="mean"),
        )
        for name, heading in (("accuracy", "probe"), ("control_accuracy", "control"), ("selectivity", "selectivity"))
    ]
    both = joined(
        f"{site}: accuracy, control and selectivity. Intervals: {INTERVALS.format(dim='fold')}", "quantity", tables
    )
    levels = Table(
        "Majority class", (Column("role"), Column("accuracy of the majority class", "share")), tuple(majority.items())
    )
    legend = line_legend([("probe", "a"), ("control (random labels)", "b"), ("majority class", "c")], key=f"probe-{index}-l", units="accuracy, share of held-out prompts")  # fmt: skip
    reading = (
        probing.attr("reading")
        or "A probe that beats both its control and the majority class reads something that is there."
    )
    return Figure(
        f"probe-{index}",
        f"Probe accuracy on {site}",
        reading,
        tuple(panels),
        (both, levels),
        legend=legend,
        source=probing.attr("source"),
        file=probing.file,
    )


def _points(summary: xr.Dataset) -> tuple[Point, ...]:
    columns = (summary[name].values for name in ("mean", "low", "high", "n"))
    return tuple(Point(float(m), float(low), float(high), int(n)) for m, low, high, n in zip(*columns, strict=True))


def _majority(probing: Result) -> dict[str, float]:
    roles = probing.labels("role")
    if not probing.has("majority"):
        return dict.fromkeys(roles, math.nan)
    values = np.broadcast_to(probing.data["majority"].values, (len(roles),))
    return {role: float(value) for role, value in zip(roles, values, strict=True)}


def _best(means: dict[str, xr.Dataset], sites: tuple[str, ...], probing: Result) -> list[tuple[str, str]]:
    """Per role, the layer and site of greatest selectivity."""
    found = []
    selectivity, accuracy = means["selectivity"], means["accuracy"]
    for r, role in enumerate(probing.labels("role")):
        values = selectivity["mean"].isel(role=r).transpose("site", "layer").values
        if not np.isfinite(values).any():
            continue
        s, layer = np.unravel_index(int(np.nanargmax(values)), values.shape)
        one = accuracy.isel(site=int(s), layer=int(layer), role=r)
        label = probing.labels("layer")[int(layer)]
        found.append(
            (
                f"{role}:",
                f"most selective at {sites[int(s)]}, layer {label}: accuracy {figure_number(float(one['mean']), 2)}, "
                f"{figure_number(float(values[s, layer]), 2)} above its control.",
            )
        )
    return found


def _folds(probing: Result) -> list[tuple[str, str]]:
    counts = []
    for name, word in (("n_train", "fitted on"), ("n_test", "tested on")):
        if probing.has(name):
            values = [int(v) for v in np.atleast_1d(probing.data[name].values)]
            span = str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"
            counts.append(f"{word} {span} prompts")
    folds = probing.data.sizes["fold"]
    return [("Folds:", f"{folds}, each {' and '.join(counts)}.")] if counts else [("Folds:", f"{folds}.")]
