"""``sweep``: put one run's activations into another, cell by cell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import xarray as xr

from interp import results
from interp import sites as table
from interp._arguments import check_pairs
from interp.errors import InterpError, shown
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps.cells import Axis, Cells, Sets, patch_cells
from interp.sweeps.engine import Precision, Screening, Term, plan_terms, run_terms
from interp.sweeps.exact.planner import Plan
from interp.sweeps.labels import About, patch_attributes, patch_variables, token_coords
from interp.sweeps.progress import Progress
from interp.sweeps.reading import checked_reading, scored_parts, whole_answers
from interp.sweeps.resume import AnyStore
from interp.sweeps.statement import Done, Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Direction: TypeAlias = Literal["denoising", "noising"]


def sweep(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    axis: Axis | None = None,
    roles: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    sets: Sets | None = None,
    neuron_groups: int | None = None,
    minimum_gap: float | None = None,
    precision: Precision = "float32",
    memory: int | None = None,
    store: AnyStore = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Patch every cell of a site and report the metric after each.

    Denoising runs the corrupted prompt and puts in the clean activation (is it sufficient?); noising runs the clean
    prompt and puts in the corrupted one (is it needed?). Heimersheim and Nanda 2024 (arXiv 2404.15255).

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        site: ``resid_pre resid_mid resid_post attn_out mlp_out mlp_pre mlp_post`` (cells: layer x position or role) or
            ``z q k v pattern`` (cells: layer x head, all positions at once unless roles or positions are given).
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts``, or a read-out.
        axis: ``"position"`` or ``"role"``; None takes positions where all prompts line up, else roles.
        roles: only these roles (a role of several tokens is patched whole).
        positions: only these positions.
        layers: only these layers.
        window: patch that many layers together, centred on each layer (cut off at the first and last).
        sets: name -> (layer, head) pairs (layers, at sites without heads) that are patched together; the axis ``set``
            then takes the place of ``layer`` and ``head``.
        neuron_groups: patch ``mlp_post`` in that many groups of neighbouring neurons (axis ``neuron_group``).
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        precision: ``"float32"`` computes in the model's own data type. ``"bfloat16"`` makes the matrix products of the
            blocks in bfloat16, for screening: effects come from it, baselines do not, and the attributes
            ``screening_max_error`` and ``screening_rms_error`` (the metric's units) say how far off a random sample of
            ``screening_rows`` rows was.
        memory: bytes that may be used beside the model; None is half of what is free.
        store: a directory (or ``interp.store.Store``) that keeps finished rows: a sweep that was interrupted goes on
            where it stopped, one that was finished is read.
        progress: called with rows done and rows in all.

    Returns:
        ``patched`` (prompt, layer, ...), ``clean`` and ``corrupted`` (prompt) in the metric's units, and ``recovered``
        = (patched - corrupted) / (clean - corrupted): 0 is corrupted behaviour, 1 is clean, in both directions.
        Attributes say how it was computed: ``engine`` (``weights`` or ``hooks``), ``rows_run`` of ``rows_in_all``,
        ``rows_kept`` (from the store), ``planned_flop``,
        ``planned_peak_bytes``, ``batches``.

    Raises:
        InterpError: an unknown site, direction, metric or role, or positions that mean different things in different
            prompts.
    """
    check_pairs(model, pairs)
    name = table.site(site).name
    swept = sweep_sites(
        model, pairs, [name], direction, metric,
        axis=axis, roles=roles, positions=positions, layers=layers, window=window, sets=sets,
        neuron_groups=neuron_groups, minimum_gap=minimum_gap, precision=precision, memory=memory, store=store,
        progress=progress,
    )  # fmt: skip
    return swept[name]


def sweep_sites(
    model: HookedTransformer,
    pairs: PromptPairs,
    sites: Sequence[str],
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    minimum_gap: float | None = None,
    precision: Precision = "float32",
    memory: int | None = None,
    store: AnyStore = None,
    progress: Progress | None = None,
    **cells: Any,
) -> dict[str, xr.Dataset]:
    """``sweep`` of several sites at once: the same numbers, for less.

    Both runs are traced once for all sites, rows of different sites ride in one batch, and what says the same is run
    once: a stream patched after a layer's MLP, or between its attention and its MLP, is the next layer's ``resid_pre``.
    Such rows count for the first site that has them (``rows_run``), the two runs for the first site (``planned_flop``).

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        sites: as ``site`` of ``sweep``.
        direction: as in ``sweep``.
        metric: as in ``sweep``.
        minimum_gap: as in ``sweep``.
        precision: as in ``sweep``.
        memory: as in ``sweep``.
        store: as in ``sweep``.
        progress: called with rows done and rows in all, over all sites.
        cells: ``sweep``'s arguments that say what is patched (``axis roles positions layers window``).

    Returns:
        Site -> what ``sweep`` returns.

    Raises:
        InterpError: what ``sweep`` refuses, or no site at all.
    """
    check_pairs(model, pairs)
    names = [site.name for site in table.check_sites(sites)]
    about = About.of(pairs, direction, metric, minimum_gap)
    terms = _stated(model, pairs, names, direction, metric, **cells)
    found = run_terms(model, terms, precision=precision, memory=memory, store=store, progress=progress)
    labelled = {
        site: _labelled(model, pairs, done, site=site, about=about, cells=swept.cells, screening=screening)
        for site, swept, (done, screening) in zip(names, terms[0].sweeps, found, strict=True)
    }
    small = labelled[names[0]].attrs["n_small_gap"]  # the runs are the same at every site
    if small:
        log.warning(
            "%d of %d prompts have a clean-corrupted gap below %g %s; their 'recovered' is NaN.",
            small, len(pairs), about.minimum_gap, about.units,
        )  # fmt: skip
    return labelled


