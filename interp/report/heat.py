"""Heatmaps and their legends, as inline SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from interp.language import called, say, say_stored
from interp.report import links
from interp.report.markup import element, figure_number, join
from interp.report.palette import Scale
from interp.report.tables import interval_text
from interp.sites import head_label

CHARACTER = 6.6
"""Width of one character of a label, in SVG units (the label font is 11 units high and monospaced)."""

LONGEST = 22
"""Slanted labels are cut to so many characters; the tooltip and the table have them whole."""

SHRUNK = 0.78
"""Where there is less room a drawing shrinks to this part of its size, and beyond that its surroundings scroll."""

ANNOTATED_CELLS = 480
"""Above this many cells, values are left to the tooltip and the table."""


@dataclass(frozen=True)
class Grid:
    """Numbers on two named axes.

    Attributes:
        values: row, column; NaN where there is nothing to show.
        rows: labels of the rows.
        columns: labels of the columns.
        row_title: name of the row axis.
        column_title: name of the column axis.
        low: lower interval bound, same shape.
        high: upper interval bound, same shape.
        count: number of prompts or folds, same shape.
        cells: a label per (row, column) for tooltips, where "row, column" would not do.
        marks: (row, column) -> ``mover`` or ``reader``, drawn as an outline.
        row_about: what each row is about (``interp.report.links``), empty if nothing.
        column_about: what each column is about.
    """

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    count: np.ndarray | None = None
    cells: Mapping[tuple[int, int], str] | None = None
    marks: Mapping[tuple[int, int], str] | None = None
    row_about: Sequence[links.About] = ()
    column_about: Sequence[links.About] = ()

    @classmethod
    def of(cls, summary: xr.Dataset, row: str, column: str, *, row_title: str, column_title: str, **more: Any) -> Grid:
        """The grid of a mean (``interp.summary``) over two dims."""
        parts = [summary[key].transpose(row, column).values for key in ("mean", "low", "high", "n")]

        def labels(dim: str) -> list[str]:
            return (
                [str(v) for v in summary[dim].values]
                if dim in summary.coords
                else [str(i) for i in range(summary.sizes[dim])]
            )

        def about(dim: str) -> list[links.About]:
            return [{dim: label} for label in labels(dim)] if dim in links.FACETS else []

        more.setdefault("rows", [called(row, label) for label in labels(row)])
        more.setdefault("columns", [called(column, label) for label in labels(column)])
        more.setdefault("row_about", about(row))
        more.setdefault("column_about", about(column))
        return cls(
            parts[0],
            row_title=row_title,
            column_title=column_title,
            low=parts[1],
            high=parts[2],
            count=parts[3],
            **more,
        )

    def about(self, row: int | None, column: int | None) -> dict[str, str]:
        """The attributes of a cell, or of the label of a row or a column."""
        both: dict[str, object] = {}
        for index, named in ((row, self.row_about), (column, self.column_about)):
            if index is not None and named:
                both.update(named[index])
        return links.attributes(both)

    def tip(self, row: int, column: int) -> str:
        """What the tooltip of a cell says."""
        place = (self.cells or {}).get((row, column))
        if place is None:
            place = f"{self.row_title} {self.rows[row]} · {self.columns[column]}"
        text = f"{place}: {figure_number(float(self.values[row, column]), 4)}"
        if self.low is not None and self.high is not None:
            text += f" {interval_text(float(self.low[row, column]), float(self.high[row, column]), 3)}"
        if self.count is not None:
            text += f", n = {int(self.count[row, column])}"
        return text


def heatmap(
    grid: Grid,
    scale: Scale,
    *,
    key: str,
    title: str,
    description: str,
    cell: tuple[float, float] | None = None,
    annotate: bool | None = None,
    digits: int = 2,
) -> Markup:
    """A heatmap with labelled axes; the first row is at the top.

    Args:
        grid: the numbers.
        scale: what the colours mean.
        key: unique prefix of the element ids.
        title: accessible name.
        description: accessible description.
        cell: width and height of a cell; chosen from the number of columns when ``None``.
        annotate: whether to write the values into the cells; ``None`` writes them when they fit.
        digits: decimals of the annotations.
    """
    n_rows, n_columns = grid.values.shape
    if annotate is None:
        annotate = n_rows * n_columns <= ANNOTATED_CELLS and n_columns <= 24
    width, height = cell or _cell_size(n_columns, annotate)
    lines = [_lines(label, width) for label in grid.columns]
    longest = max((len(label) for label in grid.columns), default=1)
    slanted = any(len(part) * CHARACTER > width - 1 for parts in lines for part in parts)
    depth = 1 if slanted else max((len(parts) for parts in lines), default=1)
    top = 22.0 + (min(longest, LONGEST) * CHARACTER * 0.72 + 8 if slanted else 3 + 13 * depth)
    left = 30.0 + max((len(label) for label in grid.rows), default=1) * CHARACTER
    overhang = min(longest, LONGEST) * CHARACTER * 0.72 if slanted else 0.0
    total = (left + n_columns * width + 8 + overhang, top + n_rows * height + 6)
    parts = [
        element("text", grid.column_title, class_="axis", x=left, y=11.0),
        element(
            "text",
            grid.row_title,
            class_="axis",
            text_anchor="middle",
            transform=_turned(11.0, top + n_rows * height / 2),
        ),
    ]
    for j, label in enumerate(grid.columns):
        x = left + (j + 0.5) * width
        shown = label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"
        if slanted:
            parts.append(
                element(
                    "text",
                    shown,
                    class_="tick",
                    transform=f"translate({x:.1f} {top - 6:.1f}) rotate(-46)",
                    **grid.about(None, j),
                )
            )
        else:
            parts.extend(
                element(
                    "text",
                    part,
                    class_="tick",
                    x=x,
                    y=top - 7 - 12 * (len(lines[j]) - 1 - row),
                    text_anchor="middle",
                    **grid.about(None, j),
                )
                for row, part in enumerate(lines[j])
            )
    voids: list[str] = []
    for i, label in enumerate(grid.rows):
        y = top + (i + 0.5) * height
        parts.append(
            element("text", label, class_="tick", x=left - 7, y=y + 3.8, text_anchor="end", **grid.about(i, None))
        )
        for empty, run in groupby(range(n_columns), partial(_is_empty, grid, scale, i)):
            columns = list(run)
            if empty:
                voids.append(_square(left + columns[0] * width, top + i * height, len(columns) * width, height))
                continue
            for j in columns:
                box = (left + j * width, top + i * height, width, height)
                parts.append(_cell(grid, scale, i, j, box, annotate, digits))
    if voids:
        parts.append(element("path", class_="void", d="".join(voids)))
    for (i, j), kind in (grid.marks or {}).items():
        x, y = left + j * width, top + i * height
        parts.append(element("rect", class_=f"mark {kind}", x=x + 1, y=y + 1, width=width - 2, height=height - 2, rx=3))
    return drawing(parts, total, key=key, title=title, description=description)


def _cell(
    grid: Grid, scale: Scale, i: int, j: int, box: tuple[float, float, float, float], annotate: bool, digits: int
) -> Markup:
    x, y, width, height = box
    value = float(grid.values[i, j])
    step = scale.step(value)
    gap = 1.0 if width > 14 else 0.5
    tip = element("title", grid.tip(i, j))
    rect = element(
        "rect", tip, class_=f"cell {step}", x=x + gap / 2, y=y + gap / 2, width=width - gap, height=height - gap,
        rx=2 if width > 14 else 0, **grid.about(i, j),
    )  # fmt: skip
    if not annotate or step == "void":
        return rect
    text = figure_number(value, digits)
    if abs(value) < 1 and width < 34:
        text = text.replace("0.", ".", 1)
    return rect + element("text", text, class_=f"value {step}t", x=x + width / 2, y=y + height / 2 + 3.6)


def _is_empty(grid: Grid, scale: Scale, i: int, j: int) -> bool:
    """Whether a cell holds nothing, and is about nothing that is lit elsewhere: it needs no mark of its own."""
    return scale.step(float(grid.values[i, j])) == "void" and not grid.about(i, j)


def _square(x: float, y: float, width: float, height: float) -> str:
    """The outline of empty cells beside each other, as part of a path."""
    across, down = width - 1, height - 1
    return f"M{x + 0.5:.1f} {y + 0.5:.1f}h{across:g}v{down:g}h-{across:g}z"


def _cell_size(n_columns: int, annotate: bool) -> tuple[float, float]:
    if not annotate:
        return (20.0, 16.0) if n_columns <= 40 else (13.0, 13.0)
    if n_columns <= 8:
        return 46.0, 28.0
    return (38.0, 26.0) if n_columns <= 12 else (30.0, 24.0)


def head_grid(summary: xr.Dataset, axis: str, marks: Mapping[tuple[int, int], str]) -> Grid:
    """Layer by head (or ``kv_head``), tooltips naming the head, the verdict's heads outlined."""
    n_layers, n_heads = summary.sizes["layer"], summary.sizes[axis]
    cells = {
        (layer, head): head_label(layer, head)
        if axis == "head"
        else say("layer {layer}, kv_head {head}", layer=layer, head=head)
        for layer in range(n_layers)
        for head in range(n_heads)
    }
    kept = {at: kind for at, kind in marks.items() if axis == "head" and at[0] < n_layers and at[1] < n_heads}
    return Grid.of(
        summary,
        "layer",
        axis,
        row_title=say("layer"),
        column_title=say("head") if axis == "head" else axis,
        cells=cells,
        marks=kept,
    )


