"""How right a method is where the answer is known: order of its scores, what it misses, what it names wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class Score:
    """What came of a method on one model.

    Attributes:
        auroc: the chance that something true has a larger score than something that is not, of what the method scores;
            NaN where one of the two is lacking.
        found: true ones that it names.
        true: true ones that there are, whether it can score them or not.
        false_alarms: others that it names.
        others: others that it scores.

    >>> from interp import groundtruth
    >>> groundtruth.score({"L0H0": 1.0, "L0H1": 0.0}, frozenset({"L0H0"}), frozenset({"L0H0"})).auroc
    1.0
    """

    auroc: float
    found: int
    true: int
    false_alarms: int
    others: int


def score(scores: Mapping[str, float], named: frozenset[str], true: frozenset[str]) -> Score:
    """Hold a method's scores, and what it names at its own threshold, to the truth.

    Args:
        scores: what the method scores -> its score, larger where it says more; NaN is left out.
        named: what it says has an effect.
        true: what has one.

    >>> score({"a": 0.9, "b": 0.2, "c": 0.1}, frozenset({"a", "c"}), frozenset({"a", "d"}))
    Score(auroc=1.0, found=1, true=2, false_alarms=1, others=2)
    """
    finite = {name: value for name, value in scores.items() if np.isfinite(value)}
    is_true = np.array([name in true for name in finite])
    both = bool(is_true.any() and not is_true.all())
    auroc = float(roc_auc_score(is_true, list(finite.values()))) if both else float("nan")
    return Score(auroc, len(named & true), len(true), len(named - true), int((~is_true).sum()))
