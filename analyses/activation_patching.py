"""Activation patching of every site, in both directions: which activations carry the answer, where, in which head.

Denoising puts a clean activation into the corrupted run (is it sufficient?), noising a corrupted one into the clean
run (is it needed?). Each cell is a real run with that one change; ``interp.sweep`` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import xarray as xr

from interp import results
from interp._arguments import check_pairs
from interp.errors import InterpError, unknown_name
from interp.readouts import AnyReadout, readout
from interp.results import Variable
from interp.sites import Site, check_sites
from interp.sweeps import (
    Axis,
    Direction,
    Patching,
    Plan,
    Progress,
    Where,
    costly,
    listener,
    plans_of,
    shifted,
    sweep_sites,
    whole_answers,
)

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

SITES = ("resid_pre", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern")
SPARED = ("q", "k", "v")
"""Sites that are left out where a run is costly: what they do goes through the pattern or z, which are patched too."""
BY_POSITION = "resid_pre"
"""The site that is also swept position by position, where positions mean the same in every prompt."""
BY_HEAD_AND_ROLE = "z"
"""The site that is also swept head by head at one role at a time."""


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    sites: Sequence[str] | None = None,
    directions: Sequence[Direction] = ("denoising", "noising"),
    roles: Sequence[str] | None = None,
    metric: AnyReadout = "logit_difference",
    by_position: bool | None = None,
    head_roles: Sequence[str] | None = None,
    max_prompts: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Patch every layer of every site, by role or by head, in both directions.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        sites: which to patch; None is those of ``SITES`` that the model has and lets anyone change, without q, k
            and v where one run of one prompt takes over 1e9 operations. Stream and block
            sites are patched at one role at a time (a role of several tokens is patched whole), head sites one head at
            a time at all positions at once.
        directions: ``"denoising"`` and/or ``"noising"``.
        roles: roles for stream and block sites; None is every role of the pairs.
        metric: a name from ``interp.readouts`` or a read-out; a projection also by its settings.
        by_position: also patch ``resid_pre`` position by position, if it is among ``sites`` and positions mean the same
            in every prompt (and whole answers are not scored); None is True unless one run of one prompt takes over 1e9
            operations.
        head_roles: also patch ``z`` of one head at one role, if it is among ``sites``, for these roles; None is every
            role, an empty list none.
        max_prompts: patch only that many prompts, spread evenly over the set; None is all. The cost is proportional.
        progress: True for a bar, or called with rows done and rows in all, over everything; a row is one prompt with
            one patch.

    Returns:
        For each site ``recovered_{site}`` and ``patched_{site}``, dims (direction, prompt, layer, role) or (direction,
        prompt, layer, head | kv_head); ``*_resid_pre_position`` (direction, prompt, layer, position); ``*_z_role``
        (direction, prompt, layer, head, role; NaN at roles outside ``head_roles``); ``clean`` and ``corrupted``
        (prompt). ``patched`` is the metric after the patch; ``recovered``, a fraction, is (patched - corrupted) /
        (clean - corrupted): 0 is corrupted behaviour and 1 is clean in both directions, values outside are real, NaN
        where the gap is below ``minimum_gap``. Attributes say how many prompts have too small a gap (``n_small_gap``),
        which sweeps changed nothing at all (``no_effect``), which of ``SITES`` are patched only if
        named (``left_out``), and how many rows had to be run (``rows_run_{sweep}`` of ``rows_in_all_{sweep}``).

    Raises:
        InterpError: nothing to sweep, an unknown site, direction, role or metric, or fewer than one prompt.

    Before layer 0 all of the difference lies at the colour itself; in the end, all of it at the last word:

    >>> from analyses import activation_patching
    >>> from interp import HookedTransformer, summary, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = activation_patching.run(model, pairs, sites=["resid_pre"], directions=["denoising"], by_position=False)
    >>> mean = summary.of(found, "recovered_resid_pre")["mean"].sel(direction="denoising")
    >>> round(float(mean.sel(layer=0, role="color")), 1), round(float(mean.sel(layer=3, role="answer")), 1)
    (1.0, 1.0)
    """
    check_pairs(model, pairs)
    wanted = _sites(model, pairs, sites)
    ways = _directions(directions)
    pairs = pairs.spread(max_prompts)
    plans = _plans(model, pairs, wanted, roles, head_roles, by_position)
    done, total = 0, len(ways) * sum(plan.rows for plan in plans)
    heard = listener(progress)
    swept: dict[str, list[xr.Dataset]] = {plan.name: [] for plan in plans}
    for direction in ways:
        for together in _together(plans):
            names, where = [plan.site for plan in together], together[0].where
            told = shifted(heard, done, total)
            found = sweep_sites(model, pairs, names, direction, metric, progress=told, **where)
            done += sum(plan.rows for plan in together)
            for plan in together:
                swept[plan.name].append(found[plan.site])
    return _result(model, pairs, plans, swept, ways, readout(metric).name)


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    sites: Sequence[str] | None,
    directions: Sequence[Direction],
    roles: Sequence[str] | None,
    metric: AnyReadout,
    by_position: bool | None,
    head_roles: Sequence[str] | None,
    max_prompts: int | None,
) -> list[Plan]:
    """The plans of the sweeps that ``run`` makes with the same options. Nothing is run.

    >>> from analyses import activation_patching
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [plan.rows_in_all for plan in activation_patching.planned(model, pairs, sites=["v"])]  # 2 prompts, 16 heads
    [32, 32]
    """
    check_pairs(model, pairs)
    wanted = _sites(model, pairs, sites)
    pairs = pairs.spread(max_prompts)
    plans = _plans(model, pairs, wanted, roles, head_roles, by_position)
    return [
        Patching([one.site for one in together], way, metric, together[0].where).plan(model, pairs)
        for together in _together(plans)
        for way in _directions(directions)
    ]