def _lines(label: str, width: float) -> list[str]:
    """A label in as few lines as its underscores allow within a cell's width."""
    if len(label) * CHARACTER <= width - 1 or "_" not in label:
        return [label]
    first, *rest = label.split("_")
    return [first, *(f"_{part}" for part in rest)]


def _turned(x: float, y: float) -> str:
    return f"translate({x:.1f} {y:.1f}) rotate(-90)"


def drawing(
    parts: Sequence[Markup], size: tuple[float, float], *, key: str, title: str, description: str, class_: str = "plot"
) -> Markup:
    """An SVG root with an accessible name and description, at its natural size where there is room."""
    width, height = size
    least = round(SHRUNK * width)
    return element(
        "svg",
        element("title", title, id=f"{key}-t"),
        element("desc", description, id=f"{key}-d"),
        join(list(parts)),
        class_=class_,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
        style=f"min-width:{least}px",
        viewbox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
    )


def going_on(drawn: Markup) -> Markup:
    """Words that are seen only where the drawing is wider than the paragraph they stand in: it goes on to the side.

    >>> made = drawing([], (100, 10), key="k", title="t", description="d")
    >>> str(going_on(made))
    '<span class="on" style="--least:78px" aria-hidden="true">scroll →</span>'
    """
    least = re.search(r"min-width:(\d+)px", drawn)
    if least is None:
        return Markup("")
    return element("span", say("scroll →"), class_="on", style=f"--least:{least[1]}px", aria_hidden="true")


