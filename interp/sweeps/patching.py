"""``sweep``: put one run's activations into another, cell by cell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack, get_args

import xarray as xr

from interp import results
from interp import sites as table
from interp._arguments import check_pairs
from interp.errors import InterpError, shown
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps.cells import Cells, patch_cells
from interp.sweeps.engine import Screening, Term, plan_terms, run_terms
from interp.sweeps.exact.planner import Plan
from interp.sweeps.labels import About, patch_attributes, patch_variables, token_coords
from interp.sweeps.options import How, Options, Precision, Where, parted, shows
from interp.sweeps.reading import checked_reading, scored_parts, whole_answers
from interp.sweeps.statement import Done, Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)

Direction: TypeAlias = Literal["denoising", "noising"]


@shows(Options)
def sweep(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    minimum_gap: float | None = None,
    **options: Unpack[Options],
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
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        options: which cells (``axis roles positions layers window sets neuron_groups``; see ``interp.sweeps.Where``)
            and how it is run (``precision memory store progress``; see ``interp.sweeps.How``).

    Returns:
        ``patched`` (prompt, layer, ...), ``clean`` and ``corrupted`` (prompt) in the metric's units, and ``recovered``
        = (patched - corrupted) / (clean - corrupted): 0 is corrupted behaviour, 1 is clean, in both directions.
        Attributes say how it was computed: ``engine`` (``weights`` or ``hooks``), ``rows_run`` of ``rows_in_all``,
        ``rows_kept`` (from the store), ``planned_flop``, ``planned_peak_bytes``, ``batches``.

    Raises:
        InterpError: an unknown site, direction, metric, role or keyword, or positions that mean different things in
            different prompts.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> effect = sweep(model, pairs, "resid_pre", roles=["color", "answer"])
    >>> mean = effect.recovered.mean("prompt")  # layer role
    >>> (mean > 0.5).values.tolist()  # before layer 0 all is at the colour, from layer 2 on at the last word
    [[True, False], [False, False], [False, True], [False, True]]
    """
    check_pairs(model, pairs)
    name = table.site(site).name
    return sweep_sites(model, pairs, [name], direction, metric, minimum_gap=minimum_gap, **options)[name]


@shows(Options)
def sweep_sites(
    model: HookedTransformer,
    pairs: PromptPairs,
    sites: Sequence[str],
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    minimum_gap: float | None = None,
    **options: Unpack[Options],
) -> dict[str, xr.Dataset]:
    """``sweep`` of several sites at once: the same numbers, for less.

    Both runs are computed once for all sites, and rows of different sites share batches. Cells of two sites that make
    the same change are run once: to patch the stream after a layer's MLP, or between its attention and its MLP, is to
    patch the next layer's ``resid_pre``. In ``rows_run`` such rows count for the first site that has them; in
    ``planned_flop`` the two runs count for the first site.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        sites: as ``site`` of ``sweep``.
        direction: as in ``sweep``.
        metric: as in ``sweep``.
        minimum_gap: as in ``sweep``.
        options: as in ``sweep``; ``progress`` counts the rows of all sites.

    Returns:
        Site -> what ``sweep`` returns.

    Raises:
        InterpError: what ``sweep`` refuses, or no site at all.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> effects = sweep_sites(model, pairs, ["z", "mlp_out"])
    >>> best = {site: float(effect.recovered.mean("prompt").max()) for site, effect in effects.items()}
    >>> best["z"] > 0.9, best["mlp_out"] > 0.9  # one head alone brings the answer back, no MLP does
    (True, False)
    """
    where, how = parted(options)
    return Patching(sites, direction, metric, where, minimum_gap).run(model, pairs, **how)


