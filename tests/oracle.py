"""Exact patching with plain TransformerLens hooks and whole passes: what the sweeps are held to.

Every cell is a full forward pass of its own; the cells are the rows of one batch, which costs a test one pass, not
hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from interp import readouts, run, sites
from interp.model import HookedTransformer
from interp.prompts import PromptPairs

Parts = Sequence[tuple[int, Sequence[int | None] | None]]
"""What one cell replaces: (layer, heads) pairs; heads is None at a site without heads, or for all of them."""

Hook = tuple[str, Callable[[torch.Tensor, Any], torch.Tensor]]


def patched(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    cells: Sequence[tuple[Parts, Any]],
    metric: str = "logit_difference",
) -> np.ndarray:
    """The metric [prompt, cell] after each cell's replacements at once."""
    n = len(pairs)
    logits = patched_logits(model, pairs, site, direction, cells).flatten(0, 1)
    each, at, right, wrong = (
        torch.tensor(np.tile(values, len(cells)))
        for values in (np.arange(n), pairs.answer_position, pairs.correct, pairs.incorrect)
    )
    last = logits[torch.arange(len(each)), at]
    return np.asarray(readouts.readout(metric)(last, right, wrong)).reshape(len(cells), n).T


def patched_logits(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    cells: Sequence[tuple[Parts, Any]],
) -> torch.Tensor:
    """Logits [cell, prompt, position, vocab] after each cell's replacements at once.

    A cell's tokens are a mask [prompt, position], or what ``run.token_mask`` takes: a position, a role, None for all.
    """
    return _patched_run(model, pairs, site, direction, cells)


def patched_activations(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    cells: Sequence[tuple[Parts, Any]],
    read: str,
    layer: int,
) -> torch.Tensor:
    """A site's activations [cell, prompt, position, ...] after each cell's replacements at once."""
    kept: list[torch.Tensor] = []
    table = sites.site(read)
    name = sites.site(table.derived_from or read).hook_name(layer)

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept.append(tensor.clone())

    _patched_run(model, pairs, site, direction, cells, [(name, keep)])
    (found,) = kept
    if table.derived_from:  # result, of z
        found = torch.einsum("rphx,hxd->rphd", found, model.W_O(layer))
    return found.reshape(len(cells), len(pairs), *found.shape[1:])


def _patched_run(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    cells: Sequence[tuple[Parts, Any]],
    then: Sequence[Any] = (),
) -> torch.Tensor:
    clean, corrupted = torch.tensor(pairs.clean.ids), torch.tensor(pairs.corrupted.ids)
    base, source = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
    n = len(pairs)
    edits: dict[int, list[tuple[slice, torch.Tensor, Sequence[int | None]]]] = {}
    for index, (parts, at) in enumerate(cells):
        mask = torch.tensor(at if isinstance(at, np.ndarray) else run.token_mask(pairs.clean, at))
        for layer, heads in parts:
            edits.setdefault(layer, []).append((slice(index * n, (index + 1) * n), mask, heads or [None]))
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(source)
        hooks = [hook for layer, own in edits.items() for hook in plain_hooks(site, layer, cache, own)]
        logits = model.bridge.run_with_hooks(base.repeat(len(cells), 1), fwd_hooks=[*hooks, *then])
    return logits.reshape(len(cells), n, *logits.shape[1:])


def one_by_one(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: str,
    heads: Sequence[int | None],
    places: Sequence[Any],
) -> np.ndarray:
    """Each (layer, head, place) patched alone, by the bridge's own hooks. [prompt, layer, head, place]."""
    layers = range(model.cfg.n_layers)
    cells = [([(layer, [head])], place) for layer in layers for head in heads for place in places]
    return patched(model, pairs, site, direction, cells).reshape(len(pairs), len(layers), len(heads), len(places))


def plain_hooks(site: str, layer: int, cache: Any, edits: Sequence[tuple[slice, torch.Tensor, Any]]) -> list[Hook]:
    """Hooks that put the cached values of some (rows, tokens, heads) in."""
    table, new = sites.site(site), cache[sites.site(site).hook_name(layer)]
    if site == "resid_mid":
        return _stream_hooks(layer, new, edits)
    heads_axis = 1 if table.is_pattern else 2

    def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        tensor = tensor.clone()
        for rows, mask, heads in edits:
            for head in heads:
                here, there = (x if head is None else x.select(heads_axis, head) for x in (tensor[rows], new))
                here[mask] = there[mask]
        return tensor

    return [(table.hook_name(layer), put)]


def _stream_hooks(layer: int, new: torch.Tensor, edits: Sequence[tuple[slice, torch.Tensor, Any]]) -> list[Hook]:
    """The bridge's own hook sits on the MLP's branch alone, so attention is made to write what makes the stream new."""
    before: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        before[:] = [tensor]
        return tensor

    def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        tensor = tensor.clone()
        for rows, mask, _ in edits:
            tensor[rows][mask] = (new - before[0][rows])[mask]
        return tensor

    return [(f"blocks.{layer}.hook_resid_pre", keep), (f"blocks.{layer}.hook_attn_out", put)]
