"""What carries it: heads at the target, paths between the leading ones, and the stream on the way, within a time.

What matters most is patched first: the heads that write most along the target's difference, with two other words. How
many more heads and words follow is planned from the time that this took. Each step gives an answer that stands.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.explaining.clock import Clock, LateError, watched
from interp import readouts, results, summary
from interp.prompts import PromptPairs
from interp.prompts.swaps import SOURCE, TARGET
from interp.results import Variable
from interp.sites import head_label
from interp.sweeps import Direction, Patching, Where, path_patching, plan, sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.readouts import Readout
    from interp.sweeps import Progress

DIRECTIONS: tuple[Direction, ...] = ("denoising", "noising")
FIRST_WORDS, FIRST_HEADS = 2, 32
"""So many other words, and so many heads, are patched before the first answer, where time is short."""
SHORT, FEWEST_HEADS = 0.5, 4
"""Where this share of the time is spent before any head is patched, one word and so few heads are patched first."""
TOGETHER = 4
"""Further words are patched so many at a time."""
LEADING = 4
"""Between so many heads, the leading ones, paths are patched."""
FOR_HEADS, FOR_MORE_HEADS = 0.6, 0.4
"""Shares of the time: what heads may take in all, and what the first words may take for heads beyond the first."""


@dataclass(frozen=True)
class Carried:
    """What was patched so far: ``Explanation`` says what is in each; ``last`` where nothing comes after it."""

    heads: xr.Dataset
    paths: xr.Dataset | None = None
    route: xr.Dataset | None = None
    last: bool = False


def head_effects(heads: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """How far the output of each head that was patched is sufficient and needed there: over ``cell``, most first."""
    whole = summary.of(heads, "recovered").isel(role=0)
    enough, needed = (
        summary.effect(whole.sel(direction=direction), direction).stack(cell=("layer", "head"), create_index=False)
        for direction in DIRECTIONS
    )
    order = np.argsort(-enough["mean"].values)  # NaN, which is last, stands for a head that there was no time for
    order = order[: np.isfinite(enough["mean"].values).sum()]
    layers, numbers = (enough[name].values.tolist() for name in ("layer", "head"))
    names = [head_label(int(layer), int(head)) for layer, head in zip(layers, numbers, strict=True)]
    enough, needed = (part.assign_coords(cell=names).isel(cell=order) for part in (enough, needed))
    return enough, needed


def carried(
    model: HookedTransformer,
    pairs: PromptPairs,
    written: Float[np.ndarray, "layer head"],
    clock: Clock,
    progress: Progress | None = None,
) -> Iterator[Carried]:
    """Patch, from what matters most to what matters least; each answer replaces the one before.

    Args:
        model: the model.
        pairs: the sentence and its counterfactuals.
        written: how much each head writes along the target's difference, by which they are ordered.
        clock: of the whole explanation.
        progress: told of each sweep.
    """
    found = _Heads(model, pairs, progress)
    cells = [(int(i) // written.shape[1], int(i) % written.shape[1]) for i in np.argsort(-np.abs(written), axis=None)]
    if clock.seconds is None:
        found.patch(len(pairs), cells)
        so_far = Carried(found.dataset())
        yield so_far
    else:
        for so_far in _within(found, cells, clock):
            yield so_far
    if found.seconds < clock.left():
        with suppress(LateError):
            paths = _paths(model, pairs.select(range(found.done)), so_far.heads, watched(clock, progress))
            so_far = replace(so_far, paths=paths)
        yield so_far
    words = _words_for_route(model, pairs, found, clock)
    if words:
        with suppress(LateError):
            so_far = replace(so_far, route=_route(model, pairs.select(range(words)), watched(clock, progress)))
    elif clock.seconds is not None:
        for heads in _further(found, cells, clock, 1.0, 1.0):
            so_far = replace(so_far, heads=heads)
            yield so_far
    yield replace(so_far, last=True)


def _within(found: _Heads, cells: Sequence[tuple[int, int]], clock: Clock) -> Iterator[Carried]:
    """Heads, first the leading ones with few words, then more heads, then more words, as time allows."""
    late = clock.left(SHORT) < 0
    words, first = (
        min(1 if late else FIRST_WORDS, len(found.pairs)),
        min(FEWEST_HEADS if late else FIRST_HEADS, len(cells)),
    )
    found.patch(words, cells[:first])
    yield Carried(found.dataset())
    for heads in _further(found, cells, clock, FOR_MORE_HEADS, FOR_HEADS):
        yield Carried(heads)


def _further(
    found: _Heads, cells: Sequence[tuple[int, int]], clock: Clock, for_heads: float, for_words: float
) -> Iterator[xr.Dataset]:
    """More heads with the words that are done, then more words, until these shares of the time are spent."""
    per_head = found.seconds * found.done / len(found.cells)
    more = int(max(0.0, min(clock.left(for_heads) / per_head, len(cells) - len(found.cells))))
    with suppress(LateError):
        if more:
            found.patch_more(cells[len(found.cells) : len(found.cells) + more], clock)
            yield found.dataset()
        while found.done < len(found.pairs):
            fit = min(clock.left(for_words) / max(found.seconds, 1e-9), TOGETHER, len(found.pairs) - found.done)
            if fit < 1:
                return
            found.patch(found.done + int(fit), found.cells, clock)
            yield found.dataset()


def _there(model: HookedTransformer) -> Readout:
    """The share of the target's own difference after the last layer that is there."""
    return readouts.projection(model.cfg.n_layers - 1, TARGET, site="resid_post")


