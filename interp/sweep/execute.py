"""The executor: runs a plan, chunk by chunk and batch by batch, on the model's own weights."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run, sites
from interp.blocks import Blocks, at_positions
from interp.errors import InterpError
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
    """

    base: Prompts
    site: str
    cells: Cells
    readout: Readout
    source: Prompts | Mapping[int, Tensor] | None
    layers_before: int = 0

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
        if given is not None and needed > given:
            raise InterpError(
                f"A sweep of one prompt of {length} tokens needs {needed / 2**20:.1f} MiB, {given / 2**20:.1f} MiB "
                "may be used. Give memory=..., free some, or use shorter prompts."
            )
        share = STORED_BYTES if given is None else min(STORED_BYTES, room // 2)
        prompts = max(1, share // max(stored, tracing))
        kind = model.device.type if model.device.type in TOKENS_PER_RIDE else "cpu"
        tokens = max(TOKENS_PER_RIDE[kind], RIDE_BYTES[kind] // sizes.token_bytes(length))
        if given is not None:
            # At worst every row holds a single token.
            tokens = min(tokens, max(1, (room - prompts * stored) // sizes.batch_bytes(1, 1, length)))
        return cls(int(prompts), int(tokens), held, packs)


def make_plan(
    model: HookedTransformer, blocks: Blocks, wanted: Sweep, *, memory: int | None = None, held: int = 0
) -> Plan:
    """What the sweep will compute, known from the tokens alone; activations that turn out equal save more."""
    asked, wanted = wanted, _as_streams(wanted)
    sizes, limits = _sizes(model, blocks, wanted, memory, held)
    chunks = list(chunks_of(len(wanted.base), limits.prompts))
    parts = []
    for chunk in chunks:
        part = wanted.of_prompts(chunk)
        parts.append((part.cells, _entries(part, _rows(part, sizes.n_layers), sizes)))
    return replace(_plan(wanted, sizes, limits, [len(chunk) for chunk in chunks], parts), site=asked.site)


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


def _plan(
    wanted: Sweep, sizes: Sizes, limits: Limits, chunks: Sequence[int], parts: Sequence[tuple[Cells, Sequence[Entry]]]
) -> Plan:
    length = wanted.base.ids.shape[1]
    before = wanted.layers_before / sizes.n_layers * sizes.trace(len(wanted.base), length)
    return plan_of(
        wanted.site,
        (len(wanted.base), len(wanted.cells)),
        sizes,
        limits,
        chunks,
        [entries for _, entries in parts],
        length=length,
        width=_width(wanted.site, sizes, length),
        flop=sum(
            flop(sizes, wanted.site, entries, cells, from_run=isinstance(wanted.source, Prompts))
            for cells, entries in parts
        )
        + before
        + _runs_flop(sizes, wanted),
    )


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
    wanted: Sweep,
    *,
    memory: int | None = None,
    held: int = 0,
    only: Bool[np.ndarray, "prompt cell"] | None = None,
    progress: Progress | None = None,
) -> Done:
    """Run every row of a sweep (of ``only``, if given).

    Args:
        model: the model.
        blocks: its pieces, perhaps in another data type.
        wanted: the sweep.
        memory: bytes that may be used beside the model; None is half of what is free.
        held: bytes of ``blocks`` that are not the model's own.
        only: [prompt, cell] the rows to run.
        progress: called with rows done and rows in all.

    Raises:
        InterpError: a number that is not finite, or one row that does not fit in memory.
    """
    asked, wanted = wanted, _as_streams(wanted)
    sizes, limits = _sizes(model, blocks, wanted, memory, held)
    n, n_cells = len(wanted.base), len(wanted.cells)
    out = np.empty((n, n_cells))
    metrics = {name: np.empty(n) for name in ("base", "source")}
    meter = Meter(progress, n * n_cells)
    chunks = list(chunks_of(n, limits.prompts))
    done: list[tuple[Cells, Sequence[Entry]]] = []
    with torch.inference_mode():
        for chunk in chunks:
            part = wanted.of_prompts(chunk)
            base, source, numbers = _traces(model, blocks, part)
            metrics["base"][chunk], metrics["source"][chunk] = numbers
            out[chunk] = numbers[0][:, None]
            rows = _rows(part, sizes.n_layers)
            if only is not None:
                rows = rows.where(only[chunk[rows.prompt], rows.cell])
            rows = _really_changed(part, rows, base, source)
            entries = _entries(part, rows, sizes)
            blocks = packed(blocks, limits, entries, len(chunks))
            done.append((part.cells, entries))
            meter.add(len(chunk) * n_cells - len(rows))
            shared = Chunk(blocks, base, part.readout.positions.to(model.device))
            change = Change(shared, part.site, part.cells, source)
            for entry, scores in ride_all(shared, entries, change.values, part.readout, limits.tokens):
                out[chunk[entry.prompt], entry.cell] = scores.numpy()
                meter.add(len(entry.cell))
            del base, source, shared, change
    _check_finite(out, asked)
    plan = replace(_plan(wanted, sizes, limits, [len(chunk) for chunk in chunks], done), site=asked.site)
    return Done(out, metrics["base"], metrics["source"] if isinstance(wanted.source, Prompts) else None, plan)


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


def _sizes(
    model: HookedTransformer, blocks: Blocks, wanted: Sweep, memory: int | None, held: int
) -> tuple[Sizes, Limits]:
    sizes = Sizes.of(blocks, wanted.readout.metric)
    length = wanted.base.ids.shape[1]
    width = _width(wanted.site, sizes, length)
    shape = len(wanted.base), len(wanted.cells)
    return sizes, Limits.of(model, blocks, sizes, shape, length=length, width=width, held=held, memory=memory)


def _width(site: str, sizes: Sizes, length: int) -> int:
    """Numbers per token and layer that the source keeps."""
    if site in ("pattern", "scores"):
        return length * sizes.d_q // sizes.d_head
    if site == "resid_pre":
        return sizes.d_model + sizes.d_q + 2 * sizes.d_kv
    return {"k": sizes.d_kv, "v": sizes.d_kv, "q": sizes.d_q, "z": sizes.d_q, "mlp_post": sizes.d_mlp}.get(
        site, sizes.d_model
    )


def chunks_of(n: int, size: int) -> Iterator[Int[np.ndarray, " prompt"]]:
    """The numbers of ``n`` prompts, ``size`` at a time."""
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def _rows(part: Sweep, n_layers: int) -> Rows:
    return find_rows(part.cells, part.site, n_layers, answers=part.readout.positions.numpy(), differs=part.differs)


def _entries(part: Sweep, rows: Rows, sizes: Sizes) -> list[Entry]:
    return find_entries(rows, part.cells, part.site, sizes, answers=part.readout.positions.numpy())


def _traces(
    model: HookedTransformer, blocks: Blocks, part: Sweep
) -> tuple[Stored, Source, tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]]:
    """The unchanged run, what is put into it, and the metric of both runs (of the first twice where there is one)."""
    base_ids = run.ids_of(part.base).to(model.device)
    if isinstance(part.source, Prompts):
        source_ids = run.ids_of(part.source).to(model.device)
        kept = {part.site} | (KNOWN_WITH_STREAM if part.site == "resid_pre" else set())
        base, stored = trace_both(blocks, base_ids, source_ids, BASE_SITES | {part.site}, kept)
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
