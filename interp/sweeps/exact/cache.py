"""The activations that a chunk of prompts keeps: the run that is changed, and what it is changed to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import sites
from interp.ablation import laid_out
from interp.model.arithmetic import Blocks, Tap
from interp.model.reading import Memory, shared_length
from interp.readouts import Place

BASE_SITES = frozenset({"resid_pre", "resid_mid", "q", "k", "v", "z"})
"""What is kept of the run that is changed."""
KNOWN_WITH_STREAM = frozenset({"q", "k", "v"})
"""What is kept of the other run beside its residual stream: what that stream leads to."""
NEEDED_OF_ITSELF = frozenset({"mlp_post"})
"""Sites whose change is worked out from the unchanged activation, which is kept where they are changed."""
_ROTATED = {"rot_q": "q", "rot_k": "k"}
"""Queries and keys are kept and changed after rotation, which makes no difference to patching: a token is rotated by
its own position."""


def kept_as(tap: str) -> str:
    """The name by which the engine keeps what a tap of the arithmetic shows; empty for what it does not keep."""
    return _ROTATED.get(tap, "" if tap in _ROTATED.values() else tap)


@dataclass
class Cache:
    """Activations of one run: [prompt, position, ...] (``pattern``: [prompt, head, dest, src]) by site and layer.

    Queries and keys are kept rotated.

    Attributes:
        length: tokens of the longest prompt.
        values: the activations.
        read: the activation within a block that a read-out asks for, as ``interp.sites`` has it, if one does.
    """

    length: int
    values: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    read: Tensor | None = None

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        """The activation of a site at a layer."""
        return self.values[key]


def trace(
    blocks: Blocks, ids: Int[Tensor, "prompt position"], wanted: Collection[str], *, read: Place | None = None
) -> Cache:
    """Run the model and keep some sites of every layer, and the final stream as ``resid_pre`` of one layer more.

    ``read`` is what a read-out asks for within a block.
    """
    (kept,) = _trace(blocks, (ids,), (wanted,), read)
    return kept


def trace_both(
    blocks: Blocks,
    first: Int[Tensor, "prompt position"],
    second: Int[Tensor, "prompt position"],
    first_sites: Collection[str],
    second_sites: Collection[str],
    *,
    read: Place | None = None,
) -> tuple[Cache, Cache]:
    """Two runs in one pass, each with its own sites."""
    one, other = _trace(blocks, (first, second), (first_sites, second_sites), read)
    return one, other


def _trace(
    blocks: Blocks,
    ids: Sequence[Int[Tensor, "prompt position"]],
    wanted: Sequence[Collection[str]],
    read: Place | None,
) -> tuple[Cache, ...]:
    length = ids[0].shape[1]
    kept = tuple(Cache(length) for _ in ids)
    sizes = [len(part) for part in ids]
    wanted_by_any = frozenset().union(*wanted)

    def keep(site: str, layer: int, value: Tensor) -> None:
        if site not in wanted_by_any:
            return
        for cache, own, part in zip(kept, wanted, torch.split(value, sizes), strict=True):
            if site in own:
                cache.values[site, layer] = part if all(site in other for other in wanted) else part.clone()

    wants_pattern = "pattern" in wanted_by_any
    queries: list[Tensor] = []

    def tap(shown: str, layer: int, value: Tensor) -> Tensor:
        if read is not None and (shown, layer) == (read.site, read.layer):
            for cache, part in zip(kept, torch.split(value, sizes), strict=True):
                cache.read = part
        site = kept_as(shown)
        keep(site, layer, value)
        if wants_pattern and site == "q":
            queries[:] = [value]
        elif wants_pattern and site == "k":
            scores = blocks.scores(queries.pop(), value)
            positions = torch.arange(length, device=value.device)
            future = positions[:, None] < positions[None, :]
            keep("pattern", layer, scores.masked_fill(future, -torch.inf).softmax(dim=-1))
        return value

    # The pattern is made beside a fused pass, so that whatever is kept the numbers of the run are the same.
    within = (wanted_by_any | ({read.site} if read is not None else set())) - {"pattern"}
    rows = torch.cat(list(ids))
    shared = 0 if wants_pattern or not blocks.layers else shared_length(rows)
    stream = (
        _apart(blocks, rows, shared, tap, within)
        if shared
        else blocks.forward(rows, tap=tap, fused=True, within=within)
    )
    for cache, part in zip(kept, torch.split(stream, sizes), strict=True):
        cache.values["resid_pre", len(blocks.layers)] = part
    return kept


def _apart(
    blocks: Blocks, ids: Int[Tensor, "row position"], shared: int, tap: Tap, within: Collection[str]
) -> Float[Tensor, "row position d_model"]:
    """The same pass, where the tokens that all rows begin with are run once; ``tap`` sees whole rows all the same."""
    first: dict[tuple[str, int], Tensor] = {}

    def whole(begun: Tensor, rest: Tensor) -> Tensor:
        return torch.cat((begun.expand(len(rest), *begun.shape[1:]), rest), dim=1)

    def keep(site: str, layer: int, value: Tensor) -> Tensor:
        first[site, layer] = value
        return value

    def see(site: str, layer: int, value: Tensor) -> Tensor:
        if kept_as(site):
            tap(site, layer, whole(first.pop((site, layer)), value))
        return value

    begun, memory = Memory.empty(blocks).read(ids[:1, :shared], tap=keep, within=within)
    rest = memory.run(ids[:, shared:], tap=see, within=within)
    return whole(begun, rest)


class Source(Protocol):
    """What activations are changed to."""

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The new activation of every prompt of the chunk, [prompt, position, ...] as ``Cache`` keeps it."""

    def as_read(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The same as a read-out of that very activation has it: queries and keys not rotated."""


@dataclass(frozen=True)
class FromRun:
    """The activations of another run of the same prompts."""

    cache: Cache

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The other run's activation."""
        return self.cache[site, layer]

    def as_read(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The other run's activation that is read."""
        assert self.cache.read is not None
        return self.cache.read


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
        if site in _ROTATED.values():
            positions = torch.arange(self.length, device=value.device)
            value = self.blocks.rotate(value.expand(self.length, *value.shape[-2:]), positions, self.length)
        return laid_out(value, sites.site(site), self.n_prompts, self.length)

    def as_read(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """The constant as it is."""
        return laid_out(self.values[layer], sites.site(site), self.n_prompts, self.length)


@dataclass(frozen=True)
class Nothing:
    """No new activation: attention is cut instead."""

    def at(self, site: str, layer: int) -> Float[Tensor, "prompt ..."]:
        """There is none."""
        raise KeyError(site)

    as_read = at
