"""The page of every bundled study, at its own number of prompts, can be sent by mail: at most two million bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyses.cli import study
from analyses.cli.main import main
from tests.trained import save_model_that_does

MOST = 2_000_000
DONE_BY_MINI = ("binding", "color-noun", "color-noun-es", "color-noun-full", "induction", "ioi")
LONGEST = ("ground-truth",)  # half an hour, for two tables


@pytest.mark.bundled
@pytest.mark.parametrize("name", [name for name in study.names() if name not in LONGEST])
def test_the_page_of_a_bundled_study_is_at_most_2_mb(name: str, tmp_path: Path) -> None:
    """Of a model that does its task, as far as one of these is at hand: a page that explains nothing is short."""
    model = [] if name in DONE_BY_MINI else ["--model", str(save_model_that_does(name, tmp_path / "model"))]
    assert main(["run", name, *model, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size <= MOST