# ---- what was asked for ----


def _sites(model: HookedTransformer, pairs: PromptPairs, names: Sequence[str] | None) -> list[Site]:
    names = _usual(model, pairs) if names is None else names
    return [model.check_editable(name) for name in _site_names(names)]


def _usual(model: HookedTransformer, pairs: PromptPairs) -> list[str]:
    """The sites that are patched unless others are named."""
    spared = SPARED if costly(model, pairs) else ()
    return [name for name in model.editable(SITES) if name not in spared]


def _left_out(model: HookedTransformer, pairs: PromptPairs) -> list[str]:
    """What is not patched unless it is asked for."""
    usual = _usual(model, pairs)
    left_out = [site for site in SITES if site not in usual]
    spared = costly(model, pairs) and BY_POSITION in usual and pairs.aligned_positions
    return [*left_out, f"{BY_POSITION}_position"] if spared else left_out


def _site_names(names: Sequence[str]) -> list[str]:
    if not names:
        raise InterpError(f"There are no sites to patch. Give at least one of {', '.join(SITES)}.")
    return [site.name for site in check_sites(names)]


def _directions(directions: Sequence[Direction]) -> list[Direction]:
    known = get_args(Direction)
    names = [directions] if isinstance(directions, str) else list(directions)
    for name in names:
        if name not in known:
            raise unknown_name("direction", name, known)
    if not names:
        raise InterpError("There is no direction to patch in. Give 'denoising', 'noising' or both.")
    return [name for name in known if name in names]


@dataclass(frozen=True)
class _Plan:
    """One sweep to be made in each direction.

    Attributes:
        name: what its variables are called, after ``recovered_`` and ``patched_``.
        site: the site.
        axis: None is all positions at once.
        roles: roles of the axis ``role``.
        rows: prompts times cells, to tell the progress.
    """

    name: str
    site: str
    axis: Axis | None
    roles: tuple[str, ...] | None
    rows: int

    @property
    def where(self) -> Where:
        """What is patched at a time, as ``sweep_sites`` takes it."""
        return Where(axis=self.axis, roles=self.roles)

    @property
    def in_words(self) -> str:
        """What is patched at a time."""
        return f"{self.site}, {'all positions at once' if self.axis is None else f'one {self.axis} at a time'}"


def _plans(
    model: HookedTransformer,
    pairs: PromptPairs,
    wanted: Sequence[Site],
    roles: Sequence[str] | None,
    head_roles: Sequence[str] | None,
    by_position: bool | None,
) -> list[_Plan]:
    by_position = not costly(model, pairs) if by_position is None else by_position
    places = _roles(pairs, roles, "roles")
    of_heads = _roles(pairs, head_roles, "head_roles")
    whole = whole_answers(pairs, "logit_difference")
    # Whole answers are swept twice: once for each answer.
    per_cell = len(pairs) * model.cfg.n_layers * (2 if whole else 1)
    plans = []
    for site in wanted:
        if not site.has_heads:
            if not places:
                raise InterpError(f"Site '{site.name}' is patched by role, but no role was asked for. Give roles=.")
            plans.append(_Plan(site.name, site.name, "role", places, per_cell * len(places)))
            if site.name == BY_POSITION and by_position and pairs.aligned_positions and not whole:
                n_positions = pairs.clean.ids.shape[1]
                plans.append(_Plan(f"{site.name}_position", site.name, "position", None, per_cell * n_positions))
            continue
        n_heads = model.n_heads_of(site.name)
        plans.append(_Plan(site.name, site.name, None, None, per_cell * n_heads))
        if site.name == BY_HEAD_AND_ROLE and of_heads:
            rows = per_cell * n_heads * len(of_heads)
            plans.append(_Plan(f"{site.name}_role", site.name, "role", of_heads, rows))
    return plans


