"""The vocabulary of a question: what is stated, what is derived, and that every study ends with a verdict."""

from __future__ import annotations

import ast
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analyses.cli import execution
from analyses.cli import study as studies
from interp import results, tasks
from interp.errors import InterpError
from interp.prompts import PromptPairs, vocabulary
from interp.prompts.vocabulary import NOTHING_STATED, OUTCOMES, Vocabulary
from tests.doubles import Said

REPOSITORY = Path(__file__).parents[2]
STUDIES = ("binding", "color-noun", "color-noun-es", "induction", "ioi")


def make_pairs(said: Vocabulary = NOTHING_STATED, **roles: Any) -> PromptPairs:
    """Three pairs of six tokens; tokens 1 and 3 differ in every pair, token 2 in the first only."""
    clean = np.arange(18).reshape(3, 6)
    corrupted = clean.copy()
    corrupted[:, [1, 3]] += 20
    corrupted[0, 2] += 20
    return PromptPairs.from_tokens(clean, corrupted, correct=5, incorrect=9, roles=roles, vocabulary=said)


# ---- what is derived ----


def test_the_source_is_the_first_role_that_differs_in_most_prompts() -> None:
    assert make_pairs(same=0, seldom=2, often=3, too=1).vocabulary.source == "often"
    assert make_pairs(same=0, seldom=2).vocabulary.source == "seldom"
    assert make_pairs(same=0).vocabulary.source is None
    assert make_pairs(span=np.array([[0, 2]] * 3)).vocabulary.source == "span"


def test_the_rest_is_derived_from_the_roles() -> None:
    found = make_pairs(word=1, other=0, after_word=2).vocabulary
    assert (found.target, found.readers) == ("answer", ("answer",))
    assert (found.meeting, found.distractors) == (("after_word",), ("other",))
    assert make_pairs().vocabulary == Vocabulary(target="answer", readers=("answer",), meeting=(), distractors=())


def test_what_is_stated_stays_and_the_source_is_never_the_target() -> None:
    said = Vocabulary(target="often", readers=("late",), distractors=())
    found = make_pairs(said, often=3, too=1, late=4).vocabulary
    assert (found.source, found.target, found.readers, found.distractors) == ("too", "often", ("late",), ())


def test_roles_that_pairs_no_longer_have_are_derived_again() -> None:
    pairs = make_pairs(Vocabulary(source="too", distractors=("same",)), often=3, too=1, same=0)
    found = pairs.keep_roles(["often"]).vocabulary
    assert (found.source, found.distractors) == ("often", ())
    assert pairs.vocabulary.source == "too"


# ---- where it travels ----


def test_pairs_carry_it_through_every_change() -> None:
    said = Vocabulary(source="too", words={"en": {"too": "the word"}})
    pairs = make_pairs(said, often=3, too=1)
    for changed in (pairs.select([2, 0]), pairs.spread(2), *pairs.expand_answers(), pairs.with_role_after("too")):
        assert (changed.stated, changed.vocabulary.source) == (said, "too")
    joined = PromptPairs.concat([pairs, make_pairs(Vocabulary(source="too"), often=3, too=1)])
    assert joined.stated == Vocabulary(source="too")
    assert Vocabulary.from_json(str(pairs.provenance()["vocabulary"])) == pairs.vocabulary


def test_the_fingerprint_of_the_prompts_does_not_depend_on_it() -> None:
    assert make_pairs(Vocabulary(source="too"), too=1).sha256() == make_pairs(too=1).sha256()


@pytest.mark.parametrize("name", tasks.names())
def test_bundled_vocabularies_survive_a_file_and_name_every_role_in_both_languages(name: str) -> None:
    task = tasks.load(name)
    assert Vocabulary.from_json(task.vocabulary.as_json()) == task.vocabulary
    for role in {role for rung in task.rungs for role in rung.roles}:
        for language in vocabulary.LANGUAGES:
            assert not task.vocabulary.name(role, language).startswith("'"), (role, language)
    assert {task.vocabulary.correct(language) for language in vocabulary.LANGUAGES} & {"the correct answer"} == set()


def test_a_damaged_vocabulary_of_a_result_is_one_line() -> None:
    for text in ("{", "[]", '{"source": 3}', '{"sourse": "a"}'):
        with pytest.raises(InterpError, match="vocabulary of a result"):
            Vocabulary.from_json(text)


# ---- words ----


def test_roles_are_named_in_words_or_by_their_own_name() -> None:
    said = Vocabulary(words={"en": {"subject": "the subject"}, "es": {"subject": "el sujeto"}})
    assert [said.name(role) for role in ("subject", "verb", "after_subject", "after_verb")] == [
        "the subject", "'verb'", "the token after the subject", "the token after 'verb'",
    ]  # fmt: skip
    assert said.name("subject", "es") == "el sujeto"
    assert said.name("after_verb", "es") == "el token que sigue a 'verb'"
    assert (said.name("answer"), said.correct("es")) == ("the answer position", "la respuesta correcta")


