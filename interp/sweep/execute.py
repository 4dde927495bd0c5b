"""The executor: runs a plan, chunk by chunk and batch by batch, on the model's own weights."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run, sites
from interp.blocks import Blocks, at_positions
from interp.errors import InterpError
from interp.store import Journal
from interp.sweep.cells import Cells
from interp.sweep.entry import Change
from interp.sweep.plan import Entry, Plan, Rows, Sizes, find_entries, find_rows, flop, into_rides
from interp.sweep.readout import Readout
from interp.sweep.ride import Chunk, Values, ride
from interp.sweep.stored import (
    BASE_SITES,
    KNOWN_WITH_STREAM,
    NEEDED_OF_ITSELF,
    Constant,
    FromRun,
    Nothing,
    Source,
    Stored,
    trace,
    trace_both,
)
from interp.tokens import Prompts

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with rows done and rows in all."""

MEMORY_SHARE = 0.5
"""Share of free memory that a sweep may plan with."""
STORED_BYTES = 512 * 2**20
"""Activations of the unchanged runs that are kept at a time, where memory allows."""
TOKENS_PER_RIDE = {"cpu": 2048, "cuda": 2**17}
"""Tokens of a batch beyond which it gets no faster; only less fits in memory."""
SAME_RUN = 1e-3
"""How far the metric of an unchanged run may be from what a journal says: another device rounds otherwise."""
SHARE_TO_PACK = 8
"""Weights are packed where they take at most one in so many of the bytes that may be used."""
TOKENS_TO_PACK = 1024
"""Tokens per layer from which packing a weight costs less than it saves."""
RIDE_BYTES = {"cpu": 2**25, "cuda": 0}
"""Of a narrow model a batch may hold more tokens: as many as take so much memory in all its layers' steps."""