def plan_sites(
    model: HookedTransformer,
    pairs: PromptPairs,
    sites: Sequence[str],
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    precision: Precision = "float32",
    memory: int | None = None,
    **cells: Any,
) -> Plan:
    """What ``sweep_sites`` would compute with the same arguments, without computing it, all sites together."""
    check_pairs(model, pairs)
    names = [site.name for site in table.check_sites(sites)]
    terms = _stated(model, pairs, names, direction, metric, **cells)
    return replace(plan_terms(model, terms, precision=precision, memory=memory), site=", ".join(names))


def plan(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    precision: Precision = "float32",
    memory: int | None = None,
    **cells: Any,
) -> Plan:
    """What ``sweep`` would compute with the same arguments, without computing it; printing it says it in words.

    Known from the tokens alone: rows whose activations turn out to be equal save more. ``cells`` are ``sweep``'s
    arguments that say what is patched (``axis roles positions layers window sets neuron_groups``).
    """
    check_pairs(model, pairs)
    name = table.site(site).name
    return plan_sites(model, pairs, [name], direction, metric, precision=precision, memory=memory, **cells)


def _stated(
    model: HookedTransformer,
    pairs: PromptPairs,
    names: Sequence[str],
    direction: str,
    metric: AnyReadout,
    **options: Any,
) -> list[Term]:
    """The sweeps, or for whole answers twice as many: right minus wrong is their difference."""
    check_direction(direction)
    whole = whole_answers(pairs, metric)
    if whole and (options.get("axis") == "position" or options.get("positions") is not None):
        raise InterpError("With whole answers (sum_logprob) prompts end at different places: sweep by role.")
    by_role = {"axis": "role", "roles": list(pairs.roles)} if whole and options.get("roles") is None else {}
    terms = []
    for sign, part, term in scored_parts(pairs, metric):
        base, source = base_and_source(part, direction)
        reading = checked_reading(model, part, term)
        swept = []
        for site in names:
            where = options if table.site(site).has_heads else options | by_role
            swept.append(Sweep(base, site, patch_cells(model, part, site, **where), reading, source))
        terms.append(Term(sign, tuple(swept)))
    return terms


def check_direction(direction: str) -> None:
    """Refuse anything but the names of the two directions."""
    if direction not in get_args(Direction):
        raise InterpError(f"Unknown direction {shown(direction)}. Choose 'denoising' or 'noising'.")


def base_and_source(pairs: PromptPairs, direction: str) -> tuple[Prompts, Prompts]:
    """The run that is patched, and the run whose activations are patched in.

    Raises:
        InterpError: an unknown direction.
    """
    check_direction(direction)
    runs = {"denoising": (pairs.corrupted, pairs.clean), "noising": (pairs.clean, pairs.corrupted)}
    return runs[direction]


# ---- the result ----


def _labelled(
    model: HookedTransformer,
    pairs: PromptPairs,
    found: Done,
    *,
    site: str,
    about: About,
    cells: Cells,
    screening: Screening | None,
) -> xr.Dataset:
    attrs = {"site": site, **patch_attributes(found, about, screening)}
    if not attrs["changed_something"]:
        log.warning("No patch of '%s' changed the metric at all: the two prompts have equal activations there.", site)
    patched = found.changed.reshape(len(pairs), *cells.shape)
    return results.build(
        patch_variables(found, patched, ("prompt", *cells.dims), about),
        coords=token_coords(pairs, cells),
        title=f"{about.direction} sweep of {site}",
        question=f"Which {site} is {'sufficient for' if about.direction == 'denoising' else 'needed for'} the answer?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean; values outside are real; NaN: the gap is too small.",
        source="Heimersheim and Nanda 2024, arXiv 2404.15255; Zhang and Nanda 2023, arXiv 2309.16042",
        of=(model, pairs),
        seed=0,
        extra=attrs,
    )
