"""The section of places: one row for each, in numbers of the result, and the sentence that says where they part."""

from __future__ import annotations

import numpy as np
import xarray as xr

from interp import language, results, summary
from interp.report.blocks import Details, Facts
from interp.report.inputs import Result
from interp.report.sections import places as drawn
from tests.tolerance import close

ERASERS, SUBSPACES = ["leace", "means", "shuffled", "random"], ["means", "das", "placebo", "random"]


class Measured:
    def provenance(self) -> dict[str, str | int]:
        names = ("model", "weights_sha256", "tokens_sha256", "task")
        return dict.fromkeys(names, "by hand") | {"n_prompts": 6}  # type: ignore[return-value]


def result(*, controls: bool = True) -> Result:
    """Two layers and two roles: readable and not used, used and not readable, both, neither."""
    rng = np.random.default_rng(0)
    dims = ("prompt", "layer", "role")
    readable = np.array([[0.95, 0.1], [0.95, 0.1]])  # layer role
    used = np.array([[0.0, 0.9], [0.9, 0.0]])
    noise = 0.01 * rng.normal(size=(6, 2, 2))
    clean, corrupted = np.full(6, 4.0), np.full(6, -4.0)
    patched = 4.0 - 8 * (used + noise)
    agreement = np.full((6, 2, 2, 3, 2), np.nan)
    agreement[..., 0, :] = 1.0
    if controls:
        agreement[:3, ..., 1:, :] = 0.5
    variables = {
        "decoded": (dims, readable + noise),
        "selectivity": (dims, readable - 0.3 + noise),
        "compression": (dims[1:], 1 + readable),
        "majority": ((), np.array(0.2)),
        "rank": (dims[1:], np.full((2, 2), 3)),
        "clean": (("prompt",), clean),
        "corrupted": (("prompt",), corrupted),
        "kl_erasure": ((*dims, "eraser"), np.zeros((6, 2, 2, 4))),
        "agreement": ((*dims, "fit", "part"), agreement),
    }
    axes = {"": (), "_erasure": ("eraser",), "_interchange": ("subspace",)}
    for end, more in axes.items():
        values = patched.reshape(6, 2, 2, *(1,) * len(more)) * np.ones((1, 1, 1, *(4,) * len(more)))
        variables |= {f"patched{end}": ((*dims, *more), values), f"recovered{end}": ((*dims, *more), (values + 4) / 8)}
    made = results.build(
        {name: results.Variable(of, values, "", name) for name, (of, values) in variables.items()},
        coords={
            "prompt": np.arange(6), "layer": [1, 3], "role": ["color", "noun"], "eraser": ERASERS,
            "subspace": SUBSPACES, "fit": ["das", "arbitrary", "random model"], "part": ["fitted", "held out"],
        },
        title="Readable and used", question="Where?", reading="", source="", of=(Measured(),), seed=0,
        extra={"site": "resid_pre", "minimum_gap": 0.1},
        dims={name: name for name in ("eraser", "subspace", "fit", "part")},
    )  # fmt: skip
    return Result("places", made)


def test_each_place_has_its_row_of_the_results_numbers() -> None:
    one = result()
    _, table, fits = drawn.section(one).blocks
    assert isinstance(table, Details)
    assert isinstance(fits, Details)
    (rows,) = table.tables
    assert [row[:2] for row in rows.rows] == [("color", "0"), ("color", "2"), ("noun", "0"), ("noun", "2")]
    named = dict(zip((column.name for column in rows.columns), rows.rows[1], strict=True))
    lost = summary.effect(summary.of(one.data, "recovered"), "noising").sel(layer=3, role="color")
    cell = named["patched whole"]
    assert (cell.mean, cell.low, cell.high) == tuple(float(lost[part]) for part in ("mean", "low", "high"))
    close(named["erased: LEACE"].mean, cell.mean, "arithmetic", dtype="float64", size=1)
    assert named["readable"].mean == float(summary.of(one.data, "decoded")["mean"].sel(layer=3, role="color"))
    assert fits.tables[0].rows[0][2] == 3


def test_it_says_where_readable_and_used_part() -> None:
    facts, *_ = drawn.section(result()).blocks
    assert isinstance(facts, Facts)
    said = dict(facts.items)
    assert said["Readable, not used:"].startswith("color after layer 0: a probe reads the word there")
    assert said["Used, not readable:"].startswith("noun after layer 0: ")
    assert said["Readable and used:"] == "color after layer 2."
    assert said["DAS:"].endswith("Arbitrary answers: 50% and 50% (a coin: 50%).")


def test_without_controls_and_in_spanish() -> None:
    with language.speaking("es"):
        section = drawn.section(result(controls=False))
    assert section.title == "Legible y usado"
    facts, _, fits = section.blocks
    assert "Arbitrari" not in str(facts)
    assert isinstance(fits, Details)
    text = [cell for cell, _ in fits.tables[0].texts()[0]]
    assert "nan" not in " ".join(text)


def test_nothing_read_and_nothing_used_is_said() -> None:
    one = result()
    data = one.data.assign(
        decoded=0 * one.data["decoded"], recovered=xr.ones_like(one.data["recovered"]),
        patched=xr.full_like(one.data["patched"], 4.0),
    )  # fmt: skip
    for name in ("decoded", "recovered", "patched"):
        data[name].attrs = one.data[name].attrs
    facts, *_ = drawn.section(Result("places", data)).blocks
    assert isinstance(facts, Facts)
    assert facts.items[0][0] == "Neither:"