def test_source_and_target_meet_at_the_later_one_or_behind_it() -> None:
    said = Vocabulary(source="a", target="b", meeting=("after_a", "after_b", "stop"))
    assert said.places("b") == ("b", "after_b", "stop")
    assert said.places("a") == ("a", "after_a", "stop")


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "vocabulary of the task must be a mapping"),
        ({"sourse": "color"}, "Unknown key 'sourse' in vocabulary of the task. Did you mean 'source'?"),
        ({"source": 3}, "source of vocabulary of the task must be text, not 3"),
        ({"source": "colour"}, "Unknown role 'colour' in source of the vocabulary. Did you mean 'color'?"),
        ({"source": "noun", "target": "noun"}, "has 'noun' as source and as target. Name two roles"),
        ({"readers": "asked"}, "readers of vocabulary of the task must be a list of roles, not 'asked'"),
        ({"readers": ["asked", "asked"]}, "readers of the vocabulary has 'asked' twice. Remove one."),
        ({"meeting": ["stop"]}, "Unknown role 'stop' in meeting of the vocabulary."),
        ({"words": {"fr": {}}}, "Unknown language 'fr' in words of vocabulary of the task."),
        ({"words": {"en": {"nuon": "x"}}}, "Unknown role 'nuon' in words.en of the vocabulary. Did you mean 'noun'?"),
        ({"words": {"en": {"noun": " "}}}, "noun in words.en of vocabulary of the task must be text, not ' '"),
        ({"asked_for": "the colour"}, "asked_for of vocabulary of the task must be a mapping"),
    ],
)
def test_a_mistake_in_the_vocabulary_of_a_task_is_one_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InterpError) as error:
        tasks.load(write_task(tmp_path, content))
    assert message in str(error.value)
    assert "mine.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_source_that_one_rung_lacks_is_refused(tmp_path: Path) -> None:
    message = "mine.yaml: source of the vocabulary is 'place', a role that rung 'one' lacks."
    with pytest.raises(InterpError, match=re.escape(message)):
        tasks.load(write_task(tmp_path, {"source": "place"}))


def test_pairs_refuse_a_role_that_they_lack() -> None:
    with pytest.raises(InterpError, match=r"Unknown role 'tow' in source of the vocabulary\. Did you mean 'too'"):
        make_pairs(Vocabulary(source="tow"), too=1)


def write_task(folder: Path, said: Any) -> Path:
    """A task of two rungs, the second with a role more."""
    rung = {"answer": " {color}", "corrupted": {"other": "color"}, "description": "One."}
    content = {
        **{key: "mine" for key in ("name", "language", "title", "question", "source")},
        "lexicon": {"color": ["red", "blue"], "noun": ["cat", "dog"], "place": ["here", "there"]},
        "rungs": [
            {**rung, "name": "one", "main": True, "template": "The {noun} is {color}. The {noun:asked} is"},
            {**rung, "name": "two", "template": "The {noun} {place} is {color}. The {noun:asked} is"},
        ],
        "vocabulary": said,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_no_analysis_and_no_page_knows_the_words_of_a_task() -> None:
    """Docstrings may give them as examples; code may not."""
    roles = {role for name in ("binding", "color-noun") for rung in tasks.load(name).rungs for role in rung.roles}
    roles -= {"answer"}
    for folder in ("analyses", "interp/report", "interp/tasks", "interp/sweeps", "interp/attribution"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            found = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not found & roles, path


# ---- every study ends with a verdict ----


CHEAP = ("behavior", "activation_patching", "head_attribution", "probing", "logit_lens", "context_flow")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_bundled_study_ends_with_a_verdict(name: str, tmp_path: Path) -> None:
    """A few prompts and the cheap analyses: the roles of the study's own task are named in the answer."""
    assert name in studies.names()
    study = studies.with_overrides(studies.load(name), model="mini", n=10, seed=None)
    chosen = {key: options for key, options in study.analyses.items() if key in CHEAP}
    assert "context_flow" in chosen
    chosen["activation_patching"] = {"sites": ["z"]}
    outcome = execution.execute(
        replace(study, analyses=chosen), tmp_path, tools=execution.real_tools(), watcher=Said(), command="test"
    )
    made = json.loads((tmp_path / "manifest.json").read_text())
    verdict = results.load(tmp_path / "results" / "verdict.nc")
    said = tasks.load(name).vocabulary
    assert verdict.attrs["outcome"] in OUTCOMES
    assert said.correct(outcome.language) in outcome.answer
    assert said.name(str(said.source), outcome.language) in outcome.answer.lower()
    assert set(made["not_asked"]) == ({"probing"} if name == "induction" else set())
    for reason in made["not_asked"].values():
        assert reason.rstrip(".") in verdict.attrs["limits"]
        assert reason in html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