def _together(plans: Sequence[_Plan]) -> list[list[_Plan]]:
    """Plans that patch at the same places, which run as one."""
    groups: dict[Any, list[_Plan]] = {}
    for plan in plans:
        groups.setdefault((plan.axis, plan.roles), []).append(plan)
    return list(groups.values())


def _roles(pairs: PromptPairs, roles: Sequence[str] | None, option: str) -> tuple[str, ...]:
    if isinstance(roles, str):
        roles = [roles]
    chosen = tuple(pairs.roles if roles is None else dict.fromkeys(roles))
    for role in chosen:
        if role not in pairs.roles:
            raise unknown_name("role", role, pairs.roles, f" in {option}")
    return chosen


# ---- the result ----


def _result(
    model: HookedTransformer,
    pairs: PromptPairs,
    plans: Sequence[_Plan],
    swept: Mapping[str, Sequence[xr.Dataset]],
    directions: Sequence[Direction],
    metric: str,
) -> xr.Dataset:
    first = swept[plans[0].name][0]
    units = str(first["clean"].attrs["units"])
    clean, corrupted = first["clean"].values, first["corrupted"].values
    minimum_gap = float(first.attrs["minimum_gap"])
    used = [role for role in pairs.roles if any(role in (plan.roles or ()) for plan in plans)]
    variables = {
        "clean": Variable(("prompt",), clean, units, f"{metric} after the clean prompt"),
        "corrupted": Variable(("prompt",), corrupted, units, f"{metric} after the corrupted prompt"),
    }
    for plan in plans:
        for quantity, unit in (("recovered", "fraction"), ("patched", units)):
            parts = [one[quantity] for one in swept[plan.name]]
            if plan.axis == "role":
                parts = [part.reindex(role=used) for part in parts]
            dims = ("direction", *map(str, parts[0].dims))
            values = np.stack([part.values for part in parts])
            variables[f"{quantity}_{plan.name}"] = Variable(
                dims, values, unit, f"{quantity} by patching {plan.in_words}"
            )
    counts = {
        f"{count}_{plan.name}": sum(int(one.attrs[count]) for one in swept[plan.name])
        for count in ("rows_run", "rows_in_all")
        for plan in plans
    }
    unmoved = [
        f"{plan.name} {direction}"
        for plan in plans
        for direction, one in zip(directions, swept[plan.name], strict=True)
        if not one.attrs["changed_something"]
    ]
    return results.build(
        variables,
        coords=_coords(pairs, variables, directions, used),
        title="Activation patching",
        question="Which activations carry the answer: at which word, in which layer, through which head?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean, in both directions. Denoising near 1: sufficient; "
        "noising near 0: needed. NaN where the clean-corrupted gap is too small to divide by.",
        source="Meng et al. 2022, arXiv 2202.05262; Zhang and Nanda 2023, arXiv 2309.16042; "
        "Heimersheim and Nanda 2024, arXiv 2404.15255",
        of=(model, pairs),
        seed=0,
        extra={
            "metric": metric,
            "minimum_gap": minimum_gap,
            "n_small_gap": int((np.abs(clean - corrupted) < minimum_gap).sum()),
            "no_effect": "; ".join(unmoved) or "none",
            "left_out": ", ".join(_left_out(model, pairs)) or "none",
            "rows_run": sum(n for name, n in counts.items() if name.startswith("rows_run")),
            "rows_in_all": sum(n for name, n in counts.items() if name.startswith("rows_in_all")),
            "engine": str(first.attrs["engine"]),
            **counts,
        },
    )


def _coords(
    pairs: PromptPairs,
    variables: Mapping[str, Variable],
    directions: Sequence[Direction],
    roles: Sequence[str],
) -> dict[str, Any]:
    sizes = {dim: size for one in variables.values() for dim, size in zip(one.dims, np.shape(one.values), strict=True)}
    coords: dict[str, Any] = {dim: np.arange(size) for dim, size in sizes.items()}
    coords["direction"] = list(directions)
    if "role" in sizes:
        coords["role"] = list(roles)
    if "position" in sizes and pairs.clean.tokens is not None and pairs.corrupted.tokens is not None:
        coords["token"] = ("position", np.array(pairs.clean.tokens[0]))
        coords["corrupted_token"] = ("position", np.array(pairs.corrupted.tokens[0]))
    return coords
