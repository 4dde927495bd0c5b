"""Gradient approximations beside exact patching: which are good as numbers, which as a ranking, which for nothing."""

from __future__ import annotations

import math

import numpy as np

from interp import language
from interp.errors import InterpError
from interp.language import say, say_reasons, say_stored
from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import line_legend
from interp.report.markup import figure_number
from interp.report.scatter import Mark, diagonal
from interp.report.tables import Cell, Column, Size, Table

_TONES = {True: "b", False: "a"}

USES = ("numbers", "ranking", "nothing")
"""What an approximation is good for, as the audit says it."""


def _use(use: str) -> str:
    """What an approximation is good for, in words."""
    match use:
        case "numbers":
            return say("good as numbers")
        case "ranking":
            return say("a ranking only")
        case "nothing":
            return say("not to be used")
    raise LookupError(use)


def _banners() -> dict[str, tuple[str, str]]:
    """Use -> (title, advice), for what is not to be trusted."""
    return {
        "nothing": (
            say("Do not use these approximations here"),
            say("Patch exactly instead (interp.sweep)."),
        ),
        "ranking": (
            say("Use these approximations as a ranking only"),
            say("Their order tells what to patch exactly (interp.sweep); their numbers are not effects."),
        ),
    }


def section(audit: Result) -> Section:
    """Banners for what is not to be trusted, then every approximation against exact patching."""
    names, uses, reasons = audit.labels("approximation"), audit.labels("use"), audit.labels("reason")
    unknown = set(uses) - set(USES)
    if unknown:
        raise InterpError(f"{audit.file}: variable 'use' has the unknown value '{min(unknown)}'.")
    blocks: list[Block] = []
    for use, (title, advice) in _banners().items():
        said = [
            f"{say_stored(name)}: {say_reasons(reason)}"
            for name, one, reason in zip(names, uses, reasons, strict=True)
            if one == use
        ]
        if said:
            blocks.append(Notice("warn", title, f"{'. '.join(said)}. {advice}"))
    blocks.append(_figure(audit, names, uses))
    blocks.append(Facts(_facts(audit, uses), say("In short")))
    lead = audit.said("question") or say("Where can a gradient stand in for patching?")
    return Section(
        "approximations",
        say("Whether a gradient would have told"),
        lead,
        tuple(blocks),
        say("Gradients against patching"),
    )


def _place(cell: str) -> str:
    """Where a patch was made: a place, or an edge between two."""
    return language.path(cell) if " -> " in cell else str(say_stored(cell))


def _figure(audit: Result, names: tuple[str, ...], uses: tuple[str, ...]) -> Figure:
    estimated, exact, largest = (
        audit.need(name, "approximation", "audited").values for name in ("estimated", "exact", "looked_largest")
    )
    cells = audit.need("cell", "approximation", "audited").values
    slope, pearson = (audit.need(name, "approximation").values for name in ("slope", "pearson"))
    interval = audit.need("slope_interval", "approximation", "ci_bound").values
    units = audit.units("exact")
    panels, rows = [], []
    for i, name in enumerate(map(say_stored, names)):
        held = np.isfinite(exact[i])
        listed = [
            (_place(str(cells[i, j])), float(estimated[i, j]), float(exact[i, j]), bool(largest[i, j]))
            for j in np.flatnonzero(held)
        ]
        rows += [
            (name, cell, say("largest") if top else say("random"), guess, true) for cell, guess, true, top in listed
        ]
        marks = [Mark(true, guess, cell, _TONES[top]) for cell, guess, true, top in listed]
        drawn = diagonal(
            marks,
            across=say("exact ({units})", units=say_stored(units)),
            upwards=say("estimated ({units})", units=say_stored(units)),
            key=f"approximation-{i}",
            title=say("{name}: exact and estimated effects", name=name),
            description=say("{count} audited patches; those on the diagonal are estimated right.", count=len(marks)),
            slope=float(slope[i]),
        )
        stated = say("slope {slope}", slope=_slope(float(slope[i]), interval[i]).text)
        subtitle = f"{stated}, Pearson {figure_number(float(pearson[i]), 2)}: {_use(uses[i])}"
        panels.append(Panel(name, drawn, subtitle=subtitle))
    columns = (Column(say("approximation")), Column(say("patch")), Column(say("chosen as")))
    table = Table(
        say("Audited patches"), (*columns, Column(say("estimated"), units), Column(say("exact"), units)), tuple(rows)
    )
    legend = [(say("looked largest"), "b"), (say("drawn at random"), "a"), (say("equal"), "c"), (say("slope"), "e")]
    return Figure.of(
        audit,
        "approximation-figure",
        say("Estimated against exact effects"),
        audit.said("reading"),
        panels=tuple(panels),
        tables=(_sizes(audit, names, uses), _order(audit, names), table),
        legend=line_legend(legend, key="approximations-l"),
    )


