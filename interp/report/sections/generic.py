"""A result that has no section of its own: what it asks, how to read it, and each of its variables.

A number per prompt is shown as its mean over the prompts with an interval: along one axis as dots or a curve, along two
as a map, along three as one map for each of the first entries of the third. Every table has all that is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from interp import language, results, summary
from interp.errors import InterpError
from interp.language import say, say_stored, translated
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Prose, Section
from interp.report.heat import Grid, colour_legend, head_grid, heatmap
from interp.report.inputs import Result
from interp.report.lines import Point, Series, curves, dot_rows
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table, mean_table
from interp.report.verdict import Verdict

LONGEST_AXIS = 48
"""Entries of an axis that are drawn."""
WRITTEN_CELLS = 144
"""A map of more cells has its numbers in tooltips and in the table."""
MOST_PANELS = 6
"""Maps of one figure."""

_ENDS = "_interval"
"""How a variable that holds the interval of another is called, after the other's name."""


def section(result: Result, verdict: Verdict) -> Section:
    """A figure for each variable that can be drawn, and tables of single numbers and of words."""
    key = anchor(result.name)
    shown = [one for name in map(str, result.data.data_vars) if (one := _Shown.of(result, name)) is not None]
    single = [one for one in shown if not one.axes]
    blocks: list[Block] = [Prose((result.said("reading"),)), Facts(_axes(result, shown), say("What the axes count"))]
    blocks += [_block(one, f"{key}-{i}", verdict) for i, one in enumerate(shown) if one.axes]
    if single:
        blocks.append(Details(say("Single numbers"), (_single_table(single),), open=True))
    words = _words(result)
    if words:
        blocks.append(Details(say("In words"), words))
    left_out = _left_out(result, [one.name for one in shown])
    if left_out:
        blocks.append(Facts(((say("Only in the file:"), left_out),)))
    return Section(key, result.said("title"), result.said("question"), blocks)


def figure(result: Result, name: str, verdict: Verdict) -> Figure | None:
    """The figure of one variable; None for what is words, or one number."""
    shown = _Shown.of(result, name)
    return None if shown is None or not shown.axes else _figure(shown, f"{anchor(result.name)}-{name}", verdict)


def anchor(name: str) -> str:
    """The anchor of a result's section: in its name, what is no letter or digit is written as a number."""
    return "result-" + "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"-{ord(c):x}-" for c in name)


