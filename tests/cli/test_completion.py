"""The command is completed in a shell: a real bash is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from analyses.cli.main import SHELLS, main
from interp import tasks

ASK = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_interp; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    """What ``interp completion bash`` prints."""
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("run", "col"), {"color-noun", "color-noun-es", "color-noun-full"}),
        (("run", "my"), {"my-question.yaml"}),
        (("comp",), {"compare", "completion"}),
        (("run", "ioi", "--mo"), {"--model"}),
        (("run", "ioi", "--model", "w"), {"weights.gguf"}),
        (("run", "ioi", "--dtype", "f"), {"float32", "float64", "float16"}),
        (("show", ""), {*tasks.names(), "my-question.yaml", "a-run"}),
        (("report", "a"), {"a-run"}),
        (("schema", ""), {"study", "task"}),
    ],
)
def test_bash_offers_what_comes_next(script: str, words: tuple[str, ...], offered: set[str], tmp_path: Path) -> None:
    for name in ("my-question.yaml", "weights.gguf", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a-run").mkdir()
    asked = ["bash", "--norc", "-c", script + ASK, "bash", "interp", *words]
    found = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_knows_the_studies(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "greater-than-es" in capsys.readouterr().out
