"""The same sweeps through TransformerLens hooks, for what cannot run on the model's own weights.

That is an architecture that is not in ``interp.model.families``, or a site that the arithmetic does not show.

It is still less work than a plain loop. A row resumes at its first changed layer, from the stored stream. Rows share
batches, and rows that cannot matter are skipped. Only scored positions are unembedded. But the tokens before a change
are run again, which a sweep on the model's own weights avoids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run, sites
from interp.model.arithmetic import at_positions
from interp.prompts.tokens import Prompts
from interp.store import Journal
from interp.sweeps.cells import Cells
from interp.sweeps.exact.cost import CACHE_BYTES, check_fits, halved, memory_to_use
from interp.sweeps.exact.planner import Plan, Rows, Sizes
from interp.sweeps.progress import Meter, Progress, listener, shifted
from interp.sweeps.reading import Reading
from interp.sweeps.resume import Finished
from interp.sweeps.statement import Done, Sweep

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer


def execute(
    model: HookedTransformer,
    wanted: Sweep,
    reason: str,
    *,
    memory: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Done:
    """Run every row of a sweep; ``reason`` says why through hooks.

    Raises:
        InterpError: a site that the architecture does not let anyone change, or one row that does not fit in memory.
    """
    model.check_editable(wanted.site)
    limits = _Limits.of(model, wanted, memory)
    n, n_cells = len(wanted.base), len(wanted.cells)
    out = np.empty((n, n_cells))
    base, source = np.empty(n), np.empty(n)
    meter = Meter(progress, n * n_cells)
    finished = None if journal is None else Finished.of(journal, out.shape)
    n_batches = 0
    run_rows = []
    for chunk in run.chunks_of(n, limits.prompts):
        part = wanted.of_prompts(chunk)
        part = replace(part, reading=part.reading.with_known(model))
        base[chunk] = _plain(model, part.base, part.reading)
        if isinstance(part.source, Prompts):
            source[chunk] = _plain(model, part.source, part.reading)
        out[chunk] = base[chunk, None]
        rows = part.rows(model.cfg.n_layers)
        if finished is not None:
            numbers = base[chunk], source[chunk] if isinstance(part.source, Prompts) else base[chunk]
            rows = rows.where(~finished.fill(out, chunk, numbers)[rows.prompt, rows.cell])
        run_rows.append(rows)
        meter.add(len(chunk) * n_cells - len(rows))
        if not len(rows):
            continue
        pieces = list(_pieces(part, rows, limits.rows))
        work = _Resumed(part, *_layers(part, rows))
        for piece, scored in model.engine.map(model, work, pieces, bytes_each=limits.peak_bytes):
            scores = np.concatenate(scored)
            out[chunk[piece.prompt], piece.cell] = scores
            if journal is not None:
                journal.append(piece.cell, chunk[piece.prompt], scores)
            meter.add(len(scores))
            n_batches += len(scored)
    kept = 0 if finished is None else finished.n_rows
    plan = replace(_plan(model, wanted, reason, limits, run_rows), batches=n_batches, kept=kept)
    return Done(out, base, source if isinstance(wanted.source, Prompts) else None, plan)


def execute_all(
    model: HookedTransformer,
    wanted: Sequence[Sweep],
    reason: str,
    *,
    memory: int | None = None,
    journals: Sequence[Journal] | None = None,
    progress: Progress | None = None,
) -> list[Done]:
    """Run some sweeps one after the other."""
    rows, heard = [len(one.base) * len(one.cells) for one in wanted], listener(progress)
    return [
        execute(
            model,
            one,
            reason,
            memory=memory,
            journal=journals[i] if journals else None,
            progress=shifted(heard, sum(rows[:i]), sum(rows)),
        )
        for i, one in enumerate(wanted)
    ]


def make_plan(model: HookedTransformer, wanted: Sweep, reason: str, *, memory: int | None = None) -> Plan:
    """What the sweep will compute, known from the tokens alone."""
    limits = _Limits.of(model, wanted, memory)
    rows = [
        wanted.of_prompts(chunk).rows(model.cfg.n_layers) for chunk in run.chunks_of(len(wanted.base), limits.prompts)
    ]
    return _plan(model, wanted, reason, limits, rows)


@dataclass(frozen=True)
class _Limits:
    """How much is held at a time.

    Attributes:
        prompts: prompts whose activations are stored.
        rows: rows of a batch.
        peak_bytes: what that takes beside the model, from above.
    """

    prompts: int
    rows: int
    peak_bytes: int

    @classmethod
    def of(cls, model: HookedTransformer, wanted: Sweep, memory: int | None) -> _Limits:
        """From the memory that may be used (None: half of what is free).

        Raises:
            InterpError: it is too little for a single row.
        """
        length = wanted.base.ids.shape[1]
        given = memory_to_use(model.device, memory)
        row = _row_bytes(model, wanted, length)
        cached = _cache_bytes(model, wanted, length)
        kept = Sizes.kept_bytes(len(wanted.base) * len(wanted.cells))
        needed = kept + cached + row
        check_fits(needed, given, length)
        most = run.rows_per_batch(model, length)
        room = (CACHE_BYTES + most * row) if given is None else given - kept
        prompts = int(min(len(wanted.base), max(1, min(CACHE_BYTES, room // 2) // (cached + row))))
        rows = int(max(1, min(most, (room - prompts * cached) // row)))
        passed = min(prompts, most)  # rows of a plain pass
        return cls(prompts, rows, int(kept + prompts * cached + max(rows, passed) * row))


def _row_bytes(model: HookedTransformer, wanted: Sweep, length: int) -> int:
    """What one row holds while it runs: a layer's activations, what replaces them, and its logits."""
    cfg, size = model.cfg, model.dtype.itemsize
    pattern = 4 * cfg.n_heads * length
    layer = 10 * cfg.d_model + 3 * cfg.d_mlp + pattern
    return size * (
        length * (layer + 2 * _width(model, wanted, length)) + 4 * wanted.reading.positions.shape[1] * cfg.vocab_out
    )


