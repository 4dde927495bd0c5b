"""Erasers against their guarantee, a numeric optimum, and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from interp import HookedTransformer, InterpError, PromptPairs, run
from interp.interventions import Erase
from interp.subspaces import INLP, LEACE, MeanProjection, Subspace
from tests.tiny import random_ids
from tests.tolerance import close, near


def drawn(n: int = 60, d: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns of which the first ones depend on the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) + 2 * rng.normal(size=(classes, d))[labels]
    return x @ rng.normal(size=(d, d)) + rng.normal(size=d), labels


def covariance_with_labels(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    z = (labels[:, None] == np.unique(labels)).astype(float)
    return (x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / len(x)


ERASERS = [
    LEACE(), LEACE(shrinkage="oas"), LEACE(oracle=True), MeanProjection()
]  # fmt: skip
BY_NAME = ["leace", "shrunken", "oracle", "means"]
SHAPES = [(60, 6, 2), (60, 6, 4), (8, 20, 3), (40, 3, 6)]  # few rows: a covariance without full rank; classes > width


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("eraser", ERASERS, ids=BY_NAME)
def test_after_erasure_activations_and_labels_are_uncorrelated(eraser: Any, shape: tuple[int, int, int]) -> None:
    x, labels = drawn(*shape)
    erased = eraser.fit_transform(x, labels)
    close(covariance_with_labels(erased, labels), 0, "pass", dtype="float64", size=covariance_with_labels(x, labels))
    close(erased.mean(axis=0), x.mean(axis=0), "pass", dtype="float64", size=x)


@pytest.mark.parametrize("eraser", [LEACE(), MeanProjection()], ids=["leace", "means"])
def test_after_erasure_no_logistic_probe_beats_the_constant_one(eraser: Any) -> None:
    x, labels = drawn()
    rates = np.bincount(labels) / len(labels)
    constant = -(rates * np.log(rates)).sum()
    for rows, better in ((x, True), (eraser.fit_transform(x, labels), False)):
        probe = LogisticRegression(C=1e6, max_iter=10_000, tol=1e-10).fit(rows - rows.mean(axis=0), labels)
        said = probe.predict_log_proba(rows - rows.mean(axis=0))
        loss = -said[np.arange(len(labels)), labels].mean()
        if better:
            assert loss < 0.8 * constant
        else:
            near(loss, constant, 1e-6, why="the optimiser stops at a gradient, not at the optimum")


def test_leace_is_the_smallest_such_edit() -> None:
    """A numeric optimum over all projections that make the covariance 0 moves the data as far, and not less."""
    x, labels = drawn(n=40, d=3, classes=2)
    centred = x - x.mean(axis=0)
    related = covariance_with_labels(x, labels)[:, :1]  # of two classes one column says all

    def moved(read: np.ndarray) -> float:
        """The mean square of the edit ``x - (read . x) related / (read . related)``, a projection along related."""
        along = centred @ read / float(read @ related[:, 0])
        return float((along**2).mean() * (related**2).sum())

    best = min((minimize(moved, start, tol=1e-12).fun for start in np.eye(3) + 0.1), key=float)
    for metric in (np.eye(3), np.diag([1.0, 5.0, 0.2])):  # the optimum is the same in any inner product
        leace = (centred - (LEACE().fit_transform(x, labels) - x.mean(axis=0))) @ metric
        means = (centred - (MeanProjection().fit_transform(x, labels) - x.mean(axis=0))) @ metric
        assert (leace**2).sum() < (means**2).sum()
    near(((x - LEACE().fit_transform(x, labels)) ** 2).sum(axis=1).mean(), best, 1e-6 * best, why="a numeric optimum")


def test_the_oracle_moves_the_data_less_than_any_affine_edit() -> None:
    x, labels = drawn()
    sizes = [((LEACE(oracle=known).fit_transform(x, labels) - x) ** 2).sum() for known in (True, False)]
    assert sizes[0] < sizes[1]
    means = np.stack([x[labels == label].mean(axis=0) for label in labels])  # by definition, of indicators
    close(LEACE(oracle=True).fit_transform(x, labels), x - means + x.mean(axis=0), "pass", dtype="float64", size=x)


def test_leace_does_not_depend_on_the_basis() -> None:
    x, labels = drawn()
    mix = np.random.default_rng(1).normal(size=(6, 6))
    near(
        LEACE().fit_transform(x @ mix, labels), LEACE().fit_transform(x, labels) @ mix, 1e-4,
        why="two whitenings, each as good as its covariance's condition",
    )  # fmt: skip


@pytest.mark.parametrize("eraser", [LEACE(), MeanProjection()], ids=["leace", "means"])
def test_rows_can_come_in_chunks(eraser: Any) -> None:
    x, labels = drawn()
    whole = eraser.fit(x, labels).transform(x)
    in_chunks = clone(eraser)
    for part in np.array_split(np.argsort(labels), 7):
        in_chunks.partial_fit(x[part], labels[part])
    near(in_chunks.transform(x), whole, 1e-9, why="sums in another order, then an inverse root of the covariance")


def test_inlp_leaves_no_probe_that_beats_the_most_frequent_label() -> None:
    x, labels = drawn()
    eraser = INLP()
    erased = eraser.fit_transform(x, labels)
    assert LogisticRegression(max_iter=1000).fit(erased, labels).score(erased, labels) <= np.bincount(labels).max() / 60
    assert eraser.n_iter_ >= 1
    near(eraser.subspace_.read @ eraser.subspace_.read.T, np.eye(eraser.subspace_.rank), 1e-9, why="orthonormal")


def test_one_class_has_nothing_to_erase() -> None:
    x, _ = drawn()
    for eraser in (LEACE(), MeanProjection(), INLP()):
        assert eraser.fit(x, np.zeros(60)).subspace_.rank == 0
        np.testing.assert_array_equal(eraser.transform(x), x)


@pytest.mark.parametrize("eraser", [LEACE(), MeanProjection(), INLP(max_iter=2)], ids=["leace", "means", "inlp"])
def test_the_erasers_are_scikit_learn_estimators(eraser: Any) -> None:
    check_estimator(eraser, on_skip=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, y: LEACE().fit(x, y).transform(x, y), "oracle=True only"),
        (lambda x, y: LEACE(oracle=True).fit(x, y).transform(x), r"transform\(X, y\)"),
        (lambda x, y: LEACE(shrinkage="much").fit(x, y), "Unknown shrinkage 'much'"),
        (lambda x, y: LEACE(oracle=True).fit(x, y).transform(x, y + 1), "label 3 was not fitted"),
        (lambda x, y: INLP(max_iter=0).fit(x, y), "max_iter is 0"),
        (lambda x, y: Subspace.spanned_by(x[0], kind=""), "rows of finite numbers"),
        (lambda x, y: Subspace.spanned_by(0 * x, kind=""), "all 0"),
    ],
)
def test_what_cannot_be_erased_is_refused_in_one_line(wrong: Any, message: str) -> None:
    with pytest.raises(InterpError, match=message):
        wrong(*drawn())


# ---- in a run ----


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_an_eraser_does_in_a_run_what_it_does_to_arrays(name: str, request: pytest.FixtureRequest) -> None:
    model: HookedTransformer = request.getfixturevalue(name)
    prompts = run.as_prompts(model, random_ids(12, 6))
    labels = np.arange(12) % 3
    for site in ("resid_post", "z", "v"):
        before = run.capture(model, prompts, site, at=[3], layers=[1])[site].values.reshape(12, -1).astype(float)
        leace, oracle = LEACE().fit(before, labels), LEACE(oracle=True).fit(before, labels)
        for edit, expected in (
            (leace.subspace_.erase(site=site, layer=1, at=3), leace.transform(before)),
            (oracle.shift(labels, site=site, layer=1, at=3), oracle.transform(before, labels)),
        ):
            changed = run.capture(model, prompts, site, layers=[1], interventions=[edit])[site].values[:, 0]
            near(changed[:, 3].reshape(12, -1), expected, 1e-3, why="float32 beside float64, whitened and back")
            plain = run.capture(model, prompts, site, layers=[1])[site].values[:, 0]
            np.testing.assert_array_equal(np.delete(changed, 3, axis=1), np.delete(plain, 3, axis=1))


def test_what_no_activation_has_along_it_erases_nothing(gpt2: HookedTransformer) -> None:
    prompts = run.as_prompts(gpt2, random_ids(4, 6))
    stream = run.capture(gpt2, prompts, "resid_pre", at=[2], layers=[1])["resid_pre"].values.reshape(4, -1)
    orthogonal = np.linalg.svd(stream)[2][4:]
    edit = Subspace.spanned_by(orthogonal, kind="by hand").erase(site="resid_pre", layer=1, at=2)
    close(run.logits_at(gpt2, prompts, interventions=[edit]), run.logits_at(gpt2, prompts), "pass")


def test_a_subspace_is_saved_and_refused_in_another_model(
    tmp_path: Path, gpt2: HookedTransformer, llama: HookedTransformer
) -> None:
    x, labels = drawn(d=32)
    found = LEACE().fit(x, labels).subspace_
    clean = random_ids(2, 5)
    pairs = PromptPairs.from_tokens(clean, clean[::-1].copy(), correct=1, incorrect=2)
    path = found.save(tmp_path / "s.nc", of=(gpt2, pairs), site="resid_pre", layer=1)
    same = Subspace.load(path, gpt2)
    np.testing.assert_array_equal(same.erased(x), found.erased(x))
    assert same.kind == "LEACE"
    with pytest.raises(InterpError, match="and not in these weights"):
        Subspace.load(path, llama)


def test_directions_that_do_not_fit_are_refused(gpt2: HookedTransformer) -> None:
    prompts = run.as_prompts(gpt2, random_ids(2, 4))
    for edit, message in (
        (lambda: Erase(site="z", directions=torch.ones(1, 32), written=torch.ones(2, 32)), "a row for each direction"),
        (lambda: Erase(site="z", directions=torch.ones(1, 5)), "have 5 numbers"),
    ):
        with pytest.raises(InterpError, match=message):
            run.logits_at(gpt2, prompts, interventions=[edit()])
