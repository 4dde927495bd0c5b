"""Which gradient approximations can be trusted on this model and these prompts: each is held to exact patching.

A gradient estimates every patch at once; exact patching runs them one by one. Here estimates of several sites, and of
the edges between components, are checked where it counts (the cells that look largest) and where it could hide (a
random sample of the others). ``interp.attribution`` makes the estimates and the checks, and says what each is good for:
its numbers, its ranking only (as where it is off by a factor), or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from interp import results
from interp._arguments import check_pairs
from interp.attribution import Audit, attribution_patching, edge_attribution
from interp.attribution.audit import DEFAULT, LIMITS
from interp.attribution.nodes import QK_SITES
from interp.errors import InterpError, names, unknown_name
from interp.readouts import AnyReadout, readout
from interp.results import Variable
from interp.sites import head_label
from interp.sites import site as find_site
from interp.sweeps import Direction, Meter, Plan, Progress, costly, passes, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs


SITES = ("resid_pre", "mlp_out", "z", "v", "q", "k")
METHODS = ("gradient", "atp*")
EDGE_METHODS = ("eap", "eap-ig-inputs")

STEPS = 5
"""Of an integral, in the functions that make the estimates."""
SPARED = (("v", "gradient"), ("q", "gradient"), ("k", "gradient"))
"""Left out where a run is costly: AtP* corrects the gradient at q and k, and z has what comes of v."""
FEWER = 10
"""So many of the cells that do not look largest are patched where a run is costly."""
PROMPTS, COSTLY_PROMPTS = 16, 4
"""On so many prompts at most, and on so many where a run is costly: what is judged is cells, over their mean prompt."""

_NAMES = {
    "gradient": "gradient", "integrated": "integrated gradient", "atp*": "AtP*", "eap": "EAP",
    "eap-ig-inputs": "EAP-IG (inputs)", "eap-ig-activations": "EAP-IG (activations)",
}  # fmt: skip


_FIGURES = {
    "slope": ("", "slope of estimated on exact effects through the origin, by least absolute errors"),
    "largest_effect": ("", "largest exact effect of the audited cells, absolute"),
    "median_error": ("fraction", "median absolute error of large effects, of the largest exact effect"),
    "largest_error": ("fraction", "largest absolute error, of the largest exact effect"),
    "n_large": ("", "audited cells with a large effect"),
    "sign_errors": ("", "large effects that are estimated with the wrong sign"),
    "n_look_large": ("", "audited cells that look large"),
    "false_alarms": ("", "audited cells that look large and are not"),
    "false_alarm_rate": ("fraction", "share of the audited cells that look large and are not"),
    "missed": ("", "large effects among the sampled cells that look small"),
    "missed_rate": ("fraction", "share of the sampled cells that have a large effect and look small"),
    "missed_share": ("fraction", "estimated share of all large effects that look small"),
    "pearson": ("", "Pearson's correlation of estimated and exact effects"),
    "spearman": ("", "Spearman's correlation of estimated and exact effects"),
    "rank_agreement": ("", "agreement in the order of effects that differ by a large one (gamma)"),
    "top_k_recall": ("fraction", "audited cells with the largest effects that look largest"),
}
"""Name of an audit's figure -> its units and what it is. ``largest_effect`` has the metric's units."""

_INTERVALS = {
    "slope": ("", "slope, over prompts"),
    "false_alarm": ("fraction", "false_alarm_rate"),
    "missed": ("fraction", "missed_rate"),
}


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    sites: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    edge_methods: Sequence[str] = EDGE_METHODS,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    max_prompts: int | None = None,
    top_k: int = DEFAULT.top_k,
    random: int | None = None,
    large: float = DEFAULT.large,
    minimum_agreement: float = DEFAULT.minimum_agreement,
    maximum_factor: float = DEFAULT.maximum_factor,
    maximum_median_error: float = DEFAULT.maximum_median_error,
    maximum_error: float = DEFAULT.maximum_error,
    maximum_wrong: float = DEFAULT.maximum_wrong,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Estimate patches by gradients and check each kind of estimate against exact patching.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        sites: sites whose patches are estimated; None is those of ``SITES`` that the model has and lets anyone change,
            without the plain gradient at q, k and v where one run of one prompt takes over 1e9 operations.
        methods: how: ``"gradient"``, ``"integrated"``, and at q and k ``"atp*"``.
        edge_methods: how edges are estimated: ``"eap"``, ``"eap-ig-inputs"``, ``"eap-ig-activations"``.
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts`` or a read-out; a projection also by its settings.
        max_prompts: use only that many prompts, spread evenly over the set; None is 16, or 4 where one run of one
            prompt takes over 1e9 operations.
        top_k: how many of the cells that look largest are patched exactly, per approximation.
        random: how many of the others; None is 30, or 10 where one run of one prompt takes over 1e9 operations.
        large: share of the largest exact effect from which on an effect is large.
        minimum_agreement: least correlation and rank agreement (``Audit`` has the reasons for this and what follows).
        maximum_factor: by which the estimates may be too small or too large.
        maximum_median_error: of large effects, as a share of the largest.
        maximum_error: of any effect, as a share of the largest.
        maximum_wrong: share of wrong signs, misses and false alarms up to which a ranking serves.
        seed: of the random samples.
        progress: True for a bar, or called with approximations done and in all.

    Returns:
        Per ``approximation``: what it is good for (``use``: ``numbers``, ``ranking`` or ``nothing``), the ``reason``
        why it is not more, and ``trusted`` (1 for numbers); over the audited cells the ``slope`` of estimated on exact
        effects with its interval over prompts (``ci_bound``), ``median_error`` and ``largest_error`` as shares of
        ``largest_effect``, ``sign_errors`` among ``n_large`` effects, ``false_alarm_rate`` and ``missed_rate`` with
        their intervals, ``missed_share``, ``pearson``, ``spearman``, ``rank_agreement`` and ``top_k_recall``;
        ``n_audited`` of ``n_cells``.
        Per ``audited`` cell: ``cell`` (in words), ``estimated`` and ``exact`` prompt-mean effect (the metric's units;
        NaN beyond ``n_audited``) and whether it was ``looked_largest``. ``left_out`` says what this model does not
        offer, ``spared`` what was left out since a run takes long. The limits are attributes.

    Raises:
        InterpError: nothing to check, or what ``interp.attribution`` refuses.

    Two cells that look largest and two others, patched exactly. The gradient finds two thirds of their effects:

    >>> from analyses import approximation_audit
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> audited = approximation_audit.run(
    ...     model, pairs, sites=["z"], methods=["gradient"], edge_methods=[], top_k=2, random=2
    ... )
    >>> audited.use.item(), round(audited.slope.item(), 1)
    ('ranking', 0.6)
    """
    asked = _Asked.of(model, pairs, sites, methods, edge_methods, max_prompts)
    pairs = asked.pairs
    audit = Audit(
        top_k=top_k, random=_others(model, pairs, random), large=large, minimum_agreement=minimum_agreement,
        maximum_factor=maximum_factor,
        maximum_median_error=maximum_median_error, maximum_error=maximum_error, maximum_wrong=maximum_wrong,
    )  # fmt: skip
    common: dict[str, Any] = {"direction": direction, "metric": metric, "audit": audit, "seed": seed}
    checked, meter = [], Meter(progress, len(asked.wanted))
    for site, method in asked.wanted:
        if site == "edges":
            made = edge_attribution(model, pairs, method=method, **common)  # type: ignore[arg-type]
        else:
            made = attribution_patching(model, pairs, site, method=method, graddrop=False, **common)  # type: ignore[arg-type]
        checked.append(_Checked.of(f"{site}, {_NAMES[method]}", made))
        meter.add(1)
    return _labelled(model, asked, checked, audit, direction=direction, metric=readout(metric).name, seed=seed)


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    sites: Sequence[str] | None,
    methods: Sequence[str],
    edge_methods: Sequence[str],
    max_prompts: int | None,
    top_k: int,
    random: int | None,
) -> list[Plan]:
    """About what ``run`` computes with the same options, for each approximation. Nothing is run.

    Which cells are patched exactly is known only from the estimates: each counts as half a run, and each sweep that
    patches some of them as two.

    >>> from analyses import approximation_audit
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [plan.rows for plan in approximation_audit.planned(model, pairs, sites=["z"], edge_methods=[])]
    [56]
    """
    asked = _Asked.of(model, pairs, sites, methods, edge_methods, max_prompts)
    pairs = asked.pairs
    cells = top_k + _others(model, pairs, random)
    found = []
    for site, method in asked.wanted:
        gradients = _gradients(method, model.cfg.n_layers)
        forward = 4 + gradients + cells / 2 + 2 * _sweeps(pairs, site)  # 4: both prompts, read twice
        found.append(passes(model, pairs.clean, forward=forward, backward=gradients))
    return found


