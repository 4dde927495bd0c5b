"""The executor: runs a plan, chunk by chunk and batch by batch, on the model's own weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp import run, sites
from interp.errors import InterpError
from interp.model.arithmetic import Blocks, at_positions
from interp.prompts.tokens import Prompts
from interp.store import Journal
from interp.sweeps.cells import Cells
from interp.sweeps.exact.batch import Chunk, Values, run_batch
from interp.sweeps.exact.cache import (
    BASE_SITES,
    NEEDED_OF_ITSELF,
    Cache,
    Constant,
    FromRun,
    Nothing,
    Source,
    trace,
    trace_both,
)
from interp.sweeps.exact.change import Change
from interp.sweeps.exact.cost import Limits, halved, packed
from interp.sweeps.exact.planner import Group, Plan, Rows, Sizes, find_groups, flop, into_batches, rows_flop
from interp.sweeps.progress import Meter, Progress
from interp.sweeps.reading import Reading
from interp.sweeps.resume import Finished
from interp.sweeps.statement import Done, Joint, Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer


def make_plan(
    model: HookedTransformer, blocks: Blocks, wanted: Sequence[Sweep], *, memory: int | None = None, held: int = 0
) -> list[Plan]:
    """What the sweeps will compute, known from the tokens alone; activations that turn out equal save more."""
    joint = Joint.of(wanted)
    sizes, limits = _sizes(model, blocks, joint, memory, held)
    chunks = list(run.chunks_of(len(joint.base), limits.prompts))
    made = []
    for chunk in chunks:
        parts = [sweep.of_prompts(chunk) for sweep in joint.run]
        rows = [joint.own(j, part.rows(sizes.n_layers)) for j, part in enumerate(parts)]
        made.append(_Made(len(chunk), [part.cells for part in parts], _groups(parts, rows, sizes)))
    return _plans(joint, sizes, limits, made)


@dataclass(frozen=True)
class _Made:
    """A chunk of prompts, laid out: the cells of each sweep, and the groups of all of them."""

    n_prompts: int
    cells: Sequence[Cells]
    groups: Sequence[Group]


def _plans(joint: Joint, sizes: Sizes, limits: Limits, made: Sequence[_Made]) -> list[Plan]:
    """One plan per sweep. What several share is counted with the first of them: chunks, both runs, a batch."""
    n, length = joint.base.ids.shape
    batches = [list(into_batches(chunk.groups, limits.tokens)) for chunk in made]
    width = _width(joint.kept, sizes, length)
    peak = limits.held + planned_bytes(sizes, batches, max(chunk.n_prompts for chunk in made), length, width)
    shared = _runs_flop(sizes, joint.run[0])
    again = shared / n * sum(chunk.n_prompts for chunk, part in zip(made, batches, strict=True) if len(part) > 1)
    largest = sum(max((_batch_flop(sizes, batch) for batch in part), default=0.0) for part in batches)
    plans = []
    for j, (asked, sweep) in enumerate(zip(joint.asked, joint.run, strict=True)):
        mine = [[group for group in chunk.groups if group.sweep == j] for chunk in made]
        made_flop = sum(
            flop(sizes, sweep.site, groups, chunk.cells[j], from_run=joint.from_run)
            for groups, chunk in zip(mine, made, strict=True)
        )
        before = sweep.layers_before / sizes.n_layers * sizes.trace(n, length)
        plans.append(
            Plan(
                site=asked.site,
                rows_in_all=n * len(sweep.cells),
                rows=sum(group.rows for groups in mine for group in groups),
                chunks=tuple(chunk.n_prompts for chunk in made) if j == 0 else (),
                batches=sum(min(group.sweep for group in batch) == j for part in batches for batch in part),
                flop=made_flop + before + (shared if j == 0 else 0.0),
                undivided=shared + again + largest if j == 0 else 0.0,
                peak_bytes=peak,
                tokens_per_batch=limits.tokens,
            )
        )
    return plans


def _batch_flop(sizes: Sizes, batch: Sequence[Group]) -> float:
    return sum(rows_flop(sizes, group) for group in batch)


def runs_flop(blocks: Blocks, wanted: Sweep) -> float:
    """Operations of the unchanged runs alone."""
    return _runs_flop(Sizes.of(blocks, wanted.reading), wanted)


def _runs_flop(sizes: Sizes, wanted: Sweep) -> float:
    runs = 2 if isinstance(wanted.source, Prompts) else 1
    return runs * sizes.trace(len(wanted.base), wanted.base.ids.shape[1])


def plan_of(
    site: str,
    shape: tuple[int, int],
    sizes: Sizes,
    limits: Limits,
    chunks: Sequence[int],
    groups: Sequence[Sequence[Group]],
    *,
    length: int,
    width: int,
    flop: float,
) -> Plan:
    """The plan of some groups per chunk: ``shape`` is prompts and cells, ``width`` the ``site_width`` of ``Sizes``."""
    batches = tuple(tuple(into_batches(part, limits.tokens)) for part in groups)
    return Plan(
        site=site,
        rows_in_all=shape[0] * shape[1],
        rows=sum(group.rows for part in groups for group in part),
        chunks=tuple(chunks),
        batches=sum(len(part) for part in batches),
        flop=flop,
        peak_bytes=limits.held + planned_bytes(sizes, batches, max(chunks), length, width),
        tokens_per_batch=limits.tokens,
    )


def planned_bytes(
    sizes: Sizes, batches: Sequence[Sequence[Sequence[Group]]], n_prompts: int, length: int, width: int
) -> int:
    """Bytes that a chunk of prompts takes at most: its stored activations, and the widest batch or the traces."""
    cached = n_prompts * sizes.cache_bytes(length, site_width=width)
    widest = max((_batch_bytes(sizes, batch, length) for chunk in batches for batch in chunk), default=0)
    return int(cached + max(widest, sizes.tracing_bytes(n_prompts, length)))


def _batch_bytes(sizes: Sizes, batch: Sequence[Group], length: int) -> int:
    rows = sum(group.rows for group in batch)
    tokens = sum(group.tokens for group in batch)
    return sizes.batch_bytes(rows, tokens, length)


def execute(
    model: HookedTransformer,
    blocks: Blocks,
    wanted: Sequence[Sweep],
    *,
    memory: int | None = None,
    held: int = 0,
    only: Bool[np.ndarray, "prompt cell"] | None = None,
    journals: Sequence[Journal] | None = None,
    progress: Progress | None = None,
) -> list[Done]:
    """Run every row of some sweeps of the same runs; their rows share the traces and the batches.

    Args:
        model: the model.
        blocks: its pieces, perhaps in another data type.
        wanted: the sweeps.
        memory: bytes that may be used beside the model; None is half of what is free.
        held: bytes of ``blocks`` that are not the model's own.
        only: [prompt, cell] the rows to run, of a single sweep.
        journals: per sweep, where finished rows are kept and looked for.
        progress: True for a bar, or called with rows done and rows in all.

    Raises:
        InterpError: a number that is not finite, one row that does not fit in memory, or journals of other weights.
    """
    joint = Joint.of(wanted)
    sizes, limits = _sizes(model, blocks, joint, memory, held)
    n, length = joint.base.ids.shape
    width = _width(joint.kept, sizes, length)
    outs = [np.empty((n, len(sweep.cells))) for sweep in joint.run]
    metrics = {name: np.empty(n) for name in ("base", "source")}
    meter = Meter(progress, n * joint.n_cells)
    chunks = list(run.chunks_of(n, limits.prompts))
    made: list[_Made] = []
    finished = (
        [Finished.of(journal, out.shape) for journal, out in zip(journals, outs, strict=True)] if journals else []
    )
    with torch.inference_mode():
        for chunk in chunks:
            parts = [sweep.of_prompts(chunk) for sweep in joint.run]
            reading = parts[0].reading.with_known(model)
            base, source, numbers = _traces(
                model, blocks, replace(parts[0], reading=reading), joint.changed, joint.kept
            )
            metrics["base"][chunk], metrics["source"][chunk] = numbers
            rows = []
            for j, part in enumerate(parts):
                outs[j][chunk] = numbers[0][:, None]
                mine = joint.own(j, part.rows(sizes.n_layers))
                if only is not None:
                    mine = mine.where(only[chunk[mine.prompt], mine.cell])
                if finished:
                    mine = mine.where(~finished[j].fill(outs[j], chunk, numbers)[mine.prompt, mine.cell])
                rows.append(_really_changed(part, mine, base, source))
            groups = _groups(parts, rows, sizes)
            was_packed = blocks.is_packed
            blocks = packed(blocks, limits, groups, len(chunks))
            made.append(_Made(len(chunk), [part.cells for part in parts], groups))
            meter.add(len(chunk) * joint.n_cells - sum(len(mine) for mine in rows))
            work = _Batches(
                tuple(parts), joint.changed, joint.kept, blocks.dtype, limits.tokens, was_packed, blocks.is_packed
            )
            here = work.of_runs(blocks, reading, base, source)
            batches = list(into_batches(groups, limits.tokens))
            takes = limits.held + planned_bytes(sizes, [batches], len(chunk), length, width)
            for _, scored in model.engine.map(model, work, batches, here=here, bytes_each=takes):
                for group, scores in scored:
                    outs[group.sweep][chunk[group.prompt], group.cell] = scores
                    if finished:
                        finished[group.sweep].journal.append(group.cell, chunk[group.prompt], scores)
                    meter.add(len(group.cell))
            del base, source, here
    found = []
    of_source = metrics["source"] if joint.from_run else None
    for j, plan in enumerate(_plans(joint, sizes, limits, made)):
        for i in np.unique(joint.copied[j][:, 1]):
            cell, _, known = joint.copied[j][joint.copied[j][:, 1] == i].T
            outs[j][:, cell] = outs[i][:, known]
        _check_finite(outs[j], joint.asked[j])
        kept = finished[j].n_rows if finished else 0
        found.append(Done(outs[j], metrics["base"], of_source, replace(plan, kept=kept)))
    return found


@dataclass
class RowsOfRuns:
    """What turns a batch of rows into numbers: the unchanged runs of their prompts, and the changes.

    Attributes:
        chunk: what the rows share.
        values: the stream of a group where it joins.
        reading: how the numbers are read.
        tokens: of a batch, at most; half of it after one that did not fit in memory.
    """

    chunk: Chunk
    values: Values
    reading: Reading
    tokens: int

    @torch.inference_mode()
    def scores(self, batch: Sequence[Group]) -> list[tuple[Group, Float[np.ndarray, " row"]]]:
        """Every group with its numbers. A batch that does not fit in memory is halved; what is finished stays so.

        Raises:
            InterpError: a single row does not fit.
        """
        waiting = deque([tuple(batch)] if sum(map(_held, batch)) <= self.tokens else into_batches(batch, self.tokens))
        found: list[tuple[Group, np.ndarray]] = []
        while waiting:
            part = waiting.popleft()
            try:
                scores = run_batch(self.chunk, part, self.values, self.reading)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                held, rows = sum(map(_held, part)), sum(group.rows for group in part)
                self.tokens = halved(
                    error, held=min(self.tokens, held), rows=rows, device=self.chunk.answers.device, of="tokens"
                )
                left = [group for later in (part, *waiting) for group in later]
                waiting = deque(into_batches(left, self.tokens))
                continue
            found += [(group, own.numpy()) for group, own in zip(part, scores, strict=True)]
        return found


@dataclass(frozen=True)
class _Batches:
    """The batches of some prompts of sweeps, as work (``interp.engines``).

    Attributes:
        parts: the sweeps, of these prompts.
        changed: the sites that they change.
        kept: the sites that are kept of the other run.
        dtype: of the products.
        tokens: of a batch.
        traced_packed: whether the unchanged runs are made with packed weights.
        packed: whether the rows are.
    """

    parts: tuple[Sweep, ...]
    changed: frozenset[str]
    kept: frozenset[str]
    dtype: torch.dtype
    tokens: int
    traced_packed: bool
    packed: bool

    def ready(self, model: HookedTransformer) -> RowsOfRuns:
        """Run the prompts unchanged."""
        first = self.parts[0]
        blocks = own_blocks(model, first.reading, self.dtype)
        blocks = blocks.pack(self.tokens) if self.traced_packed else blocks
        with torch.inference_mode():
            reading = first.reading.with_known(model)
            base, source, _ = _traces(model, blocks, replace(first, reading=reading), self.changed, self.kept)
            blocks = blocks.pack(self.tokens) if self.packed and not self.traced_packed else blocks
            return self.of_runs(blocks, reading, base, source)

    def of_runs(self, blocks: Blocks, reading: Reading, base: Cache, source: Source) -> RowsOfRuns:
        """The same of unchanged runs that are there."""
        shared = Chunk(blocks, base, reading.positions.to(blocks.token.device))
        changes = [Change(shared, part.site, part.cells, source, reading.inside) for part in self.parts]
        return RowsOfRuns(shared, lambda group: changes[group.sweep].values(group), reading, self.tokens)

    def do(self, ready: RowsOfRuns, piece: Sequence[Group]) -> list[tuple[Group, Float[np.ndarray, " row"]]]:
        """One batch."""
        return ready.scores(piece)


def own_blocks(model: HookedTransformer, reading: Reading, dtype: torch.dtype) -> Blocks:
    """The part of a model's arithmetic that leads to what is read, its products in this data type."""
    blocks, reason = model.own_blocks()
    assert blocks is not None, reason
    blocks = reading.up_to(blocks)
    return blocks if blocks.dtype == dtype else blocks.cast(dtype)


