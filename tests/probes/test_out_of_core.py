"""What is fitted on rows that stay on the disk is what is fitted in memory, and holds no more than some of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from interp import HookedTransformer, InterpError, captures, lenses
from interp.captures import Capture
from interp.probes import Features, StoredFeatures, TaskClassifier, fit_stored
from interp.probes.streamed import stored_logistic
from interp.prompts.tokens import Prompts
from interp.subspaces import INLP, LEACE, MeanProjection
from tests.tolerance import near

WHY = "two fits of the same rows, which stop at a small gradient or add the rows in another order"


def planted(n_classes: int, n: int = 240, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(n_classes, size=n)
    x = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(n_classes, d))[labels]
    return (x * rng.uniform(0.5, 3, size=d) + 5).astype(np.float32), labels


def stored_in(path: Path, x: np.ndarray) -> StoredFeatures:
    return StoredFeatures.write(path / "x.npy", iter(np.array_split(x, 7)), shape=x.shape)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_streamed_logistic_regression_is_scikit_learns(n_classes: int) -> None:
    x, labels = planted(n_classes)
    x = (x - x.mean(axis=0)).astype(np.float64)
    parts = np.array_split(np.arange(len(x)), 5)

    def chunks() -> Any:
        return ((slice(part[0], part[-1] + 1), x[part]) for part in parts)

    for c in (0.01, 1.0):
        found = stored_logistic(chunks, labels, regularisation=c, max_iterations=500)
        expected = LogisticRegression(C=c, max_iter=500).fit(x, labels)
        near(found.coef, expected.coef_, 1e-6, why=WHY)
        near(found.intercept, expected.intercept_, 1e-6, why=WHY)
        assert found.n_iter == int(expected.n_iter_[0])
        np.testing.assert_array_equal(found.predict(x), expected.predict(x))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_task_classifier_on_disk_is_the_one_in_memory(n_classes: int, tmp_path: Path) -> None:
    x, labels = planted(n_classes)
    said = np.array(["red", "green", "blue"])[labels]
    expected = TaskClassifier(C=0.3).fit(x, said)
    found = fit_stored(TaskClassifier(C=0.3), stored_in(tmp_path, x), said, rows=50)
    near(found.coef_, expected.coef_, 1e-5, why=WHY)
    near(found.intercept_, expected.intercept_, 1e-4, why=WHY)
    np.testing.assert_array_equal(found.predict(x), expected.predict(x))
    assert found.n_features_in_ == expected.n_features_in_


@pytest.mark.parametrize("eraser", [LEACE(), LEACE(shrinkage="oas"), MeanProjection(), INLP(), INLP(max_iter=2)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_an_eraser_on_disk_is_the_one_in_memory(n_classes: int, eraser: Any, tmp_path: Path) -> None:
    x, labels = planted(n_classes)
    expected = clone(eraser).fit(x, labels)
    found = fit_stored(clone(eraser), stored_in(tmp_path, x), labels, rows=50)
    assert len(found.subspace_.read) == len(expected.subspace_.read)
    near(found.transform(x), expected.transform(x), 1e-3, why=WHY)
    if isinstance(eraser, INLP):
        assert found.n_iter_ == expected.n_iter_ > 0


def test_fits_from_a_capture_are_those_from_its_dataset(gpt2: HookedTransformer, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(1, 60, size=(80, 6))
    labels = ids[:, 3] % 2
    made = captures.write(gpt2, Prompts.from_ids(ids), ["resid_post", "z"], [3, 5], to=tmp_path, bytes_at_once=20_000)
    assert made.n_shards > 3
    acts = made.dataset()["resid_post"].sel(layer=1, position=3).values
    expected = LEACE().fit(acts, labels).transform(acts)
    found = fit_stored(LEACE(), made.features("resid_post", layer=1, at=3), labels, rows=13).transform(acts)
    near(found, expected, 1e-6, why=WHY)
    classifier = TaskClassifier(Features(gpt2, site="resid_post", layer=1, at=3))
    fit_stored(classifier, made.features("resid_post", layer=1, at=3), labels)
    expected_classifier = TaskClassifier(classifier.features).fit(Prompts.from_ids(ids), labels)
    near(classifier.coef_, expected_classifier.coef_, 1e-4, why=WHY)
    heads = TaskClassifier(Features(gpt2, site="resid_post", layer=1, at=3))
    with pytest.raises(InterpError, match="C is not chosen"):
        fit_stored(TaskClassifier(C=[0.1, 1.0]), made.features("z", layer=1, at=3), labels)
    with pytest.raises(InterpError, match="epochs and standardise out"):
        fit_stored(heads, made.features("z", layer=1, at=3), labels, epochs=2)


def test_places_that_a_prompt_lacks_are_refused(gpt2: HookedTransformer, tmp_path: Path) -> None:
    made = captures.write(gpt2, Prompts.from_ids([[1, 2, 3], [4, 5]] * 4), "resid_post", to=tmp_path)
    for estimator in (TaskClassifier(), INLP()):
        with pytest.raises(InterpError, match="not finite"):
            fit_stored(estimator, made.features("resid_post", layer=0), [0, 1, 0, 1, 1, 0] * 4)
    with pytest.raises(ValueError, match="NaN"):
        fit_stored(LEACE(), made.features("resid_post", layer=0), [0, 1, 0, 1, 1, 0] * 4)


@pytest.mark.parametrize("sites", [["resid_post"], ["resid_pre", "resid_mid"]])
def test_a_tuned_lens_from_a_capture_is_the_one_that_runs_the_model(
    sites: list[str], gpt2: HookedTransformer, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    prompts = Prompts.from_ids([rng.integers(1, 60, size=size).tolist() for size in (7, 5, 1, 8, 6, 7)])
    made = captures.write(gpt2, prompts, [*sites, "resid_post"], to=tmp_path)
    expected = lenses.tuned_lens(gpt2, prompts, sites=sites, steps=3, tokens=12)
    found = lenses.tuned_lens(gpt2, prompts, sites=sites, steps=3, tokens=12, captured=made)
    assert found.made == expected.made
    for point, matrix in expected.matrices.items():
        near(found.matrices[point], matrix, 2e-3, why=WHY)
        near(found.offsets[point], expected.offsets[point], 2e-3, why=WHY)


def test_a_lens_refuses_a_capture_of_something_else(
    gpt2: HookedTransformer, llama: HookedTransformer, tmp_path: Path
) -> None:
    ids = [[1, 2, 3, 4], [5, 6, 7, 8]]
    captures.write(gpt2, ids, ["resid_pre", "resid_post"], to=tmp_path / "a")
    captures.write(gpt2, ids, ["resid_post"], [-1], to=tmp_path / "b")
    whole, one = Capture.open(tmp_path / "a"), Capture.open(tmp_path / "b")
    for model, prompts, sites, capture, message in (
        (gpt2, ids[::-1], ["resid_pre"], whole, "was captured from other prompts"),
        (llama, ids, ["resid_pre"], whole, "differ from those of"),
        (gpt2, ids, ["resid_post"], one, "holds some places only"),
        (gpt2, ids, ["resid_mid"], whole, "does not hold 'resid_mid' of layer 0. Capture resid_mid, resid_post of"),
    ):
        with pytest.raises(InterpError, match=message):
            lenses.tuned_lens(model, prompts, sites=sites, steps=0, captured=capture)


def test_memory_does_not_grow_with_the_rows(gpt2: HookedTransformer, tmp_path: Path) -> None:
    """Arrays of NumPy are counted: the capture of 1,500 prompts takes 2.3 MB, of which a part is held."""
    ids = np.random.default_rng(0).integers(1, 60, size=(1500, 4))
    prompts, labels = Prompts.from_ids(ids), np.repeat(ids[:, 1] % 3, 4)
    tracemalloc.start()
    try:
        made = captures.write(gpt2, prompts, "resid_post", to=tmp_path, bytes_at_once=100_000)
        writing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for estimator in (LEACE(), TaskClassifier(max_iter=2), INLP(max_iter=1, C=1e-4)):
            fit_stored(estimator, made.features("resid_post", layer=2), labels, rows=200)
        reading = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    size = sum(path.stat().st_size for path in (tmp_path / "arrays").iterdir())
    assert size > 2.3e6
    assert writing < 1.2e6
    assert reading < 1.2e6
