"""Probes: planted directions are found, random labels are not, and no held-out noun enters a fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from analyses import probing
from interp import probes, results, run, tasks
from interp.errors import InterpError, UnaskableError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.prompts.vocabulary import Vocabulary
from tests.tiny import VOCAB
from tests.tolerance import close, near

N_NOUNS, N_COLORS, WIDTH = 12, 4, 24
PLAIN: dict[str, Any] = {"probes": (), "codelength": False, "n_permutations": 0}
"""Options of a run that fits the logistic probe alone."""
NOUN, COLOR = range(10, 10 + N_NOUNS), range(40, 40 + N_COLORS)


def make_pairs(n: int = 60, *, seed: int = 0) -> PromptPairs:
    """Rows of filler, colour, filler, noun, filler: every noun five times; corrupted has another colour."""
    rng = np.random.default_rng(seed)
    clean, corrupted, slots, other_slots = [], [], [], []
    for i in range(n):
        noun, color = NOUN[i % N_NOUNS], COLOR[int(rng.integers(N_COLORS))]
        other = int(rng.choice([c for c in COLOR if c != color]))
        rest = rng.integers(50, VOCAB, 2)  # makes every prompt different
        clean.append([1, color, rest[0], noun, rest[1]])
        corrupted.append([1, other, rest[0], noun, rest[1]])
        slots.append({"color": f"c{color}", "noun": f"n{noun}", "color_other": f"c{other}"})
        other_slots.append({"color": f"c{other}", "noun": f"n{noun}", "color_other": f"c{color}"})
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 1, "noun": 3})
    pairs = replace(pairs, stated=Vocabulary(target="noun"))
    return replace(pairs, slots=tuple(slots), corrupted_slots=tuple(other_slots))


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return make_pairs()


class Planted:
    """Stands in for ``capture``: noise, plus given vectors at given cells."""

    def __init__(self, **planted: Any) -> None:
        self.planted = planted

    def __call__(self, model: Any, prompts: Prompts, site: str, at: Any, layers: Any) -> xr.Dataset:
        shape = (len(prompts), len(layers), len(at), WIDTH)
        values = np.random.default_rng(sum(map(ord, site)) + layers[0]).normal(size=shape)
        for name, make in self.planted.items():
            if name in at:
                values[:, :, list(at).index(name)] += make(prompts)[:, None]
        dims = ("prompt", "layer", "role", "d_model")
        return xr.Dataset({site: (dims, values)}, coords={"layer": list(layers), "role": list(at)})


def directions(prompts: Prompts, position: int, size: float = 3.0) -> np.ndarray:
    """A random vector for each token id at a position."""
    table = np.random.default_rng(1).normal(size=(VOCAB, WIDTH)) * size
    return np.asarray(table[prompts.ids[:, position]])


# ---- what is found ----


def test_a_planted_color_is_found_on_nouns_never_seen(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "capture", Planted(noun=lambda p: directions(p, 1)))
    got = probing.run(gpt2, pairs, layers=[0])
    means = got.mean("fold").isel(site=0, layer=0)
    assert float(means["accuracy"].sel(role="noun")) > 0.98
    assert float(means["selectivity"].sel(role="noun")) > 0.6
    assert float(means["distractor_rate"].sel(role="noun")) < 0.02
    for role in ("color", "answer"):  # noise there
        assert abs(float(means["accuracy"].sel(role=role)) - 0.25) < 0.15
        assert abs(float(means["selectivity"].sel(role=role))) < 0.2
        assert abs(float(means["distractor_rate"].sel(role=role)) - 0.25) < 0.15
    assert float(got["chance"]) == 1 / N_COLORS
    assert (got.attrs["n_data"], got.attrs["n_groups"], got.attrs["n_labels"]) == (120, N_NOUNS, N_COLORS)


def test_random_labels_are_not_found(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many repeats, since one accuracy on 120 prompts is itself noisy."""
    accuracy, selectivity = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels = [[{"color": f"c{rng.integers(N_COLORS)}", "noun": s["noun"]} for s in pairs.slots] for _ in range(2)]
        shuffled = replace(pairs, slots=tuple(labels[0]), corrupted_slots=tuple(labels[1]))
        # Everything is readable here, colour included; the labels are not connected to it.
        monkeypatch.setattr(probing, "capture", Planted(answer=lambda p: directions(p, 1)))
        got = probing.run(gpt2, shuffled, layers=[0], roles=["answer"], seed=seed, **PLAIN)
        accuracy.append(float(got["accuracy"].mean()))
        selectivity.append(float(got["selectivity"].mean()))
    assert abs(np.mean(accuracy) - 0.25) < 0.04
    assert abs(np.mean(selectivity)) < 0.05


