"""The audit of an approximation: exact patching of the cells that look largest and of a random sample of the rest.

Three things can come of it. The estimates are good as numbers; or only as a ranking, because they are off by a factor
or too far off here and there; or they are good for nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.attribution.agreement import FIGURES, FURTHEST_FACTOR, Pairs, figures, is_factor, unjudged
from interp.errors import InterpError, shown

log = logging.getLogger(__name__)

Exact: TypeAlias = Callable[[Int[np.ndarray, " chosen"]], Float[np.ndarray, "prompt chosen"]]
"""Exact effects of chosen cells (indices into all cells)."""

Use: TypeAlias = Literal["numbers", "ranking", "nothing"]
"""What audited estimates are good for."""


@dataclass(frozen=True)
class Audit:
    """What is checked against exact patching, and how good it must be.

    All figures are about prompt-mean effects, signed. A cell whose two activations are equal, or that cannot reach
    the answer, is 0 by both routes and takes no part. An effect is large if it is at least ``large`` times the largest
    exact effect that the audit found. The slope is that of ``estimated = slope x exact``
    (``stats.slope_through_origin``), its 95 % interval a bootstrap over the prompts with the audited cells held fixed.

    As numbers the estimates are trusted if every limit here is kept and no large effect has the wrong sign, was missed
    or is a false alarm. As a ranking they are offered if, once divided by the slope, they keep ``minimum_agreement``
    and ``maximum_wrong``.

    Attributes:
        top_k: how many of the cells that look largest are patched exactly; never more than a quarter of the cells.
        random: how many of the others are, drawn evenly.
        large: share of the largest exact effect from which on an effect is large. Below it, effects are mostly
            differences of rounding or of no interest, and neither their order nor their sign is judged.
        minimum_agreement: least Pearson's correlation over all audited cells, and least ``stats.rank_agreement`` over
            the pairs of them whose exact effects differ by a large effect. (Spearman's correlation is stated but does
            not decide: where few cells matter, it ranks the noise of the others.)
        maximum_factor: by which estimates may be too small or too large: all of the slope's interval lies within
            1 / maximum_factor and maximum_factor. Correlations do not see this.
        maximum_median_error: of the large effects (by either route), as a share of the largest exact effect.
        maximum_error: of any audited cell, as a share of the largest exact effect: one false edge does not show in
            medians and little in correlations.
        maximum_wrong: share of large effects with the wrong sign, of those missed, and of cells that look large and
            are not, up to which a ranking still serves to choose what to patch exactly.
        seed: of the random sample; None takes the function's.

    >>> audit = Audit(top_k=3, random=5, maximum_factor=1.1)
    >>> audit.maximum_factor, audit.large
    (1.1, 0.2)
    """

    top_k: int = 10
    random: int = 30
    large: float = 0.2
    minimum_agreement: float = 0.8
    maximum_factor: float = 1.25
    maximum_median_error: float = 0.1
    maximum_error: float = 0.25
    maximum_wrong: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.random < 0:
            raise InterpError(
                f"An audit needs top_k >= 1 and random >= 0, got {shown(self.top_k)} and {shown(self.random)}."
            )
        if not 0 < self.large <= 1:
            raise InterpError(
                f"large is a share of the largest effect, above 0 and at most 1, got {shown(self.large)}."
            )
        if not -1 <= self.minimum_agreement <= 1:
            raise InterpError(f"minimum_agreement is a correlation in [-1, 1], got {shown(self.minimum_agreement)}.")
        if not 1 <= self.maximum_factor <= FURTHEST_FACTOR:
            raise InterpError(
                f"maximum_factor lies between 1 and {FURTHEST_FACTOR:g}, got {shown(self.maximum_factor)}."
            )
        for name in ("maximum_median_error", "maximum_error", "maximum_wrong"):
            if not 0 <= getattr(self, name) <= 1:
                raise InterpError(f"{name} is a share between 0 and 1, got {shown(getattr(self, name))}.")


DEFAULT = Audit()
"""The audit of every estimate that is not asked for another."""

LIMITS = (
    "large", "minimum_agreement", "maximum_factor", "maximum_median_error", "maximum_error", "maximum_wrong",
)  # fmt: skip
"""The settings of an audit that decide what the estimates are good for, by name."""


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        cells: the cells that were patched exactly, indices into all cells.
        exact: their effects.
        figures: attributes for the result.
        verdict: one sentence for whoever reads the result.
    """

    cells: Int[np.ndarray, " chosen"]
    exact: Float[np.ndarray, "prompt chosen"]
    figures: dict[str, str | int | float]
    verdict: str


NOT_AUDITED = Report(
    np.zeros(0, dtype=np.int64),
    np.zeros((1, 0)),
    {"audit_cells": 0, "audit_use": "nothing", "audit_reason": "no audit was asked for", "trusted": 0},
    "Not checked against exact patching.",
)