def _sweeps(pairs: PromptPairs, site: str) -> int:
    """In how many sweeps these cells are patched: those of a role share one, and edges and heads all share one."""
    return 1 if site == "edges" or find_site(site).has_heads else len(pairs.roles)


def _gradients(method: str, n_layers: int) -> int:
    """How often a method differentiates each prompt, with its usual number of steps."""
    match method:
        case "gradient" | "atp*" | "eap":
            return 1
        case "integrated":
            return STEPS * n_layers
        case "eap-ig-inputs":
            return STEPS
        case "eap-ig-activations":
            return STEPS * (2 * n_layers + 1)
        case _:
            raise InterpError(f"How often '{method}' differentiates is not written in analyses.approximation_audit.")


def _others(model: HookedTransformer, pairs: PromptPairs, random: int | None) -> int:
    """How many cells that do not look largest are patched exactly."""
    if random is not None:
        return random
    return FEWER if costly(model, pairs) else DEFAULT.random


def _wanted(
    model: HookedTransformer, sites: Sequence[str], methods: Sequence[str], edge_methods: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Sites (or ``edges``) with methods; and in words what is left out because the model's arithmetic is not known."""
    for method in (*methods, *edge_methods):
        if method not in _NAMES:
            raise unknown_name("method", method, _NAMES)
    wanted: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    for site in names(sites, "sites") if sites else ():
        model.check_editable(site)
        for method in methods:
            if method != "atp*":
                wanted.append((site, method))
            elif site in QK_SITES:  # elsewhere it is the gradient
                (left_out if model.blocks is None else wanted).append((site, method))
    for method in edge_methods:
        (left_out if model.blocks is None else wanted).append(("edges", method))
    if not wanted:
        raise InterpError("There is no approximation to check. Name sites with methods, or edge methods.")
    return wanted, [f"{site}, {_NAMES[method]}" for site, method in left_out]


@dataclass(frozen=True)
class _Asked:
    """What is checked, and on which prompts.

    Attributes:
        pairs: the prompts.
        wanted: sites (or ``edges``) with methods.
        left_out: in words, what the model's arithmetic does not offer.
        spared: in words, what is left out since a run takes long.
    """

    pairs: PromptPairs
    wanted: list[tuple[str, str]]
    left_out: list[str]
    spared: list[str]

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        sites: Sequence[str] | None,
        methods: Sequence[str],
        edge_methods: Sequence[str],
        max_prompts: int | None,
    ) -> _Asked:
        """What the options ask for; less where a run is costly and they leave it open."""
        check_pairs(model, pairs)
        less = costly(model, pairs)
        wanted, left_out = _wanted(model, model.editable(SITES) if sites is None else sites, methods, edge_methods)
        kept, spared = [one for one in wanted if one not in SPARED], list[str]()
        if sites is None and less and kept:
            spared = [f"{site}, {_NAMES[method]}" for site, method in wanted if (site, method) in SPARED]
            wanted = kept
        most = COSTLY_PROMPTS if less else PROMPTS
        return cls(pairs.spread(most if max_prompts is None else max_prompts), wanted, left_out, spared)


