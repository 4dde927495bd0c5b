"""A researcher's own question from the command line: new, check, show, tasks; and one run from start to page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml

import interp
from analyses import behavior
from analyses.cli import study as studies
from analyses.cli.main import main
from interp import mini as bundled
from interp import tasks
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.model.source import reader
from tests.doubles import MINIMAL, House, refusal
from tests.tiny_tokenizers import byte_bpe

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Captured = pytest.CaptureFixture[str]


def said(capsys: Captured, *arguments: str) -> str:
    """Run a command that must succeed; what it prints."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


# --- new ---


def test_a_new_question_is_a_study_with_its_task_in_it(house: House, tmp_path: Path, capsys: Captured) -> None:
    out = said(capsys, "new", "agreement")
    assert out == "Wrote agreement.yaml. Next: interp check agreement.yaml, then interp run agreement.yaml.\n"
    study = studies.load("agreement.yaml")
    assert (study.name, study.model) == ("agreement", "mini")
    assert tasks.load(study.task).main.name == "two"
    assert said(capsys, "check", "agreement.yaml").startswith(
        "agreement.yaml is a study without a mistake.\nStudy agreement: 24 pairs of each rung of agreement (one, two), "
    )
    assert house.ran == []
    assert [path.name for path in tmp_path.iterdir()] == ["agreement.yaml"]


def test_a_new_question_never_takes_the_place_of_a_file(house: House, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "mine.yaml").write_text("my own work")
    for name in ("mine", "mine.yaml"):
        assert "mine.yaml is already there, and is left as it is" in refusal(capsys, "new", name)
    (tmp_path / "link.yaml").symlink_to("nowhere")
    assert "link.yaml is already there" in refusal(capsys, "new", "link")
    assert (tmp_path / "mine.yaml").read_text() == "my own work"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["a/b", "../up", "", "con", "1", "true", "a: b", "a #b", "{x}", "- a"])
def test_a_name_that_no_question_can_have_is_one_line(
    name: str, house: House, tmp_path: Path, capsys: Captured
) -> None:
    assert "name" in refusal(capsys, "new", "--", name)
    assert list(tmp_path.iterdir()) == []


# --- check ---


def test_a_task_alone_can_be_checked(house: House, tmp_path: Path, capsys: Captured) -> None:
    shutil.copy(Path(tasks.__file__).parent / "ioi.yaml", tmp_path / "mine.yaml")
    assert said(capsys, "check", "mine.yaml") == (
        "mine.yaml is a task without a mistake.\nTask ioi: rungs when, then.\n"
    )


def test_what_is_probably_not_meant_is_not_called_without_a_mistake(
    house: House, tmp_path: Path, capsys: Captured
) -> None:
    said(capsys, "new", "mine")
    own = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    unsaid = "Without {} among its analyses its question is not answered."

    def checked(*more: str, **changes: object) -> list[str]:
        (tmp_path / "s.yaml").write_text(yaml.safe_dump({**own, **changes}))
        return said(capsys, "check", "s.yaml", *more).splitlines()

    assert checked()[0] == checked("--model", "mini")[0] == "s.yaml is a study without a mistake."
    without = {name: None for name in own["analyses"] if name not in ("activation_patching", "context_flow")}
    first, _, third = checked(analyses={**without, "context_flow": None})
    assert first == "s.yaml is a study that can be read. What is probably not meant is said below."
    assert third.startswith(unsaid.format("activation_patching"))
    assert checked(analyses={**without, "activation_patching": None})[2].startswith(unsaid.format("context_flow"))
    assert len(checked(analyses=without)) == 2  # numbers are all that is asked for
    rungs = [{**rung, "answer": rung["answer"].strip()} for rung in own["task"]["rungs"]]
    first, _, *joined = checked(task={**own["task"], "rungs": rungs})
    assert first.endswith("What is probably not meant is said below.")
    assert [line.partition(":")[0] for line in joined] == ["one", "two"]
    one = {**own["task"]["rungs"][0], "template": own["task"]["rungs"][0]["template"] + " "}
    first, _, *spaced = checked(task={**own["task"], "rungs": [one, own["task"]["rungs"][1]]})
    assert first.endswith("What is probably not meant is said below.")
    assert [line.partition(", which")[0] for line in spaced] == ["one: the prompt ends with a space"]
    colors = ["black", "red", "anthracite"]
    words = {**own["task"]["lexicon"], "color": colors, "color_other": colors}
    few = checked("--model", "mini", task={**own["task"], "lexicon": words})
    assert few[0].endswith("What is probably not meant is said below.")
    one, two = own["task"]["rungs"]
    back = "The {noun} is {color}. The {noun:asked} is"
    told = "{}: noun stands before color, and attention only looks back, so that nothing of color can reach it there."
    first, _, *lines = checked(task={**own["task"], "rungs": [{**one, "template": back}, two]})
    assert first == "s.yaml is a study without a mistake."  # of its main rung
    assert [line.partition(" What can")[0] for line in lines] == [told.format("one")]
    turned = "The {noun} is {color}. The {noun_other} is {color_other}. The {noun:asked} is"
    first, _, *lines = checked(task={**own["task"], "rungs": [one, {**two, "templates": {"first": turned}}]})
    assert first.endswith("What is probably not meant is said below.")
    assert [line.partition(" What can")[0] for line in lines] == [told.format("two")]
    assert any(line.startswith("  missing ") for line in few)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": "mini"}, "Unknown key 'modle' in s.yaml. Did you mean 'model'?"),
        ({"task": "colour-noun"}, "Did you mean 'color-noun'?"),
        ({"task": {"name": "mine"}}, "s.yaml: the task has no language. Add it."),
        (
            {"analyses": {"behavior": None, "probing": {"n_fold": 3}}},
            "'n_fold' in analyses.probing of s.yaml. Did you mean 'n_folds'?",
        ),
        (
            {"analyses": {"behavior": None, "probing": {"n_folds": "x"}}},
            "'n_folds' in analyses.probing of s.yaml must be",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_no_model_is_loaded(
    change: dict[str, object], words: str, house: House, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**MINIMAL, **change}))
    assert words in refusal(capsys, "check", "s.yaml")
    assert house.ran == []