@dataclass(frozen=True)
class Sweep:
    """One sweep, stated: which run is changed, where, to what, and how it is read.

    Attributes:
        base: prompts of the run that is changed.
        site: what is changed; ``scores`` for knockouts.
        cells: every change.
        readout: how the number is read off.
        source: prompts whose activations are put in, a constant per layer (``sites``' shapes without the prompt axis),
            or None where attention is cut.
        layers_before: layers that all base prompts ran through to find a constant source, for the plan's count.
        origin: how a constant source was made of the base prompts, which says for a store what it is.
    """

    base: Prompts
    site: str
    cells: Cells
    readout: Readout
    source: Prompts | Mapping[int, Tensor] | None
    layers_before: int = 0
    origin: str = ""

    @property
    def differs(self) -> Bool[np.ndarray, "prompt position"] | None:
        """Where the tokens of the two runs differ; None where there are no two runs."""
        if not isinstance(self.source, Prompts):
            return None
        inside = np.arange(self.base.ids.shape[1]) < self.base.lengths[:, None]
        return np.asarray((self.base.ids != self.source.ids) & inside)

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer that some cell changes."""
        return tuple(sorted({part.layer for parts in self.cells.parts for part in parts}))

    def of_prompts(self, rows: Int[np.ndarray, " prompt"]) -> Sweep:
        """The same sweep over some of the prompts."""
        source = self.source.select(rows) if isinstance(self.source, Prompts) else self.source
        base, index = self.base.select(rows), torch.from_numpy(rows)
        cells = self.cells.of_prompts(rows, base.ids.shape[1])
        return replace(self, base=base, cells=cells, readout=self.readout.rows(index), source=source)


@dataclass(frozen=True)
class Done:
    """What a sweep found.

    Attributes:
        changed: [prompt, cell] the metric after each change; that of the unchanged run where a change cannot matter.
        base: [prompt] the metric of the unchanged run.
        source: [prompt] the metric of the other run; None without one.
        plan: what was computed.
    """

    changed: Float[np.ndarray, "prompt cell"]
    base: Float[np.ndarray, " prompt"]
    source: Float[np.ndarray, " prompt"] | None
    plan: Plan

    def clean_and_corrupted(self, direction: str) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """The metric of the two runs of a patch sweep by their own names."""
        assert self.source is not None
        return (self.source, self.base) if direction == "denoising" else (self.base, self.source)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device, where that can be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return run.free_memory()


def memory_to_use(device: torch.device, memory: int | None) -> int | None:
    """What was given, or the share of what is free that a sweep plans with; None where that cannot be known."""
    free = free_memory(device)
    return memory if memory is not None else None if free is None else int(MEMORY_SHARE * free)


def check_fits(needed: int, given: int | None, length: int) -> None:
    """Refuse a sweep of which not even one prompt fits.

    Raises:
        InterpError: it does not.
    """
    if given is not None and needed > given:
        raise InterpError(
            f"A sweep of one prompt of {length} tokens needs {needed / 2**20:.1f} MiB, {given / 2**20:.1f} MiB "
            "may be used. Give memory=..., free some, or use shorter prompts."
        )


@dataclass(frozen=True)
class Limits:
    """How much is held at a time.

    Attributes:
        prompts: prompts whose activations are stored.
        tokens: tokens of a batch.
        held: bytes that are held besides: the numbers of all rows, and weights in another form.
        packs: whether memory allows to hold some weights twice.
    """

    prompts: int
    tokens: int
    held: int
    packs: bool

    @classmethod
    def of(
        cls, model: HookedTransformer, blocks: Blocks, sizes: Sizes, shape: tuple[int, int], *, length: int,
        width: int, held: int, memory: int | None,
    ) -> Limits:  # fmt: skip
        """From the memory that may be used (None: half of what is free) for ``shape`` prompts and cells.

        Raises:
            InterpError: it is too little for a single row.
        """
        given = memory_to_use(model.device, memory)
        packs = bool(blocks.packable_bytes) and (given is None or SHARE_TO_PACK * blocks.packable_bytes <= given)
        held += sizes.kept_bytes(shape[0] * shape[1]) + (blocks.packable_bytes if packs else 0)
        stored, one_row = sizes.stored_bytes(length, site_width=width), sizes.batch_bytes(1, length, length)
        tracing = sizes.tracing_bytes(1, length)
        needed = held + stored + max(tracing, one_row)
        room = needed - held if given is None else given - held
        check_fits(needed, given, length)
        share = STORED_BYTES if given is None else min(STORED_BYTES, room // 2)
        prompts = max(1, share // max(stored, tracing))
        kind = model.device.type if model.device.type in TOKENS_PER_RIDE else "cpu"
        tokens = max(TOKENS_PER_RIDE[kind], RIDE_BYTES[kind] // sizes.token_bytes(length))
        if given is not None:
            # At worst every row holds a single token.
            tokens = min(tokens, max(1, (room - prompts * stored) // sizes.batch_bytes(1, 1, length)))
        return cls(int(prompts), int(tokens), held, packs)


def make_plan(
    model: HookedTransformer, blocks: Blocks, wanted: Sequence[Sweep], *, memory: int | None = None, held: int = 0
) -> list[Plan]:
    """What the sweeps will compute, known from the tokens alone; activations that turn out equal save more."""
    joint = Joint.of(wanted)
    sizes, limits = _sizes(model, blocks, joint, memory, held)
    chunks = list(chunks_of(len(joint.base), limits.prompts))
    made = []
    for chunk in chunks:
        parts = [sweep.of_prompts(chunk) for sweep in joint.run]
        rows = [joint.own(j, _rows(part, sizes.n_layers)) for j, part in enumerate(parts)]
        made.append(_Made(len(chunk), [part.cells for part in parts], _entries(parts, rows, sizes)))
    return _plans(joint, sizes, limits, made)


@dataclass(frozen=True)
class Joint:
    """Sweeps of several sites, of the same runs and readout, that are run together.

    Attributes:
        asked: the sweeps.
        run: as they are run: a stream after attention or after the MLP is the next layer's ``resid_pre``.
        copied: per sweep, [cell, 3]: a cell, and the earlier sweep and its cell that say the same.
    """

    asked: tuple[Sweep, ...]
    run: tuple[Sweep, ...]
    copied: tuple[Int[np.ndarray, "copy three"], ...]

    @classmethod
    def of(cls, asked: Sequence[Sweep]) -> Joint:
        """Sweeps that differ in site and cells only."""
        first = asked[0]
        assert all(one.base is first.base and one.source is first.source for one in asked[1:])
        as_run = tuple(_as_streams(one) for one in asked)
        repeated = {one.site for i, one in enumerate(as_run) if one.site in [other.site for other in as_run[:i]]}
        seen: dict[tuple[Any, ...], tuple[int, int]] = {}
        copied = []
        for j, one in enumerate(as_run):
            copies = []
            if one.site in repeated:
                masks = [mask.numpy().tobytes() for mask in one.cells.tokens]
                for cell, (parts, place) in enumerate(zip(one.cells.parts, one.cells.place.tolist(), strict=True)):
                    i, known = seen.setdefault((one.site, parts, masks[place]), (j, cell))
                    if i < j:
                        copies.append((cell, i, known))
            copied.append(np.array(copies, dtype=np.int64).reshape(-1, 3))
        return cls(tuple(asked), as_run, tuple(copied))

    @property
    def base(self) -> Prompts:
        """The run that is changed."""
        return self.run[0].base

    @property
    def readout(self) -> Readout:
        """How the number is read off."""
        return self.run[0].readout

    @property
    def from_run(self) -> bool:
        """Whether the changes are another run's activations."""
        return isinstance(self.run[0].source, Prompts)

    @property
    def kept(self) -> frozenset[str]:
        """Sites that are kept of the other run."""
        named = frozenset(one.site for one in self.run)
        return named | KNOWN_WITH_STREAM if self.from_run and "resid_pre" in named else named

    @property
    def n_cells(self) -> int:
        """Cells of all sweeps."""
        return sum(len(one.cells) for one in self.run)

    def own(self, j: int, rows: Rows) -> Rows:
        """The rows of a sweep that no earlier one has."""
        return rows.where(~np.isin(rows.cell, self.copied[j][:, 0])) if len(self.copied[j]) else rows


