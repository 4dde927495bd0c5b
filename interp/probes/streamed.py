"""Logistic regression on features that do not fit in memory: scikit-learn's objective, summed over chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp, softmax

from interp.errors import InterpError

Chunks: TypeAlias = Callable[[], Iterator[tuple[slice, Float[np.ndarray, "row feature"]]]]
"""Reads all rows once, some at a time, each chunk with where it stands."""

TOLERANCE = 1e-4
"""The largest entry of the gradient at which a fit ends, as in scikit-learn."""


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression.

    Attributes:
        classes: the labels, sorted.
        coef: weights (row, feature); of two classes there is one row.
        intercept: one per row.
        n_iter: iterations.
    """

    classes: Shaped[np.ndarray, " class"]
    coef: Float[np.ndarray, "row feature"]
    intercept: Float[np.ndarray, " row"]
    n_iter: int

    def predict(self, x: Float[np.ndarray, "row feature"]) -> Shaped[np.ndarray, " row"]:
        """The most probable label of each row."""
        scores = x @ self.coef.T + self.intercept
        chosen = (scores[:, 0] > 0).astype(int) if len(self.coef) == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes[chosen])


def stored_logistic(
    chunks: Chunks, labels: Shaped[np.ndarray, " row"], *, regularisation: float, max_iterations: int
) -> Logistic:
    """Logistic regression with an L2 penalty, by L-BFGS; every step reads all rows once.

    Objective, start, optimiser and tolerance are those of ``sklearn.linear_model.LogisticRegression`` (lbfgs), so that
    a fit in memory differs by the rounding of its sums.

    Args:
        chunks: reads the features.
        labels: one per row.
        regularisation: C, the inverse strength of the penalty.
        max_iterations: of L-BFGS.

    Raises:
        InterpError: one label only, or features that are not finite.

    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> found = stored_logistic(
    ...     lambda: iter([(slice(0, 2), x[:2]), (slice(2, 4), x[2:])]),
    ...     np.array(["low", "low", "high", "high"]),
    ...     regularisation=1.0,
    ...     max_iterations=100,
    ... )
    >>> found.predict(np.array([[0.5], [4.5]])).tolist()
    ['low', 'high']
    """
    classes, said = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InterpError(f"Every row has the label {classes[0]!r}, so there is nothing to fit. Give two labels.")
    width = next(chunks())[1].shape[1]
    n, n_rows = len(labels), 1 if len(classes) == 2 else len(classes)

    def objective(flat: Float[np.ndarray, " parameter"]) -> tuple[float, Float[np.ndarray, " parameter"]]:
        weights = flat.reshape(n_rows, width + 1)
        loss, gradient = 0.0, np.zeros_like(weights)
        for at, x in chunks():
            part, slope = _part(x @ weights[:, :-1].T + weights[:, -1], said[at])
            loss += part
            gradient[:, :-1] += slope.T @ x
            gradient[:, -1] += slope.sum(axis=0)
        if not np.isfinite(loss):
            raise InterpError("Some features are not finite. Places that a prompt lacks are NaN: choose others.")
        gradient /= n
        gradient[:, :-1] += weights[:, :-1] / (regularisation * n)
        return loss / n + 0.5 * float((weights[:, :-1] ** 2).sum()) / (regularisation * n), gradient.ravel()

    options = {"maxiter": max_iterations, "maxls": 50, "gtol": TOLERANCE, "ftol": 64 * np.finfo(float).eps}
    found = minimize(objective, np.zeros(n_rows * (width + 1)), jac=True, method="L-BFGS-B", options=options)
    weights = np.asarray(found.x).reshape(n_rows, width + 1)
    return Logistic(classes, weights[:, :-1], weights[:, -1], int(found.nit))


def _part(
    scores: Float[np.ndarray, "row class"], said: Int[np.ndarray, " row"]
) -> tuple[float, Float[np.ndarray, "row class"]]:
    """The summed loss of some rows, and its derivative by their scores."""
    if scores.shape[1] == 1:
        score = scores[:, 0]
        loss = -float(log_expit(np.where(said == 1, score, -score)).sum())
        return loss, (expit(score) - said)[:, None]
    right = np.arange(len(said)), said
    loss = float((logsumexp(scores, axis=1) - scores[right]).sum())
    slope = softmax(scores, axis=1)
    slope[right] -= 1.0
    return loss, slope
