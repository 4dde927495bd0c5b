"""What the model would say if it stopped at a place of its stream: lenses side by side, by depth and by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from interp import _depth as depth
from interp import summary
from interp.language import called, say, say_stored
from interp.report import bounded
from interp.report.blocks import Block, Details, Facts, Figure, Panel, Section
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result
from interp.report.lines import Point, Series, curves, line_legend
from interp.report.palette import Scale
from interp.report.tables import Column, Table, joined, mean_table

TONES = ("a", "b", "d")
"""Of the curves; what there is beyond them stands in the tables."""


def _names() -> dict[str, str]:
    return {"logit": say("logit lens"), "tuned": say("tuned lens"), "jacobian": say("Jacobian lens")}


@dataclass(frozen=True)
class _Lenses:
    """A result whose variables all have the axis ``lens``, and where on the page it is drawn.

    Attributes:
        result: the result.
        key: anchor of its section.
        role: the word at which curves are drawn: the one that is asked for the answer.
        points: the places of the stream, from the first to the last: site, number of the layer, and label.
    """

    result: Result
    key: str
    role: str
    points: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, result: Result) -> _Lenses:
        data = result.data if "lens" in result.data.dims else result.data.expand_dims(lens=["logit"])
        roles = result.labels("role")
        role = "answer" if "answer" in roles else roles[-1]
        return cls(Result(result.name, data), result.name.replace("_", "-"), role, _points(result))

    @property
    def lenses(self) -> tuple[str, ...]:
        """The names of the lenses, as a reader knows them."""
        return tuple(_names().get(name, name) for name in self.result.labels("lens"))

    @property
    def place(self) -> str:
        """The name of the word."""
        return called("role", self.role)

    @property
    def site(self) -> str:
        """The site of maps and of the layer at which the answer appears: the stream after a layer, if it was read."""
        sites = self.result.labels("site")
        return "resid_post" if "resid_post" in sites else sites[0]

    def by_depth(self, name: str, **at: str) -> xr.Dataset:
        """The summary of a variable at the role over prompts: lens, layer, the places in their order."""
        dims = ("prompt", "lens", "site", "layer", "role", *at)
        whole = self.result.summary(name, *dims).sel(role=self.role, drop=True).sel(at, drop=True)
        return self.in_order(whole)

    def in_order(self, cells: xr.Dataset) -> xr.Dataset:
        """Cells of lens, site and layer as cells of lens and layer, the places of the stream in their order."""
        order = [cells.sel(site=site, drop=True).isel(layer=layer, drop=True) for site, layer, _ in self.points]
        labels = [label for _, _, label in self.points]
        found = xr.concat(order, dim="layer", combine_attrs="override").assign_coords(layer=labels)
        return found.transpose("lens", "layer", ...).assign_coords(lens=list(self.lenses))


def _points(result: Result) -> tuple[tuple[str, int, str], ...]:
    """The places of the stream in the order of computation, each once."""
    sites, found = result.labels("site"), []
    for i, layer in enumerate(result.labels("layer")):
        if "resid_pre" in sites and (i == 0 or "resid_post" not in sites):
            found.append(("resid_pre", i, depth.names("resid_pre", [layer])[0]))
        if "resid_mid" in sites:
            found.append(("resid_mid", i, f"{layer}a"))
        if "resid_post" in sites:
            found.append(("resid_post", i, layer))
    return tuple(found)


def section(result: Result) -> Section:
    """Curves by depth at the answer, calibration, where the answer appears, and every word."""
    lenses = _Lenses.of(result)
    blocks: list[Block] = [
        *_making(lenses),
        _answers(lenses),
        _curves(
            lenses, "kl", say("Distance from what the model says in the end, at {role}", role=lenses.place),
            say("0: the lens says what the model says. {interval}", interval=_interval(lenses.by_depth("kl"))),
            lenses.by_depth("kl"), _by_lens(lenses, lenses.by_depth("kl")),
        ),
        _curves(
            lenses, "calibration", say("Calibration of the token that a lens puts first"),
            say(
                "How far its probability is from how often it is the token that follows, over prompts and words "
                "(expected calibration error, {bins} bins; 0 is calibrated). Shaded: 95% bootstrap interval over "
                "prompts.", bins=result.attr("calibration_bins"),
            ),
            calibration := _calibration(lenses), _by_lens(lenses, calibration),
        ),
        _appearance(lenses),
    ]  # fmt: skip
    blocks += [_words(lenses)] if len(result.labels("role")) > 1 else []
    return Section(lenses.key, result.said("title"), result.said("question"), blocks)


def _making(lenses: _Lenses) -> list[Facts]:
    """What the lenses were made from, where the result says so."""
    result, told = lenses.result, []
    if "tuned_lens_n_prompts" in result.data.attrs:
        told.append((
            say("Tuned lens:"),
            say(
                "an affine map for each place, trained on {n} prompts ({tokens} tokens): ridge regression, then "
                "{steps} steps that lower the divergence from what the model says in the end.",
                n=result.attr("tuned_lens_n_prompts"), tokens=result.attr("tuned_lens_n_tokens"),
                steps=result.attr("tuned_lens_steps"),
            ),
        ))  # fmt: skip
    if "jacobian_lens_n_prompts" in result.data.attrs:
        targets = {
            "later": say("at the same token and all later ones, summed"),
            "same": say("at the same token"),
        }[result.attr("jacobian_lens_targets")]
        told.append((
            say("Jacobian lens:"),
            say(
                "the mean derivative of the stream after the last layer with respect to that at a place, {where}, "
                "over {n} prompts ({tokens} tokens).",
                where=targets, n=result.attr("jacobian_lens_n_prompts"), tokens=result.attr("jacobian_lens_n_tokens"),
            ),
        ))  # fmt: skip
    if told:
        count = result.data.sizes["prompt"]
        told.append((say("Read on:"), say("{n} prompts that neither was made from.", n=count)))
    told += bounded.facts(result)
    return [Facts(tuple(told))] if told else []


def _interval(cells: xr.Dataset) -> str:
    return say("Shaded: {interval}.", interval=summary.in_words(cells))


def _answers(lenses: _Lenses) -> Figure:
    """The log-probability of the correct answer; of one lens that of the incorrect one too."""
    correct = lenses.by_depth("log_probability", answer="correct")
    drawn, one = _by_lens(lenses, correct), len(lenses.lenses) == 1
    answers = lenses.result.labels("answer") if one else ("correct",)
    names = ("log_probability", "probability", "rank") if one else ("log_probability", "rank")
    if one:
        drawn = [
            (say_stored(answer), _series(lenses.by_depth("log_probability", answer=answer).isel(lens=0)))
            for answer in answers
        ]
    tables = [
        (
            f"{say_stored(str(lenses.result.data[name].attrs['long_name']))}, {say_stored(answer)}",
            _table(lenses, lenses.by_depth(name, answer=answer), lenses.result.units(name)),
        )
        for name in names
        for answer in answers
    ]
    return _curves(
        lenses, "answer", say("Log-probability of the answer, at {role}", role=lenses.place),
        f"{lenses.result.said('reading')} {_interval(correct)}", correct, drawn,
        joined(say("What the lens says of the answers, at {role}", role=lenses.place), say("quantity"), tables),
    )  # fmt: skip


def _by_lens(lenses: _Lenses, cells: xr.Dataset) -> list[tuple[str, tuple[Point, ...]]]:
    return [(name, _series(cells.isel(lens=i))) for i, name in enumerate(lenses.lenses)]


def _series(cells: xr.Dataset) -> tuple[Point, ...]:
    columns = (cells[name].values for name in ("mean", "low", "high", "n"))
    return tuple(Point(float(m), float(low), float(high), int(n)) for m, low, high, n in zip(*columns, strict=True))


def _curves(
    lenses: _Lenses,
    name: str,
    title: str,
    reading: str,
    cells: xr.Dataset,
    drawn: Sequence[tuple[str, tuple[Point, ...]]],
    table: Table | None = None,
) -> Figure:
    """A curve by depth for each of what is ``drawn``; its table is that of the cells, or the one given."""
    units = str(cells["mean"].attrs.get("units", ""))
    ends = np.array([x for _, points in drawn for p in points for x in (p.mean, p.low, p.high)])
    ends = ends[np.isfinite(ends)]
    key = f"{lenses.key}-{name}"
    figure = curves(
        [label for _, _, label in lenses.points],
        [Series(called, tone, points) for (called, points), tone in zip(drawn, TONES, strict=False)],
        axis=say("after layer"),
        low=min(0.0, float(ends.min(initial=0.0))),
        high=max(0.0, float(ends.max(initial=0.0))),
        key=key,
        title=title,
        description=say("{title}, by layer, with 95% intervals.", title=title),
        width=330.0,
    )
    entries = [(called, tone) for (called, _), tone in zip(drawn, TONES, strict=False)]
    within = say("{layer}: within layer 0, after its attention.", layer="0a")
    return Figure.of(
        lenses.result,
        key,
        title,
        f"{reading} {within}" if any(site == "resid_mid" for site, _, _ in lenses.points) else reading,
        panels=(Panel("", figure),),
        tables=(table or _table(lenses, cells, units),),
        legend=line_legend(entries, key=f"{key}-l", units=f"({say_stored(units)})" if units else ""),
    )


def _table(lenses: _Lenses, cells: xr.Dataset, units: str) -> Table:
    dims = (("lens", say("lens")), ("layer", say("after layer")))
    return mean_table(say("By lens and layer"), cells, dims, units=units, name=say("mean"))


def _calibration(lenses: _Lenses) -> xr.Dataset:
    """The calibration error with its interval, as cells of a summary."""
    error = lenses.result.need("calibration_error", "lens", "site", "layer")
    ends = lenses.result.need("calibration_error_interval", "lens", "site", "layer", "ci_bound")
    low, high = (ends.isel(ci_bound=i, drop=True) for i in (0, 1))
    count = lenses.result.data.sizes["prompt"]
    return lenses.in_order(
        xr.Dataset({"mean": error, "low": low, "high": high, "n": xr.full_like(error, count, dtype=np.int64)})
    )


def _appearance(lenses: _Lenses) -> Details:
    """By which layer half of the prompts have the answer."""
    told = {
        "top": say("it stays the top token from there on"),
        "ahead": say("it is more probable than the incorrect one there"),
    }
    result, at = lenses.result, {"site": lenses.site, "role": lenses.role}
    layer, never = (result.data[name].sel(at) for name in ("appears", "never"))
    ends, count = result.data["appears_interval"].sel(at), result.data.sizes["prompt"]
    columns = (
        Column(say("lens")), Column(say("when it has appeared")), Column(depth.title(lenses.site), digits=0),
        Column(say("95% low"), digits=0), Column(say("95% high"), digits=0), Column(say("never")), Column("n"),
    )  # fmt: skip
    rows = []
    for criterion in result.labels("criterion"):
        for name, label in zip(lenses.lenses, result.labels("lens"), strict=True):
            where = {"lens": label, "criterion": criterion}
            low, high = ends.sel(where).values.tolist()
            seen = (float(layer.sel(where)), float(low), float(high))
            rows.append((name, told.get(criterion, criterion), *seen, int(never.sel(where)), count))
    title = say("The layer at which the answer appears, at {role}", role=lenses.place)
    reading = say(
        "The first layer by which half of the prompts have it, with a bootstrap interval over prompts. Prompts in "
        "which it never appears count as later than every layer; ∞: half of the prompts do not have it."
    )
    return Details(title, (Table(title, columns, tuple(rows)),), open=True, reading=reading)


def _words(lenses: _Lenses) -> Figure | Details:
    """The log-probability of the correct answer at every word: a map of one lens, a table of several."""
    cells = lenses.result.summary("log_probability", "prompt", "lens", "site", "layer", "role", "answer")
    cells = depth.named(cells.sel(site=lenses.site, answer="correct", drop=True), lenses.site)
    cells = cells.assign_coords(lens=list(lenses.lenses))
    title, units = say("Log-probability of the correct answer, at every word"), lenses.result.units("log_probability")
    dims = (("lens", say("lens")), ("layer", depth.title(lenses.site)), ("role", say("role")))
    table = mean_table(title, cells, dims, units=units, name=say("mean"))
    reading = say(
        "Whether the answer can be read at a word already, before it is asked for. {interval}",
        interval=say("Mean over prompts. Interval: {interval}.", interval=summary.in_words(cells)),
    )
    if len(lenses.lenses) > 1:
        return Details(title, (table,), reading=reading)
    finite = cells["mean"].values[np.isfinite(cells["mean"].values)]
    scale = Scale.rising(float(finite.min(initial=0.0)), 0.0, units=say_stored(units), name=title)
    key = f"{lenses.key}-words"
    shown = cells.isel(lens=0, drop=True)
    grid = Grid.of(
        shown, "layer", "role", row_title=depth.title(lenses.site), column_title=say("role"),
        cells=depth.cells(shown, lenses.site),
    )  # fmt: skip
    said = say("{title}, by layer, with 95% intervals.", title=title)
    return Figure.of(
        lenses.result,
        key,
        title,
        reading,
        panels=(Panel("", heatmap(grid, scale, key=f"{key}-0", title=title, description=said)),),
        tables=(table,),
        legend=colour_legend(scale, key=f"{key}-l", digits=1),
    )
