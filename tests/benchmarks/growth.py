"""How cost grows with layers, positions and prompts: seconds beside planned operations, as a table and a plot."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import machine, ours, sweeps
from tests.benchmarks.workload import GROWTH, save_random, workload

AXES = {"layers": (4, 8, 16), "positions": (16, 32, 64), "prompts": (8, 16, 32)}
SITES = ("resid_pre", "z")
COLOURS = {"resid_pre": "#0b62a4", "z": "#c2410c"}


def measure(directory: Path, *, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """One row per site and shape: each axis grows alone, from the smallest shape."""
    base = {axis: values[0] for axis, values in AXES.items()}
    shapes = [(axis, {**base, axis: value}) for axis, values in AXES.items() for value in values[: 2 if quick else 3]]
    known: dict[tuple[int, ...], dict[str, dict[str, Any]]] = {}
    rows = []
    for axis, shape in shapes:
        key = tuple(shape.values())
        if key not in known:
            known[key] = _figures(directory, shape, repeats)
        for site in SITES:
            rows.append({"axis": axis, "value": shape[axis], "site": site, **known[key][site]})
    return rows


def _figures(directory: Path, shape: dict[str, int], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds, planned operations and rows of both sites at one shape."""
    path = directory / f"growth-{shape['layers']}"
    if not path.is_dir():
        save_random(path, {**GROWTH, "n_layer": shape["layers"]})
    work = workload("growth", path, n_prompts=shape["prompts"], length=shape["positions"])
    layers = tuple(range(shape["layers"]))
    out = {}
    for site in SITES:
        run = ours.sites(work, (site,), layers)
        seconds, rates = [], []
        for _ in range(repeats):
            rates += machine.product_rate(5)
            started = time.perf_counter()
            ours.sites(work, (site,), layers)
            seconds.append(time.perf_counter() - started)
        wall, rate, flop = machine.median(seconds), machine.median(rates), run.attributes["planned_flop"]
        out[site] = {
            "seconds": wall,
            "planned_flop": flop,
            "rows_run": run.attributes["rows_run"],
            "rows_in_all": run.attributes["rows_in_all"],
            "times_floor": sweeps.times_floor(wall, flop, rate),
        }
    return out


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table; "x" columns are relative to the smallest value of the axis."""
    out = [
        f"  {'axis':<10}{'':>5}  {'site':<10}{'seconds':>9}{'x':>7}{'operations':>12}{'x':>7}{'floor x':>9}{'rows':>12}"
    ]
    for axis in AXES:
        for site in SITES:
            own = [row for row in rows if row["axis"] == axis and row["site"] == site]
            for row in own:
                flop, first = row["planned_flop"], own[0]
                out.append(
                    f"  {axis:<10}{row['value']:>5}  {site:<10}{row['seconds']:>9.3f}"
                    f"{row['seconds'] / first['seconds']:>7.2f}{sweeps.shown(flop, '.3g'):>12}"
                    f"{sweeps.shown(flop and flop / first['planned_flop'], '.2f'):>7}"
                    f"{sweeps.shown(row['times_floor'], '.2f'):>9}{sweeps.shown(row['rows_run'], '.0f'):>12}"
                )
    return out


# ---- the plot ----

PANEL, GAP, LEFT, TOP = 250, 50, 70, 60


def svg(rows: list[dict[str, Any]]) -> str:
    """Three panels, both axes logarithmic: seconds as lines with dots, planned operations dashed, each from 1."""
    curves = _curves(rows)
    highest = max(2.0, max(y for _, _, _, points in curves for _, y in points))
    width, height = LEFT + 3 * PANEL + 2 * GAP + 20, TOP + PANEL + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="sans-serif" font-size="12">',
        "<title>How the cost of a patch sweep grows</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15">Cost of a sweep, relative to the smallest shape</text>',
    ]
    for number, (axis, values) in enumerate(AXES.items()):
        left = LEFT + number * (PANEL + GAP)

        def x(value: float, values: tuple[int, ...] = values, left: int = left) -> float:
            return left + PANEL * math.log(value / values[0]) / math.log(values[-1] / values[0])

        def y(value: float) -> float:
            return TOP + PANEL * (1 - math.log(max(value, 0.8) / 0.8) / math.log(highest * 1.1 / 0.8))

        parts.append(f'<rect x="{left}" y="{TOP}" width="{PANEL}" height="{PANEL}" fill="none" stroke="#888"/>')
        parts.append(f'<text x="{left + PANEL / 2}" y="{TOP + PANEL + 38}" text-anchor="middle">{axis}</text>')
        for value in values:
            parts.append(f'<text x="{x(value):.1f}" y="{TOP + PANEL + 18}" text-anchor="middle">{value}</text>')
        tick = 1
        while tick <= highest * 1.1:
            parts.append(
                f'<line x1="{left}" x2="{left + PANEL}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
                f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
            )
            tick *= 2
        for own_axis, site, kind, points in curves:
            if own_axis != axis:
                continue
            path = " ".join(f"{x(value):.1f},{y(ratio):.1f}" for value, ratio in points)
            dashes = "" if kind == "seconds" else ' stroke-dasharray="6 4"'
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{COLOURS[site]}" stroke-width="2"{dashes}>'
                f"<title>{site}, {kind}</title></polyline>"
            )
            if kind == "seconds":
                parts += [
                    f'<circle cx="{x(value):.1f}" cy="{y(ratio):.1f}" r="3.5" fill="{COLOURS[site]}"/>'
                    for value, ratio in points
                ]
    for number, (site, kind) in enumerate((site, kind) for site in SITES for kind in ("seconds", "planned operations")):
        left, top = LEFT + number * 215, TOP + PANEL + 68
        dashes = "" if kind == "seconds" else ' stroke-dasharray="6 4"'
        parts.append(
            f'<line x1="{left}" x2="{left + 30}" y1="{top - 4}" y2="{top - 4}" stroke="{COLOURS[site]}" '
            f'stroke-width="2"{dashes}/><text x="{left + 38}" y="{top}">{site}, {kind}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _curves(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, list[tuple[float, float]]]]:
    """Axis, site, what, and its points relative to the first."""
    out = []
    for axis in AXES:
        for site in SITES:
            own = [row for row in rows if row["axis"] == axis and row["site"] == site]
            for kind, name in (("seconds", "seconds"), ("planned operations", "planned_flop")):
                if own and all(row[name] for row in own):
                    out.append((axis, site, kind, [(row["value"], row[name] / own[0][name]) for row in own]))
    return out
