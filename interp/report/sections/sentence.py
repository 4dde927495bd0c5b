"""What of one word reaches another: the sentence with the arcs of the heads that carry it, and what changes."""

from __future__ import annotations

import numpy as np

from interp import summary
from interp.report.arcs import Arc, sentence
from interp.report.blocks import Details, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table
from interp.sites import head_label

HEADS = 8
"""Heads that are drawn, at most."""
WORDS = 3
"""Words that are listed after each token."""
LEAST = 0.02
"""Arcs of a smaller part of the difference are not drawn."""


def section(reach: Result, heads: Result, sources: Result, predictions: Result) -> Section:
    """The picture with its numbers, the map of where the difference is, and what changes in the predictions."""
    return Section(
        "sentence",
        "What arrives, and what brings it",
        "",
        (picture(reach, heads, sources), _map(reach), _predictions(predictions)),
        short="The sentence",
    )


def _span(result: Result, role: str) -> tuple[int, int]:
    at = [i for i, name in enumerate(result.labels("role")) if name == role]
    return at[0], at[-1] + 1


def picture(reach: Result, heads: Result, sources: Result) -> Figure:
    """The sentence with the arcs of the heads that matter most, and their numbers."""
    tokens = reach.labels("token")
    recovered = heads.summary("recovered", "prompt", "direction", "layer", "head", "role").isel(role=0)
    enough, needed = (summary.effect(recovered.sel(direction=direction), direction) for direction in summary.DIRECTIONS)
    share = sources.summary("share", "prompt", "layer", "head", "position")["mean"]
    n_layers, n_heads = enough.sizes["layer"], enough.sizes["head"]
    cells = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    means, lows = (enough[name].transpose("layer", "head").values for name in ("mean", "low"))
    lows = np.where(np.isfinite(lows), lows, means)  # one counterfactual has no interval
    best = sorted((cell for cell in cells if lows[cell] > 0), key=lambda cell: -means[cell])[:HEADS]
    reached = bool(reach.need_attr("reaches"))
    arcs = [
        Arc(head_label(*cell), cell[0], position, float(means[cell] * share.values[(*cell, position)]), "of the whole")
        for cell in (best if reached else [])
        for position in range(len(tokens))
        if means[cell] * share.values[(*cell, position)] >= LEAST
    ]
    columns = (
        Column("head", facet="head"),
        *(Column(f"{name}{end}") for name in ("sufficient", "needed") for end in _ENDS),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (head_label(*cell), *(float(part[end].values[cell]) for part in (enough, needed) for end in _ENDS.values()))
        for cell in best
    )
    taken = tuple(
        (head_label(*cell), tokens[position], float(share.values[(*cell, position)]))
        for cell in best
        for position in np.argsort(-share.values[cell])[:4]
        if share.values[(*cell, position)] >= LEAST
    )
    return Figure.of(
        heads,
        "sentence-picture",
        "The sentence, and the heads that bring it",
        "An arc goes from the word that a head takes it from to the target, at the head's layer. The thicker, the more "
        "of the whole difference at the target the head's output there brings back by itself. A dot is what it takes "
        "from the target itself.",
        panels=(
            Panel(
                "",
                sentence(
                    tokens, source=_span(reach, "source"), target=_span(reach, "target"), arcs=arcs, n_layers=n_layers,
                    key="sentence-arcs", title=reach.attr("question"),
                ),
                wide=True,
            ),
        ),
        tables=(
            Table("Heads at the target; 1 is the whole difference there", columns, rows),
            Table(
                "From where they take it",
                (Column("head", facet="head"), Column("word"), Column("share", "fraction")),
                taken,
            ),
        ),
    )  # fmt: skip


_ENDS = {"": "mean", " 95% low": "low", " 95% high": "high"}


def _map(reach: Result) -> Figure:
    found = reach.summary("difference", "prompt", "layer", "position")
    start = _span(reach, "source")[0]
    found = found.isel(position=slice(start, None))
    tokens = reach.labels("token")[start:]
    top = float(np.nanmax(found["mean"].values))
    scale = Scale.rising(0.0, top, units="fraction", name="difference of the streams")
    grid = Grid.of(
        found, "layer", "position", row_title="after layer", column_title="word", columns=list(tokens),
    )  # fmt: skip
    columns = (Column("after layer"), Column("word"), Column("mean", "fraction"), Column("95% low"), Column("95% high"))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (str(layer), tokens[i], *(float(found[part].values[layer, i]) for part in ("mean", "low", "high")))
        for layer in range(found.sizes["layer"])
        for i in range(found.sizes["position"])
    )
    return Figure.of(
        reach,
        "sentence-reach",
        "Where the difference is",
        reach.attr("reading"),
        panels=(
            Panel(
                "",
                heatmap(
                    grid, scale, key="sentence-reach-map", title="Where the difference is",
                    description=f"From 0 to {top:.3f} of the stream's length.",
                ),
                wide=True,
            ),
        ),
        tables=(Table("Difference, mean over the other words", columns, rows),),
        legend=colour_legend(scale, key="sentence-reach-legend"),
    )  # fmt: skip


def _predictions(result: Result) -> Details:
    tokens, words = result.labels("token"), result.labels("word")
    kl = result.summary("kl", "prompt", "position")
    other = result.summary("corrupted_probability", "prompt", "position", "word")
    clean = result.need("clean_probability", "position", "word").values
    changed: tuple[tuple[Cell, ...], ...] = tuple(
        (token, *(float(kl[part].values[i]) for part in ("mean", "low", "high"))) for i, token in enumerate(tokens)
    )
    moved: tuple[tuple[Cell, ...], ...] = tuple(
        (token, words[j], float(clean[i, j]), *(float(other[part].values[i, j]) for part in ("mean", "low", "high")))
        for i, token in enumerate(tokens)
        for j in np.argsort(-np.abs(other["mean"].values[i] - clean[i]))[:WORDS]
    )
    nats = (Column("after"), *(Column(name, "nats", 4) for name in ("change", "95% low", "95% high")))
    shares = ("in the sentence", "with other words", "95% low", "95% high")
    return Details(
        "What changes in what is predicted",
        (
            Table("KL(sentence || with another word), mean over the other words", nats, changed),
            Table(
                "The words whose probability changes most",
                (Column("after"), Column("word"), *(Column(name) for name in shares)),
                moved,
            ),
        ),
        open=True,
    )
