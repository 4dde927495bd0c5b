"""The activations that a chunk of prompts keeps: the run that is changed, and what it is changed to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.blocks import Blocks

BASE_SITES = frozenset({"resid_pre", "resid_mid", "q", "k", "v", "z"})
"""What is kept of the run that is changed."""


@dataclass
class Stored:
    """Activations of one run: [prompt, position, ...] (``pattern``: [prompt, head, dest, src]) by site and layer.

    Queries and keys are kept rotated, which makes no difference to patching: a token is rotated by its own position.
    """

    length: int
    values: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        """The activation of a site at a layer."""
        return self.values[key]


def trace(
    blocks: Blocks,
    ids: Int[Tensor, "prompt position"],
    sites: Iterable[str],
    layers: Iterable[int] | None = None,
    *,
    final: bool = False,
) -> Stored:
    """Run the model and keep what is asked for.

    Args:
        blocks: the model.
        ids: token ids.
        sites: which sites.
        layers: of which layers; None is all.
        final: also keep the stream after the last block, as ``resid_pre`` of the layer that would come next.
    """
    n_layers = len(blocks.layers)
    wanted = set(sites)
    chosen = set(range(n_layers) if layers is None else layers)
    kept = Stored(ids.shape[1])
    positions = torch.arange(ids.shape[1], device=ids.device)

    def tap(site: str, layer: int, value: Tensor) -> Tensor:
        if site in wanted and layer in chosen:
            rotated = site in ("q", "k")
            kept.values[site, layer] = blocks.rotate(value, positions, ids.shape[1]) if rotated else value
        return value

    stop = None if final else min(n_layers, max(chosen) + 1)
    stream = blocks.forward(ids, tap=tap, stop_at_layer=stop)
    if final:
        kept.values["resid_pre", n_layers] = stream
    return kept


class Source(Protocol):
    """What activations are changed to."""

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The new activation of every prompt of the chunk, [prompt, position, ...] as ``Stored`` keeps it."""


@dataclass(frozen=True)
class FromRun:
    """The activations of another run of the same prompts."""

    stored: Stored

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The other run's activation."""
        return self.stored[site, layer]


@dataclass(frozen=True)
class Constant:
    """Activations that are the same for every prompt.

    Attributes:
        n_prompts: prompts of the chunk.
        values: layer -> [position, ...], or without the position axis; queries and keys not rotated yet.
        blocks: the model.
        length: tokens of the longest prompt.
    """

    n_prompts: int
    values: Mapping[int, Tensor]
    blocks: Blocks
    length: int

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The constant, laid out for every prompt."""
        value = self.values[layer]
        if site in ("q", "k"):
            positions = torch.arange(self.length, device=value.device)
            value = self.blocks.rotate(value.expand(self.length, *value.shape[-2:]), positions, self.length)
        if site == "pattern":
            heads = value.shape[0]
            return value[None, :, : self.length, : self.length].expand(self.n_prompts, heads, self.length, self.length)
        tail = value.shape[-1:] if site not in ("q", "k", "v", "z") else value.shape[-2:]
        return value.expand(self.n_prompts, self.length, *tail)


@dataclass(frozen=True)
class Nothing:
    """No new activation: attention is cut instead."""

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """There is none."""
        raise KeyError(site)
