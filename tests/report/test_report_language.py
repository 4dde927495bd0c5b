"""The language of a page: its own words, its ``lang`` attributes, and what stays as it was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyses import behavior, context_flow
from interp import explain, report, results, tasks
from interp.errors import InterpError
from interp.model import HookedTransformer
from tests.report_fixture import only, unfolded, write_run
from tests.spanish import english


def drawn(directory: Path, language: str | None = None, **spec: object) -> str:
    """The page of a run whose prompts are in a language."""
    write_run(directory, only("behavior", **spec))
    return report.render(directory, interactive=False, language=language).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("prompts", "asked", "page", "around_prompts"),
    [
        ("es", None, "es", ""),
        ("es", "en", "en", ' lang="es"'),
        ("en", None, "en", ""),
        ("en", "es", "es", ' lang="en"'),
        ("fr", None, "en", ' lang="fr"'),
        ("none", "es", "es", ""),
    ],
)
def test_a_page_is_in_the_language_of_its_prompts_or_the_one_asked_for(
    prompts: str, asked: str | None, page: str, around_prompts: str, tmp_path: Path
) -> None:
    text = drawn(tmp_path, asked, manifest={"language": prompts})
    assert f'<html lang="{page}">' in text
    assert f'<span class="prompt-text"{around_prompts}>' in text
    assert ("Saltar al contenido" in text) == (page == "es")
    assert ("Skip to the content" in text) == (page == "en")


def test_an_older_run_that_says_no_language_has_an_english_page(tmp_path: Path) -> None:
    assert '<html lang="en">' in drawn(tmp_path)


def test_a_language_without_words_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(InterpError, match=r"'fr' is no language of the page\. Choose one of en, es\."):
        report.render(tmp_path, language="fr")
    assert not (tmp_path / "report.html").exists()


def test_what_programs_read_is_the_same_in_every_language(tmp_path: Path) -> None:
    drawn(tmp_path)
    english = (tmp_path / "report.json").read_bytes()
    report.render(tmp_path, interactive=False, language="es")
    assert (tmp_path / "report.json").read_bytes() == english


# ---- nothing is left in English ----


def test_no_sentence_of_a_failed_gate_is_left_in_english(mini: HookedTransformer, tmp_path: Path) -> None:
    rungs = {rung: tasks.build("gender-es", rung, tokenizer=mini, n=4) for rung in ("plain", "attractor")}
    found = behavior.run(mini, rungs)
    assert not found["passes"].any()
    for name, result in (("behavior", found), ("verdict", context_flow.run({"behavior": found}))):
        results.save(result, tmp_path / "results" / f"{name}.nc")
    page = report.render(tmp_path, interactive=False, language="es").read_text(encoding="utf-8")
    assert "No: mini no resuelve gender-es/attractor, así que no hay nada que explicar." in page
    assert english(page) == []


def test_no_sentence_about_one_spanish_sentence_is_left_in_english(mini: HookedTransformer, tmp_path: Path) -> None:
    found = explain(mini, "Me encanta el color negro, espero un gato", "negro", "gato", instead=["blanco", "rojo"])
    page = found.save(tmp_path / "run").read_text(encoding="utf-8")
    assert '<html lang="es">' in page
    assert english(page) == []


def test_what_is_left_in_english_is_found(tmp_path: Path) -> None:
    assert len(english(drawn(tmp_path, "en"))) > 20


def test_roles_and_rungs_are_named_in_spanish_and_scripts_link_them_by_their_own_names(tmp_path: Path) -> None:
    write_run(tmp_path, only("behavior", "activation_patching", "probing", "verdict"))
    page = unfolded(report.render(tmp_path, interactive=False, language="es").read_text(encoding="utf-8"))
    assert 'data-role="noun"' in page
    assert ">sustantivo<" in page
    assert '<td data-name="noun">sustantivo</td>' in page
    assert "<h3>dos</h3>" in page
    told, _, _ = page.partition('id="provenance"')  # what is known of the run's making stays as programs have it
    assert not re.search(r"<(?:text|td|small|h3)[^>]*>(?:noun|color_other|two|three)<", told)
    assert "capa inicio" not in page