class _Heads:
    """Patches of one head's output at the target, filled step by step.

    Attributes:
        done: so many of the words are patched.
        cells: of these heads.
        seconds: what one word takes.
    """

    def __init__(self, model: HookedTransformer, pairs: PromptPairs, progress: Progress | None) -> None:
        self.model, self.pairs, self.progress = model, pairs, progress
        shape = len(pairs), len(DIRECTIONS), model.cfg.n_layers, model.cfg.n_heads, 1
        self.patched = np.full(shape, np.nan)
        self.ends = np.full((2, len(pairs)), np.nan)
        self.attrs: dict[Any, Any] = {}
        self.done, self.seconds = 0, 0.0
        self.cells: list[tuple[int, int]] = []

    def patch(self, words: int, cells: Sequence[tuple[int, int]], clock: Clock | None = None) -> None:
        """These heads, with the next words up to ``words``; given up where this clock's time is over."""
        rows = np.arange(self.done, words)
        self.seconds = self._run(rows, cells, clock) / len(rows)
        self.cells, self.done = list(cells), words

    def patch_more(self, cells: Sequence[tuple[int, int]], clock: Clock) -> None:
        """Further heads, with the words that are done; given up where the time is over."""
        self.seconds += self._run(np.arange(self.done), cells, clock) / self.done
        self.cells += cells

    def _run(self, rows: np.ndarray, cells: Sequence[tuple[int, int]], clock: Clock | None) -> float:
        started = time.monotonic()
        progress = self.progress if clock is None else watched(clock, self.progress)
        patched = self.patched.copy()
        part = self.pairs.select(rows)
        every = len(cells) == self.patched.shape[2] * self.patched.shape[3]
        sets = None if every else {head_label(*cell): [cell] for cell in cells}
        for slot, direction in enumerate(DIRECTIONS):
            found = sweep(
                self.model, part, "z", direction, _there(self.model), roles=[TARGET], sets=sets, progress=progress
            )
            if every:
                patched[rows, slot] = found["patched"].transpose("prompt", "layer", "head", "role").values
            else:
                values = found["patched"].transpose("prompt", "set", "role").values
                for i, (layer, head) in enumerate(cells):
                    patched[rows, slot, layer, head] = values[:, i]
            self.ends[:, rows] = found["clean"].values, found["corrupted"].values
            self.attrs = found.attrs
        self.patched = patched  # both directions, or none
        return time.monotonic() - started

    def dataset(self) -> xr.Dataset:
        """What is patched so far."""
        patched, (clean, corrupted) = self.patched[: self.done], self.ends[:, : self.done]
        gap = float(self.attrs["minimum_gap"])
        recovered = readouts.recovered(*(torch.tensor(part) for part in (patched, clean, corrupted)), minimum_gap=gap)
        dims = ("prompt", "direction", "layer", "head", "role")
        name = str(self.attrs["metric"])
        return results.build(
            {
                "patched": Variable(dims, patched, "fraction", f"{name} after the patch"),
                "clean": Variable(("prompt",), clean, "fraction", f"{name} of the clean run"),
                "corrupted": Variable(("prompt",), corrupted, "fraction", f"{name} of the corrupted run"),
                "recovered": Variable(
                    dims, recovered.numpy(), "fraction", "(patched - corrupted) / (clean - corrupted)"
                ),
            },
            coords={
                "direction": list(DIRECTIONS),
                "layer": np.arange(patched.shape[2]),
                "head": np.arange(patched.shape[3]),
                "role": [TARGET],
            },
            title="Heads at the target",
            question="Which heads write at the target what differs there when the source is another word?",
            reading=str(self.attrs["reading"]),
            source=str(self.attrs["source"]),
            of=(self.model, self.pairs.select(range(self.done))),
            seed=0,
            extra={"metric": name, "minimum_gap": gap, "engine": str(self.attrs["engine"])},
        )


