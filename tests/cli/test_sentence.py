"""``interp explain``: the answer in words, results where they are asked for, one line per mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyses.cli.main import main
from analyses.explaining import carriers
from interp import HookedTransformer, results

TEXT = "Me encanta el color negro, espero algún día tener un gato así"
ASKED = ["explain", TEXT, "--from", "negro", "--to", "gato"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _loaded_once(mini: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", lambda name, **_: mini)


def test_it_answers_shows_the_words_and_keeps_the_results(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "found"
    assert main([*ASKED, "--instead", "rojo,blanco,zzzq", "--out", str(out)]) == 0
    said, told = capsys.readouterr()
    assert said.startswith("Sí, un poco: con otra palabra que «negro», lo que mini guarda en «gato» difiere")
    assert "con otras 2 palabras en su lugar" in said
    assert "(rojo, blanco)" in said
    assert "Descartadas, porque tienen otro número de tokens: zzzq." in said
    assert "cabeza  suficiente" in said
    assert "[" not in said
    assert ".0%" not in said
    assert f"Report: {out / 'report.html'}" in said
    assert "loading mini" in told
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "results"]
    heads = results.load(out / "results" / "heads.nc")
    assert heads["recovered"].dims == ("prompt", "direction", "layer", "head", "role")
    assert heads.sizes["prompt"] == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Otras palabras descartadas: 1" in page
    assert re.search(r"zzzq</t[dh]>\s*<td[^>]*>limpio y corrompido deben tener el mismo número de tokens", page)
    assert "Prompts descartados" not in page


def test_it_goes_on_where_asked(capsys: Captured) -> None:
    assert main([*ASKED, "--n", "2", "--lang", "en", "--quiet", "--continue", "3"]) == 0
    said = capsys.readouterr().out
    assert "The sentence goes on" in said
    assert "of these 3 tokens" in said
    assert "with    it goes on" in said


def test_the_language_can_be_chosen(capsys: Captured) -> None:
    assert main([*ASKED, "--n", "2", "--lang", "en", "--quiet"]) == 0
    said, told = capsys.readouterr()
    assert said.startswith('Yes, a little: with another word than "negro", what mini holds at "gato" differs')
    assert "head  sufficient" in said
    assert told == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "verde", "--to", "gato"], "The word 'verde' is not in"),
        (["--from", "gato", "--to", "negro"], "'negro' does not come after 'gato'"),
        (["--from", "negro", "--to", "gato", "--n", "0"], "--n is 0"),
        (["--from", "negro", "--to", "gato", "--seconds", "-1"], "--seconds is -1"),
        (["--from", "negro", "--to", "gato", "--seconds", "nan"], "--seconds is nan"),
        (["--from", "negro", "--to", "gato", "--continue", "0"], "--continue is 0"),
        (["--from", "negro", "--to", ">2"], "goes only with --from '?'"),
        (["--from", "negro", "--to", "gato", "--nn", "3"], "See 'interp explain --help'"),
        (["--from", "negro", "--to", "gato", "--instead", "zzzq"], "None of 1 other words"),
        (["--from", "negro", "--to", "gato", "--instead", ","], "Number 1 of the other words"),
        (["--from", "negro"], "the following arguments are required: --to"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: list[str], says: str, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "found"
    assert main(["explain", TEXT, *arguments, "--out", str(out), "--quiet"]) == 2
    said, told = capsys.readouterr()
    assert said == ""
    assert told.count("\n") == 1
    assert says in told
    assert not out.exists()


def test_a_chat_is_a_file(tmp_path: Path, capsys: Captured) -> None:
    words = ["--from", "negro", "--to", "gato", "--quiet"]
    path = tmp_path / "chat.json"
    path.write_text('[{"role": "user", "content": "Hola"}]')
    for given, says in (
        (["--chat", str(path)], "mini has no chat template"),
        (["--chat", str(tmp_path / "none.json")], "none.json cannot be read"),
        (["--chat", str(path), TEXT], "Give the sentence, or --chat"),
        ([], "Give the sentence, or --chat"),
    ):
        assert main(["explain", *given, *words]) == 2
        told = capsys.readouterr().err
        assert says in told
        assert told.count("\n") == 1


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main([*ASKED, "--out", str(tmp_path)]) == 2
    assert "is not an empty directory. Name another one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_directory_with_an_explanation_is_named_by_its_question(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found"
    asked = [*ASKED, "--n", "1", "--out", str(out), "--quiet"]
    assert main(asked) == 0
    capsys.readouterr()
    monkeypatch.setattr(HookedTransformer, "from_pretrained", None)
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "holds an explanation already: ¿Qué de «negro» llega a «gato»" in told
    assert f"'interp report {out}'" in told
    assert main(["report", str(out)]) == 0


def test_what_a_model_cannot_read_is_said_before_it_is_loaded(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", None)
    chat = tmp_path / "chat.json"
    chat.write_text('[{"role": "user", "content": "negro gato"}]')
    words = ["--from", "negro", "--to", "gato", "--quiet"]
    assert main(["explain", "--chat", str(chat), *words]) == 2
    assert "mini has no chat template" in capsys.readouterr().err
    assert main(["explain", TEXT + " y así" * 200, *words]) == 2
    assert "tokens, but the model reads at most" in capsys.readouterr().err


def test_what_was_answered_before_an_interruption_is_said_and_kept(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(carriers, "_paths", stopped)
    out = tmp_path / "found"
    assert main([*ASKED, "--n", "2", "--quiet", "--out", str(out)]) == 130
    said, told = capsys.readouterr()
    assert said.startswith("Sí, un poco: ")
    assert told == f"interp: interrupted by SIGTERM; the answer so far is kept in {out}.\n"
    assert (out / "report.html").is_file()
