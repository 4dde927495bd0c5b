"""Sweeps without a second prompt: what the answer loses when a site is ablated, or attention between words is cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from interp import run, sites
from interp._arguments import check_scored
from interp.ablation import Reference
from interp.errors import InterpError
from interp.errors import names as checked_names
from interp.interventions import AblationKind, check_ablation, check_cut, parse_edge
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps.cells import Axis, Cells, Part, Sets, patch_cells, window_of
from interp.sweeps.engine import Precision, Term, plan_terms, run_terms
from interp.sweeps.exact.planner import Plan
from interp.sweeps.labels import effect_of_change, how_computed
from interp.sweeps.progress import Progress
from interp.sweeps.reading import AnyPairs, checked_reading, run_named, whole_answers
from interp.sweeps.resume import AnyStore
from interp.sweeps.statement import Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Which = Literal["clean", "corrupted"]


def ablation_sweep(
    model: HookedTransformer,
    pairs: AnyPairs,
    site: str,
    kind: AblationKind,
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    references: Prompts | None = None,
    axis: Axis | None = None,
    roles: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    sets: Sets | None = None,
    neuron_groups: int | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    memory: int | None = None,
    store: AnyStore = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Ablate every cell of a site, one at a time, and report the metric without it.

    Args:
        model: the model.
        pairs: prompts with their answers: ``PromptPairs``, or ``AnsweredPrompts``, which have no corrupted half.
        site: as in ``sweep``.
        kind: ``zero`` (in the numerics in force); ``zero_raw`` (what is zero in the raw model: differs at ``v`` and
            ``z`` of models whose values or norms have biases); ``mean`` (over the references: per position where all
            have one length, else over all tokens); or ``resample`` (a reference of equal length with other tokens,
            drawn with ``seed``). As ``interp.interventions.Ablate``.
        metric: a name from ``interp.readouts``, or a read-out.
        which: ablate the clean or the corrupted run.
        references: prompts that ``mean`` and ``resample`` are made of; None is the prompts that are ablated.
        axis: as in ``sweep``.
        roles: as in ``sweep``.
        positions: as in ``sweep``.
        layers: as in ``sweep``.
        window: as in ``sweep``.
        sets: as in ``sweep``.
        neuron_groups: as in ``sweep``.
        seed: of the resample.
        precision: as in ``sweep``.
        memory: as in ``sweep``.
        store: as in ``sweep``.
        progress: called with rows done and rows in all.

    Returns:
        ``ablated`` (prompt, layer, ...) and ``unchanged`` (prompt) in the metric's units, and ``ablation_effect`` =
        ablated - unchanged: negative where the site helps. The attribute ``does_not_vary`` names places at which the
        reference is every prompt's own activation (the same tokens up to there), where the effect is 0 by construction.

    Raises:
        InterpError: an unknown site, kind, metric or role; a prompt that no other can be resampled for; references that
            vary at no place.
    """
    wanted = _stated(
        model, pairs, site, kind, metric, which,
        axis=axis, roles=roles, positions=positions, layers=layers, window=window, sets=sets,
        neuron_groups=neuron_groups,
    )  # fmt: skip
    reference = Reference.of(model, wanted.base, kind, seed=seed, references=references)
    same = _unvaried(reference, wanted.cells)
    wanted = replace(wanted, source=_new(model, wanted, reference), origin=_origin(reference))
    ((found, screening),) = run_terms(
        model, [Term(1.0, (wanted,))], precision=precision, memory=memory, store=store, progress=progress
    )
    return effect_of_change(
        model, pairs, found, "ablated", metric, wanted.cells,
        title=f"{kind} ablation of {site}",
        question=f"What does the answer lose without {site}?",
        source="Wang et al. 2022, arXiv 2211.00593; Zhang and Nanda 2023, arXiv 2309.16042",
        seed=seed,
        extra={
            "site": site, "ablation_kind": kind, "run": which, "does_not_vary": ", ".join(map(str, same)) or "nowhere",
            **how_computed(found, screening),
        },
    )  # fmt: skip


