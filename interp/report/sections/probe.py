"""Where the answer can be read from the activations: probes against their controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from interp import _depth as depth
from interp import summary
from interp.language import called, listed, path, say, say_stored
from interp.report import bounded
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import Level, Point, Series, curves, line_legend
from interp.report.markup import figure_number
from interp.report.sections import classifier, generic
from interp.report.tables import Cell, Column, Table, joined, mean_table
from interp.report.verdict import Verdict

_DIMS = ("site", "layer", "role", "fold")
READABLE = 0.05
"""Largest p-value, corrected over all places, at which a word counts as readable."""


def _lines() -> dict[str, tuple[str, str]]:
    """Variable -> name and tone of its line, in drawing order."""
    return {
        "control_accuracy": (say("control"), "b"),
        "distractor_rate": (say("gives the distractor's answer"), "d"),
        "accuracy": (say("probe"), "a"),
    }


def _tabled() -> dict[str, str]:
    """Variable -> its name in the table."""
    return {
        "accuracy": say("probe"),
        "control_accuracy": say("control"),
        "selectivity": say("selectivity"),
        "distractor_rate": say("distractor's answer"),
    }


MAPS = ("p_value", "compression", "transfer_accuracy")
"""Variables that are drawn as maps of layers and roles."""


def section(probing: Result, verdict: Verdict) -> Section:
    """One figure per site: accuracy and control accuracy over layers, one panel per role; maps; and the classifier."""
    names = ["accuracy", "control_accuracy", "selectivity"]
    names += ["distractor_rate"] if probing.has("distractor_rate") else []
    means = {name: probing.summary(name, *_DIMS, over="fold") for name in names}
    majority = _majority(probing)
    sites = probing.labels("site")
    blocks = [_figure(probing, means, majority, site) for site in sites]
    found = (
        *_best(means, sites, probing),
        *_readable(means, probing),
        *_across(probing),
        *_folds(probing),
        *bounded.facts(probing),
    )
    facts = Facts(found, say("In short"))
    lead = probing.said("question") or say("At which layer, and at which word, can a linear probe read the answer?")
    return Section(
        "probing",
        say("Where it can be read"),
        lead,
        (*blocks, facts, *_maps(probing, verdict), *classifier.lesson(probing)),
        say("Where it is readable"),
    )


def _figure(probing: Result, means: dict[str, xr.Dataset], majority: dict[str, float], site: str) -> Figure:
    index = probing.labels("site").index(site)
    at_site = {name: summary.isel(site=index, drop=True) for name, summary in means.items()}
    lines, chance, panels = _lines(), _chance(probing), []
    for r, role in enumerate(probing.labels("role")):
        series = [
            Series(label, tone, _points(at_site[name].isel(role=r)))
            for name, (label, tone) in lines.items()
            if name in at_site
        ]
        if all(math.isnan(p.mean) for one in series for p in one.points):
            continue
        drawn = curves(
            depth.names(site, probing.labels("layer")),
            series,
            axis=depth.title(site),
            facet="layer",
            low=0.0,
            high=1.0,
            key=f"probe-{index}-{r}",
            title=say("Probe accuracy at {role}, {site}", role=called("role", role), site=site),
            description=say("Accuracy of the probe and of its control by layer, with 95% intervals."),
            rules=(
                Level(majority.get(role, math.nan), say("majority class"), "c"),
                Level(chance, say("uniform guessing"), "f"),
            ),
        )
        panels.append(Panel(say("at {role}", role=called("role", role)), drawn))
    reading = probing.said("reading") or say(
        "A probe that beats its control and the majority reads something that is there."
    )
    entries = [(label, tone) for label, tone in reversed([lines[name] for name in lines if name in at_site])]
    entries.append((say("majority class"), "c"))
    if math.isfinite(chance):
        entries.append((say("uniform guessing"), "f"))
    return Figure.of(
        probing,
        f"probe-{index}",
        say("Probe accuracy on {site}", site=site),
        f"{reading} {say('Shaded: 95% interval over folds.')}",
        panels=tuple(panels),
        tables=_tables(at_site, majority, site),
        legend=line_legend(entries, key=f"probe-{index}-l", units=say("(share of held-out prompts)")),
    )


def _tables(at_site: dict[str, xr.Dataset], majority: dict[str, float], site: str) -> tuple[Table, Table]:
    dims = (("layer", depth.title(site)), ("role", say("role")))
    parts = [
        (
            heading,
            mean_table(heading, depth.named(at_site[name], site), dims, units=say("share"), name=say("mean")),
        )
        for name, heading in _tabled().items()
        if name in at_site
    ]
    title = say(
        "{site}, mean over folds. Intervals: {interval}", site=site, interval=summary.in_words(at_site["accuracy"])
    )
    columns = (Column(say("role"), facet="role"), Column(say("accuracy of the majority class"), say("share")))
    return joined(title, say("quantity"), parts), Table(say("Majority class"), columns, tuple(majority.items()))


def _points(summary: xr.Dataset) -> tuple[Point, ...]:
    columns = (summary[name].values for name in ("mean", "low", "high", "n"))
    return tuple(Point(float(m), float(low), float(high), int(n)) for m, low, high, n in zip(*columns, strict=True))


def _majority(probing: Result) -> dict[str, float]:
    roles = probing.labels("role")
    if not probing.has("majority"):
        return dict.fromkeys(roles, math.nan)
    values = np.broadcast_to(probing.data["majority"].values, (len(roles),))
    return {role: float(value) for role, value in zip(roles, values, strict=True)}


def _chance(probing: Result) -> float:
    """The accuracy of guessing each answer as often, NaN where the result does not say."""
    return float(probing.data["chance"]) if probing.has("chance") else math.nan


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
        site = sites[int(s)]
        text = say(
            "most selective on {site}, {where}: accuracy {accuracy}, {above} above its control.",
            site=site, where=depth.of(site, probing.labels("layer")[int(layer)]),
            accuracy=figure_number(float(one["mean"]), 2), above=figure_number(float(values[s, layer]), 2),
        )  # fmt: skip
        if values[s, layer] <= 0:
            text = say("at no layer does the probe beat its control.")
        found.append((f"{called('role', role)}:", text))
    return found


def _readable(means: dict[str, xr.Dataset], probing: Result) -> list[tuple[str, str]]:
    """At which words some layer is above chance and beyond the null, or that none is."""
    if not probing.has("p_value"):
        return []
    p_values = probing.need("p_value", "site", "layer", "role").values
    accuracy = means["accuracy"]["mean"].transpose("site", "layer", "role").values
    return [(say("Readable:"), _places(p_values, accuracy, _chance(probing), probing.labels("role")))]


def _across(probing: Result) -> list[tuple[str, str]]:
    """Of each transfer to another task, at which words the probe of one task is above chance in the other."""
    if not probing.has("transfer_p_value"):
        return []
    names = ("transfer_p_value", "transfer_accuracy")
    p_values, accuracy = (probing.need(name, "transfer", "site", "layer", "role").values for name in names)
    chances = probing.need("transfer_chance", "transfer").values
    return [
        (f"{path(label)}:", _places(p_values[i], accuracy[i], float(chances[i]), probing.labels("role")))
        for i, label in enumerate(probing.labels("transfer"))
    ]


def _places(p_values: np.ndarray, accuracy: np.ndarray, chance: float, roles: Sequence[str]) -> str:
    """How many places, and of which roles, are above chance beyond the null; arrays are (site, layer, role)."""
    if not np.isfinite(p_values).any():
        return say("no two prompts differ in the label alone, so there is no p-value.")
    found = (p_values <= READABLE) & (accuracy > chance)
    words = [called("role", role) for r, role in enumerate(roles) if found[:, :, r].any()]
    told = {"n": int(found.sum()), "cells": int(np.isfinite(p_values).sum()), "p": READABLE}
    if not words:
        return say("at none of {cells} places is the probe above chance with a p of at most {p}.", **told)
    return say(
        "at {n} of {cells} places the probe is above chance with a p of at most {p}, at {words}.",
        words=listed(words),
        **told,
    )


def _maps(probing: Result, verdict: Verdict) -> list[Block]:
    """How sure the reading is: maps of layers and roles, and what other probes and the control have there."""
    names = [name for name in MAPS if probing.has(name)]
    sites = probing.labels("site")
    ends = [end for name in names if probing.has(end := f"{name}_interval")]
    shown = probing.data[[*names, *ends]]
    if len(sites) == 1 and names:  # its layers as they are called above
        shown = depth.named(shown, sites[0])
    maps = replace(probing, data=shown.assign_attrs(probing.data.attrs))
    found: list[Block] = [one for name in names if (one := generic.figure(maps, name, verdict)) is not None]
    further = _further(probing)
    return [*found, Details(say("Other probes, and the control's code"), (further,))] if further else found


def _further(probing: Result) -> Table | None:
    """Mean accuracy by kind of probe, and the compression of the control's labels."""
    columns: dict[str, xr.DataArray] = {}
    if probing.has("accuracy_by_probe"):
        means = probing.data["accuracy_by_probe"].mean("fold")
        columns |= {say_stored(str(kind)): means.sel(probe=kind) for kind in means["probe"].values}
    if probing.has("control_compression"):
        columns[say("compression of the control's labels")] = probing.data["control_compression"]
    if not columns:
        return None
    values = [one.transpose("site", "layer", "role").values for one in columns.values()]
    sites, roles = probing.labels("site"), probing.labels("role")
    rows: list[tuple[Cell, ...]] = [
        (site, layer, role, *(float(one[s, at, r]) for one in values))
        for s, site in enumerate(sites)
        for at, layer in enumerate(depth.names(site, probing.labels("layer")))
        for r, role in enumerate(roles)
    ]
    named = (Column(say("site")), Column(depth.title(sites[0]), facet="layer"), Column(say("role"), facet="role"))
    heads = (*named, *(Column(name) for name in columns))
    return Table(say("Mean accuracy over folds by kind of probe"), heads, tuple(rows))


def _folds(probing: Result) -> list[tuple[str, str]]:
    counts = []
    for name in ("n_train", "n_test"):
        if probing.has(name):
            values = [int(v) for v in np.atleast_1d(probing.data[name].values)]
            span = say("{low} to {high}", low=min(values), high=max(values))
            span = str(values[0]) if min(values) == max(values) else span
            fitted = name == "n_train"
            counts.append(say("fitted on {n} prompts", n=span) if fitted else say("tested on {n} prompts", n=span))
    folds = probing.data.sizes["fold"]
    text = say("{n}, each {counts}.", n=folds, counts=listed(counts)) if counts else f"{folds}."
    return [(say("Folds:"), text)]
