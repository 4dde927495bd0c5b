"""The JSON schemas that editors are given: they take every right file, and refuse what the parsers refuse.

What joins one part of a file to another no schema can say; ``ONLY_THE_PARSER`` is the list of it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from analyses.cli import questions, schema
from analyses.cli import study as studies
from analyses.cli.main import main
from interp import tasks
from interp.errors import InterpError
from tests.doubles import refusal

FIRST = yaml.safe_load(questions.FIRST_FILE.read_text(encoding="utf-8").format(name="mine"))
TASKS = {name: tasks.content(name) for name in tasks.names()}
STUDIES = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in studies.STUDIES.glob("*.yaml")}

ONLY_THE_PARSER = (
    r"Unknown (slot|role|rung|column to keep|main rung) ",
    r"two rungs share a name",
    r"main_rung .* is not among its rungs",
    r"a role that rung .* lacks",
    r"has .* as source and as target",
    r"has no word in braces that all its templates share",
    r"Give rows of \d+ words",
    r"holds '.*' twice in its first column|lexicon has the slot '.*' twice",
    r"(Braces|Slot|Template|template|Role) .*",
    r"No task file at |Cannot read ",
    r"Unknown task .* is the path of its .yaml file",
    r"gives '.*' the word that it has|takes another word of '.*', which has one only",
    r"the answer of rung '.*' stays the same in corrupted|which corrupted of rung '.*' leaves as it is",
)
"""What is wrong with a file that only the parser can know, as its messages begin."""


@cache
def validator(what: str) -> Draft202012Validator:
    return Draft202012Validator(schema.SCHEMAS[what]())


def right(what: str, content: object) -> bool:
    return bool(validator(what).is_valid(content))


def refused(what: str, content: object) -> str:
    """What the parser says of a file; empty if it takes it."""
    try:
        if what == "task":
            tasks.parse_task(content, "mine.yaml")
        else:
            studies.parse(content, where="mine.yaml").check_options()
    except InterpError as error:
        return str(error)
    return ""


# --- right files ---


def test_a_metric_with_settings_is_right() -> None:
    settings = {"projection": {"layer": 2, "at": "noun", "site": "z", "head": 1, "direction": [1.0, 0]}}
    for metric in ("kl", settings, {"projection": {"layer": 2, "at": 5, "head": None, "direction": "means"}}):
        content = measured_by(metric)
        assert list(validator("study").iter_errors(content)) == []
        assert refused("study", content) == ""


@pytest.mark.parametrize("what", ["study", "task"])
def test_the_command_prints_a_schema_that_is_one(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", what]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema.SCHEMAS[what]()
    Draft202012Validator.check_schema(printed)


def test_there_is_no_other_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument what: invalid choice: 'tasks'" in refusal(capsys, "schema", "tasks")


@pytest.mark.parametrize("name", TASKS)
def test_every_bundled_task_is_right(name: str) -> None:
    assert list(validator("task").iter_errors(TASKS[name])) == []


@pytest.mark.parametrize("name", STUDIES)
def test_every_bundled_study_is_right_as_it_is_and_as_a_run_keeps_it(name: str) -> None:
    assert list(validator("study").iter_errors(STUDIES[name])) == []
    assert right("study", studies.load(name).as_dict())
    assert right("study", {**STUDIES[name], "task": TASKS[STUDIES[name]["task"]]})


def test_a_new_question_is_right() -> None:
    assert list(validator("study").iter_errors(FIRST)) == []
    assert right("task", FIRST["task"])


def test_every_key_has_a_meaning() -> None:
    def lacking(part: Any, where: str = "") -> Iterator[str]:
        if isinstance(part, dict):
            for name, held in part.get("properties", {}).items():
                if part.get("additionalProperties") is False and "description" not in held:
                    yield f"{where}/{name}"
            for key, held in part.items():
                yield from lacking(held, f"{where}/{key}")
        elif isinstance(part, list):
            for held in part:
                yield from lacking(held, where)

    named_by_others = re.compile(r"/(en|es)$|^/properties/analyses/")
    for what in ("study", "task"):
        assert [name for name in lacking(schema.SCHEMAS[what]()) if not named_by_others.search(name)] == []


# --- wrong files ---


def changed(content: Any, *path: str | int, to: Any = ...) -> Any:
    """A copy with another value at a path; without a value, with nothing there."""
    made = copy.deepcopy(content)
    at = made
    for step in path[:-1]:
        at = at[step]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return made


RUNG = ("rungs", 0)
WRONG_TASKS = {
    "an unknown key": changed(FIRST["task"], "langauge", to="en"),
    "no title": changed(FIRST["task"], "title"),
    "a title that is a number": changed(FIRST["task"], "title", to=3),
    "a blank question": changed(FIRST["task"], "question", to=" "),
    "an unknown kind": changed(FIRST["task"], "kind", to="word"),
    "an unknown policy": changed(FIRST["task"], "answer_policy", to="sum"),
    "no rung": changed(FIRST["task"], "rungs", to=[]),
    "no main rung": changed(FIRST["task"], "rungs", 1, "main", to=False),
    "two main rungs": changed(FIRST["task"], "rungs", 0, "main", to=True),
    "main is a word": changed(FIRST["task"], *RUNG, "main", to="yes"),
    "a lexicon that is a list": changed(FIRST["task"], "lexicon", to=["red"]),
    "a slot without words": changed(FIRST["task"], "lexicon", "color", to=[]),
    "a word that is true": changed(FIRST["task"], "lexicon", "color", 0, to=True),
    "a word with a space at its end": changed(FIRST["task"], "lexicon", "color", 0, to="red "),
    "a word twice": changed(FIRST["task"], "lexicon", "color", to=["red", "red"]),
    "a row that is a word": changed(TASKS["agreement"], "lexicon", "noun, verb", to=["key"]),
    "a rung with an unknown key": changed(FIRST["task"], *RUNG, "tempalte", to="x"),
    "a rung without an answer": changed(FIRST["task"], *RUNG, "answer"),
    "a rung without a template": changed(FIRST["task"], *RUNG, "template"),
    "a rung with both": changed(FIRST["task"], *RUNG, "templates", to={"first": "x"}),
    "no templates": changed(FIRST["task"], "rungs", 1, "templates", to={}),
    "no way to corrupt": changed(FIRST["task"], *RUNG, "corrupted", to={}),
    "two ways to corrupt": changed(FIRST["task"], *RUNG, "corrupted", to={"other": "color", "swap": ["color", "noun"]}),
    "keep alone": changed(FIRST["task"], *RUNG, "corrupted", to={"keep": "color"}),
    "keep with swap": changed(FIRST["task"], *RUNG, "corrupted", to={"swap": ["color", "noun"], "keep": "noun"}),
    "one slot to swap": changed(FIRST["task"], *RUNG, "corrupted", to={"swap": ["color"]}),
    "a slot to swap with itself": changed(FIRST["task"], *RUNG, "corrupted", to={"swap": ["color", "color"]}),
    "nothing to copy": changed(FIRST["task"], *RUNG, "corrupted", to={"copy": {}}),
    "no roles": changed(FIRST["task"], *RUNG, "roles", to=[]),
    "a block of one": changed(TASKS["induction"], *RUNG, "block", to=1),
    "a block that is true": changed(TASKS["induction"], *RUNG, "block", to=True),
    "random tokens with words": changed(TASKS["induction"], "lexicon", to={"color": ["red"]}),
    "random tokens with a template": changed(TASKS["induction"], *RUNG, "template", to="x"),
    "words with a block": changed(FIRST["task"], *RUNG, "block", to=8),
    "a vocabulary that is a list": changed(FIRST["task"], "vocabulary", to=[]),
    "a vocabulary with an unknown key": changed(FIRST["task"], "vocabulary", "sourse", to="color"),
    "readers that are a word": changed(FIRST["task"], "vocabulary", "readers", to="asked"),
    "a reader twice": changed(FIRST["task"], "vocabulary", "readers", to=["asked", "asked"]),
    "words in another language": changed(FIRST["task"], "vocabulary", "words", to={"fr": {}}),
    "blank words": changed(FIRST["task"], "vocabulary", "words", "en", "noun", to=" "),
}


def measured_by(metric: object) -> Any:
    """The first study, patched with a metric."""
    return changed(FIRST, "analyses", "activation_patching", to={"metric": metric})


WRONG_STUDIES = {
    "no mapping": ["name"],
    "an unknown key": changed(FIRST, "modle", to="mini"),
    "no task": changed(FIRST, "task"),
    "a name that no file can have": changed(FIRST, "name", to="a/b"),
    "a name with a full stop at its end": changed(FIRST, "name", to="mine."),
    "n is text": changed(FIRST, "n", to="many"),
    "n is true": changed(FIRST, "n", to=True),
    "no pairs": changed(FIRST, "n", to=0),
    "too many pairs": changed(FIRST, "n", to=10**7),
    "a negative seed": changed(FIRST, "seed", to=-1),
    "a title that is a list": changed(FIRST, "title", to=["a"]),
    "an unknown task": changed(FIRST, "task", to="colour-noun"),
    "a task with a mistake": changed(FIRST, "task", "langauge", to="en"),
    "rungs that are a word": changed(FIRST, "rungs", to="most"),
    "no rungs": changed(FIRST, "rungs", to=[]),
    "an unknown analysis": changed(FIRST, "analyses", to=["behavior", "probbing"]),
    "analyses without behavior": changed(FIRST, "analyses", "behavior"),
    "a list without behavior": changed(FIRST, "analyses", to=["probing"]),
    "no analyses": changed(FIRST, "analyses", to={}),
    "options that are a list": changed(FIRST, "analyses", "probing", to=[1]),
    "a gate that is a number": changed(FIRST, "gate", to=0.5),
    "a gate with an unknown key": changed(FIRST, "gate", to={"minimum_prefered": 0.5}),
    "a gate of more than all": changed(FIRST, "gate", to={"minimum_preferred": 1.5}),
    "an unknown option": changed(FIRST, "analyses", "probing", to={"n_fold": 3}),
    "an option of another kind": changed(FIRST, "analyses", "probing", to={"n_folds": "three"}),
    "an option out of range": changed(FIRST, "analyses", "probing", to={"n_folds": 1}),
    "a metric with settings it has not": measured_by({"kl": {}}),
    "a projection without a place": measured_by({"projection": {"layer": 2}}),
    "a projection of a layer below 0": measured_by({"projection": {"layer": -1, "at": "noun"}}),
    "a projection with an unknown setting": measured_by({"projection": {"layer": 2, "at": "noun", "sight": "z"}}),
}
WRONG = [
    *(pytest.param("task", content, id=f"task: {what}") for what, content in WRONG_TASKS.items()),
    *(pytest.param("study", content, id=f"study: {what}") for what, content in WRONG_STUDIES.items()),
]


@pytest.mark.parametrize(("what", "content"), WRONG)
def test_a_wrong_file_is_refused_by_both(what: str, content: object) -> None:
    assert not right(what, content)
    assert refused(what, content)


# --- any change of a file ---

ODD: tuple[Any, ...] = (None, True, -1, 0, 2.5, 10**7, "", " ", "x", [], ["x"], ["x", "x"], {}, {"x": "y"}, [[]])


def places(content: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in a file; of a list its first two items."""
    steps = (
        list(content) if isinstance(content, dict) else range(min(2, len(content) if isinstance(content, list) else 0))
    )
    for step in steps:
        yield (*path, step)
        yield from places(content[step], (*path, step))


