"""The mistakes of somebody who writes a first question: each is one line that says what, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyses.cli.main import main
from interp.model import HookedTransformer
from tests.doubles import refusal

NOUNS = "    noun: [cat, dog, bird, horse, car, hat, book, cup]\n"
COLORS = "    color: [black, white, red, blue, green, yellow]\n"
TEMPLATE = '      template: "I have a {color} {noun}. The {noun:asked} is"\n'
ANSWER = '      answer: " {color}"           # with the space before it\n'
QUOTES = "Put a text that holds a colon, braces, brackets or quotes in quotes, and close every quote."
NOT_YAML = "f.yaml is not valid YAML: "

MISTAKES = {
    # a misspelt key, at every level
    "a key of the study": ("analyses:\n", "analysis:\n", "Unknown key 'analysis' in f.yaml. Did you mean 'analyses'?"),
    "a key of the task": ("  lexicon:", "  lexcion:", "'lexcion' in the task of f.yaml. Did you mean 'lexicon'?"),
    "a key of a rung": (
        "      template:",
        "      templat:",
        "'templat' in rung 'one' of f.yaml. Did you mean 'template'",
    ),
    "a key of corrupted": ("{other:", "{ohter:", "'ohter' in corrupted of rung 'one' of f.yaml. Did you mean 'other'?"),
    "a key of the vocabulary": (
        "    readers:",
        "    reader:",
        "f.yaml: Unknown key 'reader' in vocabulary of the task.",
    ),
    "a key of the gate": (
        "  minimum_gap",
        "  minimum_gpa",
        "'minimum_gpa' in gate of f.yaml. Did you mean 'minimum_gap'?",
    ),
    "an analysis": ("  probing:", "  probign:", "Unknown analysis 'probign' in f.yaml. Did you mean 'probing'?"),
    "an option": (
        "  probing:",
        "  probing: {n_fold: 3}",
        "'n_fold' in analyses.probing of f.yaml. Did you mean 'n_folds'",
    ),
    "a role in an option": ("  probing:", "  probing: {target: colour}", "In analyses.probing of f.yaml: Unknown role"),
    "a word's language": (
        "      en: {color",
        "      fr: {color",
        "f.yaml: Unknown language 'fr' in words of vocabulary",
    ),
    "a role's words": (
        "en: {color:",
        "en: {colour:",
        "f.yaml: Unknown role 'colour' in words.en of the vocabulary. Did",
    ),
    # YAML
    "a tab": ("    color: [", "\tcolor: [", NOT_YAML + "line 31:", "Indent with spaces, not with tabs."),
    "no colon": ("  language: en", "  language en", NOT_YAML + "line 21: a key has no colon. Write it like title: "),
    "a colon in a text": ("Which colour does", "Which colour: does", NOT_YAML + "line 10:", QUOTES),
    "a quote left open": ("title: Which", 'title: "Which', NOT_YAML + "line 47:", QUOTES),
    "a template without quotes": (
        TEMPLATE,
        "      template: {color} {noun}. The {noun:asked} is\n",
        NOT_YAML + "line 47:",
        QUOTES,
    ),
    "a template that begins with one slot": (
        TEMPLATE,
        "      template: {noun} here. The {noun:asked} is\n",
        NOT_YAML + "line 47:",
        QUOTES,
    ),
    "an apostrophe in quotes": ("{en: the asked noun's colour}", "{en: 'the noun's colour'}", "line 75:", QUOTES),
    "uneven indents": ("    noun_other: [", "   noun_other: [", "line 34:", "Indent it like the lines beside it."),
    "a key twice": (
        "    source: color",
        "    source: noun\n    source: color",
        "line 70: the key 'source' is given twice",
    ),
    # what YAML takes for something else
    "a year": (
        "    noun: [cat,",
        "    noun: [1745,",
        "f.yaml: lexicon of noun holds 1745. Give words; quote true, false",
    ),
    "a number for a title": ("title: Which colour does the noun have?", "title: 1984", "not 1984. Put it in quotes."),
    "a number for a name": (
        "    - name: one",
        "    - name: 1",
        "f.yaml: name of a rung must be text, not 1. Put it in",
    ),
    "no, read as false": (
        "    noun: [cat,",
        "    noun: [no,",
        "line 33: 'no' without quotes is",
        "put the word in quotes.",
    ),
    "an empty value": ("    noun: [cat,", "    noun: [null,", "f.yaml: lexicon of noun holds None. Give words;"),
    "an answer without quotes": (ANSWER, "      answer: {color}\n", "answer of rung 'one' must be text", "in quotes."),
    # words and slots
    "a row of another length": (NOUNS, "    noun, verb: [[key, is], [keys]]\n", "Give rows of 2 words: [noun, verb]."),
    "a row that is no list": (
        NOUNS,
        "    noun, verb: [a key is]\n",
        "holds 'a key is'. Give rows of 2 words: [noun, verb]",
    ),
    "a slot not in the lexicon": (
        "I have a {color} {noun}",
        "I have a {color} {nuon}",
        "'nuon' in rung 'one' of f.yaml. Did you mean",
    ),
    "an answer not in the lexicon": (
        ANSWER,
        ANSWER.replace("color", "colour"),
        "slot 'colour' in rung 'one' of f.yaml.",
    ),
    "a slot without words": (NOUNS, "    noun: []\n", "f.yaml: lexicon of noun must be a list with at least one item."),
    "a word twice": (
        "    noun: [cat,",
        "    noun: [cat, cat,",
        "f.yaml: lexicon of noun holds 'cat' twice. Remove one.",
    ),
    "unbalanced braces": (
        "I have a {color} {noun}",
        "I have a {color {noun}",
        "f.yaml: rung 'one': Braces in template",
        "do not match",
    ),
    # what is corrupted
    "no answer": (ANSWER, "", "f.yaml: rung 'one' has no answer. Add it."),
    "no corrupted": ("      corrupted: {other: color}\n", "", "f.yaml: rung 'one' has no corrupted. Add it."),
    "clean is corrupted": (
        "{other: color}",
        "{copy: {color: color}}",
        "copy of rung 'one' gives 'color' the word that it",
    ),
    "one word to choose from": (
        COLORS,
        "    color: [red]\n",
        "takes another word of 'color', which has one only. Add words.",
    ),
    "the same answer": (
        "{other: color}",
        "{other: noun}",
        "the answer of rung 'one' stays the same in corrupted, which",
    ),
    # roles and rungs
    "a role of no template": (
        "roles: [color,",
        "roles: [nuon,",
        "Unknown role 'nuon' in rung 'two' of f.yaml. Did you mean",
    ),
    "a target of no template": (
        "    target: noun",
        "    target: nuon",
        "Unknown role 'nuon' in target of the vocabulary.",
    ),
    "a source that stays": (
        "    source: color",
        "    source: asked",
        "which corrupted of rung 'one' leaves as it is. Name a",
    ),
    "source is target": (
        "    target: noun",
        "    target: color",
        "f.yaml: The vocabulary has 'color' as source and as t",
    ),
    "two rungs of a name": (
        "    - name: two",
        "    - name: one",
        "f.yaml: two rungs share a name (one, one). Rename one.",
    ),
    "no main rung": ("      main: true\n", "", "f.yaml: exactly one rung must say main: true."),
    "an unknown rung": ("rungs: all", "rungs: [oen]", "Unknown rung 'oen' in f.yaml. Did you mean 'one'?"),
    # the study
    "no pairs": ("n: 24", "n: 0", "'n' in f.yaml must be a whole number of at least 1, not 0."),
    "a share in percent": (
        "preferred: 0.75",
        "preferred: 75",
        "In gate of f.yaml: minimum_preferred is 75. Give a share",
    ),
    "no behavior": ("  behavior:\n", "", "f.yaml must name the analysis 'behavior': without it nothing says"),
}
"""What is written, what is written instead, and the parts of the line that is said."""


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``interp new agreement`` writes; nothing can be loaded, and the file alone is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HookedTransformer, "from_pretrained", None)
    assert main(["new", "agreement"]) == 0
    capsys.readouterr()
    made = Path("agreement.yaml")
    text = made.read_text()
    made.unlink()
    return text


def refused(text: str, capsys: pytest.CaptureFixture[str], *further: str) -> str:
    """What both commands say of a file; they say the same, and leave nothing behind."""
    Path("f.yaml").write_text(text)
    said = {refusal(capsys, *command) for command in (["check", "f.yaml", *further], ["run", "f.yaml", "--quiet"])}
    assert [path.name for path in Path().iterdir()] == ["f.yaml"]
    (line,) = said
    assert "f.yaml" in line
    return line


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    name: str, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written, instead, *parts = MISTAKES[name]
    assert written in first
    line = refused(first.replace(written, instead, 1), capsys)
    for part in parts:
        assert part in line


def test_a_first_file_has_no_mistake(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.yaml").write_text(first)
    assert main(["check", "f.yaml", "--model", "mini"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lexicon", ["  lexicon:\n", "  lexicon: {}\n", ""])
def test_a_lexicon_without_words_is_one_line(lexicon: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    start, end = first.index("  lexicon:\n"), first.index("  # Rungs, from easy to hard.")
    line = refused(first[:start] + lexicon + first[end:], capsys)
    assert "f.yaml: the task has no lexicon, or an empty one. Give each slot its words: {noun: [cat, dog]}." in line


def test_a_path_of_nothing_is_one_line(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    start, end = first.index("task:\n"), first.index("# The least that is worth")
    line = refused(first[:start] + "task: mine.yaml\n" + first[end:], capsys)
    assert "No task file at mine.yaml, which f.yaml names: a path is relative to the study." in line


def test_an_answer_of_several_tokens_says_so_before_the_model_is_loaded(
    first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = first.replace("answer_policy: first_differing", "answer_policy: single")
    text = text.replace("[black, white, red, blue, green, yellow]", "[pitch black, snow white, blood red]")
    Path("f.yaml").write_text(text)
    line = refusal(capsys, "run", "f.yaml", "--quiet")
    assert line.startswith("interp: No rung of agreement can be built with mini; one: ")
    assert 'choose answer_policy="first_differing" or "sum_logprob", or a word of one token' in line
    assert main(["check", "f.yaml", "--model", "mini"]) == 2
    out, err = capsys.readouterr()
    assert err == "interp: No rung of agreement can be built with this tokenizer; the reasons are above.\n"
    assert "one: No pair of rung 'one' of task 'agreement' can be built" in out
    assert [path.name for path in Path().iterdir()] == ["f.yaml"]


def test_a_file_that_is_not_there_is_one_line(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no file absent.yaml. 'interp new NAME' writes a first one." in refusal(
        capsys, "check", "absent.yaml"
    )
    assert "No study file at absent.yaml." in refusal(capsys, "run", "absent.yaml")
    assert list(Path().iterdir()) == []


def test_words_that_leave_no_prompt_are_one_line(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    nouns = "[cat, dog, bird, horse, car, hat, book, cup]"
    Path("f.yaml").write_text(
        first.replace(f"noun: {nouns}", "noun: [cat]").replace(f"_other: {nouns}", "_other: [cat]")
    )
    said = refusal(capsys, "check", "f.yaml")
    assert said.startswith("interp: No prompt of rung 'two' of task 'agreement' can be made: The lexicon has too few")


def test_an_answer_that_makes_one_word_with_the_prompt_is_pointed_out(
    first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("f.yaml").write_text(first.replace(ANSWER, ANSWER.replace('" {', '"{')))
    assert main(["check", "f.yaml"]) == 0
    out = capsys.readouterr().out
    assert out.count("the answer makes one word with the prompt") == 1
    assert 'one: the answer makes one word with the prompt, "is' in out