@dataclass(frozen=True)
class _Shown:
    """What is shown of one variable.

    Attributes:
        result: the result it belongs to.
        name: the variable.
        cells: ``mean``, ``low``, ``high`` and ``n`` over the axes that are drawn.
        axes: the axes that are drawn, those with more than one entry; the last two are rows and columns.
        how: what the numbers are: averaged how, with which interval, and where axes are cut.
    """

    result: Result
    name: str
    cells: xr.Dataset
    axes: tuple[str, ...]
    how: str

    @classmethod
    def of(cls, result: Result, name: str) -> _Shown | None:
        """What can be shown of a variable; None for words, and for what is shown with another variable."""
        data = result.data[name]
        if data.dtype.kind not in summary.NUMBERS or _is_interval(result, name):
            return None
        cells, how = _averaged(result, name) if "prompt" in data.dims else _as_it_is(result, name)
        cells, notes = _cut(cells)
        axes = tuple(str(dim) for dim in cells["mean"].dims)
        return cls(result, name, cells, axes, " ".join((how, *notes)))

    @property
    def units(self) -> str:
        return str(self.cells["mean"].attrs.get("units", ""))

    @property
    def title(self) -> str:
        return say_stored(str(self.result.data[self.name].attrs["long_name"]))

    @property
    def heading(self) -> str:
        return f"{self.title} ({say_stored(self.units)})" if self.units else self.title

    @property
    def values(self) -> np.ndarray:
        return np.asarray(self.cells["mean"].values, dtype=np.float64)

    def scale(self) -> Scale:
        """Colours from the lowest to the highest value with 0 among them; centred on 0 if it lies between.

        Of p-values the low ones are dark.
        """
        if self.name.endswith("p_value"):
            return Scale.falling(1.0, 0.0, units=say_stored(self.units), name=self.title)
        low, high = _span(self.values)
        if low < 0 < high:
            return Scale.centred(max(-low, high), units=say_stored(self.units), name=self.title)
        return Scale.rising(min(low, 0.0), max(high, 0.0), units=say_stored(self.units), name=self.title)

    def digits(self) -> int:
        """Decimals that tell the values apart."""
        low, high = _span(self.values)
        size = max(-low, high)
        return 0 if size >= 100 else 1 if size >= 10 else 2

    @property
    def averaged(self) -> bool:
        """Whether the numbers are means."""
        return "prompt" in self.result.data[self.name].dims

    def table(self) -> Table:
        """All that is drawn."""
        dims = [(axis, say_stored(axis)) for axis in self.axes]
        title = f"{self.name}: {self.how}"
        if self.averaged:
            return mean_table(title, self.cells, dims, units=self.units, name=say("mean"))
        bounded = bool(np.isfinite(self.cells["low"].values).any())
        columns = (*(Column(say_stored(axis), facet=axis) for axis in self.axes), Column(say("value"), self.units))
        columns += (Column(say("low"), self.units), Column(say("high"), self.units)) if bounded else ()
        rows: list[tuple[Cell, ...]] = []
        for index in np.ndindex(*self.values.shape):
            where = tuple(_labels(self.cells, axis)[i] for axis, i in zip(self.axes, index, strict=True))
            ends = tuple(float(self.cells[end].values[index]) for end in ("low", "high")) if bounded else ()
            rows.append((*where, float(self.values[index]), *ends))
        return Table(title, columns, tuple(rows))


