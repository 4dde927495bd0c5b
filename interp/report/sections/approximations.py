"""Gradient approximations beside exact patching: which are good as numbers, which as a ranking, which for nothing."""

from __future__ import annotations

import math

import numpy as np

from interp.errors import InterpError
from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import line_legend
from interp.report.markup import figure_number
from interp.report.scatter import Mark, diagonal
from interp.report.tables import Cell, Column, Table, interval_text

_TONES = {True: "b", False: "a"}

_BANNERS = {
    "nothing": ("Do not use these approximations here", "Patch exactly instead (interp.sweep)."),
    "ranking": (
        "Use these approximations as a ranking only",
        "Their order tells what to patch exactly (interp.sweep); their numbers are not effects.",
    ),
}
_WORDS = {"numbers": "good as numbers", "ranking": "a ranking only", "nothing": "not to be used"}


def section(audit: Result) -> Section:
    """Banners for what is not to be trusted, then every approximation against exact patching."""
    names, uses, reasons = (audit.labels(name) for name in ("approximation", "use", "reason"))
    unknown = set(uses) - set(_WORDS)
    if unknown:
        raise InterpError(f"{audit.file}: variable 'use' has the unknown value '{min(unknown)}'.")
    blocks: list[Block] = []
    for use, (title, advice) in _BANNERS.items():
        said = [f"{name}: {reason}" for name, one, reason in zip(names, uses, reasons, strict=True) if one == use]
        if said:
            blocks.append(Notice("warn", title, f"{'. '.join(said)}. {advice}"))
    blocks.append(_figure(audit, names, uses))
    blocks.append(Facts(_facts(audit, uses), "In short"))
    lead = audit.attr("question") or "Where can a gradient stand in for patching?"
    return Section(
        "approximations", "Whether a gradient would have told", lead, tuple(blocks), "Gradients against patching"
    )


def _figure(audit: Result, names: tuple[str, ...], uses: tuple[str, ...]) -> Figure:
    estimated, exact, largest = (
        audit.need(name, "approximation", "audited").values for name in ("estimated", "exact", "looked_largest")
    )
    cells = audit.need("cell", "approximation", "audited").values
    slope, pearson = (audit.need(name, "approximation").values for name in ("slope", "pearson"))
    interval = audit.need("slope_interval", "approximation", "ci_bound").values
    units = audit.units("exact")
    panels, rows = [], []
    for i, name in enumerate(names):
        held = np.isfinite(exact[i])
        listed = [
            (str(cells[i, j]), float(estimated[i, j]), float(exact[i, j]), bool(largest[i, j]))
            for j in np.flatnonzero(held)
        ]
        rows += [(name, cell, "largest" if top else "random", guess, true) for cell, guess, true, top in listed]
        marks = [Mark(true, guess, cell, _TONES[top]) for cell, guess, true, top in listed]
        drawn = diagonal(
            marks,
            across=f"exact ({units})",
            upwards=f"estimated ({units})",
            key=f"approximation-{i}",
            title=f"{name}: exact and estimated effects",
            description=f"{len(marks)} audited patches; those on the diagonal are estimated right.",
            slope=float(slope[i]),
        )
        stated = f"slope {_slope(float(slope[i]), interval[i])}"
        subtitle = f"{stated}, Pearson {figure_number(float(pearson[i]), 2)}: {_WORDS[uses[i]]}"
        panels.append(Panel(name, drawn, subtitle=subtitle))
    columns = (Column("approximation"), Column("patch"), Column("chosen as"))
    table = Table("Audited patches", (*columns, Column("estimated", units), Column("exact", units)), tuple(rows))
    legend = [("looked largest", "b"), ("drawn at random", "a"), ("equal", "c"), ("slope", "e")]
    return Figure.of(
        audit,
        "approximation-figure",
        "Estimated against exact effects",
        audit.attr("reading"),
        panels=tuple(panels),
        tables=(_sizes(audit, names, uses), _order(audit, names), table),
        legend=line_legend(legend, key="approximations-l"),
    )


