"""Why one head looks: its score in parts, the paths that were tested, what it passes on, and who uses that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from interp import summary
from interp.language import called, say, say_stored
from interp.report.blocks import Block, Figure, Notice, Panel, Prose, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.lines import Point, Series, dot_rows
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.tables import Table, joined, mean_table

SHOWN = 8
"""Writers and readers that are drawn; the tables have all."""


def section(found: Result) -> Section:
    """The map of the score's parts, then what the patched paths did, then what is passed on."""
    blocks: list[Block] = [Prose((_first(found),)), _terms(found)]
    if found.has("score_change"):
        blocks.append(_paths(found))
    if found.has("written_change"):
        blocks.append(_written(found))
    if found.has("reader_change"):
        blocks.append(_readers(found))
    left_out = found.attr("left_out")
    if left_out:
        blocks.append(Notice("note", "", say("Left out: {reason}", reason=left_out)))
    return Section("qk", say("Why a head looks"), found.said("question"), blocks, short=say("Why it looks"))


def _first(found: Result) -> str:
    """Where the head looks, how much, and the largest part of why."""
    weight, score = (found.summary(name, "prompt") for name in ("weight", "score"))
    terms = found.summary("term", "prompt", "query_writer", "key_writer")
    at = np.unravel_index(int(np.argmax(terms["mean"].values)), terms["mean"].shape)
    names = [say_stored(found.labels(side)[i]) for side, i in zip(("query_writer", "key_writer"), at, strict=True)]
    return say(
        "{head} gives {src} {weight} of the attention of {dest}: its score there is {score}, a sum of parts. The "
        "largest is what {query} wrote at {dest} against what {key} wrote at {src}: {term}.",
        head=found.attr("head_label"), dest=called("role", found.attr("dest")), src=called("role", found.attr("src")),
        weight=f"{float(weight['mean']):.0%}", score=figure_number(float(score["mean"]), 2),
        query=names[0], key=names[1], term=figure_number(float(terms["mean"].max()), 2),
    )  # fmt: skip


def _terms(found: Result) -> Figure:
    """The mean parts of the score by what wrote query and key, and their sums on either side."""
    parts = found.summary("term", "prompt", "query_writer", "key_writer")
    limit = _limit([parts])
    digits = 1 if limit >= 1 else 2
    scale = Scale.centred(limit, units="", name=say("part of the score"))
    grid = Grid.of(parts, "query_writer", "key_writer", row_title=say("query"), column_title=say("key"))
    drawn = heatmap(
        grid, scale, key="qk-terms", title=say("Parts of the score"), digits=digits,
        description=say("Mean part of the score, by what wrote the query and the key"),
    )  # fmt: skip
    sums = {side: found.summary(f"{side}_part", "prompt", f"{side}_writer") for side in ("query", "key")}
    changes = _changes(found)
    tables = [
        mean_table(
            say("Parts of the score. Intervals: {interval}", interval=summary.in_words(parts)), parts,
            [("query_writer", say("query")), ("key_writer", say("key"))], units="", name=say("part"),
        ),
        joined(say("Sums over the other side, and what they change from corrupted to clean"), say("side"), [
            *((_side(side), _table(one, f"{side}_writer")) for side, one in sums.items()),
            *(
                (say("{side}, change", side=_side(side)), _table(one, f"{side}_writer"))
                for side, one in changes.items()
            ),
        ]),
    ]  # fmt: skip
    panels = [Panel("", drawn)]
    panels += [
        _dots(one, f"{side}_writer", f"qk-{side}", _side(side), say("sum of the parts of the score"), "")
        for side, one in sums.items()
    ]
    return Figure.of(
        found, "qk-parts", say("The score in parts"), found.said("reading"), panels=tuple(panels),
        tables=tuple(tables), legend=colour_legend(scale, key="qk-terms-l", digits=digits),
    )  # fmt: skip


def _changes(found: Result) -> dict[str, xr.Dataset]:
    """What each side's sums lose from clean to corrupted; nothing where there is no corrupted run."""
    if not found.has("query_part_change"):
        return {}
    return {side: found.summary(f"{side}_part_change", "prompt", f"{side}_writer") for side in ("query", "key")}


def _side(side: str) -> str:
    return {"query": say("query"), "key": say("key")}[side]


