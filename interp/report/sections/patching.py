"""What carries the answer: exact patching of blocks and heads, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from interp import _depth as depth
from interp import summary
from interp.errors import InterpError
from interp.language import called, say, say_stored
from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.heat import Grid, colour_legend, head_grid, heatmap
from interp.report.inputs import Result
from interp.report.markup import figure_number, token
from interp.report.palette import Scale
from interp.report.tables import Column, Table, interval_text, joined, mean_table
from interp.report.verdict import Verdict
from interp.sites import SITES, STAGES, Site, head_label

_LIMITS = (1.0, 1.5)
"""The colours reach this far: to 1 unless an effect passes it by a tenth, and never beyond 1.5."""

_NOTHING = 0.05
"""Below this recovered fraction no place is called the most sufficient one."""

Marks = Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class _Direction:
    """How a direction is explained on the page."""

    effect: str
    shown: str
    reading: str


def _directions() -> dict[str, _Direction]:
    return {
        "denoising": _Direction(
            say("Sufficient (denoising)"),
            say("Corrupted prompt, this one place made clean: what comes back"),
            say(
                "the corrupted prompt runs, one place is overwritten with its clean value. 1 means that this place "
                "alone brings the clean answer back, 0 that it changes nothing."
            ),
        ),
        "noising": _Direction(
            say("Needed (noising)"),
            say("Clean prompt, this one place corrupted: what is lost"),
            say(
                "the clean prompt runs, one place is overwritten with its corrupted value. 1 means that without this "
                "place nothing of the clean answer is left, 0 that it changes nothing."
            ),
        ),
    }


def gap() -> str:
    """The units of an effect."""
    return say("share of the clean–corrupted gap")


def section(patching: Result, verdict: Verdict) -> Section:
    """Heatmaps of every patched site, one map per direction."""
    for name in patching.labels("direction"):
        if name not in summary.DIRECTIONS:
            raise InterpError(
                f"{patching.file}: direction '{name}' is neither denoising nor noising; run the study again."
            )
    told = [(f"{one.effect}:", one.reading) for one in _directions().values()]
    left_out = patching.attr("left_out", "none")
    if left_out not in ("", "none"):
        told.append((say("Sites that were not patched:"), left_out))
    how = Facts((*told, _units(patching)), say("How to read these maps"))
    blocks: list[Block] = [how, *_small_gaps(patching), *_unmoved(patching)]
    marks = verdict.marks()
    for site in _in_order(SITES.values()):
        blocks += _figures(patching, site, marks)
    lead = patching.said("question") or say("Which activations carry the answer, at which word and layer?")
    return Section("patching", say("What carries it"), lead, blocks)


def _in_order(sites: Iterable[Site]) -> list[Site]:
    """What all heads share first, in the order of computation; then the heads', from what they write back to q."""
    computed = sorted(sites, key=lambda site: STAGES.index(site.stage))
    of_heads = [site for site in reversed(computed) if site.has_heads]
    return [*(site for site in computed if not site.has_heads), *of_heads]


def _figures(patching: Result, site: Site, marks: Marks) -> list[Block]:
    """The maps of one site, as far as it was patched."""
    name, found = site.name, []
    if patching.has(f"recovered_{name}"):
        found.append(_head_figure(patching, name, marks) if site.has_heads else _block_figure(patching, name))
    if patching.has(f"recovered_{name}_role"):
        found.append(_role_figure(patching, name, marks))
    if patching.has(f"recovered_{name}_position"):
        found.append(_position_figure(patching, name))
    return list(found)


def _units(patching: Result) -> tuple[str, str]:
    """What 0 and 1 mean."""
    metric = say_stored(patching.attr("metric", "logit_difference").replace("_", " "))
    return (
        say("Units:"),
        say(
            "in both, 0 is no effect and 1 the whole gap between the clean and the corrupted {metric}. Values beyond 0 "
            "and 1 are real and kept. The tables also give recovered, (patched − corrupted) / (clean − corrupted): it "
            "is sufficient itself, and 1 − needed.",
            metric=metric,
        ),
    )


def _small_gaps(patching: Result) -> list[Block]:
    """A note if the gap of some prompts is too small for a recovered fraction of their own."""
    small = int(patching.need_attr("n_small_gap"))
    if not small:
        return []
    text = say(
        "For {small} of {n} prompts the gap between clean and corrupted is too small to divide by (below {least} "
        "{units}): they have no recovered of their own. They count in the ratios of means, which divide by the mean "
        "gap.",
        small=small, n=patching.data.sizes["prompt"], units=patching.units("clean"),
        least=figure_number(float(patching.need_attr("minimum_gap")), 2),
    )  # fmt: skip
    return [Notice("note", say("Small gaps"), text)]