def _as_streams(wanted: Sweep) -> Sweep:
    """A sweep of ``resid_mid`` or ``resid_post`` as one of the next layer's ``resid_pre``, which it is exactly.

    The other run's stream at a token, before or after the MLP of that token alone, leads to the same next stream, which
    the other run knows. (Not where several layers are changed together: a later change would meet an earlier one.)
    """
    single = all(len(parts) == 1 for parts in wanted.cells.parts)
    if wanted.site not in ("resid_mid", "resid_post") or not isinstance(wanted.source, Prompts) or not single:
        return wanted
    parts = tuple((replace(part, layer=part.layer + 1),) for (part,) in wanted.cells.parts)
    return replace(wanted, site="resid_pre", cells=replace(wanted.cells, parts=parts))


@dataclass(frozen=True)
class _Made:
    """What was made of a chunk of prompts: its sweeps' cells, and the entries of them all."""

    n_prompts: int
    cells: Sequence[Cells]
    entries: Sequence[Entry]


def _plans(joint: Joint, sizes: Sizes, limits: Limits, made: Sequence[_Made]) -> list[Plan]:
    """One plan per sweep. What several share is counted with the first of them: chunks, both runs, a batch."""
    n, length = joint.base.ids.shape
    rides = [list(into_rides(chunk.entries, limits.tokens)) for chunk in made]
    width = _width(joint.kept, sizes, length)
    peak = limits.held + _planned_bytes(sizes, rides, max(chunk.n_prompts for chunk in made), length, width)
    shared = _runs_flop(sizes, joint.run[0])
    plans = []
    for j, (asked, sweep) in enumerate(zip(joint.asked, joint.run, strict=True)):
        mine = [[entry for entry in chunk.entries if entry.sweep == j] for chunk in made]
        made_flop = sum(
            flop(sizes, sweep.site, entries, chunk.cells[j], from_run=joint.from_run)
            for entries, chunk in zip(mine, made, strict=True)
        )
        before = sweep.layers_before / sizes.n_layers * sizes.trace(n, length)
        plans.append(
            Plan(
                site=asked.site,
                rows_in_all=n * len(sweep.cells),
                rows=sum(entry.rows for entries in mine for entry in entries),
                chunks=tuple(chunk.n_prompts for chunk in made) if j == 0 else (),
                batches=sum(min(entry.sweep for entry in batch) == j for part in rides for batch in part),
                flop=made_flop + before + (shared if j == 0 else 0.0),
                peak_bytes=peak,
                tokens_per_ride=limits.tokens,
            )
        )
    return plans


