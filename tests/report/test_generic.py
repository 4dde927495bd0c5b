"""The generic section: any result is on the page with its question, its reading and its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from interp import report, results, stats
from interp.report import inputs, parts, verdict
from interp.report.blocks import Details, Facts, Figure, Prose, Section
from interp.report.sections import generic
from interp.results import Variable
from tests.report_fixture import FILES, NASTY, RunSpec, only, write_run
from tests.tolerance import close

N, LAYERS, ROLES, HEADS = 6, 3, ("color", "noun", "asked"), 4
RNG = np.random.default_rng(0)
KL = RNG.gamma(1.0, 2.0, (N, LAYERS, len(ROLES)))
COORDS = {"layer": range(LAYERS), "role": list(ROLES), "head": range(HEADS), "word": ["correct", "incorrect"]}
SIZES = {"prompt": N, "layer": LAYERS, "role": len(ROLES), "head": HEADS, "word": 2}


class About:
    """A model and prompts, as far as a result says of them."""

    def provenance(self) -> dict[str, str | int]:
        shared = {"task": "color-noun", "model": "mini", "weights_sha256": "a" * 64, "tokens_sha256": "b" * 64}
        return {**shared, "n_prompts": N, "rung": "two"}


def result(variables: Mapping[str, Variable], **change: Any) -> xr.Dataset:
    used = {dim for variable in variables.values() for dim in variable.dims}
    settings = {
        "coords": {dim: labels for dim, labels in COORDS.items() if dim in used},
        "title": "A lens",
        "question": "What would the model say early?",
        "reading": "0: it already says what it says in the end.",
        "source": "nostalgebraist 2020",
        "of": [About()],
        "seed": 0,
        "dims": {"word": "which of the two answers"} if "word" in used else {},
    }
    return results.build(variables, **{**settings, **change})


def numbers(*dims: str, units: str = "nats") -> Variable:
    return Variable(dims, RNG.normal(size=[SIZES[dim] for dim in dims]), units, f"by {' and '.join(dims) or 'nothing'}")


def section(data: xr.Dataset, name: str = "lens") -> Section:
    nothing = verdict.Verdict("", True, "", "", (), (), ())
    return generic.section(inputs.Result(name, data), nothing)


def figures(found: Section) -> list[Figure]:
    return [block for block in found.blocks if isinstance(block, Figure)]


def test_a_section_says_what_the_result_says_of_itself() -> None:
    found = section(result({"kl": numbers("prompt", "word", "layer")}))
    prose, axes, figure = found.blocks
    assert (found.title, found.lead) == ("A lens", "What would the model say early?")
    assert prose == Prose(("0: it already says what it says in the end.",))
    assert axes == Facts(
        (("layer:", "layer of the model, counted from 0."), ("word:", "which of the two answers.")),
        "What the axes count",
    )
    assert isinstance(figure, Figure)
    assert (figure.title, figure.source, figure.file) == (
        "by prompt and word and layer (nats)", "nostalgebraist 2020", "results/lens.nc",
    )  # fmt: skip


def test_of_p_values_the_small_ones_are_dark() -> None:
    values = np.array([[0.01, 1.0], [0.5, 1.0], [1.0, 1.0]])
    (figure,) = figures(section(result({"p_value": Variable(("layer", "word"), values, "", "p-value")})))
    drawn = str(figure.panels[0].body)
    assert re.findall(r'class="cell (s\d+)"', drawn) == ["s20", "s0", "s10", "s0", "s0", "s0"]


def test_a_map_has_the_means_over_prompts_with_their_bootstrap_intervals() -> None:
    (figure,) = figures(section(result({"kl": Variable(("prompt", "layer", "role"), KL, "nats", "divergence")})))
    assert figure.reading == (
        "Mean over prompts. Interval: 95% percentile bootstrap over prompts (2,000 resamples, seed 0)."
    )
    low, high = stats.bootstrap_interval(KL, seed=0)
    rows = figure.tables[0].rows
    assert [row[:2] for row in rows] == [(str(layer), role) for layer in range(LAYERS) for role in ROLES]
    for column, expected in ((2, KL.mean(axis=0)), (3, low), (4, high)):
        close(np.array([row[column] for row in rows], dtype=float).reshape(expected.shape), expected)
    assert {row[5] for row in rows} == {N}
    assert f"layer 1 · noun: {KL[:, 1, 1].mean():.4f}" in figure.panels[0].body


def test_missing_values_are_left_out_and_counted() -> None:
    holed = KL.copy()
    holed[:2, 0, 0] = np.nan
    (figure,) = figures(section(result({"kl": Variable(("prompt", "layer", "role"), holed, "nats", "divergence")})))
    first = figure.tables[0].rows[0]
    close(np.array(first[2]), KL[2:, 0, 0].mean())
    assert first[5] == N - 2


@pytest.mark.parametrize(
    ("dims", "drawn"),
    [
        (("prompt", "layer"), 'class="line a"'),
        (("prompt", "role"), 'class="whisker a"'),
        (("prompt", "role", "layer"), 'class="cell'),
        (("prompt", "layer", "head"), "<title>L2H3"),
        (("layer", "role"), 'class="cell'),
    ],
)
def test_one_axis_is_a_curve_or_dots_and_two_are_a_map(dims: tuple[str, ...], drawn: str) -> None:
    (figure,) = figures(section(result({"x": numbers(*dims)})))
    (panel,) = figure.panels
    assert drawn in panel.body


def test_rows_are_layers_whatever_the_order_in_the_file() -> None:
    (figure,) = figures(section(result({"x": numbers("prompt", "role", "layer")})))
    assert [column.name for column in figure.tables[0].columns[:2]] == ["layer", "role"]


def test_a_third_axis_is_one_map_each_and_of_a_fourth_the_first_entry_is_named() -> None:
    (three,) = figures(section(result({"x": numbers("prompt", "word", "layer", "head")})))
    assert [panel.title for panel in three.panels] == ["word correct", "word incorrect"]
    data = numbers("prompt", "word", "role", "layer", "head")
    (four,) = figures(section(result({"x": data})))
    assert [panel.title for panel in four.panels] == [f"role {role}" for role in ROLES]
    assert four.reading.endswith("Only word correct, the first of 2.")
    means = np.array([row[3] for row in four.tables[0].rows], dtype=float).reshape(len(ROLES), LAYERS, HEADS)
    close(means, np.asarray(data.values)[:, 0].mean(axis=0))


def test_of_two_axes_beside_the_layers_the_shorter_one_gives_the_maps() -> None:
    """Many entries are columns of few maps: of maps the first only are drawn, and the answer's role comes last."""
    (figure,) = figures(section(result({"x": numbers("prompt", "role", "layer", "word")})))
    assert [panel.title for panel in figure.panels] == ["word correct", "word incorrect"]
    assert len(figure.tables[0].rows) == 2 * LAYERS * len(ROLES)


