"""Input files: what is meant is read; what is doubtful or hostile is one line, at once, before anything is computed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from analyses.cli import main as command
from analyses.cli import study as studies
from interp import _yaml, tasks
from interp.errors import LONGEST_MESSAGE, InterpError, shown, unknown_name
from tests.tiny_tokenizers import stand_in

BOMB = (
    "["
    + ", ".join(["&a0 [x, x, x, x, x, x, x, x, x]"] + [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)])
    + "]"
)
LONG = "&long " + "x" * 1000
MANY_LONG = f"[{LONG}, {', '.join(['*long'] * 2000)}]"

REFUSED: dict[str, tuple[str | bytes, str]] = {
    # twice
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
    "a nested key twice": ("a: {b: 1, b: 2}", "the key 'b' is given twice"),
    "a key twice in a list": ("a:\n- {b: 1, 'b': 2}", "line 2: the key 'b' is given twice"),
    "a key twice in what is merged": ("a:\n  <<: {b: 1, b: 2}", "line 2: the key 'b' is given twice"),
    "a long key twice": (f"{'k' * 500}: 1\n{'k' * 500}: 2", "is given twice"),
    "two merges": ("a:\n  <<: {b: 1}\n  <<: {c: 1}", "line 3: the key '<<' is given twice"),
    "a merge of text": ("a:\n  <<: text", "<< takes a mapping"),
    "a merge of a list of text": ("a:\n  <<: [text]", "<< takes a mapping"),
    "a merge of nothing": ("a:\n  <<:", "<< takes a mapping"),
    # keys
    "yes as a key": ("a: {yes: 1, true: 2}", "the key 'yes' is not text without quotes"),
    "true as a key": ("a: {true: 1}", "the key 'true' is not text without quotes"),
    "on as a key": ("on: 1", "the key 'on' is not text"),
    "1 as a key": ("a: {1: x, 1.0: y}", "the key '1' is not text"),
    "1.0 as a key": ("a: {1.0: y}", "the key '1.0' is not text"),
    "null as a key": ("a: {null: y}", "the key 'null' is not text"),
    "no key": ("a: {? : y}", "the key '' is not text"),
    "a date as a key": ("2020-01-02: x", "the key '2020-01-02' is not text"),
    "a list as a key": ("? [a, b]\n: c", "a key must be text"),
    "a mapping as a key": ("? {a: b}\n: c", "a key must be text"),
    "a tagged key": ("!!int x: c", "the key 'x' is not text"),
    "a NUL in a key": ('"a\\0b": 1', "control character"),
    # words that YAML takes for something else
    **{
        f"{word} without quotes": (f"a: [{word}]", f"line 1: '{word}' without quotes is a word in some versions")
        for word in ("yes", "no", "on", "off", "Yes", "NO", "On", "OFF")
    },
    **{
        f"the date {date}": (f"a: {date}", "without quotes is a date in YAML. Put it in quotes")
        for date in ("2024-01-31", "2024-13-45", "0000-00-00", "2024-01-31T10:00:00Z", "2024-1-1 1:2:3", "2024-02-30")
    },
    **{
        f"the number {number}": (f"a: {number}", "without quotes is a number in base 2, 8, 16 or 60")
        for number in ("010", "007", "0x1F", "0b101", "0o17", "1:30", "190:20:30", "12:30:45.5", "-0x10", "00", "08")
    },
    # numbers
    "5,000 digits": (f"a: {'9' * 5000}", "does not fit in 64 bits"),
    "5,000 digits below zero": (f"a: -{'9' * 5000}", "does not fit in 64 bits"),
    "5,000 digits and a point": (f"a: {'9' * 5000}.5", "is not a finite number"),
    "2**63": (f"a: {2**63}", "does not fit in 64 bits"),
    "20 digits with marks": ("a: 99_999_999_999_999_999_999", "does not fit in 64 bits"),
    "not a number": ("a: .nan", "'.nan' is not a finite number"),
    "infinity": ("a: .inf", "'.inf' is not a finite number"),
    "minus infinity": ("a: -.INF", "'-.INF' is not a finite number"),
    "too large a float": ("a: 1e400", "'1e400' is not a finite number"),
    "text tagged a number": ("a: !!int many", "'many'"),
    "text tagged a float": ("a: !!float many", "is no number"),
    "5,000 digits tagged": (f"a: !!int '{'9' * 5000}'", "does not fit in 64 bits"),
    "text tagged a flag": ("a: !!bool maybe", "'maybe'"),
    # tags
    **{
        f"the tag {tag}": (f"a: {tag}", "is not known here")
        for tag in (
            "!!python/object/apply:os.system ['true']",
            "!!python/name:os.system ''",
            "!!binary aGVsbG8=",
            "!!set {a, b}",
            "!!omap [a: b]",
            "!!timestamp 2024-01-01",
            "!own text",
            "!own {a: b}",
            "!own [a]",
            "!!map [a]",
            "!!seq {a: b}",
        )
    },
    # sizes
    "an alias bomb": (f"a: {BOMB}", "comes to more than 20,000 values"),
    "a bomb of long text": (f"a: {MANY_LONG}", "comes to more than 524,288 characters"),
    "a bomb of merges": (
        "a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}\n"
        + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)),
        "comes to more than 20,000 values",
    ),
    "a list that holds itself": ("a: &a [*a]", "holds itself"),
    "a mapping that holds itself": ("a: &a {b: *a}", "holds itself"),
    "a merge of itself": ("a: &a\n  <<: *a", "holds itself"),
    "two that hold themselves": ("a: &a [*a, *a, *a]", "holds itself"),
    "deep lists": ("a: " + "[" * 50_000, "nested more than 32 deep"),
    "deep mappings": ("a: " + "{a: " * 40_000, "nested more than 32 deep"),
    "deep lists in blocks": ("- " * 40_000, "nested more than 32 deep"),
    "deep keys": ("? " * 40_000, "nested more than 32 deep"),
    "many values": ("- x\n" * 30_000, "comes to more than 20,000 values"),
    "10 MB of text": ("a: " + "x" * 10_000_000, "holds 10,000,003 bytes, more than the 262,144 that are read"),
    "10 MB of zeros": (bytes(10_000_000), "holds 10,000,000 bytes"),
    # bytes
    "a NUL": (b"a: x\nb: y\0z", "line 2: it holds the control character U+0000"),
    "an escaped NUL": ('a: "x\\0y"', "control character"),
    "an escape": (b"a: \x1b[31m", "U+001B"),
    "an escaped escape": ('a: "\\e[31m"', "control character"),
    "a bell in a list": ('a: ["\\a"]', "control character"),
    "half of a character": ('a: "\\ud800"', "control character"),
    "a character beyond Unicode": ('a: "\\UFFFFFFFF"', "is not valid YAML"),
    "Latin-1": ("a: año".encode("latin-1"), "byte 4 is not UTF-8"),
    "UTF-16": ("a: x".encode("utf-16"), "byte 0 is not UTF-8"),
    "UTF-32": ("a: x".encode("utf-32"), "is not UTF-8"),
    # syntax
    "a tab": ("a:\n\tb: 1", "found character '\\t' that cannot start any token"),
    "an open list": ("a: [1,\nb: }", "line 2"),
    "an open quote": ('a: "x', "is not valid YAML: line 1"),
    "an unknown alias": ("a: *b", "found undefined alias"),
    "two documents": ("a: 1\n---\na: 2", "line 2"),
    "a bad escape": ('a: "\\q"', "is not valid YAML: line 1"),
    "an endless directive": (f"%YAML {'9' * 5000}.1\n---\na: 1", "is not valid YAML"),
    "two colons": ("a: b: c", "mapping values are not allowed here"),
    "an anchor twice": ("a: &x 1\nb: &x 2", "found duplicate anchor 'x'"),
}

READ: dict[str, tuple[str, Any]] = {
    "plain": ("a: 1\nb: [x, 'y', \"z\"]\nc: {d: 0.5}\n", {"a": 1, "b": ["x", "y", "z"], "c": {"d": 0.5}}),
    "a merge with an override": (
        "base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n",
        {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}},
    ),
    "an override before the merge": ("own: {y: 3, <<: {x: 1, y: 2}}", {"own": {"x": 1, "y": 3}}),
    "the first of several merges counts": ("a: {<<: [{x: 1}, {x: 2, y: 2}]}", {"a": {"x": 1, "y": 2}}),
    "merges of merges": (
        "a: &a {x: 1}\nb: &b {<<: *a, y: 1}\nc: {<<: *b, x: 2}",
        {
            "a": {"x": 1},
            "b": {"x": 1, "y": 1},
            "c": {"x": 2, "y": 1},
        },
    ),
    "quoted merge key": ("'<<': 1", {"<<": 1}),
    "aliases": ("a: &w [red, blue]\nb: *w", {"a": ["red", "blue"], "b": ["red", "blue"]}),
    "quoted words": (
        "a: ['no', \"yes\", 'on', '2024-01-01', '007', '1', 'null']",
        {
            "a": ["no", "yes", "on", "2024-01-01", "007", "1", "null"],
        },
    ),
    "quoted keys": ("{'yes': 1, '1': 2, '1.0': 3}", {"yes": 1, "1": 2, "1.0": 3}),
    "flags": ("[true, False, TRUE]", [True, False, True]),
    "nothing": ("[null, ~, ]\n", [None, None]),
    "whole numbers": ("[0, -1, +2, 1_000, 9223372036854775807]", [0, -1, 2, 1000, 2**63 - 1]),
    "floats": ("[0.5, .5, 1., 1e-3, 1.5E+2, -2.0, 1_000.5]", [0.5, 0.5, 1.0, 1e-3, 150.0, -2.0, 1000.5]),
    "words that are nearly numbers": (
        "[1a, e5, '.', -, 1.2.3, v0, y, n, N, 1 000]".replace("-,", "'-',"),
        [
            "1a",
            "e5",
            ".",
            "-",
            "1.2.3",
            "v0",
            "y",
            "n",
            "N",
            "1 000",
        ],
    ),
    "tagged text": ("[!!str no, !!str 1, !!int '3', !!float 1]", ["no", "1", 3, 1.0]),
    "a byte order mark": ("\ufeffa: 1", {"a": 1}),
    "windows lines": ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    "accents and scripts": ("año: [niño, 色, 😀]", {"año": ["niño", "色", "😀"]}),
    "lines and tabs in text": ('a: "x\\n\\ty"', {"a": "x\n\ty"}),
    "blocks": ("a: |\n  x\n  y\nb: >-\n  x\n  y\n", {"a": "x\ny\n", "b": "x y"}),
    "an empty file": ("", None),
    "only a comment": ("# nothing\n", None),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_line_at_once(text: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "in.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()
    with pytest.raises(InterpError) as caught:
        _yaml.read(path, "in.yaml")
    assert time.process_time() - started < 10, "seconds of this process, on the slowest machine"
    message = str(caught.value)
    assert words in message
    assert "in.yaml" in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(("text", "value"), READ.values(), ids=READ)
def test_what_is_meant_is_read(text: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.yaml"
    path.write_bytes(text.encode())
    found = _yaml.read(path, "in.yaml")
    assert found == value
    assert repr(found) == repr(value), "the same types"


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name, words in (
        ("pipe.yaml", "it is a named pipe, not a file"),
        ("folder.yaml", "it is a directory, not a file"),
        ("loop.yaml", "Too many levels of symbolic links"),
        ("zero.yaml", "it is a device, not a file"),
    ):
        for read in (studies.load, tasks.load):
            with pytest.raises(InterpError, match=f"Cannot read .*{name}: {words}"):
                read(tmp_path / name)


@pytest.mark.parametrize(
    "value",
    [
        "no",
        "yes",
        "2024-01-01",
        "1e-3",
        "007",
        "0x1F",
        "0o17",
        "1:30",
        "null",
        "",
        "<<",
        "~",
        "1",
        "a: b",
        "- x",
        "ñ\n😀",
    ],
)
def test_text_is_written_so_that_it_is_read_back(value: str) -> None:
    written = _yaml.dump({"key": value, "list": [value, value], "number": [1, 0.001, 1e300, True, None]})
    assert _yaml.parse(written, "x") == {
        "key": value,
        "list": [value, value],
        "number": [1, 0.001, 1e300, True, None],
    }


def test_the_bundled_files_mean_the_same_to_other_readers() -> None:
    files = [*studies.STUDIES.glob("*.yaml"), *Path(tasks.__file__).parent.glob("*.yaml")]
    assert len(files) > 6
    for path in files:
        assert _yaml.read(path, path.name) == yaml.safe_load(path.read_text(encoding="utf-8")), path.name


# Studies and tasks

STUDY = {"name": "s", "title": "t", "question": "q?", "task": "color-noun", "analyses": ["behavior"]}

STUDIES_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"a list as {key}": ({key: ["x"] * 10_000}, f"'{key}' in s.yaml must be")
        for key in ("name", "title", "question", "task", "model", "main_rung", "n", "seed", "gate")
    },
    "a seed of 64 bits": (
        {"seed": 2**63},
        "'seed' in s.yaml must be a whole number of at most 9,223,372,036,854,775,807",
    ),
    "a seed of 5,000 digits": ({"seed": 10**5000}, "'seed' in s.yaml must be a whole number of at most"),
    "a seed below zero": ({"seed": -1}, "'seed' in s.yaml must be a whole number of at least 0"),
    "a true seed": ({"seed": True}, "'seed' in s.yaml must be a whole number"),
    "endless pairs": ({"n": 10**12}, "'n' in s.yaml must be a whole number of at most 1,000,000"),
    "half a pair": ({"n": 0.5}, "'n' in s.yaml must be a whole number"),
    "a gate that is not a number": (
        {"gate": {"minimum_gap": float("nan")}},
        "'gate.minimum_gap' in s.yaml must be a finite",
    ),
    "an endless gate": ({"gate": {"minimum_gap": float("inf")}}, "must be a finite number, not inf"),
    "a true gate": ({"gate": {"minimum_gap": True}}, "must be a finite number, not True"),
    "a gate with a number for a key": ({"gate": {1: 1}}, "gate in s.yaml has the key 1"),
    "a NUL in the name": ({"name": "a\0b"}, "must be a name that a file can have"),
    "a NUL in the model": ({"model": "a\0b"}, "text without control characters"),
    "a long task": ({"task": "color-noun" * 20_000}, "Unknown task 'color-noun"),
    "a long rung": ({"rungs": ["two" * 50_000]}, "Unknown rung 'two"),
    "a long main rung": ({"main_rung": "two" * 50_000}, "Unknown rung 'two"),
    "a long analysis": ({"analyses": ["behavior" * 20_000]}, "Unknown analysis 'behavior"),
    "a long key": ({"k" * 100_000: 1}, "Unknown key 'kkk"),
    "rungs that are numbers": ({"rungs": [1, 2]}, "'rungs' in s.yaml must be"),
    "options that are a list": ({"analyses": {"behavior": [1] * 10_000}}, "must be a mapping of options"),
}


@pytest.mark.parametrize(("change", "words"), STUDIES_REFUSED.values(), ids=STUDIES_REFUSED)
def test_a_study_that_came_as_values_is_checked_likewise(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InterpError) as caught:
        studies.parse({**STUDY, **change}, where="s.yaml")
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 500


TASK = """\
name: mine
language: en
title: t
question: q?
source: me
lexicon:
  animal: [cat, dog, bird]
  adj: [big, small, red]
