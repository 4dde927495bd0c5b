"""What is compared: rows of numbers with intervals, one per run, and how far the others lie from the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from interp.language import say
from interp.report.tables import Column, Size, Table

SHOWN = 0.005
"""The smallest difference that counts: of less than that, both numbers read the same."""

_Shown = TypeVar("_Shown")


@dataclass(frozen=True)
class Value:
    """A number with its interval (NaN where it has none), and the place it belongs to where that is the finding.

    ``of_place`` is as much of the place as other runs can share: all of it, or of a model of another depth its role.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    place: str = ""
    of_place: str | None = None

    @property
    def shared(self) -> str:
        """What tells whether another run has the same place."""
        return self.place if self.of_place is None else self.of_place

    def text(self) -> str:
        """The place, the number and its interval, as far as there are any."""
        return self.size().text

    def size(self) -> Size:
        """The same as a cell of the page."""
        return Size(self.mean, self.low, self.high, place=self.place)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        numbers = {"value": self.mean, "low": self.low, "high": self.high}
        plain: dict[str, Any] = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {"place": self.place, **plain} if self.place else plain


@dataclass(frozen=True)
class Row:
    """One quantity in every run.

    Attributes:
        name: the quantity.
        values: one per run; None where a run does not have it.
        differences: one per run after the first: that run minus the first; None where there is nothing to subtract.
        at: the place of what is subtracted, where the name leaves it out.
    """

    name: str
    values: tuple[Value | None, ...]
    differences: tuple[Value | None, ...]
    at: str = ""

    @property
    def named(self) -> str:
        """The quantity with its place, to stand in a sentence."""
        return f"{self.name} ({self.at})" if self.at else self.name

    def differs(self, i: int) -> bool:
        """Whether the interval of a difference excludes 0, and the difference is one that two digits show."""
        found = self.differences[i]
        return found is not None and (found.low > 0 or found.high < 0) and abs(found.mean) >= SHOWN

    def elsewhere(self, run: int) -> bool:
        """Whether a run has another place than the first."""
        first, other = self.values[0], self.values[run]
        return first is not None and other is not None and first.shared != other.shared

    def moved(self, run: int) -> str:
        """The quantity with its place in the first run and in another, to stand in a sentence."""
        places = (value.place for value in (self.values[0], self.values[run]) if value is not None)
        return f"{self.name} ({' → '.join(places)})"


@dataclass(frozen=True)
class Part:
    """A table of the comparison.

    Attributes:
        key: its anchor on the page.
        title: what is compared.
        reading: how to read a row.
        units: of all its numbers.
        letters: the runs.
        rows: the quantities.
        drawn: whether its numbers share an axis, so that the page draws them.
        graded: whether its values are grades of claims, and no places; grades are not subtracted.
    """

    key: str
    title: str
    reading: str
    units: str
    letters: tuple[str, ...]
    rows: tuple[Row, ...]
    drawn: bool = True
    graded: bool = False

    def header(self) -> tuple[str, ...]:
        """The headings of its columns."""
        others = (f"{letter} − {self.letters[0]}" for letter in self.letters[1:])
        names = [say("finding")] if len(self.letters) == 2 else [f"{say('finding')} {one}" for one in self.letters[1:]]
        findings = names if self.graded else [heading for both in zip(others, names, strict=True) for heading in both]
        return (say("quantity"), *self.letters, *findings)

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Its rows as text."""
        for row in self.rows:
            texts = ("–" if value is None else value.text() for value in row.values)
            yield (row.name, *texts, *self._findings(row, Value.text))

    def _findings(self, row: Row, shown: Callable[[Value], _Shown]) -> Iterator[_Shown | str]:
        """Of every run but the first its difference, which grades have not, and what is found."""
        for i, value in enumerate(row.differences):
            if not self.graded:
                yield "" if value is None else shown(value)
            yield self._judged(row, i)

    def _judged(self, row: Row, i: int) -> str:
        if row.elsewhere(i + 1):
            return say("differs") if self.graded else say("another place")
        return say("differs") if row.differs(i) else ""

    def table(self) -> Table:
        """The table of the page."""
        title = f"{self.title} ({self.units})" if self.units else self.title
        rows = []
        for row in self.rows:
            sizes = (None if value is None else value.size() for value in row.values)
            rows.append((row.name, *sizes, *self._findings(row, Value.size)))
        return Table(title, tuple(Column(name) for name in self.header()), tuple(rows))

    def lines(self) -> Iterator[str]:
        """The table of a terminal."""
        rows = [self.header(), *self.cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        rows = [
            {
                "name": row.name,
                "values": [None if value is None else value.to_dict() for value in row.values],
                "differences": [
                    None if value is None else {**value.to_dict(), "differs": row.differs(i)}
                    for i, value in enumerate(row.differences)
                ],
            }
            for row in self.rows
        ]
        return {"key": self.key, "title": self.title, "units": self.units, "rows": rows}
