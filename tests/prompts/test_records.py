"""Prompts from files: what is read, what is left out and why, and what ends the reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict

from analyses.cli.main import main
from interp import HookedTransformer, InterpError, PromptPairs, Template, tasks
from interp.prompts import read_pairs, read_prompts, records
from interp.prompts.tokens import encode

ANIMALS = [
    {"text": "The cat is black.", "label": "dark", "spans": {"noun": "cat", "color": "black"}},
    {"text": "The dog is white.", "label": "light", "spans": {"noun": [4, 7], "color": [11, 16]}},
    {"text": "A hat that was red is old.", "label": "light", "spans": {"noun": "hat", "color": "red"}},
]
PAIRS = [
    {
        "clean": f"The {noun} is {color}. The {noun} is",
        "corrupted": f"The {noun} is {other}. The {noun} is",
        "answer": f" {color}",
        "incorrect_answer": f" {other}",
        "spans": {"noun": [4, 4 + len(noun)], "color": color},
        "corrupted_spans": {"color": other},
        "kind": kind,
    }
    for noun, color, other, kind in (
        ("cat", "black", "white", "dark"),
        ("dog", "red", "blue", "bright"),
        ("hat", "white", "red", "light"),
        ("cup", "blue", "black", "bright"),
    )
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def by_characters(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with characters for every role, as a table of columns of one type needs them."""
    made = []
    for row in rows:
        text = f" {row['text']}"
        spans = {
            role: [text.index(f" {at}"), text.index(f" {at}") + len(at)] if isinstance(at, str) else at
            for role, at in row["spans"].items()
        }
        made.append({**row, "spans": spans})
    return made


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "data set", "split"])
def test_every_kind_of_file_gives_the_same_prompts(kind: str, mini: HookedTransformer, tmp_path: Path) -> None:
    rows, split = by_characters(ANIMALS), None
    if kind == "jsonl":
        path = lines(tmp_path / "a.jsonl", [*ANIMALS[:1], "\n", *ANIMALS[1:]])
    elif kind == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    else:
        path, split = tmp_path / "saved", "train" if kind == "split" else None
        made = Dataset.from_list(rows)
        (DatasetDict(train=made) if split else made).save_to_disk(str(path))
    found = read_prompts(path, mini, label="label", spans="spans", split=split)
    chars = [{role: tuple(at) for role, at in row["spans"].items()} for row in rows]
    expected = encode(mini, [row["text"] for row in rows], chars)
    assert found.prompts.sha256() == expected.sha256()
    assert found.prompts.texts == expected.texts
    assert found.prompts.tokens == expected.tokens
    for role in ("noun", "color"):
        np.testing.assert_array_equal(found.prompts.spans(role), expected.spans(role))
    assert found.labels is not None
    assert found.labels.tolist() == ["dark", "light", "light"]
    assert (found.rows.tolist(), found.drops, found.counts) == ([0, 1, 2], (), {})
    lean = read_prompts(path, mini, split=split, keep_texts=False).prompts
    assert (lean.texts, lean.tokens, dict(lean.roles)) == (None, None, {})
    assert lean.sha256() == expected.sha256()


