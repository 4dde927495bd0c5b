"""A run's directory: nothing finished is lost, nothing outside is touched, nobody else is in it. On doubles."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from analyses.cli import directory as directories
from analyses.cli import execution
from analyses.cli import study as studies
from analyses.cli.main import main
from interp import _files
from interp.errors import InterpError
from tests.doubles import MINIMAL, House, Said

SMALL = studies.parse(MINIMAL, where="small.yaml")


pytestmark = pytest.mark.usefixtures("fingerprint")


def execute(house: House, out: Path, study: studies.Study = SMALL, said: Said | None = None) -> execution.Outcome:
    return execution.execute(study, out, tools=house.tools(), watcher=said or Said(), command="interp run small")


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, with its content."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def house(house: House, tmp_path: Path) -> House:
    """The command on doubles, run from a directory that holds small.yaml."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(MINIMAL))
    return house


# --- another run in the same place ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 3}, "n 48, here 3"),
        ({"seed": 7}, "seed 0, here 7"),
        ({"name": "Small"}, "study small, here Small"),
        ({"rungs": ("recall", "two")}, "rungs recall, repeated_frame, two, three, here recall, two"),
        ({"main_rung": "recall"}, "main_rung two, here recall"),
    ],
)
def test_another_run_is_refused_before_the_model_is_loaded_and_nothing_changes(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    execute(House(), tmp_path)
    before = tree(tmp_path)
    other = House()
    with pytest.raises(InterpError, match="holds the results of another run") as caught:
        execute(other, tmp_path, replace(SMALL, **change))
    assert words in str(caught.value)
    assert "--out" in str(caught.value)
    assert other.ran == []
    assert tree(tmp_path) == before


def test_another_type_of_number_is_refused_before_the_model_is_loaded(house: House, capsys: Any) -> None:
    assert main(["run", "small.yaml", "--out", "run", "--quiet"]) == 0
    house.ran.clear()
    assert main(["run", "small.yaml", "--out", "run", "--dtype", "float64", "--quiet"]) == 2
    assert "model dtype float32, here float64" in capsys.readouterr().err
    assert house.ran == []


@pytest.mark.parametrize("key", ["weights_sha256", "config_sha256", "numerics"])
def test_other_weights_under_the_same_name_are_another_run(key: str, tmp_path: Path) -> None:
    execute(House(), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["model"][key] = "another"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    before = tree(tmp_path)
    with pytest.raises(InterpError, match=f"model {key} another, here"):
        execute(House(), tmp_path)
    assert tree(tmp_path) == before


def test_a_run_that_finished_nothing_gives_way(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(House(failing="behavior", failure=KeyboardInterrupt()), tmp_path)
    execute(House(), tmp_path, replace(SMALL, n=3))
    assert json.loads((tmp_path / "manifest.json").read_text())["n"] == 3


def test_a_run_that_is_stopped_before_it_begins_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(House(), tmp_path)
    before = tree(tmp_path)

    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "_made_with", stopped)
    with pytest.raises(KeyboardInterrupt):
        execute(House(), tmp_path)
    assert tree(tmp_path) == before


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with files and directories that could be models."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/checkpoint-100", "b/checkpoint-100", "con", "two words"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "checkpoint-100.gguf").touch()
    (tmp_path / "link").symlink_to("a/checkpoint-100")
    return tmp_path


def test_different_models_have_different_default_directories(models: Path) -> None:
    given = ["mini", "gpt2", "org/gpt2", "other/gpt2", "org-gpt2", "a/checkpoint-100", "b/checkpoint-100"]
    given += ["a/checkpoint-100.gguf", "con", "two words", "./mini", "a", "/"]
    places = [directories.default_out("ioi", model) for model in given]
    assert len({str(place).casefold() for place in places}) == len(given)
    assert all(place.parent == Path("reports") for place in places)
    assert [str(place) for place in places[:4]] == [
        "reports/ioi", "reports/ioi-gpt2", "reports/ioi-org--gpt2", "reports/ioi-other--gpt2",
    ]  # fmt: skip
    assert all(directories.component(place.name, "the directory") for place in places)


def test_one_model_in_several_spellings_has_one_default_directory(models: Path) -> None:
    spellings = [
        "a/checkpoint-100",
        "./a/checkpoint-100",
        "a/../a/checkpoint-100/",
        str(models / "a/checkpoint-100"),
        "link",
    ]
    assert len({directories.default_out("ioi", spelling) for spelling in spellings}) == 1


def test_what_the_command_line_changes_is_in_the_default_directory(house: House, tmp_path: Path) -> None:
    for options, name in {
        (): "small",
        ("--n", "48"): "small",
        ("--n", "3"): "small-n3",
        ("--seed", "2"): "small-seed2",
        ("--n", "3", "--seed", "2", "--dtype", "float64"): "small-n3-seed2-float64",
    }.items():
        assert main(["run", "small.yaml", "--quiet", *options]) == 0
        command = json.loads((tmp_path / "reports" / name / "manifest.json").read_text())["command"]
        assert command == " ".join(["interp run small.yaml --quiet", *options])


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "", ".", "a\nb", "x" * 300, "NUL"])
def test_a_study_whose_name_is_no_name_is_refused_and_writes_nothing(
    name: str, house: House, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "bad.yaml").write_text(json.dumps({**MINIMAL, "name": name}))
    before = tree(tmp_path)
    assert main(["run", "bad.yaml", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "'name' in bad.yaml must be a name that a file can have" in err
    assert err.count("\n") == 1
    assert tree(tmp_path) == before
    with pytest.raises(InterpError, match="The study's name must be"):
        directories.default_out(name, "mini")


# --- two at a time ---


def test_a_second_run_is_refused_in_one_line_and_the_first_goes_on(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second: list[tuple[int, str, bool]] = []
    render = house.render

    def meanwhile(directory: Path) -> Path:
        before = tree(directory)
        for arguments in (["run", "small.yaml", "--quiet"], ["report", "reports/small"]):
            told = io.StringIO()
            with monkeypatch.context() as patch:  # what the first run has on sys.stderr is its log
                patch.setattr(sys, "stderr", told)
                code = main(arguments)
            second.append((code, told.getvalue(), tree(directory) == before))
        return render(directory)

    house.render = meanwhile  # type: ignore[method-assign]
    assert main(["run", "small.yaml", "--quiet"]) == 0
    for code, err, untouched in second:
        assert code == 2
        assert err.startswith(f"interp: reports/small is in use: process {os.getpid()} on ")
        assert "(interp run small.yaml --quiet)" in err
        assert err.count("\n") == 1
        assert untouched
    assert len(second) == 2
    assert not (tmp_path / "reports/small/run.lock").exists()


def test_a_lock_goes_with_its_process(tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from analyses.cli.directory import held
        with held(Path({str(tmp_path / "run")!r}), "interp run x"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python("-c", textwrap.dedent(code)).returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "run.lock").is_file()
    execute(House(), tmp_path / "run")
    assert not (tmp_path / "run" / "run.lock").exists()


def test_where_there_are_no_locks_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    execute(House(), tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()


# --- what a received directory may say ---


def test_a_listed_file_outside_the_run_is_refused_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute(House(), out)
    victim = tmp_path / "victim.nc"
    victim.write_bytes((out / "results" / "behavior.nc").read_bytes())
    manifest = json.loads((out / "manifest.json").read_text())
    for name in ("../../victim", str(tmp_path / "victim"), "", "a\nb"):
        manifest["results"]["behavior"] = {"key": "x", "files": [name]}
        (out / "manifest.json").write_text(json.dumps(manifest))
        before = tree(tmp_path)
        with pytest.raises(InterpError, match=r"A file of 'behavior' in .*manifest\.json must be a name"):
            execute(House(), out)
        assert tree(tmp_path) == before


WRONG = {
    "not JSON": "{",
    "a list": "[]",
    "null": "null",
    "deep": "[" * 100_000,
    "a huge number": '{"n": ' + "9" * 5000 + "}",
    **{
        f"{key} is {value}": json.dumps({key: value})
        for key, values in {
            "results": (
                None,
                [],
                "text",
                3,
                {"behavior": None},
                {"behavior": []},
                {"behavior": {"key": 1, "files": []}},
            ),
            "model": (None, "mini"),
            "n": ("8", None, True, [1]),
            "rungs": ("all", {}),
            "timings": (None, [1]),
            "drops": (None, 3),
            "skipped_rungs": ([],),
            "explained_rung": (3,),
            "command": (None, {}),
        }.items()
        for value in values
    },
    "seconds": json.dumps({"results": {"behavior": {"key": "x", "files": [], "seconds": "long"}}}),
    "a name": json.dumps({"results": {"../x": {"key": "x", "files": []}}}),
}


@pytest.mark.slow
def test_a_manifest_of_wrong_types_is_one_line_and_exit_2(house: House, tmp_path: Path, capsys: Any) -> None:
    run = ["run", "small.yaml", "--out", "run", "--quiet"]
    assert main(run) == 0
    house.ran.clear()
    shutil.copytree("run", "other")
    for what, content in WRONG.items():
        (tmp_path / "run" / "manifest.json").write_text(content)
        before = tree(tmp_path)
        for arguments in (run, ["report", "run"], ["compare", "run", "other"]):
            capsys.readouterr()
            assert main(arguments) == 2, what
            err = capsys.readouterr().err
            assert "manifest.json" in err, what
            assert err.count("\n") == 1, what
            assert len(err) < 400, what
        assert tree(tmp_path) == before, what
    assert house.ran == []


@pytest.mark.parametrize("name", ["results", "earlier"])
def test_a_folder_that_is_a_link_to_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    execute(House(), out)
    elsewhere.mkdir()
    (elsewhere / ".behavior.nc.0123abcd.part").write_text("mine")
    if (out / name).exists():
        (out / name).rename(out / "moved")
    (out / name).symlink_to(elsewhere)
    with pytest.raises(InterpError, match=f"{name} is no directory of its own"):
        execute(House(), out)
    assert [path.name for path in elsewhere.iterdir()] == [".behavior.nc.0123abcd.part"]


def test_files_that_are_links_are_replaced_and_their_targets_stay(tmp_path: Path) -> None:
    out, victim = tmp_path / "run", tmp_path / "victim"
    execute(House(), out)
    victim.write_text("mine")
    for name in ("study.yaml", "report.html", "failure.log", "results/probing.nc", "results/behavior.nc"):
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(victim)
    (out / "results" / "other.nc").symlink_to(victim)
    execute(House(), out)
    assert victim.read_text() == "mine"
    assert not (out / "results" / "probing.nc").is_symlink()
    (out / "run.lock").symlink_to(victim)
    with pytest.raises(InterpError, match="cannot be written"):
        execute(House(), out)
    assert victim.read_text() == "mine"


def test_what_a_killed_run_left_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute(House(), out)
    for place in (out, out / "results"):
        (place / ".manifest.json.0123abcd.part").write_text("half")
        (place / "notes.part").write_text("mine")
    execute(House(), out)
    for place in (out, out / "results"):
        assert (place / "notes.part").read_text() == "mine"
        assert _files.unfinished(place) == []


def test_a_directory_that_a_killed_run_has_only_just_begun_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.lock").write_text("")
    (out / ".manifest.json.0123abcd.part").write_text("half")
    execute(House(), out)
    assert "run.lock" not in tree(out)


# --- disks ---


class Full:
    """A disk on which a number of files still fit."""

    def __init__(self, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code = room, code
        self.fsync = os.fsync

    def __call__(self, handle: int) -> None:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        self.room -= 1
        self.fsync(handle)


@pytest.mark.parametrize(
    ("code", "room"),
    [*((errno.ENOSPC, room) for room in range(0, 18, 2)), (errno.EDQUOT, 6), (errno.EROFS, 0), (errno.EIO, 8)],
)
def test_whenever_the_disk_is_full_it_is_one_line_and_the_same_command_goes_on(
    code: int, room: int, house: House, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "small.yaml", "--out", "run", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Full(room, code))
        stopped = main(command)
    err = capsys.readouterr().err
    finished = [path for path in tree(tmp_path) if path.startswith("run/results/")]
    if stopped == 0:
        assert room > 10
        return
    assert stopped == 2
    assert err.count("\n") == 1
    assert os.strerror(code) in err
    assert not [path for path in tree(tmp_path) if path.endswith(".part")]
    ran = len(house.ran)
    assert main(command) == 0
    again = house.ran[ran:]
    assert len([name for name in ("behavior", "probing", "context_flow") if name in again]) == 3 - len(finished)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes ``tmp_path/disk`` a file system of so many kilobytes; again for another size, with what is on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def resize(kilobytes: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={kilobytes}k"
        where = [str(disk)] if mounted else ["-t", "tmpfs", "tmpfs", str(disk)]
        mount = shutil.which("mount")
        if mount is None or subprocess.run([mount, "-o", options, *where], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        mounted = True
        return disk

    yield resize
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full_keeps_what_is_finished(
    small_disk: Callable[[int], Path], house: House, capsys: Any
) -> None:
    names = {f"run/results/{name}.nc" for name in ("behavior", "probing", "verdict")}
    finished: list[set[str]] = [set()]
    for kilobytes in (4, 24, 40, 400):
        command = ["run", "small.yaml", "--out", str(small_disk(kilobytes) / "run"), "--quiet"]
        code = main(command)
        err = capsys.readouterr().err
        assert code == (0 if kilobytes == 400 else 2)
        assert err.count("\n") == code // 2
        assert not code or "No space left on device" in err
        finished.append(names & set(tree(small_disk(kilobytes))))
        assert finished[-2] <= finished[-1]
    assert finished[1] == set()
    assert 0 < len(finished[3]) < 3
    assert finished[4] == names


def test_a_directory_that_vanishes_is_one_line(house: House, tmp_path: Path, capsys: Any) -> None:
    dataset = house.dataset

    def vanish(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "probing":
            shutil.rmtree(tmp_path / "run")
        return dataset(name, *arguments, **options)

    house.dataset = vanish  # type: ignore[method-assign]
    assert main(["run", "small.yaml", "--out", "run", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "run" in err
    assert err.count("\n") == 1


def test_output_that_cannot_be_printed_is_one_line(
    house: House, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = python("-m", "analyses", "studies", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "interp: The output cannot be written (No space left on device). Free space there.\n"


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_interrupts_and_the_same_command_goes_on(
    number: signal.Signals, house: House, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(logs))
    dataset = house.dataset

    def struck(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "probing":
            signal.raise_signal(number)
        return dataset(name, *arguments, **options)

    # Under nohup or in the background the tests themselves are started with these ignored.
    before = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    inherited = signal.signal(number, before)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(house, "dataset", struck)
            assert main(["run", "small.yaml", "--out", "run", "--quiet"]) == 130
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, inherited)
    by = "" if number is signal.SIGINT else f" by {number.name}"
    assert capsys.readouterr().err == (
        f"interp: interrupted{by}; behavior kept in run. Run the same command again to resume.\n"
    )
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"
    assert list(logs.iterdir()) == []
    house.ran.clear()
    assert main(["run", "small.yaml", "--out", "run", "--quiet"]) == 0
    assert house.ran == ["load", "probing", "context_flow", "report"]


def test_a_signal_that_is_ignored_stays_ignored(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(house, "render", lambda directory: (signal.raise_signal(signal.SIGHUP), directory)[1])
        assert main(["run", "small.yaml", "--quiet"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


# --- options ---


@pytest.mark.parametrize(
    ("analyses", "words"),
    [
        ({"context_flow": {"minimum_effect": 2}}, "minimum_effect is 2. Give a fraction between 0 and 1."),
        (
            {"context_flow": {"minimum_effect": "much"}},
            "'minimum_effect' in analyses.context_flow of bad.yaml must be a number",
        ),
        ({"context_flow": {"minimum_effect": True}}, "must be a number, not True"),
        ({"context_flow": {"minimum_effect": float("nan")}}, "not a finite number"),
        ({"behavior": {"minimum_gap": -1}}, "minimum_gap is -1"),
        ({"probing": {"n_folds": 1}}, "n_folds is 1"),
        ({"probing": {"n_folds": 2.5}}, "'n_folds' in analyses.probing of bad.yaml must be a whole number"),
        ({"probing": {"sites": ["resid"]}}, "'resid'"),
        ({"probing": {"sites": []}}, "no site to probe"),
        ({"probing": {"sites": ["pattern"]}}, "no vector per layer"),
        ({"probing": {"sites": "z"}}, "must be a list, each item text, not 'z'"),
        ({"activation_patching": {"sites": ["zz"]}}, "'zz'"),
        ({"activation_patching": {"directions": ["up"]}}, "each item one of denoising, noising, not ['up']"),
        ({"activation_patching": {"directions": []}}, "no direction"),
        ({"activation_patching": {"metric": "loss"}}, "'loss'"),
        ({"activation_patching": {"metric": "logit_diff"}}, "Did you mean 'logit_difference'?"),
        (
            {"activation_patching": {"metric": {"kl": {}}}},
            "one of logit_difference, log_probability, probability, rank, cross_entropy, kl, js or "
            "{projection: {layer: ..., at: ...}}, not {'kl': {}}",
        ),
        (
            {"activation_patching": {"metric": {"projection": {"layer": "last", "at": "noun"}}}},
            "'layer' in metric.projection must be a whole number, not 'last'.",
        ),
        ({"activation_patching": {"metric": {"projection": {"layer": 3}}}}, "metric.projection lacks the key 'at'."),
        (
            {"activation_patching": {"metric": {"projection": 3}}},
            "metric.projection must be a mapping of layer, at, site, head, direction, not 3.",
        ),
        (
            {"activation_patching": {"metric": {"projection": {"layer": -1, "at": "noun"}}}},
            "In analyses.activation_patching of bad.yaml: layer is -1. Give 0 or more.",
        ),
        (
            {"activation_patching": {"metric": {"projection": {"layer": 1, "at": "noun", "sight": "z"}}}},
            "Unknown key 'sight' in metric.projection. Did you mean 'site'?",
        ),
        (
            {"activation_patching": {"metric": {"projection": {"layer": 1, "at": "noun", "site": "pattern"}}}},
            "Site 'pattern' has no vector per layer and position. Project 'resid_pre' or 'z'.",
        ),
        (
            {"activation_patching": {"metric": {"projection": {"layer": 1, "at": "noun", "head": 0}}}},
            "Site 'resid_pre' has no heads, but head=0 was given.",
        ),
        (
            {"approximation_audit": {"metric": {"projection": {"layer": 0, "at": "noun"}}}},
            "Nothing comes before the stream of layer 0. Project a later one.",
        ),
        ({"activation_patching": {"max_prompts": 0}}, "max_prompts is 0"),
        ({"head_attribution": {"ablations": ["none"]}}, "each item one of zero, zero_raw, mean, resample"),
        ({"head_attribution": {"edges": ["noun"]}}, "not destination<-source"),
        ({"attention_lesson": {"prompt": "first"}}, "'prompt' in analyses.attention_lesson of bad.yaml must be a"),
        ({"approximation_audit": {"direction": "sideways"}}, "one of denoising, noising"),
        ({"approximation_audit": {"methods": ["guess"]}}, "'guess'"),
        ({"approximation_audit": {"top_k": 0}}, "top_k"),
        ({"attention_lesson": {"layer": -1}}, "layer is -1. Give 0 or more."),
        ({"probing": {"layers": [0, -2]}}, "layers is -2. Give 0 or more."),
    ],
)
def test_a_bad_option_of_any_analysis_is_found_before_the_model_is_loaded(
    analyses: dict[str, Any], words: str, house: House, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {**MINIMAL, "analyses": {"behavior": {}, **analyses}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    before = tree(tmp_path)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp.model.HookedTransformer.from_pretrained", None)
    assert main(["run", "bad.yaml", "--out", "run", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert tree(tmp_path) == before