def test_without_layers_the_shortest_axis_gives_the_maps_and_heads_stay_beside_layers() -> None:
    (figure,) = figures(section(result({"x": numbers("prompt", "head", "word", "role")})))
    assert [column.name for column in figure.tables[0].columns[:3]] == ["word", "head", "role"]
    two_heads = Variable(("prompt", "layer", "head", "role"), np.ones((N, LAYERS, 2, len(ROLES))), "", "x")
    (figure,) = figures(section(result({"x": two_heads}, coords={"role": list(ROLES)})))
    assert [column.name for column in figure.tables[0].columns[:3]] == ["role", "layer", "head"]


def test_long_axes_are_cut_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic, "LONGEST_AXIS", 3)
    monkeypatch.setattr(generic, "MOST_PANELS", 1)
    (figure,) = figures(section(result({"x": numbers("prompt", "word", "layer", "head")})))
    assert figure.reading.endswith("The first 3 of 4 entries of head. The first 1 of 2 entries of word.")
    assert len(figure.tables[0].rows) == 1 * LAYERS * 3


def test_what_has_no_axis_left_is_in_one_table() -> None:
    found = section(
        result(
            {
                "score": Variable(("prompt",), np.arange(6.0), "logits", "score"),
                "one": Variable(("prompt", "layer"), np.ones((N, 1)), "nats", "one layer"),
                "scale": Variable((), 0.5, "", "scale"),
            },
            coords={"layer": [7]},
        )
    )
    (table,) = next(block for block in found.blocks if isinstance(block, Details)).tables
    score, one, scale = table.rows
    assert (score[0], score[1], score[4], score[5]) == ("score", 2.5, "logits", N)
    assert str(one[6]).endswith("Only layer 7.")
    assert (*scale[:2], *scale[4:]) == ("scale", 0.5, "", None, "As computed over all prompts.")


def test_what_reads_weights_alone_claims_no_prompts(tmp_path: Path) -> None:
    where = write_run(tmp_path, RunSpec())
    for name, n in (("scores", 0), ("spread", N)):
        found = result({"score": numbers("layer", "head")}).assign_attrs(n_prompts=n)
        results.save(found, where / "results" / f"{name}.nc")
    page = report.draw(where, interactive=False).read_text(encoding="utf-8")
    said = re.sub(r"<[^>]+>", " ", page)
    assert said.count("no prompts: it reads the weights alone; seed 0.") == 1
    assert "As computed from the weights, without a prompt." in said
    assert not re.search(r"\b0 prompts", said)


