"""Studies: reading them strictly; the order of a run and its resumption, on doubles of the library."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analyses.cli import execution
from analyses.cli import manifest as manifests
from analyses.cli import study as studies
from analyses.cli.study import Study
from interp.errors import InterpError, UnaskableError
from interp.prompts import PromptPairs
from tests.doubles import DROP, MINIMAL, House, Said
from tests.tiny import without_blocks

pytestmark = pytest.mark.usefixtures("fingerprint")


def with_change(**changes: object) -> dict[str, object]:
    return {**MINIMAL, **changes}


# --- reading ---


@pytest.mark.parametrize("name", sorted({*studies.names()} - {"ground-truth"}))  # of which methods it asks how often
def test_a_bundled_question_is_one_that_yes_or_no_answers(name: str) -> None:
    question = studies.load(name).question
    asked = re.sub(r"^(?:In|En) (?:\".*?\"|«.*?»), |^When .*?, (?=does)", "", question)
    assert re.match(r"does |¿llega ", asked), question


@pytest.mark.parametrize("name", studies.names())
def test_every_bundled_study_is_valid_and_called_like_its_file(name: str) -> None:
    assert studies.load(name).name == name


def test_the_bundled_studies_are_those_promised() -> None:
    about_colours = {"binding", "color-noun", "color-noun-es", "color-noun-full"}
    about_others = {f"{name}{language}" for name in ("agreement", "gender", "greater-than") for language in ("", "-es")}
    assert set(studies.names()) == {*about_colours, *about_others, "ground-truth", "induction", "ioi"}


@pytest.mark.parametrize("name", studies.names())
def test_a_study_written_down_reads_back_equal(name: str, tmp_path: Path) -> None:
    study = studies.load(name)
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(study.as_dict()))
    assert studies.load(path) == study


def test_a_study_without_options_gets_the_stated_defaults() -> None:
    study = studies.parse(MINIMAL, where="small.yaml")
    assert (study.model, study.n, study.seed, study.rungs, study.main_rung) == ("mini", 48, 0, None, None)
    assert study.analyses == {"behavior": {}, "probing": {"n_folds": 3}, "context_flow": {}}


def test_analyses_run_in_the_order_of_the_registry_whatever_the_file_says() -> None:
    study = studies.parse(with_change(analyses=["probing", "context_flow", "behavior"]), where="small.yaml")
    assert list(study.analyses) == ["behavior", "probing", "context_flow"]


BAD = {
    "unknown key": (with_change(modle="mini"), ["'modle'", "small.yaml", "Did you mean 'model'?"]),
    "missing key": ({k: v for k, v in MINIMAL.items() if k != "task"}, ["small.yaml", "'task'"]),
    "not a mapping": (["name"], ["small.yaml", "mapping"]),
    "empty file": (None, ["small.yaml", "mapping"]),
    "n is text": (with_change(n="many"), ["'n'", "small.yaml", "whole number", "'many'"]),
    "n is true": (with_change(n=True), ["'n'", "whole number"]),
    "no prompts": (with_change(n=0), ["'n'", "at least 1", "0"]),
    "negative seed": (with_change(seed=-1), ["'seed'", "at least 0"]),
    "title is a list": (with_change(title=["a"]), ["'title'", "text"]),
    "question is blank": (with_change(question=" "), ["'question'", "text"]),
    "unknown task": (with_change(task="colour-noun"), ["'colour-noun'", "Did you mean 'color-noun'?"]),
    "unknown rung": (with_change(rungs=["recal"]), ["'recal'", "Did you mean 'recall'?"]),
    "rungs is a word": (with_change(rungs="most"), ["'rungs'", "'all' or a list"]),
    "rungs is empty": (with_change(rungs=[]), ["'rungs'", "'all' or a list"]),
    "unknown main rung": (with_change(main_rung="tow"), ["'tow'", "Did you mean 'two'?"]),
    "main rung left out": (with_change(rungs=["recall"], main_rung="two"), ["main_rung 'two'", "recall"]),
    "unknown analysis": (with_change(analyses=["behavior", "probbing"]), ["'probbing'", "'probing'?"]),
    "no behavior": (with_change(analyses=["probing"]), ["'behavior'", "small.yaml"]),
    "no analyses": (with_change(analyses={}), ["'analyses'"]),
    "options are a list": (with_change(analyses={"behavior": [1]}), ["analyses.behavior", "mapping"]),
    "gate is a number": (with_change(gate=0.5), ["'gate'", "mapping"]),
    "gate is a word": (with_change(gate={"minimum_preferred": "high"}), ["gate.minimum_preferred", "number"]),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_bad_study_is_refused_in_one_line_that_says_where(content: object, words: list[str]) -> None:
    with pytest.raises(InterpError) as caught:
        studies.parse(content, where="small.yaml")
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) + "n: 3\nn: 4\n")
    with pytest.raises(InterpError, match=r"twice\.yaml.*'n' is given twice"):
        studies.load(path)


@pytest.mark.parametrize("text", ["name: [", "name: \x00", "a: b: c"])
def test_a_file_that_is_not_yaml_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InterpError, match=r"broken\.yaml is not valid YAML"):
        studies.load(path)


def test_an_unknown_study_gets_the_nearest_name() -> None:
    with pytest.raises(InterpError, match=r"Unknown study 'color-nuon'\. Did you mean 'color-noun'"):
        studies.load("color-nuon")


def test_a_missing_study_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=r"No study file at .*absent\.yaml"):
        studies.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(("option", "value"), [("n", 0), ("n", -3), ("n", 10**12), ("seed", -1), ("seed", 2**63)])
def test_the_command_lines_choices_are_checked_like_the_files(option: str, value: int) -> None:
    given = {"model": None, "n": None, "seed": None, option: value}
    with pytest.raises(InterpError, match=f"--{option}.*whole number"):
        studies.with_overrides(studies.parse(MINIMAL, where="small.yaml"), **given)


# --- a task of one's own ---

OWN_TASK = {
    "name": "mine",
    "language": "en",
    "title": "Mine",
    "question": "Is it?",
    "source": "This test.",
    "lexicon": {"color": ["red", "blue", "green"], "noun": ["cat", "dog", "bird"]},
    "rungs": [
        {
            "name": "once",
            "description": "One colour.",
            "main": True,
            "template": "The {noun} is {color}. The {noun:asked} is",
            "answer": " {color}",
            "corrupted": {"other": "color"},
        }
    ],
}


def own_study(folder: Path, task: object = "sets/mine.yaml", **changes: object) -> Path:
    """A study with a task file in a folder beside it."""
    (folder / "sets").mkdir(exist_ok=True)
    (folder / "sets" / "mine.yaml").write_text(yaml.safe_dump(OWN_TASK))
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(with_change(task=task, **changes)))
    return path


def test_a_task_is_a_path_relative_to_the_study_or_stands_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    by_path = studies.load(own_study(tmp_path))
    inline = studies.load(own_study(tmp_path, OWN_TASK))
    absolute = studies.load(own_study(tmp_path, str(tmp_path / "sets" / "mine.yaml")))
    assert by_path == inline == absolute
    assert by_path.task == OWN_TASK
    assert by_path.task_sha256() == inline.task_sha256()
    assert studies.parse(inline.as_dict(), where="again.yaml") == inline


def test_the_fingerprint_of_a_task_is_of_all_that_it_says() -> None:
    study = studies.parse(with_change(task=OWN_TASK), where="own.yaml")
    other = studies.parse(with_change(task={**OWN_TASK, "title": "Other"}), where="own.yaml")
    bundled = studies.parse(MINIMAL, where="own.yaml")
    assert len({study.task_sha256(), other.task_sha256(), bundled.task_sha256()}) == 3


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("absent.yaml", "No task file at .*absent.yaml, which .*own.yaml names: a path is relative to the study"),
        ({**OWN_TASK, "langauge": "en"}, "Unknown key 'langauge' in the task of .*own.yaml.*'language'"),
        ({"name": "mine"}, "own.yaml: the task has no language"),
        (["mine"], "'task' in .*own.yaml must be a bundled task, the path of a .yaml file, or a whole task"),
        ("own.yaml", "Unknown key 'analyses' in the task of own.yaml"),
    ],
)
def test_a_task_of_ones_own_with_a_mistake_is_one_line(task: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InterpError, match=words) as caught:
        studies.load(own_study(tmp_path, task))
    assert "\n" not in str(caught.value)


def test_the_rungs_of_a_study_are_those_of_its_own_task(tmp_path: Path) -> None:
    assert studies.load(own_study(tmp_path, rungs=["once"])).rungs == ("once",)
    with pytest.raises(InterpError, match=r"Unknown rung 'two' .* Rungs of mine: once"):
        studies.load(own_study(tmp_path, rungs=["two"]))


# --- running, on doubles ---

SMALL = studies.Study(
    name="small",
    title="A small study",
    question="Does it run?",
    task="color-noun",
    n=2,
    analyses={"behavior": {}, "probing": {}, "context_flow": {}},
)


def execute(house: House, out: Path, study: Study = SMALL, said: Said | None = None) -> execution.Outcome:
    return execution.execute(study, out, tools=house.tools(), watcher=said or Said(), command="interp run small")


def manifest(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return content


def test_a_run_writes_its_directory_and_answers(tmp_path: Path) -> None:
    outcome = execute(House(), tmp_path / "run")
    assert outcome.answer == "The head looks. We are sure."
    assert outcome.report == tmp_path / "run" / "report.html"
    written = sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*.*"))
    assert written == [
        "manifest.json",
        "report.html",
        "results/behavior.nc",
        "results/probing.nc",
        "results/verdict.nc",
        "study.yaml",
    ]
    assert studies.load(tmp_path / "run" / "study.yaml") == SMALL


def test_a_run_keeps_its_own_task_and_goes_on_without_the_file(tmp_path: Path) -> None:
    study = studies.load(own_study(tmp_path))
    house = House(passing=("once",))
    execute(house, tmp_path / "run", study)
    assert house.tasks == {"mine"}
    found = manifest(tmp_path / "run")
    assert (found["task"], found["rungs"], found["main_rung"]) == ("mine", ["once"], "once")
    (tmp_path / "sets" / "mine.yaml").unlink()
    kept = studies.load(tmp_path / "run" / "study.yaml")
    assert kept == study
    again = House(passing=("once",))
    execute(again, tmp_path / "run", kept)
    assert again.ran == ["load", "report"]


def test_results_of_a_task_that_was_changed_are_set_aside(tmp_path: Path) -> None:
    first = studies.parse(with_change(task=OWN_TASK), where="own.yaml")
    second = studies.parse(with_change(task={**OWN_TASK, "question": "Is it so?"}), where="own.yaml")
    execute(House(passing=("once",)), tmp_path, first)
    house = House(passing=("once",))
    execute(house, tmp_path, second)
    assert house.ran == ["load", "behavior", "probing", "context_flow", "report"]
    assert len(list((tmp_path / "earlier").glob("*.nc"))) == 3


def test_a_rung_is_described_by_its_own_task_even_under_the_name_of_a_bundled_one(tmp_path: Path) -> None:
    rung = {**OWN_TASK["rungs"][0], "name": "recall"}  # type: ignore[index]
    own = {**OWN_TASK, "name": "color-noun", "rungs": [rung]}
    house = House()
    execute(house, tmp_path, studies.parse(with_change(task=own), where="own.yaml"))
    assert house.given["descriptions"] == {"recall": "One colour."}


def test_the_manifest_says_what_ran_where_and_how_long(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    found = manifest(tmp_path)
    assert found["status"] == "done"
    assert found["command"] == "interp run small"
    assert found["model"]["dtype"] == "float32"
    assert set(found["versions"]) >= {
        "python",
        "interp",
        "torch",
        "transformers",
        "transformer-lens",
        "numpy",
    }
    assert set(found["timings"]) == {"load", "behavior", "probing", "context_flow", "report", "total"}
    assert found["peak_memory_bytes"] > 10_000_000
    assert found["drops"][0] == {"rung": "recall", **DROP}
    assert found["machine"].keys() == {"platform", "cpu_count"}


def test_behavior_sees_every_rung_and_the_rest_only_the_main_one(tmp_path: Path) -> None:
    house = House()
    execute(house, tmp_path)
    assert list(house.given["behavior"]) == ["recall", "repeated_frame", "two", "three"]
    assert house.given["probing"].rung == "two"
    assert set(house.given["context_flow"]) == {"behavior", "probing"}


def test_the_highest_passing_rung_is_explained_when_the_main_one_fails(tmp_path: Path) -> None:
    house = House(passing=("recall", "repeated_frame"))
    execute(house, tmp_path)
    assert house.given["probing"].rung == "repeated_frame"
    assert manifest(tmp_path)["explained_rung"] == "repeated_frame"


def test_a_higher_rung_than_the_main_one_is_not_preferred(tmp_path: Path) -> None:
    house = House(passing=("two", "three"))
    execute(house, tmp_path)
    assert house.given["probing"].rung == "two"


def test_nothing_is_explained_when_no_rung_passes(tmp_path: Path) -> None:
    house = House(passing=())
    outcome = execute(house, tmp_path)
    assert house.ran == ["load", "behavior", "report"]
    assert manifest(tmp_path)["explained_rung"] is None
    assert outcome.answer == "No: double does no rung of color-noun (two fails: measured). So nothing is explained."


def test_a_study_without_a_verdict_says_which_rungs_the_model_does(tmp_path: Path) -> None:
    outcome = execute(House(), tmp_path, replace(SMALL, analyses={"behavior": {}}))
    assert outcome.answer == (
        "double does these rungs of color-noun: recall (says it: top token 90%, preferred 90%), "
        "two (says it: top token 90%, preferred 90%); fails: repeated_frame, three. The study asks for no verdict."
    )


def test_a_question_that_the_prompts_leave_no_room_for_is_left_out_with_its_reason(tmp_path: Path) -> None:
    house = House(failing="probing", failure=UnaskableError("Every prompt has the same noun."))
    said = Said()
    outcome = execute(house, tmp_path, said=said)
    assert outcome.answer == "The head looks. We are sure."
    assert "probing" not in manifest(tmp_path)["results"]
    assert manifest(tmp_path)["not_asked"] == {"probing": "Every prompt has the same noun."}
    assert manifest(tmp_path)["status"] == "done"
    assert "probing cannot be asked here: Every prompt has the same noun." in said.notes


def test_a_question_that_the_study_itself_asks_is_refused_where_there_is_no_room_for_it(tmp_path: Path) -> None:
    failure = UnaskableError("Every prompt has the same noun.", by=["n_folds"])
    asked = replace(SMALL, analyses={**SMALL.analyses, "probing": {"n_folds": 3}})
    with pytest.raises(InterpError) as refused:
        execute(House(failing="probing", failure=failure), tmp_path, asked)
    assert str(refused.value) == (
        "In analyses.probing (n_folds: 3): Every prompt has the same noun. Leave it out to run without."
    )
    by_default = UnaskableError("Every prompt has the same noun.", by=["target"])
    execute(House(failing="probing", failure=by_default), tmp_path, asked)
    assert "probing" in manifest(tmp_path)["not_asked"]


def test_the_gate_of_the_study_reaches_the_behavior_analysis(tmp_path: Path) -> None:
    house = House()
    execute(house, tmp_path, replace(SMALL, gate={"minimum_preferred": 0.95}))
    assert house.ran == ["load", "behavior", "report"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"analyses": {"behavior": {}, "probing": {"n_fold": 3}}},
            "'n_fold' in analyses.probing.*Did you mean 'n_folds'",
        ),
        ({"gate": {"minimum_prefered": 0.5}}, "'minimum_prefered' in gate.*Did you mean 'minimum_preferred'"),
    ],
)
def test_an_unknown_option_is_found_before_the_model_is_loaded(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    house = House()
    with pytest.raises(InterpError, match=words):
        execute(house, tmp_path / "run", replace(SMALL, **change))
    assert house.ran == []
    assert not (tmp_path / "run").exists()


def test_bad_input_found_while_loading_or_building_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InterpError, match="no model"):
        execute(House(), tmp_path / "run", replace(SMALL, model="absent"))
    everything = ("recall", "repeated_frame", "two", "three")
    with pytest.raises(InterpError, match="No rung of color-noun can be built with mini; recall: recall needs more"):
        execute(House(unbuildable=everything), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_found_before_anything_is_finished_takes_the_new_directory_away(tmp_path: Path) -> None:
    bad = House(failing="behavior", failure=InterpError("There is no role 'colour'."))
    with pytest.raises(InterpError, match="no role"):
        execute(bad, tmp_path / "reports" / "run")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_that_comes_to_light_late_keeps_what_is_finished(tmp_path: Path) -> None:
    bad = House(failing="context_flow", failure=InterpError("There is no role 'colour'."))
    with pytest.raises(InterpError, match="no role"):
        execute(bad, tmp_path)
    assert manifest(tmp_path)["status"] == "failed"
    again = House()
    execute(again, tmp_path)
    assert again.ran == ["load", "context_flow", "report"]


def test_bad_input_that_comes_to_light_late_leaves_an_earlier_runs_results(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    bad = House(failing="probing", failure=InterpError("There is no role 'colour'."))
    with pytest.raises(InterpError, match="no role"):
        execute(bad, tmp_path, replace(SMALL, analyses={**SMALL.analyses, "probing": {"n_folds": 2}}))
    assert manifest(tmp_path)["status"] == "failed"
    assert (tmp_path / "results" / "behavior.nc").is_file()


def test_a_rung_that_the_tokenizer_cannot_build_is_left_out_and_recorded(tmp_path: Path) -> None:
    house, said = House(unbuildable=("three",)), Said()
    execute(house, tmp_path, said=said)
    assert list(house.given["behavior"]) == ["recall", "repeated_frame", "two"]
    assert manifest(tmp_path)["skipped_rungs"] == {"three": "three needs more tokens."}
    assert said.notes == ["rung three left out: three needs more tokens."]


def test_an_analysis_with_a_further_result_file_writes_both(tmp_path: Path) -> None:
    house = House()
    study = replace(SMALL, analyses={"behavior": {}, "attention_lesson": {}})
    execute(house, tmp_path, study)
    assert house.ran == [
        "load",
        "behavior",
        "attention_lesson.run",
        "attention_lesson.patterns",
        "attention_lesson.vectors",
        "report",
    ]
    assert manifest(tmp_path)["results"]["attention_lesson"]["files"] == [
        "attention_lesson",
        "attention_patterns",
        "attention_vectors",
    ]
    again = House()
    execute(again, tmp_path, study)
    assert again.ran == ["load", "report"]


# --- resuming ---


def test_running_again_reuses_every_result(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    again, said = House(), Said()
    outcome = execute(again, tmp_path, said=said)
    assert again.ran == ["load", "report"]
    assert said.notes == [f"{name}: kept from an earlier run" for name in SMALL.analyses]
    assert outcome.answer == "The head looks. We are sure."


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("out of paper")])
def test_a_run_that_stopped_resumes_where_it_was(failure: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(failure)):
        execute(House(failing="context_flow", failure=failure), tmp_path)
    stopped = manifest(tmp_path)
    assert stopped["status"] == ("interrupted" if isinstance(failure, KeyboardInterrupt) else "failed")
    assert set(stopped["results"]) == {"behavior", "probing"}
    assert not (tmp_path / "report.html").exists()
    again = House()
    execute(again, tmp_path)
    assert again.ran == ["load", "context_flow", "report"]


def test_a_changed_option_computes_that_analysis_and_the_verdict_again(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    again = House()
    execute(again, tmp_path, replace(SMALL, analyses={**SMALL.analyses, "probing": {"n_folds": 3}}))
    assert again.ran == ["load", "probing", "context_flow", "report"]


def test_results_of_other_options_never_stand_beside_new_ones(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    other = replace(SMALL, analyses={**SMALL.analyses, "probing": {"n_folds": 3}})
    with pytest.raises(KeyboardInterrupt):
        execute(House(failing="probing", failure=KeyboardInterrupt()), tmp_path, other)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["behavior.nc"]
    assert not (tmp_path / "report.html").exists()


def test_what_is_no_longer_asked_for_is_set_aside_and_comes_back(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    said = Said()
    execute(House(), tmp_path, replace(SMALL, analyses={"behavior": {}}), said)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["behavior.nc"]
    assert [note.split(" is of ")[0] for note in said.notes[1:]] == ["probing.nc", "verdict.nc"]
    again = House()
    execute(again, tmp_path)
    assert again.ran == ["load", "report"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert list((tmp_path / "earlier").iterdir()) == []


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    execute(House(), tmp_path)
    (tmp_path / "results" / "probing.nc").write_bytes(b"half")
    again = House()
    execute(again, tmp_path)
    assert again.ran == ["load", "probing", "report"]


def test_other_code_is_another_key_and_what_it_replaces_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(House(), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "code_sha256", lambda: "changed")
        again = House()
        execute(again, tmp_path)
    assert again.ran == ["load", "behavior", "probing", "context_flow", "report"]
    back = House()
    execute(back, tmp_path)
    assert back.ran == ["load", "report"]


# --- where to write ---


def test_a_directory_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    house = House()
    for out in (file, file / "below"):
        with pytest.raises(InterpError, match=r"--out .* is a file|below cannot be written"):
            execute(house, out)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("mine")
    with pytest.raises(InterpError, match="not empty and holds no run"):
        execute(house, full)

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InterpError, match=r"cannot be written \(Permission denied\)"):
        execute(house, tmp_path / "new")
    assert house.ran == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_costly_model_is_explained_on_fewer_prompts_and_says_so(tmp_path: Path) -> None:
    house, said = House(afford=3), Said()
    execute(house, tmp_path / "run", replace(SMALL, n=9), said)
    assert len(house.given["behavior"]["two"]) == 9
    assert len(house.given["probing"]) == 3
    assert manifest(tmp_path / "run")["n_explained"] == 3
    assert "explaining 3 of 9 prompts, to bound the time; --n chooses the number" in said.notes


def test_every_prompt_is_explained_when_the_number_was_asked_for(tmp_path: Path) -> None:
    house = House(afford=3)
    execution.execute(
        replace(SMALL, n=9), tmp_path / "run", tools=house.tools(), watcher=Said(), command="interp", every_prompt=True
    )
    assert len(house.given["probing"]) == 9


def test_the_budget_leaves_a_small_model_alone_and_cuts_a_large_one(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(1, 60, (20, 8))
    pairs = PromptPairs.from_tokens(ids, np.roll(ids, 1, axis=1), correct=5, incorrect=9, roles={"color": 3})
    study = replace(SMALL, analyses={"behavior": {}, "activation_patching": {}, "head_attribution": {}})
    assert execution.affordable(study, gpt2, pairs) == 20
    patching, heads = (importlib.import_module(f"analyses.{name}") for name in list(study.analyses)[1:])
    cost = sum(plan.flop for plan in patching.planned(gpt2, pairs))
    swept = patching.run(gpt2, pairs)
    run_rows = sum(rows for name, rows in swept.attrs.items() if name.startswith("rows_run_"))
    all_rows = sum(rows for name, rows in swept.attrs.items() if name.startswith("rows_in_all_"))
    assert 0 < run_rows <= all_rows
    without_blocks(monkeypatch, gpt2, "hooks were asked for")
    through_hooks = sum(plan.flop for plan in patching.planned(gpt2, pairs))
    monkeypatch.undo()
    assert 0.1 * through_hooks < cost < through_hooks
    # By hand: 2 directions x 20 prompts x (3 sites x 2 roles + 8 positions + 4 heads x (5 sites + 2 roles)) rows in
    # each of 3 layers, which run 3, 2 and 1 layers of 8 tokens: two operations per weight, and attention. Rows of the
    # last layer that cannot matter are left out; four plain passes of each sweep and the unembedding come on top.
    one_layer = 8 * 2 * (4 * 32**2 + 2 * 32 * 128) + 4 * 32 * 8**2
    by_hand = 2 * 20 * (3 * 2 + 8 + 4 * (5 + 2)) * (3 + 2 + 1) * one_layer
    assert by_hand < through_hooks < 2 * by_hand
    both = cost + sum(plan.flop for plan in heads.planned(gpt2, pairs))
    monkeypatch.setattr(execution, "CPU_BUDGET", 0.55 * both)
    assert 9 <= execution.affordable(study, gpt2, pairs) <= 12  # planned on a few of them
    monkeypatch.setattr(execution, "CPU_BUDGET", both / 1000)
    assert execution.affordable(study, gpt2, pairs) == execution.FEWEST
