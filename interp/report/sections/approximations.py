"""Gradient approximations beside exact patching, and which of them are not to be trusted here."""

from __future__ import annotations

import numpy as np

from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.inputs import Result
from interp.report.lines import line_legend
from interp.report.markup import figure_number
from interp.report.scatter import Mark, diagonal
from interp.report.tables import Column, Table, interval_text

_TONES = {True: "b", False: "a"}


def section(audit: Result) -> Section:
    """A banner for what is not to be trusted, then every approximation against exact patching."""
    names = audit.labels("approximation")
    trusted = audit.need("trusted", "approximation").values.astype(bool)
    reasons = audit.labels("reason")
    blocks: list[Block] = []
    bad = [(name, reason) for name, ok, reason in zip(names, trusted, reasons, strict=True) if not ok]
    if bad:
        said = "; ".join(f"{name}: {reason}" for name, reason in bad)
        blocks.append(
            Notice("warn", "Do not trust these approximations here", f"{said}. Patch exactly instead (interp.sweep).")
        )
    blocks.append(_figure(audit, names, trusted))
    blocks.append(Facts(_facts(audit, trusted), "In short"))
    lead = audit.attr("question") or "Where can a gradient stand in for patching?"
    return Section(
        "approximations", "Whether a gradient would have told", lead, tuple(blocks), "Gradients against patching"
    )


def _figure(audit: Result, names: tuple[str, ...], trusted: np.ndarray) -> Figure:
    estimated, exact, largest = (
        audit.need(name, "approximation", "audited").values for name in ("estimated", "exact", "looked_largest")
    )
    cells = audit.need("cell", "approximation", "audited").values
    pearson = audit.need("pearson", "approximation").values
    units = audit.units("exact")
    panels, rows = [], []
    for i, name in enumerate(names):
        held = np.isfinite(exact[i])
        listed = [
            (str(cells[i, j]), float(estimated[i, j]), float(exact[i, j]), bool(largest[i, j]))
            for j in np.flatnonzero(held)
        ]
        rows += [(name, cell, "largest" if top else "random", guess, true) for cell, guess, true, top in listed]
        marks = [Mark(guess, true, cell, _TONES[top]) for cell, guess, true, top in listed]
        drawn = diagonal(
            marks,
            across=f"estimated ({units})",
            upwards=f"exact ({units})",
            key=f"approximation-{i}",
            title=f"{name}: estimated and exact effects",
            description=f"{len(marks)} audited patches; those on the diagonal are estimated right.",
        )
        verdict = f"Pearson {figure_number(float(pearson[i]), 2)}" + ("" if trusted[i] else ", not to be trusted")
        panels.append(Panel(name, drawn, subtitle=verdict))
    columns = (Column("approximation"), Column("patch"), Column("chosen as"))
    table = Table("Audited patches", (*columns, Column("estimated", units), Column("exact", units)), tuple(rows))
    return Figure.of(
        audit,
        "approximation-figure",
        "Estimated against exact effects",
        audit.attr("reading"),
        panels=tuple(panels),
        tables=(_summary(audit, names, trusted), table),
        legend=line_legend([("looked largest", "b"), ("drawn at random", "a"), ("equal", "c")], key="approximations-l"),
    )


def _summary(audit: Result, names: tuple[str, ...], trusted: np.ndarray) -> Table:
    figures = ("pearson", "spearman", "top_k_recall", "missed_rate")
    values = {name: audit.need(name, "approximation").values for name in figures}
    interval = audit.need("missed_interval", "approximation", "ci_bound").values
    counts = [audit.need(name, "approximation").values for name in ("n_audited", "n_cells")]
    columns = (
        Column("approximation"), Column("trusted"), Column("Pearson", digits=2), Column("Spearman", digits=2),
        Column("largest found", "share", 2), Column("missed", "share", 2), Column("95% interval"),
        Column("patched exactly"), Column("cells"),
    )  # fmt: skip
    rows = [
        (
            name, "yes" if trusted[i] else "no", *(float(values[figure][i]) for figure in figures),
            interval_text(float(interval[i, 0]), float(interval[i, 1])), int(counts[0][i]), int(counts[1][i]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Table("Agreement of each approximation with exact patching", columns, tuple(rows))


def _facts(audit: Result, trusted: np.ndarray) -> tuple[tuple[str, str], ...]:
    agreement = figure_number(float(audit.need_attr("minimum_agreement")), 2)
    facts = [
        (
            "Trusted:",
            f"{int(trusted.sum())} of {len(trusted)} approximations correlate with exact patching at {agreement} or "
            "more (Pearson, over the audited patches).",
        ),
        ("Prompts:", f"{audit.attr('n_prompts')}, {audit.attr('direction')}, {audit.attr('metric')}."),
    ]
    if audit.attr("left_out") not in ("", "none"):
        facts.append(("Not offered for this architecture:", f"{audit.attr('left_out')}."))
    return tuple(facts)
