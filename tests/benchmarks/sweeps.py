"""Our sweeps against each peer's, in turns, on the same weights and prompts, with the numbers compared."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import machine, ours
from tests.benchmarks.peers import Peer
from tests.benchmarks.workload import Workload, drawn_heads, head_edges, parse_head

LONG, FEW = 60.0, 3
"""A job that takes us longer than so many seconds is repeated so many times at most."""
TARGET = 1.5
"""Most times the floor that a sweep at GPT-2 small's shape should take."""
LARGEST_DIFFERENCE = 1e-3
"""Above this difference of the mean metric two tools have not done the same, and no ratio is printed."""
SHARE_OF_EFFECT = 0.01
"""Nor if the difference is this large beside the largest effect of any patch: equal because nothing happened."""
ROUNDING = 2e-5
"""A difference that float32 makes, whatever the effect."""


@dataclass(frozen=True)
class Part:
    """One sweep of ours, which a peer does cell by cell.

    Attributes:
        name: a site, or ``"path"``.
        cells: everything that is patched one by one.
        run: our sweep of these cells.
    """

    name: str
    cells: list[Any]
    run: Callable[[], ours.Run]

    def groups(self, unit: str) -> list[list[Any]]:
        """The cells as a peer runs them: one by one, a layer at once, or all edges out of one head at once."""
        if self.name != "path" and unit == "cell":
            return [[cell] for cell in self.cells]
        groups: dict[Any, list[Any]] = {}
        for cell in self.cells:
            key = (cell[0], cell[1].split(".")[1]) if self.name == "path" else cell[:2]
            groups.setdefault(key, []).append(cell)
        return list(groups.values())


@dataclass(frozen=True)
class Settings:
    """How much is measured: repeats, cells of a peer per job (0: all), and the seed of the sample."""

    repeats: int
    sample: int
    seed: int = 0


def site_parts(work: Workload, sites: Sequence[str], layers: tuple[int, ...]) -> list[Part]:
    """One sweep per site."""
    return [
        Part(site, work.cells(site, layers), lambda site=site: ours.sites(work, (site,), layers))  # type: ignore[misc]
        for site in sites
    ]


def path_part(work: Workload, layers: tuple[int, ...], per_layer: int | None) -> Part:
    """Edges from heads into the queries, keys and values of later heads: those that TransformerLens can patch."""
    cfg = work.model.cfg
    senders = [head for head in drawn_heads(cfg.n_layers, cfg.n_heads, per_layer) if parse_head(head)[0] in layers]
    edges = head_edges(senders, cfg.n_layers, cfg.n_heads)
    senders = list(dict.fromkeys(sender for sender, _ in edges))
    receivers = list(dict.fromkeys(receiver for _, receiver in edges))
    return Part("path", edges, lambda: ours.paths(work, senders, receivers))


def every_edge_part(work: Workload, layers: tuple[int, ...], per_layer: int | None) -> Part:
    """Every edge out of the embedding, the drawn heads and the MLPs, into every reader: ours only."""
    cfg = work.model.cfg
    heads = [head for head in drawn_heads(cfg.n_layers, cfg.n_heads, per_layer) if parse_head(head)[0] in layers]
    senders = ["embed", *heads, *(f"MLP{layer}" for layer in layers)]
    return Part("path", [], lambda: ours.paths(work, senders, None))


def measure(parts: Sequence[Part], peers: Sequence[Peer], settings: Settings) -> dict[str, Any]:
    """Run everything in turns and put the figures together.

    Every repeat measures the machine's rate, then ours, then each peer, so that a machine that slows down or speeds
    up does so for all. The first run of everyone is not counted.
    """
    started = time.perf_counter()
    references = {part.name: part.run() for part in parts}
    turns = min(settings.repeats, FEW) if time.perf_counter() - started > LONG else settings.repeats
    able = {peer.name: [part for part in parts if part.name not in peer.absent] for peer in peers}
    for peer in peers:
        if able[peer.name]:
            peer.prepare([part.name for part in able[peer.name]])
            peer.run([min(able[peer.name][0].groups(peer.unit), key=len)])
    walls: dict[str, list[float]] = {part.name: [] for part in parts}
    rates: list[float] = []
    tallies = {peer.name: Tally(peer, able[peer.name], settings) for peer in peers if able[peer.name]}
    for repeat in range(turns):
        rates += machine.product_rate()
        for part in parts:
            gc.collect()
            started = time.perf_counter()
            part.run()
            walls[part.name].append(time.perf_counter() - started)
        for tally in tallies.values():
            gc.collect()
            tally.turn(references, repeat)
    return {
        "turns": turns,
        "ours": _our_figures(parts, references, walls, machine.median(rates)),
        "peers": {name: tally.figures(walls, references) for name, tally in tallies.items()},
        "cannot": {peer.name: peer.absent for peer in peers},
    }