def runs_flop(blocks: Blocks, wanted: Sweep) -> float:
    """Operations of the unchanged runs alone."""
    return _runs_flop(Sizes.of(blocks, wanted.readout.metric), wanted)


def _runs_flop(sizes: Sizes, wanted: Sweep) -> float:
    runs = 2 if isinstance(wanted.source, Prompts) else 1
    return runs * sizes.trace(len(wanted.base), wanted.base.ids.shape[1])


def plan_of(
    site: str,
    shape: tuple[int, int],
    sizes: Sizes,
    limits: Limits,
    chunks: Sequence[int],
    entries: Sequence[Sequence[Entry]],
    *,
    length: int,
    width: int,
    flop: float,
) -> Plan:
    """The plan of some entries per chunk: ``shape`` is prompts and cells, ``width`` the ``site_width`` of ``Sizes``."""
    rides = tuple(tuple(into_rides(part, limits.tokens)) for part in entries)
    return Plan(
        site=site,
        rows_in_all=shape[0] * shape[1],
        rows=sum(entry.rows for part in entries for entry in part),
        chunks=tuple(chunks),
        batches=sum(len(part) for part in rides),
        flop=flop,
        peak_bytes=limits.held + _planned_bytes(sizes, rides, max(chunks), length, width),
        tokens_per_ride=limits.tokens,
    )


def _planned_bytes(
    sizes: Sizes, rides: Sequence[Sequence[Sequence[Entry]]], n_prompts: int, length: int, width: int
) -> int:
    """Bytes that a chunk of prompts takes at most: its stored activations, and the widest batch or the traces."""
    stored = n_prompts * sizes.stored_bytes(length, site_width=width)
    riding = max((_ride_bytes(sizes, batch, length) for chunk in rides for batch in chunk), default=0)
    return int(stored + max(riding, sizes.tracing_bytes(n_prompts, length)))


