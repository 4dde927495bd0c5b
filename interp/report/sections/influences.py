"""Which words of the context matter: every word by every way of asking, how far the ways agree, and the numbers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from interp.errors import unknown_name
from interp.language import say, say_stored
from interp.report.blocks import Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Table

METHODS = ("swap", "knockout", "integrated_gradients", "input_x_gradient", "saliency")
"""The ways of asking, in the order of the page."""


def method_name(method: str) -> str:
    """What the page and the answer call a way of asking, in the language spoken now.

    Raises:
        InterpError: none of ``METHODS``.
    """
    names = {
        "swap": say("another word"),
        "knockout": say("attention cut"),
        "integrated_gradients": say("integrated gradients"),
        "input_x_gradient": say("input times gradient"),
        "saliency": say("saliency"),
    }
    if method not in names:
        raise unknown_name("method", method, names)
    return names[method]


def section(found: Result) -> Section:
    """The map of words and ways, with the table of all numbers and that of agreement."""
    return Section("influences", say("Which words matter"), "", (picture(found),), short=say("The words"))


def sizes(found: Result) -> Float[np.ndarray, "method word"]:
    """Absolute effect of each word on the predicted token, by each way, as a share of that way's largest."""
    values = np.stack([np.abs(_of_token(found, method)) for method in METHODS])
    largest = np.nanmax(np.where(np.isfinite(values), values, 0.0), axis=1, keepdims=True)
    return np.asarray(values / np.where(largest > 0, largest, 1.0))


def _of_token(found: Result, method: str) -> Float[np.ndarray, " word"]:
    """The effect on the predicted token; of other words the mean of the absolute effects."""
    if method == "swap":
        return mean(np.abs(found.need("swap_log_probability", "word", "other").values))
    name = "knockout_log_probability" if method == "knockout" else method
    return np.asarray(found.need(name, "word").values, dtype=np.float64)


def mean(values: Float[np.ndarray, "word other"]) -> Float[np.ndarray, " word"]:
    """Mean over the other words that there are; NaN where there is none."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.asarray(np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan))


def picture(found: Result) -> Figure:
    """Words across, ways down: how much each makes of each word, as a share of what it makes of the first."""
    words = list(found.labels("text"))
    scale = Scale.rising(0.0, 1.0, units=say("fraction"), name=say("share of the way's largest"))
    grid = Grid(
        sizes(found), rows=[method_name(method) for method in METHODS], columns=words, row_title=say("way of asking"),
        column_title=say("word"),
    )  # fmt: skip
    return Figure.of(
        found,
        "influences-map",
        say("Every word, by every way of asking"),
        say_stored(found.attr("reading")),
        panels=(
            Panel(
                "",
                heatmap(
                    grid, scale, key="influences-grid", title=say("Every word, by every way of asking"),
                    description=say("Each row in shares of its own largest effect on the predicted token."),
                ),
                wide=True,
            ),
        ),
        tables=(_numbers(found, words), _agreement(found)),
        legend=colour_legend(scale, key="influences-legend"),
    )  # fmt: skip


def _numbers(found: Result, words: list[str]) -> Table:
    swapped = {name: found.need(f"swap_{name}", "word", "other").values for name in ("stream", "kl", "log_probability")}
    swaps = [*map(mean, swapped.values()), mean(np.abs(swapped["log_probability"]))]
    cuts = [found.need(f"knockout_{name}", "word").values for name in ("stream", "kl", "log_probability")]
    gradients = [found.need(name, "word").values for name in METHODS[2:]]
    tried = found.need("other_word", "word", "other").values
    of_each = (say("stream"), say("prediction"), say("predicted token"))
    units = (say("fraction"), "nats", "nats")
    of_several = say("predicted token, mean size of several")
    columns = (
        Column(say("word")),
        Column(say("other words")),
        *(Column(f"{method_name('swap')}: {name}", unit) for name, unit in zip(of_each, units, strict=True)),
        Column(f"{method_name('swap')}: {of_several}", "nats"),
        *(Column(f"{method_name('knockout')}: {name}", unit) for name, unit in zip(of_each, units, strict=True)),
        *(Column(method_name(method), found.units(method)) for method in METHODS[2:]),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            word,
            ", ".join(str(other) for other in tried[i] if str(other)),
            *(float(values[i]) for values in (*swaps, *cuts, *gradients)),
        )
        for i, word in enumerate(words)
    )
    return Table(say("Effects on the target's stream, on what is predicted, and on the predicted token"), columns, rows)


def _agreement(found: Result) -> Table:
    values = found.need("agreement", "way", "other_way").values
    names = [method_name(method) for method in METHODS]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(float(value) for value in values[i])) for i, name in enumerate(names)
    )
    return Table(
        say("How far the ways rank the words alike (Spearman, of absolute effects on the predicted token)"),
        (Column(say("way of asking")), *(Column(name) for name in names)),
        rows,
    )