def test_a_missing_file_or_model_is_one_line(house: House, tmp_path: Path, capsys: Captured) -> None:
    assert "There is no file absent.yaml. 'interp new NAME' writes" in refusal(capsys, "check", "absent.yaml")
    said(capsys, "new", "mine")
    assert "No model at ./absent" in refusal(capsys, "check", "mine.yaml", "--model", "./absent")
    assert "Unknown task 'colour'" in refusal(capsys, "show", "colour")


def test_with_a_model_the_pairs_their_tokens_and_roles_are_shown(house: House, capsys: Captured) -> None:
    said(capsys, "new", "agreement")
    lines = said(capsys, "check", "agreement.yaml", "--model", "mini").splitlines()
    assert lines[3].startswith("one: 24 pairs of agreement/one: 10 tokens, BOS prepended")
    assert lines[4:11] == [
        "  clean      'I have a green hat. The hat is' -> ' green', not ' red'",
        "  corrupted  'I have a red hat. The hat is'",
        "  tokens     <|endoftext|> | I |  have |  a |  green |  hat | . |  The |  hat |  is",
        "  color      4: ' green'",
        "  noun       5: ' hat'",
        "  asked      8: ' hat'",
        "  answer     9: ' is'",
    ]
    assert house.ran == []


def test_what_a_tokenizer_drops_is_shown_with_its_reason(house: House, tmp_path: Path, capsys: Captured) -> None:
    model = tmp_path / "bytes"
    model.mkdir()
    byte_bpe(["x"], 257).save_pretrained(model)  # every byte is a token: words of unequal length do not line up
    (model / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 300, "n_positions": 256}))
    said(capsys, "new", "mine")
    out = said(capsys, "check", "mine.yaml", "--model", "bytes")
    first = next(line for line in out.splitlines() if line.startswith("  dropped"))
    assert re.fullmatch(r'  dropped    "I have a \w+ \w+\. The \w+ is": clean and corrupted must have equal .*', first)
    assert out.count("  dropped    ") <= 2 * 6
    assert re.search(r"  dropped    \d+ more\n", out)
    assert "  color      " in out


def test_a_task_that_no_pair_can_be_built_of_says_why_and_exits_2(
    house: House, tmp_path: Path, capsys: Captured
) -> None:
    said(capsys, "new", "mine")
    path = tmp_path / "mine.yaml"
    content = yaml.safe_load(path.read_text())
    content["task"]["lexicon"] |= {"color": ["re", "blu"], "color_other": ["re", "blu"]}
    content["task"]["answer_policy"] = "single"
    path.write_text(yaml.safe_dump(content))
    assert main(["check", "mine.yaml", "--model", "mini"]) == 2
    out, err = capsys.readouterr()
    assert "one: No pair of rung 'one' of task 'mine' can be built with this tokenizer" in out
    assert err == "interp: No rung of mine can be built with this tokenizer; the reasons are above.\n"


# --- tasks and show ---


def test_tasks_lists_every_bundled_task(capsys: Captured) -> None:
    out = said(capsys, "tasks")
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(tasks.names())
    assert "recall, repeated_frame, two, three" in out


def test_show_marks_the_roles_of_one_prompt(capsys: Captured) -> None:
    out = said(capsys, "show", "color-noun")
    assert "two (main): The founding sentences" in out
    assert "  clean      The [horse noun] is [green color]. The [horse asked] is -> green\n" in out
    assert "  corrupted  The [horse noun] is [gray color]. The [horse asked] is\n" in out
    assert "  roles      noun, color, asked, answer\n" in out


@pytest.mark.parametrize("name", tasks.names())
def test_show_works_for_every_bundled_task(name: str, capsys: Captured) -> None:
    assert said(capsys, "show", name).startswith(f"{name}: ")
    with_tokens = said(capsys, "show", name, "--model", "mini")
    assert with_tokens.count("  answer     ") == len(tasks.load(name).rungs)


