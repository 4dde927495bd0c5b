"""The evaluation tests the circuit that the run has found, and looks for one only where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses import circuit, circuit_evaluation
from interp import circuits, readouts, tasks
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
    mini: HookedTransformer, pairs: PromptPairs, found: xr.Dataset, other: dict[str, Any], looking: type[Exception]
) -> None:
    with pytest.raises(looking):
        circuit_evaluation.run(mini, pairs, **{**ASKED, **FEW, **other}, found={"circuit": found})


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """What is raised where a circuit is looked for."""

    class Looking(Exception):
        pass

    def looked(*_: object, **__: object) -> None:
        raise Looking

    monkeypatch.setattr(circuits, "discover", looked)
    return Looking


def test_one_that_ends_in_another_direction_of_the_stream_is_not_taken(
    mini: HookedTransformer, pairs: PromptPairs, looking: type[Exception]
) -> None:
    """All of these read-outs share one name."""
    directions = np.eye(mini.cfg.d_model)[:2].tolist()
    settings = [{"layer": 2, "at": "noun"} | extra for extra in ({}, *({"direction": one} for one in directions))]
    known = circuit.run(mini, pairs, **ASKED, metric={"projection": settings[1]})
    own, *others = ({"projection": one} for one in (settings[1], settings[0], settings[2]))
    for metric in others:
        assert readouts.readout(metric).name == known.attrs["metric"]
        with pytest.raises(looking):
            circuit_evaluation.run(mini, pairs, **ASKED, **FEW, metric=metric, found={"circuit": known})
    assert circuit_evaluation.run(mini, pairs, **ASKED, **FEW, metric=own, found={"circuit": known}).sizes["size"]


def test_one_by_a_function_of_the_callers_or_of_another_model_is_not_taken(
    mini: HookedTransformer, pairs: PromptPairs, found: xr.Dataset, looking: type[Exception]
) -> None:
    own = readouts.custom(lambda logits, answers: logits[:, 0].amax(dim=-1), name="top logit", differentiable=True)
    known = found.assign_attrs(metric=own.name, metric_sha256=own.sha256())
    other = found.assign_attrs(weights_sha256="0" * 64)
    for metric, there in ((own, known), ("logit_difference", other)):
        with pytest.raises(looking):
            circuit_evaluation.run(mini, pairs, **ASKED, **FEW, metric=metric, found={"circuit": there})
