"""How much a sweep holds at a time: prompts, tokens of a batch, weights twice; and what to do when it does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from interp import run
from interp.errors import InterpError, whole_number
from interp.model.arithmetic import Blocks
from interp.sweeps.exact.planner import Group, Sizes

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5
"""Share of free memory that a sweep may plan with."""
CACHE_BYTES = 512 * 2**20
"""Bytes of activations of the unchanged runs that are kept at a time, where memory allows."""
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 2**17}
"""Tokens of a batch. A larger one is no faster, and takes more memory."""
SHARE_TO_PACK = 8
"""Weights are packed if the memory that may be used is at least this many times what the copies take."""
BATCH_BYTES = {"cpu": 2**25, "cuda": 0}
"""Bytes. A batch of a narrow model may hold more tokens: as many as take this much at the widest step of a layer."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device, where that can be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return run.free_memory()


def memory_to_use(device: torch.device, memory: int | None) -> int | None:
    """What was given, or the share of what is free that a sweep plans with; None where that cannot be known."""
    if memory is not None:
        whole_number(memory, "memory (bytes)", least=1)
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
        cached, one_row = sizes.cache_bytes(length, site_width=width), sizes.batch_bytes(1, length, length)
        tracing = sizes.tracing_bytes(1, length)
        needed = held + cached + max(tracing, one_row)
        room = needed - held if given is None else given - held
        check_fits(needed, given, length)
        share = CACHE_BYTES if given is None else min(CACHE_BYTES, room // 2)
        prompts = max(1, share // max(cached, tracing))
        kind = model.device.type if model.device.type in TOKENS_PER_BATCH else "cpu"
        tokens = max(TOKENS_PER_BATCH[kind], BATCH_BYTES[kind] // sizes.token_bytes(length))
        if given is not None:
            # At worst every row holds a single token.
            tokens = min(tokens, max(1, (room - prompts * cached) // sizes.batch_bytes(1, 1, length)))
        return cls(int(prompts), int(tokens), held, packs)


def packed(blocks: Blocks, limits: Limits, groups: Sequence[Group], n_chunks: int) -> Blocks:
    """The model with its weights packed, if enough tokens pass through them to pay for that; a packed one as it is."""
    if not limits.packs or blocks.is_packed:
        return blocks
    n_layers = len(blocks.layers)
    tokens = sum(group.tokens * (n_layers - group.join[0]) for group in groups) / n_layers
    return blocks.pack(limits.tokens) if n_chunks * tokens >= blocks.rows_to_pack else blocks


def halved(error: Exception, *, held: int, rows: int, device: torch.device, of: str) -> int:
    """How much to try after a batch that did not fit in memory: half of it. Any other error is raised again.

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
