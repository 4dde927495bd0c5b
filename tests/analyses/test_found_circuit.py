"""The evaluation tests the circuit that the run has found, and looks for one only where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

from analyses import circuit, circuit_evaluation
from interp import circuits, tasks
from interp.model import HookedTransformer
from interp.prompts import PromptPairs

ASKED: dict[str, Any] = {"method": "eap-ig-inputs", "size": 20, "steps": 2, "max_prompts": 8}
FEW: dict[str, Any] = {"ablations": ["resample"], "n_random": 1, "n_knockouts": 1, "most_edges": 1}


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=8)


@pytest.fixture(scope="module")
def found(mini: HookedTransformer, pairs: PromptPairs) -> xr.Dataset:
    return circuit.run(mini, pairs, **ASKED)


def test_a_circuit_that_was_found_is_not_looked_for_again(
    mini: HookedTransformer, pairs: PromptPairs, found: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = circuit_evaluation.run(mini, pairs, **ASKED, **FEW)

    def not_asked(*_: object, **__: object) -> None:
        raise AssertionError("it is known already")

    monkeypatch.setattr(circuits, "discover", not_asked)
    again = circuit_evaluation.run(mini, pairs, **ASKED, **FEW, found={"circuit": found})
    xr.testing.assert_identical(again.drop_attrs(), anew.drop_attrs())


@pytest.mark.parametrize(
    "other",
    [
        {"method": "eap"}, {"method": None}, {"size": 21}, {"size": None}, {"steps": 3}, {"max_prompts": 6},
        {"direction": "denoising"}, {"metric": "log_probability"}, {"roles": ["color", "noun", "answer"]},
    ],
    ids=str,
)  # fmt: skip
def test_one_that_was_found_otherwise_is_not_taken(
    mini: HookedTransformer,
    pairs: PromptPairs,
    found: xr.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, Any],
) -> None:
    class Asked(Exception):
        pass

    def asked(*_: object, **__: object) -> None:
        raise Asked

    monkeypatch.setattr(circuits, "discover", asked)
    with pytest.raises(Asked):
        circuit_evaluation.run(mini, pairs, **{**ASKED, **FEW, **other}, found={"circuit": found})