# ---- paths and the route ----


def leading(heads: xr.Dataset) -> list[tuple[int, int]]:
    """(layer, head) of the heads that are sufficient for most of it, and needed for some; the earliest first."""
    whole = summary.of(heads, "recovered").isel(role=0)
    enough, needed = (
        summary.effect(whole.sel(direction=direction), direction)["mean"].transpose("layer", "head").values
        for direction in DIRECTIONS
    )
    order = np.argsort(-np.nan_to_num(enough, nan=-np.inf), axis=None)
    cells = [(int(i) // enough.shape[1], int(i) % enough.shape[1]) for i in order]
    return sorted([cell for cell in cells if enough[cell] > 0 and needed[cell] > 0][:LEADING])


def _paths(
    model: HookedTransformer, pairs: PromptPairs, heads: xr.Dataset, progress: Progress | None
) -> xr.Dataset | None:
    """From the source's own token into the leading heads, between them, and from them to the target's stream."""
    cells = leading(heads)
    if model.blocks is None or not cells:
        return None
    group = model.cfg.n_heads // model.cfg.n_kv_heads
    receivers = []
    for layer, head in cells:
        shared = f"L{layer}KV{head // group}" if group > 1 else head_label(layer, head)
        receivers += [f"{head_label(layer, head)}.q", f"{shared}.k", f"{shared}.v"]
    end = f"L{model.cfg.n_layers - 1}.resid_post"
    parts = [
        path_patching(
            model, pairs, direction=direction, metric=_there(model), progress=progress,
            senders=["embed", *(head_label(*cell) for cell in cells)], receivers=[*dict.fromkeys(receivers), end],
        )
        for direction in DIRECTIONS
    ]  # fmt: skip
    found = xr.concat(
        [part[["patched", "recovered"]] for part in parts],
        xr.Variable("direction", list(DIRECTIONS)),
        data_vars="all", coords="minimal", compat="override", combine_attrs="drop_conflicts",
    ).assign(parts[0][["clean", "corrupted"]])  # fmt: skip
    return found.transpose("prompt", "direction", "sender", "receiver").assign_attrs(
        created_at=parts[0].attrs["created_at"],
        heads_per_kv_head=group,
        title="Paths between the leading heads",
        question="By which paths does it go from the source through the leading heads to the target's stream?",
    )


def _between(pairs: PromptPairs) -> list[int]:
    """The positions from the source to the target."""
    return list(range(int(pairs.clean.spans(SOURCE)[0, 0]), int(pairs.clean.spans(TARGET)[0, 1])))


def asked_of_heads(direction: Direction, model: HookedTransformer) -> Patching:
    """The sweep of every head's output at the target, as a statement."""
    return Patching("z", direction, _there(model), where=Where(roles=[TARGET]))


def asked_of_route(model: HookedTransformer, pairs: PromptPairs) -> Patching:
    """The sweep of the stream on the way, as a statement."""
    return Patching("resid_pre", "denoising", _there(model), where=Where(positions=_between(pairs)))


def _words_for_route(model: HookedTransformer, pairs: PromptPairs, found: _Heads, clock: Clock) -> int:
    """With how many words the stream on the way can be patched in the time that is left, by operations per word."""
    if clock.seconds is None:
        return len(pairs)
    one = pairs.select([0])
    flop = [plan(model, one, asked).flop for asked in (asked_of_route(model, one), asked_of_heads("denoising", model))]
    share = len(found.cells) / (model.cfg.n_layers * model.cfg.n_heads)
    per_word = found.seconds * flop[0] / max(len(DIRECTIONS) * flop[1] * share, 1.0)
    return int(max(0.0, min(clock.left() / max(per_word, 1e-9), found.done)))


def _route(model: HookedTransformer, pairs: PromptPairs, progress: Progress | None) -> xr.Dataset:
    """The stream on the way from the source to the target: what restores the target's own difference."""
    found = sweep(model, pairs, "resid_pre", "denoising", _there(model), positions=_between(pairs), progress=progress)
    return found.assign_attrs(
        title="The route",
        question="Where on the way from the source to the target does the stream hold what arrives?",
    )
