"""The logistic probe of this library: scikit-learn's, on standardised features, and the choice of its penalty."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from interp._threads import threads_for
from interp.errors import InterpError

REGULARISATION = 0.1
"""C of ``LogisticRegression``: the inverse strength of its L2 penalty, on features of unit variance."""

CANDIDATES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of C among which a fit can choose."""

MAX_ITERATIONS = 300
"""Iterations of lbfgs, after which a fit is stopped and counted as such."""


WIDE = 4
"""From so many features for each row on a fit among the rows' span is quicker."""


class Fitted(NamedTuple):
    """A probe with the scaling of its features; without a probe, the only label that its fit had.

    Attributes:
        scaler: fitted on the same rows.
        probe: the classifier, or None where the fit had one label only.
        only: that label.
        converged: whether the fit ended by itself.
    """

    scaler: StandardScaler
    probe: LogisticRegression | None
    only: Shaped[np.ndarray, ""]
    converged: bool


@contextmanager
def quiet() -> Iterator[None]:
    """Silence two warnings of scikit-learn that are none here.

    >>> with quiet():
    ...     warnings.warn("stopped early", ConvergenceWarning)
    """
    with warnings.catch_warnings():
        # Counted and reported instead: a fit stopped early is still a fair probe.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Labels are words: many of them are no sign of a regression.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        yield


def fitted(
    x: Float[np.ndarray, "row feature"],
    labels: Shaped[np.ndarray, " row"],
    *,
    regularisation: float = REGULARISATION,
    max_iterations: int | None = None,
) -> Fitted:
    """Multinomial logistic regression (L2, lbfgs) on features standardised by these rows.

    >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> predictions(fitted(x, np.array(["low", "low", "high", "high"])), np.array([[0.5], [4.5]])).tolist()
    ['low', 'high']
    """
    scaler, longest = StandardScaler(), MAX_ITERATIONS if max_iterations is None else max_iterations
    if len(np.unique(labels)) == 1:
        return Fitted(scaler, None, labels[0], True)
    scaled = scaler.fit(x).transform(x)
    probe = LogisticRegression(C=regularisation, max_iter=longest)
    with quiet(), threads_for(scaled.size):
        if scaled.shape[1] > WIDE * len(scaled):
            _fit_among_rows(probe, scaled, labels)
        else:
            probe.fit(scaled, labels)
    return Fitted(scaler, probe, labels[0], int(np.max(probe.n_iter_)) < longest)


def _fit_among_rows(
    probe: LogisticRegression, x: Float[np.ndarray, "row feature"], labels: Shaped[np.ndarray, " row"]
) -> None:
    """The same fit in as many numbers as there are rows.

    A squared penalty leaves nothing of the coefficients outside the span of the rows, and a rotation changes neither
    the loss nor the penalty.
    """
    basis, rotated = np.linalg.qr(x.T.astype(np.float64))
    probe.fit(rotated.T.astype(x.dtype), labels)
    probe.coef_ = (probe.coef_ @ basis.T).astype(x.dtype)
    probe.n_features_in_ = x.shape[1]


def predictions(one: Fitted, x: Float[np.ndarray, "row feature"]) -> Shaped[np.ndarray, " row"]:
    """What a fitted probe says of other rows.

    >>> predictions(fitted(np.zeros((2, 1)), np.array(["a", "a"])), np.zeros((1, 1))).tolist()
    ['a']
    """
    if one.probe is None:
        return np.repeat(np.asarray(one.only)[None], len(x))
    return np.asarray(one.probe.predict(one.scaler.transform(x)))


def probabilities(
    one: Fitted, x: Float[np.ndarray, "row feature"], classes: Shaped[np.ndarray, " class"]
) -> Float[np.ndarray, "row class"]:
    """The probability of each of ``classes`` (sorted); 0 for those that the fit did not see.

    >>> probe = fitted(np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([1, 1, 3, 3]))
    >>> probabilities(probe, np.array([[2.5]]), np.array([1, 2, 3])).round(6).tolist()
    [[0.5, 0.0, 0.5]]
    """
    found = np.zeros((len(x), len(classes)))
    if one.probe is None:
        found[:, np.searchsorted(classes, one.only)] = 1.0
    else:
        found[:, np.searchsorted(classes, one.probe.classes_)] = one.probe.predict_proba(one.scaler.transform(x))
    return found


def chosen_regularisation(
    x: Float[np.ndarray, "row feature"],
    labels: Shaped[np.ndarray, " row"],
    groups: Shaped[np.ndarray, " row"],
    *,
    candidates: Sequence[float] = CANDIDATES,
    n_folds: int = 3,
) -> float:
    """The C whose probes are most often right on groups held out of these rows; of equals the smallest.

    Give it the rows of a fit, never those that will test it: then the choice is part of the fit (nested
    cross-validation, Varma and Simon 2006). Rows whose label an inner fit never saw do not count.

    Args:
        x: features of the rows that are fitted.
        labels: theirs.
        groups: rows that share one are held out together.
        candidates: values of C.
        n_folds: inner folds, fewer where there are fewer groups.

    Raises:
        InterpError: no candidates, or a single group.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(2, size=60)
    >>> x = np.where(labels[:, None] == 1, 0.4, -0.4) + rng.normal(size=(60, 30))
    >>> chosen_regularisation(x, labels, np.arange(60)) < 1
    True
    """
    n_groups = len(np.unique(groups))
    if not candidates or n_groups < 2:
        raise InterpError("To choose C there must be candidates, and at least two groups to hold out in turn.")
    folds = list(GroupKFold(n_splits=min(n_folds, n_groups)).split(x, groups=groups))
    right = dict.fromkeys(sorted(candidates), 0)
    for c in right:
        for fit, test in folds:
            known = test[np.isin(labels[test], labels[fit])]
            if known.size:
                said = predictions(fitted(x[fit], labels[fit], regularisation=c), x[known])
                right[c] += int((said == labels[known]).sum())
    return max(right, key=lambda c: right[c])
