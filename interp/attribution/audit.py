"""The audit of an approximation: exact patching of the cells that look largest and of a random sample of the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import InterpError
from interp.stats import spearman, wilson_interval

log = logging.getLogger(__name__)

Exact: TypeAlias = Callable[[Int[np.ndarray, " chosen"]], Float[np.ndarray, "prompt chosen"]]
"""Exact effects of chosen cells (indices into all cells)."""


@dataclass(frozen=True)
class Audit:
    """What is checked against exact patching, and how good it must be.

    All figures are about prompt-mean effects, signed. A cell whose two activations are equal, or that cannot reach
    the answer, is 0 by both routes and takes no part.

    Attributes:
        top_k: how many of the cells that look largest are patched exactly; never more than a quarter of the cells.
        random: how many of the others are, drawn evenly.
        minimum_agreement: Pearson's correlation over all audited cells below which the result says that it is not to
            be trusted. (Spearman's is stated but does not decide: where few cells matter, it ranks the noise of the
            others.)
        missed_above: a cell counts as missed if its exact effect is at least this large (the metric's units) and its
            estimate less than half of that; None takes the median exact effect of the cells that look largest.
        seed: of the random sample; None takes the function's.
    """

    top_k: int = 10
    random: int = 30
    minimum_agreement: float = 0.8
    missed_above: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.random < 0:
            raise InterpError(f"An audit needs top_k >= 1 and random >= 0, got {self.top_k} and {self.random}.")
        if not -1 <= self.minimum_agreement <= 1:
            raise InterpError(f"minimum_agreement is a correlation in [-1, 1], got {self.minimum_agreement}.")
        if self.missed_above is not None and not self.missed_above > 0:
            raise InterpError(f"missed_above is the size of an effect, above 0, got {self.missed_above}.")


DEFAULT = Audit()
"""The audit of every estimate that is not asked for another."""


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        cells: the cells that were patched exactly, indices into all cells.
        exact: their effects.
        figures: attributes for the result.
        verdict: one sentence for whoever reads the result; empty where the estimates held.
    """

    cells: Int[np.ndarray, " chosen"]
    exact: Float[np.ndarray, "prompt chosen"]
    figures: dict[str, str | int | float]
    verdict: str


NOT_AUDITED = Report(
    np.zeros(0, dtype=np.int64),
    np.zeros((1, 0)),
    {"audit_cells": 0, "audit_reason": "no audit was asked for", "trusted": 0},
    "Not checked against exact patching.",
)


def run_audit(
    audit: Audit,
    estimated: Float[np.ndarray, " cell"],
    exact: Exact,
    *,
    eligible: Bool[np.ndarray, " cell"],
    what: str,
    seed: int,
) -> Report:
    """Check prompt-mean estimates against exact patching.

    Args:
        audit: how much to check.
        estimated: prompt-mean estimated effects.
        exact: patches cells exactly.
        eligible: cells that could have an effect.
        what: name of what is estimated, for messages.
        seed: of the random sample, where the audit names none.
    """
    rng = np.random.default_rng(seed if audit.seed is None else audit.seed)
    candidates = np.flatnonzero(eligible)
    bad = int((~np.isfinite(estimated[candidates])).sum())
    order = candidates[np.argsort(-np.nan_to_num(np.abs(estimated[candidates]), nan=-np.inf), kind="stable")]
    k = min(audit.top_k, -(-len(order) // 4))
    top, rest = order[:k], order[k:]
    sampled = np.sort(rng.choice(rest, size=min(audit.random, len(rest)), replace=False))
    chosen = np.concatenate([top, sampled])
    effects = exact(chosen) if len(chosen) else np.zeros((1, 0))
    guess, true = estimated[chosen], effects.mean(axis=0)
    reason = _reason(guess, true, bad)
    figures: dict[str, str | int | float] = {
        "audit_cells": len(chosen),
        "audit_cells_eligible": len(candidates),
        "audit_top_k": k,
        "audit_random": len(sampled),
        "audit_seed": seed if audit.seed is None else audit.seed,
        **(dict.fromkeys(_CORRELATIONS, float("nan")) if reason else _agreement(guess, true, k)),
        **_missed(guess, true, k, audit.missed_above, whole=len(sampled) == len(rest)),
        "audit_minimum_agreement": audit.minimum_agreement,
    }
    agreement = float(figures["audit_pearson"])
    trusted = agreement >= audit.minimum_agreement
    checked = f"{len(chosen)} of {len(candidates)} cells patched exactly"
    if trusted:
        verdict = (
            f"Checked against exact patching: Pearson {agreement:.2f}, {checked}, "
            f"{figures['audit_missed']} of {len(sampled)} sampled cells missed."
        )
    else:
        reason = reason or f"Pearson {agreement:.2f} is below {audit.minimum_agreement:g}"
        verdict = f"Do not trust these estimates: {reason}; {checked}."
        log.warning("Estimates of %s are not to be trusted: %s; %s.", what, reason, checked)
    return Report(chosen, effects, figures | {"audit_reason": reason, "trusted": int(trusted)}, verdict)


def _reason(estimated: Float[np.ndarray, " chosen"], true: Float[np.ndarray, " chosen"], bad: int) -> str:
    """Why no agreement can be stated; empty where one can."""
    if bad:
        return f"{bad} estimates are not finite numbers"
    if len(true) < 3:
        return f"only {len(true)} cells could differ, too few for a correlation"
    if not np.isfinite(true).all():
        return "exact patching gave numbers that are not finite"
    for name, values in (("estimated", estimated), ("exact", true)):
        if np.ptp(values) == 0:
            return f"all {name} effects are equal"
    return ""


_CORRELATIONS = ("audit_pearson", "audit_spearman", "audit_spearman_random", "audit_top_k_recall")


def _agreement(guess: Float[np.ndarray, " chosen"], true: Float[np.ndarray, " chosen"], k: int) -> dict[str, float]:
    """Correlations over all audited cells and over the random sample, and how many of the largest were found."""
    largest = np.argsort(-np.abs(true), kind="stable")[:k]
    of_sample = spearman(guess[k:], true[k:]) if len(true) - k > 2 else float("nan")
    found = float((largest < k).mean())
    values = (float(np.corrcoef(guess, true)[0, 1]), spearman(guess, true), of_sample, found)
    return dict(zip(_CORRELATIONS, values, strict=True))


def _missed(
    guess: Float[np.ndarray, " chosen"], true: Float[np.ndarray, " chosen"], k: int, above: float | None, *, whole: bool
) -> dict[str, float]:
    """How many cells that do not look large are, from the random sample: a rate with its 95 % Wilson interval.

    The threshold does not depend on the sample, so the sample is a fair one of all cells that were left out.
    ``whole``: the sample is all of them, and the rate has no error.
    """
    threshold = above
    if threshold is None:
        threshold = float(np.median(np.abs(true[:k]))) if k else float("nan")
    missed = int(((np.abs(true[k:]) >= threshold) & (np.abs(guess[k:]) < threshold / 2)).sum())
    n = len(true) - k
    rate = missed / n if n else float("nan")
    low, high = (rate, rate) if whole and n else wilson_interval(missed, n)
    return {
        "audit_missed": missed,
        "audit_missed_threshold": threshold,
        "audit_missed_rate": rate,
        "audit_missed_low": low,
        "audit_missed_high": high,
    }
