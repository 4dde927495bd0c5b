"""The figure of where a model's parts sit: its sizes are the result's, and only what is known is drawn."""

from __future__ import annotations

from pathlib import Path

from interp import report
from interp.report import inputs
from interp.report.anatomy import FAMILIES, Anatomy
from tests.report_fixture import edit, only, write_run


def of(directory: Path, architecture: str) -> Anatomy | None:
    write_run(directory, only("attention_patterns"))
    edit(directory, "attention_patterns", lambda data: data.assign_attrs(architecture=architecture))
    return Anatomy.of(inputs.read(directory).files["attention_patterns"])


def test_the_sizes_are_those_of_the_result(tmp_path: Path) -> None:
    assert of(tmp_path, "GPT2LMHeadModel") == Anatomy("mini", FAMILIES["GPT2LMHeadModel"], 3, 4, 32, 8, 128, 100)
    page = report.render(tmp_path, interactive=False).read_text(encoding="utf-8")
    for words in ("block, 3 times", "attention (4 heads)", "feed-forward (128 neurons)", "unembedding (32 → 100)"):
        assert f">{words}</text>" in page


def test_rotary_models_add_no_positions(tmp_path: Path) -> None:
    found = of(tmp_path, "LlamaForCausalLM")
    assert found is not None
    assert found.family.norm == "RMSNorm"
    assert "turns q and k" in found.parts()[0][2]
    for language, words in (("en", "each time through its norm (RMSNorm), and"), ("es", "su norma (RMSNorm)")):
        page = report.render(tmp_path, interactive=False, language=language).read_text(encoding="utf-8")
        assert words in page


def test_an_architecture_that_is_built_otherwise_is_not_drawn(tmp_path: Path) -> None:
    assert of(tmp_path, "GPTNeoXForCausalLM") is None
    assert 'id="anatomy"' not in report.render(tmp_path, interactive=False).read_text(encoding="utf-8")
