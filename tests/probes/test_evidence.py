"""What is said of a probe besides its accuracy: codelength, calibration, the choice of a penalty, and the null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.preprocessing import StandardScaler

from interp import probes
from interp.errors import InterpError
from interp.probes import RidgeProbe, relabellings, ridge_accuracies
from interp.probes.logistic import fitted
from interp.stats import max_over_cells_p_values
from tests.tolerance import close, near


def planted(n: int, *, size: float, seed: int = 0, width: int = 8, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    return rng.normal(size=(k, width))[labels] * size + rng.normal(size=(n, width)), labels


# ---- codelength ----


def test_the_codelength_is_the_sum_of_what_scikit_learn_would_send() -> None:
    """By hand: the first block uniformly, each later one by a fit on all before it, mixed with one row per label."""
    x, labels = planted(80, size=1.0)
    order, bits = np.random.default_rng(3).permutation(80), 20 * 2.0
    for start, end in ((20, 40), (40, 80)):
        before, block = order[:start], order[start:end]
        scaler = StandardScaler().fit(x[before])
        probe = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(x[before]), labels[before])
        said = probe.predict_proba(scaler.transform(x[block]))[np.arange(len(block)), labels[block]]
        bits -= np.log2((start * said + 1) / (start + 4)).sum()
    found = probes.online_codelength(x, labels, order=order, portions=(0.25, 0.5, 1.0))
    close(found.bits, bits, "product", dtype="float64")
    assert found.uniform_bits == 80 * math.log2(4)
    assert found.compression == found.uniform_bits / found.bits


def test_labels_alone_cost_the_uniform_code_exactly() -> None:
    x, labels = planted(64, size=5.0)
    found = probes.online_codelength(x, labels, portions=(1.0,))
    assert (found.bits, found.uniform_bits, found.n) == (128.0, 128.0, 64)


def test_readable_labels_are_shorter_than_random_ones() -> None:
    real, control = [], []
    for seed in range(5):
        x, labels = planted(160, size=3.0, seed=seed)
        real.append(probes.online_codelength(x, labels).compression)
        shuffled = np.random.default_rng(seed).permutation(labels)
        control.append(probes.online_codelength(x, shuffled).compression)
    assert min(real) > 2
    assert max(control) < 1.1
    assert np.mean(control) < 1


def test_a_label_that_comes_late_has_a_finite_price() -> None:
    x = np.zeros((16, 2))
    labels = np.array(["often"] * 15 + ["late"])
    found = probes.online_codelength(x, labels, order=np.arange(16), portions=(0.5, 1.0))
    # Eight cost a bit each; seven of what was seen eight times; and one that was never seen, one row of 8 + 2.
    close(found.bits, 8 - 7 * math.log2(9 / 10) - math.log2(1 / 10), "product", dtype="float64")


def test_the_compressions_interval_draws_units_whole() -> None:
    """Hand-worked: labels of 1 and 3 bits under 2 uniform ones; with both in every unit nothing varies."""
    length = probes.Codelength(each=np.tile([1.0, 3.0], 30), n_labels=4)
    assert length.compression == 1.0
    low, high = length.compression_interval()
    assert 0.8 < low < 1 < high < 1.3
    assert length.compression_interval(np.repeat(np.arange(30), 2)) == (1.0, 1.0)
    assert np.isnan(length.compression_interval(np.zeros(60))).all()


@pytest.mark.parametrize("portions", [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0)])
def test_portions_that_do_not_ascend_to_one_are_refused(portions: tuple[float, ...]) -> None:
    with pytest.raises(InterpError, match="portions must ascend"):
        probes.online_codelength(np.zeros((4, 1)), np.array([0, 1, 0, 1]), portions=portions)
    with pytest.raises(InterpError, match="at least two different labels"):
        probes.online_codelength(np.zeros((4, 1)), np.zeros(4))


# ---- calibration ----


def test_brier_is_twice_scikit_learns_score_of_two_classes() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.random(50), rng.integers(2, size=50)
    both = np.stack([1 - p, p], axis=1)
    close(probes.brier_score(both, labels), 2 * brier_score_loss(labels, p), "product", dtype="float64")
    close(probes.brier_score(np.full((5, 4), 0.25), np.arange(5) % 4), 0.75, "arithmetic", dtype="float64")


def test_calibration_error_of_a_worked_example() -> None:
    """Two bins: three rows at 0.9 of which two are right, one at 0.6 that is wrong."""
    said = np.array([[0.9, 0.1]] * 3 + [[0.4, 0.6]])
    expected = (abs(2 - 2.7) + abs(0 - 0.6)) / 4
    found = probes.expected_calibration_error(said, np.array([0, 0, 1, 0]))
    close(found, expected, "product", dtype="float64")
    assert probes.expected_calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1.0
    with pytest.raises(InterpError, match="needs a label per row"):
        probes.brier_score(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(InterpError, match="numbers of columns"):
        probes.expected_calibration_error(said, np.array([0, 0, 1, 2]))


# ---- the choice of a penalty ----


def test_the_penalty_is_chosen_by_the_rows_of_the_fit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak is planted: in the rows outside the fit a feature gives the label away. No inner fit may see it."""
    from interp.probes import logistic

    x, labels = planted(60, size=0.3)
    groups = np.repeat(np.arange(20), 3)
    fit = groups < 15
    leaky = np.column_stack([x, np.where(fit, 0.0, 100.0 * (1 + labels))])
    seen: list[np.ndarray] = []

    def watched(x: np.ndarray, *args: object, **options: object) -> object:
        seen.append(x)
        return fitted(x, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(logistic, "fitted", watched)
    alone = probes.chosen_regularisation(leaky[fit], labels[fit], groups[fit])
    assert len(seen) == 5 * 3
    assert max(one[:, -1].max() for one in seen) == 0
    # The watch itself is no empty one: with the other rows the leak would be seen.
    probes.chosen_regularisation(leaky, labels, groups)
    assert max(one[:, -1].max() for one in seen) > 0
    assert alone in logistic.CANDIDATES
    with pytest.raises(InterpError, match="at least two groups"):
        probes.chosen_regularisation(x, labels, np.zeros(60))


def test_a_weak_signal_among_many_features_chooses_a_strong_penalty() -> None:
    weak, labels = planted(90, size=0.25, width=60)
    strong, same = planted(90, size=40.0)
    assert probes.chosen_regularisation(weak, labels, np.arange(90)) < 1.0
    # All are right there; of equals the strongest penalty is taken.
    assert probes.chosen_regularisation(strong, same, np.arange(90), candidates=(10.0, 1.0)) == 1.0


# ---- the null ----

BLOCKS = np.repeat(np.arange(12), 2)
FOLDS = [BLOCKS % 3 == fold for fold in range(3)]


def test_relabelling_keeps_every_block_and_every_fold_as_it_is() -> None:
    labels = np.random.default_rng(0).integers(4, size=24)
    drawn = relabellings(labels, BLOCKS, n=50)
    np.testing.assert_array_equal(drawn[0], np.unique(labels, return_inverse=True)[1])
    for block in range(12):
        assert len(np.unique(np.sort(drawn[:, BLOCKS == block], axis=1), axis=0)) == 1
    mixed = probes.exchangeable(labels, BLOCKS)
    assert (drawn[:, ~mixed] == drawn[0, ~mixed]).all()
    assert all((drawn[:, [i]] != drawn[0, i]).any() for i in np.flatnonzero(mixed))


@pytest.mark.parametrize("width", [5, 40], ids=["more rows", "more features"])
def test_the_accuracy_under_each_relabelling_is_that_of_a_ridge_probe_fitted_anew(width: int) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(3, size=24)
    x = np.eye(3)[labels] @ rng.normal(size=(3, width)) + rng.normal(size=(24, width))
    drawn = relabellings(labels, BLOCKS, n=4)
    expected = []
    for one in drawn:
        right = counted = 0
        for test in FOLDS:
            known = test & np.isin(one, one[~test])
            probe = RidgeProbe().fit(x[~test], one[~test])
            right += int((probe.predict(x[known]) == one[known]).sum())
            counted += int(known.sum())
        expected.append(right / counted)
    close(ridge_accuracies(x, drawn, FOLDS), expected, "arithmetic", dtype="float64")


def test_labels_that_a_fold_never_saw_do_not_count() -> None:
    x = np.repeat(np.eye(4), 6, axis=0) * 10
    labels = np.repeat([0, 1, 2, 3], 6)
    drawn = relabellings(labels, labels, n=1)
    within = [np.arange(24) % 2 == 0, np.arange(24) % 2 == 1]
    assert ridge_accuracies(x, drawn, within).tolist() == [1.0, 1.0]
    rare = [(np.arange(24) % 2 == 0) | (labels == 3), np.arange(24) % 2 == 1]
    assert ridge_accuracies(x, drawn, rare)[0] == 1.0  # the last label was in no fit of the first fold
    with pytest.raises(InterpError, match="must test some rows"):
        ridge_accuracies(x, drawn, [np.ones(24, bool)])


def test_a_place_where_the_pair_is_one_and_the_same_is_never_readable() -> None:
    """Before the word is said both prompts of a pair are equal, so that no exchange changes anything."""
    x = np.repeat(np.random.default_rng(0).normal(size=(12, 6)), 2, axis=0)
    drawn = relabellings(np.tile([0, 1], 12), BLOCKS, n=99)
    found = ridge_accuracies(x, drawn, FOLDS)
    assert len(set(found.tolist())) == 1
    assert max_over_cells_p_values(found[:, None]).tolist() == [1.0]


def test_the_null_finds_what_is_there_and_keeps_its_false_alarm_rate() -> None:
    """Grids of four places without any signal but the sentence: at most 5% of them have a p of 0.05 or less."""
    n, alarms, found = 200, 0, 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        sentence = np.repeat(rng.normal(size=(12, 6)) * 3, 2, axis=0)
        labels = np.concatenate([rng.permutation(3)[:2] for _ in range(12)])
        drawn = relabellings(labels, BLOCKS, n=39, seed=seed)
        cells = [sentence + rng.normal(size=(24, 6)) for _ in range(4)]
        cells[1] = cells[0] + 0.1 * rng.normal(size=(24, 6))  # places depend on each other
        statistics = np.stack([ridge_accuracies(x, drawn, FOLDS) for x in cells], axis=1)
        alarms += bool(max_over_cells_p_values(statistics).min() <= 0.05)
        if seed < 20:
            cells[2] = cells[2] + 12 * np.eye(6)[labels]
            statistics[:, 2] = ridge_accuracies(cells[2], drawn, FOLDS)
            found += bool(max_over_cells_p_values(statistics)[2] <= 0.05)
    assert alarms <= binom.ppf(0.999, n, 0.05), alarms
    assert found >= 18


def test_p_values_over_cells_are_the_share_of_draws_with_as_large_a_largest() -> None:
    drawn = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 100] + [0, 5, -3]
    standard = (drawn - drawn.mean(0)) / drawn.std(0)
    largest = standard.max(axis=1)
    expected = [(largest >= one - 1e-9).mean() for one in standard[0]]
    close(max_over_cells_p_values(drawn), expected, "arithmetic", dtype="float64")
    holed = np.column_stack([drawn, np.full(40, np.nan), np.full(40, 0.3)])
    found = max_over_cells_p_values(holed)
    close(found[:3], expected, "arithmetic", dtype="float64")
    assert np.isnan(found[3])
    assert found[4] == 1.0
    near(max_over_cells_p_values(np.array([[2.0], [1.0], [0.0], [1.0]]))[0], 0.25, 1e-12, why="one of four draws")
    with pytest.raises(InterpError, match="at least two draws"):
        max_over_cells_p_values(drawn[:1])
