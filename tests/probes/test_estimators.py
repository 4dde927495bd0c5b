"""The probes of the library as scikit-learn estimators: its own checks, and the same numbers by other ways."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp import probes, run
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.probes import Features, MeanDifference, RidgeProbe, StoredFeatures, TaskClassifier
from tests.tolerance import close

REASONS: dict[type, dict[str, str]] = {TaskClassifier: {}, MeanDifference: {}, RidgeProbe: {}}
"""Checks of scikit-learn that an estimator cannot pass, and why."""


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Ninety rows of twelve features on very different scales about a large common vector, three labels."""
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[rng.integers(3, size=90)]
    means = {label: rng.normal(size=12) for label in "abc"}
    scales = 10.0 ** rng.uniform(-1, 1, 12)
    return (np.stack([means[label] for label in labels]) + rng.normal(size=(90, 12))) * scales + 30, labels


@parametrize_with_checks(
    [TaskClassifier(), MeanDifference(), RidgeProbe()], expected_failed_checks=lambda one: REASONS[type(one)]
)
def test_the_checks_of_scikit_learn_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def test_difference_of_means_is_the_nearest_centroid(planted: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = planted
    ours, theirs = MeanDifference().fit(x, labels), NearestCentroid().fit(x, labels)
    close(ours.means_, theirs.centroids_, "product", dtype="float64")
    assert ours.predict(x).tolist() == theirs.predict(x).tolist()
    two = MeanDifference().fit(x[labels != "c"], labels[labels != "c"])
    direction = x[labels == "b"].mean(0) - x[labels == "a"].mean(0)
    close(two.coef_[1] - two.coef_[0], direction, "product", dtype="float64", size=30)


def test_the_ridge_probe_is_scikit_learns_ridge_on_indicators(planted: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = planted
    ours = RidgeProbe(alpha=3.0).fit(x, labels)
    scaled, indicators = StandardScaler().fit_transform(x), np.eye(3)[np.searchsorted(["a", "b", "c"], labels)]
    theirs = Ridge(alpha=3.0).fit(scaled, indicators).predict(scaled)
    close(ours.decision_function(x), theirs, "gradient", dtype="float64", size=30)


@pytest.mark.parametrize("probe", [MeanDifference(), RidgeProbe()], ids=lambda one: type(one).__name__)
def test_a_fit_in_chunks_from_disk_is_the_fit_at_once(
    probe: Any, planted: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, labels = planted
    stored = StoredFeatures.write(tmp_path / "x.npy", iter(np.array_split(x, 5)), shape=x.shape)
    kept = np.load(stored.path, mmap_mode="r")
    np.testing.assert_array_equal(kept, x.astype(np.float32))
    read = [len(rows) for _, rows in stored.chunks(7)]
    assert max(read) == 7
    assert sum(read) == 90
    once, chunked = clone(probe).fit(kept, labels), probes.fit_stored(clone(probe), stored, labels, rows=7)
    size = np.abs(once.coef_).max()
    close(chunked.coef_, once.coef_, "gradient", dtype="float64", size=size)
    assert chunked.predict(kept).tolist() == once.predict(kept).tolist()


@pytest.mark.parametrize("probe", [MeanDifference(), RidgeProbe()], ids=lambda one: type(one).__name__)
def test_features_larger_than_the_memory_used_are_fitted(probe: Any, tmp_path: Path) -> None:
    """A file of 5 MB is written and fitted within a quarter of that."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=20_000)
    x = (rng.normal(size=(500, 64)) + 3 * np.eye(64)[labels[start : start + 500]] for start in range(0, 20_000, 500))
    tracemalloc.start()
    try:
        stored = StoredFeatures.write(tmp_path / "x.npy", x, shape=(20_000, 64))
        probes.fit_stored(probe, stored, labels, rows=200)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.path.stat().st_size > 5e6
    assert used < 1.25e6
    assert probe.score(np.load(stored.path)[:2000], labels[:2000]) > 0.9


def test_logistic_regression_from_disk_reads_as_well_as_in_memory(
    planted: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, labels = planted
    stored = StoredFeatures.write(tmp_path / "x.npy", iter([x]), shape=x.shape)
    sgd = SGDClassifier(loss="log_loss", random_state=0)
    chunked = probes.fit_stored(sgd, stored, labels, rows=30, epochs=20, standardise=True)
    at_once = make_pipeline(StandardScaler(), LogisticRegression(C=1.0)).fit(x, labels)
    assert chunked.score(x, labels) > at_once.score(x, labels) - 0.05
    assert at_once.score(x, labels) > 0.9


def test_what_is_no_matrix_is_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "line.npy", np.arange(3.0))
    (tmp_path / "text.npy").write_text("no")
    np.save(tmp_path / "cut.npy", np.ones((9, 9)))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    for name, message in {
        "line": "of shape",
        "text": "holds no features",
        "cut": "instead of",
        "none": "No such",
    }.items():
        with pytest.raises(InterpError, match=message):
            StoredFeatures.open(tmp_path / f"{name}.npy")
    with pytest.raises(InterpError, match=r"ends in \.npy"):
        StoredFeatures.write(tmp_path / "x.bin", iter([]), shape=(0, 1))
    with pytest.raises(InterpError, match="There are 1 rows instead of 2"):
        StoredFeatures.write(tmp_path / "x.npy", iter([np.ones((1, 3))]), shape=(2, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npy", "line.npy", "text.npy"]
    stored = StoredFeatures.write(tmp_path / "x.npy", iter([np.ones((2, 3))]), shape=(2, 3))
    with pytest.raises(InterpError, match="1 labels for 2 rows"):
        probes.fit_stored(MeanDifference(), stored, ["a"])
    with pytest.raises(InterpError, match="NearestCentroid has no partial_fit"):
        probes.fit_stored(NearestCentroid(), stored, ["a", "b"])


# ---- on a model ----

IDS = [[1, color, 30 + i, noun] for i, (color, noun) in enumerate((c, n) for c in (40, 41, 42) for n in (5, 6, 7, 8))]
COLORS = [row[1] for row in IDS]


def test_the_features_are_what_capture_reads(gpt2: HookedTransformer, llama: HookedTransformer) -> None:
    for model in (gpt2, llama):
        for site, layer in (("resid_post", None), ("k", 0), ("z", 1)):
            found = Features(model, site=site, layer=layer).fit_transform(IDS)
            last = model.cfg.n_layers - 1 if layer is None else layer
            direct = run.capture(model, IDS, site, at=[-1], layers=[last])[site].values
            np.testing.assert_array_equal(found, direct.reshape(len(IDS), -1))
            assert found.shape[1] == Features(model, site=site, layer=layer).n_features


def test_features_too_many_for_memory_go_to_disk_in_parts(gpt2: HookedTransformer, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    features = Features(gpt2, layer=1)
    stored = features.to(
        tmp_path / "x.npy", IDS, bytes_at_once=5 * 8 * features.n_features, progress=lambda *at: told.append(at)
    )
    assert [done for done, _ in told] == [5, 10, 12]
    close(np.load(stored.path), features.transform(IDS), "pass")


def test_the_classifier_is_scikit_learns_on_the_same_features(gpt2: HookedTransformer) -> None:
    features = Features(gpt2, site="resid_pre", layer=0, at=1)
    ours = TaskClassifier(features, C=0.1).fit(IDS, COLORS)
    x = features.transform(IDS).astype(np.float64)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(x, COLORS)
    close(ours.predict_proba(IDS), theirs.predict_proba(x), "gradient", size=1)
    assert ours.predict(IDS).tolist() == COLORS
    assert ours.score(IDS, COLORS) == 1.0
    assert ours.coef_.shape == (3, 32)


def test_layer_and_penalty_are_chosen_like_any_parameter(gpt2: HookedTransformer) -> None:
    """A copy shares the model, and the layer is a parameter of a parameter."""
    classifier = TaskClassifier(Features(gpt2, site="resid_pre", at=1))
    assert clone(classifier).features.model is gpt2
    assert "features__layer" in classifier.get_params()
    search = GridSearchCV(classifier, {"features__layer": [0, 2]}, cv=2).fit(IDS, COLORS)
    assert search.best_score_ > 0.9
    chosen = TaskClassifier(classifier.features, C=[0.01, 1.0]).fit(IDS, COLORS, groups=[row[3] for row in IDS])
    assert chosen.C_ in (0.01, 1.0)


@pytest.fixture
def saved(gpt2: HookedTransformer, tmp_path: Path) -> tuple[TaskClassifier, Path]:
    made = TaskClassifier(Features(gpt2, site="resid_pre", layer=1, at=1)).fit(IDS, [f"c{c}" for c in COLORS])
    return made, made.save(tmp_path / "colors.safetensors")


def test_what_is_saved_says_the_same_again(gpt2: HookedTransformer, saved: tuple[TaskClassifier, Path]) -> None:
    made, path = saved
    again = TaskClassifier.load(path, gpt2)
    np.testing.assert_array_equal(again.predict_proba(IDS), made.predict_proba(IDS))
    assert again.predict(IDS).tolist() == made.predict(IDS).tolist()
    assert again.get_params()["features__layer"] == 1
    assert set(load_file(path)) == {"coef", "intercept"}  # any reader of safetensors reads it


def test_another_model_is_refused(llama: HookedTransformer, saved: tuple[TaskClassifier, Path]) -> None:
    with pytest.raises(InterpError, match=r"was fitted on .*, whose weights_sha256 and config_sha256 .*differ from"):
        TaskClassifier.load(saved[1], llama)


def test_what_is_no_saved_classifier_is_refused(gpt2: HookedTransformer, saved: tuple[TaskClassifier, Path]) -> None:
    made, path = saved
    content = path.read_bytes()
    told = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["interp"])
    arrays = {"coef": np.ascontiguousarray(made.coef_), "intercept": made.intercept_}
    elsewhere = {"interp": json.dumps(told | {"site": "mlp_post"})}
    bad = {
        "is not a classifier": lambda: path.write_bytes(content[:40]),
        "has version 0": lambda: save_file(arrays, path, {"interp": json.dumps(told | {"version": "0"})}),
        "fit neither its labels nor its site": lambda: save_file(arrays, path, elsewhere),
    }
    for message, spoil in bad.items():
        spoil()
        with pytest.raises(InterpError, match=message):
            TaskClassifier.load(path, gpt2)
    with pytest.raises(InterpError, match="Only a fitted classifier on Features"):
        TaskClassifier().save(path)
    with pytest.raises(InterpError, match="cannot be saved"):
        TaskClassifier(made.features).fit(IDS, [0.0] * 6 + [1.0] * 6).save(path)
    with pytest.raises(InterpError, match="Unknown role 'noun' of the texts"):
        Features(gpt2, at="noun").transform(IDS)