@dataclass(frozen=True)
class Patching:
    """The statement of a patch sweep: what ``sweep_sites`` is asked, of any model and any pairs.

    Attributes:
        sites: a site, or several that are run together.
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts``, or a read-out.
        where: which cells are patched.
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import Patching, Where
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> asked = Patching("resid_pre", "denoising", where=Where(roles=["color"], layers=[0]))
    >>> asked.run(model, pairs)["resid_pre"].recovered.round(3).values.tolist()  # prompt layer role
    [[[1.0]], [[1.0]]]
    """

    sites: str | Sequence[str]
    direction: Direction = "denoising"
    metric: AnyReadout = "logit_difference"
    where: Where = field(default_factory=Where)
    minimum_gap: float | None = None

    def plan(
        self,
        model: HookedTransformer,
        pairs: PromptPairs,
        *,
        precision: Precision = "float32",
        memory: int | None = None,
    ) -> Plan:
        """What ``run`` would compute, all sites together."""
        names, terms = self._terms(model, pairs)
        return replace(plan_terms(model, terms, precision=precision, memory=memory), site=", ".join(names))

    def run(self, model: HookedTransformer, pairs: PromptPairs, **how: Unpack[How]) -> dict[str, xr.Dataset]:
        """Site -> what ``sweep`` returns."""
        names, terms = self._terms(model, pairs)
        about = About.of(pairs, self.direction, self.metric, self.minimum_gap)
        found = run_terms(model, terms, **how)
        window = self.where.get("window", 1)
        labelled = {
            site: _labelled(
                model, pairs, done, site=site, about=about, cells=swept.cells, window=window, screening=screening
            )
            for site, swept, (done, screening) in zip(names, terms[0].sweeps, found, strict=True)
        }
        small = labelled[names[0]].attrs["n_small_gap"]  # the runs are the same at every site
        if small:
            log.warning(
                "%d of %d prompts have a clean-corrupted gap below %g %s; their 'recovered' is NaN.",
                small, len(pairs), about.minimum_gap, about.units,
            )  # fmt: skip
        return labelled

    def _terms(self, model: HookedTransformer, pairs: PromptPairs) -> tuple[list[str], list[Term]]:
        """The sites, and their sweeps; for whole answers twice as many: right minus wrong is their difference."""
        check_pairs(model, pairs)
        names = [site.name for site in table.check_sites(self.sites)]
        check_direction(self.direction)
        where = self.where
        if whole_answers(pairs, self.metric):
            if where.get("axis") == "position" or where.get("positions") is not None:
                raise InterpError("With whole answers (sum_logprob) prompts end at different places: sweep by role.")
            if where.get("roles") is None:
                where = where | {"axis": "role", "roles": list(pairs.roles)}
        terms = []
        for sign, part, term in scored_parts(pairs, self.metric):
            base, source = base_and_source(part, self.direction)
            reading = checked_reading(model, part, term)
            swept = []
            for site in names:
                cells = patch_cells(model, part, site, self.where if table.site(site).has_heads else where)
                swept.append(Sweep(base, site, cells, reading, source))
            terms.append(Term(sign, tuple(swept)))
        return names, terms


def check_direction(direction: str) -> None:
    """Refuse anything but the names of the two directions."""
    if direction not in get_args(Direction):
        raise InterpError(f"Unknown direction {shown(direction)}. Choose 'denoising' or 'noising'.")


def base_and_source(pairs: PromptPairs, direction: str) -> tuple[Prompts, Prompts]:
    """The run that is patched, and the run whose activations are patched in.

    Raises:
        InterpError: an unknown direction.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10)
    >>> base, source = base_and_source(pairs, "denoising")  # the corrupted prompt runs, and gets clean activations
    >>> base.ids.tolist(), source.ids.tolist()
    ([[5, 8, 7]], [[5, 6, 7]])
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
    window: int,
    screening: Screening | None,
) -> xr.Dataset:
    attrs = {"site": site, "window": window, **patch_attributes(found, about, screening)}
    if not attrs["changed_something"]:
        log.warning(
            "No patch of '%s' changed the metric at all: the activations are equal there, or the read-out does not "
            "depend on them.", site,
        )  # fmt: skip
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