def _slope(value: float, interval: np.ndarray) -> str:
    """A slope and its interval, with as many decimals as it needs to be seen not to be 0."""
    digits = 2 if not value or not math.isfinite(value) else max(2, 1 - math.floor(math.log10(abs(value))))
    return f"{figure_number(value, digits)} {_interval(interval, digits)}".rstrip()


def _interval(bounds: np.ndarray, digits: int = 2) -> str:
    return interval_text(float(bounds[0]), float(bounds[1]), digits)


def _sizes(audit: Result, names: tuple[str, ...], uses: tuple[str, ...]) -> Table:
    """Whether the numbers are right."""
    values = _values(audit, "slope", "largest_effect", "median_error", "largest_error", "sign_errors", "n_large")
    interval = audit.need("slope_interval", "approximation", "ci_bound").values
    share = "share of largest effect"
    columns = (
        Column("approximation"), Column("good for"), Column("slope [95%]"),
        Column("largest effect", audit.units("largest_effect")), Column("median error", share, 2),
        Column("largest error", share, 2), Column("wrong signs"), Column("large effects"),
    )  # fmt: skip
    rows = [
        (
            name, uses[i], _slope(values["slope"][i], interval[i]),
            *(values[key][i] for key in ("largest_effect", "median_error", "largest_error")),
            *(_count(values[key][i]) for key in ("sign_errors", "n_large")),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Table("Size of the estimates beside exact patching", columns, tuple(rows))


def _order(audit: Result, names: tuple[str, ...]) -> Table:
    """Whether the right cells are found."""
    figures = ("pearson", "spearman", "rank_agreement", "top_k_recall", "missed_rate", "false_alarm_rate")
    values = _values(audit, *figures, "n_audited", "n_cells")
    missed, false = (
        audit.need(f"{name}_interval", "approximation", "ci_bound").values for name in ("missed", "false_alarm")
    )
    columns = (
        Column("approximation"), Column("Pearson", digits=2), Column("Spearman", digits=2),
        Column("rank agreement", digits=2), Column("largest found", "share", 2), Column("missed", "share", 2),
        Column("[95%]"), Column("false alarms", "share", 2), Column("[95%]"), Column("patched exactly"),
        Column("cells"),
    )  # fmt: skip
    rows = [
        (
            name, *(values[key][i] for key in figures[:5]), _interval(missed[i]),
            values["false_alarm_rate"][i], _interval(false[i]),
            *(_count(values[key][i]) for key in ("n_audited", "n_cells")),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Table("Agreement of each approximation with exact patching", columns, tuple(rows))


def _values(audit: Result, *names: str) -> dict[str, list[float]]:
    return {name: [float(value) for value in audit.need(name, "approximation").values] for name in names}


def _count(value: float) -> Cell:
    return int(value) if math.isfinite(value) else None


def _facts(audit: Result, uses: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    counts = [(_WORDS[use], uses.count(use)) for use in _WORDS]
    limit = {
        name: float(audit.need_attr(name))
        for name in ("large", "minimum_agreement", "maximum_factor", "maximum_median_error", "maximum_error")
    }
    factor = limit["maximum_factor"]
    facts = [
        ("Of the approximations:", f"{', '.join(f'{n} {words}' for words, n in counts if n)}."),
        (
            "Good as numbers:",
            f"the slope's interval lies within {1 / factor:.3g} to {factor:.3g}; the median error of large effects is "
            f"at most {limit['maximum_median_error']:.0%} and any error at most {limit['maximum_error']:.0%} of the "
            f"largest effect; Pearson and rank agreement are at least {limit['minimum_agreement']:.3g}; no large "
            "effect has the wrong sign, is missed or is a false alarm.",
        ),
        ("Large:", f"at least {limit['large']:.0%} of the largest exact effect of the audited patches."),
        (
            "Slope:",
            "of estimated = slope x exact, by least absolute errors; its interval is a bootstrap over prompts with the "
            "audited patches held fixed.",
        ),
        ("Prompts:", f"{audit.attr('n_prompts')}, {audit.attr('direction')}, {audit.attr('metric')}."),
    ]
    if audit.attr("left_out") not in ("", "none"):
        facts.append(("Not offered for this architecture:", f"{audit.attr('left_out')}."))
    return tuple(facts)