# --- how a model reads, without its weights ---


def test_a_reader_reads_as_its_model_does(mini: HookedTransformer) -> None:
    found = reader("mini")
    assert (found.bos_policy, found.bos_token_id) == (mini.bos_policy, mini.bos_token_id)
    assert (found.cfg.n_ctx, found.cfg.vocab) == (mini.cfg.n_ctx, mini.cfg.vocab)
    theirs, ours = (tasks.build("color-noun", tokenizer=model, n=6) for model in (mini, found))
    assert theirs.sha256() == ours.sha256()


def test_a_reader_needs_no_weights(tmp_path: Path) -> None:
    for path in bundled.WEIGHTS.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    assert reader(tmp_path).cfg == reader("mini").cfg
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InterpError, match="Cannot load the tokenizer"):
        reader(tmp_path)


# --- from Python ---


def test_a_study_runs_in_one_call_with_the_keys_of_its_file(house: House, tmp_path: Path) -> None:
    found = interp.study(MINIMAL, out=tmp_path / "run")
    assert found.answer == "The head looks. We are sure."
    assert found.report == tmp_path / "run" / "report.html"
    assert found.explained_rung == "two"
    assert set(found.results) == {"behavior", "probing", "verdict"}
    assert found.verdict is found.results["verdict"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(MINIMAL))
    assert main(["run", "small.yaml", "--quiet", "--out", "run"]) == 0  # the same run, which is kept
    assert house.ran.count("behavior") == 1


def test_without_out_a_call_writes_where_the_command_does(house: House) -> None:
    assert interp.study(MINIMAL).report == Path("reports/small/report.html")
    assert interp.study(MINIMAL, n=2, seed=3).report == Path("reports/small-n2-seed3/report.html")


def test_a_study_of_a_loaded_model_and_of_ones_own_task(
    mini: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine"]) == 0
    content = yaml.safe_load(Path("mine.yaml").read_text())
    found = interp.study({**content, "analyses": ["behavior"]}, model=mini, n=4, out="run")
    assert found.explained_rung == "two"
    assert found.verdict is None
    assert found.results["behavior"].attrs["weights_sha256"] == mini.weights_sha256
    assert found.results["behavior"]["description"].values.tolist()[0].startswith("One noun and its colour")
    command = json.loads(Path("run/manifest.json").read_text())["command"]
    assert command == "interp.study(study, model=model, n=4, out='run')"


def test_what_is_explained_is_decided_once_and_everything_reads_it(
    mini: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = behavior.run

    def decides_otherwise(*given: Any, **options: Any) -> xr.Dataset:
        result = own(*given, **options)
        assert result.attrs["explained_rung"] == "two"
        return result.assign_attrs(explained_rung="recall")

    monkeypatch.setattr(behavior, "run", decides_otherwise)
    content = {"task": "color-noun", "rungs": ["recall", "two"], "analyses": ["behavior", "logit_lens", "context_flow"]}
    found = interp.study({**MINIMAL, **content}, model=mini, n=4, out=tmp_path)
    record = json.loads((tmp_path / "report.json").read_text())
    assert found.results["logit_lens"].attrs["task"] == "color-noun/recall"
    assert found.results["verdict"].attrs["rung"] == found.explained_rung == "recall"
    assert json.loads((tmp_path / "manifest.json").read_text())["explained_rung"] == "recall"
    assert record["verdict"]["rung"] == "recall"
    assert "Everything below explains rung recall only." in found.report.read_text()


@pytest.mark.parametrize(
    ("study", "options", "words"),
    [
        ({**MINIMAL, "modle": "mini"}, {}, "Unknown key 'modle' in the given study"),
        ({**MINIMAL, "title": object()}, {}, "the given study holds what YAML cannot"),
        (3, {}, "A study is a name, a path or a mapping of its keys, not int"),
        (MINIMAL, {"n": 0}, "'n' in the call must be a whole number of at least 1, not 0"),
        ("color-nuon", {}, "Unknown study 'color-nuon'. Did you mean 'color-noun'"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    study: object, options: dict[str, object], words: str, house: House, tmp_path: Path
) -> None:
    with pytest.raises(InterpError) as caught:
        interp.study(study, **options)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- from start to page ---


@pytest.mark.slow
def test_a_new_question_runs_on_mini_as_it_is(python: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert python("-m", "analyses", "new", "agreement").returncode == 0
    done = python("-m", "analyses", "run", "agreement.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Report: reports/agreement/report.html\n")
    assert (tmp_path / "reports/agreement/results/verdict.nc").is_file()
    (tmp_path / "agreement.yaml").unlink()
    again = python("-m", "analyses", "report", "reports/agreement")
    assert again.returncode == 0, again.stderr


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:

    with pytest.raises(InterpError, match="is int, not a model"):
        interp.study("color-noun", model=3, out=tmp_path / "out")
