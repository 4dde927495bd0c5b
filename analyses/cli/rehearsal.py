"""``interp run --dry-run``: what a run will compute, what that takes here, and what is left out. Nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses import registry
from analyses.cli import asking, execution, plans
from analyses.cli.execution import Tools, Watcher
from analyses.cli.plans import Sweeps
from analyses.cli.study import Study
from analyses.cli.terminal import aligned
from interp import capacity, tasks

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

SAMPLE = 16
"""Pairs on which the machine's rate is measured, or fewer: small batches are slower than those of a run."""
SAMPLE_FLOP = 2e10
"""Operations of that measurement at most, if two pairs take no more."""
SAMPLE_SECONDS = 2.0
"""The measurement is made again until it has taken so long: another process may have had the cores for a moment."""
PAGE_BYTES = 3 << 20
"""What a page of a bundled study takes on the disk, at most."""
WORKERS = (1, 4)
"""Numbers of GPUs that a plan is told for, unless a number of workers was asked for."""
FILLS_A_GPU = 512
"""Width of a model from which on a GPU's published peak says something of its time."""
_PER_ROW = 16
"""Bytes of a row in a result: what the metric was after the patch, and what that recovers."""


def rehearsed(
    study: Study,
    out: Path,
    *,
    tools: Tools,
    watcher: Watcher,
    device: str,
    dtype: str,
    every_prompt: bool,
    workers: int | None = None,
) -> Iterator[str]:
    """What ``execute`` would do with the same arguments, in lines of text; on so many workers, where there are any.

    The pairs are built from the tokenizer, and the plan is of the shapes that the configuration states: no weight of
    the model is read.

    Raises:
        InterpError: what the run itself would refuse of the study, its pairs and the model.
    """
    study.check_options()
    task = tasks.load(study.task)
    ladder, main = study.ladder(task)
    study.check_names(task.rung(main))
    with watcher.stage(f"build the pairs of {task.name}"):
        pairs, skipped = execution.build(study, task, ladder, tools)
    left_out = asking.check(study, pairs[main], tools.function) if main in pairs else {}
    yield f"{study.name} on {study.model}. This is a plan: nothing is run, and nothing is written."
    said = ", ".join(f"{rung} {len(found)}" for rung, found in pairs.items())
    yield f"Pairs: {said}; dropped: {sum(len(found.drops) for found in pairs.values())}."
    for rung, reason in skipped.items():
        yield f"Left out: rung {rung}, {reason}"
    for name, reason in left_out.items():
        yield f"Left out: {name}, {reason}"
    explained = main if main in pairs else list(pairs)[-1]
    with watcher.stage(f"read the shapes of {study.model}, whose own arithmetic is planned"):
        outline = tools.outline(study.model, device=device, dtype=dtype)
    model = outline.whole
    chosen = pairs[explained]
    n = len(chosen) if every_prompt else tools.affordable(study, model, chosen)
    bound = "" if n == len(chosen) else f" {n} of them, to bound the time; --n chooses the number."
    yield f"Explained, if the model does it: rung {explained}, {len(chosen)} pairs.{bound}"
    kept = execution.kept(study, out, tools=tools, watcher=watcher, model=model, pairs=pairs, main=main, n=n)
    sweeps = plans.planned(study, model, chosen.spread(n), pairs, without={*left_out, *kept})
    with watcher.stage("measure this machine"):
        rate = operations_per_second(outline.sample, chosen.spread(min(SAMPLE, len(chosen))))
    if kept:
        yield (
            f"Kept from an earlier run into {out}, if the weights are still the same: {len(kept)} of "
            f"{len(study.analyses)} analyses."
        )
    yield ""
    yield from aligned(*_table(study, sweeps, rate, left_out, kept))
    yield ""
    unplanned = any(not one.plans and one.needs != "results" for one in registry.ordered(study.analyses).values())
    whole = Sweeps.together(sweeps.values()) if sweeps else None
    yield from _in_all(model, whole, rate, unplanned=unplanned)
    if whole is None:
        return
    yield ""
    yield from _elsewhere(model, whole, rate, workers)
    others = [rung for rung in pairs if rung != explained]
    if others:
        with watcher.stage("plan the other rungs"):
            yield _instead(study, model, others, rate, pairs, tools=tools, every_prompt=every_prompt)


def _instead(
    study: Study,
    model: HookedTransformer,
    others: Sequence[str],
    rate: float,
    pairs: Mapping[str, PromptPairs],
    *,
    tools: Tools,
    every_prompt: bool,
) -> str:
    """What a run takes where the model does not do the rung that is asked about, so that another one is explained."""
    told = []
    for rung in others:
        found = pairs[rung]
        n = len(found) if every_prompt else tools.affordable(study, model, found)
        without = asking.check(study, found, tools.function)
        sweeps = Sweeps.together(plans.planned(study, model, found.spread(n), pairs, without=without).values())
        told.append(f"{rung} about {in_words(sweeps.takes(rate))} ({n} pairs)")
    return f"If the model does not do it, another rung is explained: {', '.join(told)}."


