"""The analysis of what a circuit is worth, and its section of the page."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from markupsafe import Markup

from analyses import circuit_evaluation
from interp import groundtruth
from interp.language import speaking
from interp.report.blocks import Figure, Section
from interp.report.inputs import Result
from interp.report.sections import circuit_evaluation as drawn
from tests.tolerance import near


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    truth = groundtruth.build("plain")
    return circuit_evaluation.run(
        truth.model,
        truth.pairs,
        ablations=["mean_by_role", "resample"],
        size=6,
        n_random=3,
        n_knockouts=2,
        max_prompts=16,
    )


def figures(section: Section) -> dict[str, Figure]:
    return {block.key: block for block in section.blocks if isinstance(block, Figure)}


def test_a_circuit_is_found_on_one_half_and_tested_on_the_other(found: xr.Dataset) -> None:
    truth = groundtruth.build("plain")
    assert found.sizes["prompt"] == 8
    assert found.attrs["found_on_sha256"] not in (found.attrs["tokens_sha256"], truth.pairs.sha256())
    near(
        found.own_faithfulness.sel(ablation="resample"),
        1,
        0.05,
        why="the other heads of the model write a little noise",
    )


def test_the_section_says_every_ablation_in_either_language(found: xr.Dataset) -> None:
    result = Result("circuit_evaluation", found)
    section = drawn.section(result)
    made = figures(section)
    assert list(made) == [f"circuit-evaluation-{part}" for part in ("curves", "own", "costs")]
    assert [panel.title for panel in made["circuit-evaluation-curves"].panels] == ["mean by role", "resample"]
    (table,) = made["circuit-evaluation-own"].tables
    assert [column.name for column in table.columns][:3] == ["ablation", "CPR", "CMD"]
    assert table.rows[1][1].mean == found.cpr.sel(ablation="resample").item()  # type: ignore[union-attr]
    bodies = Markup("").join(panel.body for figure in made.values() for panel in figure.panels)
    assert len(bodies) < 40_000
    with speaking("es"):
        spanish = figures(drawn.section(result))
    assert [panel.title for panel in spanish["circuit-evaluation-curves"].panels] == ["media por rol", "remuestreo"]


def test_without_random_circuits_or_parts_they_are_left_out(found: xr.Dataset) -> None:
    absent = [name for name in found.data_vars if {"draw", "null", "knockout", "circuit_edge"} & {*found[name].dims}]
    few = found.drop_vars([*absent, "incompleteness", "incompleteness_interval"]).assign_attrs(n_random=0)
    section = drawn.section(Result("circuit_evaluation", few))
    assert list(figures(section)) == [f"circuit-evaluation-{part}" for part in ("curves", "own", "costs")]
    (table,) = figures(section)["circuit-evaluation-own"].tables
    assert len(table.columns) == 5


def test_numbers_that_are_not_known_are_drawn_as_none(found: xr.Dataset) -> None:
    """Where clean and ablated runs do not differ, nothing is a share of the gap."""
    unknown = found.map(lambda values: values * np.nan if values.dtype.kind == "f" else values, keep_attrs=True)
    drawn.section(Result("circuit_evaluation", unknown.assign_attrs(found.attrs)))
