"""What of one word reaches another: the sentence with the arcs of the heads that carry it, and what changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp import _depth as depth
from interp import summary
from interp.language import say, say_stored
from interp.report.arcs import Arc, sentence
from interp.report.blocks import Details, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table
from interp.sites import head_label

HEADS = 8
"""Heads that are drawn, at most."""
WORDS = 3
"""Words that are listed after each token."""
LEAST = 0.02
"""Arcs of a smaller part of the difference are not drawn."""


def section(
    reach: Result,
    heads: Result,
    sources: Result,
    predictions: Result,
    paths: Result | None = None,
    continuation: Result | None = None,
    route: Result | None = None,
) -> Section:
    """The numbers of the picture, paths, the maps of the difference and of the way, predictions, and how it goes on.

    The picture itself stands on the first screen. ``paths``, ``continuation`` and ``route`` are there where they were
    asked for, and where there was time.
    """
    drawn = picture(reach, heads, sources)
    return Section(
        "sentence",
        say("What arrives, and what brings it"),
        "",
        (
            Details(
                drawn.title,
                drawn.tables,
                open=True,
                reading=say(
                    "The picture stands under the answer, on the first screen. {reading}", reading=drawn.reading
                ),
            ),
            *(() if paths is None else (_paths(paths),)),
            _map(reach),
            *(() if route is None else (_route(route, reach.labels("token")),)),
            _predictions(predictions),
            *(() if continuation is None else (_continuation(continuation),)),
        ),
        short=say("The sentence"),
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
    reached, end = bool(reach.need_attr("reaches")), _span(reach, "target")[1] - 1
    arcs = [
        Arc(
            head_label(*cell),
            cell[0],
            position,
            end,
            float(means[cell] * share.values[(*cell, position)]),
            say("of the whole"),
        )
        for cell in (best if reached else [])
        for position in range(len(tokens))
        if means[cell] * share.values[(*cell, position)] >= LEAST
    ]
    columns = (
        Column(say("head"), facet="head"),
        *(Column(name) for first in (say("sufficient"), say("needed")) for name in _ends(first)),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (head_label(*cell), *(float(part[end].values[cell]) for part in (enough, needed) for end in ENDS))
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
        say("The sentence, and the heads that bring it"),
        _caption(arcs, _span(reach, "source")),
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
            Table(say("Heads at the target; 1 is the whole difference there"), columns, rows),
            Table(
                say("From where they take it"),
                (Column(say("head"), facet="head"), Column(say("word")), Column(say("share"), say("fraction"))),
                taken,
            ),
        ),
    )  # fmt: skip


def _caption(arcs: Sequence[Arc], source: tuple[int, int]) -> str:
    """How the picture is read, and what it leaves open where the thickest arc starts at another word."""
    thickest = max(arcs, key=lambda arc: arc.size, default=None)
    elsewhere = thickest is not None and not source[0] <= thickest.start < source[1]
    return say(
        "An arc goes from the word that a head takes it from to the target, at the head's layer. The thicker, the "
        "more of the whole difference at the target the head's output there brings back by itself. A dot is what "
        "it takes from the target itself.{then}",
        then=say(" The thickest starts at another word than the source, which holds something of it by then.")
        if elsewhere else "",
    )  # fmt: skip


ENDS = ("mean", "low", "high")


def _ends(name: str) -> tuple[str, str, str]:
    """The headings of a mean and the ends of its interval."""
    return name, say("{name} 95% low", name=name), say("{name} 95% high", name=name)


def _paths(result: Result) -> Details:
    """Every path between the leading heads, those that are sufficient for most first."""
    recovered = result.summary("recovered", "prompt", "direction", "sender", "receiver")
    enough, needed = (summary.effect(recovered.sel(direction=name), name) for name in summary.DIRECTIONS)
    senders, receivers = result.labels("sender"), result.labels("receiver")
    mean = enough["mean"].transpose("sender", "receiver").values
    order = [i for i in np.argsort(-np.nan_to_num(mean, nan=-np.inf), axis=None) if np.isfinite(mean.flat[i])]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            say("the source's token") if senders[s] == "embed" else senders[s],
            say("the target's stream") if receivers[r].endswith(".resid_post") else receivers[r],
            *(
                float(part[end].sel(sender=senders[s], receiver=receivers[r]))
                for part in (enough, needed)
                for end in ENDS
            ),
        )
        for s, r in (np.unravel_index(int(i), mean.shape) for i in order)
    )
    columns = (
        *(Column(say("from")), Column(say("to"))),
        *(Column(name) for first in (say("sufficient"), say("needed")) for name in _ends(first)),
    )
    return Details(
        say("Paths between the leading heads"),
        (
            Table(
                say("One path at a time: from what writes to what reads it; 1 is the whole difference"), columns, rows
            ),
        ),
        open=True,
    )


def _map(reach: Result) -> Figure:
    found = reach.summary("difference", "prompt", "layer", "position")
    start = _span(reach, "source")[0]
    found = found.isel(position=slice(start, None))
    tokens = reach.labels("token")[start:]
    top = float(np.nanmax(found["mean"].values))
    scale = Scale.rising(0.0, top, units=say("fraction"), name=say("difference of the streams"))
    grid = Grid.of(
        found, "layer", "position", row_title=say("after layer"), column_title=say("word"), columns=list(tokens),
    )  # fmt: skip
    columns = (
        *(Column(say("after layer")), Column(say("word")), Column(say("mean"), say("fraction"))),
        *(Column(say("95% low")), Column(say("95% high"))),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (str(layer), tokens[i], *(float(found[part].values[layer, i]) for part in ENDS))
        for layer in range(found.sizes["layer"])
        for i in range(found.sizes["position"])
    )
    return Figure.of(
        reach,
        "sentence-reach",
        say("Where the difference is"),
        say_stored(reach.attr("reading")),
        panels=(
            Panel(
                "",
                heatmap(
                    grid, scale, key="sentence-reach-map", title=say("Where the difference is"),
                    description=say("From 0 to {top} of the stream's length.", top=figure_number(top, 3)),
                ),
                wide=True,
            ),
        ),
        tables=(Table(say("Difference, mean over the other words"), columns, rows),),
        legend=colour_legend(scale, key="sentence-reach-legend"),
    )  # fmt: skip


def _route(route: Result, words: Sequence[str]) -> Figure:
    """Where the stream on the way holds what arrives: what is brought back by its one place alone."""
    found = depth.named(route.summary("recovered", "prompt", "layer", "position"), "resid_pre")
    tokens = [words[int(position)] for position in route.data["position"].values]
    most = max(1.0, float(np.nanmax(np.abs(found["mean"].values))))
    scale = Scale.centred(most, units=say("fraction"), name=say("sufficient"))
    grid = Grid.of(
        found, "layer", "position", row_title=say("after layer"), column_title=say("word"), columns=tokens,
    )  # fmt: skip
    columns = (Column(say("after layer")), Column(say("word")), *(Column(name) for name in _ends(say("sufficient"))))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (str(found["layer"].values[layer]), tokens[i], *(float(found[part].values[layer, i]) for part in ENDS))
        for layer in range(found.sizes["layer"])
        for i in range(found.sizes["position"])
    )
    title = say_stored(route.attr("title"))
    return Figure.of(
        route,
        "sentence-route",
        title,
        say(
            "The stream at one word, after one layer, taken from the sentence into the runs with other words: how much "
            "of the difference at the target that brings back. 1 is all of it: at that place all of it goes by."
        ),
        panels=(
            Panel(
                "",
                heatmap(
                    grid, scale, key="sentence-route-map", title=title, description=say_stored(route.attr("question"))
                ),
                wide=True,
            ),
        ),
        tables=(Table(say("What one place brings back, mean over the other words"), columns, rows),),
        legend=colour_legend(scale, key="sentence-route-legend"),
    )


def _predictions(result: Result) -> Details:
    tokens, words = result.labels("token"), result.labels("word")
    kl = result.summary("kl", "prompt", "position")
    other = result.summary("corrupted_probability", "prompt", "position", "word")
    clean = result.need("clean_probability", "position", "word").values
    changed: tuple[tuple[Cell, ...], ...] = tuple(
        (token, *(float(kl[part].values[i]) for part in ENDS)) for i, token in enumerate(tokens)
    )
    moved: tuple[tuple[Cell, ...], ...] = tuple(
        (token, words[j], float(clean[i, j]), *(float(other[part].values[i, j]) for part in ENDS))
        for i, token in enumerate(tokens)
        for j in np.argsort(-np.abs(other["mean"].values[i] - clean[i]))[:WORDS]
    )
    after, word = Column(say("after")), Column(say("word"))
    nats = (after, *(Column(name, "nats", 4) for name in (say("change"), say("95% low"), say("95% high"))))
    shares = (say("in the sentence"), say("with other words"), say("95% low"), say("95% high"))
    return Details(
        say("What changes in what is predicted"),
        (
            Table(say("KL(sentence || with another word), mean over the other words"), nats, changed),
            Table(
                say("The words whose probability changes most"),
                (after, word, *(Column(name) for name in shares)),
                moved,
            ),
        ),
        open=True,
    )


def _continuation(result: Result) -> Details:
    own = result.need("clean_log_probability", "step").values
    lost = result.summary("log_probability", "prompt", "step")
    whole = result.need("log_probability", "prompt", "step").values.sum(axis=1)
    alike = result.need("alike", "prompt").values
    tokens = result.labels("token")
    steps: tuple[tuple[Cell, ...], ...] = tuple(
        (token, float(own[i]), *(float(lost[part].values[i]) for part in ENDS)) for i, token in enumerate(tokens)
    )
    texts: tuple[tuple[Cell, ...], ...] = (
        (say("the sentence"), result.attr("continuation"), float(own.sum()), len(tokens)),
        *(
            (word, text, float(whole[i]), int(alike[i]))
            for i, (word, text) in enumerate(
                zip(result.labels("other_word"), result.labels("continuation"), strict=True)
            )
        ),
    )
    return Details(
        say("How it goes on"),
        (
            Table(
                say("The likeliest tokens, one after the other; nats: of the sentence's own continuation"),
                (
                    *(Column(say("with")), Column(say("it goes on"))),
                    *(Column(say("log-probability"), "nats"), Column(say("alike for"), say("tokens"))),
                ),
                texts,
            ),
            Table(
                say("Log-probability of the sentence's own continuation, mean over the other words"),
                (
                    *(Column(say("token")), Column(say("in the sentence"), "nats")),
                    *(Column(name, "nats") for name in _ends(say("with other words"))),
                ),
                steps,
            ),
        ),
        open=True,
    )