def _held(group: Group) -> int:
    return group.tokens


def _sizes(
    model: HookedTransformer, blocks: Blocks, joint: Joint, memory: int | None, held: int
) -> tuple[Sizes, Limits]:
    sizes = Sizes.of(blocks, joint.reading)
    length = joint.base.ids.shape[1]
    width = _width(joint.kept, sizes, length)
    shape = len(joint.base), joint.n_cells
    return sizes, Limits.of(model, blocks, sizes, shape, length=length, width=width, held=held, memory=memory)


def _width(kept: Collection[str], sizes: Sizes, length: int) -> int:
    """Numbers per token and layer that are kept of the other run."""
    return sum(sites.site(site).width(sizes.axes, length) for site in kept)


def _groups(parts: Sequence[Sweep], rows: Sequence[Rows], sizes: Sizes) -> list[Group]:
    """The groups of all sweeps, in the order in which they join."""
    found = [
        replace(group, sweep=j) if j else group
        for j, (part, mine) in enumerate(zip(parts, rows, strict=True))
        for group in find_groups(mine, part.cells, part.site, sizes, answers=part.reading.positions.numpy())
    ]
    return sorted(found, key=lambda group: (group.order, group.start))


def _traces(
    model: HookedTransformer, blocks: Blocks, part: Sweep, changed: frozenset[str], kept: frozenset[str]
) -> tuple[Cache, Source, tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]]:
    """The unchanged run, what is put into it, and the metric of both runs (of the first twice where there is one)."""
    base_ids = run.ids_of(part.base).to(model.device)
    if isinstance(part.source, Prompts):
        source_ids = run.ids_of(part.source).to(model.device)
        base, cache = trace_both(blocks, base_ids, source_ids, BASE_SITES | changed, kept, read=part.reading.inside)
        return (
            base,
            FromRun(cache),
            (read_cache(blocks, base, part.reading), read_cache(blocks, cache, part.reading)),
        )
    base = trace(blocks, base_ids, BASE_SITES | ({part.site} & NEEDED_OF_ITSELF), read=part.reading.inside)
    unchanged = read_cache(blocks, base, part.reading)
    if part.source is None:
        return base, Nothing(), (unchanged, unchanged)
    return base, Constant(len(part.base), part.source, blocks, base.length), (unchanged, unchanged)


