"""What is on the disk is told, and only what is named and ours is removed."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.cli import directory as directories
from analyses.cli import execution, housekeeping
from analyses.cli import study as studies
from analyses.cli.main import main
from interp import HookedTransformer, capture, captures
from interp.errors import InterpError
from interp.store import SCHEMA, Store
from tests.doubles import MINIMAL, House, Said

SMALL = studies.parse(MINIMAL, where="small.yaml")

pytestmark = pytest.mark.usefixtures("fingerprint")


@pytest.fixture
def reports(house: House, tmp_path: Path, gpt2: HookedTransformer) -> Path:
    """One of each: a run, an unfinished run, a capture, a store of cells, and what is not ours."""
    place = tmp_path / "reports"
    for name in ("a-run", "b-run"):
        execution.execute(SMALL, place / name, tools=house.tools(), watcher=Said(), command="interp run small")
    edit(place / "b-run" / "manifest.json", status="interrupted")
    capture(gpt2, [[1, 2, 3], [4, 5, 6]], "z", to=place / "c-acts")
    Store.at(place / "d-cells").journal({"site": "z", "model": "tiny"}).append(0, np.array([0]), np.array([1.5]))
    (place / "notes").mkdir()
    (place / "notes" / "thesis.tex").write_text("mine")
    return place


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def states(reports: Path) -> dict[str, tuple[str, str]]:
    return {one.path.name: (one.kind, one.state) for one in housekeeping.found(reports)}


def test_runs_lists_what_there_is_with_its_state(reports: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "a-run": ("run", "done"),
        "b-run": ("run", "stopped"),
        "c-acts": ("capture", "done"),
        "d-cells": ("store", "done"),
    }
    assert states(reports) == expected
    monkeypatch.chdir(reports.parent)
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split("  +", lines[0]) == ["directory", "kind", "study or question", "model", "state", "size", "age"]
    assert [line.split()[0] for line in lines[1:5]] == [f"reports/{name}" for name in expected]
    assert "2 prompts of z" in lines[3]
    size = sum(path.stat().st_size for name in expected for path in (reports / name).rglob("*") if path.is_file())
    assert lines[-1] == f"4 in all, {housekeeping.in_bytes(size)}."
    assert main(["runs", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("interp: There is no directory nowhere.")


def test_what_is_damaged_or_running_is_said(reports: Path) -> None:
    (result,) = (reports / "a-run" / "results").glob("behavior.nc")
    result.write_bytes(result.read_bytes()[:-1])
    (reports / "b-run" / "manifest.json").write_text("{")
    edit(reports / "c-acts" / "capture.json", schema=99)
    assert {name: state for name, (_, state) in states(reports).items()} == {
        "a-run": "damaged",
        "b-run": "damaged",
        "c-acts": "damaged",
        "d-cells": "done",
    }
    with directories.held(reports / "a-run", "interp run small"):
        assert states(reports)["a-run"] == ("run", "running")


def test_a_capture_that_is_being_made_or_was_stopped(gpt2: HookedTransformer, tmp_path: Path) -> None:
    captures.write(gpt2, [[1, 2, 3], [4, 5, 6]], "z", to=tmp_path / "c", bytes_at_once=1)
    journal = tmp_path / "c" / "finished.rows"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert states(tmp_path) == {"c": ("capture", "stopped")}
    handle = os.open(tmp_path / "c" / "arrays", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert states(tmp_path) == {"c": ("capture", "running")}
    assert main(["gc", str(tmp_path / "c"), "--yes"]) == 2
    os.close(handle)
    assert main(["gc", str(tmp_path / "c"), "--yes"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_gc_removes_what_is_named_and_nothing_else(reports: Path, capsys: Any) -> None:
    names = ["a-run", "c-acts", "d-cells"]
    assert main(["gc", *(str(reports / name) for name in names), "--yes"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [f"Removed {reports / name}." for name in names]
    assert sorted(path.name for path in reports.iterdir()) == ["b-run", "notes"]
    assert states(reports) == {"b-run": ("run", "stopped")}


def test_gc_asks_and_no_is_no(reports: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["gc", str(reports / "a-run")]
    assert main(asked) == 2  # nobody to ask
    assert "Give --yes if you mean it" in capsys.readouterr().err
    for answer, there in (("", True), ("n\n", True), ("yes\n", False)):
        typed = io.StringIO(answer)
        typed.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", typed)
        assert main(asked) == 0
        found = capsys.readouterr()
        assert re.search(r"Remove these \d+ files \(.* kB\)\? \[y/N\]", found.err)
        assert "done" in found.out
        assert (reports / "a-run").exists() == there


def test_gc_refuses_what_is_not_ours_what_runs_and_links_before_it_removes_anything(
    reports: Path, capsys: Any, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(reports / "a-run")
    held = directories.held(reports / "b-run", "interp run small")
    with held:
        for name, words in {
            reports / "notes": "holds no run, explanation, capture or store. Nothing was removed.",
            reports: f"Name what is in it: {reports / 'a-run'}",
            reports / "b-run": "Another process is at work",
            tmp_path / "link": "is a link",
            reports / "gone": "There is no directory",
        }.items():
            assert main(["gc", str(reports / "a-run"), str(name), "--yes"]) == 2
            err = capsys.readouterr().err
            assert words in err
            assert err.count("\n") == 1
            assert (reports / "a-run" / "manifest.json").exists()
    assert len(states(reports)) == 4


def test_gc_follows_no_link_and_leaves_what_others_put_there(reports: Path, tmp_path: Path, capsys: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.nc").write_text("mine")
    run = reports / "a-run"
    (run / "earlier").symlink_to(elsewhere)
    (run / "results" / "linked.nc").symlink_to(elsewhere / "precious.nc")
    (run / "notes.txt").write_text("mine too")
    assert main(["gc", str(run), "--yes"]) == 0
    assert f"{run} stays: it also holds earlier, notes.txt, results." in capsys.readouterr().out
    assert (elsewhere / "precious.nc").read_text() == "mine"
    assert sorted(path.name for path in run.rglob("*")) == ["earlier", "linked.nc", "notes.txt", "results"]


def test_a_manifest_of_another_schema_version_is_refused_with_the_way_out(reports: Path, capsys: Any) -> None:
    run = reports / "a-run"
    assert json.loads((run / "manifest.json").read_text())["schema_version"] == "1"
    edit(run / "manifest.json", schema_version="0")
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr().err
    assert "has schema version 0, this library reads 1. Read it with the version of interp that wrote it" in said


def test_a_manifest_from_before_there_were_versions_is_read(house: House, reports: Path) -> None:
    path = reports / "a-run" / "manifest.json"
    content = json.loads(path.read_text())
    del content["schema_version"]
    path.write_text(json.dumps(content))
    ran = len(house.ran)
    execution.execute(SMALL, reports / "a-run", tools=house.tools(), watcher=Said(), command="interp run small")
    assert house.ran[ran:] == ["load", "report"]  # every result was kept


def test_a_store_of_the_earlier_layout_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, facts = Store.at(tmp_path), {"site": "z"}
    older = store._laid_out(facts, SCHEMA - 1)
    older.append(0, np.array([0]), np.array([1.5]))
    assert len(store.journal(facts).read().cell) == 0
    assert "is of an earlier version: its sweep begins anew. You can delete it." in caplog.text
    assert older.path.exists()


def test_removable_names_are_looked_at_once(reports: Path) -> None:
    run = reports / "a-run"
    assert len(housekeeping.removable([run, run, reports / "notes" / ".." / "a-run"])) == 1
    with pytest.raises(InterpError, match="There is no directory"):
        housekeeping.removable([run / "manifest.json"])
