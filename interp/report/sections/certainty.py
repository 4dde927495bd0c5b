"""How sure we are: counts, intervals, agreement between methods, disagreements, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from interp import stats
from interp.language import say, say_stored
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result, RunInputs
from interp.report.palette import Scale
from interp.report.sections.heads import method_maps
from interp.report.tables import Cell, Column, Size, Table
from interp.report.verdict import Verdict
from interp.sites import head_label

SPLIT = 0.1
"""The two directions disagree about a head when their intervals are apart and their means differ by this much."""


def section(run: RunInputs, verdict: Verdict) -> Section:
    """Counts and agreement first, then what this cannot say."""
    blocks: list[Block] = [Facts(_counts(run), say("What the numbers rest on"))]
    blocks += claims(run.get("verdict"))
    maps = method_maps(run.get("activation_patching"), run.get("head_attribution"))
    if len(maps) > 1 and len({tuple(one["mean"].shape) for one in maps.values()}) == 1:
        blocks.append(_agreement(maps))
    if {"z denoising", "z noising"} <= set(maps):
        table = _disagreements(maps["z denoising"], maps["z noising"])
        if table.rows:
            title = say("Where sufficient and needed part (heads: {count})", count=len(table.rows))
            blocks.append(Details(title, (table,), open=True))
        else:
            text = say("for every head the two directions agree, within their intervals or a tenth of the gap.")
            blocks.append(Facts(((say("Sufficient against needed:"), text),)))
    said = _said(run.get("verdict"))
    if said:
        blocks.append(Facts(said, say("The verdict adds")))
    blocks.append(Facts(_limits(), say("What this cannot say")))
    lead = say("Several methods asked the same question; here is where they agree, and where not.")
    return Section("certainty", say("How sure we are"), lead, blocks, say("How sure"))


VOTES = {1.0: "supports", 0.0: "cannot tell", -1.0: "contradicts"}
"""A vote as the result has it, and in words."""


def claims(verdict: Result | None) -> list[Block]:
    """What each component does, and what every method says of that: one row a claim, and one row a vote."""
    if verdict is None or not verdict.has("claim_component"):
        return []
    votes, sizes = (verdict.need(name, "claim", "voter").values for name in ("vote", "vote_size"))
    bounds = verdict.need("vote_interval", "claim", "voter", "ci_bound").values
    methods = verdict.labels("voter")
    named = ("claim_component", "claim_job", "claim_role", "claim_grade")
    components, jobs, roles, grades = (verdict.labels(name) for name in named)
    rows: list[tuple[Cell, ...]] = []
    long: list[tuple[Cell, ...]] = []
    for i, component in enumerate(components):
        what = say_stored(jobs[i]), roles[i] or None
        known = [m for m in range(len(methods)) if np.isfinite(votes[i, m])]
        agree = say("{yes} of {known}", yes=int((votes[i, known] > 0).sum()), known=len(known))
        against = ", ".join(say_stored(methods[m]) for m in known if votes[i, m] < 0)
        rows.append((component, *what, say_stored(grades[i]), agree, against or None))
        for m in known:
            size = Size(float(sizes[i, m]), float(bounds[i, m, 0]), float(bounds[i, m, 1]))
            shown = size if math.isfinite(size.mean) else None
            long.append((component, say_stored(methods[m]), say_stored(VOTES[float(votes[i, m])]), shown, *what))
    who, does = Column(say("component"), facet="head"), (Column(say("job")), Column(say("where"), facet="role"))
    graded = Column(say("grade")), Column(say("methods that support it")), Column(say("methods that contradict it"))
    voted = Column(say("method")), Column(say("vote")), Column(say("size"))
    reading = say(
        "A claim is made by patching one component alone at one word. Every other method that measured something "
        "there votes: it contradicts only where its whole interval says otherwise. Sizes are in each method's own "
        "units."
    )
    title = say("What each component does, and which methods agree ({count})", count=len(rows))
    said = tuple(("", text) for text in verdict.said_labels("claim_said"))
    return [
        Details(title, (Table(say("Claims"), (who, *does, *graded), tuple(rows)),), open=True, reading=reading),
        Facts(said, say("The same in words")),
        Details(say("Every vote"), (Table(say("Votes"), (who, *voted, *does), tuple(long)),)),
    ]


def _said(verdict: Result | None) -> tuple[tuple[str, str], ...]:
    """What the verdict says of the methods and of itself."""
    named = {
        "agreement": say("Agreement:"),
        "disagreement": say("Disagreement:"),
        "disagreements": say("Disagreements:"),
        "limits": say("Limits:"),
    }
    texts = {name: "" if verdict is None else verdict.said(name) for name in named}
    return tuple((heading, texts[name]) for name, heading in named.items() if texts[name] not in ("", "none"))


def _limits() -> tuple[tuple[str, str], ...]:
    """What no result here can say."""
    return (
        (
            say("Patching"),
            say("answers for these prompts and this corruption only; corrupting otherwise can show other places."),
        ),
        (
            say("Sufficient and needed"),
            say(
                "differ. A head that is sufficient but not needed may have a backup; one that is needed but not "
                "sufficient works together with others."
            ),
        ),
        (
            say("Direct contributions"),
            say("count the last step only: a head that feeds another head shows nothing here."),
        ),
        (say("Ablation"), say("takes the model off its usual activations, zero ablation most of all.")),
        (say("A probe"), say("shows that something can be read, not that the model reads it.")),
        (
            say("Intervals"),
            say(
                "cover the choice of prompts, not the choice of template, task or model. They hold cell by cell and "
                "are not corrected for the number of cells."
            ),
        ),
    )


def _counts(run: RunInputs) -> tuple[tuple[str, str], ...]:
    items = []
    for name in ("behavior", *run.explaining):
        result = run.get(name)
        if result is not None:
            title = result.said("title") or name
            seed = result.attr("seed")
            if result.of_weights:
                text = say("no prompts: it reads the weights alone; seed {seed}.", seed=seed)
            else:
                text = say("{n} prompts, seed {seed}.", n=result.attr("n_prompts"), seed=seed)
            items.append((f"{title}:", text))
    text = say(
        "{level:.0%}. Shares use Wilson's interval; means and ratios of means over prompts or folds use a percentile "
        "bootstrap of {resamples:,} resamples with seed {seed}. Verdict, page and report.json show the same interval "
        "of the same number.",
        level=stats.LEVEL, resamples=stats.RESAMPLES, seed=stats.SEED,
    )  # fmt: skip
    return (*items, (say("Intervals:"), text))


def _agreement(maps: Mapping[str, xr.Dataset]) -> Figure:
    names = [say_stored(name) for name in maps]
    flat = [one["mean"].values.ravel().astype(np.float64) for one in maps.values()]
    keep = np.isfinite(np.stack(flat)).all(axis=0)
    values = np.array([[stats.spearman(a[keep], b[keep]) for b in flat] for a in flat])
    scale = Scale.centred(1.0, units=say("Spearman's rank correlation"), name=say("agreement"))
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names))]
    grid = Grid(
        values,
        names,
        names,
        "",
        "",
        cells={(i, j): say("{one} and {other}", one=names[i], other=names[j]) for i, j in pairs},
    )
    drawn = heatmap(
        grid,
        scale,
        key="agreement-map",
        title=say("Agreement between methods"),
        description=say("Rank correlation of head importance between methods"),
        cell=(58.0, 28.0),
    )
    rows: list[tuple[Cell, ...]] = [
        (names[i], names[j], float(values[i, j]), int(keep.sum())) for i, j in pairs if i < j
    ]
    headings = (say("method"), say("other method"), say("Spearman's rank correlation"), say("heads"))
    reading = say(
        "Every method ranks all heads by how much they matter. 1: the same order; 0: unrelated; negative: opposed. "
        "Direct contribution measures another thing than the causal methods, so full agreement is not expected. No "
        "interval is given: the heads are all there are, not a sample."
    )
    return Figure(
        "agreement",
        say("Do the methods rank the heads alike?"),
        reading,
        (Panel("", drawn),),
        (Table(say("Rank correlation over heads"), tuple(Column(h) for h in headings), tuple(rows)),),
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
        reading = say("more sufficient than needed: others can stand in for it")
        if b > a:
            reading = say("more needed than sufficient: it works together with others")
        both = Size(a, a_low, a_high), Size(b, b_low, b_high)
        found.append((abs(a - b), (head_label(layer, head), *both, reading)))
    found.sort(key=lambda row: (-row[0], str(row[1][0])))
    columns = (
        Column(say("head"), facet="head"),
        Column(say("denoising: recovered"), say("share of gap")),
        Column(say("noising: lost"), say("share of gap")),
        Column(say("reading")),
    )
    title = say("Heads whose two directions differ by more than {split}, with intervals apart", split=SPLIT)
    return Table(title, columns, tuple(row for _, row in found))