@dataclass(frozen=True)
class _Checked:
    """One approximation with its audited cells."""

    name: str
    figures: dict[str, Any]
    cells: list[str]
    estimated: np.ndarray
    exact: np.ndarray
    looked_largest: np.ndarray
    units: str

    @classmethod
    def of(cls, name: str, made: xr.Dataset) -> _Checked:
        audited = made["audited"].values.astype(bool)
        index = np.argwhere(audited)
        estimated, exact = (made[key].mean("prompt").values[audited] for key in ("estimated_effect", "exact_effect"))
        largest = np.zeros(len(index), dtype=bool)
        largest[np.argsort(-np.abs(estimated), kind="stable")[: int(made.attrs.get("audit_top_k", 0))]] = True
        dims = [str(dim) for dim in made["audited"].dims]
        cells = [_in_words({dim: made[dim].values[i] for dim, i in zip(dims, row, strict=True)}) for row in index]
        return cls(name, dict(made.attrs), cells, estimated, exact, largest, str(made["exact_effect"].attrs["units"]))


def _in_words(cell: dict[str, Any]) -> str:
    """``L1H0 at noun``, ``layer 2 at position 5``, ``L0H2 -> L1H0.q``."""
    if "sender" in cell:
        return f"{cell['sender']} -> {cell['receiver']}"
    layer = int(cell["layer"])
    head = next((int(cell[dim]) for dim in ("head", "kv_head") if dim in cell), None)
    words = f"layer {layer}" if head is None else head_label(layer, head)
    place = next(
        (f"{cell[dim]}" if dim == "role" else f"{dim} {cell[dim]}" for dim in ("role", "position") if dim in cell), ""
    )
    return f"{words} at {place}" if place else words