def colour_legend(scale: Scale, *, key: str, digits: int = 2, marks: bool = False) -> Markup:
    """The colours of a scale with their values and units; ``marks`` explains the outlines of named heads."""
    bar, left, top = 210.0, 2.0, 22.0
    width = bar / scale.steps
    name = f"{scale.name} ({scale.units})" if scale.units else scale.name
    parts = [element("text", name, class_="axis", x=left, y=11.0)]
    for i in range(scale.steps):
        step = f"{'d' if scale.diverging else 's'}{i}"
        parts.append(element("rect", class_=step, x=left + i * width, y=top - 4, width=width + 0.4, height=11.0))
    middle = (scale.low + scale.high) / 2
    for share, value, anchor in ((0.0, scale.low, "start"), (0.5, middle, "middle"), (1.0, scale.high, "end")):
        text = figure_number(value, digits)
        parts.append(element("text", text, class_="tick", x=left + share * bar, y=top + 19, text_anchor=anchor))
    total = left + bar + 8
    if marks:
        x = total + 18
        for kind in ("mover", "reader"):
            called = say_stored(kind)
            parts.append(element("rect", class_=f"mark {kind}", x=x, y=top - 5, width=20.0, height=13.0, rx=3))
            parts.append(element("text", called, class_="tick", x=x + 26, y=top + 5.5))
            x += max(84.0, 40 + CHARACTER * len(called))
        total = x
    total = max(total, left + len(name) * CHARACTER)
    description = say(
        "Scale from {low} to {high} {units}",
        low=figure_number(scale.low, digits), high=figure_number(scale.high, digits), units=scale.units,
    )  # fmt: skip
    return drawing(
        parts,
        (total, top + 24),
        key=key,
        title=say("Legend: {name}", name=scale.name),
        description=description,
        class_="plot legend",
    )
