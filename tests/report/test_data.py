"""The block of data that the page's scripts read: every method's numbers for a head, as the results have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interp import language
from interp.report import data, inputs, verdict
from interp.report.inputs import RunInputs
from tests.report_fixture import MOVER, RunSpec, only, write_run
from tests.tolerance import near

ROUNDED = 0.5 * 10**-data.DIGITS


def read(directory: Path, spec: RunSpec) -> RunInputs:
    return inputs.read(write_run(directory, spec))


def test_every_method_says_its_number_for_a_head(tmp_path: Path) -> None:
    run = read(tmp_path, only("activation_patching", "head_attribution", "verdict"))
    made = data.block(run, verdict.of(run))
    names = [measure["name"] for measure in made["measures"]]
    assert names[:2] == ["sufficient at all words", "needed at all words"]
    assert names[-1] == "direct contribution"
    head = made["heads"]["L{}H{}".format(*MOVER)]
    assert head["job"] == "mover"
    shown = dict(zip(names, head["values"], strict=True))
    # From the raw numbers: the ratio of means for patching, the plain mean over prompts for the rest.
    patching, attribution = run.files["activation_patching"].data, run.files["head_attribution"].data
    at = {"layer": MOVER[0], "head": MOVER[1]}
    clean, corrupted = (patching[name].values.mean() for name in ("clean", "corrupted"))
    patched = patching["patched_z"].isel(at).mean("prompt")
    enough = (patched.sel(direction="denoising").item() - corrupted) / (clean - corrupted)
    lost = 1 - (patched.sel(direction="noising").item() - corrupted) / (clean - corrupted)
    near(np.array([shown[name][0] for name in names[:2]]), [enough, lost], ROUNDED, why="rounded for the page")
    # Before them, as the answer says it: the verdict's own numbers at the word where the head acts.
    own = run.files["verdict"].data["recovered_z_noun"].sel(head_label="L{}H{}".format(*MOVER))
    assert [name for name, _ in head["acts"]] == ["sufficient at the noun", "needed at the noun"]
    at_noun = [own.sel(direction="denoising").item(), 1 - own.sel(direction="noising").item()]
    near(np.array([size[0] for _, size in head["acts"]]), at_noun, ROUNDED, why="rounded for the page")
    for kind in attribution["ablation"].values:
        mean = attribution["ablation_effect"].sel(ablation=kind).isel(at).values.mean()
        near(np.array(shown[f"{kind} ablation"][0]), mean, ROUNDED, why="rounded for the page")


def test_a_behaviour_that_is_not_there_is_not_explained_in_the_data_either(tmp_path: Path) -> None:
    run = read(tmp_path, RunSpec(gate_passed=False))
    made = data.block(run, verdict.of(run))
    assert (made["heads"], made["measures"]) == ({}, [])


def test_the_scripts_speak_the_language_of_the_page() -> None:
    with language.speaking("es"):
        assert data.words()["layer"] == "capa {layer}"
    assert data.words()["layer"] == "layer {layer}"
