"""How estimated effects agree with exact ones: their size, their order, and single cells that are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.stats import rank_agreement, slope_interval, slope_through_origin, spearman, wilson_interval


@dataclass(frozen=True)
class Pairs:
    """Estimated and exact effects of the audited cells, those that look largest first.

    Attributes:
        estimates: [prompt, cell] the estimates.
        effects: [prompt, cell] the exact effects.
        k: how many look largest.
        others: how many cells do not look largest, of which the rest of these were drawn.
        large: share of the largest exact effect from which on an effect is large.
    """

    estimates: Float[np.ndarray, "prompt cell"]
    effects: Float[np.ndarray, "prompt cell"]
    k: int
    others: int
    large: float

    @property
    def whole(self) -> bool:
        """Whether every cell was patched, so that a rate is known and not estimated."""
        return self.n_drawn == self.others

    @property
    def n_drawn(self) -> int:
        """How many cells were drawn at random."""
        return int(self.effects.shape[1]) - self.k

    @property
    def guess(self) -> Float[np.ndarray, " cell"]:
        """Estimated effects, mean over prompts."""
        return np.asarray(self.estimates.mean(axis=0))

    @property
    def true(self) -> Float[np.ndarray, " cell"]:
        """Exact effects, mean over prompts."""
        return np.asarray(self.effects.mean(axis=0))

    @property
    def largest(self) -> float:
        """The largest exact effect, absolute."""
        return float(np.abs(self.true).max())

    @property
    def threshold(self) -> float:
        """The size from which on an effect is large."""
        return self.large * self.largest

    @property
    def ranked(self) -> bool:
        """Whether the exact effects differ by more than what counts as small, so that they have an order."""
        return bool(np.ptp(self.true) >= self.threshold)


FIGURES = (
    "pearson", "spearman", "spearman_random", "rank_agreement", "top_k_recall",
    "slope", "slope_low", "slope_high", "largest_effect", "median_error", "largest_error",
    "n_large", "sign_errors", "n_look_large", "false_alarms", "false_alarm_rate", "false_alarm_low", "false_alarm_high",
    "missed", "missed_rate", "missed_low", "missed_high", "missed_share",
)  # fmt: skip
"""What is stated of estimates: correlations, errors as shares of ``largest_effect``, counts and rates."""


FURTHEST_FACTOR = 100.0
"""A slope further from 1 than this is not taken for a factor of the estimates. There the gradient is the tail of a
saturated function, and the order of the estimates comes from the tail and not from the mechanism."""


def is_factor(slope: float, low: float) -> bool:
    """Whether the estimates are the exact effects times a factor; ``low`` is the slope's lower bound, or NaN."""
    return 1 / FURTHEST_FACTOR <= slope <= FURTHEST_FACTOR and not low <= 0


def unjudged(pairs: Pairs) -> str:
    """Why nothing can be said of the estimates; empty where something can."""
    if pairs.true.size < 3:
        return f"only {pairs.true.size} cells could differ, too few to judge by"
    if not np.isfinite(pairs.true).all():
        return "exact patching gave numbers that are not finite"
    if not pairs.largest:
        return "no patch of the audit changed the answer"
    if pairs.ranked and not np.ptp(pairs.guess):
        return "all estimated effects are equal"
    return ""


def figures(pairs: Pairs, seed: int) -> dict[str, float]:
    """The numbers named in ``FIGURES``; ``seed`` is that of the slope's interval."""
    slope = float(slope_through_origin(pairs.true, pairs.guess))
    low, high = slope_interval(pairs.effects, pairs.estimates, seed=seed)
    # Misses and false alarms are counted with the factor taken out, so that they tell of the order alone.
    scaled = pairs.guess / slope if is_factor(slope, low) else pairs.guess
    found = {
        **_agreement(pairs),
        "slope": slope, "slope_low": low, "slope_high": high,
        **_errors(pairs),
        **_false_alarms(pairs, scaled),
        **_missed(pairs, scaled),
    }  # fmt: skip
    return {name: found[name] for name in FIGURES}


def _agreement(pairs: Pairs) -> dict[str, float]:
    """Correlations, and how many of the largest effects look largest.

    Exact effects that are all about equal have no order, and correlations with them are noise: NaN.
    """
    guess, true, k = pairs.guess, pairs.true, pairs.k
    largest = np.argsort(-np.abs(true), kind="stable")[:k]
    found = {"top_k_recall": float((largest < k).mean())}
    if not pairs.ranked:
        return found | dict.fromkeys(("pearson", "spearman", "spearman_random", "rank_agreement"), float("nan"))
    return found | {
        "pearson": float(np.corrcoef(guess, true)[0, 1]),
        "spearman": spearman(guess, true),
        "spearman_random": spearman(guess[k:], true[k:]) if true.size - k > 2 else float("nan"),
        "rank_agreement": rank_agreement(guess, true, least=pairs.threshold),
    }


def _errors(pairs: Pairs) -> dict[str, float]:
    """Errors as shares of the largest exact effect, and wrong signs among large effects."""
    guess, true = pairs.guess, pairs.true
    error = np.abs(guess - true) / pairs.largest
    large = np.abs(true) >= pairs.threshold
    return {
        "largest_effect": pairs.largest,
        "median_error": float(np.median(error[large | (np.abs(guess) >= pairs.threshold)])),
        "largest_error": float(error.max()),
        "n_large": int(large.sum()),
        "sign_errors": int((large & (np.sign(guess) * np.sign(true) < 0)).sum()),
    }


def _false_alarms(pairs: Pairs, scaled: Float[np.ndarray, " cell"]) -> dict[str, float]:
    """Audited cells that look large and have less than half of a large effect, with a 95 % Wilson interval."""
    looks = np.abs(scaled) >= pairs.threshold
    n, false = int(looks.sum()), int((looks & (np.abs(pairs.true) < pairs.threshold / 2)).sum())
    rate, low, high = _rate(false, n, whole=pairs.whole)
    return {
        "n_look_large": n, "false_alarms": false,
        "false_alarm_rate": rate, "false_alarm_low": low, "false_alarm_high": high,
    }  # fmt: skip


def _missed(pairs: Pairs, scaled: Float[np.ndarray, " cell"]) -> dict[str, float]:
    """Large effects that look like less than half of one.

    ``missed`` counts them in the random sample. Its rate, with a 95 % Wilson interval, says how many of the cells that
    do not look large are. ``missed_share`` is their share of all large effects; if 30 of 90 cells were drawn, a drawn
    one counts as three.
    """
    k, large = pairs.k, np.abs(pairs.true) >= pairs.threshold
    missed = large & (np.abs(scaled) < pairs.threshold / 2)
    rate, low, high = _rate(int(missed[k:].sum()), pairs.n_drawn, whole=pairs.whole)
    weight = pairs.others / max(pairs.n_drawn, 1)
    all_missed, all_large = (some[:k].sum() + weight * some[k:].sum() for some in (missed, large))
    return {
        "missed": int(missed[k:].sum()), "missed_rate": rate, "missed_low": low, "missed_high": high,
        "missed_share": float(all_missed / all_large),
    }  # fmt: skip


def _rate(count: int, n: int, *, whole: bool) -> tuple[float, float, float]:
    """A rate with its interval. ``whole``: every cell was patched, so that the interval has no width."""
    rate = count / n if n else float("nan")
    return (rate, rate, rate) if whole and n else (rate, *wilson_interval(count, n))
