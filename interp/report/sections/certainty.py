"""How sure we are: counts, intervals, agreement between methods, disagreements, limits."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from interp import stats
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Section
from interp.report.heat import colour_legend, heatmap
from interp.report.inputs import RunInputs
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.sections.heads import agreement_grid, method_vectors
from interp.report.tables import Cell, Column, Table, interval_text
from interp.report.verdict import EXPLAINING, Verdict
from interp.sites import head_label

LIMITS = (
    ("Patching", "answers for this pair of prompts and this corruption only; another way to corrupt can show other places."),
    ("Sufficient and needed", "differ. A head that is sufficient but not needed may have a backup; a head that is needed but not sufficient works with others."),
    ("Direct contributions", "count the last step only: a head that feeds another head shows nothing here."),
    ("Ablation", "takes the model off its usual activations, zero ablation most of all."),
    ("A probe", "shows that something can be read, not that the model reads it."),
    ("Intervals", "cover the choice of prompts, not the choice of template, task or model. They are per cell, not corrected for the number of cells."),
)  # fmt: skip

_SPLIT = 0.1
"""Two methods on the same scale disagree about a head when their intervals are apart and their means differ by this share."""


def section(run: RunInputs, verdict: Verdict) -> Section:
    """Counts and agreement first, then what this cannot say."""
    blocks: list[Block] = [Facts(_counts(run), "What the numbers rest on")]
    vectors = method_vectors(run.get("activation_patching"), run.get("head_attribution"))
    shapes = {tuple(v.sizes.values()) for _, v in vectors}
    if len(vectors) > 1 and len(shapes) == 1:
        blocks.append(_agreement(list(vectors)))
        table = _disagreements(dict(vectors))
        if table.rows:
            blocks.append(Details(f"Where the methods disagree: {len(table.rows)} heads", (table,), open=True))
        else:
            blocks.append(
                Facts(
                    (
                        (
                            "Disagreements:",
                            "no head is sufficient without being needed, or needed without being sufficient.",
                        ),
                    )
                )
            )
    own = run.get("verdict")
    extra = tuple(
        (name.capitalize() + ":", own.attr(name))
        for name in ("agreement", "disagreement", "limits")
        if own and own.attr(name)
    )
    if extra:
        blocks.append(Facts(extra, "The verdict adds"))
    blocks.append(Facts(LIMITS, "What this cannot say"))
    return Section(
        "certainty",
        "How sure we are",
        "Several methods asked the same question; here is where they agree, and where not.",
        blocks,
        "How sure",
    )


def _counts(run: RunInputs) -> tuple[tuple[str, str], ...]:
    items = []
    for name in ("behavior", *EXPLAINING):
        result = run.get(name)
        if result is not None:
            items.append(
                (f"{result.attr('title') or name}:", f"{result.attr('n_prompts')} prompts, seed {result.attr('seed')}.")
            )
    items.append(
        (
            "Intervals:",
            "95%. Shares use Wilson's interval; means over prompts or folds a percentile bootstrap of 2,000 resamples with seed 0, so that rendering again gives the same page.",
        )
    )
    return tuple(items)


def _agreement(vectors: list[tuple[str, xr.Dataset]]) -> Figure:
    names = [name for name, _ in vectors]
    flat = [summary["mean"].values.ravel().astype(np.float64) for _, summary in vectors]
    keep = np.isfinite(np.stack(flat)).all(axis=0)
    values = np.array([[stats.spearman(a[keep], b[keep]) for b in flat] for a in flat])
    scale = Scale.centred(1.0, units="Spearman's rank correlation", name="agreement")
    grid = agreement_grid(names, values, int(keep.sum()))
    drawn = heatmap(
        grid,
        scale,
        key="agreement-map",
        title="Agreement between methods",
        description="Rank correlation of head importance between methods",
        cell=(58.0, 28.0),
    )
    rows: list[tuple[Cell, ...]] = [
        (a, b, float(values[i, j]), int(keep.sum())) for i, a in enumerate(names) for j, b in enumerate(names) if i < j
    ]
    table = Table(
        "Rank correlation over heads",
        (Column("method"), Column("other method"), Column("Spearman's rank correlation"), Column("heads")),
        tuple(rows),
    )
    reading = "Every method ranks all heads by how much they matter. 1: the same order; 0: unrelated; negative: opposed. Direct contribution measures another thing than the causal methods, so full agreement is not expected. No interval is given: the heads are all there are, not a sample."
    return Figure(
        "agreement",
        "Do the methods rank the heads alike?",
        reading,
        (Panel("", drawn),),
        (table,),
        legend=colour_legend(scale, key="agreement-l"),
    )


def _disagreements(vectors: dict[str, xr.Dataset]) -> Table:
    columns = (
        Column("head"),
        Column("denoising recovered", "share of gap"),
        Column("noising lost", "share of gap"),
        Column("reading"),
    )
    both = [vectors.get(f"z {direction}") for direction in ("denoising", "noising")]
    rows: list[tuple[float, tuple[Cell, ...]]] = []
    if both[0] is not None and both[1] is not None:
        for layer, head in np.ndindex(both[0]["mean"].shape):
            (a, a_low, a_high), (b, b_low, b_high) = (
                tuple(float(one[key].values[layer, head]) for key in ("mean", "low", "high"))
                for one in both
                if one is not None
            )
            if not all(map(math.isfinite, (a_low, a_high, b_low, b_high))) or abs(a - b) < _SPLIT:
                continue
            if a_low <= b_high and b_low <= a_high:
                continue
            reading = (
                "more sufficient than needed: others can stand in for it"
                if a > b
                else "more needed than sufficient: it works together with others"
            )
            rows.append(
                (
                    abs(a - b),
                    (
                        head_label(layer, head),
                        f"{figure_number(a, 2)} {interval_text(a_low, a_high)}",
                        f"{figure_number(b, 2)} {interval_text(b_low, b_high)}",
                        reading,
                    ),
                )
            )
    rows.sort(key=lambda row: (-row[0], str(row[1][0])))
    return Table(
        f"Heads whose two directions differ by more than {_SPLIT} with intervals apart",
        columns,
        tuple(row for _, row in rows),
    )
