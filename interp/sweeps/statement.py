"""Sweeps as they are stated, several of them as one, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.prompts.tokens import Prompts
from interp.sites import site
from interp.sweeps.cells import Cells
from interp.sweeps.exact.cache import KNOWN_WITH_STREAM
from interp.sweeps.exact.planner import Plan, Rows, find_rows
from interp.sweeps.reading import Reading


@dataclass(frozen=True)
class Sweep:
    """One sweep, stated: which run is changed, where, to what, and how it is read.

    Attributes:
        base: prompts of the run that is changed.
        site: what is changed; ``scores`` for knockouts.
        cells: every change.
        reading: how the number is read off.
        source: prompts whose activations are put in, a constant per layer (``sites``' shapes without the prompt axis),
            or None where attention is cut.
        layers_before: layers that all base prompts ran through to find a constant source, for the plan's count.
        origin: how a constant source was made of the base prompts, which says for a store what it is.
    """

    base: Prompts
    site: str
    cells: Cells
    reading: Reading
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

    def rows(self, n_layers: int) -> Rows:
        """The rows whose change can reach the number, of a model of so many layers."""
        place = self.reading.readout.place
        found = find_rows(
            self.cells, self.site, n_layers if place is None else place.n_attentions,
            answers=self.reading.positions.numpy(), differs=self.differs,
        )  # fmt: skip
        if place is None:
            return found
        reaches = np.array([place.reached_by(self.site, parts[0].layer) for parts in self.cells.parts])
        return found.where(reaches[found.cell])

    def clipped(self) -> Sweep:
        """The same sweep, whose cells change no layer after the activation that is read."""
        place = self.reading.readout.place
        if place is None:
            return self
        kept = (tuple(part for part in parts if place.reached_by(self.site, part.layer)) for parts in self.cells.parts)
        parts = tuple(few or whole for few, whole in zip(kept, self.cells.parts, strict=True))
        return replace(self, cells=replace(self.cells, parts=parts))

    def of_prompts(self, rows: Int[np.ndarray, " prompt"]) -> Sweep:
        """The same sweep over some of the prompts."""
        source = self.source.select(rows) if isinstance(self.source, Prompts) else self.source
        base, index = self.base.select(rows), torch.from_numpy(rows)
        cells = self.cells.of_prompts(rows, base.ids.shape[1])
        return replace(self, base=base, cells=cells, reading=self.reading.rows(index), source=source)


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
        return {"denoising": (self.source, self.base), "noising": (self.base, self.source)}[direction]


@dataclass(frozen=True)
class Joint:
    """Sweeps of several sites, of the same runs and reading, that are run together.

    Attributes:
        asked: the sweeps.
        run: as they are run: a stream after attention or after the MLP is the next layer's ``resid_pre``.
        copied: per sweep, [cell, 3]: a cell, the earlier sweep that makes the same change, and its cell.
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
    def reading(self) -> Reading:
        """How the number is read off."""
        return self.run[0].reading

    @property
    def from_run(self) -> bool:
        """Whether the changes are another run's activations."""
        return isinstance(self.run[0].source, Prompts)

    @property
    def changed(self) -> frozenset[str]:
        """Sites that are changed."""
        return frozenset(one.site for one in self.run)

    @property
    def kept(self) -> frozenset[str]:
        """Sites that are kept of the other run."""
        return self.changed | KNOWN_WITH_STREAM if self.from_run and "resid_pre" in self.changed else self.changed

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
    the other run knows. (Not where several layers are changed together: a later change would meet an earlier one. Nor
    where something between the two streams is read.)
    """
    single = all(len(parts) == 1 for parts in wanted.cells.parts)
    later = site(wanted.site).stage in ("between", "after") and wanted.reading.inside is None
    if not later or not isinstance(wanted.source, Prompts) or not single:
        return wanted
    parts = tuple((replace(part, layer=part.layer + 1),) for (part,) in wanted.cells.parts)
    return replace(wanted, site="resid_pre", cells=replace(wanted.cells, parts=parts))
