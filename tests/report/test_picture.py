"""The first screen: its sentence, its numbers and its picture say what the results say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from interp.language import speaking
from interp.report import head, inputs, picture, verdict
from interp.report.arcs import THICKEST
from interp.report.blocks import Prompts
from interp.report.markup import figure_number, token
from interp.report.sections import behavior
from tests.report_fixture import MOVER, READER, RunSpec, edit, only, write_run
from tests.tolerance import near

NAMES = [f"L{layer}H{number}" for layer, number in (MOVER, READER)]


def run(
    directory: Path, spec: RunSpec | None = None, change: Callable[[xr.Dataset], xr.Dataset] | None = None
) -> inputs.RunInputs:
    write_run(directory, spec)
    if change is not None:
        edit(directory, "verdict", change)
    return inputs.read(directory)


def elsewhere(data: xr.Dataset) -> xr.Dataset:
    """The mover acts at the asked noun instead of at the noun."""
    here = data["head_label"].values.tolist().index(NAMES[0])
    data["recovered_z_asked"] = data["recovered_z_noun"].copy()
    data["recovered_z_asked_interval"] = data["recovered_z_noun_interval"].copy()
    data["recovered_z_noun"].values[:, :] = np.array([0.0, 1.0])[:, None]
    data["acts_at"].values[here] = "asked"
    data.attrs["meeting"] = "asked"
    return data


def drawn(found: inputs.RunInputs) -> str:
    return str(picture.picture(found))


def arcs(drawn: str) -> dict[str, float]:
    """Head -> width of its arc."""
    found = re.findall(r'class="arc" d="[^"]+" stroke-width="([\d.]+)"[^>]* data-head="(L\dH\d)"', drawn)
    return {name: float(width) for width, name in found}


def test_an_arc_is_as_thick_as_the_larger_effect_of_its_head(tmp_path: Path) -> None:
    found = run(tmp_path)
    results = found.files["verdict"].data
    widths = arcs(str(picture.picture(found)))
    assert sorted(widths) == sorted(NAMES)
    for name, role in zip(NAMES, ("noun", "answer"), strict=True):
        both = results[f"recovered_z_{role}"].sel(head_label=name).values
        near(widths[name], THICKEST * max(both[0], 1 - both[1]), 0.01, why="widths are printed with two decimals")


def test_the_place_that_gets_nothing_is_a_thin_line_with_its_number(tmp_path: Path) -> None:
    found = run(tmp_path, change=elsewhere)
    patching = found.files["activation_patching"].data.sel(direction="denoising", role="noun")
    moved = patching["patched_resid_pre"].values - patching["corrupted"].values[:, None]
    share = moved.mean(axis=0) / (patching["clean"] - patching["corrupted"]).values.mean()
    drawn = str(picture.picture(found))
    assert drawn.count('class="arc none"') == 1
    assert f">{figure_number(float(share.max()), 2)}</text>" in drawn
    assert 'class="arc none"' not in str(picture.picture(run(tmp_path / "with")))  # a head brings it there


def test_the_words_are_those_of_the_first_prompt_that_is_explained(tmp_path: Path) -> None:
    drawn = str(picture.picture(run(tmp_path)))
    assert 'class="word source"' in drawn
    words = re.findall(r'class="word[^"]*"[^>]*>([^<]*)<', drawn)
    assert [word for word in words if word in ("black", "cat", "is")] == ["black", "cat", "is"]
    assert "…" in words  # the prompt is long


@pytest.mark.parametrize("spec", [RunSpec(gate_passed=False), only("verdict"), only("behavior")])
def test_there_is_no_picture_of_what_is_not_explained_or_not_known(tmp_path: Path, spec: RunSpec) -> None:
    assert picture.picture(run(tmp_path, spec)) is None


def test_prompts_without_text_are_drawn_by_their_tokens(tmp_path: Path) -> None:
    write_run(tmp_path)
    edit(tmp_path, "behavior", lambda data: data.drop_vars(["role_start", "role_stop"]))

    def with_answer(data: xr.Dataset) -> xr.Dataset:
        at = np.tile([5, 12, 22], (data.sizes["prompt"], 1))
        bare = data.drop_vars(["role", "role_last"])
        return bare.assign_coords(role=["color", "noun", "answer"], role_last=(("prompt", "role"), at))

    edit(tmp_path, "attention_patterns", lambda data: data.drop_vars("role_first"))
    edit(tmp_path, "attention_patterns", with_answer)
    drawn = str(picture.picture(inputs.read(tmp_path)))
    assert token(" black") in drawn
    assert sorted(arcs(drawn)) == sorted(NAMES)
    edit(tmp_path, "attention_patterns", lambda data: data.drop_vars("role_last"))
    assert picture.picture(inputs.read(tmp_path)) is None


def test_the_first_screen_has_the_numbers_of_each_named_head_and_who_the_model_is(tmp_path: Path) -> None:
    found = run(tmp_path, change=elsewhere)
    first = head.of(found, verdict.of(found))
    level, accuracy, low, high = re.findall(r"\d+%", dict(first.numbers)["How sure"])
    assert level == "95%"
    assert dict(first.numbers)["How sure"].endswith(f"in {accuracy} [{low}, {high}].")
    n = found.files["behavior"].labels("rung_of").count(verdict.of(found).rung)
    assert first.words["picture"].endswith(f"Drawn: prompt 1 of {n}.")
    numbers = dict(first.numbers)
    results = found.files["verdict"].data
    enough, kept = results["recovered_z_answer"].sel(head_label=NAMES[1]).values
    assert numbers[NAMES[1]].startswith("reads it at the answer position, from the ")
    assert f"sufficient {figure_number(enough, 2)} [" in numbers[NAMES[1]]
    assert f"needed {figure_number(1 - kept, 2)} [" in numbers[NAMES[1]]
    assert numbers[NAMES[0]].startswith(
        "brings it from the colour to the asked noun; at the asked noun alone: sufficient "
    )
    assert "The noun" in numbers
    about = dict(first.about)
    assert "3 layers of 4 heads" in about["The model"]
    assert about["The model"].count("its start token before every text") == 1
    assert "says nothing about GPT-2" in about["The model"]


def test_a_head_that_looks_mostly_elsewhere_is_said_to(tmp_path: Path) -> None:
    def told(found: inputs.RunInputs) -> str:
        return dict(head.of(found, verdict.of(found)).numbers)[NAMES[0]]

    assert "of its attention" not in told(run(tmp_path))
    edit(tmp_path, "head_attribution", lambda data: data.assign(attention=data["attention"] * 0.2))
    found = inputs.read(tmp_path)
    looked = found.files["head_attribution"].data["attention"].sel(edge="noun<-color").mean("prompt").values[MOVER]
    assert told(found).endswith(f"; only {looked:.2f} of its attention is on the colour")
    assert sorted(arcs(drawn(found))) == sorted(NAMES)
    edit(tmp_path, "head_attribution", lambda data: data.assign(attention=data["attention"] * 0.2))
    found = inputs.read(tmp_path)
    assert "it hardly looks at the colour (0.0" in told(found)
    assert NAMES[0] not in arcs(drawn(found))
    caption = head.of(found, verdict.of(found)).words["picture"]
    assert f"Not drawn, since they hardly look at a word in question: {NAMES[0]}" in caption


def test_the_first_screen_counts_the_pairs_that_were_patched(tmp_path: Path) -> None:
    run(tmp_path, change=elsewhere)
    for name in ("head_attribution", "activation_patching"):
        edit(tmp_path, name, lambda data: data.isel(prompt=slice(2)))
    found = inputs.read(tmp_path)
    n = found.files["behavior"].labels("rung_of").count(verdict.of(found).rung)
    assert n > 2
    said = dict(head.of(found, verdict.of(found)).numbers)["How sure"]
    assert said.startswith(f"2 of {n} pairs of prompts (rung ")
    assert f"Of all {n} the model says" in said


def test_where_no_head_is_named_the_picture_says_so(tmp_path: Path) -> None:
    found = run(tmp_path, change=elsewhere)
    assert head.of(found, verdict.of(found)).words["picture"].startswith("An arc is what one head takes")
    edit(tmp_path, "verdict", lambda data: data.assign(label=data["label"].where(False, "none")))
    found = inputs.read(tmp_path)
    assert not picture.routes(found, verdict.of(found))
    caption = head.of(found, verdict.of(found)).words["picture"]
    assert caption.startswith("No head is drawn, since none was named. Thin and grey: next to nothing.")
    edit(tmp_path, "activation_patching", lambda data: data.drop_vars("recovered_resid_pre"))
    found = inputs.read(tmp_path)
    caption = head.of(found, verdict.of(found)).words["picture"]
    assert caption.startswith("No head is drawn, since none was named. Drawn: prompt 1 of ")


def test_another_model_is_not_said_to_be_made_for_this_package(tmp_path: Path) -> None:
    found = run(tmp_path, RunSpec(nasty=True))
    assert "GPT-2" not in dict(head.of(found, verdict.of(found)).about)["The model"]


def test_the_short_answer_comes_first_and_the_whole_one_is_kept(tmp_path: Path) -> None:
    found = run(tmp_path, change=lambda data: data.assign_attrs(answer_short="No: it goes round.", answer="A b. C d."))
    first = head.of(found, verdict.of(found))
    assert (first.answer, first.rest) == ("No: it goes round.", "A b. C d.")
    found = run(tmp_path / "older", change=lambda data: data.assign_attrs(answer="A b. C d."))
    first = head.of(found, verdict.of(found))
    assert (first.answer, first.rest) == ("A b.", "C d.")


def test_the_first_screen_in_spanish(tmp_path: Path) -> None:
    found = run(tmp_path)
    with speaking("es"):
        first = head.of(found, verdict.of(found))
    assert first.words["question"] == "La pregunta"
    assert "suficiente" in dict(first.numbers)[NAMES[0]]


def test_the_prompts_show_source_and_target_in_the_tones_of_the_picture(tmp_path: Path) -> None:
    run(tmp_path)
    edit(tmp_path, "behavior", lambda data: data.isel(role=slice(None, None, -1)))
    found = inputs.read(tmp_path)
    said = verdict.of(found)
    shown = behavior.prompts(found.files["behavior"], said)
    (block,) = (one for one in shown.blocks if isinstance(one, Prompts))
    tones = dict(block.roles)
    assert said.roles is not None
    assert (tones[said.roles.source], tones[said.roles.target]) == ("r1", "r2")  # as the classes source and target
    assert len(set(tones.values())) == len(tones)
    example, text = block.rungs[0].examples[0], found.files["behavior"].labels("text")
    words = {word.role: (word.text, word.tone) for word in example.clean if word.role}
    assert "".join(word.text for word in example.clean) in text
    assert words["color"] == ("black", "r1")
    assert words["noun"] == ("cat", "r2")
    unknown = dict(next(
        one for one in behavior.prompts(found.files["behavior"], replace(said, roles=None)).blocks
        if isinstance(one, Prompts)
    ).roles)  # fmt: skip
    assert list(unknown.values()) == sorted(unknown.values())
