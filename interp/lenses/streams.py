"""The streams that a lens is made from: those of some prompts at every place, and what the last layer makes of them.

Two sites may name one state of the stream: ``resid_post`` of a layer is ``resid_pre`` of the next. A ``Point`` is such
a state under the name by which gradients reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import _kept
from interp.attribution.gradients import Differentiable
from interp.captures import Capture
from interp.errors import InterpError, whole_number
from interp.prompts.tokens import Prompts
from interp.run import MEMORY_SHARE, Texts, as_prompts, free_memory, ids_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Point: TypeAlias = tuple[str, int]
"""``resid_pre`` or ``resid_mid``, and the layer."""

SKIP_FIRST = 1
"""Leading tokens of each prompt that are left out: attention rests on the first, whose stream is like no other's."""


def point_of(site: str, layer: int, n_layers: int) -> Point | None:
    """A state of the stream by the name that it shares with others; None for that after the last layer.

    >>> point_of("resid_post", 0, n_layers=2), point_of("resid_mid", 1, n_layers=2)
    (('resid_pre', 1), ('resid_mid', 1))
    >>> point_of("resid_post", 1, n_layers=2) is None
    True
    """
    if site != "resid_post":
        return site, layer
    return ("resid_pre", layer + 1) if layer + 1 < n_layers else None


