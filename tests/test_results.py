"""Labelled results: what is refused, and that a file gives back what was saved."""

from __future__ import annotations

import errno
import os
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
        ({"dims": {"batch": "part of the prompts"}}, "Dimension 'batch' has no coordinate"),
        ({"variables": {"x": Variable(("prompt",), np.array([{}, {}, {}]), "", "x")}}, "holds Python objects"),
        ({"extra": {"list": [1, 2]}}, "Attribute 'list' is a list"),
    ],
)
def test_an_incomplete_result_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InterpError, match=message):
        build(**change)


def test_an_axis_that_no_other_result_has_comes_with_its_meaning(tmp_path: Path) -> None:
    variables = {"x": Variable(("prompt", "batch"), np.zeros((3, 2)), "", "x")}
    made = build(variables=variables, coords={"batch": [1, 2]}, dims={"batch": "part of the prompts"})
    loaded = results.load(results.save(made, tmp_path / "a.nc"))
    assert results.meaning(loaded, "batch") == "part of the prompts"
    assert results.meaning(loaded, "prompt") == results.DIMS["prompt"]
    with pytest.raises(InterpError, match=r"unknown dimension 'batch'.*The meaning of a new one is given by"):
        results.validate(loaded.drop_vars("batch"))


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
    old.attrs["schema_version"] = "0"
    (tmp_path / "old.nc").write_bytes(results.to_bytes(old))
    with pytest.raises(InterpError, match="schema version 0"):
        results.load(tmp_path / "old.nc")


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InterpError, match="Cannot write the result"):
        results.save(build(), tmp_path / "file" / "a.nc")


# Damage


def answer(path: Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(InterpError) as caught:
        results.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_cut_and_every_flipped_bit_is_noticed_before_hdf5_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = results.to_bytes(build())
    results.from_bytes(saved, "a.nc")
    monkeypatch.setattr(xr, "open_dataset", None)  # whoever reads on is found out
    damaged = [saved[:cut] for cut in range(0, len(saved), 97)]
    damaged += [saved[: len(saved) - cut] for cut in range(1, 100)]
    for at in (*range(0, len(saved), 101), *range(len(saved) - 100, len(saved))):
        damaged.append(saved[:at] + bytes([saved[at] ^ (1 << at % 8)]) + saved[at + 1 :])
        damaged.append(saved[:at] + bytes(min(512, len(saved) - at)) + saved[at + 512 :])
    for spoilt in damaged:
        if spoilt != saved:
            with pytest.raises(InterpError, match=r"^a\.nc is not a readable result: it"):
                results.from_bytes(spoilt, "a.nc")


def test_other_tools_open_a_saved_result(tmp_path: Path) -> None:
    saved = build()
    with xr.open_dataset(results.save(saved, tmp_path / "a.nc")) as opened:
        xr.testing.assert_identical(opened.load(), saved)


def test_a_file_of_another_tool_is_refused_and_can_be_taken_in(tmp_path: Path) -> None:
    saved = build()
    saved.to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
    assert "not written by results.save" in answer(tmp_path / "foreign.nc")
    taken = results.save(xr.load_dataset(tmp_path / "foreign.nc"), tmp_path / "own.nc")
    xr.testing.assert_identical(results.load(taken), saved)


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nc")
    assert "it is a named pipe, not a file" in answer(tmp_path / "pipe.nc")
    (tmp_path / "folder.nc").mkdir()
    assert "it is a directory, not a file" in answer(tmp_path / "folder.nc")
    (tmp_path / "loop.nc").symlink_to("loop.nc")
    assert "loop.nc is not a readable result: Too many levels of symbolic links" in answer(tmp_path / "loop.nc")
    assert "it is a device, not a file" in answer(Path("/dev/zero"))
    assert "no file can have such a name" in answer(tmp_path / "a\0.nc")
    assert "No result at" in answer(tmp_path / "absent.nc")


@pytest.mark.parametrize("value", ["a\0b", 2**64, "\ud800"])
def test_what_netcdf_cannot_hold_is_refused_in_one_line(value: object, tmp_path: Path) -> None:
    with pytest.raises(InterpError, match="cannot be written as NetCDF"):
        results.save(build(extra={"odd": value}), tmp_path / "a.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = results.save(build(), tmp_path / "a.nc").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InterpError, match=r"Cannot write the result to .*a\.nc: No space left on device\. Free space"):
        results.save(build(title="Another"), tmp_path / "a.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nc"]
    assert (tmp_path / "a.nc").read_bytes() == first
