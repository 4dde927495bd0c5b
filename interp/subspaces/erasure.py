"""Estimators that erase a concept from activations: LEACE, the projection of means, INLP.

Each is a scikit-learn transformer. ``fit(X, y)`` finds a subspace, ``transform(X)`` gives X without it, and
``subspace_.erase(...)`` is the same as an edit of a run (``interp.interventions.Erase``).

Here Σ_XZ is the covariance of activations and labels (one indicator per class). It is 0 exactly if no linear probe of
any convex loss beats a constant one on these data (Belrose et al. 2023, arXiv 2306.03819), so that is what an eraser of
all linear information has to make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from interp._threads import threads_for
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.interventions import Shift
from interp.probes.logistic import quiet
from interp.probes.streamed import stored_logistic
from interp.prompts.places import At
from interp.stored import StoredFeatures
from interp.subspaces.subspace import Subspace

SHRINKAGES = ("none", "oas")

CONSTANT = 1e-10
"""Share of the largest variance below which a direction counts as constant: activations are computed in float32."""

_PROBE_ITERATIONS = 1000
"""Iterations after which a probe of INLP is stopped."""

UNRELATED = 1e-9
"""Share of the strongest relation to the labels below which a direction counts as unrelated to them."""


@dataclass
class _Moments:
    """Running means and sums of products of deviations of two sets of columns (Chan et al. 1983)."""

    n: int
    mean_x: Float[np.ndarray, " d"]
    mean_z: Float[np.ndarray, " label"]
    xx: Float[np.ndarray, "d d"]
    xz: Float[np.ndarray, "d label"]
    zz: Float[np.ndarray, "label label"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "row d"], z: Float[np.ndarray, "row label"]) -> _Moments:
        """Those of some rows."""
        mean_x, mean_z = x.mean(axis=0), z.mean(axis=0)
        x, z = x - mean_x, z - mean_z
        return cls(len(x), mean_x, mean_z, x.T @ x, x.T @ z, z.T @ z)

    def spread(self, n: int, at: Int[np.ndarray, " label"]) -> _Moments:
        """The same with ``n`` labels, of which those there are stand at ``at``: no row had the others."""
        mean, xz, zz = np.zeros(n), np.zeros((len(self.xz), n)), np.zeros((n, n))
        mean[at], xz[:, at], zz[np.ix_(at, at)] = self.mean_z, self.xz, self.zz
        return replace(self, mean_z=mean, xz=xz, zz=zz)

    def joined(self, more: _Moments) -> _Moments:
        """Those of the rows of both."""
        n = self.n + more.n
        dx, dz = more.mean_x - self.mean_x, more.mean_z - self.mean_z
        weight = self.n * more.n / n
        return _Moments(
            n,
            self.mean_x + dx * more.n / n,
            self.mean_z + dz * more.n / n,
            self.xx + more.xx + weight * np.outer(dx, dx),
            self.xz + more.xz + weight * np.outer(dx, dz),
            self.zz + more.zz + weight * np.outer(dz, dz),
        )


class _Eraser(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the erasers share: checked data, and a fitted ``subspace_``."""

    subspace_: Subspace

    def transform(self, X: Any) -> Float[np.ndarray, "row d"]:
        """The rows without their part in the subspace.

        Raises:
            InterpError: the estimator has not been fitted, or the rows are not as wide as those it was fitted on.
        """
        check_is_fitted(self)
        return self.subspace_.erased(validate_data(self, X, reset=False, dtype=np.float64))

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Float[np.ndarray, "row d"], Shaped[np.ndarray, " row"]]:
        x, labels = validate_data(self, X, y, reset=reset, dtype=np.float64)
        check_classification_targets(labels)
        return x, labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class _OfMoments(_Eraser):
    """An eraser that needs no more of the data than means and covariances, so that these can come in chunks."""

    moments_: _Moments
    classes_: Shaped[np.ndarray, " label"]
    _solved: Subspace | None

    def fit(self, X: Any, y: Any) -> Self:
        """Find the subspace.

        Args:
            X: activations [row, d].
            y: a label for each row.

        Raises:
            ValueError: rows and labels that do not fit, or numbers that are not finite.
        """
        x, labels = self._checked(X, y, reset=True)
        self.classes_ = unique_labels(labels)
        self._of(_Moments.of(x, self._indicators(labels)))
        self._solved = self._solve()  # what is fitted at once changes no more, also not when it is first used
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Add rows to those fitted on, as they come from disk or from a model: the fit is that of all rows at once.

        Args:
            X: activations [row, d].
            y: a label for each row; one that no earlier row had is a new class.
            classes: not needed; taken as other estimators take it.

        Raises:
            ValueError: as ``fit``.
        """
        if not hasattr(self, "moments_"):
            return self.fit(X, y)
        x, labels = self._checked(X, y, reset=False)
        known, before = self.classes_, self.moments_
        self.classes_ = np.union1d(known, unique_labels(labels))
        before = before.spread(len(self.classes_), np.searchsorted(self.classes_, known))
        return self._of(before.joined(_Moments.of(x, self._indicators(labels))))

    def _of(self, moments: _Moments) -> Self:
        self._check()
        self.moments_, self._solved = moments, None
        return self

    @property
    def subspace_(self) -> Subspace:  # type: ignore[override]
        """What is erased. It is solved for when it is first asked for, not after each chunk of rows."""
        if not hasattr(self, "moments_"):
            raise AttributeError(f"{type(self).__name__} has not been fitted.")
        if self._solved is None:
            self._solved = self._solve()
        return self._solved

    def _check(self) -> None:
        """Refuse settings that are none."""

    def _indicators(self, labels: Shaped[np.ndarray, " row"]) -> Float[np.ndarray, "row label"]:
        unknown = labels[~np.isin(labels, self.classes_)]
        if len(unknown):
            raise InterpError(f"The label {shown(unknown[0])} was not fitted. Give one of those that were.")
        return np.asarray((labels[:, None] == self.classes_).astype(np.float64))

    def _solve(self) -> Subspace:
        raise NotImplementedError


class MeanProjection(_OfMoments):
    """Project off the span of the differences between class means; of two classes, off their difference.

    The orthogonal projection that makes Σ_XZ 0 (Shao et al. 2023, arXiv 2203.07893; of two classes Bolukbasi et al.
    2016's). It moves activations further than LEACE, whose metric is that of the data.

    Attributes:
        subspace_: what is erased; its offset is the mean of the data.

    >>> eraser = MeanProjection().fit([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]], [0, 0, 1, 1])
    >>> eraser.transform([[2.0, 5.0]]).round(6).tolist()
    [[1.0, 5.0]]
    """

    def _solve(self) -> Subspace:
        moments = self.moments_
        directions, size, _ = np.linalg.svd(moments.xz, full_matrices=False)
        basis = directions[:, _kept(size, moments)].T
        return Subspace(read=basis, written=basis, offset=moments.mean_x, kind="mean projection")


class LEACE(_OfMoments):
    """Least-squares concept erasure: the smallest affine edit after which Σ_XZ is 0.

    Belrose et al. 2023 (arXiv 2306.03819): ``x - W⁺ P W (x - E x)``, with W the whitening of the data and
    P the orthogonal projection onto the columns of ``W Σ_XZ``. No affine edit that makes Σ_XZ 0 moves the data less, in
    mean square, in whichever inner product.

    Attributes:
        subspace_: what is erased; its offset is the mean of the data.

    Args:
        oracle: the labels are known when activations are edited: each row loses what a
            linear regression on its label says of it. ``transform`` then takes the labels too.
        shrinkage: of the covariance that whitens, where rows are few for their width: ``"oas"`` (Chen et al. 2010,
            arXiv 0907.4698). Σ_XZ is made 0 on the data all the same; smallest is the edit then by the shrunken metric.

    >>> eraser = LEACE().fit([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]], [0, 0, 1, 1])
    >>> eraser.transform([[2.0, 5.0]]).round(6).tolist()
    [[1.0, 5.0]]
    """

    def __init__(self, *, oracle: bool = False, shrinkage: Literal["none", "oas"] = "none") -> None:
        """State the fit; nothing is checked before ``fit``."""
        self.oracle = oracle
        self.shrinkage = shrinkage

    def _check(self) -> None:
        if self.shrinkage not in SHRINKAGES:
            raise unknown_name("shrinkage", self.shrinkage, SHRINKAGES)

    def _solve(self) -> Subspace:
        moments = self.moments_
        whiten, unwhiten = _whitening(_covariance(moments, self.shrinkage))
        directions, size, _ = np.linalg.svd(whiten @ (moments.xz / moments.n), full_matrices=False)
        basis = directions[:, _kept(size, moments)].T
        return Subspace(read=basis @ whiten, written=basis @ unwhiten, offset=moments.mean_x, kind="LEACE")

    def transform(self, X: Any, y: Any = None) -> Float[np.ndarray, "row d"]:
        """The rows without what a linear probe could read of the labels.

        Args:
            X: activations [row, d].
            y: their labels, with ``oracle`` and only then.

        Raises:
            ValueError: as ``fit``; labels without ``oracle``, or none with it.
        """
        check_is_fitted(self)
        if (y is not None) != self.oracle:
            raise InterpError(
                "LEACE(oracle=True) needs the labels: transform(X, y)."
                if self.oracle
                else "LEACE takes labels at transform with oracle=True only. Leave y out, or fit such a one."
            )
        if y is None:
            return super().transform(X)
        x, labels = validate_data(self, X, y, reset=False, dtype=np.float64)
        return np.asarray(x + self.shifts(labels))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Float[np.ndarray, "row d"]:
        """``fit``, then ``transform`` of the same rows, with their labels where they are needed."""
        fitted = self.fit(X, y, **fit_params)
        return fitted.transform(X, y) if self.oracle else fitted.transform(X)

    def shifts(self, y: Any) -> Float[np.ndarray, "row d"]:
        """What the oracle adds to a row of each label: ``-Σ_XZ Σ_ZZ⁺ (z - E z)``, which takes its class to the mean.

        >>> eraser = LEACE(oracle=True).fit([[0.0, 1.0], [2.0, 1.0]], ["black", "white"])
        >>> eraser.shifts(["black"]).round(6).tolist()
        [[1.0, 0.0]]
        """
        check_is_fitted(self)
        moments = self.moments_
        z = self._indicators(np.asarray(y)) - moments.mean_z
        return np.asarray(-z @ np.linalg.pinv(moments.zz, hermitian=True) @ moments.xz.T)

    def shift(self, y: Any, *, site: str, layer: int, at: At = None) -> Shift:
        """The oracle as an edit of a run of prompts that have these labels.

        >>> eraser = LEACE(oracle=True).fit([[0.0, 1.0], [2.0, 1.0]], ["black", "white"])
        >>> eraser.shift(["black"], site="resid_pre", layer=3).vectors.shape
        torch.Size([1, 2])
        """
        return Shift(site=site, layers=[layer], at=at, vectors=torch.from_numpy(self.shifts(y)))


class INLP(_Eraser):
    """Iterative null-space projection: fit a probe, project off what it reads, again until it reads nothing.

    Ravfogel et al. 2020 (arXiv 2004.07667), with logistic regression. It stops where a probe does no better on the data
    that it was fitted on than the most frequent label. Here the mean of the data stays where it is; in the paper the
    origin does.

    Attributes:
        subspace_: what is erased.
        n_iter_: probes whose directions were erased.

    Args:
        max_iter: at most this many probes.
        C: inverse strength of their L2 penalty, on the activations as they are.

    >>> eraser = INLP().fit([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]], [0, 0, 1, 1])
    >>> eraser.transform([[2.0, 5.0]]).round(2).tolist(), eraser.n_iter_
    ([[1.0, 5.0]], 1)
    """

    def __init__(self, *, max_iter: int = 20, C: float = 1.0) -> None:
        """State the fit; nothing is checked before ``fit``."""
        self.max_iter = max_iter
        self.C = C

    def fit(self, X: Any, y: Any) -> Self:
        """Find the subspace.

        Args:
            X: activations [row, d].
            y: a label for each row.

        Raises:
            ValueError: rows and labels that do not fit, numbers that are not finite, or fewer than one iteration.
        """
        x, labels = self._checked(X, y, reset=True)
        mean = x.mean(axis=0)

        def probe(erased: Float[np.ndarray, "direction d"]) -> tuple[Float[np.ndarray, "row d"], float]:
            left = _left(x - mean, erased)
            found = LogisticRegression(C=self.C, max_iter=_PROBE_ITERATIONS)
            with quiet(), threads_for(left.size):
                found.fit(left, labels)
            return np.asarray(found.coef_), float(found.score(left, labels))

        return self._projected(mean, labels, probe)

    def fit_stored(
        self, stored: StoredFeatures, labels: Shaped[np.ndarray, " row"], *, rows: int | None = None
    ) -> Self:
        """Find the subspace of activations that stay on the disk, in as many passes as the probes take steps.

        It is what ``fit`` finds, up to where the probes' iterations end.

        Args:
            stored: the activations, as ``interp.probes.fit_stored`` takes them.
            labels: a label for each row.
            rows: rows in memory at a time; None is 64 MiB.

        Raises:
            ValueError: as ``fit``.
        """
        total = sum((x.sum(axis=0, dtype=np.float64) for _, x in stored.chunks(rows)), np.zeros(stored.shape[1]))
        mean, self.n_features_in_ = total / stored.shape[0], stored.shape[1]

        def probe(erased: Float[np.ndarray, "direction d"]) -> tuple[Float[np.ndarray, "row d"], float]:
            def left() -> Iterator[tuple[slice, Float[np.ndarray, "row d"]]]:
                for at, x in stored.chunks(rows):
                    yield at, _left(x - mean, erased)

            found = stored_logistic(left, labels, regularisation=self.C, max_iterations=_PROBE_ITERATIONS)
            right = sum(int((found.predict(x) == labels[at]).sum()) for at, x in left())
            return found.coef, right / len(labels)

        return self._projected(mean, labels, probe)

    def _projected(
        self,
        mean: Float[np.ndarray, " d"],
        labels: Shaped[np.ndarray, " row"],
        probe: Callable[[Float[np.ndarray, "direction d"]], tuple[Float[np.ndarray, "row d"], float]],
    ) -> Self:
        """Project off what probes read until they read nothing; ``probe`` gives weights and accuracy of the next."""
        most = whole_number(self.max_iter, "max_iter", least=1)
        counts = np.unique(labels, return_counts=True)[1]
        erased = np.zeros((0, len(mean)))
        self.n_iter_ = 0
        for _ in range(most if len(counts) > 1 else 0):
            weights, right = probe(erased)
            if right <= counts.max() / counts.sum():
                break
            erased = _basis(np.concatenate([erased, weights]))
            self.n_iter_ += 1
        self.subspace_ = Subspace(read=erased, written=erased, offset=mean, kind="INLP")
        return self


def _left(x: Float[np.ndarray, "row d"], erased: Float[np.ndarray, "direction d"]) -> Float[np.ndarray, "row d"]:
    """What is left of rows about their mean when some directions are erased."""
    return np.asarray(x - (x @ erased.T) @ erased)


def _basis(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "direction d"]:
    """An orthonormal basis of the span of some rows."""
    _, size, basis = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(basis[size > UNRELATED * size.max(initial=0.0)])


def _kept(size: Float[np.ndarray, " direction"], moments: _Moments) -> Shaped[np.ndarray, " direction"]:
    """Which singular directions are related to the labels: at most one fewer than there are classes."""
    related = size > UNRELATED * size.max(initial=0.0)
    return np.asarray(related & (np.arange(len(size)) < moments.xz.shape[1] - 1))


def _covariance(moments: _Moments, shrinkage: str) -> Float[np.ndarray, "d d"]:
    covariance = moments.xx / moments.n
    if shrinkage == "none":
        return covariance
    d, n = len(covariance), moments.n
    scale = np.trace(covariance) / d
    alpha = np.mean(covariance**2)
    bottom = (n + 1) * (alpha - scale**2 / d)
    share = 1.0 if bottom == 0 else min((alpha + scale**2) / bottom, 1.0)
    return np.asarray((1 - share) * covariance + share * scale * np.eye(d))


def _whitening(covariance: Float[np.ndarray, "d d"]) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d"]]:
    """The square root of a covariance's pseudo-inverse, and that of the covariance."""
    variance, axes = np.linalg.eigh(covariance)
    kept = variance > CONSTANT * max(variance.max(initial=0.0), 0.0)
    axes, root = axes[:, kept], np.sqrt(variance[kept])
    return (axes / root) @ axes.T, (axes * root) @ axes.T
