"""Runs beside each other: the numbers are the runs' own, and their differences have intervals of their own."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analyses.cli.main import main
from interp import results
from interp.circuits import discover
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.report.comparison import Comparison, compare
from interp.report.comparison.table import Part, Row, Value
from tests.circuits.planted import planted, planted_pairs
from tests.report_fixture import MOVER, RunSpec, edit, only, write_run
from tests.tolerance import close, near

NAMES = ("behavior", "activation_patching", "verdict", "probing")


def run(place: Path, spec: RunSpec | None = None) -> Path:
    """A run of few results, of whose patching two sites are kept."""
    spec = spec or only(*NAMES)
    write_run(place, spec)
    if "activation_patching" not in spec.missing:
        (place / "results" / "activation_patching.nc").write_bytes(_patching(spec))
    return place


@cache
def _patching(spec: RunSpec) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        write_run(Path(place), replace(spec, missing=only("activation_patching").missing))
        kept = [f"{what}_{site}" for what in ("patched", "recovered") for site in ("z", "resid_pre")]
        edit(Path(place), "activation_patching", lambda data: data[["clean", "corrupted", *kept]])
        return (Path(place) / "results" / "activation_patching.nc").read_bytes()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of the same prompts; in the second the mover carries half as much."""
    root = tmp_path_factory.mktemp("pair")
    one, two = run(root / "one"), run(root / "two")

    def halved(patching: xr.Dataset) -> xr.Dataset:
        at = {"direction": 0, "layer": MOVER[0], "head": MOVER[1]}
        moved = patching["patched_z"][at] - patching["corrupted"]
        patching["patched_z"][at] = patching["corrupted"] + moved / 2
        return patching

    edit(two, "activation_patching", halved)
    return one, two


@pytest.fixture(scope="module")
def found(pair: tuple[Path, Path]) -> Comparison:
    return compare(*pair)


def row(found: Comparison, name: str) -> Row:
    return next(row for part in found.parts for row in part.rows if row.name == name)


