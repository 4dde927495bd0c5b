"""How sure we are: counts, intervals, agreement between methods, disagreements, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from interp import stats
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import RunInputs
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.sections.heads import method_maps
from interp.report.tables import Cell, Column, Table, interval_text
from interp.report.verdict import Verdict
from interp.sites import head_label

LIMITS = (
    ("Patching", "answers for these prompts and this corruption only; corrupting otherwise can show other places."),
    (
        "Sufficient and needed",
        "differ. A head that is sufficient but not needed may have a backup; one that is needed but not sufficient "
        "works together with others.",
    ),
    ("Direct contributions", "count the last step only: a head that feeds another head shows nothing here."),
    ("Ablation", "takes the model off its usual activations, zero ablation most of all."),
    ("A probe", "shows that something can be read, not that the model reads it."),
    (
        "Intervals",
        "cover the choice of prompts, not the choice of template, task or model. They hold cell by cell and are not "
        "corrected for the number of cells.",
    ),
)

SPLIT = 0.1
"""The two directions disagree about a head when their intervals are apart and their means differ by this much."""


def section(run: RunInputs, verdict: Verdict) -> Section:
    """Counts and agreement first, then what this cannot say."""
    blocks: list[Block] = [Facts(_counts(run), "What the numbers rest on")]
    maps = method_maps(run.get("activation_patching"), run.get("head_attribution"))
    if len(maps) > 1 and len({tuple(one["mean"].shape) for one in maps.values()}) == 1:
        blocks.append(_agreement(maps))
    if {"z denoising", "z noising"} <= set(maps):
        table = _disagreements(maps["z denoising"], maps["z noising"])
        if table.rows:
            many = f"{len(table.rows)} head{'' if len(table.rows) == 1 else 's'}"
            blocks.append(Details(f"Where sufficient and needed part: {many}", (table,), open=True))
        else:
            text = "for every head the two directions agree, within their intervals or a tenth of the gap."
            blocks.append(Facts((("Sufficient against needed:", text),)))
    own = run.get("verdict")
    names = ("agreement", "disagreement", "disagreements", "limits")
    said = tuple(
        (f"{name.capitalize()}:", own.attr(name)) for name in names if own and own.attr(name) not in ("", "none")
    )
    if said:
        blocks.append(Facts(said, "The verdict adds"))
    blocks.append(Facts(LIMITS, "What this cannot say"))
    lead = "Several methods asked the same question; here is where they agree, and where not."
    return Section("certainty", "How sure we are", lead, blocks, "How sure")


def _counts(run: RunInputs) -> tuple[tuple[str, str], ...]:
    items = []
    for name in ("behavior", *run.explaining):
        result = run.get(name)
        if result is not None:
            title = result.attr("title") or name
            items.append((f"{title}:", f"{result.attr('n_prompts')} prompts, seed {result.attr('seed')}."))
    text = (
        f"{stats.LEVEL:.0%}. Shares use Wilson's interval; means and ratios of means over prompts or folds use a "
        f"percentile bootstrap of {stats.RESAMPLES:,} resamples with seed {stats.SEED}. Verdict, page and report.json "
        "show the same interval of the same number."
    )
    return (*items, ("Intervals:", text))


def _agreement(maps: Mapping[str, xr.Dataset]) -> Figure:
    names = list(maps)
    flat = [one["mean"].values.ravel().astype(np.float64) for one in maps.values()]
    keep = np.isfinite(np.stack(flat)).all(axis=0)
    values = np.array([[stats.spearman(a[keep], b[keep]) for b in flat] for a in flat])
    scale = Scale.centred(1.0, units="Spearman's rank correlation", name="agreement")
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names))]
    grid = Grid(values, names, names, "", "", cells={(i, j): f"{names[i]} and {names[j]}" for i, j in pairs})
    drawn = heatmap(
        grid,
        scale,
        key="agreement-map",
        title="Agreement between methods",
        description="Rank correlation of head importance between methods",
        cell=(58.0, 28.0),
    )
    rows: list[tuple[Cell, ...]] = [
        (names[i], names[j], float(values[i, j]), int(keep.sum())) for i, j in pairs if i < j
    ]
    headings = ("method", "other method", "Spearman's rank correlation", "heads")
    reading = (
        "Every method ranks all heads by how much they matter. 1: the same order; 0: unrelated; negative: opposed. "
        "Direct contribution measures another thing than the causal methods, so full agreement is not expected. No "
        "interval is given: the heads are all there are, not a sample."
    )
    return Figure(
        "agreement",
        "Do the methods rank the heads alike?",
        reading,
        (Panel("", drawn),),
        (Table("Rank correlation over heads", tuple(Column(h) for h in headings), tuple(rows)),),
        legend=colour_legend(scale, key="agreement-l"),
    )


def _disagreements(denoising: xr.Dataset, noising: xr.Dataset) -> Table:
    found: list[tuple[float, tuple[Cell, ...]]] = []
    for layer, head in np.ndindex(denoising["mean"].shape):
        (a, a_low, a_high), (b, b_low, b_high) = (
            [float(one[key].values[layer, head]) for key in ("mean", "low", "high")] for one in (denoising, noising)
        )
        known = all(map(math.isfinite, (a_low, a_high, b_low, b_high)))
        if not known or abs(a - b) < SPLIT or (a_low <= b_high and b_low <= a_high):
            continue
        reading = "more sufficient than needed: others can stand in for it"
        if b > a:
            reading = "more needed than sufficient: it works together with others"
        texts = [
            f"{figure_number(mean, 2)} {interval_text(low, high)}"
            for mean, low, high in ((a, a_low, a_high), (b, b_low, b_high))
        ]
        found.append((abs(a - b), (head_label(layer, head), *texts, reading)))
    found.sort(key=lambda row: (-row[0], str(row[1][0])))
    columns = (
        Column("head", facet="head"),
        Column("denoising: recovered", "share of gap"),
        Column("noising: lost", "share of gap"),
        Column("reading"),
    )
    title = f"Heads whose two directions differ by more than {SPLIT}, with intervals apart"
    return Table(title, columns, tuple(row for _, row in found))