def test_what_does_not_fit_is_left_out_with_reason_and_count(
    mini: HookedTransformer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cat = ANIMALS[0]
    rows = [
        cat,
        cat,
        {**cat, "spans": {"noun": "dog", "color": "black"}},
        {**cat, "text": "The cat is black, the black cat.", "spans": {"noun": [4, 7], "color": "black"}},
        {**cat, "spans": {"noun": "cat"}},
        {**cat, "spans": {"noun": "cat", "color": [11, 99]}},
        {**cat, "text": "The cat is black. " + "very " * 600},
        ANIMALS[1],
    ]
    found = read_prompts(lines(tmp_path / "a.jsonl", rows), mini, label="label", spans="spans")
    assert found.rows.tolist() == [0, 7]
    assert found.counts == {"duplicate": 1, "span": 4, "length": 1}
    assert [(drop.index, drop.kind) for drop in found.drops] == [
        (1, "duplicate"), (2, "span"), (3, "span"), (4, "span"), (5, "span"), (6, "length"),
    ]  # fmt: skip
    said = {drop.index: drop.reason for drop in found.drops}
    assert said[2] == "'dog' of role 'noun' is not in it"
    assert said[3] == "'black' of role 'color' stands in it 2 times; give characters"
    assert said[4] == "it has no role 'color'"
    assert said[5] == "characters 11 to 99 of role 'color' are outside its 17"
    assert "4 left out (span)" in caplog.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{\n", "line 3 of {file} is not JSON"),
        ("[1]\n", "line 3 of {file} is [1], not a record"),
        ({"txt": "a"}, "line 3 of {file} has no 'text'. Did you mean 'txt'?"),
        ({**ANIMALS[0], "text": 3}, "'text' in line 3 of {file} is 3, not text"),
        ({**ANIMALS[0], "label": 1.5}, "'label' in line 3 of {file} is 1.5. A label is text or a whole number"),
        ({**ANIMALS[0], "label": 1}, "'label' of {file} holds text and whole numbers"),
        ({**ANIMALS[0], "spans": [1]}, "'spans' in line 3 of {file} is [1], not a mapping"),
        (
            {**ANIMALS[0], "spans": {"noun": 4, "color": "black"}},
            "Role 'noun' in line 3 of {file} is 4. Give its words",
        ),
        ("x" * 300 + "\n", "line 3 of {file} holds more than 200 bytes"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(
    row: Any, words: str, mini: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST_LINE", 200)
    if isinstance(row, dict) and "text" in row:
        row = {**row, "text": row["text"] if row["text"] == 3 else "The cat is black now."}
    file = lines(tmp_path / "a.jsonl", [ANIMALS[1], "\n", row])
    with pytest.raises(InterpError) as said:
        read_prompts(file, mini, label="label", spans="spans")
    assert words.format(file=file) in str(said.value)
    assert "\n" not in str(said.value)


def test_files_that_are_none_are_refused(mini: HookedTransformer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not at all")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "folder").mkdir()
    DatasetDict(train=Dataset.from_list([{"text": "a"}])).save_to_disk(str(tmp_path / "saved"))
    for name, words in {
        "none.jsonl": "There is no file",
        "a.csv": "is no file of prompts that is known here",
        "a.parquet": "cannot be read as Parquet",
        "empty.jsonl": "It is empty",
        "folder": "is no data set",
        "saved": "has the splits train. Name one: split='train'",
    }.items():
        with pytest.raises(InterpError, match=words) as said:
            read_prompts(tmp_path / name, mini)
        assert "\n" not in str(said.value)


def test_a_file_is_read_in_pieces(mini: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"The cat is {number}."} for number in range(50)]
    whole = read_prompts(lines(tmp_path / "a.jsonl", rows), mini).prompts
    held, real = [], records.encode_plain
    monkeypatch.setattr(records, "AT_ONCE", 7)
    monkeypatch.setattr(records, "encode_plain", lambda model, texts: held.append(len(texts)) or real(model, texts))
    assert read_prompts(tmp_path / "a.jsonl", mini).prompts.sha256() == whole.sha256()
    assert held == [7] * 7 + [1]


def test_pairs_of_a_file_are_those_of_the_template(mini: HookedTransformer, tmp_path: Path) -> None:
    found = read_pairs(lines(tmp_path / "a.jsonl", PAIRS), mini, labels=["kind"], name="mine")
    expected = PromptPairs.from_template(
        Template("The {noun} is {color}. The {noun:again} is", answer=" {color}"),
        clean=[{"noun": row["clean"].split()[1], "color": row["answer"].strip()} for row in PAIRS],
        corrupted=[{"noun": row["clean"].split()[1], "color": row["incorrect_answer"].strip()} for row in PAIRS],
        tokenizer=mini,
    )
    assert found.clean.sha256() == expected.clean.sha256()
    assert found.corrupted.sha256() == expected.corrupted.sha256()
    for role in ("noun", "color", "answer"):
        np.testing.assert_array_equal(found.clean.spans(role), expected.clean.spans(role))
        np.testing.assert_array_equal(found.corrupted.spans(role), expected.corrupted.spans(role))
    np.testing.assert_array_equal(found.correct, expected.correct)
    np.testing.assert_array_equal(found.incorrect, expected.incorrect)
    assert [slots["kind"] for slots in found.slots] == [row["kind"] for row in PAIRS]
    assert found.vocabulary.source == "color"
    longer = {**PAIRS[0], "corrupted": PAIRS[0]["corrupted"].replace("white", "white and white"),
              "corrupted_spans": {"color": [11, 16]}}  # fmt: skip
    mixed = read_pairs(lines(tmp_path / "b.jsonl", [PAIRS[0], longer, PAIRS[0], *PAIRS[1:]]), mini, n=9)
    assert len(mixed) == 4
    assert [(drop.index, drop.kind) for drop in mixed.drops] == [(2, "duplicate"), (1, "length"), (-1, "shortfall")]
    assert len(read_pairs(tmp_path / "b.jsonl", mini, n=2)) == 2


def test_a_task_reads_its_pairs_from_a_file(
    mini: HookedTransformer, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path / "pairs.jsonl", [{**row, "prompt": row["clean"]} for row in PAIRS])
    rung = {
        "name": "mine", "description": "Colours from a file.", "main": True, "file": "pairs.jsonl",
        "roles": ["noun", "color"], "labels": ["kind"], "columns": {"clean": "prompt"},
    }  # fmt: skip
    task = {
        "name": "from-a-file", "language": "en", "title": "From a file", "question": "Does it read files?",
        "source": "none", "kind": "file", "rungs": [rung], "vocabulary": {"source": "color"},
    }  # fmt: skip
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    pairs = tasks.build(tmp_path / "task.yaml", tokenizer=mini, n=4)
    assert (len(pairs), pairs.task, pairs.name, pairs.vocabulary.source) == (4, "from-a-file", "mine", "color")
    assert tasks.load(tmp_path / "task.yaml").main.slots == ("kind",)
    study = {"name": "filed", "title": "t", "question": "q", "task": "task.yaml", "n": 4, "analyses": ["behavior"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path.parent)
    for asked in (["check", str(tmp_path / "study.yaml")], ["show", str(tmp_path / "task.yaml")]):
        assert main(asked) == 0
    assert f"Its pairs are in {tmp_path / 'pairs.jsonl'}" in capsys.readouterr().out
    for change, words in (
        ({"file": None}, "file of rung 'mine' must be text"),
        ({"columns": {"cleann": "x"}}, "Unknown column 'cleann'"),
        ({"roles": ["verb"]}, "it has no role 'verb'"),
    ):
        (tmp_path / "task.yaml").write_text(yaml.safe_dump({**task, "rungs": [{**rung, **change}], "vocabulary": {}}))
        with pytest.raises(InterpError, match=words):
            tasks.build(tmp_path / "task.yaml", tokenizer=mini, n=4)