def test_the_interval_of_a_variable_without_prompts_is_the_results_own() -> None:
    ends = np.array([[0.0, 1.0], [0.1, 0.9], [0.2, 0.8]])
    (figure,) = figures(
        section(
            result(
                {
                    "share": Variable(("role",), np.full(3, 0.5), "share", "share"),
                    "share_interval": Variable(("role", "ci_bound"), ends, "share", "interval of share"),
                }
            )
        )
    )
    assert figure.reading == "As computed over all prompts. Interval: as the result gives it."
    assert figure.tables[0].rows == tuple((role, 0.5, *end) for role, end in zip(ROLES, ends.tolist(), strict=True))


def test_what_a_patch_recovers_is_the_ratio_of_means() -> None:
    clean, patched = np.array([4.0, 0.1]), np.array([[2.0, 4.0], [1.0, 0.1]])
    variables = {
        "recovered": Variable(("prompt", "role"), patched / clean[:, None], "fraction", "recovered"),
        "patched": Variable(("prompt", "role"), patched, "logits", "patched"),
        "clean": Variable(("prompt",), clean, "logits", "clean"),
        "corrupted": Variable(("prompt",), np.zeros(2), "logits", "corrupted"),
    }
    coords = {"role": ["noun", "color"]}
    whole = figures(section(result(variables, coords=coords, extra={"minimum_gap": 0.01})))[0]
    assert whole.reading.startswith("Ratio of the means over prompts.")
    close(np.array([row[1] for row in whole.tables[0].rows], dtype=float), patched.sum(axis=0) / clean.sum())
    alone = figures(section(result({"recovered": variables["recovered"]}, coords=coords)))[0]
    assert alone.reading.startswith("Mean over prompts.")


def test_words_are_tables_and_what_is_not_shown_is_named() -> None:
    words = np.array(["<b>", "hat", "\u202eover"])
    found = section(
        result(
            {
                "best": Variable(("layer",), words, "", "best word"),
                "said": Variable(("prompt",), np.array(list("abcdef")), "", "what was said"),
                "x": numbers("prompt", "layer"),
            }
        )
    )
    details = next(block for block in found.blocks if isinstance(block, Details))
    assert details.tables[0].rows == (("0", "<b>"), ("1", "hat"), ("2", "\u202eover"))
    assert found.blocks[-1] == Facts((("Only in the file:", "said (what was said)"),))


# --- on the page ---


def with_lens(directory: Path, spec: RunSpec | None = None, name: str = "lens", **change: Any) -> Path:
    write_run(directory, spec)
    results.save(result({"kl": numbers("prompt", "layer", "role")}, **change), directory / "results" / f"{name}.nc")
    return directory


def html(directory: Path) -> str:
    return report.render(directory, interactive=False).read_text(encoding="utf-8")


def test_only_a_result_without_a_section_of_its_own_is_shown_by_the_generic_one(tmp_path: Path) -> None:
    assert {*FILES, *parts.SENTENCE} <= {name for part in parts.PARTS for name in part.results}
    text = html(with_lens(tmp_path))
    assert text.count('<section id="result-') == 1
    assert '<section id="result-lens"' in text
    assert text.index("Whether a gradient would have told") < text.index("What would the model say early?")
    assert text.index('<section id="result-lens"') < text.index('<section id="certainty"')


def test_it_gives_the_same_bytes_and_its_words_are_only_text(tmp_path: Path) -> None:
    change = {"title": NASTY[0], "question": NASTY[1], "reading": NASTY[4]}
    first = html(with_lens(tmp_path / "a", only("behavior"), 'a lens "&" é', **change))
    second = report.render(tmp_path / "a", interactive=False).read_text(encoding="utf-8")
    assert first == second
    assert "<script>alert" not in first
    assert "\u202e" not in first
    assert first.count('<section id="result-a-20-lens-20--22--26--22--20--e9-"') == 1


def test_it_is_withheld_where_the_model_does_not_do_the_task(tmp_path: Path) -> None:
    text = html(with_lens(tmp_path, only("behavior", "verdict", gate_passed=False)))
    assert "result-lens" not in text
    assert "are in the run&#39;s directory and are withheld here." in text


def test_a_question_of_an_analysis_without_a_section_that_could_not_be_asked_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, only("behavior", "verdict"))
    said = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**said, "not_asked": {"lens": "All prompts are one."}}))
    assert "This cannot be asked here. All prompts are one." in html(tmp_path)
