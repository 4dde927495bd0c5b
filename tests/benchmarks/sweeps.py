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

SHORT = 0.25
"""Whatever takes less than so many seconds is run again until they are over, in every turn and by everyone: the first
run after another tool's finds its weights and code out of the caches. The median of a turn's runs counts."""
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
    """What a peer does cell by cell: ``name`` is a site or ``"path"``, ``cells`` everything that is patched."""

    name: str
    cells: list[Any]

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
class Job:
    """What is measured: its parts, and our one call for some of them (those that a peer can do)."""

    parts: list[Part]
    run: Callable[[tuple[str, ...]], ours.Run]


@dataclass(frozen=True)
class Settings:
    """How much is measured: repeats, cells of a peer per job (0: all), and the seed of the sample."""

    repeats: int
    sample: int
    seed: int = 0


def site_job(work: Workload, sites: Sequence[str], layers: tuple[int, ...]) -> Job:
    """Sweeps of some sites."""
    parts = [Part(site, work.cells(site, layers)) for site in sites]
    return Job(parts, lambda names: ours.sites(work, names, layers))


def path_job(work: Workload, layers: tuple[int, ...], per_layer: int | None) -> Job:
    """Edges from heads into the queries, keys and values of later heads: those that TransformerLens can patch."""
    cfg = work.model.cfg
    senders = [head for head in drawn_heads(cfg.n_layers, cfg.n_heads, per_layer) if parse_head(head)[0] in layers]
    edges = head_edges(senders, cfg.n_layers, cfg.n_heads)
    senders = list(dict.fromkeys(sender for sender, _ in edges))
    receivers = list(dict.fromkeys(receiver for _, receiver in edges))
    return Job([Part("path", edges)], lambda _: ours.paths(work, senders, receivers))


def every_edge_job(work: Workload, layers: tuple[int, ...], per_layer: int | None) -> Job:
    """Every edge out of the embedding, the drawn heads and the MLPs, into every reader: ours only."""
    cfg = work.model.cfg
    heads = [head for head in drawn_heads(cfg.n_layers, cfg.n_heads, per_layer) if parse_head(head)[0] in layers]
    senders = ["embed", *heads, *(f"MLP{layer}" for layer in layers)]
    return Job([Part("path", [])], lambda _: ours.paths(work, senders, None))


def lasting(call: Callable[[], Any]) -> float:
    """Median seconds of a call, made until ``SHORT`` seconds are over."""
    seconds: list[float] = []
    while sum(seconds) < SHORT:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return machine.median(seconds)


def measure(job: Job, peers: Sequence[Peer], settings: Settings) -> dict[str, Any]:
    """Run everything in turns and put the figures together.

    Every repeat measures the machine's rate, then ours, then each peer, so that a machine that slows down or speeds
    up does so for all. The first run of everyone is not counted.
    """
    parts, everything = job.parts, tuple(part.name for part in job.parts)
    started = time.perf_counter()
    reference = job.run(everything)
    turns = min(settings.repeats, FEW) if time.perf_counter() - started > LONG else settings.repeats
    able = {peer.name: [part for part in parts if part.name not in peer.absent] for peer in peers}
    for peer in peers:
        if able[peer.name]:
            peer.prepare([part.name for part in able[peer.name]])
            peer.run([min(able[peer.name][0].groups(peer.unit), key=len)])
    walls: dict[tuple[str, ...], list[float]] = {everything: []}
    for possible in able.values():
        if possible:
            walls[tuple(part.name for part in possible)] = []
    rates: list[float] = []
    tallies = {peer.name: Tally(peer, able[peer.name], settings) for peer in peers if able[peer.name]}
    for repeat in range(turns):
        rates += machine.product_rate()
        for names, seconds in walls.items():
            gc.collect()
            seconds.append(lasting(lambda names=names: job.run(names)))  # type: ignore[misc]
        for tally in tallies.values():
            gc.collect()
            tally.turn(reference, repeat)
    return {
        "turns": turns,
        "ours": _our_figures(everything, reference, walls[everything], machine.median(rates)),
        "peers": {name: tally.figures(walls, reference) for name, tally in tallies.items()},
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

    def turn(self, reference: ours.Run, repeat: int) -> None:
        """One repeat: the clean activations once, then the sampled cells of every part."""
        names = [part.name for part in self.parts]
        self.prepared.append(lasting(lambda: self.peer.prepare(names)))
        swept, self.sampled = 0.0, 0
        for part in self.parts:
            groups = self._sample(part, repeat)
            values: list[float] = []

            def run(groups: list[list[Any]] = groups, values: list[float] = values) -> None:
                values[:] = self.peer.run(groups)

            elapsed = lasting(run)
            cells = [cell for group in groups for cell in group]
            swept += elapsed * len(part.cells) / len(cells)
            self.sampled += len(cells)
            known = reference.values
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

    def figures(self, walls: dict[tuple[str, ...], list[float]], reference: ours.Run) -> dict[str, Any]:
        """Medians, and the ratio to ours over the same sites if the numbers agree."""
        names = [part.name for part in self.parts]
        same = machine.median(walls[tuple(names)])
        seconds = [a + b for a, b in zip(self.prepared, self.swept, strict=True)]
        effect = reference.largest_effect
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


def _our_figures(names: Sequence[str], reference: ours.Run, seconds: list[float], rate: float) -> dict[str, Any]:
    told = reference.attributes
    return {
        "seconds": machine.median(seconds),
        "all_seconds": seconds,
        "cells": len(reference.values),
        "rows_run": told["rows_run"],
        "rows_in_all": told["rows_in_all"],
        "engine": told["engine"],
        "planned_flop": told["planned_flop"],
        "planned_peak_bytes": told["planned_peak_bytes"],
        "rate": rate,
        "times_floor": times_floor(machine.median(seconds), told["planned_flop"], rate),
        "largest_effect": reference.largest_effect,
        "sites": names,
    }


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