def _cache_bytes(model: HookedTransformer, wanted: Sweep, length: int) -> int:
    """What one prompt keeps: the streams that rows resume from, what every changed layer becomes, the clean logits.

    Activations twice, since the activations of all batches are joined to one tensor.
    """
    entered = {parts[0].layer for parts in wanted.cells.parts}
    numbers = len(entered) * model.cfg.d_model + len(wanted.layers) * _width(model, wanted, length)
    known = wanted.reading.known_bytes(model.cfg.vocab_out, model.cfg.sizes)
    return 2 * model.dtype.itemsize * length * numbers + known


def _layers(wanted: Sweep, rows: Rows) -> tuple[list[int], list[int]]:
    """Layers at which rows resume, and those that they change."""
    parts = [wanted.cells.parts[cell] for cell in np.unique(rows.cell)]
    return sorted({own[0].layer for own in parts}), sorted({part.layer for own in parts for part in own})


def _width(model: HookedTransformer, wanted: Sweep, length: int) -> int:
    """Numbers per token of the site."""
    return sites.site(wanted.site).width(model.cfg.sizes, length)


def _plan(model: HookedTransformer, wanted: Sweep, reason: str, limits: _Limits, run_rows: Sequence[Rows]) -> Plan:
    """The plan of these rows, per chunk of prompts."""
    n, length = wanted.base.ids.shape
    chunks = list(run.chunks_of(n, limits.prompts))
    n_batches = 0
    layer, read = _flop(model, wanted, length)
    place = wanted.reading.readout.place
    n_layers = model.cfg.n_layers if place is None else place.n_blocks
    two_runs = isinstance(wanted.source, Prompts)
    flop = n * (wanted.layers_before * layer + (2 if two_runs else 1) * (n_layers * layer + read))
    for chunk, rows in zip(chunks, run_rows, strict=True):
        if not len(rows):
            continue
        entered, changed = _layers(wanted, rows)
        flop += len(chunk) * layer * (entered[-1] + 1 + (changed[-1] + 1 if two_runs else 0))
        for layers, cells in _by_layers(wanted.cells):
            mine = int(np.isin(rows.cell, cells).sum())
            n_batches += -(-mine // limits.rows)
            flop += mine * ((n_layers - layers[0]) * layer + read)
    return Plan(
        site=wanted.site, rows_in_all=n * len(wanted.cells), rows=sum(len(rows) for rows in run_rows),
        chunks=tuple(len(c) for c in chunks), batches=n_batches, flop=flop, peak_bytes=limits.peak_bytes,
        tokens_per_batch=limits.rows * length, engine=reason,
    )  # fmt: skip


def _flop(model: HookedTransformer, wanted: Sweep, length: int) -> tuple[float, float]:
    """Operations of one layer and of the unembedding for one prompt."""
    cfg = model.cfg
    vocab = 0 if wanted.reading.readout.needs == "activation" else cfg.vocab_out
    return layer_flop(model, length), 2.0 * cfg.d_model * vocab * wanted.reading.positions.shape[1]


def layer_flop(model: HookedTransformer, length: int) -> float:
    """Operations of one layer for one prompt: two per weight and token, and attention's."""
    cfg = model.cfg
    weights = sum(int(p.numel()) for p in model.bridge.blocks.parameters() if p.ndim > 1) / len(model.bridge.blocks)
    return 2.0 * weights * length + 4.0 * cfg.n_heads * cfg.d_head * length**2


def _plain(model: HookedTransformer, prompts: Prompts, reading: Reading) -> Float[np.ndarray, " prompt"]:
    return np.asarray(reading(reading.read(model, prompts)).numpy())


def _by_layers(cells: Cells) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Cells that change the same layers."""

    def layers_of(cell: int) -> tuple[int, ...]:
        return tuple(part.layer for part in cells.parts[cell])

    for layers, group in groupby(sorted(range(len(cells)), key=layers_of), key=layers_of):
        yield layers, list(group)


def _new_values(model: HookedTransformer, wanted: Sweep, layers: Sequence[int]) -> dict[int, Tensor]:
    """What each changed layer's activation becomes; nothing where attention is cut."""
    if wanted.source is None:
        return {}
    if isinstance(wanted.source, Prompts):
        return run.activations(model, wanted.source, wanted.site, layers=layers)
    return {layer: wanted.source[layer].unsqueeze(0) for layer in layers}


@dataclass(frozen=True)
class _Piece:
    """Rows of one batch, which change the same layers.

    Attributes:
        layers: those layers.
        cell: [row] what is changed.
        prompt: [row] of which prompt.
    """

    layers: tuple[int, ...]
    cell: Int[np.ndarray, " row"]
    prompt: Int[np.ndarray, " row"]


def _pieces(part: Sweep, rows: Rows, size: int) -> Iterator[_Piece]:
    """Rows batch by batch."""
    for layers, cells in _by_layers(part.cells):
        chosen = rows.where(np.isin(rows.cell, cells))
        for some in run.chunks_of(len(chosen), size):
            yield _Piece(layers, chosen.cell[some], chosen.prompt[some])


@dataclass(frozen=True)
class _Resumed:
    """The batches of some prompts, as work (``interp.engines``).

    Attributes:
        part: the sweep of these prompts.
        entered: layers at which rows resume.
        changed: layers that they change.
    """

    part: Sweep
    entered: list[int]
    changed: list[int]

    def ready(self, model: HookedTransformer) -> _Runs:
        """Run the prompts unchanged, up to where rows resume."""
        part = replace(self.part, reading=self.part.reading.with_known(model))
        new = _new_values(model, part, self.changed)
        return _Runs(model, part, new, run.activations(model, part.base, "resid_pre", layers=self.entered))

    def do(self, ready: _Runs, piece: _Piece) -> list[Float[np.ndarray, " row"]]:
        """One batch."""
        return ready.scores(piece)


@dataclass
class _Runs:
    """What the rows of some prompts share.

    Attributes:
        model: the model.
        part: the sweep of these prompts.
        new: layer -> what its activation becomes.
        streams: layer -> the stream before it in the unchanged run.
        rows: of a batch, at most, after one that did not fit in memory; 0 before.
    """

    model: HookedTransformer
    part: Sweep
    new: dict[int, Tensor]
    streams: dict[int, Tensor]
    rows: int = 0

    def scores(self, piece: _Piece) -> list[Float[np.ndarray, " row"]]:
        """The numbers of a batch. One that does not fit in memory is halved; what is finished stays finished."""
        start, size = 0, min(self.rows or len(piece.cell), len(piece.cell))
        found: list[np.ndarray] = []
        while start < len(piece.cell):
            span = slice(start, start + size)
            cell, prompt = torch.from_numpy(piece.cell[span]), torch.from_numpy(piece.prompt[span])
            stream = self.streams[piece.layers[0]]
            try:
                scores = _resumed(self.model, self.part, piece.layers, self.new, stream, cell, prompt)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                size = halved(error, held=len(cell), rows=len(cell), device=self.model.device, of="rows")
                self.rows = size
                continue
            found.append(scores.numpy())
            start += len(cell)
        return found


def _resumed(
    model: HookedTransformer,
    wanted: Sweep,
    layers: tuple[int, ...],
    new: dict[int, Tensor],
    stream: Float[Tensor, "prompt position d_model"],
    cell: Int[Tensor, " row"],
    prompt: Int[Tensor, " row"],
) -> Float[Tensor, " row"]:
    hooks: list[Hook] = []
    at = torch.from_numpy(wanted.cells.place)[cell]
    where = wanted.cells.tokens[at, prompt].to(stream.device)
    cut = None if wanted.cells.sources is None else wanted.cells.sources[at, prompt].to(stream.device)
    begin = stream[prompt.to(stream.device)]
    reading = wanted.reading.rows(prompt)
    place, kept = reading.readout.place, list[Tensor]()
    of_read: _Edit | None = None  # of the stream that is read, before a block that is not run
    for index, layer in enumerate(layers):
        units = _unit_mask(model, wanted, cell, index)
        value = new.get(layer)
        value = value if value is None or len(value) == 1 else value[prompt.to(value.device)]
        edit = _edit(wanted.site, where, cut, None if units is None else units.to(stream.device), value)
        if index == 0 and wanted.site == "resid_pre":  # which the run begins with
            begin = edit(begin)
        elif place is not None and place.is_stream and (wanted.site, layer) == ("resid_pre", place.n_blocks):
            of_read = edit
        else:
            hooks += run.edit_hooks(model, wanted.site, layer, edit)
    if place is None:
        return reading(model.resume(begin, layers[0], logits_at=reading.positions, hooks=hooks))
    if not place.is_stream:
        hooks.append(run.read_hook(model, place.site, place.layer, kept.append))
    stream = model.resume(begin, layers[0], stop_at_layer=place.n_blocks, hooks=hooks)
    if place.is_stream:
        kept.append(stream if of_read is None else of_read(stream))
    return reading(place.of(at_positions(kept[0], reading.positions)).cpu())


def _unit_mask(
    model: HookedTransformer, wanted: Sweep, cell: Int[Tensor, " row"], index: int
) -> Bool[Tensor, "row unit"] | None:
    units = [wanted.cells.parts[c][index].units for c in cell.tolist()]
    if all(unit is None for unit in units):
        return None
    mask = torch.zeros((len(units), model.cfg.sizes[sites.site(wanted.site).unit]), dtype=torch.bool)
    for row, unit in enumerate(units):
        mask[row, slice(None) if unit is None else list(unit)] = True
    return mask


class _Edit:
    """The change of one layer for the rows of a batch, as a hook takes it."""

    def __init__(self, mask: Tensor, new: Tensor | None) -> None:
        self.mask, self.new = mask, new

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.new is None:
            return tensor.masked_fill(self.mask, torch.finfo(tensor.dtype).min)
        return torch.where(self.mask, self.new.to(tensor.dtype), tensor)


def _edit(
    site: str,
    where: Bool[Tensor, "row position"],
    cut: Bool[Tensor, "row position"] | None,
    units: Bool[Tensor, "row unit"] | None,
    new: Tensor | None,
) -> _Edit:
    if sites.site(site).is_pattern:
        mask = where[:, None, :, None]
        if cut is not None:
            mask = mask & cut[:, None, None, :]
        return _Edit(mask if units is None else mask & units[:, :, None, None], new)
    if sites.site(site).has_heads:
        mask = where[:, :, None, None]
        return _Edit(mask if units is None else mask & units[:, None, :, None], new)
    mask = where[:, :, None]
    return _Edit(mask if units is None else mask & units[:, None, :], new)
