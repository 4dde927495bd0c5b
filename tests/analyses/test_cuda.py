"""Every analysis on a GPU gives what it gives on the CPU. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import interp
from analyses import registry
from interp.model import HookedTransformer
from tests.tolerance import near

pytestmark = pytest.mark.cuda

SHARE = 1e-4
"""Of the largest number of its kind: what sums and fits make of roundings, on either device."""

OWN_MODELS = {"ground_truth", "false_alarms"}
"""Analyses that ask models of their own, on the CPU."""

ASKED: Mapping[str, Mapping[str, object]] = {
    "probing": {"codelength": False},
    "lenses": {"steps": 20},
    "head_roles": {"n": 8},
    "places": {"steps": 5, "layers": [1], "roles": ["clause_end"]},
    "circuit_evaluation": {"n_random": 2, "n_knockouts": 2, "most_edges": 2},
}
TAKES = {"circuit_evaluation": ("circuit",), "context_flow": ("activation_patching", "head_attribution")}
TURNS_ON_TIES: Mapping[str, set[str]] = {
    "probing": {"accuracy", "accuracy_by_probe", "selectivity", "distractor_rate", "calibration_error"},
    "head_roles": {"p_value"},
    "verdict": {"p_value"},
    "lenses": {"rank"},
    "approximation_audit": {"spearman", "slope_interval"},
}
"""File -> what counts or ranks numbers of which two can be equal but for rounding; what is counted is compared."""


@pytest.fixture(scope="module")
def models(gpu: str) -> tuple[HookedTransformer, HookedTransformer]:
    """The same model on the CPU and on the GPU."""
    return HookedTransformer.from_pretrained("mini", device="cpu"), HookedTransformer.from_pretrained(
        "mini", device=gpu
    )


@pytest.mark.parametrize("name", [name for name in registry.names() if name not in {"behavior", *OWN_MODELS}])
def test_an_analysis(name: str, models: tuple[HookedTransformer, HookedTransformer], tmp_path: Path) -> None:
    asked = {one: dict(ASKED.get(one, {})) for one in ("behavior", *TAKES.get(name, ()), name)}
    study = {
        "name": "devices", "title": "Devices", "question": "Is it the same on both?",
        "task": "color-noun", "rungs": ["two"], "n": 8, "analyses": asked,
    }  # fmt: skip
    here, there = (
        interp.study(study, model=model, out=tmp_path / str(place)).results for place, model in enumerate(models)
    )
    assert list(here) == list(there)
    for file in here:
        _same(here[file], there[file], file)


def _same(here: xr.Dataset, there: xr.Dataset, file: str) -> None:
    """The same names, labels and numbers."""
    assert list(here.variables) == list(there.variables)
    for variable in here.variables:
        one, other = here[variable].values, there[variable].values
        if one.dtype.kind not in "fc":
            np.testing.assert_array_equal(other, one, err_msg=f"{file}.{variable}")
        elif variable not in TURNS_ON_TIES.get(file, ()):
            size = np.abs(one[np.isfinite(one)]).max(initial=0.0)
            near(other, one, SHARE * size, why="another order of sums and of steps", what=f"{file}.{variable}")