def operations_per_second(model: HookedTransformer, pairs: PromptPairs) -> float:
    """How many planned operations of a sweep this machine makes in a second: the best of a small sweep, made again.

    Args:
        model: the model, or its first layers.
        pairs: some of them are swept: as many as ``SAMPLE_FLOP`` allows.
    """
    from interp.sweeps import Patching, Where

    asked = Patching(["resid_pre"], "denoising", where=Where(layers=[0]), minimum_gap=0.0)
    allowed = int(len(pairs) * SAMPLE_FLOP / asked.plan(model, pairs).flop)
    pairs = pairs.spread(min(len(pairs), max(2, allowed)))
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < SAMPLE_SECONDS:
        started = time.perf_counter()
        asked.run(model, pairs)
        seconds.append(time.perf_counter() - started)
    return asked.plan(model, pairs).flop / min(seconds)


def _table(
    study: Study, sweeps: Mapping[str, Sweeps], rate: float, left_out: Mapping[str, str], kept: Collection[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row for each analysis, in the order in which they run."""
    rows: list[tuple[str, ...]] = []
    for name, analysis in registry.ordered(study.analyses).items():
        found = sweeps.get(name)
        if name in left_out:
            rows.append((name, "left out", "", "", "", ""))
        elif name in kept:
            rows.append((name, "kept from an earlier run", "", "", "", ""))
        elif found is None:
            rows.append((name, _OTHERS[analysis.needs], "", "", "", ""))
        else:
            rows.append(
                (
                    name,
                    f"{found.rows} of {found.rows_in_all}",
                    str(found.batches),
                    f"{found.flop:.2g}" if found.flop else "not counted",
                    mebibytes(found.peak_bytes),
                    in_words(found.takes(rate)),
                )
            )
    return ("analysis", "rows", "batches", "operations", "memory", "about"), rows


_OTHERS = {
    "ladder": "it gives no plan",
    "pairs": "it gives no plan",
    "results": "no run: joins the others' results",
}
"""What an analysis does that has no plan, by what it needs."""


def _in_all(model: HookedTransformer, found: Sweeps | None, rate: float, *, unplanned: bool) -> Iterator[str]:
    yield f"The model takes {mebibytes(model.weight_bytes)} on {model.device}."
    if found is None:
        yield "Nothing is left to compute."
        return
    on_top = "what gives no plan and " if unplanned else ""
    yield (
        f"In all: {found.rows} of {found.rows_in_all} rows, {found.flop:.2g} operations at least, "
        f"{mebibytes(found.peak_bytes)} beside the model at most, about {in_words(found.takes(rate))} at the "
        f"{rate / 1e9:.2g} billion operations a second of a small sweep here. On top come {on_top}loading the model "
        "and writing the page."
    )
    if busy := load():
        yield busy
    yield (
        f"On the disk: {mebibytes(_PER_ROW * found.rows_in_all)} for the effects, and at most "
        f"{mebibytes(PAGE_BYTES)} for the page."
    )


def _elsewhere(model: HookedTransformer, found: Sweeps, rate: float, workers: int | None) -> Iterator[str]:
    """The same work on this machine and on others, with each figure's origin."""
    from interp.run import free_memory

    work = capacity.Work(found.rows, found.flop, found.peak_bytes, model.weight_bytes, undivided=found.undivided)
    memory = free_memory() if model.device.type == "cpu" else None
    here = capacity.Device(f"here ({model.device})", rate, memory, "measured", shared=True)
    fills = model.cfg.d_model >= FILLS_A_GPU
    asked = sorted({1, workers or 1})
    bills = [capacity.bill(work, here, n) for n in asked]
    bills += [capacity.bill(work, gpu, n) for gpu in capacity.GPUS for n in (asked if workers else WORKERS) if fills]
    yield from aligned(capacity.HEADER, [capacity.row(one) for one in bills])
    yield (
        "At least: the counted operations alone, at that rate; fitting probes, for one, counts none and comes on top. "
        "Several workers divide neither the largest batch of a sweep nor its unchanged runs, which each makes again."
    )
    yield "Measured: the rate of a small sweep here. " + (
        f"Extrapolated: {capacity.UTILISATION:.0%} of the float32 peak that the maker publishes; none was measured."
        if fills
        else "A model of this width does not fill a GPU, so that no time is told for one."
    )


def load() -> str:
    """What other processes do to a measured time, where more of them want a core than there are; else nothing."""
    cores, waiting = os.cpu_count() or 1, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if waiting <= cores:
        return ""
    return f"Other work is on this machine (load {waiting:.1f}, {cores} cores): without it less time is taken."


def mebibytes(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else "under 1 MiB"


def in_words(seconds: float) -> str:
    """A time in words."""
    if seconds < 1:
        return "under 1 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
