"""The same sweeps through TransformerLens hooks, for architectures whose arithmetic is not in ``interp.blocks``.

Still no plain loop: a row resumes at its first changed layer from the stored stream, rows share batches, rows that
cannot matter are skipped and only scored positions are unembedded. What precedes a change within a prompt is run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import run, sites
from interp.sweep.cells import Cells
from interp.sweep.execute import Done, Progress, Sweep
from interp.sweep.plan import Plan, Rows, find_rows
from interp.sweep.readout import Readout
from interp.tokens import Prompts

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer


def execute(model: HookedTransformer, wanted: Sweep, *, progress: Progress | None = None) -> Done:
    """Run every row of a sweep.

    Raises:
        InterpError: a site that the architecture does not let anyone change.
    """
    model.check_editable(wanted.site)
    n, n_cells = len(wanted.base), len(wanted.cells)
    unchanged = _plain(model, wanted.base, wanted.readout)
    source = _plain(model, wanted.source, wanted.readout) if isinstance(wanted.source, Prompts) else None
    out = np.repeat(unchanged[:, None], n_cells, axis=1)
    rows = find_rows(
        wanted.cells, wanted.site, model.cfg.n_layers,
        answers=wanted.readout.positions.numpy(), differs=wanted.differs,
    )  # fmt: skip
    done = n * n_cells - len(rows)
    batches = 0
    if progress is not None:
        progress(done, n * n_cells)
    for layers, cells in _by_layers(wanted.cells):
        chosen = rows.where(np.isin(rows.cell, cells))
        new = _new_values(model, wanted, layers) if len(chosen) else {}
        stream = run.activations(model, wanted.base, "resid_pre", layers=layers[:1])[layers[0]] if len(chosen) else None
        for cell, prompt in _batches(model, chosen, wanted.base.ids.shape[1]):
            assert stream is not None
            scores = _resumed(model, wanted, layers, new, stream, cell, prompt)
            out[prompt.numpy(), cell.numpy()] = scores.numpy()
            done += len(cell)
            batches += 1
            if progress is not None:
                progress(done, n * n_cells)
    plan = Plan(
        site=wanted.site, rows_in_all=n * n_cells, rows=len(rows), chunks=(n,), rides=(), flop=float("nan"),
        peak_bytes=0, tokens_per_ride=run.rows_per_batch(model, wanted.base.ids.shape[1]), engine=model.no_blocks,
    )  # fmt: skip
    return Done(out, unchanged, source, plan)


def _plain(model: HookedTransformer, prompts: Prompts, readout: Readout) -> Float[np.ndarray, " prompt"]:
    return np.asarray(readout(run.logits_at(model, prompts, readout.positions.numpy())).numpy())


def _by_layers(cells: Cells) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Cells that change the same layers."""

    def layers_of(cell: int) -> tuple[int, ...]:
        return tuple(part.layer for part in cells.parts[cell])

    for layers, group in groupby(sorted(range(len(cells)), key=layers_of), key=layers_of):
        yield layers, list(group)


def _new_values(model: HookedTransformer, wanted: Sweep, layers: tuple[int, ...]) -> dict[int, Tensor]:
    if wanted.source is None:
        return {}
    if isinstance(wanted.source, Prompts):
        return run.activations(model, wanted.source, wanted.site, layers=layers)
    return {layer: wanted.source[layer].unsqueeze(0) for layer in layers}


def _batches(
    model: HookedTransformer, rows: Rows, length: int
) -> Iterator[tuple[Int[Tensor, " row"], Int[Tensor, " row"]]]:
    size = run.rows_per_batch(model, length)
    for start in range(0, len(rows), size):
        span = slice(start, start + size)
        yield torch.from_numpy(rows.cell[span]), torch.from_numpy(rows.prompt[span])


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
    place = torch.from_numpy(wanted.cells.place)[cell]
    where = wanted.cells.tokens[place, prompt].to(stream.device)
    cut = None if wanted.cells.sources is None else wanted.cells.sources[place, prompt].to(stream.device)
    begin = stream[prompt.to(stream.device)]
    for index, layer in enumerate(layers):
        units = _unit_mask(model, wanted, cell, index)
        value = new.get(layer)
        value = value if value is None or len(value) == 1 else value[prompt.to(value.device)]
        edit = _edit(wanted.site, where, cut, None if units is None else units.to(stream.device), value)
        if index == 0 and wanted.site == "resid_pre":
            begin = edit(begin)
        else:
            hooks += run.edit_hooks(model, wanted.site, layer, edit)
    logits = model.resume(begin, layers[0], logits_at=wanted.readout.positions[prompt], hooks=hooks)
    return wanted.readout.rows(prompt)(logits)


def _unit_mask(
    model: HookedTransformer, wanted: Sweep, cell: Int[Tensor, " row"], index: int
) -> Bool[Tensor, "row unit"] | None:
    units = [wanted.cells.parts[c][index].units for c in cell.tolist()]
    if all(unit is None for unit in units):
        return None
    n = model.n_heads_of(wanted.site) if sites.site(wanted.site).has_heads else model.cfg.d_mlp
    mask = torch.zeros((len(units), n), dtype=torch.bool)
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
