"""Labelled results: what is refused, and that a file gives back what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp import results
from interp.errors import InterpError
from interp.results import Variable


class Origin:
    def provenance(self) -> dict[str, str | int]:
        return {"task": "toy", "n_prompts": 3, "model": "none", "weights_sha256": "00", "tokens_sha256": "11"}


def build(**changes: Any) -> xr.Dataset:
    arguments: dict[str, Any] = {
        "variables": {
            "effect": Variable(("prompt", "role"), np.array([[1.0, np.nan], [2, 3], [-1, 0]]), "logits", "effect")
        },
        "coords": {"role": ["color", "niño </script>"], "token": ("prompt", np.array(["a", "ñ", '"']))},
        "title": "Title",
        "question": "Why?",
        "reading": "0 is nothing.",
        "source": "nobody 2000",
        "of": (Origin(),),
        "seed": 3,
        "extra": {"minimum_gap": 0.1},
    }
    return results.build(**{**arguments, **changes})


def test_round_trip_is_identical(tmp_path: Path) -> None:
    saved = build()
    loaded = results.load(results.save(saved, tmp_path / "deep" / "a.nc"))
    xr.testing.assert_identical(saved, loaded)
    assert loaded.attrs["seed"] == 3
    assert type(loaded.attrs["seed"]) is int
    assert loaded.role.values.tolist() == ["color", "niño </script>"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.nc"]


def test_every_required_attribute_is_there_and_each_is_needed() -> None:
    complete = build()
    for name in results.REQUIRED_ATTRS:
        broken = complete.copy()
        del broken.attrs[name]
        with pytest.raises(InterpError, match=f"lacks the attributes {name}"):
            results.validate(broken)


def test_the_clock_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert build().attrs["created_at"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variables": {}}, "holds no variable"),
        ({"variables": {"x": Variable(("batch",), np.zeros(2), "", "x")}}, "unknown dimension 'batch'"),
        ({"variables": {"x": Variable(("prompt",), np.array([{}, {}, {}]), "", "x")}}, "holds Python objects"),
        ({"extra": {"list": [1, 2]}}, "Attribute 'list' is a list"),
    ],
)
def test_an_incomplete_result_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InterpError, match=message):
        build(**change)


@pytest.mark.parametrize("attribute", ["units", "long_name"])
def test_a_variable_without_units_or_name_is_refused(attribute: str) -> None:
    broken = build()
    del broken.effect.attrs[attribute]
    with pytest.raises(InterpError, match=f"Variable 'effect' has no {attribute}"):
        results.validate(broken)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InterpError, match="No result at"):
        results.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(InterpError, match="not a readable result"):
        results.load(tmp_path / "text.nc")
    old = build()
    results.save(old, tmp_path / "old.nc")
    old.attrs["schema_version"] = "0"
    old.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    with pytest.raises(InterpError, match="schema version 0"):
        results.load(tmp_path / "old.nc")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InterpError, match="Cannot write the result"):
        results.save(build(), tmp_path / "file" / "a.nc")