def test_a_run_beside_itself_does_not_differ(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(pair[0], run(tmp_path / "again"))
    rows = [row for part in found.parts for row in part.rows]
    assert {part.key for part in found.parts} == {"behaviour", "gaps", "heads", "places", "probes"}
    assert len(rows) > 8
    assert not any(row.differs(0) or row.elsewhere(1) for row in rows)
    for each in rows:
        if (difference := each.differences[0]) is not None:
            assert difference.mean == 0, each.name
    assert found.said == (
        f"No difference of A and B is seen in {sum(r.differences[0] is not None for r in rows)} numbers.",
    )


def test_an_effect_that_is_half_as_large_differs_and_nothing_else(pair: tuple[Path, Path], found: Comparison) -> None:
    effects = []
    for where in pair:
        data = results.load(where / "results" / "activation_patching.nc")
        moved = data["patched_z"].values[0, :, MOVER[0], MOVER[1]] - data["corrupted"].values
        effects.append(moved.sum() / (data["clean"] - data["corrupted"]).values.sum())
    changed = row(found, "L1H2, sufficient at all words")
    assert changed.values[0] is not None
    assert changed.differences[0] is not None
    near(changed.values[0].mean, effects[0], 1e-9, why="the same sums")
    near(changed.differences[0].mean, effects[1] - effects[0], 1e-9, why="the same sums")
    near(effects[1] - effects[0], -effects[0] / 2, 1e-9, why="half was taken away")
    assert changed.differs(0)
    names = {r.name for part in found.parts for r in part.rows if r.differs(0)}
    assert names <= {"L1H2, sufficient at all words", "z, sufficient"}
    compared = sum(r.differences[0] is not None for part in found.parts for r in part.rows)
    assert compared == 20
    # The fixture's probes are above chance, by their p-values, at these four words alone.
    probes = [row.name for part in found.parts if part.key == "probes" for row in part.rows]
    assert [name.removeprefix("selectivity of the probe at ") for name in probes] == [
        "color",
        "noun",
        "asked",
        "answer",
    ]
    assert {row.values[0].place.split()[0] for part in found.parts if part.key == "probes" for row in part.rows} == {
        "after"
    }
    assert (
        "20 numbers: L1H2, sufficient at all words. By chance alone at most about 1.0 of so many would."
        in found.said[0]
    )
    assert found.said[1].startswith("No difference is seen in 19: ")
    assert "L1H2, sufficient" not in found.said[1]
    assert row(found, "z, sufficient").named == "z, sufficient (L1H2)"
    assert row(found, "L1H2, needed at all words").named == "L1H2, needed at all words"


def test_paired_prompts_give_a_narrower_interval_than_two_samples(
    pair: tuple[Path, Path], found: Comparison, tmp_path: Path
) -> None:
    other = run(tmp_path / "other")
    edit(other, "activation_patching", lambda data: data.assign_attrs(tokens_sha256="c" * 64))
    renamed = compare(pair[0], other)  # the fingerprint counts roles, too; the texts are the same
    assert not any("compared as two samples" in line for line in renamed.said)
    edit(other, "behavior", lambda data: data.assign_coords(text=data["text"] + " so"))
    samples = compare(pair[0], other)
    assert any("compared as two samples" in line for line in samples.said)
    apart = row(samples, "L1H2, sufficient at all words").differences[0]
    together = row(found, "L1H2, needed at all words").differences[0]
    assert apart is not None
    assert together is not None
    assert (together.low, together.high) == (0, 0)
    assert apart.low < 0 < apart.high


def test_a_difference_that_two_digits_do_not_show_is_none() -> None:
    for size, differs in ((0.004, False), (0.006, True), (-0.006, True)):
        seen = Value(size, size - 0.001, size + 0.001)
        assert Row("x", (seen, seen), (seen,)).differs(0) is differs
    assert not Row("x", (seen, seen), (Value(0.006, -0.001, 0.012),)).differs(0)


def test_answers_that_begin_otherwise_are_said_to_differ(pair: tuple[Path, Path], tmp_path: Path) -> None:
    says = "The answers differ: A says"
    assert not any(line.startswith(says) for line in compare(*pair).said)
    yes, perhaps = (run(tmp_path / name) for name in ("yes", "perhaps"))
    edit(yes, "verdict", lambda data: data.assign_attrs(answer_short="Yes: it does."))
    edit(perhaps, "verdict", lambda data: data.assign_attrs(answer_short="Perhaps: it does."))
    assert f"{says} “Yes”, B “Perhaps”." in compare(yes, perhaps).said


@pytest.mark.parametrize(("more", "place"), [(0.01, "L1H2"), (5.0, "L0H0")])
def test_a_place_is_another_one_only_where_its_effect_is_seen_to_be_larger(
    more: float, place: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    other = run(tmp_path / "other")

    def rivalled(data: xr.Dataset) -> xr.Dataset:
        at = {"direction": 0, "layer": MOVER[0], "head": MOVER[1]}
        data["patched_z"][{"direction": 0, "layer": 0, "head": 0}] = np.roll(data["patched_z"][at].values, 1) + more
        return data

    edit(other, "activation_patching", rivalled)
    strongest = row(compare(pair[0], other), "z, sufficient")
    assert [value.place for value in strongest.values if value is not None] == ["L1H2", place]
    assert strongest.elsewhere(1) == (place != "L1H2")


def test_models_of_other_shapes_are_compared_by_job_and_depth(pair: tuple[Path, Path], tmp_path: Path) -> None:
    deeper = run(tmp_path / "deeper", only(*NAMES, n_layers=5))
    found = compare(pair[0], deeper)
    mover = row(found, "mover 1, sufficient at all words")
    assert [value.place for value in mover.values if value is not None] == ["L1H2 at 50%", "L1H2 at 25%"]
    assert mover.differences == (None,)
    places = next(part for part in found.parts if part.key == "places")
    assert all(row.differences == (None,) for row in places.rows)
    by_word = [row for row in places.rows if row.name.startswith("resid_pre")]
    assert by_word
    for each in by_word:
        words = [value.place.split()[-1] for value in each.values if value is not None]
        assert each.elsewhere(1) == (words[0] != words[1])


def test_a_run_that_failed_the_gate_is_shown_as_such(pair: tuple[Path, Path], tmp_path: Path) -> None:
    failed = run(tmp_path / "failed", only(*NAMES, gate_passed=False))
    found = compare(pair[0], failed)
    assert "Not explained, because the model does not do the task: B." in found.said
    assert "no rung, it does not do the task" in str(found)
    assert all(
        row.values[1] is None for part in found.parts if part.key not in ("behaviour", "gaps") for row in part.rows
    )
    assert row(found, "two: preferred").differs(0)
    assert found.to_dict()["runs"][1]["gate"] == "failed"


def test_effects_in_different_measures_are_not_subtracted(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = run(tmp_path / "other")
    edit(other, "activation_patching", lambda data: data.assign_attrs(metric="kl"))
    found = compare(pair[0], other)
    assert row(found, "L1H2, sufficient at all words").differences == (None,)
    assert row(found, "two: preferred").differences[0] is not None


def test_three_runs_are_each_compared_with_the_first(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*pair, run(tmp_path / "third"))
    assert len(row(found, "L1H2, sufficient at all words").differences) == 2
    assert [row(found, "L1H2, sufficient at all words").differs(i) for i in (0, 1)] == [True, False]
    header = found.parts[0].header()
    assert header == ("quantity", "A", "B", "C", "B − A", "finding B", "C − A", "finding C")
    page = found.save(tmp_path / "page").read_text(encoding="utf-8")
    assert page.index("<dt>C</dt>") < page.index("A and B differ")
    legends = re.findall(r'<svg class="plot legend".*?</svg>', page, re.DOTALL)
    assert legends
    for legend in legends:  # the marks of the points, in the order of the runs
        assert re.findall(r'class="dot (.)"', legend) == ["a", "b", "c"]


def test_the_page_and_its_twin_say_the_same_and_again_the_same_bytes(found: Comparison, tmp_path: Path) -> None:
    page = found.save(tmp_path / "one").read_bytes()
    assert found.save(tmp_path / "two").read_bytes() == page
    text = page.decode()
    assert text.count("<script") == 2  # what the scripts say, and the scripts
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    twin = json.loads((tmp_path / "one" / "compare.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for part in twin["parts"] for row in part["rows"]}
    assert rows["L1H2, sufficient at all words"]["differences"][0]["differs"] is True
    assert all(name in text for name in ("L1H2, sufficient", "two: top token"))


def test_every_term_that_is_linked_is_explained_on_the_page(found: Comparison, tmp_path: Path) -> None:
    page = found.save(tmp_path / "compared").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="#(term-[\w-]+)"', page))
    assert linked
    assert linked <= set(re.findall(r'id="(term-[\w-]+)"', page))


def test_hostile_words_are_text(tmp_path: Path) -> None:
    one, two = (run(tmp_path / name, only(*NAMES, nasty=True, n_prompts=n)) for name, n in (("one", 8), ("two", 6)))
    text = compare(one, two).save(tmp_path / "page").read_text(encoding="utf-8")
    assert "mini&lt;script&gt;" in text
    assert text.count("<script") == 2
    assert 'data-place="' in text


def test_it_speaks_spanish(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*pair, language="es")
    assert any("L1H2, suficiente" in line for line in found.lines())
    text = found.save(tmp_path).read_text(encoding="utf-8")
    assert '<html lang="es">' in text
    assert "En qué coinciden" in text


@pytest.mark.parametrize(
    ("ends", "judged"),
    [((0.1, 0.2), True), ((-0.2, -0.1), True), ((-0.1, 0.1), False), ((0.0, 0.1), False), ((np.nan, np.nan), False)],
)
def test_a_difference_is_one_whose_interval_excludes_0(ends: tuple[float, float], judged: bool) -> None:
    one = Row("x", (Value(0.0), Value(0.1)), (Value(0.1, *ends),))
    assert one.differs(0) is judged
    part = Part("x", "X", "", "share", ("A", "B"), (one,))
    assert next(part.cells())[-1] == ("differs" if judged else "")


def test_the_gap_of_a_rung_is_the_runs_own_and_is_subtracted(pair: tuple[Path, Path]) -> None:
    shown = row(compare(*pair), "two: gap")
    stored = results.load(pair[0] / "results" / "behavior.nc")
    gap = (stored["clean"] - stored["corrupted"])[stored["rung_of"] == "two"]
    assert shown.values[0] is not None
    near(shown.values[0].mean, float(gap.mean()), 1e-12, why="the same mean")
    assert shown.differences[0] is not None
    assert (shown.differences[0].mean, shown.differences[0].low, shown.differences[0].high) == (0, 0, 0)


def test_a_place_that_is_another_one_is_named_in_both_runs() -> None:
    moved = Row("z, needed", (Value(0.5, place="L1H2"), Value(0.4, place="L0H1")), (None,))
    assert moved.elsewhere(1)
    assert moved.moved(1) == "z, needed (L1H2 → L0H1)"


# --- sentences ---


@pytest.fixture(scope="module")
def explained(mini: HookedTransformer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two explanations of one sentence: what of each colour reaches its last word."""
    from analyses.cli.explanation import explain

    root, text = tmp_path_factory.mktemp("explained"), "The cat is black. The dog is white. The cat is"
    for name in ("black", "white"):
        explain(mini, text, name, "is@3", n=3, continuation=2).save(root / name)
    return root / "black", root / "white"


@pytest.mark.slow
def test_two_sentences_are_compared_by_what_arrives_and_the_heads(explained: tuple[Path, Path]) -> None:
    found = compare(*explained)
    arrives = found.parts[0].rows[0]
    data = [results.load(where / "results" / "reach.nc")["difference"].values[:, -1, -1].mean() for where in explained]
    assert arrives.differences[0] is not None
    near(arrives.differences[0].mean, data[1] - data[0], 1e-9, why="the same means")
    assert row(found, "L1H0, sufficient").differs(0)
    predicted = row(found, "what is predicted after the target")
    goes_on = row(found, "log-probability of the sentence's own continuation")
    for shown, name, value in (
        (predicted, "predictions", lambda data: data["kl"][:, 0].mean()),
        (
            goes_on,
            "continuation",
            lambda data: data["log_probability"].sum("step").mean() - data["clean_log_probability"].sum(),
        ),
    ):
        for one, where in zip(shown.values, explained, strict=True):
            assert one is not None
            near(one.mean, float(value(results.load(where / "results" / f"{name}.nc"))), 1e-9, why="the same mean")
    path = row(found, "L1H0 → the stream at the target, sufficient").values[0]
    paths = results.load(explained[0] / "results" / "paths.nc").sel(direction="denoising")
    at = paths.sel(sender="L1H0", receiver="L3.resid_post")
    expected = (at["patched"] - paths["corrupted"]).sum() / (paths["clean"] - paths["corrupted"]).sum()
    assert path is not None
    near(path.mean, float(expected), 1e-9, why="a ratio of the same means")


@pytest.mark.slow
def test_a_sentence_and_a_study_are_not_compared(explained: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    with pytest.raises(InterpError, match="explains one sentence and"):
        compare(pair[0], explained[0])


# --- refusals ---


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("one", "two runs or more"),
        ("twice", "named twice"),
        ("unfinished", "holds no finished run"),
        ("rungs", "no rung in common"),
        ("many", "At most 26"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    case: str,
    said: str,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = {
        "one": [pair[0]],
        "twice": [pair[0], pair[1], pair[0]],
        "unfinished": [pair[0], tmp_path],
        "rungs": [pair[0], tmp_path / "other"],
        "many": [pair[0]] * 27,
    }[case]
    if case == "rungs":
        other = run(tmp_path / "other", only("behavior"))
        edit(other, "behavior", lambda data: data.assign_coords(rung=[f"new {name}" for name in data["rung"].values]))
    with pytest.raises(InterpError, match=said):
        compare(*named)
    assert main(["compare", *map(str, named)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_command_prints_the_tables_and_writes_the_page(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, pair), "--out", str(tmp_path / "page")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"L1H2, sufficient at all words +mover 0\.\d\d .* differs", out)
    assert out.endswith(f"Page: {tmp_path / 'page' / 'compare.html'}\n")
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"compare.html", "compare.json"}


def test_claims_are_laid_side_by_side_with_their_grades_and_circuits_by_their_edges(tmp_path: Path) -> None:
    claims = {"one": ("supported by all", "contradicted"), "two": ("supported by some",)}
    edges = discover(planted(), planted_pairs(), "exact").data
    kept = np.argwhere(edges["kept"].values)
    fewer = edges.assign(kept=edges["kept"].copy(deep=True))
    fewer["kept"].values[tuple(kept[0])] = False
    for name, grades in claims.items():
        directory = run(tmp_path / name)
        columns = {
            "component": ("L1H2", "MLP0"), "job": ("moves", "stores"), "role": ("noun", "color"), "grade": grades,
        }  # fmt: skip
        told = {"units": "", "long_name": "by hand"}
        made = {f"claim_{key}": ("claim", np.array(values[: len(grades)]), told) for key, values in columns.items()}
        made["claim"] = ("claim", np.arange(len(grades)), {"long_name": "what a component is claimed to do"})
        edit(directory, "verdict", lambda data, made=made: data.assign(made).set_coords("claim"))
        results.save(edges if name == "one" else fewer, directory / "results" / "circuit.nc")
    found = compare(tmp_path / "one", tmp_path / "two")
    parts = {part.key: list(part.cells()) for part in found.parts}
    assert parts["claims"] == [
        ("L1H2: moves (noun)", "supported by all", "supported by some", "differs"),
        ("MLP0: stores (color)", "contradicted", "not claimed", "differs"),
    ]
    table = next(part for part in found.parts if part.graded).table()
    assert [column.name for column in table.columns] == ["quantity", "A", "B", "finding"]  # grades are not subtracted
    assert any(
        line.startswith("A and B grade 0 of 2 claims alike; otherwise: L1H2: moves (noun)") for line in found.said
    )
    assert not any("strongest place" in line and "L1H2: moves" in line for line in found.said)
    shared = found.parts[-1].rows[-1].values[1]
    assert shared is not None
    close(shared.mean, (len(kept) - 1) / len(kept))
