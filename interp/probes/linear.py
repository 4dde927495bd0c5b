"""Linear probes in closed form, exact in one pass over the data: difference of means, and ridge regression.

Both are scikit-learn classifiers with ``partial_fit``: what they need of the data are counts, means and products, which
add up over chunks. Fitted in chunks they are what they are fitted at once, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from interp.probes.logistic import quiet


class _Linear(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose scores are linear in the features: ``coef_`` [class feature] and ``intercept_`` [class]."""

    classes_: Shaped[np.ndarray, " class"]
    coef_: Float[np.ndarray, "class feature"]
    intercept_: Float[np.ndarray, " class"]

    def fit(self, X: Any, y: Any) -> Any:
        """Fit on all rows at once; what was fitted before is forgotten."""
        self._forget()
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Sequence[Any] | np.ndarray | None = None) -> Any:
        """Add rows to what was fitted before.

        Args:
            X: features (row, feature).
            y: a label per row.
            classes: every label there will be, needed at the first call unless its rows have all of them.
        """
        first = not hasattr(self, "n_rows_")
        X, y = validate_data(self, X, y, reset=first, dtype=[np.float64, np.float32])
        with quiet():
            check_classification_targets(y)
        if first:
            self.classes_ = np.unique(y if classes is None else np.asarray(classes))
            if len(self.classes_) < 2:
                raise ValueError("Classifier can't train when only one class is present.")
            self._start(X.shape[1])
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise ValueError(f"y has the label {unknown[0]!r}, which is not among classes. Give all in classes=.")
        self._add(X.astype(np.float64), np.searchsorted(self.classes_, y))
        self._solve()
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "row class"] | Float[np.ndarray, " row"]:
        """A score per class, the largest of which is predicted; of two classes, the second's minus the first's."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        scores: Float[np.ndarray, "row class"] = X @ self.coef_.T + self.intercept_
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> Shaped[np.ndarray, " row"]:
        """The label of the largest score."""
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def _forget(self) -> None:
        if hasattr(self, "n_rows_"):
            del self.n_rows_

    def _start(self, n_features: int) -> None:
        raise NotImplementedError

    def _add(self, X: Float[np.ndarray, "row feature"], y: Shaped[np.ndarray, " row"]) -> None:
        raise NotImplementedError

    def _solve(self) -> None:
        raise NotImplementedError


class MeanDifference(_Linear):
    """Difference of means: every row gets the label whose mean is nearest.

    Between two classes this is the projection on the difference of their means, cut midway (the mass-mean probe of
    Marks and Tegmark 2023, arXiv 2310.06824, without its covariance). It has nothing to tune, and what it finds is the
    direction in which the classes differ on average, whatever else varies.

    Attributes:
        classes_: the labels, sorted.
        means_: mean of the features per class (class, feature); NaN for a label without rows, which is never predicted.
        coef_, intercept_: the scores as a linear function of the features.
        n_rows_: rows fitted per class.

    >>> features = np.array([[0.0, 1.0], [2.0, 1.0], [10.0, 3.0], [12.0, 3.0]])
    >>> probe = MeanDifference().fit(features, ["left", "left", "right", "right"])
    >>> probe.means_.tolist(), probe.predict([[6.4, 2.0]]).tolist()
    ([[1.0, 1.0], [11.0, 3.0]], ['right'])
    """

    def _start(self, n_features: int) -> None:
        self.n_rows_ = np.zeros(len(self.classes_))
        self.means_ = np.full((len(self.classes_), n_features), np.nan)

    def _add(self, X: Float[np.ndarray, "row feature"], y: Shaped[np.ndarray, " row"]) -> None:
        for c in np.unique(y):
            rows = X[y == c]
            before = np.nan_to_num(self.means_[c])
            self.n_rows_[c] += len(rows)
            self.means_[c] = before + (rows.mean(axis=0) - before) * len(rows) / self.n_rows_[c]

    def _solve(self) -> None:
        seen = self.n_rows_ > 0
        centre = self.means_[seen].mean(axis=0)  # scores about it do not lose their digits to a large common vector
        away = np.where(seen[:, None], self.means_ - centre, 0.0)
        self.coef_ = away
        self.intercept_ = np.where(seen, -away @ centre - (away**2).sum(axis=1) / 2, -np.inf)


class RidgeProbe(_Linear):
    """Ridge regression on one indicator per label: the largest prediction is the label.

    The features are standardised first, as they are for the logistic probe. Its solution is closed (Hoerl and Kennard
    1970), so that a fit is one product and one linear system.

    Args:
        alpha: weight of the squared coefficients against the squared errors, on standardised features; None is the
            number of features, which is about the squared length of one row.

    Attributes:
        classes_: the labels, sorted.
        mean_, scale_: of the features that were fitted; the scale of a constant feature is 1.
        coef_, intercept_: the predictions as a linear function of the features as they are given.
        n_rows_: rows fitted.

    >>> rng = np.random.default_rng(0)
    >>> features, labels = rng.normal(size=(60, 5)), np.repeat(["a", "b", "c"], 20)
    >>> features[:20, 0] += 4; features[20:40, 1] += 4
    >>> at_once, in_chunks = RidgeProbe().fit(features, labels), RidgeProbe()
    >>> for rows in np.array_split(rng.permutation(60), 4):
    ...     _ = in_chunks.partial_fit(features[rows], labels[rows], classes=["a", "b", "c"])
    >>> bool(np.allclose(at_once.coef_, in_chunks.coef_)), bool(at_once.score(features, labels) > 0.9)
    (True, True)
    """

    def __init__(self, alpha: float | None = None) -> None:
        self.alpha = alpha

    def _start(self, n_features: int) -> None:
        self.n_rows_ = 0
        self.mean_, self._label_mean = np.zeros(n_features), np.zeros(len(self.classes_))
        self._scatter = np.zeros((n_features, n_features))
        self._products = np.zeros((n_features, len(self.classes_)))

    def _add(self, X: Float[np.ndarray, "row feature"], y: Shaped[np.ndarray, " row"]) -> None:
        """Sums of products about the mean, joined with those of earlier rows (Chan, Golub and LeVeque 1983)."""
        said = np.eye(len(self.classes_))[y]
        mean, label_mean = X.mean(axis=0), said.mean(axis=0)
        n, m = self.n_rows_, len(X)
        step, label_step = mean - self.mean_, label_mean - self._label_mean
        centred = X - mean
        weight = n * m / (n + m)
        self._scatter += centred.T @ centred + weight * np.outer(step, step)
        self._products += centred.T @ (said - label_mean) + weight * np.outer(step, label_step)
        self.n_rows_ = n + m
        self.mean_ = self.mean_ + step * m / self.n_rows_
        self._label_mean = self._label_mean + label_step * m / self.n_rows_

    def _solve(self) -> None:
        spread = np.sqrt(np.diag(self._scatter) / self.n_rows_)
        self.scale_ = np.where(spread > 1e-12 * np.abs(self.mean_), spread, 1.0)
        self.scale_[self.scale_ == 0] = 1.0
        penalty = float(len(self.mean_) if self.alpha is None else self.alpha)
        system = self._scatter / np.outer(self.scale_, self.scale_) + penalty * np.eye(len(self.mean_))
        weights = np.linalg.solve(system, self._products / self.scale_[:, None])
        self.coef_ = (weights / self.scale_[:, None]).T
        self.intercept_ = self._label_mean - self.coef_ @ self.mean_
