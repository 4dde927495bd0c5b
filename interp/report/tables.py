"""The table behind a figure: named columns with units, rows of plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from interp.language import Foreign, called, say, say_stored
from interp.report.markup import figure_number, visible


@dataclass(frozen=True)
class Size:
    """A number with its 95% interval, NaN where it has none: one cell to be read, three columns where it is saved.

    ``place`` is where it was found, if that is part of the finding: read before it, and a column of its own.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    digits: int = field(default=2, kw_only=True)
    place: str = field(default="", kw_only=True)

    @property
    def text(self) -> str:
        """The place, the number and its interval, as far as there are any."""
        number = "" if self.place and math.isnan(self.mean) else figure_number(self.mean, self.digits)
        return " ".join(part for part in (self.place, number, interval_text(self.low, self.high, self.digits)) if part)

    def data(self) -> dict[str, str]:
        """What scripts save of it, by the names of a cell's attributes; what is not known is left out.

        >>> Size(-0.25, -0.5, 0.125).data()
        {'data-value': '-0.25', 'data-low': '-0.5', 'data-high': '0.125'}
        """
        parts = {"data-value": self.mean, "data-low": self.low, "data-high": self.high}
        numbers = {name: f"{value:.6g}" for name, value in parts.items() if math.isfinite(value)}
        return {"data-place": self.place, **numbers} if self.place else numbers


Cell = str | float | int | Size | None

MOST_COLUMNS = 24
"""Columns of numbers beyond these are set as text is."""


@dataclass(frozen=True)
class Column:
    """A column's heading, its units (empty for text and counts) and how many decimals it shows.

    ``facet``: what its cells name, of ``interp.report.links.FACETS``, if any of them: scripts link the rows by it.
    """

    name: str
    units: str = ""
    digits: int = 3
    facet: str = ""

    @property
    def heading(self) -> str:
        """The name, with the units in brackets where there are any."""
        name = say_stored(self.name)
        return f"{name} ({say_stored(self.units)})" if self.units else name


@dataclass(frozen=True)
class Table:
    """Rows under columns. A row's length is the number of columns. ``language`` is that of the cells, where known."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    language: str = ""

    def __post_init__(self) -> None:
        """Check that every row fits the columns."""
        for row in self.rows:
            assert len(row) == len(self.columns), (self.title, len(row), len(self.columns))

    def cells(self) -> str:
        """A text that stands for the cells, whose language it has."""
        return Foreign("", self.language) if self.language else ""

    def text(self, value: Cell, column: Column) -> str:
        """One cell as the page shows it."""
        if value is None:
            return "–"
        if isinstance(value, bool):
            return say("yes") if value else say("no")
        if isinstance(value, int):
            return str(value)
        if isinstance(value, Size):
            return value.text
        if isinstance(value, float):
            return figure_number(value, column.digits)
        return visible(called("role", value) if column.facet == "role" else value)

    def data(self, value: Cell, column: Column) -> dict[str, str]:
        """The attributes of one cell: what is saved of a number, and a name that is shown in other words."""
        if isinstance(value, Size):
            return value.data()
        return {"data-name": value} if isinstance(value, str) and self.text(value, column) != visible(value) else {}

    def texts(self) -> list[list[tuple[str, dict[str, str]]]]:
        """All cells as the page shows them, each with the attributes that it has."""
        return [
            [(self.text(v, c), self.data(v, c)) for v, c in zip(row, self.columns, strict=True)] for row in self.rows
        ]

    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers (and is set flush right)."""
        return [
            any(isinstance(row[i], int | float) for row in self.rows)
            and not any(isinstance(row[i], str) for row in self.rows)
            for i in range(len(self.columns))
        ]


def stylesheet() -> str:
    """CSS by which the columns of numbers, which a table's classes name, are set flush right."""
    both, cells = (
        ",".join(f".n{i} {cell}:nth-child({i})" for i in range(1, MOST_COLUMNS + 1)) for cell in (":is(th,td)", "td")
    )
    return f"{both}{{text-align:right}}{cells}{{white-space:nowrap}}\n"


def interval_text(low: float, high: float, digits: int = 2) -> str:
    """``[low, high]``, or nothing when there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{figure_number(low, digits)}, {figure_number(high, digits)}]"


def percent_interval(low: float, high: float) -> str:
    """``[94%, 98%]``, to stand beside a share in percent, or nothing when there is no interval."""
    return f"[{low:.0%}, {high:.0%}]" if math.isfinite(low) and math.isfinite(high) else ""


def mean_table(title: str, summary: xr.Dataset, dims: Sequence[tuple[str, str]], *, units: str, name: str) -> Table:
    """The table of a mean over prompts: one row per cell.

    Args:
        title: the table's title.
        summary: ``mean``, ``low``, ``high`` and ``n`` as ``interp.summary`` gives them.
        dims: ``(dim, heading)`` of the cell's axes, in row order.
        units: units of the mean.
        name: heading of the mean.
    """
    order = [dim for dim, _ in dims]
    labels = [
        [str(v) for v in summary[dim].values] if dim in summary.coords else [str(i) for i in range(summary.sizes[dim])]
        for dim in order
    ]
    parts = [summary[key].transpose(*order).values for key in ("mean", "low", "high", "n")]
    columns = (*(Column(heading, facet=dim) for dim, heading in dims), Column(name, units))
    columns += (Column(say("95% low"), units), Column(say("95% high"), units), Column("n"))
    rows = []
    for index in np.ndindex(*parts[0].shape):
        where = tuple(labels[axis][i] for axis, i in enumerate(index))
        mean, low, high, count = (part[index] for part in parts)
        rows.append((*where, float(mean), float(low), float(high), int(count)))
    return Table(title, columns, tuple(rows))


def joined(title: str, column: str, parts: Sequence[tuple[str, Table]]) -> Table:
    """Tables of equal columns stacked under one leading column that names the part."""
    first = parts[0][1]
    return Table(title, (Column(column), *first.columns), tuple((name, *row) for name, t in parts for row in t.rows))