def _unmoved(patching: Result) -> list[Block]:
    """A warning if some sweep changed nothing at all, which is more often a mistake than a finding."""
    names = patching.attr("no_effect")
    if names in ("", "none"):
        return []
    text = say(
        "These sweeps changed no logit of any prompt: {names}. Check that the patched places differ at all.",
        names=names,
    )
    return [Notice("warn", say("Patches without effect"), text)]


@dataclass(frozen=True)
class _Sweep:
    """One variable ``recovered_*`` averaged over prompts, and how its maps are coloured and captioned.

    Attributes:
        patching: the result.
        site: what was patched.
        variable: the variable's name.
        axes: the axes beside direction and layer, in table order.
    """

    patching: Result
    site: str
    variable: str
    axes: tuple[str, ...]
    mean: xr.Dataset
    scale: Scale

    @classmethod
    def of(cls, patching: Result, site: str, kind: str, *axes: str) -> _Sweep:
        variable = f"recovered_{site}{kind}"
        mean = depth.named(patching.summary(variable, "direction", "prompt", "layer", *axes), site)
        shown = [
            summary.effect(mean.isel(direction=i), direction)["mean"].values
            for i, direction in enumerate(patching.labels("direction"))
        ]
        return cls(patching, site, variable, axes, mean, _scale(np.stack(shown)))

    def shown(self, direction: str, **at: int) -> xr.Dataset:
        """What the map of a direction shows: recovered or lost."""
        index = self.patching.labels("direction").index(direction)
        return summary.effect(self.mean.isel({"direction": index, **at}, drop=True), direction)

    def figure(self, key: str, title: str, reading: str, panels: Sequence[Panel], *, marks: bool = False) -> Figure:
        dims = [("layer", depth.title(self.site)), *((axis, say_stored(axis)) for axis in self.axes)]
        heading = say(
            "{variable}: ratio of the means over prompts. Intervals: {interval}",
            variable=self.variable, interval=summary.in_words(self.mean),
        )  # fmt: skip
        return Figure.of(
            self.patching,
            key,
            title,
            reading,
            panels=tuple(panels),
            tables=(self.table(heading, dims),),
            legend=colour_legend(self.scale, key=f"{key}-l", marks=marks),
        )

    def table(self, title: str, dims: Sequence[tuple[str, str]]) -> Table:
        """Every cell of every direction: its effect as the maps show it, and recovered itself."""
        parts = []
        for i, name in enumerate(self.patching.labels("direction")):
            raw = self.mean.isel(direction=i, drop=True)
            shown = mean_table(name, self.shown(name), dims, units=gap(), name=say("effect"))
            kept = raw["mean"].transpose(*(dim for dim, _ in dims)).values.ravel()
            rows = tuple((*row, float(value)) for row, value in zip(shown.rows, kept, strict=True))
            parts.append((_directions()[name].effect, Table(name, (*shown.columns, Column("recovered")), rows)))
        return joined(title, say("effect is"), parts)

    def strongest(self) -> str:
        """The most sufficient cell, in words; empty without denoising."""
        if "denoising" not in self.patching.labels("direction"):
            return ""
        one = self.shown("denoising").transpose("layer", *self.axes)
        values = one["mean"].values
        if not np.isfinite(values).any():
            return ""
        if np.nanmax(values) < _NOTHING:
            return say("No place alone brings back {least:.0%} of the gap.", least=_NOTHING)
        at = np.unravel_index(int(np.nanargmax(values)), values.shape)
        labels = {axis: self.patching.labels(axis)[int(i)] for axis, i in zip(("layer", *self.axes), at, strict=True)}
        where = depth.where(self.site, str(self.mean["layer"].values[int(at[0])]))
        where += ", " + ", ".join(f"{say_stored(axis)} {called(axis, labels[axis])}" for axis in self.axes)
        if self.axes[0] == "head":
            where = head_label(int(at[0]), int(at[1]))
            if "role" in labels:
                where = say("{head} at {role}", head=where, role=called("role", labels["role"]))
        low, high = (float(one[bound].values[at]) for bound in ("low", "high"))
        size = figure_number(float(values[at]), 2)
        return say(
            "Most sufficient: {where}, with {size} of the gap.", where=where, size=f"{size} {interval_text(low, high)}"
        )


def _scale(values: np.ndarray) -> Scale:
    size = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    limit = _LIMITS[0] if size <= 1.1 * _LIMITS[0] else min(math.ceil(size * 10) / 10, _LIMITS[1])
    return Scale.centred(limit, units=gap(), name=say("sufficient, or needed"))