def read_cache(blocks: Blocks, cache: Cache, reading: Reading) -> Float[np.ndarray, " prompt"]:
    """The metric of a traced run."""
    place = reading.inside
    if place is None:
        return np.asarray(
            reading.of_streams(blocks, at_positions(cache["resid_pre", len(blocks.layers)], reading.positions)).numpy()
        )
    assert cache.read is not None
    return np.asarray(reading(place.of(at_positions(cache.read, reading.positions))).numpy())


def _really_changed(part: Sweep, rows: Rows, base: Cache, source: Source) -> Rows:
    """The rows, without those whose two activations are equal at every token and head that they change."""
    if not isinstance(source, FromRun):
        return rows
    keep = np.ones(len(rows), dtype=bool)
    has_heads = sites.site(part.site).has_heads
    single = np.array([parts[0].layer if len(parts) == 1 else -1 for parts in part.cells.parts])
    masks = part.cells.tokens.numpy()
    for layer in part.layers:
        chosen = np.flatnonzero(single[rows.cell] == layer)
        if not len(chosen):
            continue
        differs = (base[part.site, layer] != source.at(part.site, layer)).any(dim=-1)
        if sites.site(part.site).is_pattern:
            differs = differs.transpose(1, 2)  # prompt position head
        table = differs.cpu().numpy()
        cell, prompt = rows.cell[chosen], rows.prompt[chosen]
        hit = masks[part.cells.place[cell], prompt]
        if not has_heads:
            keep[chosen] = (hit & table[prompt]).any(axis=1)
            continue
        units = np.zeros((len(part.cells), table.shape[2]), dtype=bool)
        for c in set(cell.tolist()):
            chosen_units = part.cells.parts[c][0].units
            units[c, slice(None) if chosen_units is None else list(chosen_units)] = True
        for start in range(0, len(chosen), 4096):
            span = slice(start, start + 4096)
            seen = hit[span, :, None] & table[prompt[span]] & units[cell[span], None, :]
            keep[chosen[span]] = seen.any(axis=(1, 2))
    return rows.where(keep)


def _check_finite(out: Float[np.ndarray, "prompt cell"], wanted: Sweep) -> None:
    bad = ~np.isfinite(out)
    if bad.any():
        prompt, cell = np.argwhere(bad)[0]
        raise InterpError(
            f"The metric is not finite for prompt {prompt} after changing {wanted.site} "
            f"({wanted.cells.parts[cell]}). Use a model in float32 and check the prompts."
        )
