"""How far a classifier's probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from interp import stats
from interp.errors import InterpError


def brier_score(probabilities: Float[np.ndarray, "row class"], labels: Int[np.ndarray, " row"]) -> float:
    """Mean squared distance of the probabilities from what was the case (Brier 1950).

    It is the sum over all classes, so it lies in [0, 2]: 0 for certainty in the right label, 2 for certainty in a wrong
    one, and 1 - 1/K for K equal probabilities. scikit-learn's score of two classes is half of it.

    Args:
        probabilities: of each class; rows sum to 1.
        labels: the class that was the case, by its number.

    Raises:
        InterpError: no rows, or labels that are no columns.

    >>> brier_score(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]))
    0.25
    """
    _check(probabilities, labels)
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())


def expected_calibration_error(
    probabilities: Float[np.ndarray, "row class"], labels: Int[np.ndarray, " row"], *, bins: int = 10
) -> float:
    """How far the confidence in the predicted label is from how often it is right, on average, in [0, 1].

    It is ``interp.stats.calibration_error`` of the probability of the predicted label. On few rows it is above 0 even
    for perfect probabilities.

    Args:
        probabilities: of each class; rows sum to 1.
        labels: the class that was the case, by its number.
        bins: of equal width over [0, 1], into which the confidences are sorted.

    Raises:
        InterpError: no rows, labels that are no columns, or fewer than one bin.

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return float(stats.calibration_error(confidence[:, None], right[:, None].astype(np.float64), bins=bins))


def _check(probabilities: Float[np.ndarray, "row class"], labels: Int[np.ndarray, " row"]) -> None:
    if not len(labels) or len(labels) != len(probabilities):
        raise InterpError(f"Calibration needs a label per row, and rows: {len(labels)} and {len(probabilities)}.")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise InterpError(f"Labels are numbers of columns, 0 to {probabilities.shape[1] - 1}; one is not.")
