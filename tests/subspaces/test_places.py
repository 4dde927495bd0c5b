"""The table of places, where it is known what is held, what is read, and what is held and never read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analyses import places as analysis
from interp import HookedTransformer, InterpError, PromptPairs, groundtruth, subspaces, summary, sweep
from interp.errors import UnaskableError
from interp.subspaces.places import _halves, source_words
from tests.tiny import LOGITS, make_mistral, random_ids
from tests.tolerance import close, near


def drawn(n: int = 16) -> PromptPairs:
    """Ids only: four source words, six target words."""
    rng = np.random.default_rng(0)
    clean = random_ids(n, 8, seed=1)
    clean[:, 2] = 20 + np.arange(n) % 4
    clean[:, 4] = 30 + rng.integers(0, 6, n)
    corrupted = clean.copy()
    corrupted[:, 2] = 20 + (np.arange(n) + 1 + rng.integers(0, 3, n)) % 4
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles={"color": 2, "noun": 4})


def test_what_is_held_and_never_read_is_readable_and_not_used() -> None:
    """In ``unread`` a head writes the colour at the token behind the noun, where nothing looks."""
    truth = groundtruth.build("unread")
    pairs = truth.pairs.spread(40)
    found = subspaces.places(truth.model, pairs, layers=[1], roles=["noun", "stop"], controls=False)
    used, unused = (found.isel(layer=0).sel(role=role) for role in ("noun", "stop"))
    for here in (used, unused):
        assert float(here["decoded"].mean()) > 0.8
        assert float(here["compression"]) > 1.5
    lost = {
        name: [1 - float(summary.of(here, name)["mean"].values.ravel()[0]) for here in (used, unused)]
        for name in ("recovered", "recovered_erasure", "recovered_interchange")
    }
    assert all(there < 0.02 for _, there in lost.values()), lost
    # What is exchanged makes the other answer; what is erased makes neither, which is half of the gap.
    assert lost["recovered"][0] > 0.9
    assert lost["recovered_interchange"][0] > 0.6
    assert 0.3 < lost["recovered_erasure"][0] < 0.7
    exchanged = used["exchanged"].mean("prompt")
    assert exchanged.sel(subspace=["means", "das"]).min() > 0.9
    assert exchanged.sel(subspace=["placebo", "random"]).max() < 0.1


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_the_table_is_made_on_ids_of_any_family(family: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    if family == "mistral":  # whose arithmetic is not written: through hooks
        model = HookedTransformer.from_pretrained(make_mistral(tmp_path), device="cpu")
        assert model.blocks is None
    else:
        model = request.getfixturevalue(family)
    pairs, controls = drawn(), family == "llama"
    heard: list[tuple[int, int]] = []
    found = analysis.run(
        model, pairs, site="z", layers=[1], steps=2, controls=controls, progress=lambda *of: heard.append(of)
    )
    assert heard[-1] == (8 if controls else 4,) * 2
    assert list(found["role"].values) == ["color", "answer"]
    exact = sweep(
        model, pairs, "z", "noising", roles=["color", "answer"], sets={"all": [(1, head) for head in range(4)]}
    )["patched"]
    close(found["patched"].values.reshape(-1, 2), exact.values.reshape(-1, 2), size=LOGITS)
    finite = {name for name in found.data_vars if np.isfinite(found[name]).all()}
    assert {"decoded", "kl_erasure", "patched_erasure", "patched_interchange"} <= finite
    near(float(found["selectivity"].mean()), float((found["decoded"] - found["control"]).mean()), 1e-12, why="a sum")
    fitted = found["agreement"].sel(part="fitted").notnull().sum("prompt").isel(layer=0, role=0)
    second = int(found.attrs["n_halves"].split(", ")[1])
    assert fitted.values.tolist() == [len(pairs), second * controls, second * controls]


def test_no_pair_is_in_the_fit_that_it_tests(gpt2: HookedTransformer) -> None:
    """With other answers in one half, what is found on that half changes, and so what is measured on the other only."""
    pairs = drawn()
    assert source_words(pairs).shape == (2, 16)
    halves = _halves(pairs)
    answers = {"correct": pairs.correct, "incorrect": pairs.incorrect}
    turned = {
        "correct": np.where(halves == 0, pairs.incorrect, pairs.correct),
        "incorrect": np.where(halves == 0, pairs.correct, pairs.incorrect),
    }
    other = {name: np.where(halves == 0, (ids + 7) % gpt2.cfg.vocab, ids) for name, ids in answers.items()}
    asked: dict[str, Any] = {"steps": 12, "controls": False}
    before, after, elsewhere = (
        subspaces.place(gpt2, one, "resid_pre", 1, "color", **asked)["patched_interchange"].sel(subspace="das").values
        for one in (pairs, replace(pairs, **turned), replace(pairs, **other))
    )
    np.testing.assert_array_equal(after[halves == 0], -before[halves == 0])
    assert (elsewhere[halves == 1] != before[halves == 1]).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda m: PromptPairs.from_tokens([[5, 6, 7]], [[5, 6, 8]], correct=1, incorrect=2),
            "no word that has a role",
        ),
        (lambda m: drawn().select(np.zeros(2, dtype=int)), "same clean prompt"),
    ],
)
def test_pairs_that_leave_no_room_are_unaskable(make: Any, message: str, gpt2: HookedTransformer) -> None:
    pairs = make(gpt2)
    with pytest.raises(UnaskableError, match=message):
        analysis.check_askable(pairs)
    with pytest.raises(UnaskableError, match=message):
        analysis.run(gpt2, pairs)


def test_options_that_are_wrong_get_one_line(gpt2: HookedTransformer) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"layers": [7]}, "7"), ({"roles": ["verb"]}, "verb"), ({"site": "pattern"}, "pattern"), ({"rank": 0}, "rank"),
    )  # fmt: skip
    for options, message in wrong:
        with pytest.raises(InterpError, match=message):
            analysis.run(gpt2, drawn(), **options)