def _slope(value: float, interval: np.ndarray) -> Size:
    """A slope and its interval, with as many decimals as it needs to be seen not to be 0."""
    digits = 2 if not value or not math.isfinite(value) else max(2, 1 - math.floor(math.log10(abs(value))))
    return Size(value, float(interval[0]), float(interval[1]), digits=digits)


def _sizes(audit: Result, names: tuple[str, ...], uses: tuple[str, ...]) -> Table:
    """Whether the numbers are right."""
    values = _values(audit, "slope", "largest_effect", "median_error", "largest_error", "sign_errors", "n_large")
    interval = audit.need("slope_interval", "approximation", "ci_bound").values
    share = say("share of largest effect")
    columns = (
        Column(say("approximation")), Column(say("good for")), Column(say("slope")),
        Column(say("largest effect"), audit.units("largest_effect")), Column(say("median error"), share, 2),
        Column(say("largest error"), share, 2), Column(say("wrong signs")), Column(say("large effects")),
    )  # fmt: skip
    rows = [
        (
            name, _use(uses[i]), _slope(values["slope"][i], interval[i]),
            *(values[key][i] for key in ("largest_effect", "median_error", "largest_error")),
            *(_count(values[key][i]) for key in ("sign_errors", "n_large")),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Table(say("Size of the estimates beside exact patching"), columns, tuple(rows))


def _order(audit: Result, names: tuple[str, ...]) -> Table:
    """Whether the right cells are found."""
    figures = ("pearson", "spearman", "rank_agreement", "top_k_recall", "missed_rate", "false_alarm_rate")
    values = _values(audit, *figures, "n_audited", "n_cells")
    missed, false = (
        audit.need(f"{name}_interval", "approximation", "ci_bound").values for name in ("missed", "false_alarm")
    )
    share = say("share")
    columns = (
        Column(say("approximation")), Column("Pearson", digits=2), Column("Spearman", digits=2),
        Column(say("rank agreement"), digits=2), Column(say("largest found"), share, 2),
        Column(say("missed"), share), Column(say("false alarms"), share),
        Column(say("patched exactly")), Column(say("cells")),
    )  # fmt: skip
    rows = [
        (
            name, *(values[key][i] for key in figures[:4]),
            Size(values["missed_rate"][i], float(missed[i, 0]), float(missed[i, 1])),
            Size(values["false_alarm_rate"][i], float(false[i, 0]), float(false[i, 1])),
            *(_count(values[key][i]) for key in ("n_audited", "n_cells")),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Table(say("Agreement of each approximation with exact patching"), columns, tuple(rows))


def _values(audit: Result, *names: str) -> dict[str, list[float]]:
    return {name: [float(value) for value in audit.need(name, "approximation").values] for name in names}


def _count(value: float) -> Cell:
    return int(value) if math.isfinite(value) else None


def _facts(audit: Result, uses: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    counts = [(_use(use), uses.count(use)) for use in USES]
    limit = {
        name: float(audit.need_attr(name))
        for name in ("large", "minimum_agreement", "maximum_factor", "maximum_median_error", "maximum_error")
    }
    factor = limit["maximum_factor"]
    facts = [
        (say("Of the approximations:"), f"{', '.join(f'{n} {words}' for words, n in counts if n)}."),
        (
            say("Good as numbers:"),
            say(
                "the slope's interval lies within {low:.3g} to {high:.3g}; the median error of large effects is at "
                "most {median:.0%} and any error at most {any:.0%} of the largest effect; Pearson and rank agreement "
                "are at least {agreement:.3g}; no large effect has the wrong sign, is missed or is a false alarm.",
                low=1 / factor, high=factor, median=limit["maximum_median_error"], any=limit["maximum_error"],
                agreement=limit["minimum_agreement"],
            ),
        ),
        (
            say("Large:"),
            say("at least {least:.0%} of the largest exact effect of the audited patches.", least=limit["large"]),
        ),
        (
            say("Slope:"),
            say(
                "of estimated = slope x exact, by least absolute errors; its interval is a bootstrap over prompts with "
                "the audited patches held fixed."
            ),
        ),
        (say("Prompts:"), f"{audit.attr('n_prompts')}, {audit.attr('direction')}, {audit.attr('metric')}."),
    ]  # fmt: skip
    if audit.attr("left_out") not in ("", "none"):
        facts.append((say("Not offered for this architecture:"), f"{audit.attr('left_out')}."))
    if audit.attr("spared", "none") != "none":
        facts.append((say("Left out, since one run of this model takes long:"), f"{audit.attr('spared')}."))
    return tuple(facts)
