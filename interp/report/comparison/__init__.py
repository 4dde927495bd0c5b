"""Two or more finished runs laid beside each other: what agrees, what differs, and how sure that is.

Nothing is computed again: what each run saved is summarised as its own page does, and the differences have intervals of
their own, paired where the prompts are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp import _files, language, stats
from interp.errors import InterpError
from interp.language import say
from interp.report import inputs
from interp.report.comparison import measures, page, sides
from interp.report.comparison.sides import Side
from interp.report.comparison.table import SHOWN, Part
from interp.report.markup import figure_number

__all__ = ["Comparison", "compare"]

LONGEST = 24
"""Letters of how an answer begins, such as "Yes, in part"; what is longer is no yes or no."""
SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Attributes:
        sides: the runs, in the order given; the others are compared with the first.
        parts: what was compared, a table each.
        said: what agrees and what differs, in sentences.
        language: of the sentences.
    """

    sides: tuple[Side, ...]
    parts: tuple[Part, ...] = field(repr=False)
    said: tuple[str, ...]
    language: str

    def lines(self) -> Iterator[str]:
        """The comparison as lines of text, for a terminal."""
        with language.speaking(self.language):
            for side in self.sides:
                yield f"{side.letter}: {side.in_words()}"
            yield ""
            yield from self.said
            for part in self.parts:
                yield ""
                yield f"{part.title}"
                yield from part.lines()

    def __str__(self) -> str:
        """The lines of the comparison."""
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """What a notebook shows: what agrees and what differs, and the tables."""
        with language.speaking(self.language):
            return page.fragment(self.parts, self.said, self.language)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for programs: numbers that are none are left out as None."""
        return {
            "schema": SCHEMA,
            "runs": [side.to_dict() for side in self.sides],
            "summary": list(self.said),
            "parts": [part.to_dict() for part in self.parts],
        }

    def save(self, directory: str | Path) -> Path:
        """Write ``compare.html`` and ``compare.json`` into a directory, and return the path of the page.

        Raises:
            InterpError: the directory cannot be written.
        """
        where = Path(directory)
        with language.speaking(self.language):
            texts = {
                "compare.json": json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
                "compare.html": page.html(self.sides, self.parts, self.said, self.language),
            }
        try:
            where.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                _files.write(where / name, text.encode("utf-8"))
        except OSError as error:
            raise InterpError(
                f"Cannot write the comparison to {where} ({_files.why(error)}). Give a directory that can be written."
            ) from error
        return where / "compare.html"


def compare(*directories: str | Path, language: str | None = None) -> Comparison:
    """Lay finished runs beside each other: of studies (``interp run``), or of sentences (``interp explain --out``).

    Args:
        directories: two or more directories that ``interp run`` or ``interp explain --out`` wrote. The runs may be of
            other models, of tasks in other languages, or of other prompts.
        language: of the sentences, ``"en"`` or ``"es"``; by default Spanish where every run is.

    Returns:
        The tables and sentences; ``print`` shows them, ``save`` writes the page.

    Raises:
        InterpError: fewer than two directories, one twice, one that holds no finished run or results of another shape,
            or runs that have nothing in common.

    >>> compare("reports/color-noun")
    Traceback (most recent call last):
    interp.errors.InterpError: A comparison needs two runs or more. Name the directories that 'interp run' wrote.
    """
    wheres = [Path(directory) for directory in directories]
    sides.check_named(wheres)
    found = tuple(_side(i, where) for i, where in enumerate(wheres))
    with inputs.made_by_anyone(*wheres, undone="compared"):
        sides.check_comparable(found)
        spoken = sides.language(found) if language is None else language
        return _compared(found, spoken)


def _side(number: int, where: Path) -> Side:
    """One run; what is wrong with its results is said with its directory."""
    try:
        with inputs.made_by_anyone(where, undone="compared"):
            return Side.of(number, where, inputs.read(where))
    except InterpError as error:
        raise InterpError(str(error) if str(where) in str(error) else f"{where}: {error}") from error


def _compared(found: tuple[Side, ...], spoken: str) -> Comparison:
    with language.speaking(spoken):
        parts = tuple(part for part in measures.parts(found) if part.rows)
        return Comparison(found, parts, tuple(_said(found, parts)), spoken)


def _said(found: tuple[Side, ...], parts: tuple[Part, ...]) -> Iterator[str]:
    """What agrees and what differs, a sentence for each run after the first."""
    first = found[0]
    silent = [side.letter for side in found if not side.passed]
    if silent:
        yield say("Not explained, because the model does not do the task: {runs}.", runs=", ".join(silent))
    for i, side in enumerate(found[1:]):
        compared = [row for part in parts for row in part.rows if row.differences[i] is not None]
        differ = [row.named for row in compared if row.differs(i)]
        names = {"first": first.letter, "other": side.letter, "total": len(compared)}
        if not compared:
            yield say("{first} and {other} have no number in common.", first=first.letter, other=side.letter)
        elif differ:
            yield say(
                "{first} and {other} differ by {shown} or more in {count} of {total} numbers: {names}. By chance alone "
                "at most about {chance} of so many would.",
                **names,
                shown=SHOWN,
                count=len(differ),
                names=_listed(differ),
                chance=figure_number(len(compared) * (1 - stats.LEVEL), 1),
            )
            if alike := [row.named for row in compared if not row.differs(i)]:
                yield say("No difference is seen in {count}: {names}.", count=len(alike), names=_listed(alike))
        else:
            yield say("No difference of {first} and {other} is seen in {total} numbers.", **names)
        if (one := _yes_or_no(first)) and (another := _yes_or_no(side)) and one != another:
            yield say(
                "The answers differ: {first} says “{one}”, {other} “{another}”.", **names, one=one, another=another
            )
        moved = [row.moved(i + 1) for part in parts if not part.graded for row in part.rows if row.elsewhere(i + 1)]
        if moved:
            yield say("The strongest place is another one in {other} for {names}.", **names, names=_listed(moved))
        graded = [row for part in parts if part.graded for row in part.rows]
        claims = [row for row in graded if row.values[0] is not None and row.values[i + 1] is not None]
        if claims:
            apart = [row.moved(i + 1) for row in claims if row.elsewhere(i + 1)]
            agree = say("{first} and {other} grade {same} of {total} claims alike", **{**names, "total": len(claims)},
                        same=len(claims) - len(apart))  # fmt: skip
            yield f"{agree}; {say('otherwise')}: {_listed(apart)}." if apart else f"{agree}."
        if not sides.same_prompts(first, side):
            yield say("The prompts of {first} and {other} are not the same: they are compared as two samples.", **names)


def _yes_or_no(side: Side) -> str:
    """How the answer of a run begins, up to its colon."""
    said = side.verdict.short or side.verdict.answer
    start, colon, _ = said.partition(":")
    return start if colon and len(start) < LONGEST else ""


def _listed(names: list[str], most: int = 6) -> str:
    kept = "; ".join(names[:most])
    return kept if len(names) <= most else f"{kept}; …"
