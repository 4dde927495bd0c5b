"""Probes across prompts: what is read in other sentences and languages, and what is tied to those of the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp import probes, run, tasks
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.prompts.vocabulary import Vocabulary
from tests.tolerance import close

COLORS, OTHER_COLORS = range(40, 44), range(45, 49)
SAME = {f"c{other}": f"c{color}" for color, other in zip(COLORS, OTHER_COLORS, strict=True)}


def make_pairs(colors: range, noun: int, seed: int) -> PromptPairs:
    rng = np.random.default_rng(seed)
    clean, corrupted, slots = [], [], []
    for i in range(20):
        color, other = rng.choice(colors, 2, replace=False).tolist()
        rest = (50 + i % 10, 50 + i // 10)  # makes every prompt different
        clean.append([1, color, rest[0], noun, rest[1]])
        corrupted.append([1, other, rest[0], noun, rest[1]])
        slots.append(({"color": f"c{color}"}, {"color": f"c{other}"}))
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 1, "noun": 3})
    return replace(
        pairs,
        stated=Vocabulary(source="color", target="noun"),
        slots=tuple(one for one, _ in slots),
        corrupted_slots=tuple(other for _, other in slots),
    )


@pytest.fixture(scope="module")
def english() -> PromptPairs:
    return make_pairs(COLORS, 10, 0)


@pytest.fixture(scope="module")
def spanish() -> PromptPairs:
    return make_pairs(OTHER_COLORS, 20, 1)


class Planted:
    """Stands in for ``capture``: noise, and at the noun a vector of the colour that both languages share."""

    def __call__(self, model: Any, prompts: Any, site: str, at: Any, layers: Any) -> xr.Dataset:
        rng = np.random.default_rng(len(prompts))
        values = rng.normal(size=(len(prompts), len(layers), len(at), 16))
        table = np.random.default_rng(1).normal(size=(5, 16)) * 4
        values[:, -1, list(at).index("noun")] += table[prompts.ids[:, 1] % 5]
        dims = ("prompt", "layer", "role", "d_model")
        return xr.Dataset({site: (dims, values)}, coords={"layer": list(layers), "role": list(at)})


def test_what_two_languages_share_is_read_across_them(
    gpt2: HookedTransformer, english: PromptPairs, spanish: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.probes.across.capture", Planted())
    found = probes.transfer(gpt2, english, spanish, labels=SAME, roles=["color", "noun"], layers=[0, 1])
    assert found["accuracy"].dims == ("layer", "role")
    assert float(found["accuracy"].sel(layer=1, role="noun")) > 0.95
    assert float(found["p_value"].sel(layer=1, role="noun")) == 1 / 201
    others = found["p_value"].values.ravel()[:3]
    assert (others > 0.05).all()
    low, high = found["accuracy_interval"].sel(layer=0, role="noun").values
    assert low < float(found["accuracy"].sel(layer=0, role="noun")) < high
    assert (float(found["chance"]), float(found["unseen"])) == (0.25, 0.0)


def test_it_is_scikit_learns_probe_of_one_set_asked_about_the_other(
    gpt2: HookedTransformer, english: PromptPairs
) -> None:
    other = make_pairs(COLORS, 20, 3)
    found = probes.transfer(gpt2, english, other, site="resid_pre", roles=["color"], layers=[0, 2], n_permutations=0)
    assert "p_value" not in found
    x, y = (
        np.concatenate(
            [run.capture(gpt2, side, "resid_pre", at=["color"])["resid_pre"].values[:, 2, 0] for side in sides]
        )
        for sides in ((english.clean, english.corrupted), (other.clean, other.corrupted))
    )
    labels, truth = (
        np.array([words["color"] for words in (*pairs.slots, *pairs.corrupted_slots)]) for pairs in (english, other)
    )
    scaler = StandardScaler().fit(x)
    probe = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(x), labels)
    close(found["accuracy"][1, 0], probe.score(scaler.transform(y), truth), "arithmetic", dtype="float64")
    assert float(found["accuracy"][0, 0]) == 1.0


def test_labels_that_the_fit_never_saw_are_reported(
    gpt2: HookedTransformer, english: PromptPairs, spanish: PromptPairs
) -> None:
    fewer = {word: same for word, same in SAME.items() if word != "c45"}
    found = probes.transfer(gpt2, english, spanish, labels=fewer, layers=0, n_permutations=10)
    words = [slots["color"] for slots in (*spanish.slots, *spanish.corrupted_slots)]
    close(found["unseen"], words.count("c45") / 40, "arithmetic", dtype="float64")
    with pytest.raises(InterpError, match="None of the tested labels"):
        probes.transfer(gpt2, english, spanish)
    with pytest.raises(InterpError, match="Unknown role 'nuon' of both sets of prompts"):
        probes.transfer(gpt2, english, spanish, labels=SAME, roles=["nuon"])


def test_words_of_two_tasks_are_the_same_by_their_place(tmp_path: Path) -> None:
    same = probes.same_words("color-noun", "color-noun-es", "color")
    assert (same["black"], same["purple"], len(same)) == ("negro", "morado", 10)
    with pytest.raises(InterpError, match="Unknown slot 'colour' of color-noun"):
        probes.same_words("color-noun", "color-noun-es", "colour")
    fewer = tasks.content("color-noun")
    fewer["lexicon"]["color"] = fewer["lexicon"]["color"][1:]
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(fewer), encoding="utf-8")
    with pytest.raises(InterpError, match="no translations in order"):
        probes.same_words("color-noun-es", tmp_path / "fewer.yaml", "color")
