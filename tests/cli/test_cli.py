"""The command: exit codes, one line per mistake, nothing half-written; and a real run at the end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from analyses.cli import execution
from analyses.cli import study as studies
from analyses.cli.main import main
from tests.doubles import MINIMAL, House, refusal

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Captured = pytest.CaptureFixture[str]
REPOSITORY = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("fingerprint")


# --- help and arguments ---


def test_help_answers_in_under_half_a_second(python: Run) -> None:
    times = []
    for _ in range(3):
        before = os.times()
        done = python("-m", "analyses", "--help")
        after = os.times()
        # Processor time: what the command costs, whoever else is using the machine.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        times.append(spent)
        assert done.returncode == 0, done.stderr
        assert all(command in done.stdout for command in ("run", "report", "compare", "models", "studies", "doctor"))
    assert min(times) < 0.5


@pytest.mark.parametrize(
    "command", ["run", "explain", "report", "compare", "new", "check", "show", "models", "studies", "tasks", "doctor"]
)
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: interp {command}")
    assert err == ""


def test_the_version_is_that_of_the_library(capsys: Captured) -> None:
    import interp

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"interp {interp.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["rnu"], "rnu"),
        (["run"], "STUDY"),
        (["run", "ioi", "--n", "many"], "--n"),
        (["run", "ioi", "--dtype", "int8"], "--dtype"),
        (["run", "ioi", "--colour", "red"], "--colour"),
        (["compare"], "DIR"),
    ],
)
def test_wrong_arguments_are_explained_in_one_line(arguments: list[str], words: str, capsys: Captured) -> None:
    assert words in refusal(capsys, *arguments)


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "color-nuon"], "Unknown study 'color-nuon'. Did you mean 'color-noun'?"),
        (["run", "absent.yaml"], "No study file at absent.yaml"),
        (["run", "color-noun", "--n", "0"], "--n"),
        (["run", "color-noun", "--n", "-1"], "--n"),
        (["run", "color-noun", "--seed", "-1"], "--seed"),
        (["run", "color-noun", "--model", "absent"], "There is no model 'absent'."),
        (["report", "absent"], "absent"),
        (["compare", "absent", "absent"], "absent"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], words: str, house: House, tmp_path: Path, capsys: Captured
) -> None:
    extra = ["--quiet"] if arguments[0] == "run" else []
    assert words in refusal(capsys, *arguments, *extra)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": "mini"}, "Unknown key 'modle' in my.yaml. Did you mean 'model'?"),
        ({"n": "many"}, "'n' in my.yaml must be a whole number"),
        ({"n": 0}, "'n' in my.yaml must be a whole number of at least 1, not 0"),
        ({"analyses": ["behaviour"]}, "Unknown analysis 'behaviour' in my.yaml. Did you mean 'behavior'?"),
        ({"analyses": {"behavior": {"minimum": 1}}}, "Unknown key 'minimum' in analyses.behavior"),
        ({"task": "colours"}, "Unknown task 'colours' in my.yaml"),
        ({"rungs": ["four"]}, "Unknown rung 'four' in my.yaml"),
    ],
)
def test_a_bad_study_file_is_one_line_and_writes_nothing(
    change: dict[str, Any], words: str, house: House, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**MINIMAL, **change}))
    assert words in refusal(capsys, "run", "my.yaml", "--quiet")
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
    assert house.ran == []


def test_an_unwritable_directory_is_found_before_any_work(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(capsys, "run", "color-noun", "--out", "file")
    assert "cannot be written" in refusal(capsys, "run", "color-noun", "--out", "file/below")
    assert house.ran == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_found_before_any_work(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refusal(capsys, "run", "color-noun", "--out", "locked/run")
    assert house.ran == []


# --- bad input that only the library can find ---


def a_model_directory(path: Path, **files: bytes) -> Path:
    """A directory with mini's configuration and tokenizer, and the given files."""
    from interp import mini

    path.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((mini.WEIGHTS / name).read_bytes())
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def test_a_model_that_cannot_be_had_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp import mini

    monkeypatch.chdir(tmp_path)
    weights = (mini.WEIGHTS / "model.safetensors").read_bytes()
    a_model_directory(tmp_path / "bare")
    a_model_directory(tmp_path / "cut", model__safetensors=weights[: len(weights) // 2])
    a_model_directory(tmp_path / "pickled", pytorch_model__bin=b"\x80\x04")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    (tmp_path / "other.gguf").write_bytes(b"PK")
    before = sorted(tmp_path.rglob("*"))
    for model, words in {
        "no-such-model": "mini",
        "org/no-such-model": "mini",
        "./absent": "no such file or directory",
        "bare": "no weights",
        "cut": "truncated",
        "pickled": "refused",
        "cut.gguf": "truncated or damaged",
        "other.gguf": "not a GGUF file",
    }.items():
        assert words in refusal(capsys, "run", "color-noun", "--model", model, "--quiet"), model
    assert "gpu9" in refusal(capsys, "run", "color-noun", "--device", "gpu9", "--quiet")
    assert sorted(tmp_path.rglob("*")) == before


# --- doing the work, on doubles ---


def test_a_run_ends_with_the_answer_and_the_page(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    assert main(["run", "my.yaml", "--n", "3", "--seed", "5", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out == "The head looks. We are sure.\nReport: reports/small-n3-seed5/report.html\n"
    assert err == ""
    manifest = json.loads((tmp_path / "reports/small-n3-seed5/manifest.json").read_text())
    assert (manifest["n"], manifest["seed"]) == (3, 5)
    assert manifest["command"] == "interp run my.yaml --n 3 --seed 5 --quiet"


def test_without_a_terminal_the_stages_are_plain_lines(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    assert main(["run", "my.yaml"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "interp: build the pairs of color-noun",
        "interp: load mini",
        "interp: behavior",
        "interp: probing",
        "interp: context_flow",
        "interp: write the report",
    ]


def test_on_a_terminal_the_stages_are_bars(
    house: House, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["run", "my.yaml"]) == 0
    err = capsys.readouterr().err
    assert "probing" in err
    assert "100%|" in err


def test_a_failure_is_one_line_that_names_a_log_with_the_traceback(
    house: House, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    house.failing, house.failure = "probing", RuntimeError("out\nof paper")
    assert main(["run", "my.yaml", "--quiet"]) == 1
    out, err = capsys.readouterr()
    log = Path("reports/small/failure.log")
    assert (out, err) == (
        "",
        f"interp: failed (RuntimeError: out of paper). The log with the traceback is {log}.\n",
    )
    assert "Traceback" in log.read_text()
    house.failing = None
    assert main(["run", "my.yaml", "--quiet"]) == 0
    assert not log.exists()


def test_a_failure_before_there_is_a_directory_keeps_its_log_elsewhere(
    house: House, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(language: str | None, *, figures: bool) -> None:
        raise RuntimeError("no tools")

    monkeypatch.setattr(execution, "real_tools", break_down)
    assert main(["run", "color-noun", "--quiet"]) == 1
    err = capsys.readouterr().err
    log = Path(err.rsplit(" ", 1)[1].strip().rstrip("."))
    assert "RuntimeError: no tools" in log.read_text()
    log.unlink()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_what_is_kept_and_how_to_resume(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    house.failing, house.failure = "probing", KeyboardInterrupt()
    assert main(["run", "my.yaml", "--quiet"]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "interp: interrupted; behavior kept in reports/small. Run the same command again to resume.\n",
    )
    house.failing = "behavior"
    assert main(["run", "my.yaml", "--out", "other", "--quiet"]) == 130
    assert "nothing was kept" in capsys.readouterr().err


def test_what_libraries_print_or_warn_goes_to_the_log(
    house: House, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    render = house.render

    def chatty(directory: Path) -> Path:
        sys.stdout.write("Loaded pretrained model\n")
        sys.stderr.write("Loading weights: 100%\n")
        logging.getLogger("transformers").warning("be careful")
        return render(directory)

    monkeypatch.setattr(house, "render", chatty)
    assert main(["run", "my.yaml", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "Loaded" not in out
    assert err == ""


def test_no_log_is_left_when_all_went_well(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(logs))
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(MINIMAL))
    assert main(["run", "my.yaml", "--quiet"]) == 0
    assert main(["run", "absent", "--quiet"]) == 2
    assert list(logs.iterdir()) == []


# --- the other commands ---


def test_studies_lists_every_bundled_study(capsys: Captured) -> None:
    assert main(["studies"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in studies.names())


def test_models_says_what_can_be_given_and_what_is_cached(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("mini", "FILE.gguf", "DIR", "gpt2", "Cached here: no hub model."))
    snapshot = tmp_path / "models--org--small" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--pickled" / "snapshots" / "0").mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert main(["models"]) == 0
    assert capsys.readouterr().out.endswith("Cached here: org/small\n")


def test_doctor_names_the_device_and_the_versions(capsys: Captured) -> None:
    assert main(["doctor", "--quick"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{word}" in out for word in ("device", "torch", "transformer-lens", "interp", "cpu count"))


def test_doctor_says_how_products_are_made(capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\n  mini, 128 x 512 (mlp_in): " in out
    assert "\n  GPT-2 small, 768 x 3072 (mlp_in): " in out


# --- for real ---


@pytest.mark.slow
def test_color_noun_runs_on_mini_from_start_to_report(python: Run, tmp_path: Path) -> None:
    done = python("-m", "analyses", "run", "color-noun", "--n", "8", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["explained_rung"] == "two"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert done.stdout.splitlines()[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    assert page.startswith("<!doctype html>")


@pytest.mark.slow
def test_the_wheel_carries_all_that_a_run_needs(tmp_path: Path) -> None:
    """The wheel alone, unpacked away from the checkout, runs a study with this environment's dependencies."""
    short = yaml.safe_load((REPOSITORY / "analyses/studies/color-noun.yaml").read_text())
    short["analyses"] = dict.fromkeys(("behavior", "activation_patching", "context_flow"))
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(REPOSITORY)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"interp", "analyses"}
    assert {"interp/py.typed", "analyses/py.typed", "analyses/studies/color-noun.yaml"} <= set(names)
    # -S and the environment's site-packages as a plain path: an editable install's .pth file is not read.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), packages])}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "analyses", "run", "short.yaml", "--n", "8", "--out", "run", "--quiet"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.html").is_file()


def test_the_process_ends_without_looking_through_its_objects(python: Run) -> None:
    done = python(
        "-c",
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 1000))\n"  # the first registered runs last
        "from analyses.cli.main import main\n"
        "sys.argv = ['interp', 'tasks']\n"
        "sys.exit(main())\n",
    )
    assert done.returncode == 0
    assert done.stdout.endswith("frozen True\n")
