"""The page of a comparison: ``compare.html``, one file whose scripts copy and save its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from interp.language import say
from interp.report import data, notebook, palette
from interp.report import page as pages
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Prose, Section
from interp.report.comparison.sides import Side
from interp.report.comparison.table import Part, Value
from interp.report.lines import Point, Series, dot_rows, line_legend
from interp.report.markup import embedded_json
from interp.report.templating import asset, environment

SCRIPTS = ("base", "tables")
"""The scripts of the page: its tables are copied and saved."""
_TONES = ("a", "b", "c", "d")
"""Runs that one drawing can tell apart."""


def html(runs: Sequence[Side], parts: Sequence[Part], said: Sequence[str], language: str) -> str:
    """The whole page. Pure: the same inputs give the same text."""
    sections = [_answers(runs), *(_section(part) for part in parts)]
    template = environment(explained=True).get_template("compare.html")
    return template.render(
        title=say("{count} runs beside each other", count=len(runs)),
        language=language,
        runs=[(side.letter, side.in_words()) for side in runs],
        said=said,
        words={"said": say("What agrees, what differs")},
        sections=sections,
        policy=pages.POLICY,
        css=Markup(asset("page.css") + palette.stylesheet()),
        js=Markup(pages.script(SCRIPTS)),
        data=embedded_json({"words": data.table_words()}),
    )


def fragment(parts: Sequence[Part], said: Sequence[str], language: str) -> str:
    """The sentences and tables for the cell of a notebook."""
    blocks: list[Block] = [Prose(tuple(said))]
    blocks += [Details(part.title, (part.table(),), open=True) for part in parts]
    return notebook.of_blocks(say("What agrees, what differs"), blocks, language=language).html


def _answers(runs: Sequence[Side]) -> Section:
    items = tuple((f"{side.letter}:", _answer(side)) for side in runs)
    return Section("answers", say("The answers"), "", (Facts(items),))


def _answer(side: Side) -> str:
    found = side.verdict
    short = f"{found.short} " if found.short and not found.answer.startswith(found.short) else ""
    return f"{short}{found.answer}" or say("Nothing was explained: {reason}", reason=found.reason)


def _section(part: Part) -> Section:
    blocks: list[Block] = [Details(say("The numbers"), (part.table(),), open=True)]
    if part.drawn and len(part.letters) <= len(_TONES):
        blocks = [_figure(part)]
    return Section(part.key, part.title, part.reading, tuple(blocks))


def _figure(part: Part) -> Figure:
    """A dot with its interval for each run, in a row for each quantity."""
    series = [
        Series(letter, tone, tuple(_point(row.values[i]) for row in part.rows))
        for i, (letter, tone) in enumerate(zip(part.letters, _TONES, strict=False))
    ]
    seen = [v for one in series for p in one.points for v in (p.mean, p.low, p.high) if math.isfinite(v)]
    drawn = dot_rows(
        [row.name for row in part.rows],
        series,
        axis=part.units,
        low=min([0.0, *seen]),
        high=max([1.0, *seen]),
        key=f"compare-{part.key}",
        title=part.title,
        description=part.reading,
        width=340.0,  # it stands alone in its card
    )
    entries = [(one.name, "mark" if one.tone == "c" else one.tone) for one in series]  # of points, not of lines
    legend = line_legend(entries, key=f"compare-{part.key}-l")
    tables = (part.table(),)
    title = say("The numbers with their intervals")
    return Figure(f"compare-{part.key}-figure", title, "", (Panel("", drawn),), tables, legend=legend, open=True)


def _point(value: Value | None) -> Point:
    if value is None:
        return Point(math.nan, math.nan, math.nan, None)
    return Point(value.mean, value.low, value.high, None)