@dataclass(frozen=True)
class Streams:
    """The prompts that a lens is made from.

    Attributes:
        model: the model.
        through: the same, to take gradients through.
        prompts: the prompts.
        points: the states of the stream that are translated.
        counted: [prompt, position] the tokens that take part.
        numbers: [prompt] which of the prompts that were given each is.
    """

    model: HookedTransformer
    through: Differentiable
    prompts: Prompts
    points: tuple[Point, ...]
    counted: Bool[np.ndarray, "prompt position"]
    numbers: Int[np.ndarray, " prompt"]

    @classmethod
    def of(cls, model: HookedTransformer, inputs: Texts, sites: Sequence[str], skip_first: int) -> Self:
        """The prompts as the model reads them.

        Raises:
            InterpError: inputs that the model cannot read, no token left, or a half-precision model whose gradients
                cannot be taken in float32.
        """
        prompts = as_prompts(model, inputs)
        places = np.arange(prompts.ids.shape[1])
        first = whole_number(skip_first, "skip_first", least=0)
        counted = (places >= first) & (places < prompts.lengths[:, None])
        kept = np.flatnonzero(counted.any(axis=1))
        if not len(kept):
            raise InterpError(
                f"No token is left to make a lens from: skip_first is {first}, and the longest prompt has "
                f"{prompts.lengths.max()} tokens. Give longer prompts or a smaller skip_first."
            )
        n_layers = model.cfg.n_layers
        found = {point_of(site, layer, n_layers) for site in sites for layer in range(n_layers)} - {None}
        points = sorted((one for one in found if one is not None), key=lambda one: (one[1], one[0] == "resid_mid"))
        through = Differentiable.of(model, *dict.fromkeys(site for site, _ in points))
        counted = counted[kept, : prompts.lengths[kept].max()]
        return cls(model, through, prompts.select(kept), tuple(points), counted, kept)

    @property
    def n_tokens(self) -> int:
        """How many tokens take part."""
        return int(self.counted.sum())

    def check_memory(self, copies: int, what: str) -> None:
        """Refuse a lens whose square matrices would not fit in memory.

        Args:
            copies: matrices that are held for each point.
            what: what needs them, for the message.

        Raises:
            InterpError: says how much is needed and what helps.
        """
        width, free = self.model.cfg.d_model, free_memory()
        needed = copies * len(self.points) * width**2 * self.model.dtype.itemsize
        if free is not None and needed > MEMORY_SHARE * free:
            raise InterpError(
                f"{what} of {self.model.name} needs {needed / 2**30:.1f} GiB ({len(self.points)} places of "
                f"{width} x {width}), {free / 2**30:.1f} GiB is free. Ask for fewer sites: sites=['resid_post']."
            )

    def counted_of(self, rows: Int[np.ndarray, " row"]) -> Bool[Tensor, "row position"]:
        """Which tokens of some prompts take part, as wide as the longest of them."""
        return torch.from_numpy(self.counted[rows, : self.prompts.lengths[rows].max()]).to(self.model.device)

    def read(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[dict[Point, Float[Tensor, "token d_model"]], Float[Tensor, "token d_model"]]:
        """The stream of every token of some prompts at each point, and after the last layer, without a graph."""
        kept: dict[Point, Tensor] = {}
        counted = self.counted_of(rows)

        def keep(point: Point, value: Tensor) -> Tensor:
            kept[point] = value[counted]
            return value

        with torch.no_grad():
            final = self._final(rows, keep)
        # Tensors made in inference mode cannot enter a graph; their copies can.
        return {point: stream.clone() for point, stream in kept.items()}, final[counted].clone()

    def recorded(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[dict[Point, Float[Tensor, "row position d_model"]], Float[Tensor, "row position d_model"]]:
        """Zeros that are added to the stream at each point, and the stream after the last layer that they lead to."""
        zeros: dict[Point, Tensor] = {}

        def add(point: Point, value: Tensor) -> Tensor:
            zeros[point] = torch.zeros_like(value, requires_grad=True)
            return value + zeros[point]

        final = self._final(rows, add)
        return zeros, final

    def _final(self, rows: Int[np.ndarray, " row"], edit: Callable[[Point, Tensor], Tensor]) -> Tensor:
        """The stream after the last layer, in a run in which every point is edited."""
        edits = {point: partial(edit, point) for point in self.points}
        return self.through.stream(ids_of(self.prompts.select(rows)), edits)


@dataclass(frozen=True)
class CapturedStreams(Streams):
    """The same prompts, whose streams are read from a capture on the disk and not computed again.

    Attributes:
        arrays: point -> the array that holds it, mapped into memory, and its layer there; None is what the last layer
            leaves.
    """

    arrays: Mapping[Point | None, tuple[Float[np.ndarray, "prompt layer position d_model"], int]] = field(
        default_factory=dict
    )

    def taking(self, captured: Capture, sites: Sequence[str]) -> CapturedStreams:
        """The streams of a capture, which must be of these prompts at every token.

        Raises:
            InterpError: a capture of another model or other prompts, of some places only, or without a state of the
                stream that is needed.
        """
        stated, n_layers = captured.told["attrs"], self.model.cfg.n_layers
        if differing := _kept.differing(self.model, stated):
            raise InterpError(
                f"{captured.path} was captured from {stated.get('model')}, whose {' and '.join(differing)} differ from "
                f"those of {self.model.name}. Capture from this model."
            )
        if captured.told["at"] is not None or captured.told["axis"] != "position":
            raise InterpError(f"{captured.path} holds some places only. Capture with at=None for a lens.")
        found: dict[Point | None, tuple[np.ndarray, int]] = {}
        acts = captured.dataset()
        for site in ("resid_pre", "resid_mid", "resid_post"):
            if site in captured.sites:
                for slot, layer in enumerate(captured.told["layers"]):
                    found.setdefault(point_of(site, layer, n_layers), (acts[site].values, slot))
        for point in (*self.points, None):
            if point not in found:
                site, layer = ("resid_post", n_layers - 1) if point is None else point
                raise InterpError(
                    f"{captured.path} does not hold '{site}' of layer {layer}. Capture "
                    f"{', '.join(dict.fromkeys((*sites, 'resid_post')))} of every layer."
                )
        return replace(self, arrays=found)

    def read(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[dict[Point, Float[Tensor, "token d_model"]], Float[Tensor, "token d_model"]]:
        """As ``Streams.read``, from the disk."""
        counted = self.counted_of(rows)

        def of(point: Point | None) -> Float[Tensor, "token d_model"]:
            array, slot = self.arrays[point]
            values = torch.from_numpy(np.array(array[self.numbers[rows], slot, : counted.shape[1]]))
            return values.to(self.model.device)[counted]

        return {point: of(point) for point in self.points}, of(None)
