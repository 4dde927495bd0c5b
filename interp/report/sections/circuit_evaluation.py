"""What a circuit is worth on prompts that it was not found on, under every ablation, beside random circuits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.language import path, say
from interp.report import bounded
from interp.report.blocks import Block, Facts, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.lines import Level, Point, Series, curves, dot_rows, line_legend
from interp.report.palette import Scale
from interp.report.tables import Cell, Column, Size, Table

KEY = "circuit-evaluation"
MOST = 6
"""Parts, and edges, whose worth is drawn."""


def section(result: Result) -> Section:
    """Faithfulness over sizes, the numbers of each ablation, and what each part costs."""
    blocks: list[Block] = [_curves(result), _own(result)]
    costs = [pair for pair in (("node_cost", "node"), ("edge_cost", "circuit_edge")) if result.has(pair[0])]
    if costs:
        blocks.append(_costs(result, costs))
    blocks.append(Facts(_facts(result), say("In short")))
    lead = say("Does the circuit alone do what the model does, on prompts it was not found on?")
    return Section(KEY, say("What the circuit is worth"), lead, tuple(blocks), say("Circuit, tested"))


def _ablation(name: str) -> str:
    """What edges outside the circuit carry, in words."""
    match name:
        case "zero":
            return say("zero")
        case "mean":
            return say("mean")
        case "mean_by_role":
            return say("mean by role")
        case "resample":
            return say("resample")
    raise LookupError(name)


def _curves(result: Result) -> Figure:
    ablations = result.labels("ablation")
    curve = result.need("faithfulness", "ablation", "size").values
    ends = result.need("faithfulness_interval", "ablation", "size", "ci_bound").values
    drawn = result.has("random_faithfulness")
    random = (
        result.need("random_faithfulness", "ablation", "size", "draw").values if drawn else np.empty((*curve.shape, 0))
    )
    values = np.concatenate([curve.ravel(), ends.ravel(), random.ravel(), [0.0, 1.0]])
    values = values[np.isfinite(values)]
    taken = result.need("n_edges", "size").values
    shown = np.flatnonzero(taken > 0)
    labels = [_percent(float(result.data["size"].values[j])) for j in shown]
    names = [_ablation(ablation) for ablation in ablations]
    own = [[Size(float(curve[i, j]), *map(float, ends[i, j])) for j in shown] for i in range(len(names))]
    others = [[one for j in shown for one in _spread(random[i, j])] for i in range(len(names))]
    panels = []
    for i, name in enumerate(names):
        series = [Series(say("circuit"), "a", _points(own[i]))]
        if drawn:
            series.insert(0, Series(say("random circuits"), "c", _points(others[i])))
        body = curves(
            labels,
            series,
            axis=say("edges, % of all"),
            low=float(values.min()),
            high=float(values.max()),
            key=f"{KEY}-{i}",
            title=say("Faithfulness under {ablation} ablation", ablation=name),
            description=say("Faithfulness by size, with 95% intervals over prompts."),
            rules=(Level(1.0, say("the model"), "f"),),
        )
        panels.append(Panel(name, body))
    connected = result.need("n_connected", "size").values
    counted = [(label, int(taken[j]), int(connected[j])) for label, j in zip(labels, shown, strict=True)]
    columns = (Column(say("edges, % of all")), Column(say("edges")), Column(say("on a path")), *map(Column, names))
    table = Table(say("Faithfulness by size"), columns, _rows(counted, own))
    legend = [(say("circuit"), "a"), (say("the model"), "f")]
    legend += [(say("random circuits, from the least to the most faithful"), "c")] if drawn else []
    reading = say(
        "0: no better than with every edge ablated; 1: as good as the whole model. Nothing is cut off: a circuit can "
        "do worse than the ablated model, and better than the whole one. Shaded: 95% bootstrap interval over prompts."
    )
    return Figure.of(
        result,
        f"{KEY}-curves",
        say("Faithfulness of circuits of growing size, by what the other edges carry"),
        reading,
        panels=tuple(panels),
        tables=(table,),
        legend=line_legend(legend, key=f"{KEY}-l"),
    )


def _points(sizes: Sequence[Size]) -> tuple[Point, ...]:
    return tuple(Point(one.mean, one.low, one.high, None) for one in sizes)


def _rows(counted: Sequence[tuple[Cell, ...]], sizes: Sequence[Sequence[Size]]) -> tuple[tuple[Cell, ...], ...]:
    """One row per size of circuit: what it counts, then a number per ablation."""
    return tuple((*first, *(column[j] for column in sizes)) for j, first in enumerate(counted))


def _spread(random: np.ndarray) -> tuple[Size, ...]:
    """The mean of random circuits, from the least to the most; nothing if none was drawn."""
    return (Size(float(random.mean()), float(random.min()), float(random.max())),) if random.size else ()


def _own(result: Result) -> Figure:
    """One row of numbers per ablation."""
    whole = say("faithful")
    columns = [Column(say("ablation")), Column("CPR"), Column("CMD"), Column(whole), Column(say("all other edges"))]
    names = ["cpr", "cmd", "own_faithfulness", "complement"]
    if result.has("incompleteness"):
        columns.append(Column(say("incomplete")))
        names.append("incompleteness")
    drawn = result.has("own_p")
    if drawn:
        columns += [Column(say("random edges, p")), Column(say("other heads, p"))]
    rows: list[tuple[Cell, ...]] = []
    for i, ablation in enumerate(result.labels("ablation")):
        sizes = [_size(result, name, i) for name in names]
        p = [float(value) for value in result.need("own_p", "ablation", "null").values[i]] if drawn else []
        rows.append((_ablation(ablation), *sizes, *p))
    table = Table(say("The circuit under every ablation, with 95% intervals over prompts"), tuple(columns), tuple(rows))
    reading = say(
        "CPR: area below the curve (1: as good as the model at every size). CMD: area between the curve and 1 (0 is "
        "best). Then the circuit that was found: its own faithfulness, that of all other edges together (0: nothing is "
        "left out), and how far circuit and model differ when the same parts are taken out of both (0: complete). p: "
        "share of circuits, itself among them, at least as near to the model: of as many edges at random, and of the "
        "same wiring through other heads."
    )
    points = [
        Series(_ablation(name), tone, (_point(result, "own_faithfulness", i), _point(result, "complement", i)))
        for i, (name, tone) in enumerate(zip(result.labels("ablation"), "abcd", strict=False))
    ]
    values = [value for one in points for point in one.points for value in (point.mean, point.low, point.high)]
    finite = [value for value in values if np.isfinite(value)]
    body = dot_rows(
        [say("the circuit"), say("all other edges")],
        points,
        axis=say("faithfulness"),
        low=min([0.0, *finite]),
        high=max([1.0, *finite]),
        key=f"{KEY}-own-p",
        title=say("The circuit and all other edges"),
        description=say("Faithfulness under every ablation, with 95% intervals over prompts."),
    )
    legend = line_legend([(one.name, one.tone) for one in points], key=f"{KEY}-own-l")
    return Figure.of(
        result, f"{KEY}-own", say("The circuit that was found"), reading, panels=(Panel("", body),), tables=(table,),
        legend=legend, open=True,
    )  # fmt: skip


def _costs(result: Result, costs: Sequence[tuple[str, str]]) -> Figure:
    """What each head and MLP, and each edge, costs under every ablation."""
    ablations = [_ablation(one) for one in result.labels("ablation")]
    values = [result.need(name, dim, "ablation").values for name, dim in costs]
    largest = max(float(np.abs(one[np.isfinite(one)]).max(initial=0.0)) for one in values)
    scale = Scale.centred(largest, units="", name=say("faithfulness lost"))
    panels, tables, notes = [], [], list[str]()
    for (name, dim), cost in zip(costs, values, strict=True):
        part = say("edge") if dim == "circuit_edge" else say("head or MLP")
        parts, ends = [path(label) for label in result.labels(dim)], _ends(result, name, dim)
        size = np.nan_to_num(np.abs(cost)).max(axis=1)
        shown = sorted(np.argsort(-size, kind="stable")[:MOST].tolist())
        if len(shown) < len(parts):
            notes.append(say("{what}: the {n} of {all} that are worth most.", what=part, n=len(shown), all=len(parts)))
        labels = [parts[i] for i in shown]
        grid = Grid(
            cost[shown], labels, ablations, part, say("ablation"), low=ends[shown][..., 0], high=ends[shown][..., 1]
        )
        drawn = heatmap(
            grid, scale, key=f"{KEY}-{name}-p", title=part, description=say("Faithfulness lost, by part and ablation."),
        )  # fmt: skip
        panels.append(Panel(part, drawn))
        rows: list[tuple[Cell, ...]] = [
            (
                parts[i],
                *(Size(float(m), float(low), float(high)) for m, (low, high) in zip(cost[i], ends[i], strict=True)),
            )
            for i in shown
        ]
        tables.append(Table(part, (Column(part), *map(Column, ablations)), tuple(rows)))
    reading = say(
        "The faithfulness that is lost when it alone is taken out and the rest of the circuit stays. 0: it was "
        "superfluous; below 0: the circuit is more faithful without it."
    )
    return Figure.of(
        result, f"{KEY}-costs", say("What each part is worth to the circuit"), " ".join([reading, *notes]),
        panels=tuple(panels), tables=tuple(tables), legend=colour_legend(scale, key=f"{KEY}-costs-l"),
    )  # fmt: skip


def _ends(result: Result, name: str, dim: str) -> np.ndarray:
    return result.need(f"{name}_interval", dim, "ablation", "ci_bound").values


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    n_edges, n_possible = (int(result.need_attr(name)) for name in ("n_edges", "n_possible"))
    facts = [
        (
            say("The circuit:"),
            say(
                "{n} of {all} edges, found by {method}.", n=n_edges, all=n_possible,
                method=result.attr("circuit_method") or "–",
            ),
        ),
        (
            say("Prompts:"),
            say("{n}, none of which the circuit was found on.", n=result.data.sizes["prompt"])
            if result.attr("found_on_sha256") != result.attr("tokens_sha256")
            else say("{n}, the same that the circuit was found on.", n=result.data.sizes["prompt"]),
        ),
        (
            say("Sizes:"),
            say("the edges with the largest scores, of either sign.")
            if result.attr("rank") == "absolute"
            else say("the edges with the highest scores."),
        ),
    ]  # fmt: skip
    drawn = int(result.need_attr("n_random"))
    if drawn:
        facts.append((say("Random circuits:"), say("{n} of each kind and size.", n=drawn)))
    return (*facts, *bounded.facts(result))


def _point(result: Result, name: str, i: int) -> Point:
    size = _size(result, name, i)
    return Point(size.mean, size.low, size.high, None)


def _size(result: Result, name: str, i: int) -> Size:
    low, high = result.need(f"{name}_interval", "ablation", "ci_bound").values[i]
    return Size(float(result.need(name, "ablation").values[i]), float(low), float(high), digits=3)


def _percent(share: float) -> str:
    return f"{100 * share:g}"
