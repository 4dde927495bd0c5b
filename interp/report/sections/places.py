"""Readable and used: one row for each place, and where the two part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from interp import _depth as depth
from interp import summary
from interp.language import called, listed, say, say_stored
from interp.report import bounded
from interp.report.blocks import Details, Facts, Section
from interp.report.inputs import Result
from interp.report.tables import Cell, Column, Size, Table

COUNTS = 0.1
"""Least share of the gap that counts as used, as in the verdict."""


@dataclass(frozen=True)
class _Place:
    """One place, with the summaries of what was measured there."""

    layer: int
    role: int
    name: str
    label: str
    lost: Size
    readable: bool

    @property
    def used(self) -> bool:
        """Whether patching it loses more than counts, whatever the prompts drawn."""
        return self.lost.low > COUNTS


def section(result: Result) -> Section:
    """The table, where readable and used part, and how far DAS fits anything."""
    places = _places(result)
    facts = Facts((*_apart(places), *_fits(result, places), *bounded.facts(result)), say("In short"))
    reading = say(
        "Lost: share of the gap between clean and corrupted that is lost; 1 is the corrupted answer. Erased: what a "
        "linear probe can read is taken out (LEACE), or as many directions of shuffled words, or random ones; with "
        "nothing left neither answer is preferred, which is about half of the gap. Exchanged: the corrupted run's "
        "part in the span of the words' means, in what DAS finds, or as much along random directions (placebo). All "
        "fits are tested on prompts that they have not seen. Intervals: {interval}.",
        interval=summary.in_words(_summary(result, "decoded")),
    )
    table = Details(say("Readable and used, place by place"), (_table(result, places),), open=True, reading=reading)
    fits = Details(
        say("What DAS fits, and what of it holds for other prompts"), (_fit_table(result, places),),
        reading=say(
            "Share of pairs on which the interchange does what DAS was asked for: the other answer; the other or the "
            "same answer by a coin; the other answer in a model of shuffled weights. What is only high where it was "
            "fitted is overfit."
        ),
    )  # fmt: skip
    return Section("places", say("Readable and used"), result.said("question"), (facts, table, fits))


def _summary(result: Result, name: str, *more: str) -> xr.Dataset:
    return result.summary(name, "prompt", "layer", "role", *more)


def _size(cells: xr.Dataset, **at: object) -> Size:
    one = cells.sel({name: value for name, value in at.items() if isinstance(value, str)})
    one = one.isel({name: value for name, value in at.items() if isinstance(value, int)})
    return Size(*(float(one[part]) for part in ("mean", "low", "high")))


def _lost(cells: xr.Dataset) -> xr.Dataset:
    return summary.effect(cells, "noising")


def _places(result: Result) -> tuple[_Place, ...]:
    site, layers, roles = result.attr("site"), result.labels("layer"), result.labels("role")
    lost = _lost(_summary(result, "recovered"))
    decoded, selectivity = _summary(result, "decoded"), _summary(result, "selectivity")
    majority = float(result.need("majority"))
    found = []
    for r, role in enumerate(roles):
        for i, layer in enumerate(layers):
            at = {"layer": i, "role": r}
            readable = _size(decoded, **at).low > majority and _size(selectivity, **at).low > 0
            where = say("{role} {depth}", role=called("role", role), depth=depth.of(site, layer))
            found.append(_Place(i, r, where, depth.names(site, [layer])[0], _size(lost, **at), readable))
    return tuple(found)


def _apart(places: Sequence[_Place]) -> list[tuple[str, str]]:
    """Where what can be read is not used, and the other way round."""
    idle = [place.name for place in places if place.readable and not place.used]
    unread = [place.name for place in places if place.used and not place.readable]
    both = [place.name for place in places if place.used and place.readable]
    found = []
    if idle:
        text = say("{places}: a probe reads the word there, and patching it changes less than {share:.0%} of the gap.",
                   places=listed(idle), share=COUNTS)  # fmt: skip
        found.append((say("Readable, not used:"), text))
    if unread:
        text = say(
            "{places}: patching it changes the answer, and no probe reads the word there.", places=listed(unread)
        )
        found.append((say("Used, not readable:"), text))
    if both:
        found.append((say("Readable and used:"), say("{places}.", places=listed(both))))
    if not found:
        found.append((say("Neither:"), say("at none of these places can the word be read, and none is used.")))
    return found


def _fits(result: Result, places: Sequence[_Place]) -> list[tuple[str, str]]:
    """How far DAS fits, at the place where patching loses most."""
    known = [place for place in places if math.isfinite(place.lost.mean)]
    if not known:
        return []
    best = max(known, key=lambda place: place.lost.mean)
    agreement = _summary(result, "agreement", "fit", "part")
    at = {"layer": best.layer, "role": best.role}

    def share(fit: str, part: str) -> str:
        return f"{float(agreement['mean'].sel(fit=fit, part=part).isel(at)):.0%}"

    text = say(
        "{place}, the interchange makes the other answer on {fitted} of the pairs that it was fitted on and {others} "
        "of the others.", place=best.name, fitted=share("das", "fitted"), others=share("das", "held out"),
    )  # fmt: skip
    if np.isfinite(agreement["mean"].sel(fit="arbitrary").values).any():
        text += " " + say(
            "Arbitrary answers: {fitted} and {others} (a coin: 50%).",
            fitted=share("arbitrary", "fitted"), others=share("arbitrary", "held out"),
        )  # fmt: skip
    return [(say("DAS:"), text)]


def _table(result: Result, places: Sequence[_Place]) -> Table:
    decoded, selectivity = _summary(result, "decoded"), _summary(result, "selectivity")
    erased = _lost(_summary(result, "recovered_erasure", "eraser"))
    moved = _lost(_summary(result, "recovered_interchange", "subspace"))
    apart = _summary(result, "kl_erasure", "eraser")
    shorter = result.need("compression", "layer", "role")
    lost = say("lost")
    columns = (
        Column(say("role"), facet="role"), Column(depth.title(result.attr("site")), facet="layer"),
        Column(say("readable"), say("share")), Column(say("above its control"), say("share")),
        Column(say("patched whole"), lost),
        Column(say("erased: LEACE"), lost), Column(say("erased: shuffled words"), lost),
        Column(say("exchanged: means"), lost), Column(say("exchanged: DAS"), lost),
        Column(say("exchanged: placebo"), lost), Column(say("erased: random"), lost),
        Column(say("divergence by LEACE"), say_stored("nats")), Column(say("MDL, times shorter"), digits=2),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for place in places:
        at = {"layer": place.layer, "role": place.role}
        rows.append((
            result.labels("role")[place.role], place.label, _size(decoded, **at), _size(selectivity, **at),
            place.lost, *(_size(erased, **at, eraser=name) for name in ("leace", "shuffled")),
            *(_size(moved, **at, subspace=name) for name in ("means", "das", "placebo")),
            _size(erased, **at, eraser="random"), _size(apart, **at, eraser="leace"), float(shorter.isel(at)),
        ))  # fmt: skip
    title = say("{n} prompts, {site}", n=result.data.sizes["prompt"], site=result.attr("site"))
    return Table(title, columns, tuple(rows))


def _fit_table(result: Result, places: Sequence[_Place]) -> Table:
    agreement, ranks = _summary(result, "agreement", "fit", "part"), result.need("rank", "layer", "role")
    named = {
        "das": say("the other answer"), "arbitrary": say("arbitrary answers"), "random model": say("shuffled weights")
    }  # fmt: skip
    parts = {"fitted": say("fitted"), "held out": say("held out")}
    columns = [Column(say("role"), facet="role"), Column(depth.title(result.attr("site")), facet="layer")]
    columns += [Column(say("directions"))]
    columns += [Column(f"{name}, {part}", say("share")) for name in named.values() for part in parts.values()]
    rows: list[tuple[Cell, ...]] = []
    for place in places:
        at = {"layer": place.layer, "role": place.role}
        shares = [_size(agreement, **at, fit=fit, part=part) for fit in named for part in parts]
        rows.append((result.labels("role")[place.role], place.label, int(ranks.isel(at)), *shares))
    return Table(say("What DAS fits"), tuple(columns), tuple(rows))