def _labelled(
    model: HookedTransformer,
    asked: _Asked,
    checked: Sequence[_Checked],
    audit: Audit,
    *,
    direction: str,
    metric: str,
    seed: int,
) -> xr.Dataset:
    most = max(1, *(len(one.cells) for one in checked))
    units = checked[0].units

    def padded(values: Sequence[np.ndarray]) -> np.ndarray:
        out = np.full((len(values), most), np.nan)
        for row, one in zip(out, values, strict=True):
            row[: len(one)] = one
        return out

    def figure(name: str, default: float = float("nan")) -> np.ndarray:
        return np.array([float(one.figures.get(f"audit_{name}", default)) for one in checked])

    each, cells = ("approximation",), ("approximation", "audited")
    names = np.array([[*one.cells, *[""] * (most - len(one.cells))] for one in checked], dtype=np.str_)

    def words(name: str) -> np.ndarray:
        return np.array([str(one.figures[f"audit_{name}"]) for one in checked], dtype=np.str_)

    def interval(name: str) -> np.ndarray:
        return np.stack([figure(f"{name}_low"), figure(f"{name}_high")], axis=1)

    stated = {
        name: Variable(each, figure(name), units if name == "largest_effect" else unit, long_name)
        for name, (unit, long_name) in _FIGURES.items()
    }
    bounds = {
        f"{name}_interval": Variable((*each, "ci_bound"), interval(name), unit, f"95% interval of {of}")
        for name, (unit, of) in _INTERVALS.items()
    }
    return results.build(
        {
            "use": Variable(each, words("use"), "", "what the estimates are good for: numbers, ranking or nothing"),
            "reason": Variable(each, words("reason"), "", "why they are not good for more"),
            "trusted": Variable(
                each, np.array([int(one.figures["trusted"]) for one in checked]), "", "1 where good as numbers"
            ),
            **stated,
            **bounds,
            "n_audited": Variable(each, figure("cells", 0).astype(int), "", "cells patched exactly"),
            "n_cells": Variable(each, figure("cells_eligible", 0).astype(int), "", "cells that could differ"),
            "cell": Variable(cells, names, "", "the audited cell"),
            "estimated": Variable(cells, padded([one.estimated for one in checked]), units, "estimated effect, mean"),
            "exact": Variable(cells, padded([one.exact for one in checked]), units, "effect by exact patching, mean"),
            "looked_largest": Variable(
                cells, padded([one.looked_largest for one in checked]), "", "1 where the estimate is among the largest"
            ),
        },
        coords={
            "approximation": [one.name for one in checked], "audited": np.arange(most), "ci_bound": ["lower", "upper"],
        },
        title="Gradient approximations held to exact patching",
        question="Where can a gradient stand in for patching, on this model and these prompts?",
        reading="Each mark is one patch: its effect by really making it across, by the gradient upwards. On the "
        "diagonal the approximation is right; on a line of another slope it is off by that factor.",
        source="Nanda 2023, attribution patching; Kramar et al. 2024, arXiv 2403.00745; Syed et al. 2023, "
        "arXiv 2310.10348; Hanna et al. 2024, arXiv 2403.17806",
        of=(model, asked.pairs),
        seed=seed,
        extra={
            "direction": direction,
            "metric": metric,
            **{name: float(getattr(audit, name)) for name in LIMITS},
            "left_out": "; ".join(asked.left_out) or "none",
            "spared": "; ".join(asked.spared) or "none",
        },
    )  # fmt: skip
