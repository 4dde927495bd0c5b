"""The attention patterns: every head drawn by the page's scripts, one of them here, and CircuitsVis on demand."""

from __future__ import annotations

from interp.language import say
from interp.report import multiples
from interp.report.attention import Patterns, Place
from interp.report.blocks import Block, Figure, Living, Notice, Panel, Script
from interp.report.bundle import Bundle
from interp.report.heat import colour_legend
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table
from interp.report.verdict import Verdict
from interp.sites import head_label

LEAST = 0.01
"""Smaller weights are left out of the table."""


def blocks(patterns: Patterns, verdict: Verdict, named: Place | None, bundle: Bundle | None) -> list[Block]:
    """All heads (by script), the pattern of one head as SVG, and CircuitsVis or a note that it is missing.

    ``named`` is the head of the lesson; without one, the most sharply focused head is drawn.
    """
    first = patterns.ranked(verdict, named)[0]
    made: list[Block] = [_living(), _one_pattern(patterns, first)]
    if bundle is None:
        text = say(
            "This page was made without the CircuitsVis script (interp report --plain, or the package circuitsvis is "
            "not installed), so its interactive view is left out. The patterns above do not need it."
        )
        return [*made, Notice("note", say("No view by CircuitsVis"), text)]
    reading = say(
        "The heads above and the prompt chosen there, drawn by CircuitsVis {version}. Rows read (destination), columns "
        "are read (source). Hover over a head to enlarge it, click to keep it, hover over a cell for its weight.",
        version=bundle.version,
    )
    return [*made, Script("circuitsvis-attention", say("The same patterns in CircuitsVis"), reading)]


def _living() -> Living:
    return Living(
        "patterns",
        say("Every head, on any prompt"),
        say(
            "One square per head: its rows are the words that read, its columns the words that are read; the "
            "stronger the colour, the larger the weight. Choose a prompt; choose a head to see it large; choose a "
            "cell there to follow these two words in the lesson."
        ),
        say("This figure needs scripts, in a browser that can inflate data; the pattern below does not."),
        instead=("lesson-pattern",),
    )


def _one_pattern(patterns: Patterns, at: Place) -> Figure:
    name, tokens = head_label(*at), patterns.words(0)
    size = len(tokens)
    weights = patterns.weights[(0, *at)][:size, :size]
    title = say("Attention pattern of {head}", head=name)
    scale = Scale.rising(0, 1, units=say("share"), name=say("attention weight"))
    drawn = multiples.one(weights, name, patterns.tokens[0], key="lesson-pattern-map", title=title)
    rows: list[tuple[Cell, ...]] = [
        (i, tokens[i], j, tokens[j], float(weights[i, j]))
        for i in range(size)
        for j in range(i + 1)
        if weights[i, j] >= LEAST
    ]
    names = (say("destination"), say("destination token"), say("source"), say("source token"))
    columns = (*(Column(heading) for heading in names), Column(say("weight"), say("share"), 4))
    return Figure.of(
        patterns.result,
        "lesson-pattern",
        say("The whole pattern of {head}", head=name),
        say(
            "One row per reading word; each row sums to 1. The upper right is empty: no word reads what comes after it."
        ),
        panels=(Panel("", drawn, wide=True),),
        tables=(
            Table(
                say("Attention weights of {head}, one prompt; at least {least}", head=name, least=LEAST),
                columns,
                tuple(rows),
            ),
        ),
        legend=colour_legend(scale, key="lesson-pattern-l"),
    )