def plan_ablation(
    model: HookedTransformer,
    pairs: AnyPairs,
    site: str,
    kind: AblationKind,
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    references: Prompts | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    memory: int | None = None,
    **cells: Any,
) -> Plan:
    """What ``ablation_sweep`` would compute with the same arguments, without computing it.

    ``cells`` are its arguments that say what is ablated.
    """
    wanted = _stated(model, pairs, site, kind, metric, which, **cells)
    reference = Reference.of(model, wanted.base, kind, seed=seed, references=references)
    _unvaried(reference, wanted.cells)
    if reference.donors is not None:
        wanted = replace(wanted, source=reference.donors)
    return plan_terms(model, [Term(1.0, (wanted,))], precision=precision, memory=memory)


def _stated(
    model: HookedTransformer, pairs: AnyPairs, site: str, kind: str, metric: AnyReadout, which: str, **options: Any
) -> Sweep:
    """The sweep, with nothing yet to replace the activations by."""
    check_scored(model, pairs)
    base = run_named(pairs, which)
    check_ablation(kind)
    _one_token(pairs, metric)
    cells = patch_cells(model, pairs, site, **options)
    wanted = Sweep(base, site, cells, checked_reading(model, pairs, metric), {})
    return replace(wanted, layers_before=max(wanted.layers) + 1 if kind == "mean" else 0, origin=kind)


