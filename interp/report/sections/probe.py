"""Where the answer can be read from the activations: probes against their controls."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from interp import summary
from interp.report.blocks import Facts, Figure, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import Point, Series, curves, line_legend
from interp.report.markup import figure_number
from interp.report.tables import Column, Table, joined, mean_table

_DIMS = ("site", "layer", "role", "fold")

_LINES = {
    "control_accuracy": ("control", "b"),
    "distractor_rate": ("gives the distractor's answer", "d"),
    "accuracy": ("probe", "a"),
}
"""Variable -> name and tone of its line, in drawing order."""

_TABLED = {
    "accuracy": "probe",
    "control_accuracy": "control",
    "selectivity": "selectivity",
    "distractor_rate": "distractor's answer",
}


def section(probing: Result) -> Section:
    """One figure per site: accuracy and control accuracy over layers, one panel per role."""
    names = ["accuracy", "control_accuracy", "selectivity"]
    names += ["distractor_rate"] if probing.has("distractor_rate") else []
    means = {name: probing.summary(name, *_DIMS, over="fold") for name in names}
    majority = _majority(probing)
    sites = probing.labels("site")
    blocks = [_figure(probing, means, majority, site) for site in sites]
    facts = Facts((*_best(means, sites, probing), *_folds(probing)), "In short")
    lead = probing.attr("question") or "At which layer, and at which word, can a linear probe read the answer?"
    return Section("probing", "Where it can be read", lead, (*blocks, facts), "Where it is readable")


def _figure(probing: Result, means: dict[str, xr.Dataset], majority: dict[str, float], site: str) -> Figure:
    index = probing.labels("site").index(site)
    at_site = {name: summary.isel(site=index, drop=True) for name, summary in means.items()}
    panels = []
    for r, role in enumerate(probing.labels("role")):
        series = [
            Series(label, tone, _points(at_site[name].isel(role=r)))
            for name, (label, tone) in _LINES.items()
            if name in at_site
        ]
        if all(math.isnan(p.mean) for one in series for p in one.points):
            continue
        drawn = curves(
            probing.labels("layer"),
            series,
            axis="layer",
            facet="layer",
            low=0.0,
            high=1.0,
            key=f"probe-{index}-{r}",
            title=f"Probe accuracy at {role}, {site}",
            description="Accuracy of the probe and of its control by layer, with 95% intervals.",
            rule=(majority.get(role, math.nan), "majority class"),
        )
        panels.append(Panel(f"at {role}", drawn))
    reading = (
        probing.attr("reading") or "A probe that beats its control and the majority reads something that is there."
    )
    entries = [(label, tone) for label, tone in reversed([_LINES[name] for name in _LINES if name in at_site])]
    entries.append(("majority class", "c"))
    return Figure.of(
        probing,
        f"probe-{index}",
        f"Probe accuracy on {site}",
        f"{reading} Shaded: 95% interval over folds.",
        panels=tuple(panels),
        tables=_tables(at_site, majority, site),
        legend=line_legend(entries, key=f"probe-{index}-l", units="(share of held-out prompts)"),
    )


def _tables(at_site: dict[str, xr.Dataset], majority: dict[str, float], site: str) -> tuple[Table, Table]:
    dims = (("layer", "layer"), ("role", "role"))
    parts = [
        (heading, mean_table(heading, at_site[name], dims, units="share", name="mean"))
        for name, heading in _TABLED.items()
        if name in at_site
    ]
    title = f"{site}, mean over folds. Intervals: {summary.in_words(at_site['accuracy'])}"
    columns = (Column("role", facet="role"), Column("accuracy of the majority class", "share"))
    return joined(title, "quantity", parts), Table("Majority class", columns, tuple(majority.items()))


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
        text = (
            f"most selective at {sites[int(s)]}, layer {label}: accuracy {figure_number(float(one['mean']), 2)}, "
            f"{figure_number(float(values[s, layer]), 2)} above its control."
        )
        if values[s, layer] <= 0:
            text = "at no layer does the probe beat its control."
        found.append((f"{role}:", text))
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
