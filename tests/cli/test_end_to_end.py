"""The bundled studies that are not about colours, on a model that does them: what their pages say, in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analyses.cli.main import main
from interp import report, results, tasks
from interp.prompts.vocabulary import SAYS
from tests.report.test_report import read_page
from tests.report.test_size import MOST
from tests.spanish import english
from tests.trained import save_model_that_does

pytestmark = pytest.mark.slow

NAMES = ("agreement", "gender-es", "greater-than")  # the other language of each runs the same code
LEFT_OUT = "This cannot be asked here."


@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_a_model_that_does_its_task_ends_with_an_answer_in_its_own_words(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model_that_does(name, tmp_path / "model")
    out = tmp_path / "run"
    capsys.readouterr()
    assert main(["run", name, "--model", str(model), "--out", str(out), "--n", "24", "--lang", "en", "--quiet"]) == 0
    said = capsys.readouterr().out

    manifest = json.loads((out / "manifest.json").read_text())
    task, record = tasks.load(name), json.loads((out / "report.json").read_text())
    verdict, behavior = (results.load(out / "results" / f"{file}.nc") for file in ("verdict", "behavior"))
    assert manifest["explained_rung"] == record["verdict"]["rung"] == verdict.attrs["rung"] == task.main.name
    assert behavior.attrs["explained_rung"] == task.main.name
    assert (verdict.attrs["gate"], verdict.attrs["outcome"]) == ("passed", SAYS)
    assert manifest["not_asked"] == {}
    assert set(verdict["label"].values) == {"mover", "none"}  # the target is the answer position: nobody reads there

    source, answer = task.vocabulary.name(task.vocabulary.source or ""), task.vocabulary.correct()
    found = str(verdict.attrs["answer"])
    assert f"gives {answer} as its top token in 100%" in found
    assert f"{source[0].upper()}{source[1:]} reaches the answer position through L" in found
    assert f"(attention to {source} " in found
    short = str(verdict.attrs["answer_short"])
    assert short.startswith(f"Yes: {source} reaches the answer position; it comes there through L")
    assert said == f"{short} {found}\nReport: {out / 'report.html'}\n"

    text = read_page(out).text
    assert (out / "report.html").stat().st_size <= MOST
    assert found in text
    assert f"can a linear probe read {source}?" in text
    assert f" probe reads {source} at the answer position" in text
    assert f"the answer position comes after {source}, so they can meet at the answer position." in text
    assert LEFT_OUT not in text
    assert "colo" not in (out / "report.json").read_text(encoding="utf-8").lower()

    spanish = report.render(out, interactive=False, language="es").read_text(encoding="utf-8")
    assert str(verdict.attrs["answer_short_es"]).startswith(
        f"Sí: {task.vocabulary.name(str(task.vocabulary.source), 'es')}"
    )
    if task.language == "es":  # the words of other prompts are left as they are
        assert [one for one in english(spanish) if str(model) not in one] == []


@pytest.mark.parametrize("name", ["agreement", "greater-than-es"])
def test_a_probe_finds_the_source_at_its_own_word(name: str, tmp_path: Path) -> None:
    """By hand: at layer 0 the stream at the source is its own embedding, which names it."""
    model = save_model_that_does(name, tmp_path / "model")
    content = {"name": name, "title": name, "question": name, "task": name, "n": 24, "model": str(model)}
    (tmp_path / "s.yaml").write_text(json.dumps({**content, "analyses": ["behavior", "probing"]}))
    assert main(["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    probing = results.load(tmp_path / "run" / "results" / "probing.nc")
    source = str(tasks.load(name).vocabulary.source)
    first = probing["accuracy"].sel(site="resid_pre", layer=0, role=source).mean("fold")
    assert float(first) > 2 * float(np.maximum(probing["chance"], probing["majority"].sel(role=source)))