def _paths(found: Result) -> Figure:
    """Predicted and real change of the score by each patched path; the weight and the answer in the table."""
    names = ("predicted_change", "score_change", "weight_change", "metric_change")
    changes = {name: found.summary(name, "prompt", "sender", "side") for name in names}
    senders, sides = found.labels("sender"), found.labels("side")
    labels = [f"{sender} → {_side(side)}" for sender in senders for side in sides]
    series = [
        Series(title, tone, _points(changes[name], "sender", "side"))
        for name, title, tone in (("predicted_change", say("predicted"), "b"), ("score_change", say("patched"), "a"))
    ]
    low, high = _ends(point for one in series for point in one.points)
    drawn = dot_rows(
        labels, series, axis=say("change of the score"), low=low, high=high, key="qk-paths-dots",
        title=say("Change of the score by each path"),
        description=say("What the parts predict and what patching does, for each path into the query or the key"),
    )  # fmt: skip
    dims = [("sender", say("writer")), ("side", say("side"))]
    parts = [
        (say_stored(str(found.data[name].attrs["long_name"])), mean_table("", one, dims, units="", name=say("mean")))
        for name, one in changes.items()
    ]
    chosen = int(found.need_attr("sender_chosen_on"))
    reading = say(
        "Diamond: what the parts of the score predict with the norm's scale as it was. Disc: what patching that path "
        "does to the score."
    )
    if chosen:
        reading += " " + say("The writers were chosen on {n} other prompts.", n=chosen)
    interval = summary.in_words(changes["score_change"])
    return Figure.of(
        found, "qk-paths", say("The leading paths, patched"), reading, panels=(Panel("", drawn),),
        tables=(joined(say("Changes by each path. Intervals: {interval}", interval=interval), say("what"), parts),),
    )  # fmt: skip


def _percent(share: xr.Dataset) -> str:
    return f"{figure_number(100 * float(share['mean']), 1)}%"


def _written(found: Result) -> Figure:
    """What the source's value carries to the destination, by what wrote it."""
    change = found.summary("written_change", "prompt", "value_writer")
    share, whole = (found.summary(name, "prompt") for name in ("share", "head_share"))
    reading = say(
        "Each part of the value at {src}, carried to {dest} by the head: how far it moves the stream there from "
        "corrupted to clean. Together they are {share} of the whole difference; what the head writes from all words is "
        "{whole}.",
        src=called("role", found.attr("src")), dest=called("role", found.attr("dest")),
        share=_percent(share), whole=_percent(whole),
    )  # fmt: skip
    interval, units = summary.in_words(change), found.units("written_change")
    return Figure.of(
        found, "qk-written", say("What it passes on"), reading,
        panels=(_dots(change, "value_writer", "qk-written-dots", "", say("towards clean"), units),),
        tables=(
            mean_table(
                say("What each part carries. Intervals: {interval}", interval=interval), change,
                [("value_writer", say("writer"))], units=units, name=say("mean"),
            ),
        ),
    )  # fmt: skip


def _readers(found: Result) -> Figure:
    """What later readers make of the head's output."""
    change = found.summary("reader_change", "prompt", "reader")
    interval, units = summary.in_words(change), found.units("reader_change")
    reading = say(
        "What the answer loses or wins when one reader alone is given the head's output of the corrupted run."
    )
    chosen = int(found.need_attr("reader_chosen_on"))
    if chosen:
        reading += " " + say("The readers were chosen on {n} other prompts.", n=chosen)
    return Figure.of(
        found, "qk-readers", say("Who uses it"), reading,
        panels=(_dots(change, "reader", "qk-readers-dots", "", say("change of the answer"), units),),
        tables=(
            mean_table(
                say("By reader. Intervals: {interval}", interval=interval), change, [("reader", say("reader"))],
                units=units, name=say("mean"),
            ),
        ),
    )  # fmt: skip


def _dots(means: xr.Dataset, dim: str, key: str, title: str, axis: str, units: str) -> Panel:
    """The largest entries along one axis, with their intervals."""
    size = np.nan_to_num(np.abs(means["mean"].values))
    kept = np.sort(np.argsort(-size, kind="stable")[:SHOWN])
    some = means.isel({dim: kept})
    points = _points(some, dim)
    low, high = _ends(points)
    name = f"{axis} ({say_stored(units)})" if units else axis
    drawn = dot_rows(
        [say_stored(str(label)) for label in some[dim].values], (Series(title or axis, "a", points),), axis=name,
        low=low, high=high, key=key, title=title or axis,
        description=say("{title}, by {axis}", title=axis, axis=say_stored(dim)),
    )  # fmt: skip
    return Panel(title, drawn)


def _points(means: xr.Dataset, *dims: str) -> tuple[Point, ...]:
    columns = [means[name].transpose(*dims).values.ravel() for name in ("mean", "low", "high", "n")]
    return tuple(
        Point(float(mean), float(low), float(high), int(n)) for mean, low, high, n in zip(*columns, strict=True)
    )


def _ends(points: Iterable[Point]) -> tuple[float, float]:
    """The axis of some points: from the lowest bound to the highest, with 0 on it."""
    values = np.array([v for p in points for v in (p.mean, p.low, p.high)] + [0.0])
    finite = values[np.isfinite(values)]
    return float(finite.min()), float(finite.max()) or 1.0


def _limit(means: Sequence[xr.Dataset]) -> float:
    return max(float(np.nanmax(np.abs(one["mean"].values))) for one in means) or 1.0


def _table(means: xr.Dataset, dim: str) -> Table:
    return mean_table("", means, [(dim, say("writer"))], units="", name=say("mean"))