def changes(content: Any) -> Iterator[tuple[str, Any]]:
    """Every value of a file left out, under another key, and replaced by something odd."""
    for path in places(content):
        where = "/".join(map(str, path))
        yield f"{where} left out", changed(content, *path)
        if isinstance(path[-1], str):
            value = content
            for step in path:
                value = value[step]
            yield f"{where} misspelt", changed(changed(content, *path), *path[:-1], f"{path[-1]}x", to=value)
        for odd in ODD:
            yield f"{where} is {odd!r}", changed(content, *path, to=copy.deepcopy(odd))


FILES: dict[str, Callable[[], tuple[str, Any]]] = {
    "a first question": lambda: ("study", FIRST),
    "agreement": lambda: ("task", TASKS["agreement"]),
    "greater-than": lambda: ("task", TASKS["greater-than"]),
    "induction": lambda: ("task", TASKS["induction"]),
    "ioi": lambda: ("task", TASKS["ioi"]),
    "color-noun": lambda: ("study", STUDIES["color-noun"]),
}


@pytest.mark.parametrize(
    ("file", "every"),
    [("a first question", 4), *(pytest.param(file, 5, marks=pytest.mark.slow) for file in FILES)],
)
def test_schema_and_parser_agree_on_any_change_of_a_file(file: str, every: int) -> None:
    what, content = FILES[file]()
    for change, mutant in islice(changes(content), 0, None, every):
        said = refused(what, mutant)
        if not right(what, mutant):
            assert said, f"{change}: the parser takes what the schema refuses"
        elif said:
            assert any(re.search(words, said) for words in ONLY_THE_PARSER), f"{change}: only the parser says {said}"
