"""Patterns and vectors in the page's block of data: what a browser reads back is what the results hold."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp.report import attention, inputs, verdict
from interp.report.inputs import RunInputs
from tests.report_fixture import MOVER, N_KEPT, READER, RunSpec, edit, only, write_run
from tests.tolerance import near

PATTERNS = only("attention_patterns", "attention_lesson", "attention_vectors", "verdict")
HALF = 0.005 + 1e-6
"""Weights are kept in hundredths."""


def read(directory: Path, spec: RunSpec = PATTERNS) -> RunInputs:
    return inputs.read(write_run(directory, spec))


def made(run: RunInputs) -> dict[str, Any]:
    return attention.block(run, verdict.of(run))


def inflated(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def prompts(block: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(inflated(block["prompts"]).tobytes())
    return found


def weight(block: dict[str, Any], prompt: int, head: str, dest: int, src: int) -> float:
    """One weight as the page's script finds it."""
    pairs = block["length"] * (block["length"] + 1) // 2
    at = block["heads"].index(head) * pairs + dest * (dest + 1) // 2 + src
    return float(inflated(block["weights"])[at * len(prompts(block)) + prompt]) / 100


def test_every_weight_is_found_where_the_script_looks_for_it(tmp_path: Path) -> None:
    run = read(tmp_path)
    block = made(run)["patterns"]
    pattern = run.files["attention_patterns"].data["pattern"].values
    assert len(prompts(block)) == N_KEPT
    assert len(block["heads"]) == block["n_heads"] == 12
    for prompt, layer, head, dest, src in ((0, 0, 0, 0, 0), (1, 2, 3, 12, 5), (0, *MOVER, 12, 5), (1, 1, 1, 7, 7)):
        found = weight(block, prompt, f"L{layer}H{head}", dest, src)
        near(np.array(found), pattern[prompt, layer, head, dest, src], HALF, why="hundredths")


def test_what_does_not_fit_is_left_out_the_named_heads_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read(tmp_path)
    size = run.files["attention_patterns"].data.sizes["src_position"]
    pairs = size * (size + 1) // 2
    monkeypatch.setattr(attention, "MOST_WEIGHTS", 12 * pairs)
    assert len(prompts(made(run)["patterns"])) == 1
    monkeypatch.setattr(attention, "MOST_WEIGHTS", 2 * pairs)
    block = made(run)["patterns"]
    assert block["heads"] == ["L{}H{}".format(*at) for at in (MOVER, READER)]
    assert (block["n_heads"], block["n_prompts"]) == (12, N_KEPT)
    near(np.array(weight(block, 0, "L1H2", 12, 5)), _pattern(run)[0, 1, 2, 12, 5], HALF, why="hundredths")


def _pattern(run: RunInputs) -> np.ndarray:
    return np.asarray(run.files["attention_patterns"].data["pattern"].values)


def test_vectors_are_stored_exactly_the_first_prompt_s_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read(tmp_path)
    data = run.files["attention_vectors"].data
    each = data.sizes["position"] * (3 * data.sizes["d_head"] + 3)
    monkeypatch.setattr(attention, "MOST_NUMBERS", 13 * each)
    block = made(run)["vectors"]
    assert [entry[0] for entry in block["entries"]] == [0] * 12 + [1]
    assert block["entries"][0] == [0, "L1H2"]  # the lesson's head
    raw = inflated(block["numbers"])
    numbers = raw.reshape(4, -1).T.copy().view("<f4").reshape(len(block["entries"]), -1)
    for (prompt, head), row in zip(block["entries"], numbers, strict=True):
        one = data.isel(prompt=prompt).sel(head_label=head)
        expected = np.concatenate([one[name].values.ravel() for name in ("q", "k", "v", *block["lengths"])])
        assert (row == expected.astype(np.float32)).all()


def test_the_lesson_starts_where_the_run_s_does_and_knows_the_question(tmp_path: Path) -> None:
    block = made(read(tmp_path))
    lesson = block["lesson"]
    assert (lesson["head"], lesson["source"], lesson["target"]) == ("L1H2", "color", "noun")
    assert prompts(block["patterns"])[0]["roles"]["noun"] == [13, 13]
    assert prompts(block["patterns"])[0]["tokens"][:2] == ["start", "I"]


def test_a_run_of_one_prompt_without_roles_as_older_versions_wrote_it_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, only("attention_patterns"))

    def older(data: xr.Dataset) -> xr.Dataset:
        one = data.drop_vars(["text", "role", "role_first", "role_last"]).isel(prompt=0, drop=True)
        return one.assign_attrs(data.attrs)

    new = made(inputs.read(tmp_path))["patterns"]
    edit(tmp_path, "attention_patterns", older)
    old = made(inputs.read(tmp_path))["patterns"]
    assert prompts(old) == [{**prompts(new)[0], "roles": {}}]
    near(np.array(weight(old, 0, "L1H2", 12, 5)), weight(new, 0, "L1H2", 12, 5), 0.0, why="the same byte")


def test_a_run_without_patterns_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert made(read(tmp_path, only("verdict"))) == {}
