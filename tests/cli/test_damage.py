"""Damaged files in a run's directory: each command names the file in one line, at once, and a run computes it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analyses.cli import execution
from analyses.cli.main import main
from interp import _yaml, results
from tests.doubles import MINIMAL, House
from tests.report_fixture import only, write_run

Captured = pytest.CaptureFixture[str]
Damage = Callable[[Path], None]


def changed(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: void(path.write_bytes(change(path.read_bytes())))


def instead(make: Callable[[Path], object]) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def void(anything: object) -> None:
    """What was done counts, not what it returned."""


DAMAGE: dict[str, Damage] = {
    "zeros at the end": changed(lambda whole: whole[:-512] + bytes(512)),
    "zeros in the middle": changed(lambda whole: whole[:4096] + bytes(4096) + whole[8192:]),
    "all zeros": changed(lambda whole: bytes(len(whole))),
    "cut": changed(lambda whole: whole[: len(whole) // 2]),
    "one byte short": changed(lambda whole: whole[:-1]),
    "one byte more": changed(lambda whole: whole + b"\n"),
    "the checksum lost": changed(lambda whole: whole[: -results._SEAL_BYTES]),
    "empty": changed(lambda whole: b""),
    "a flipped bit": changed(lambda whole: whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:]),
    "a flipped bit of the checksum": changed(lambda whole: whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]),
    "text": changed(lambda whole: b"not a result"),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "a link to nothing": instead(lambda path: path.symlink_to("nothing")),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a named pipe": instead(os.mkfifo),
    "a directory": instead(Path.mkdir),
}


def one_line(capsys: Captured, *arguments: str) -> str:
    """What a command that must be refused says."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = write_run(tmp_path_factory.mktemp("run"), only("behavior"))
    return (directory / "results" / "behavior.nc").read_bytes()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_report_and_compare_name_a_damaged_result(
    damage: Damage, sound: bytes, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "results" / "behavior.nc"
    path.parent.mkdir()
    path.write_bytes(sound)
    damage(path)
    assert "behavior.nc" in one_line(capsys, "report", str(tmp_path))
    other = tmp_path / "other" / "results"
    other.mkdir(parents=True)
    (other / "behavior.nc").write_bytes(sound)
    assert str(tmp_path) in one_line(capsys, "compare", str(tmp_path), str(other.parent))


@pytest.mark.parametrize(
    "kind", ["zeros in the middle", "cut", "a flipped bit", "a link to itself", "a named pipe", "a directory"]
)
def test_a_run_computes_a_damaged_result_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    house = House()
    monkeypatch.setattr(execution, "real_tools", house.tools)
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(_yaml.dump(MINIMAL))
    assert main(["run", "s.yaml", "--out", "run", "--quiet"]) == 0
    path = Path("run/results/behavior.nc")
    before = results.load(path)
    DAMAGE[kind](path)
    house.ran.clear()
    assert main(["run", "s.yaml", "--out", "run", "--quiet"]) == 0, capsys.readouterr().err
    assert "behavior" in house.ran
    assert results.load(path).equals(before)


DAMAGED_JSON = {
    "deep": "[" * 100_000,
    "deep mappings": '{"a":' * 100_000,
    "5,000 digits": '{"n": ' + "9" * 5000 + "}",
    "cut": '{"status": "do',
    "zeros": "\0" * 500,
    "null": "null",
    "a list": "[1, 2]",
    "text": '"done"',
    "an escape": '{"status": "\x1b"}',
}


@pytest.mark.parametrize("text", DAMAGED_JSON.values(), ids=DAMAGED_JSON)
def test_report_names_a_damaged_manifest(text: str, sound: bytes, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "behavior.nc").write_bytes(sound)
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json" in one_line(capsys, "report", str(tmp_path))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("/dev/zero")],
    ids=["pipe", "directory", "loop", "device"],
)
@pytest.mark.parametrize("name", ["manifest.json", "study.yaml"])
def test_report_opens_nothing_but_plain_files(
    name: str, make: Damage, sound: bytes, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "behavior.nc").write_bytes(sound)
    make(tmp_path / name)
    assert name in one_line(capsys, "report", str(tmp_path))


def test_a_bomb_in_the_study_of_a_received_run_is_one_line(sound: bytes, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "behavior.nc").write_bytes(sound)
    (tmp_path / "manifest.json").write_text(json.dumps({}))
    levels = [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)),
    ]
    for text in ("\n".join(levels), "a: " + "x" * 10**7, "- x\n" * 10**6):
        (tmp_path / "study.yaml").write_text(text)
        assert "study.yaml is not valid YAML" in one_line(capsys, "report", str(tmp_path))