rungs:
  - name: one
    description: d
    main: true
    template: "The {animal} is {adj}. The {animal:asked} is"
    answer: " {adj}"
    corrupted: {other: adj}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  adj:", "  adj: [hot]\n  adj:", "line 9: the key 'adj' is given twice"),
        ("    answer:", "    template: x\n    answer:", "the key 'template' is given twice"),
        ("    corrupted: {other: adj}", "    corrupted: {other: adj, other: animal}", "the key 'other' is given twice"),
        ("title: t", "title: t\ntitle: u", "line 4: the key 'title' is given twice"),
        ("[cat, dog, bird]", "[cat, no, bird]", "'no' without quotes is a word in some versions"),
        ("[cat, dog, bird]", "[cat, 2, bird]", "lexicon of animal holds 2. Give words"),
        ("[cat, dog, bird]", f"[cat, {BOMB}]", "comes to more than 20,000 values"),
        ("[cat, dog, bird]", f"[cat, [{', '.join(['x'] * 5000)}]]", "lexicon of animal holds ['x', 'x', "),
        ("  adj:", "  1: [hot]\n  adj:", "the key '1' is not text"),
        ("title: t", f"title: [{', '.join(['x'] * 5000)}]", "title of the task must be text, not ['x', 'x', "),
        ("main: true", f"main: {'x' * 5000}", "main of rung 'one' must be true or false, not 'xxx"),
        (
            'template: "The {animal} is {adj}. The {animal:asked} is"',
            "template: 5",
            "template of rung 'one' must be text",
        ),
        ("corrupted: {other: adj}", "corrupted: {swap: [1, 2]}", "swap of rung 'one' holds 1"),
        ("corrupted: {other: adj}", "corrupted: {copy: {adj: 1}}", "adj of copy of rung 'one' must be text, not 1"),
        ("corrupted: {other: adj}", "corrupted: {other: adj}\n    roles: [adj, 3]", "roles of rung 'one' holds 3"),
        ("language: en", "language: no", "'no' without quotes"),
    ],
)
def test_a_task_file_is_refused_likewise(old: str, new: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert TASK.count(old) == 1
    path.write_text(TASK.replace(old, new))
    with pytest.raises(InterpError) as caught:
        tasks.load(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_task_file_may_merge_and_override(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    second = "  - <<: *one\n    name: second\n    main: false\n"
    path.write_text(TASK.replace("  - name: one", "  - &one\n    name: one") + second)
    assert [(rung.name, rung.main) for rung in tasks.load(path).rungs] == [("one", True), ("second", False)]


@pytest.mark.parametrize(
    "text",
    [
        f"name: {BOMB}",
        "name: a\nname: b",
        "title: 2024-13-45",
        f"seed: {'9' * 5000}",
        f"seed: {2**63}",
        'name: "a\\0b"',
        "a: " + "[" * 10_000,
        "gate: {yes: 1, true: 2}",
        "n: .nan",
    ],
)
def test_the_command_exits_with_2_and_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("\n".join([text, *(f"{k}: {v}" for k, v in STUDY.items() if f"{k}:" not in text)]))
    assert command.main(["run", "s.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert len(said.err) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"], "nothing was begun"


# Messages


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "'word'"),
        (3, "3"),
        (None, "None"),
        (["a", 1], "['a', 1]"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, ...]"),
        (10**5000, "a whole number of 5,001 digits or so"),
        ("two\nlines", "'two\\nlines'"),
    ],
    ids=["text", "number", "nothing", "list", "long list", "digits", "lines"],
)
def test_a_value_is_shown_in_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_no_value_is_shown_at_length() -> None:
    import numpy as np

    nested: Any = "x"
    for _ in range(60):
        nested = [nested] * 9  # 9**60 if it were written out
    values = ["x" * 10**6, {str(i): "y" * 100 for i in range(1000)}, nested, np.zeros((100, 100)), np.zeros(3), Wide()]
    for value in values:
        assert len(shown(value)) <= 300
        assert "\n" not in shown(value)
    assert shown([np.float64(0.5), np.int64(3), np.str_("q")]) == "[0.5, 3, 'q']"
    assert shown(np.zeros((100, 100))) == "ndarray of shape (100, 100)"
    assert len(str(unknown_name("site", "q" * 10**6, ["q", "k"]))) < 300


class Wide:
    def __repr__(self) -> str:
        return "wide\n" * 10**5


def test_a_message_is_one_line_that_can_be_read() -> None:
    error = InterpError("a\nb\r\nc " + "x" * 10**6 + " the end")
    assert len(str(error)) <= LONGEST_MESSAGE
    assert str(error).startswith("a b c xxx")
    assert str(error).endswith("the end")


def test_a_message_does_nothing_to_a_terminal() -> None:
    assert str(InterpError("a\0b\x1b[2Jc\x9bd\u202ee\ud800 año 色")) == r"a\x00b\x1b[2Jc\x9bd\u202ee\ud800 año 色"


def test_a_number_of_5_000_digits_is_shown_in_short_wherever_it_is_refused() -> None:
    from interp import stats
    from interp.attribution import Audit
    from interp.errors import whole_number

    huge = 10**5000
    for refuse in (
        lambda: whole_number(-huge, "n", least=1),
        lambda: stats.bootstrap_interval([1.0, 2.0], level=huge, seed=0),
        lambda: Audit(top_k=-huge),
        lambda: tasks.build("color-noun", tokenizer=stand_in(None, vocab=9), n=-huge),
    ):
        with pytest.raises(InterpError, match="a whole number of 5,001 digits or so"):
            refuse()