class Tally:
    """One peer's turns: seconds for all cells, scaled from the sampled ones, and the largest difference seen."""

    def __init__(self, peer: Peer, parts: list[Part], settings: Settings) -> None:
        self.peer = peer
        self.parts = parts
        self.settings = settings
        self.prepared: list[float] = []
        self.swept: list[float] = []
        self.sampled = 0
        self.difference = 0.0

    def turn(self, references: dict[str, ours.Run], repeat: int) -> None:
        """One repeat: the clean activations once, then the sampled cells of every part."""
        started = time.perf_counter()
        self.peer.prepare([part.name for part in self.parts])
        self.prepared.append(time.perf_counter() - started)
        swept, self.sampled = 0.0, 0
        for part in self.parts:
            groups = self._sample(part, repeat)
            started = time.perf_counter()
            values = self.peer.run(groups)
            elapsed = time.perf_counter() - started
            cells = [cell for group in groups for cell in group]
            swept += elapsed * len(part.cells) / len(cells)
            self.sampled += len(cells)
            known = references[part.name].values
            seen = [abs(value - known[cell]) for cell, value in zip(cells, values, strict=True)]
            self.difference = max(self.difference, *(math.inf if math.isnan(gap) else gap for gap in seen))
        self.swept.append(swept)

    def _sample(self, part: Part, repeat: int) -> list[list[Any]]:
        """Groups in random order until there are cells enough; at least one group."""
        groups = part.groups(self.peer.unit)
        if not self.settings.sample:
            return groups
        wanted = -(-self.settings.sample // len(self.parts))
        random.Random(f"{self.settings.seed} {repeat} {part.name}").shuffle(groups)
        chosen: list[list[Any]] = []
        for group in groups:
            if sum(map(len, chosen)) + len(group) <= wanted:
                chosen.append(group)
        return chosen or [min(groups, key=len)]

    def figures(self, walls: dict[str, list[float]], references: dict[str, ours.Run]) -> dict[str, Any]:
        """Medians, and the ratio to ours over the same sites if the numbers agree."""
        names = [part.name for part in self.parts]
        same = machine.median(_sums(walls, names))
        seconds = [a + b for a, b in zip(self.prepared, self.swept, strict=True)]
        effect = max(references[name].largest_effect for name in names)
        limit = min(LARGEST_DIFFERENCE, max(ROUNDING, SHARE_OF_EFFECT * effect))
        agrees = self.difference <= limit
        return {
            "seconds": machine.median(seconds),
            "all_seconds": seconds,
            "prepare_seconds": machine.median(self.prepared),
            "cells": sum(len(part.cells) for part in self.parts),
            "sampled": self.sampled,
            "sites": names,
            "ours_seconds": same,
            "difference": self.difference,
            "largest_effect": effect,
            "limit": limit,
            "agrees": agrees,
            "ratio": machine.median(seconds) / same if agrees else None,
        }


def _sums(walls: dict[str, list[float]], names: Sequence[str]) -> list[float]:
    """Per repeat, the seconds of all parts."""
    return [sum(turn) for turn in zip(*(walls[name] for name in names), strict=True)]


def _our_figures(
    parts: Sequence[Part], references: dict[str, ours.Run], walls: dict[str, list[float]], rate: float
) -> dict[str, Any]:
    seconds = _sums(walls, [part.name for part in parts])
    told = [references[part.name].attributes for part in parts]
    flop = None if any(one["planned_flop"] is None for one in told) else sum(one["planned_flop"] for one in told)
    peaks = [one["planned_peak_bytes"] for one in told]
    return {
        "seconds": machine.median(seconds),
        "all_seconds": seconds,
        "cells": sum(len(references[part.name].values) for part in parts),
        "rows_run": _sum(one["rows_run"] for one in told),
        "rows_in_all": _sum(one["rows_in_all"] for one in told),
        "engine": ", ".join(dict.fromkeys(one["engine"] for one in told if one["engine"])) or None,
        "planned_flop": flop,
        "planned_peak_bytes": None if None in peaks else max(peaks),
        "rate": rate,
        "times_floor": times_floor(machine.median(seconds), flop, rate),
        "largest_effect": max(references[part.name].largest_effect for part in parts),
        "sites": {
            part.name: {
                "seconds": machine.median(walls[part.name]),
                "planned_flop": one["planned_flop"],
                "times_floor": times_floor(machine.median(walls[part.name]), one["planned_flop"], rate),
            }
            for part, one in zip(parts, told, strict=True)
        },
    }


def _sum(values: Any) -> float | None:
    listed = list(values)
    return None if None in listed else sum(listed)


def times_floor(seconds: float, flop: float | None, rate: float) -> float | None:
    """Wall time over what the planned operations take at the machine's rate."""
    return None if not flop else seconds / (flop / rate)


def lines(figures: dict[str, Any], *, target: float | None, judged: bool) -> list[str]:
    """The figures as a table; the target is judged at GPT-2 small's shape."""
    mine = figures["ours"]
    rows = [
        f"  {mine['cells']} cells; medians of {figures['turns']} turns",
        f"  {'interp':<17}{mine['seconds']:10.3f} s  {_floor(mine, judged)}; "
        f"engine {mine['engine'] or 'n/a'}; {shown(mine['rows_run'], '.0f')} of {shown(mine['rows_in_all'], '.0f')} "
        f"rows run; planned peak {shown(mine['planned_peak_bytes'], '.0f', 2**20)} MiB",
    ]
    if len(mine["sites"]) > 1:
        each = (
            f"{site} {one['seconds']:.3f} s ({shown(one['times_floor'], '.2f')})" for site, one in mine["sites"].items()
        )
        rows.append(f"  {'':<17}{'':>10}    of which (times the floor): {', '.join(each)}")
    for name, one in figures["peers"].items():
        parts = [
            f"{one['ratio']:8.1f} times ours"
            if one["agrees"]
            else f"NO RATIO, numbers differ by over {one['limit']:.0e}",
            f"all {one['cells']} cells"
            if one["sampled"] == one["cells"]
            else f"sampled {one['sampled']} of {one['cells']} cells, scaled",
            f"largest difference {one['difference']:.1e} (largest effect {one['largest_effect']:.1e})",
        ]
        lacking = [f"{site} ({why})" for site, why in figures["cannot"][name].items() if site in mine["sites"]]
        if lacking:
            parts.append(f"without {', '.join(lacking)}; the rest takes ours {one['ours_seconds']:.3f} s")
        rows.append(f"  {name:<17}{one['seconds']:10.3f} s  {'; '.join(parts)}")
    return [*rows, *_fastest(figures["peers"], target)]


def _fastest(found: dict[str, dict[str, Any]], target: float | None) -> list[str]:
    """The smallest ratio among the peers as documented, beside the target, and among those that were helped."""
    documented = {name: one["ratio"] for name, one in found.items() if one["agrees"] and "helped" not in name}
    helped = {name: one["ratio"] for name, one in found.items() if one["agrees"] and "helped" in name}
    if not documented:
        return []
    name = min(documented, key=documented.__getitem__)
    line = f"  fastest peer as documented: {name}, {documented[name]:.1f} times"
    if target is not None:
        line += f" (target {target:g}: {'met' if documented[name] >= target else 'MISSED'})"
    if helped:
        line += "; " + ", ".join(f"{other} {ratio:.1f} times" for other, ratio in helped.items())
    return [line]


def _floor(mine: dict[str, Any], judged: bool) -> str:
    """Wall time beside the floor, in words."""
    flop, floor = mine["planned_flop"], mine["times_floor"]
    if floor is None:
        return "floor n/a"
    verdict = f", target {TARGET} {'met' if floor <= TARGET else 'MISSED'}" if judged else ""
    return f"{floor:.2f} times the floor ({flop:.3g} operations at {mine['rate'] / 1e9:.1f} G/s{verdict})"


def shown(value: float | None, form: str, unit: float = 1) -> str:
    """A figure, or "n/a" where there is none."""
    return "n/a" if value is None else format(value / unit, form)