def _ride_bytes(sizes: Sizes, batch: Sequence[Entry], length: int) -> int:
    rows = sum(entry.rows for entry in batch)
    tokens = sum(entry.tokens for entry in batch)
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
        progress: called with rows done and rows in all.

    Raises:
        InterpError: a number that is not finite, one row that does not fit in memory, or journals of other weights.
    """
    joint = Joint.of(wanted)
    sizes, limits = _sizes(model, blocks, joint, memory, held)
    n = len(joint.base)
    outs = [np.empty((n, len(sweep.cells))) for sweep in joint.run]
    metrics = {name: np.empty(n) for name in ("base", "source")}
    meter = Meter(progress, n * joint.n_cells)
    chunks = list(chunks_of(n, limits.prompts))
    made: list[_Made] = []
    finished = (
        [Finished.of(journal, out.shape) for journal, out in zip(journals or (), outs, strict=True)] if journals else []
    )
    with torch.inference_mode():
        for chunk in chunks:
            parts = [sweep.of_prompts(chunk) for sweep in joint.run]
            base, source, numbers = _traces(model, blocks, parts[0], joint)
            metrics["base"][chunk], metrics["source"][chunk] = numbers
            rows = []
            for j, part in enumerate(parts):
                outs[j][chunk] = numbers[0][:, None]
                mine = joint.own(j, _rows(part, sizes.n_layers))
                if only is not None:
                    mine = mine.where(only[chunk[mine.prompt], mine.cell])
                if finished:
                    mine = mine.where(~finished[j].fill(outs[j], chunk, numbers)[mine.prompt, mine.cell])
                rows.append(_really_changed(part, mine, base, source))
            entries = _entries(parts, rows, sizes)
            blocks = packed(blocks, limits, entries, len(chunks))
            made.append(_Made(len(chunk), [part.cells for part in parts], entries))
            meter.add(len(chunk) * joint.n_cells - sum(len(mine) for mine in rows))
            shared = Chunk(blocks, base, parts[0].readout.positions.to(model.device))
            changes = [Change(shared, part.site, part.cells, source) for part in parts]
            values = _values_of(changes)
            for entry, scores in ride_all(shared, entries, values, parts[0].readout, limits.tokens):
                outs[entry.sweep][chunk[entry.prompt], entry.cell] = scores.numpy()
                if finished:
                    finished[entry.sweep].journal.append(entry.cell, chunk[entry.prompt], scores.numpy())
                meter.add(len(entry.cell))
            del base, source, shared, changes, values
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


@dataclass(frozen=True)
class Finished:
    """What a journal has of a sweep.

    Attributes:
        journal: the journal.
        values: [prompt, cell] the metric, NaN where it is not finished.
        runs: [prompt, 2] the metric of both unchanged runs, NaN where it is not known.
    """

    journal: Journal
    values: Float[np.ndarray, "prompt cell"]
    runs: Float[np.ndarray, "prompt two"]

    @classmethod
    def of(cls, journal: Journal, shape: tuple[int, ...]) -> Finished:
        """Read a journal of so many prompts and cells."""
        rows = journal.read()
        values, runs = np.full(shape, np.nan), np.full((shape[0], 2), np.nan)
        of_runs = rows.cell < 0
        values[rows.prompt[~of_runs], rows.cell[~of_runs]] = rows.value[~of_runs]
        runs[rows.prompt[of_runs], -1 - rows.cell[of_runs]] = rows.value[of_runs]
        return cls(journal, values, runs)

    @property
    def n_rows(self) -> int:
        """How many rows were finished when it was read."""
        return int(np.isfinite(self.values).sum())

    def fill(
        self,
        out: Float[np.ndarray, "prompt cell"],
        chunk: Int[np.ndarray, " prompt"],
        numbers: tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]],
    ) -> Bool[np.ndarray, "prompt cell"]:
        """Put the finished rows of some prompts in; which these are.

        Raises:
            InterpError: the unchanged runs gave other numbers when the journal was written.
        """
        known, now = self.runs[chunk], np.stack(numbers, axis=1)
        if (np.abs(known - now) > SAME_RUN * np.maximum(1.0, np.abs(now))).any():  # a comparison with NaN is false
            raise InterpError(
                f"{self.journal.path} was written with other weights than the model has now: its unchanged runs "
                "differ. Delete it, or give another store."
            )
        if np.isnan(known).any():
            for which in range(2):
                self.journal.append(-1 - which, chunk, now[:, which])
        has: Bool[np.ndarray, "prompt cell"] = np.isfinite(self.values[chunk])
        out[chunk] = np.where(has, self.values[chunk], out[chunk])
        return has


def _values_of(changes: Sequence[Change]) -> Values:
    """What an entry of any of the sweeps brings."""
    return lambda entry: changes[entry.sweep].values(entry)


def packed(blocks: Blocks, limits: Limits, entries: Sequence[Entry], n_chunks: int) -> Blocks:
    """The model with weights packed where so many tokens ride that it pays; what is packed stays so."""
    if not limits.packs or any(block.before_activation.packed is not None for block in blocks.layers):
        return blocks
    n_layers = len(blocks.layers)
    tokens = sum(entry.tokens * (n_layers - entry.join[0]) for entry in entries) / n_layers
    return blocks.packed(limits.tokens) if n_chunks * tokens > TOKENS_TO_PACK else blocks


def ride_all(
    chunk: Chunk, entries: Sequence[Entry], values: Values, readout: Readout, tokens: int
) -> Iterator[tuple[Entry, Float[Tensor, " row"]]]:
    """Every entry with its numbers. A batch that does not fit in memory is halved; what is finished stays finished.

    Raises:
        InterpError: a single row does not fit.
    """
    waiting = deque(into_rides(entries, tokens))
    while waiting:
        batch = waiting.popleft()
        try:
            scores = ride(chunk, batch, values, readout)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            held, rows = (sum(getattr(entry, name) for entry in batch) for name in ("tokens", "rows"))
            tokens = halved(error, held=min(tokens, held), rows=rows, device=chunk.answers.device, of="tokens")
            left = [entry for later in (batch, *waiting) for entry in later]
            waiting = deque(into_rides(left, tokens))
            continue
        yield from zip(batch, scores, strict=True)


def halved(error: Exception, *, held: int, rows: int, device: torch.device, of: str) -> int:
    """Half of what a batch held that did not fit in memory; any other error goes on its way.

    Raises:
        InterpError: the batch was a single row.
    """
    if not _out_of_memory(error):
        raise error
    if rows == 1:
        raise InterpError(
            "A sweep ran out of memory with a single row in its batch. Use shorter prompts or a smaller model."
        ) from error
    half = max(1, held // 2)
    log.warning("Out of memory with %d %s in a batch; going on with %d.", held, of, half)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return half


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error).lower()
    return "can't allocate memory" in words or "not enough memory" in words or "out of memory" in words


class Meter:
    """Counts rows, or passes, towards a total, for whoever wants to know."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def add(self, n: int) -> None:
        """Count ``n`` more that are done."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part, told as that of all."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _sizes(
    model: HookedTransformer, blocks: Blocks, joint: Joint, memory: int | None, held: int
) -> tuple[Sizes, Limits]:
    sizes = Sizes.of(blocks, joint.readout.metric)
    length = joint.base.ids.shape[1]
    width = _width(joint.kept, sizes, length)
    shape = len(joint.base), joint.n_cells
    return sizes, Limits.of(model, blocks, sizes, shape, length=length, width=width, held=held, memory=memory)


def _width(kept: Collection[str], sizes: Sizes, length: int) -> int:
    """Numbers per token and layer that are kept of the other run."""
    heads = sizes.d_q // sizes.d_head
    widths = {
        "pattern": length * heads, "scores": length * heads, "k": sizes.d_kv, "v": sizes.d_kv, "q": sizes.d_q,
        "z": sizes.d_q, "mlp_post": sizes.d_mlp,
    }  # fmt: skip
    return sum(widths.get(site, sizes.d_model) for site in kept)


def chunks_of(n: int, size: int) -> Iterator[Int[np.ndarray, " prompt"]]:
    """The numbers of ``n`` prompts, ``size`` at a time."""
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def _rows(part: Sweep, n_layers: int) -> Rows:
    return find_rows(part.cells, part.site, n_layers, answers=part.readout.positions.numpy(), differs=part.differs)


def _entries(parts: Sequence[Sweep], rows: Sequence[Rows], sizes: Sizes) -> list[Entry]:
    """The entries of all sweeps, in the order in which they join."""
    found = [
        replace(entry, sweep=j) if j else entry
        for j, (part, mine) in enumerate(zip(parts, rows, strict=True))
        for entry in find_entries(mine, part.cells, part.site, sizes, answers=part.readout.positions.numpy())
    ]
    return sorted(found, key=lambda entry: (entry.order, entry.start))


def _traces(
    model: HookedTransformer, blocks: Blocks, part: Sweep, joint: Joint
) -> tuple[Stored, Source, tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]]:
    """The unchanged run, what is put into it, and the metric of both runs (of the first twice where there is one)."""
    base_ids = run.ids_of(part.base).to(model.device)
    if isinstance(part.source, Prompts):
        source_ids = run.ids_of(part.source).to(model.device)
        changed = frozenset(sweep.site for sweep in joint.run)
        base, stored = trace_both(blocks, base_ids, source_ids, BASE_SITES | changed, joint.kept)
        return (
            base,
            FromRun(stored),
            (read_stored(blocks, base, part.readout), read_stored(blocks, stored, part.readout)),
        )
    base = trace(blocks, base_ids, BASE_SITES | ({part.site} & NEEDED_OF_ITSELF))
    unchanged = read_stored(blocks, base, part.readout)
    if part.source is None:
        return base, Nothing(), (unchanged, unchanged)
    return base, Constant(len(part.base), part.source, blocks, base.length), (unchanged, unchanged)


def read_stored(blocks: Blocks, stored: Stored, readout: Readout) -> Float[np.ndarray, " prompt"]:
    """The metric of a traced run."""
    picked = at_positions(stored["resid_pre", len(blocks.layers)], readout.positions)
    return np.asarray(readout.of_streams(blocks, picked).numpy())


def _really_changed(part: Sweep, rows: Rows, base: Stored, source: Source) -> Rows:
    """Without rows whose two activations are equal at every token and head they change."""
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
        if part.site == "pattern":
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