def _panels(sweep: _Sweep, grids: Mapping[str, Grid], site: str, key: str, **drawing: object) -> list[Panel]:
    """One panel per direction."""
    panels = []
    for direction, grid in grids.items():
        words = _directions()[direction]
        drawn = heatmap(
            grid,
            sweep.scale,
            key=f"{key}-{direction}",
            title=f"{site}, {words.effect}",
            description=f"{words.shown}: {grid.row_title}, {grid.column_title}",
            **drawing,  # type: ignore[arg-type]
        )
        panels.append(Panel(words.effect, drawn, words.shown, wide=len(grid.columns) > 24))
    return panels


def _block_figure(patching: Result, site: str) -> Figure:
    sweep = _Sweep.of(patching, site, "", "role")
    grids = {
        direction: Grid.of(
            sweep.shown(direction),
            "layer",
            "role",
            row_title=depth.title(site),
            column_title=say("role"),
            cells=depth.cells(sweep.shown(direction), site),
        )
        for direction in patching.labels("direction")
    }
    reading = f"{site}: {say_stored(SITES[site].description)}. {sweep.strongest()}"
    panels = _panels(sweep, grids, site, f"block-{site}", cell=(46.0, 28.0))
    return sweep.figure(f"patch-{site}", say("{site} by layer and role", site=site), reading, panels)


def _position_figure(patching: Result, site: str) -> Figure:
    sweep = _Sweep.of(patching, site, "_position", "position")
    count = patching.data.sizes["position"]
    names = patching.labels("token") if patching.has("token") else tuple(str(i) for i in range(count))
    tokens = [token(text) for text in names]
    cells = {
        (r, c): f"{depth.where(site, str(layer))} · {tokens[c]} ({c})"
        for r, layer in enumerate(sweep.mean["layer"].values)
        for c in range(count)
    }
    title = say("position (token of the first prompt)")
    grids = {
        direction: Grid.of(
            sweep.shown(direction),
            "layer",
            "position",
            row_title=depth.title(site),
            column_title=title,
            columns=tokens,
            cells=cells,
        )
        for direction in patching.labels("direction")
    }
    reading = say(
        "{site} at every position. All prompts share one template, so a column is the same place in each of them.",
        site=site,
    )
    panels = _panels(sweep, grids, site, f"position-{site}", cell=(20.0, 22.0), annotate=False)
    return sweep.figure(f"patch-{site}-position", say("{site} by layer and position", site=site), reading, panels)


def _head_figure(patching: Result, site: str, marks: Marks) -> Figure:
    axis = _head_axis(patching, f"recovered_{site}")
    sweep = _Sweep.of(patching, site, "", axis)
    grids = {direction: head_grid(sweep.shown(direction), axis, marks) for direction in patching.labels("direction")}
    shared = ""
    if axis == "kv_head":
        shared = " " + say("This model is grouped-query: several query heads share one key and value head (kv_head).")
    reading = say(
        "{site}: {what}; all positions at once.{shared} {strongest}",
        site=site, what=say_stored(SITES[site].description), shared=shared, strongest=sweep.strongest(),
    )  # fmt: skip
    outlined = bool(marks) and axis == "head"
    panels = _panels(sweep, grids, site, f"head-{site}")
    return sweep.figure(f"patch-{site}", say("{site} of every head", site=site), reading, panels, marks=outlined)


def _role_figure(patching: Result, site: str, marks: Marks) -> Figure:
    axis = _head_axis(patching, f"recovered_{site}_role")
    sweep = _Sweep.of(patching, site, "_role", axis, "role")
    panels = []
    for direction in patching.labels("direction"):
        words = _directions()[direction]
        group = f"{words.effect}. {words.shown}"
        for r, role in enumerate(patching.labels("role")):
            if not np.isfinite(sweep.shown(direction, role=r)["mean"].values).any():
                continue
            drawn = heatmap(
                head_grid(sweep.shown(direction, role=r), axis, marks),
                sweep.scale,
                key=f"role-{site}-{r}-{direction}",
                title=say("{site} at {role}, {effect}", site=site, role=called("role", role), effect=words.effect),
                description=words.shown,
            )
            panels.append(Panel(say("at {role}", role=called("role", role)), drawn, group=group))
            group = ""
    reading = say(
        "{site} of one head at one word only: where a head does its work. {strongest}",
        site=site, strongest=sweep.strongest(),
    )  # fmt: skip
    title = say("{site} of every head, one word at a time", site=site)
    outlined = bool(marks) and axis == "head"
    return sweep.figure(f"patch-{site}-role", title, reading, panels, marks=outlined)


def _head_axis(patching: Result, variable: str) -> str:
    """``kv_head`` where a grouped-query model has fewer keys and values than queries, else ``head``."""
    return "kv_head" if "kv_head" in patching.data[variable].dims else "head"