def _span(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _is_interval(result: Result, name: str) -> bool:
    return "ci_bound" in result.data[name].dims and result.has(name.removesuffix(_ENDS))


def _averaged(result: Result, name: str) -> tuple[xr.Dataset, str]:
    """The mean over prompts, or the ratio of means where that is how the variable is summarised."""
    try:
        cells = summary.of(result.data, name)
    except InterpError:  # the name of a recovered fraction, without what it was computed from
        cells = summary.mean(result.data[name])
    interval = summary.in_words(cells)
    match cells.attrs["summary"]:
        case "mean":
            return cells, say("Mean over prompts. Interval: {interval}.", interval=interval)
        case "ratio of means":
            return cells, say("Ratio of the means over prompts. Interval: {interval}.", interval=interval)
    raise LookupError(cells.attrs["summary"])


def _as_it_is(result: Result, name: str) -> tuple[xr.Dataset, str]:
    """A variable without prompts, with its interval if the result has one."""
    value = result.data[name]
    nothing = value.astype(np.float64).copy(data=np.full(value.shape, np.nan))
    low, high, how = nothing, nothing, say("As computed over all prompts.")
    if result.of_weights:
        how = say("As computed from the weights, without a prompt.")
    if result.has(name + _ENDS):
        ends = result.need(name + _ENDS, *map(str, value.dims), "ci_bound")
        low, high = (ends.isel(ci_bound=i, drop=True) for i in (0, 1))
        how += " " + say("Interval: as the result gives it.")
    return xr.Dataset({"mean": value, "low": low, "high": high, "n": nothing.fillna(0).astype(int)}), how


def _cut(cells: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """What of some numbers can be drawn, on at most three axes, and a sentence for everything that is left out.

    Axes of one entry are taken away. Of every axis beyond three only the first entry is kept. Long axes are cut.
    """
    notes = []
    for dim in [str(dim) for dim, size in cells["mean"].sizes.items() if size == 1]:
        notes.append(say("Only {dim} {label}.", dim=say_stored(dim), label=_labels(cells, dim)[0]))
        cells = cells.isel({dim: 0}, drop=True)
    order = _order({str(dim): size for dim, size in cells["mean"].sizes.items()})
    for dim in order[:-3]:
        told = {"dim": say_stored(dim), "label": _labels(cells, dim)[0], "count": str(cells.sizes[dim])}
        notes.append(say("Only {dim} {label}, the first of {count}.", **told))
        cells = cells.isel({dim: 0}, drop=True)
    order = order[-3:]
    for place, dim in enumerate(reversed(order)):
        most = MOST_PANELS if place == 2 else LONGEST_AXIS
        if cells.sizes[dim] > most:
            notes.append(
                say(
                    "The first {most} of {count} entries of {dim}.",
                    most=most,
                    count=cells.sizes[dim],
                    dim=say_stored(dim),
                )
            )
            cells = cells.isel({dim: slice(most)})
    return cells.transpose(*order), notes


def _order(sizes: dict[str, int]) -> list[str]:
    """Axes in order: those that are not drawn, then the axis of panels, of rows and of columns.

    Rows are layers where there are any. The shortest other axis becomes panels, but heads do so only as a last resort,
    since they belong beside layers.
    """
    others = [dim for dim in sizes if dim != "layer"]
    rows = [dim for dim in sizes if dim == "layer"]
    drawn = others[len(others) - (3 - len(rows)) :] if len(sizes) > 3 else others
    undrawn = others[: len(others) - len(drawn)]
    if len(drawn) + len(rows) < 3:
        return [*rows, *drawn]
    panel = min(drawn, key=lambda dim: (dim in ("head", "kv_head"), sizes[dim]))
    return [*undrawn, panel, *rows, *(dim for dim in drawn if dim != panel)]


def _labels(cells: xr.Dataset, dim: str) -> list[str]:
    if dim not in cells.coords:
        return list(map(str, range(cells.sizes[dim])))
    return [language.path(label) if " -> " in label else label for label in map(str, cells[dim].values)]


# ---- drawings ----


def _block(shown: _Shown, key: str, verdict: Verdict) -> Block:
    """A figure; of p-values on three axes the table alone: whole maps of them are heavy, and mostly 1."""
    if shown.name == "p_value" and len(shown.axes) == 3:
        return Details(shown.heading, (shown.table(),), reading=shown.how)
    return _figure(shown, key, verdict)


def _figure(shown: _Shown, key: str, verdict: Verdict) -> Figure:
    panels = {1: _line, 2: _map, 3: _maps}[len(shown.axes)](shown, key, verdict)
    legend = colour_legend(shown.scale(), key=f"{key}-l", digits=shown.digits()) if len(shown.axes) > 1 else None
    return Figure.of(
        shown.result, key, shown.heading, shown.how, panels=tuple(panels), tables=(shown.table(),), legend=legend
    )


def _line(shown: _Shown, key: str, verdict: Verdict) -> list[Panel]:
    """A curve over an axis of numbers (layers, positions), dots over an axis of names (roles, heads)."""
    (axis,) = shown.axes
    points = _points(shown)
    ends = np.array([x for point in points for x in (point.mean, point.low, point.high)])
    low, high = _span(ends)
    low, high = min(low, 0.0), max(high, 0.0)
    labels = _labels(shown.cells, axis)
    series = (Series(shown.name, "a", points),)
    said = say("{title}, by {axis}", title=shown.title, axis=say_stored(axis))
    if axis in shown.cells.coords and shown.cells[axis].dtype.kind in "US":
        drawn = dot_rows(
            labels, series, axis=shown.heading, low=low, high=high, key=key, title=shown.title, description=said
        )
    else:
        drawn = curves(
            labels,
            series,
            axis=say_stored(axis),
            facet=axis,
            low=low,
            high=high,
            key=key,
            title=shown.title,
            description=said,
        )
    return [Panel("", drawn)]


def _points(shown: _Shown) -> tuple[Point, ...]:
    parts = (shown.cells[name].values for name in ("mean", "low", "high", "n"))
    return tuple(
        Point(float(mean), float(low), float(high), int(n) if shown.averaged else None)
        for mean, low, high, n in zip(*parts, strict=True)
    )


def _map(shown: _Shown, key: str, verdict: Verdict) -> list[Panel]:
    return [_drawn(shown, shown.cells, "", key, verdict)]


def _maps(shown: _Shown, key: str, verdict: Verdict) -> list[Panel]:
    """One map for each entry of the first axis."""
    first = shown.axes[0]
    return [
        _drawn(shown, shown.cells.isel({first: i}, drop=True), f"{say_stored(first)} {label}", f"{key}-{i}", verdict)
        for i, label in enumerate(_labels(shown.cells, first))
    ]


def _drawn(shown: _Shown, cells: xr.Dataset, title: str, key: str, verdict: Verdict) -> Panel:
    row, column = shown.axes[-2:]
    grid = (
        head_grid(cells, column, verdict.marks())
        if (row, column) in (("layer", "head"), ("layer", "kv_head"))
        else Grid.of(cells, row, column, row_title=say_stored(row), column_title=say_stored(column))
    )
    if not shown.averaged:
        grid = replace(grid, count=None)
    name = f"{shown.title} {title}".strip()
    said = say("{title}, by {row} and {column}", title=shown.title, row=say_stored(row), column=say_stored(column))
    few = cells["mean"].size <= WRITTEN_CELLS
    drawn = heatmap(
        grid, shown.scale(), key=key, title=name, description=said, annotate=None if few else False,
        digits=shown.digits(),
    )  # fmt: skip
    return Panel(title, drawn, wide=len(grid.columns) > 24)


# ---- words ----


def _axes(result: Result, shown: Sequence[_Shown]) -> tuple[tuple[str, str], ...]:
    """What each axis that is drawn counts."""
    drawn = dict.fromkeys(axis for one in shown for axis in one.axes)
    return tuple((f"{say_stored(axis)}:", f"{say_stored(results.meaning(result.data, axis))}.") for axis in drawn)


def _single_table(shown: Sequence[_Shown]) -> Table:
    columns = (
        Column(say("what")), Column(say("value")), Column(say("low")), Column(say("high")), Column(say("units")),
        Column("n"), Column(say("how")),
    )  # fmt: skip
    rows = []
    for one in shown:
        value, low, high, n = (one.cells[name].item() for name in ("mean", "low", "high", "n"))
        rows.append((one.title, float(value), float(low), float(high), one.units, int(n) or None, one.how))
    return Table(say("Variables that are one number"), columns, tuple(rows))


def _words(result: Result) -> tuple[Table, ...]:
    """Tables of words along at most one axis, other than the prompts."""
    tables = []
    for name, data in result.data.data_vars.items():
        if data.dtype.kind not in "US" or data.ndim > 1 or "prompt" in data.dims or translated(str(name)):
            continue
        title = say_stored(str(data.attrs["long_name"]))
        if not data.ndim:
            tables.append(Table(title, (Column(str(name)),), ((str(data.item()),),)))
            continue
        (dim,) = map(str, data.dims)
        rows = zip(result.labels(dim), result.said_labels(str(name)), strict=True)
        tables.append(
            Table(title, (Column(say_stored(dim)), Column(say_stored(str(name)))), tuple(rows)[:LONGEST_AXIS])
        )
    return tuple(tables)


def _left_out(result: Result, shown: Sequence[str]) -> str:
    """The variables of which nothing is shown."""
    names = []
    for name, data in result.data.data_vars.items():
        words = data.dtype.kind in "US" and data.ndim <= 1 and "prompt" not in data.dims
        if str(name) not in shown and not words and not _is_interval(result, str(name)):
            names.append(f"{name} ({say_stored(str(data.attrs['long_name']))})")
    return "; ".join(names)
