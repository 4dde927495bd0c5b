"""The attention patterns: one head drawn here, all of them by CircuitsVis where it is installed."""

from __future__ import annotations

import numpy as np

from interp.report.blocks import Block, Figure, Notice, Panel, Script
from interp.report.bundle import Bundle
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result, RunInputs
from interp.report.markup import token
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table
from interp.report.verdict import Verdict, place
from interp.sites import head_label

CIRCUITSVIS_HEADS = 24
"""At most this many heads go to CircuitsVis, which draws one canvas per head."""

Place = tuple[int, int]
"""Layer and head."""


def holder(run: RunInputs) -> Result | None:
    """The result that has the patterns."""
    for name in ("attention_patterns", "attention_lesson"):
        result = run.get(name)
        if result is not None and result.has("pattern"):
            return result
    return run.get("attention_patterns")


def blocks(result: Result, verdict: Verdict, named: Place | None, bundle: Bundle | None) -> list[Block]:
    """The pattern of one head as SVG, then CircuitsVis or a note that it is missing.

    ``named`` is the head of the lesson; without one, the most sharply focused head is drawn.
    """
    pattern = result.need("pattern", "layer", "head", "dest_position", "src_position").values
    tokens = [token(text) for text in result.labels("token")]
    n_layers, n_heads = pattern.shape[:2]
    if named is not None and not (named[0] < n_layers and named[1] < n_heads):
        named = None
    chosen = _choose(pattern, verdict, named)
    first = named or chosen[0]
    side = 18.0 if bundle is None and len(tokens) <= 40 else 13.0
    made: list[Block] = [_one_pattern(result, pattern[first], tokens, head_label(*first), side)]
    if bundle is None:
        text = (
            "This page was made without the CircuitsVis script (interp report --plain, or the package circuitsvis is "
            "not installed), so the interactive patterns of all heads are left out. The pattern above does not need it."
        )
        return [*made, Notice("note", "No interactive patterns", text)]
    data = {
        "tokens": tokens,
        "attention": [[[round(float(w), 4) for w in row] for row in pattern[at]] for at in chosen],
        "attentionHeadNames": [head_label(*at) for at in chosen],
        "minValue": 0,
        "maxValue": 1,
        "positiveColor": "#1b5f98",
        "maskUpperTri": True,
    }
    count = n_layers * n_heads
    which = f"all {count} heads"
    if len(chosen) < count:
        which = f"{len(chosen)} of {count} heads (those with a job in the verdict, then the most sharply focused ones)"
    reading = (
        f"Interactive, drawn by CircuitsVis {bundle.version}: {which}. Rows read (destination), columns are read "
        "(source). Hover over a head to enlarge it, click to keep it, hover over a cell for its weight."
    )
    return [*made, Script("circuitsvis-attention", "The patterns of the heads", reading, data, "AttentionHeads")]


def _choose(pattern: np.ndarray, verdict: Verdict, named: Place | None) -> list[Place]:
    """Which heads CircuitsVis draws: the lesson's, the verdict's, then the others by layer."""
    n_layers, n_heads = pattern.shape[:2]
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    focus = np.nan_to_num(pattern).max(axis=-1).mean(axis=-1)
    jobs = [place(h) for h, label in zip(verdict.heads, verdict.labels, strict=True) if label != "none"]
    wanted = [at for at in dict.fromkeys([*([named] if named else []), *jobs]) if at in set(every)]
    others = sorted(set(every) - set(wanted), key=lambda at: (-float(focus[at]), at))
    wanted = wanted[:CIRCUITSVIS_HEADS]
    return wanted + sorted(others[: CIRCUITSVIS_HEADS - len(wanted)])


def _one_pattern(result: Result, weights: np.ndarray, tokens: list[str], name: str, side: float) -> Figure:
    size = len(tokens)
    causal = np.where(np.tri(size, dtype=bool), weights, np.nan)
    cells = {(i, j): f"{name}: {tokens[i]} ({i}) reads {tokens[j]} ({j})" for i in range(size) for j in range(size)}
    grid = Grid(causal, tokens, tokens, "destination (reads)", "source (is read)", cells=cells)
    scale = Scale.rising(0, 1, units="share", name="attention weight")
    drawn = heatmap(
        grid,
        scale,
        key="lesson-pattern-map",
        title=f"Attention pattern of {name}",
        description="Attention weights from destination rows to source columns",
        cell=(side, side),
        annotate=False,
    )
    rows: list[tuple[Cell, ...]] = [
        (i, tokens[i], j, tokens[j], float(weights[i, j])) for i in range(size) for j in range(i + 1)
    ]
    names = ("destination", "destination token", "source", "source token")
    columns = (*(Column(heading) for heading in names), Column("weight", "share", 4))
    return Figure.of(
        result,
        "lesson-pattern",
        f"The whole pattern of {name}",
        "One row per reading word; each row sums to 1. The upper right is empty: no word reads what comes after it.",
        panels=(Panel("", drawn, wide=True),),
        tables=(Table(f"Attention weights of {name}, one prompt", columns, tuple(rows)),),
        legend=colour_legend(scale, key="lesson-pattern-l"),
    )