def run_audit(
    audit: Audit,
    estimated: Float[np.ndarray, "prompt cell"],
    exact: Exact,
    *,
    eligible: Bool[np.ndarray, " cell"],
    what: str,
    seed: int,
) -> Report:
    """Check estimates against exact patching.

    Args:
        audit: how much to check.
        estimated: estimated effects.
        exact: patches cells exactly.
        eligible: cells that could have an effect.
        what: name of what is estimated, for messages.
        seed: of the random sample, where the audit names none.
    """
    seed = seed if audit.seed is None else audit.seed
    rng = np.random.default_rng(seed)
    candidates = np.flatnonzero(eligible)
    means = estimated.mean(axis=0)
    bad = int((~np.isfinite(means[candidates])).sum())
    order = candidates[np.argsort(-np.nan_to_num(np.abs(means[candidates]), nan=-np.inf), kind="stable")]
    k = min(audit.top_k, -(-len(order) // 4))
    top, rest = order[:k], order[k:]
    sampled = np.sort(rng.choice(rest, size=min(audit.random, len(rest)), replace=False))
    chosen = np.concatenate([top, sampled])
    effects = exact(chosen) if len(chosen) else np.zeros((1, 0))
    pairs = Pairs(estimated[:, chosen], effects, k, len(rest), audit.large)
    reason = f"{bad} estimates are not finite numbers" if bad else unjudged(pairs)
    use: Use = "nothing"
    found, reasons = dict.fromkeys(FIGURES, float("nan")), [reason]
    if not reason:
        found = figures(pairs, seed)
        use, reasons = judged(audit, found)
    verdict = _verdict(use, reasons, found, f"{len(chosen)} of {len(candidates)} cells patched exactly")
    if use != "numbers":
        log.warning("Estimates of %s: %s", what, verdict)
    attributes: dict[str, str | int | float] = {
        "audit_cells": len(chosen),
        "audit_cells_eligible": len(candidates),
        "audit_top_k": k,
        "audit_random": len(sampled),
        "audit_seed": seed,
        **{f"audit_{name}": value for name, value in found.items()},
        **{f"audit_limit_{name}": getattr(audit, name) for name in LIMITS},
        "audit_use": use,
        "audit_reason": "; ".join(reasons),
        "trusted": int(use == "numbers"),
    }
    return Report(chosen, effects, attributes, verdict)


# ---- the judgement ----


def judged(audit: Audit, found: Mapping[str, float]) -> tuple[Use, list[str]]:
    """What the estimates are good for, and why they are not good for more."""
    agreement = _disagreements(audit, found)
    as_numbers = [*agreement, *_faults_as_numbers(audit, found)]
    if not as_numbers:
        return "numbers", []
    as_ranking = [*_faults_of_factor(found), *agreement, *_faults_as_ranking(audit, found)]
    return ("nothing", as_ranking) if as_ranking else ("ranking", as_numbers)


def _disagreements(audit: Audit, found: Mapping[str, float]) -> list[str]:
    """Correlations that are too low; where the exact effects have no order they are NaN and say nothing."""
    named = (("Pearson", found["pearson"]), ("rank agreement", found["rank_agreement"]))
    least = audit.minimum_agreement
    return [f"{name} {value:.2f} is below {least:g}" for name, value in named if value < least]


def _faults_as_numbers(audit: Audit, found: Mapping[str, float]) -> list[str]:
    slope, low, high, most = found["slope"], found["slope_low"], found["slope_high"], audit.maximum_factor
    errors = (
        ("median error of the large effects", found["median_error"], audit.maximum_median_error),
        ("largest error", found["largest_error"], audit.maximum_error),
    )
    faults = []
    if not 1 / most <= slope <= most:
        faults.append(f"they are about {factor_text(slope)} ({_slope_text(found)})")
    elif low < 1 / most or high > most:  # NaN of one prompt is neither: its slope is about that prompt alone
        faults.append(f"{_slope_text(found)} may lie outside {1 / most:.3g} to {most:.3g}")
    faults += [
        f"the {name} is {error:.0%} of the largest effect, above {limit:.0%}"
        for name, error, limit in errors
        if error > limit
    ]
    return [*faults, *_wrong(found, 0)]


def _faults_of_factor(found: Mapping[str, float]) -> list[str]:
    slope = found["slope"]
    if is_factor(slope, found["slope_low"]):
        return []
    if slope > 0 and not found["slope_low"] <= 0:
        return [f"they are about {factor_text(slope)}, more than {FURTHEST_FACTOR:g}"]
    return [f"they do not grow with the exact effects ({_slope_text(found)})"]


def _faults_as_ranking(audit: Audit, found: Mapping[str, float]) -> list[str]:
    if math.isnan(found["pearson"]):
        return ["the exact effects are all about equal, there is nothing to rank"]
    return _wrong(found, audit.maximum_wrong)


def _wrong(found: Mapping[str, float], share: float) -> list[str]:
    """Wrong signs, false alarms and misses, where they are more than a share of what they could be."""
    counts = (
        ("sign_errors", "n_large", "large effects have the wrong sign"),
        ("false_alarms", "n_look_large", "cells that look large are not"),
    )
    faults = [f"{found[one]} of {found[of]} {text}" for one, of, text in counts if found[one] > share * found[of]]
    if found["missed_share"] > share:
        faults.append(f"an estimated {found['missed_share']:.0%} of the large effects look small")
    return faults


# ---- in words ----


def factor_text(slope: float) -> str:
    """``12 times too small``, ``1.3 times too large``."""
    return f"{1 / slope:.3g} times too small" if slope < 1 else f"{slope:.3g} times too large"


def _slope_text(found: Mapping[str, float]) -> str:
    interval = "" if math.isnan(found["slope_low"]) else f" [{found['slope_low']:.3g}, {found['slope_high']:.3g}]"
    return f"slope {found['slope']:.3g}{interval}"


def _verdict(use: Use, reasons: list[str], found: Mapping[str, float], checked: str) -> str:
    if use == "nothing":
        return f"Do not use these estimates: {'; '.join(reasons)}; {checked}."
    if use == "ranking":
        return f"Use these estimates as a ranking only: {'; '.join(reasons)}; {checked}."
    assert use == "numbers", use
    pearson = "" if math.isnan(found["pearson"]) else f"Pearson {found['pearson']:.2f}, "
    return (
        f"Checked against exact patching: {_slope_text(found)}, {pearson}largest error {found['largest_error']:.0%} of "
        f"the largest effect, none of the large effects missed; {checked}."
    )
