"""The logistic probe on far more features than rows: the same optimum, found among the rows' span."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp.probes import logistic
from tests.tolerance import near


def penalised_loss(probe: LogisticRegression, x: np.ndarray, labels: np.ndarray) -> float:
    """Scikit-learn's objective from its definition: C times the summed log loss, and half the squared norm."""
    scores = x @ probe.coef_.T.astype(float) + probe.intercept_
    scores = np.concatenate([np.zeros_like(scores), scores], axis=1) if scores.shape[1] == 1 else scores
    column = np.searchsorted(probe.classes_, labels)
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(x)), column]
    return float(logistic.REGULARISATION * losses.sum() + (probe.coef_.astype(float) ** 2).sum() / 2)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_features_are_fitted_to_the_same_optimum(
    n_classes: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["abcde"[i % n_classes] for i in range(30)])
    centres = {label: rng.normal(size=300) for label in "abcde"}
    x, other = (
        (np.stack([0.3 * centres[label] for label in labels]) + rng.normal(size=(30, 300))).astype(dtype)
        for _ in range(2)
    )
    found = logistic.fitted(x, labels)
    assert found.probe is not None
    assert found.probe.coef_.shape == (1 if n_classes == 2 else n_classes, 300)
    assert found.probe.coef_.dtype == dtype
    scaler = StandardScaler().fit(x.astype(float))
    exact = LogisticRegression(C=logistic.REGULARISATION, tol=1e-10, max_iter=10_000).fit(scaler.transform(x), labels)
    at_best, here = (penalised_loss(one, scaler.transform(x), labels) for one in (exact, found.probe))
    assert at_best * (1 - 1e-6) < here < at_best * (1 + 1e-4)  # as far as the tolerance of lbfgs lets it come
    told = logistic.probabilities(found, other, exact.classes_)
    near(told, exact.predict_proba(scaler.transform(other)), 0.01, why="lbfgs stops at its tolerance")
    monkeypatch.setattr(logistic, "WIDE", 1e9)
    directly = logistic.fitted(x, labels)
    assert (logistic.predictions(found, other) == logistic.predictions(directly, other)).all()