def knockout_sweep(
    model: HookedTransformer,
    pairs: AnyPairs,
    edges: Sequence[str],
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    by_head: bool = False,
    memory: int | None = None,
    store: AnyStore = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Cut attention from one role to another, layer by layer (or window by window), and report the metric without it.

    Scores are cut before the softmax, so what is left of a destination's attention still sums to 1. Geva et al. 2023
    (arXiv 2304.14767), who cut windows of layers.

    Args:
        model: the model.
        pairs: prompts with their answers and roles: ``PromptPairs`` or ``AnsweredPrompts``.
        edges: ``"noun<-color"``: destination, then source; every token of each.
        metric: a name from ``interp.readouts``, or a read-out.
        which: cut in the clean or the corrupted run.
        layers: only these layers.
        window: cut in that many layers together, centred on each.
        by_head: cut one head at a time; otherwise all heads of a layer at once.
        memory: as in ``sweep``.
        store: as in ``sweep``.
        progress: called with rows done and rows in all.

    Returns:
        ``cut`` (prompt, layer, [head,] edge) and ``unchanged`` (prompt) in the metric's units, and ``cut_effect`` =
        cut - unchanged: negative where that attention helps.

    Raises:
        InterpError: a malformed edge, an unknown role, or a token that is left with nothing to attend to.
    """
    wanted = _stated_knockout(model, pairs, edges, metric, which, layers=layers, window=window, by_head=by_head)
    ((found, screening),) = run_terms(model, [Term(1.0, (wanted,))], memory=memory, store=store, progress=progress)
    return effect_of_change(
        model, pairs, found, "cut", metric, wanted.cells,
        title="attention knockout",
        question="What does the answer lose when one word may not look at another?",
        source="Geva et al. 2023, arXiv 2304.14767",
        seed=0,
        extra={"run": which, "window": window, **how_computed(found, screening)},
    )  # fmt: skip


def plan_knockout(
    model: HookedTransformer,
    pairs: AnyPairs,
    edges: Sequence[str],
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    by_head: bool = False,
    memory: int | None = None,
) -> Plan:
    """What ``knockout_sweep`` would compute with the same arguments, without computing it."""
    wanted = _stated_knockout(model, pairs, edges, metric, which, layers=layers, window=window, by_head=by_head)
    return plan_terms(model, [Term(1.0, (wanted,))], memory=memory)


def _stated_knockout(
    model: HookedTransformer,
    pairs: AnyPairs,
    edges: Sequence[str],
    metric: AnyReadout,
    which: str,
    *,
    layers: Sequence[int] | int | None,
    window: int,
    by_head: bool,
) -> Sweep:
    check_scored(model, pairs)
    prompts = run_named(pairs, which)
    _one_token(pairs, metric)
    if model.blocks is None:  # the model's own weights need no hook
        model.check_site("scores")
    cells = _edge_cells(model, prompts, edges, sites.check_layers(layers, model.cfg.n_layers), window, by_head=by_head)
    return Sweep(prompts, "scores", cells, checked_reading(model, pairs, metric), None)


def _one_token(pairs: AnyPairs, metric: AnyReadout) -> None:
    if whole_answers(pairs, metric):
        raise InterpError(
            "Ablation and knockout sweeps score one set of tokens: use the parts of expand_answers() with "
            "metric='log_probability', or pairs with one-token answers."
        )


# ---- ablation ----


def _new(model: HookedTransformer, wanted: Sweep, reference: Reference) -> Prompts | dict[int, Tensor]:
    """What the activations are replaced by: another prompt's, or a constant per layer."""
    if reference.donors is not None:
        return reference.donors
    return reference.constants(model, wanted.site, wanted.layers, run.in_batches)


def _origin(reference: Reference) -> str:
    """How a constant source is made of the base prompts, for a store."""
    own = reference.references is reference.prompts
    return reference.kind if own else f"{reference.kind} of {reference.references.sha256()}"


def _unvaried(reference: Reference, cells: Cells) -> list[Any]:
    """The places at which the reference does not vary, which are warned of.

    Raises:
        InterpError: it varies at none.
    """
    labels = next((cells.coords[dim] for dim in ("position", "role") if dim in cells.dims), ["every token"])
    same = reference.check_varies(cells.tokens.numpy(), labels)
    if same:
        log.warning(
            "The reference of the '%s' ablation does not vary at %s: all prompts have the same tokens up to there, so "
            "the effect is 0.", reference.kind, ", ".join(map(str, same)),
        )  # fmt: skip
    return same


# ---- knockout ----


def _edge_cells(
    model: HookedTransformer,
    prompts: Prompts,
    edges: Sequence[str],
    layers: Sequence[int],
    window: int,
    *,
    by_head: bool,
) -> Cells:
    names = list(checked_names(edges, "edges"))
    masks = [_edge(prompts, name) for name in names]
    spans = [window_of(layer, window, model.cfg.n_layers) for layer in layers]
    heads: list[tuple[int, ...] | None] = [(head,) for head in range(model.cfg.n_heads)] if by_head else [None]
    axes: list[tuple[str, list[Any]]] = [("layer", list(layers))]
    if by_head:
        axes.append(("head", list(range(model.cfg.n_heads))))
    axes.append(("edge", names))
    groups = [tuple(Part(layer, unit) for layer in span) for span in spans for unit in heads]
    return Cells(
        parts=tuple(group for group in groups for _ in names),
        place=np.tile(np.arange(len(names)), len(groups)),
        tokens=torch.stack([dest for dest, _ in masks]),
        shape=tuple(len(labels) for _, labels in axes),
        dims=tuple(dim for dim, _ in axes),
        coords=dict(axes),
        sources=torch.stack([src for _, src in masks]),
    )


def _edge(prompts: Prompts, name: str) -> tuple[Bool[Tensor, "prompt position"], Bool[Tensor, "prompt position"]]:
    """Destination and source tokens of an edge.

    Raises:
        InterpError: malformed, or a destination token would be left with nothing to attend to.
    """
    dest, src = (run.token_mask(prompts, role) for role in parse_edge(name))
    check_cut(dest[:, :, None] & src[:, None, :], f"Cutting '{name}'")
    return torch.from_numpy(dest), torch.from_numpy(src)
