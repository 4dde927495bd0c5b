"""Greedy discovery: from the whole model, edges are removed one after the other as long as that changes little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.circuits.running import CircuitRuns
from interp.sweeps import Meter, Progress

AT_ONCE = 16
"""Removals that are tried together, each on top of those before it. Most are accepted, so that few are run in vain."""


@dataclass(frozen=True)
class Pruned:
    """What greedy removal leaves.

    Attributes:
        kept: [*edges] the edges left.
        change: [prompt, *edges] what the removal of an edge changed, or would have changed, at its turn; NaN where
            there is no edge.
        whole: [prompt] the metric with all edges.
        nothing: [prompt] the metric with none.
    """

    kept: Bool[np.ndarray, "*edges"]
    change: Float[np.ndarray, "prompt ..."]
    whole: Float[np.ndarray, " prompt"]
    nothing: Float[np.ndarray, " prompt"]


def prune(
    runs: CircuitRuns,
    threshold: float,
    *,
    signed: bool,
    at_once: int = AT_ONCE,
    progress: Progress | None = None,
) -> Pruned:
    """Remove every edge whose removal moves the mean of the metric by less than a share of the gap.

    Receivers are gone through from the logits back to the first layer, and the senders of each from the last to the
    first, so that what follows a receiver is settled before its own edges are. An edge into a part that nothing reads
    any more goes without a run.

    Args:
        runs: the prompts under any circuits.
        threshold: the share of the gap between all edges and none.
        signed: whether only a growth of the metric counts (a divergence from the whole model), not its fall.
        at_once: how many removals are tried together; the outcome is the same.
        progress: True for a bar, or called with edges done and edges in all.
    """
    graph = runs.graph
    empty = np.zeros((1, *graph.possible.shape), dtype=bool)
    whole, nothing = runs.values(np.concatenate([graph.possible[None], empty]))
    least = threshold * abs(float((whole - nothing).mean()))
    order = sorted(
        map(tuple, np.argwhere(graph.possible).tolist()), key=lambda at: (at[1], at[0], at[2:]), reverse=True
    )
    change = np.full((len(whole), *graph.possible.shape), np.nan)
    kept, current, done = graph.possible.copy(), whole, 0
    meter = Meter(progress, len(order))
    while done < len(order):
        before = done
        while done < len(order) and not _is_read(runs, kept, order[done]):
            kept[order[done]] = False
            change[_in_each(order[done])] = 0.0
            done += 1
        tried = order[done : done + at_once]
        if tried:
            masks = _without(kept, tried)
            for at, mask, values in zip(tried, masks, runs.values(masks), strict=True):
                moved = values - current
                change[_in_each(at)] = moved
                done += 1
                if (moved.mean() if signed else abs(moved.mean())) >= least:
                    break
                kept, current = mask.copy(), values
        meter.add(done - before)
    return Pruned(kept, change, whole, nothing)


def _without(kept: Bool[np.ndarray, "*edges"], tried: Sequence[tuple[Any, ...]]) -> Bool[np.ndarray, "circuit ..."]:
    """The circuit without the first of some edges, without the first two, and so on."""
    masks = np.repeat(kept[None], len(tried), axis=0)
    for i, at in enumerate(tried):
        masks[i:][_in_each(at)] = False
    return masks


def _in_each(at: tuple[Any, ...]) -> tuple[Any, ...]:
    """The place of an edge in every row."""
    return slice(None), *at


def _is_read(runs: CircuitRuns, kept: Bool[np.ndarray, "*edges"], at: tuple[Any, ...]) -> bool:
    """Whether anything in the circuit reads what comes of an edge."""
    goes_on = runs.graph.writers(runs.graph.receivers[at[1]])
    return not goes_on or any(kept[runs.graph.senders.index(name)].any() for name in goes_on)
