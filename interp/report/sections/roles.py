"""What heads do: the heads that have a role, and every measure that the roles are made of."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp.language import called, say, say_stored, sentence
from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.heat import colour_legend, head_grid, heatmap
from interp.report.inputs import Result
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Size, Table
from interp.report.verdict import Verdict
from interp.sites import head_label

MOST_DRAWN = 64
"""Heads of a model whose every measure is drawn as a map; of larger ones the table has the leading heads."""
MOST_ROWS = 6
"""Heads of each measure in the table."""


def section(found: Result, verdict: Verdict) -> Section:
    """Which heads have which role, then the measures."""
    blocks: list[Block] = [Facts(_named(found), say("Heads by what they do"))]
    blocks.append(_measures(found, verdict))
    if found.attr("left_out"):
        blocks.append(Notice("note", "", say("Left out: {reason}", reason=found.attr("left_out"))))
    return Section("roles", say("What heads do"), found.said("question"), blocks, short=say("Roles"))


def _named(found: Result) -> tuple[tuple[str, str], ...]:
    """Per role its heads, or that there is none."""
    named = found.need("named", "head_role", "layer", "head").values
    rows = []
    for i, role in enumerate(found.labels("head_role")):
        heads = [head_label(int(layer), int(head)) for layer, head in zip(*np.nonzero(named[i]), strict=True)]
        what = sentence(_said(role, found.attr("edge")))
        rows.append((f"{what}:", ", ".join(heads) if heads else say("none")))
    return tuple(rows)


def _said(role: str, edge: str) -> str:
    """A role in words."""
    dest, _, src = (called("role", part) for part in edge.partition("<-"))
    names = {
        "previous token": say("look at the token before"),
        "duplicate token": say("look at where the same token stood before"),
        "induction": say("look at what came after it then, and copy it (induction)"),
        "mover": say("move {src} to {dest}", src=src, dest=dest) if edge else say("move the source"),
        "inhibition": say("hold the answer back"),
        "self-repair": say("are made up for by later heads when they are gone"),
    }
    return names.get(role) or say_stored(role)


def _measures(found: Result, verdict: Verdict) -> Figure:
    """Maps of how far each measure lies above its null, where the model is small, and the table of leading heads."""
    excess = found.summary("excess", "prompt", "measure", "layer", "head")
    names = found.labels("measure")
    scale = Scale.centred(1.0, units="", name=say("above the null"))
    panels = []
    if excess.sizes["layer"] * excess.sizes["head"] <= MOST_DRAWN:
        for i, name in enumerate(names):
            one = excess.isel(measure=i, drop=True)
            if np.isfinite(one["mean"].values).any():
                grid = head_grid(one, "head", verdict.marks())
                title = say_stored(name)
                said = say("{title} above its null, by layer and head", title=title)
                drawn = heatmap(grid, scale, key=f"roles-{i}", title=title, description=said, digits=1)
                panels.append(Panel(title, drawn))
    reading = found.said("reading") + " " + say("Colours end at 1; the tooltip and the table have the numbers.")
    legend = colour_legend(scale, key="roles-l", digits=1, marks=bool(verdict.marks())) if panels else None
    return Figure.of(
        found, "roles-measures", say("Every measure above its null"), reading, panels=tuple(panels),
        tables=(_table(found, excess, names),), legend=legend, open=not panels,
    )  # fmt: skip


def _table(found: Result, excess: xr.Dataset, names: tuple[str, ...]) -> Table:
    """The leading heads of every measure."""
    means = {
        name: found.summary(name, "prompt", "measure", "layer", "head")["mean"].values for name in ("measured", "null")
    }
    p_value = found.need("p_value", "measure", "layer", "head").values
    parts = [excess[name].transpose("measure", "layer", "head").values for name in ("mean", "low", "high", "n")]
    units, least = found.labels("measure_units"), found.need("least", "measure").values
    rows: list[tuple[Cell, ...]] = []
    for i, name in enumerate(names):
        order = np.argsort(-np.nan_to_num(parts[0][i], nan=-np.inf), axis=None, kind="stable")[:MOST_ROWS]
        for layer, head in zip(*np.unravel_index(order, parts[0][i].shape), strict=True):
            at = (i, layer, head)
            if not np.isfinite(parts[0][at]):
                continue
            mean, low, high, n = (float(part[at]) for part in parts)
            rows.append((
                say_stored(name), head_label(int(layer), int(head)), float(means["measured"][at]),
                float(means["null"][at]), Size(mean, low, high, digits=3), float(least[i]), float(p_value[at]),
                say_stored(units[i]), int(n),
            ))  # fmt: skip
    columns = (
        Column(say("measure")), Column(say("head")), Column(say("measured")), Column(say("null")), Column(say("above")),
        Column(say("least")), Column("p", digits=4), Column(say("units")), Column("n"),
    )  # fmt: skip
    return Table(
        say("The leading heads of every measure; p is corrected over all heads and measures"), columns, tuple(rows)
    )