def test_recognising_the_sentence_is_caught_by_the_control_and_does_not_help_the_probe(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pair of prompts has its own vector: everything can be memorised, nothing is known of the colour."""

    def sentence(prompts: Prompts) -> np.ndarray:
        key = prompts.ids[:, 2] * 1000 + prompts.ids[:, 3] * 37 + prompts.ids[:, 4]
        return np.stack([np.random.default_rng(int(k)).normal(size=WIDTH) * 10 for k in key])

    monkeypatch.setattr(probing, "capture", Planted(noun=sentence))
    got = probing.run(gpt2, pairs, layers=[0], roles=["noun"])
    assert got.attrs["control_seen"] == 1.0
    control, chance = float(got["control_accuracy"].mean()), 1 / N_COLORS
    assert control > chance + 0.25
    assert float(got["accuracy"].mean()) < chance + 0.12
    assert float(got["selectivity"].mean()) < -0.15


def test_an_unbound_color_is_told_from_a_bound_one_by_the_distractor(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of both colours is readable and not bound: the probe cannot tell which is whose."""

    def both(prompts: Prompts) -> np.ndarray:
        table = np.random.default_rng(1).normal(size=(VOCAB, WIDTH)) * 6
        partner = {tuple(row): other[1] for row, other in zip(clean, corrupted, strict=True)}
        partner |= {tuple(row): other[1] for row, other in zip(corrupted, clean, strict=True)}
        return np.stack([table[row[1]] + table[partner[tuple(row)]] for row in prompts.rows()])

    clean, corrupted = pairs.clean.rows(), pairs.corrupted.rows()
    monkeypatch.setattr(probing, "capture", Planted(noun=both))
    got = probing.run(gpt2, pairs, layers=[0], roles=["noun"]).mean("fold").isel(site=0, layer=0, role=0)
    assert float(got["accuracy"]) < 0.65
    assert float(got["accuracy"] + got["distractor_rate"]) > 0.9


def test_the_color_is_read_at_its_own_word_and_not_before_it(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    """A real run: at layer 0 the colour's word is its own embedding, and the noun's word knows nothing of it."""
    got = probing.run(gpt2, pairs, **PLAIN)
    assert got["accuracy"].dims == ("site", "layer", "role", "fold")
    assert got["layer"].values.tolist() == [0, 1, 2, 3]
    mean = got["accuracy"].mean("fold").isel(site=0)
    np.testing.assert_array_equal(mean.sel(role="color", layer=0), 1.0)
    assert abs(float(mean.sel(role="noun", layer=0)) - 0.25) < 0.2
    assert np.isfinite(got["accuracy"]).all()
    close(got["selectivity"], got["accuracy"] - got["control_accuracy"], "arithmetic", dtype="float64", size=1)
    assert got.attrs["n_unconverged"] == 0


# ---- how sure that is ----


def test_only_what_names_the_color_itself_has_a_small_p(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the noun the colour is readable, at the answer the sentence is: recognising it is no evidence."""

    def sentence(prompts: Prompts) -> np.ndarray:
        key = prompts.ids[:, 2] * 1000 + prompts.ids[:, 3] * 37 + prompts.ids[:, 4]
        return np.stack([np.random.default_rng(int(k)).normal(size=WIDTH) * 10 for k in key])

    monkeypatch.setattr(probing, "capture", Planted(noun=lambda p: directions(p, 1), answer=sentence))
    got = probing.run(gpt2, pairs, layers=[0], n_permutations=99).isel(site=0, layer=0)
    assert float(got["p_value"].sel(role="noun")) == 0.01
    assert float(got["p_value"].sel(role="answer")) > 0.05
    assert float(got["p_value"].sel(role="color")) > 0.05  # noise
    assert float(got["compression"].sel(role="noun")) > 2
    for name, role in (("compression", "color"), ("control_compression", "noun")):
        assert float(got[name].sel(role=role)) < 1.1
    uniform = got.attrs["n_data"] * np.log2(N_COLORS)
    close(got["compression"] * got["codelength"], np.full(3, uniform), "product", dtype="float64")
    assert float(got["brier"].sel(role="noun")) < 0.2 < float(got["brier"].sel(role="color"))
    means = got["accuracy_by_probe"].mean("fold").sel(role="noun")
    assert means["probe"].values.tolist() == ["logistic", "means", "ridge"]
    assert (means > 0.95).all()
    np.testing.assert_array_equal(got["accuracy_by_probe"].sel(probe="logistic"), got["accuracy"])


def test_a_label_that_is_no_business_of_the_pair_has_no_p(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "capture", Planted())
    got = probing.run(gpt2, pairs, target="noun", group="pair", layers=[0], roles=["noun"], codelength=False)
    assert np.isnan(got["p_value"]).all()
    assert got.attrs["n_exchangeable"] == 0
    assert "p_value" not in probing.run(gpt2, pairs, layers=[0], roles=["noun"], **PLAIN)


def test_labels_that_a_fit_never_saw_are_reported_and_are_no_errors(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One noun alone is ever of the fifth colour: no other prompt can teach it."""
    fifth = [{**slots, "color": "fifth"} if slots["noun"] == "n10" else slots for slots in pairs.slots]
    own = replace(pairs, slots=tuple(fifth))
    monkeypatch.setattr(probing, "capture", Planted(noun=lambda p: directions(p, 1, size=6.0)))
    got = probing.run(gpt2, own, layers=[0], roles=["noun"], **PLAIN)
    assert sorted(got["unseen"].values.tolist())[:4] == [0, 0, 0, 0]
    close(float((got["unseen"] * got["n_test"]).sum()), 5, "arithmetic", dtype="float64")
    assert float(got["accuracy"].min()) > 0.9


def test_templates_are_held_out_in_turn(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The colour has another vector in each template: read within them, it is not read across."""
    two = replace(pairs, variants=tuple("first" if i % 2 else "second" for i in range(len(pairs))))
    sides = {tuple(row): i % 2 for part in (two.clean, two.corrupted) for i, row in enumerate(part.rows())}

    def own(prompts: Prompts) -> np.ndarray:
        table = np.random.default_rng(1).normal(size=(2, VOCAB, WIDTH)) * 6
        return np.stack([table[sides[tuple(row)], row[1]] for row in prompts.rows()])

    monkeypatch.setattr(probing, "capture", Planted(noun=own))
    quick: dict[str, Any] = {"layers": [0], "roles": ["noun"], **PLAIN}
    across = probing.run(gpt2, two, group="template", **quick)
    assert (across.sizes["fold"], across.attrs["held_out_in_words"]) == (2, "the template")
    assert float(across["accuracy"].mean()) < 0.5
    assert float(probing.run(gpt2, two, **quick)["accuracy"].mean()) > 0.9
    with pytest.raises(UnaskableError, match="Every prompt has the same template"):
        probing.run(gpt2, pairs, group="template", **quick)


def test_a_penalty_chosen_within_the_fit_and_a_perceptron_read_what_is_planted(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity of two planted signs is no linear function of the features: only the perceptron reads it."""
    even = {f"c{c}": c % 2 for c in COLOR}

    def signs(prompts: Prompts) -> np.ndarray:
        first = np.where(prompts.ids[:, 4] % 2, 1.0, -1.0)
        same = np.array([even[f"c{row[1]}"] for row in prompts.rows()])
        found = np.zeros((len(prompts), WIDTH))
        found[:, 0], found[:, 1] = 8 * first, 8 * np.where(same, first, -first)
        return found

    for words in ("slots", "corrupted_slots"):
        said = tuple({**slots, "color": str(even[slots["color"]])} for slots in getattr(pairs, words))
        pairs = replace(pairs, **{words: said})  # type: ignore[arg-type]
    monkeypatch.setattr(probing, "capture", Planted(noun=signs))
    got = probing.run(gpt2, pairs, layers=[0], roles=["noun"], n_folds=3, **{**PLAIN, "probes": ["tuned", "mlp"]})
    by_probe = got["accuracy_by_probe"].mean("fold").squeeze(drop=True)
    assert float(by_probe.sel(probe="mlp")) > 0.9
    for linear in ("logistic", "tuned"):
        assert float(by_probe.sel(probe=linear)) < 0.7


def test_the_classifier_chooses_its_layer_by_the_prompts_of_its_fit(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that says the colour in the first fold alone is not chosen where that fold is tested."""
    data = probing.data.labelled(pairs, "color", "noun")
    tested = probing.data.group_folds(data.groups, 5)[0]
    plain = Planted(answer=lambda p: directions(p, 1, size=1.0))

    def planted(model: Any, prompts: Prompts, site: str, at: Any, layers: Any) -> xr.Dataset:
        found = plain(model, prompts, site, at, layers)
        if 2 in layers:
            values = found[site].values[:, list(layers).index(2)]
            values[~tested] = 0.0  # nothing there for the fit of the first fold
            values[tested] = directions(prompts, 1, size=50.0)[tested][:, None]
        return found

    monkeypatch.setattr(probing, "capture", planted)
    got = probing.run(gpt2, pairs, layers=[0, 2], roles=["answer"], **PLAIN)
    assert int(got["classifier_layer"][0]) == 0
    for fold, layer in enumerate(got["classifier_layer"].values):
        cell = got.isel(site=0, role=0, fold=fold).sel(layer=layer)
        assert float(got["classifier_accuracy"][fold]) == float(cell["accuracy"])
        assert float(got["classifier_control_accuracy"][fold]) == float(cell["control_accuracy"])
    low, high = got["classifier_mean_interval"].values
    assert 0.7 < low < float(got["classifier_mean"]) <= high <= 1
    assert got.attrs["n_features"] == WIDTH


# ---- what enters a fit ----


class Spy:
    """Remembers what scalers and classifiers were fitted on and asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scaled: list[np.ndarray] = []
        self.fitted: list[tuple[np.ndarray, np.ndarray]] = []
        self.asked: list[np.ndarray] = []
        fit_scaler, fit, predict = StandardScaler.fit, LogisticRegression.fit, LogisticRegression.predict

        def scaler(this: Any, x: np.ndarray, *args: Any, **kwargs: Any) -> Any:
            self.scaled.append(np.array(x))
            return fit_scaler(this, x, *args, **kwargs)

        def classifier(this: Any, x: np.ndarray, y: np.ndarray, *args: Any, **kwargs: Any) -> Any:
            self.fitted.append((np.array(x), np.array(y)))
            return fit(this, x, y, *args, **kwargs)

        def answer(this: Any, x: np.ndarray, *args: Any, **kwargs: Any) -> Any:
            self.asked.append(np.array(x))
            return predict(this, x, *args, **kwargs)

        monkeypatch.setattr(StandardScaler, "fit", scaler)
        monkeypatch.setattr(LogisticRegression, "fit", classifier)
        monkeypatch.setattr(LogisticRegression, "predict", answer)


class Numbered(Planted):
    """Feature 0 is the row's number among the prompts, feature 1 its noun: whatever is fitted can be traced."""

    def __call__(self, model: Any, prompts: Prompts, site: str, at: Any, layers: Any) -> xr.Dataset:
        found = super().__call__(model, prompts, site, at, layers)
        found[site].values[..., 0] = np.arange(len(prompts))[:, None, None]
        found[site].values[..., 1] = prompts.ids[:, 3, None, None]
        return found


@pytest.fixture
def spied(gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch) -> tuple[Spy, xr.Dataset]:
    spy = Spy(monkeypatch)
    monkeypatch.setattr(probing, "capture", Numbered())
    return spy, probing.run(gpt2, pairs, layers=[0], roles=["noun"], **PLAIN)


def test_held_out_nouns_never_enter_the_fit(spied: tuple[Spy, xr.Dataset]) -> None:
    spy, got = spied
    task, control = spy.scaled[::2], spy.scaled[1::2]
    assert len(task) == len(control) == got.sizes["fold"] == 5
    tested: set[int] = set()
    for fold, x in enumerate(task):
        inside, outside = set(x[:, 1].astype(int)), set(NOUN) - set(x[:, 1].astype(int))
        rows = set(x[:, 0].astype(int))
        assert outside
        assert inside | outside == set(NOUN)
        # A noun is in the fit with all its prompts, clean and corrupted, or not at all.
        assert len(rows) == sum(10 for _ in inside) == int(got["n_train"][fold])
        assert int(got["n_test"][fold]) == 120 - len(rows)
        assert not tested & outside
        tested |= outside
    assert tested == set(NOUN)
    for x in control:  # the control's types, by design, are in its fit
        assert set(x[:, 1].astype(int)) == set(NOUN)


def test_the_scaler_is_fitted_inside_the_fold_only(spied: tuple[Spy, xr.Dataset]) -> None:
    spy, _ = spied
    assert len(spy.scaled) == len(spy.fitted) == len(spy.asked) == 10
    for raw, (x, y), asked in zip(spy.scaled, spy.fitted, spy.asked, strict=True):
        assert len(raw) == len(x) == len(y) < 120
        assert len(asked) == 120 - len(raw)
        close(x, (raw - raw.mean(0)) / raw.std(0), "product", dtype="float64", size=raw / raw.std(0))
        # Tested prompts are scaled by the fit's mean, not their own.
        assert abs(asked[:, 2].mean()) > 1e-6


def test_clean_and_corrupted_prompts_are_data_with_their_own_labels(
    spied: tuple[Spy, xr.Dataset], pairs: PromptPairs
) -> None:
    spy, _ = spied
    expected = [slots["color"] for slots in (*pairs.slots, *pairs.corrupted_slots)]
    for raw, (_, y) in zip(spy.scaled[::2], spy.fitted[::2], strict=True):
        assert y.tolist() == [expected[int(row)] for row in raw[:, 0]]


def test_the_two_prompts_of_a_pair_share_a_control_label_and_are_never_tested_together(
    spied: tuple[Spy, xr.Dataset], pairs: PromptPairs
) -> None:
    spy, _ = spied
    label: dict[int, str] = {}
    n = len(pairs)
    for raw, (_, y) in zip(spy.scaled[1::2], spy.fitted[1::2], strict=True):
        rows = raw[:, 0].astype(int)
        for row, own in zip(rows, y, strict=True):
            assert label.setdefault(row % n, own) == own
        left_out = set(range(2 * n)) - set(rows.tolist())
        assert len({row % n for row in left_out}) == len(left_out)
    drawn = sorted(label[i] for i in range(n))
    assert drawn == sorted(slots["color"] for slots in pairs.slots)  # the task's own label frequencies
    assert [label[i] for i in range(n)] != [slots["color"] for slots in pairs.slots]


# ---- baselines and inputs ----


def test_majority_is_the_accuracy_of_the_fits_most_frequent_label(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "capture", Planted())
    rare = [{**slots, "color": "rare" if i % 10 == 0 else "common"} for i, slots in enumerate(pairs.slots)]
    uneven = replace(pairs, slots=tuple(rare), corrupted_slots=tuple(rare))
    got = probing.run(gpt2, uneven, layers=[0], roles=["noun", "answer"], **PLAIN)
    near(got["majority"], 0.9, 0.02, why="a fold holds a prompt more or less of the rare kind")
    assert got["majority"].dims == ("role",)


def test_prompts_that_occur_twice_count_once(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "capture", Planted())
    twice = PromptPairs.concat([pairs, pairs.select([0, 1, 2])])
    got = probing.run(gpt2, twice, layers=[0], roles=["noun"], **PLAIN)
    assert (got.attrs["n_data"], got.attrs["n_repeated"]) == (120, 6)


def test_tokens_of_a_role_are_the_label_where_there_are_no_slots(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    bare = replace(pairs, slots=({},) * len(pairs), corrupted_slots=({},) * len(pairs))
    mine = probing.run(gpt2, bare, layers=[1], **PLAIN)
    theirs = probing.run(gpt2, pairs, layers=[1], **PLAIN)
    np.testing.assert_array_equal(mine["accuracy"], theirs["accuracy"])
    assert "distractor_rate" not in mine
    prompts = Prompts.concat([pairs.clean, pairs.corrupted])
    alone = probing.run(gpt2, prompts, target="color", group="noun", layers=[1], **PLAIN)
    np.testing.assert_array_equal(alone["accuracy"], theirs["accuracy"])
    assert alone.attrs["control_seen"] == 1.0  # the type is the prompt without its colour, which both of a pair share
    assert alone.attrs["n_control_types"] == len(pairs)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_other_sites_have_no_layer_after_the_last_block(
    name: str, pairs: PromptPairs, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    few = pairs.select(range(24))
    told: list[tuple[int, int]] = []
    got = probing.run(
        model, few, sites=["resid_pre", "k"], layers=[2, 3], roles=["noun"], n_folds=3, **PLAIN,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert got["layer"].values.tolist() == [2, 3]
    assert np.isnan(got["accuracy"].sel(site="k", layer=3)).all()
    assert np.isfinite(got["accuracy"].sel(site="k", layer=2)).all()
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_last_layer_of_the_stream_is_resid_post(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    features = probing._Features(gpt2, pairs.clean, ["resid_pre"], ["noun"], [1, 3])
    read = {index[1]: x for index, x in features}
    for slot, site, layer in ((0, "resid_pre", 1), (1, "resid_post", 2)):
        expected = run.capture(gpt2, pairs.clean, site, at=["noun"], layers=[layer])[site].values[:, 0, 0]
        np.testing.assert_array_equal(read[slot], expected)


def test_the_same_seed_gives_the_same_result_in_a_file(
    gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path
) -> None:
    few: dict[str, Any] = {"layers": [1], "roles": ["noun"], "n_permutations": 20}
    first, second, other = (probing.run(gpt2, pairs, seed=seed, **few) for seed in (4, 4, 5))
    xr.testing.assert_equal(first, second)
    assert not np.array_equal(first["control_accuracy"], other["control_accuracy"])
    np.testing.assert_array_equal(first["accuracy"], other["accuracy"])
    saved = results.load(results.save(first, tmp_path / "probing.nc"))
    xr.testing.assert_identical(saved, first)


def test_fits_that_stop_early_are_counted_not_warned_about(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "capture", Planted())
    monkeypatch.setattr(probing.logistic, "MAX_ITERATIONS", 2)
    got = probing.run(gpt2, pairs, layers=[0], roles=["noun"], **PLAIN)
    assert got.attrs["n_unconverged"] == 10


def test_without_a_target_word_pairs_are_held_out(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    """The source is the role in which clean and corrupted differ, and the answer position is the target."""
    found = probing.run(gpt2, replace(pairs, stated=Vocabulary()), roles=["color"], layers=[0])
    assert (found.attrs["target"], found.attrs["held_out"]) == ("color", "pair")
    assert found.attrs["question"] == "At which layer, and at which word, can a linear probe read 'color'?"
    assert found.attrs["reading"].startswith("Accuracy where the pair of prompts was not in the fit.")
    assert found.attrs["n_groups"] == len(pairs)
    assert float(found["accuracy"].mean()) == 1.0  # the colour's own token tells it


def test_labels_that_no_other_group_has_cannot_be_asked_for(gpt2: HookedTransformer) -> None:
    """Every pair copies tokens of its own, as in induction on random tokens."""
    clean = [[1, 2 + 2 * i, 30] for i in range(8)]
    corrupted = [[1, 3 + 2 * i, 30] for i in range(8)]
    own = PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"copied": 1})
    with pytest.raises(UnaskableError, match="Only 0 of 16 labels of 'copied' occur with another 'pair' too"):
        probing.run(gpt2, own)


def test_a_label_for_every_other_prompt_is_fitted_in_silence(gpt2: HookedTransformer) -> None:
    """Twenty-four words under two others: each fit sees every word once, and its own embedding names it."""
    clean = [[1, 10 + 2 * i, noun] for noun in (5, 6) for i in range(12)]
    corrupted = [[1, 11 + 2 * i, noun] for noun in (5, 6) for i in range(12)]
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=7, incorrect=9, roles={"color": 1, "noun": 2})
    found = probing.run(gpt2, pairs, target="color", group="noun", roles=["color"], layers=[0])
    assert (found.attrs["n_labels"], found.attrs["n_data"]) == (24, 48)
    assert float(found["accuracy"].mean()) == 1.0


def test_pairs_that_differ_in_no_role_cannot_be_probed(gpt2: HookedTransformer) -> None:
    bare = PromptPairs.from_tokens([[1, 2, 3]] * 2, [[1, 4, 3]] * 2, correct=5, incorrect=9)
    with pytest.raises(UnaskableError, match="differ in no word that has a role"):
        probing.run(gpt2, bare)
    with pytest.raises(InterpError, match="Prompts without pairs do not say what to read"):
        probing.run(gpt2, bare.clean)


def test_fewer_groups_than_folds_make_fewer_folds(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    three = pairs.select([i for i in range(60) if i % N_NOUNS < 3])
    got = probing.run(gpt2, three, layers=[0], roles=["noun"])
    assert (got.sizes["fold"], got.attrs["n_folds"]) == (3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "colour"}, "Unknown target 'colour'. Did you mean 'color'?"),
        ({"group": "nuon"}, "Unknown group 'nuon'. Did you mean 'noun'?"),
        ({"roles": ["nonu"]}, "Unknown role 'nonu'. Did you mean 'noun'?"),
        ({"sites": ["residpre"]}, "Unknown site 'residpre'. Did you mean 'resid_pre'?"),
        ({"sites": ["pattern"]}, "Site 'pattern' has no vector per layer and position"),
        ({"sites": ["embed"]}, "Site 'embed' has no vector per layer and position"),
        ({"layers": [7]}, "Layers [7] cannot be probed"),
        ({"n_folds": 1}, "n_folds is 1"),
        ({"probes": ["mpl"]}, "Unknown probe 'mpl'. Did you mean 'mlp'?"),
        ({"n_permutations": -1}, "n_permutations"),
        ({"target": "same"}, "Every prompt has the same same (x)"),
        ({"group": "same"}, "Every prompt has the same same, so none can be held out"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    options: dict[str, Any], message: str, gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    also = [tuple({**s, "same": "x"} for s in slots) for slots in (pairs.slots, pairs.corrupted_slots)]
    with pytest.raises(InterpError) as error:
        probing.run(gpt2, replace(pairs, slots=also[0], corrupted_slots=also[1]), **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


# ---- other tasks ----


@pytest.fixture(scope="module")
def own(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=16)


def test_a_language_held_out_is_the_transfer_of_the_library(mini: HookedTransformer, own: PromptPairs) -> None:
    """Both ways, at the stream after the last block, by ``probes.transfer`` on pairs that are built by hand."""
    last = mini.cfg.n_layers
    options: dict[str, Any] = {**PLAIN, "roles": ["color"], "layers": [0, last], "n_permutations": 20}
    got = probing.run(mini, own, transfer=["color-noun-es/recall"], **options)
    other = tasks.build("color-noun-es", "recall", tokenizer=mini, n=16)
    there, back = "color-noun/recall -> color-noun-es/recall", "color-noun-es/recall -> color-noun/recall"
    assert got["transfer"].values.tolist() == [there, back]
    for entry, fitted_on, tested_on, words in (
        (there, own, other, ("color-noun-es", "color-noun")),
        (back, other, own, ("color-noun", "color-noun-es")),
    ):
        labels = probes.same_words(*words, "color")
        for layer, site, at in ((0, "resid_pre", 0), (last, "resid_post", last - 1)):
            expected = probes.transfer(
                mini, fitted_on, tested_on, labels=labels, site=site, roles=["color"], layers=at, n_permutations=20
            )
            found = got.sel(transfer=entry, layer=layer, role="color").isel(site=0)
            for name in ("accuracy", "accuracy_interval", "brier"):
                close(found[f"transfer_{name}"], expected[name].squeeze(), "product", dtype="float64")
    assert (got["transfer_p_value"] >= 1 / 21).all()


def test_other_rungs_have_the_same_words_and_roles_they_lack_are_left_out(
    mini: HookedTransformer, own: PromptPairs
) -> None:
    two = tasks.build("color-noun", "two", tokenizer=mini, n=16)
    got = probing.run(mini, two, transfer=["color-noun/recall"], roles=["color", "noun_other"], layers=[0], **PLAIN)
    accuracy = got["transfer_accuracy"].isel(site=0, layer=0)
    assert (accuracy.sel(role="color") > 0.8).all()  # the colour's own embedding
    assert np.isnan(accuracy.sel(role="noun_other")).all()
    assert (got["transfer_unseen"] < 0.5).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("color-nuon", "Unknown task 'color-nuon'"),
        ("color-noun-es/nothing", "Unknown rung 'nothing'"),
        ("ioi", "Unknown slot 'color' of ioi"),
    ],
)
def test_a_task_with_nothing_in_common_is_refused_before_a_model_is_loaded(
    own: PromptPairs, name: str, says: str
) -> None:
    with pytest.raises(InterpError, match=says):
        probing.check_askable(own, transfer=[name])


def test_words_of_ones_own_task_are_not_translated(mini: HookedTransformer, own: PromptPairs) -> None:
    mine = replace(own, task="mine")
    probing.check_askable(mine, transfer=["color-noun"])
    with pytest.raises(InterpError, match="only the lists of bundled tasks are translated"):
        probing.check_askable(mine, transfer=["color-noun-es"])
    with pytest.raises(InterpError, match="Leave transfer= out"):
        probing.run(mini, own.clean, target="color", group="noun", transfer=["color-noun-es"], layers=[0], **PLAIN)


def test_where_a_run_is_costly_every_third_layer_is_probed_unless_layers_are_named(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = pairs.select(range(24))
    every = probing.run(gpt2, few, roles=["noun"], n_folds=2, **PLAIN)
    assert every.attrs["bounded"] == ""
    monkeypatch.setattr("interp.sweeps.planning.COSTLY", 1.0)
    last = gpt2.cfg.n_layers
    bounded = probing.run(gpt2, few, roles=["noun"], n_folds=2, **PLAIN)
    assert bounded["layer"].values.tolist() == sorted({*range(0, last + 1, 3), last})
    assert bounded.attrs["bounded"] == f"layers: {bounded.sizes['layer']} of {last + 1}"
    xr.testing.assert_identical(bounded["accuracy"], every["accuracy"].sel(layer=bounded["layer"]))
    named = probing.run(gpt2, few, roles=["noun"], layers=[1], n_folds=2, **PLAIN)
    assert named["layer"].values.tolist() == [1]
    assert named.attrs["bounded"] == ""
