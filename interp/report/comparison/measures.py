"""The numbers of a comparison: behaviour, heads, places, probes, and what arrives in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import xarray as xr

from interp import _depth as depth
from interp import stats, summary
from interp.language import called, say
from interp.report.comparison import findings, sides
from interp.report.comparison.sides import Side
from interp.report.comparison.table import Part, Row, Value
from interp.report.inputs import Result
from interp.report.sections.probe import READABLE
from interp.sites import SITES, head_label

LEAST = 0.05
"""Below this effect no place is called the strongest one."""
LEADING = 5
"""Heads of a sentence that are compared, per run."""

Counted: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Per prompt, what is divided and by what: their sums give the number."""


def parts(runs: Sequence[Side]) -> list[Part]:
    """Everything that can be compared, in order; a part may be without rows."""
    if runs[0].of_sentence:
        return [
            _arrives(runs),
            _predicted(runs),
            _heads_of_sentence(runs),
            _paths_of_sentence(runs),
            _continued(runs),
        ]
    effects = _Patched()
    numbers = [_behaviour(runs), _gaps(runs), _named_heads(runs, effects), _places(runs, effects), _probes(runs)]
    return [*numbers, *findings.parts(runs)]


def _part(
    runs: Sequence[Side], key: str, title: str, reading: str, units: str, rows: Sequence[Row], *, drawn: bool = True
) -> Part:
    return Part(key, title, reading, units, tuple(side.letter for side in runs), tuple(rows), drawn)


# --- differences ---


def _difference(first: Counted | None, other: Counted | None, *, paired: bool) -> Value | None:
    """How far the other number lies above the first, with its interval; None without two numbers."""
    if first is None or other is None:
        return None
    mean, base = (float(np.nansum(top) / np.sum(bottom)) for top, bottom in (other, first))
    low, high = stats.ratio_difference_interval(first, other, paired=paired)
    return Value(mean - base, float(low), float(high))


def _row(name: str, runs: Sequence[Side], values: Sequence[Value | None], counted: Sequence[Counted | None],
         same: Callable[[Side, Side], bool] = sides.same_prompts) -> Row:  # fmt: skip
    first = runs[0]
    differences = [
        _difference(counted[0], counted[i], paired=same(first, side)) for i, side in enumerate(runs[1:], start=1)
    ]
    return Row(name, tuple(values), tuple(differences))


def _mean(values: np.ndarray) -> Counted:
    return values, np.ones(len(values))


# --- behaviour ---


def _behaviour(runs: Sequence[Side]) -> Part:
    rungs = dict.fromkeys(rung for side in runs for rung in sides.rungs(side))
    shares = [
        _share_row(runs, rung, name, variable)
        for rung in rungs
        for name, variable in (
            (say("{rung}: top token", rung=rung), "clean_top1"),
            (say("{rung}: preferred", rung=rung), "clean_preferred"),
        )
    ]
    reading = say(
        "The share of clean prompts whose right answer is the top token, and beats the other answer. "
        "Intervals: Wilson; of differences, Newcombe's."
    )
    return _part(runs, "behaviour", say("Do the models do the task?"), reading, say("share"), shares)


_STORED = {"clean_top1": "accuracy", "clean_preferred": "preferred"}
"""Where the baselines keep the share of a mark of each prompt."""


@dataclass(frozen=True)
class _Share:
    """A share of the prompts of one rung: with its interval, and as a mark of each prompt, whose texts are kept."""

    value: Value
    marks: np.ndarray
    texts: tuple[str, ...]

    @classmethod
    def of(cls, side: Side, rung: str, variable: str) -> _Share | None:
        found, name = sides.behaved(side), _STORED[variable]
        if rung not in found.labels("rung"):
            return None
        i = found.labels("rung").index(rung)
        low, high = found.need(f"{name}_interval", "rung", "ci_bound").values[i]
        of_rung = [at for at, label in enumerate(found.labels("rung_of")) if label == rung]
        marks = np.asarray(found.need(variable, "prompt").values[of_rung], dtype=bool)
        texts = tuple(found.labels("text")[at] for at in of_rung)
        return cls(Value(float(found.need(name, "rung").values[i]), float(low), float(high)), marks, texts)

    def above(self, first: _Share) -> Value:
        """How far this one lies above another."""
        ends = stats.share_difference_interval(first.marks, self.marks, paired=first.texts == self.texts)
        return Value(self.value.mean - first.value.mean, *ends)


def _share_row(runs: Sequence[Side], rung: str, name: str, variable: str) -> Row:
    first, *others = (_Share.of(side, rung, variable) for side in runs)
    values = (None if one is None else one.value for one in (first, *others))
    differences = (None if first is None or one is None else one.above(first) for one in others)
    return Row(name, tuple(values), tuple(differences))


def _gaps(runs: Sequence[Side]) -> Part:
    """How far the clean prompts' score lies above the corrupted ones', rung by rung."""
    rungs = dict.fromkeys(rung for side in runs for rung in sides.rungs(side))
    units = {sides.behaved(side).units("clean") for side in runs}
    rows = [_gap_row(runs, rung, comparable=len(units) == 1) for rung in rungs]
    reading = say(
        "How much more the clean prompt prefers its own answer than the corrupted one does: the logit difference of "
        "the two, subtracted. Intervals are over prompts."
    )
    return _part(runs, "gaps", say("How much the context decides"), reading, " / ".join(sorted(units)), rows)


def _gap_row(runs: Sequence[Side], rung: str, *, comparable: bool) -> Row:
    values: list[Value | None] = []
    counted: list[Counted | None] = []
    texts: list[tuple[str, ...]] = []
    for side in runs:
        found = sides.behaved(side)
        of_rung = [at for at, label in enumerate(found.labels("rung_of")) if label == rung]
        texts.append(tuple(found.labels("text")[at] for at in of_rung))
        gap = (found.need("clean", "prompt") - found.need("corrupted", "prompt")).isel(prompt=of_rung)
        values.append(_of_mean(gap) if of_rung else None)
        counted.append(_mean(gap.values) if of_rung and comparable else None)
    paired = {side.letter: own for side, own in zip(runs, texts, strict=True)}
    return _row(
        say("{rung}: gap", rung=rung),
        runs, values, counted, same=lambda first, other: paired[first.letter] == paired[other.letter],
    )  # fmt: skip


# --- effects of patching ---


@dataclass(frozen=True)
class _Effects:
    """How much each place of a site matters in one direction, on the scale of ``summary.effect``.

    Attributes:
        shown: mean, low, high and n per cell.
        moved: per prompt, how far each patch moves the metric.
        gap: per prompt, what that is divided by.
    """

    shown: xr.Dataset
    moved: xr.DataArray
    gap: np.ndarray

    @classmethod
    def of(cls, result: Result, end: str, direction: str) -> _Effects:
        patched = result.data[f"patched{end}"].sel(direction=direction, drop=True)
        clean, corrupted = result.data["clean"], result.data["corrupted"]
        axes = [str(dim) for dim in patched.dims if dim != "prompt"]
        shown = result.summary(f"recovered{end}", "direction", "prompt", *axes).sel(direction=direction, drop=True)
        moved = summary.moved(patched, clean, corrupted, direction)
        return cls(summary.effect(shown, direction), moved.transpose("prompt", *axes), (clean - corrupted).values)

    def value(self, at: dict[str, int], place: str = "") -> Value:
        cell = self.shown.isel(at)
        return Value(float(cell["mean"]), float(cell["low"]), float(cell["high"]), place)

    def counted(self, at: dict[str, int]) -> Counted:
        moved = self.moved.isel(at).values
        return moved, np.where(np.isfinite(moved), self.gap, 0.0)

    def cell_of(self, other: _Effects, at: dict[str, int]) -> dict[str, int] | None:
        """The cell that another run's cell is here: the same layer and head of as many, and the role of that name."""
        found = dict(at)
        for dim, i in at.items():
            here, there = (one.shown[dim].values if dim in one.shown.coords else np.arange(one.shown.sizes[dim])
                           for one in (self, other))  # fmt: skip
            if dim == "role":
                places = np.flatnonzero(here == there[i])
                if not len(places):
                    return None
                found[dim] = int(places[0])
            elif len(here) != len(there):
                return None
        return found

    def strongest(self) -> dict[str, int] | None:
        values = self.shown["mean"].values
        if not np.isfinite(values).any():
            return None
        found = np.unravel_index(int(np.nanargmax(values)), values.shape)
        return {str(dim): int(i) for dim, i in zip(self.shown["mean"].dims, found, strict=True)}


class _Patched:
    """The effects of every site and direction of every run, each summarised once."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str], _Effects | None] = {}

    def of(self, side: Side, direction: str, end: str = "_z") -> _Effects | None:
        """The effects of a site in one direction; None where the run has none."""
        key = (side.letter, direction, end)
        if key not in self.found:
            result = side.patched(end[1:])
            there = result is not None and direction in result.labels("direction")
            self.found[key] = _Effects.of(result, end, direction) if result is not None and there else None
        return self.found[key]


def _may_be_equal(less: Counted, more: Counted) -> bool:
    """Whether of two numbers of one run the larger may be so by chance: then neither is the larger one."""
    low, _ = stats.ratio_difference_interval(less, more, paired=True)
    return not low > 0


def _word(direction: str) -> str:
    return say("sufficient") if direction == "denoising" else say("needed")


def _at_all_words(direction: str) -> str:
    """The effect of a patch at every position: the verdict's numbers are at the word where a head acts."""
    return say("{effect} at all words", effect=_word(direction))


def _same_metric(runs: Sequence[Side], name: str) -> bool:
    metrics = {found.attr("metric") for side in runs if (found := side.run.get(name)) is not None}
    return len(metrics) <= 1


def _named_heads(runs: Sequence[Side], effects: _Patched) -> Part:
    """The movers and readers: by their label where the models have one shape, else by their order and depth."""
    shapes = {side.shape for side in runs if side.shape is not None}
    title = say("Which heads are named, and how much each matters")
    if len(shapes) == 1:
        labels = sorted({at for side in runs if side.passed for at in side.verdict.marks()})
        rows = [row for at in labels for row in _head_rows(runs, effects, at)]
        reading = say(
            "Every head that some run names, with its job there; its output patched at all positions. The models "
            "have one shape: a head is compared with the head of the same label, which is the same head only if "
            "the models have the same weights."
        )
        return _part(runs, "heads", title, reading, say("share of the gap"), rows)
    rows = [
        _ranked_row(runs, effects, job, i, direction)
        for job in ("mover", "reader")
        for i in range(max((len(_named(side, job)) for side in runs), default=0))
        for direction in summary.DIRECTIONS
    ]
    reading = say(
        "The models have different shapes, so heads are compared by their job and order: the first mover of "
        "one with the first mover of another. Their depth says after which share of the layers they stand."
    )
    return _part(runs, "heads", title, reading, say("share of the gap"), rows)


def _named(side: Side, job: str) -> list[tuple[int, int]]:
    """A run's heads with a job, in the order of its verdict."""
    return [at for at, label in side.verdict.marks().items() if label == job] if side.passed else []


def _head_rows(runs: Sequence[Side], patched: _Patched, at: tuple[int, int]) -> Iterator[Row]:
    jobs = [side.verdict.marks().get(at, "") if side.passed else "" for side in runs]
    where = {"layer": at[0], "head": at[1]}
    for direction in summary.DIRECTIONS:
        effects = [patched.of(side, direction) for side in runs]
        values = [None if one is None else one.value(where, _job(job)) for one, job in zip(effects, jobs, strict=True)]
        counted = [None if one is None else one.counted(where) for one in effects]
        if not _same_metric(runs, "activation_patching"):
            counted = [None] * len(runs)
        if any(value is not None for value in values):
            yield _row(f"{head_label(*at)}, {_at_all_words(direction)}", runs, values, counted)


def _job(job: str) -> str:
    return {"mover": say("mover"), "reader": say("reader"), "": say("not named")}[job]


def _ranked_row(runs: Sequence[Side], patched: _Patched, job: str, i: int, direction: str) -> Row:
    values: list[Value | None] = []
    for side in runs:
        effects, named = patched.of(side, direction), _named(side, job)
        if effects is None or i >= len(named) or side.shape is None:
            values.append(None)
            continue
        layer, head = named[i]
        depth = say("{head} at {depth}", head=head_label(layer, head), depth=f"{layer / max(side.shape[0] - 1, 1):.0%}")
        values.append(effects.value({"layer": layer, "head": head}, depth))
    name = {"mover": say("mover {number}", number=i + 1), "reader": say("reader {number}", number=i + 1)}[job]
    return Row(f"{name}, {_at_all_words(direction)}", tuple(values), (None,) * (len(runs) - 1))


def _places(runs: Sequence[Side], effects: _Patched) -> Part:
    """Per site and direction, the place that matters most in each run."""
    ends = [
        f"_{site}{more}"
        for site in SITES
        for more in ("", "_role")
        if any(side.patched(f"{site}{more}") for side in runs)
    ]
    rows = [
        row for end in ends for direction in summary.DIRECTIONS if (row := _place_row(runs, effects, end, direction))
    ]
    reading = say(
        "The place whose patch alone matters most, in each run; that of the first run where another one's effect is "
        "not seen to be larger. Numbers are subtracted where it is the same place, and not between models of "
        "different depths, of whose places only the words are compared."
    )
    return _part(
        runs, "places", say("Where each site matters most"), reading, say("share of the gap"), rows, drawn=False
    )


def _place_row(runs: Sequence[Side], patched: _Patched, end: str, direction: str) -> Row | None:
    values: list[Value | None] = []
    counted: list[Counted | None] = []
    first, there = None, None
    site = end[1:].removesuffix("_role")
    found = [patched.of(side, direction, end) for side in runs]
    depths = {effects.shown.sizes["layer"] for effects in found if effects is not None}
    for effects in found:
        at = None if effects is None else effects.strongest()
        if effects is None or at is None:
            values.append(None)
            counted.append(None)
            continue
        if first is None:
            first, there = effects, at
        elif there is not None and (same_cell := effects.cell_of(first, there)) is not None:
            at = same_cell if _may_be_equal(effects.counted(same_cell), effects.counted(at)) else at
        strongest = effects.value(at, _place(effects, at, site))
        if len(depths) > 1:
            strongest = replace(
                strongest, of_place=str(effects.shown["role"].values[at["role"]]) if "role" in at else ""
            )
        values.append(strongest if strongest.mean >= LEAST else Value(math.nan, place=say("nowhere")))
        counted.append(effects.counted(at))
    if not _worth_a_row(values):
        return None
    same = [value is not None and values[0] is not None and value.place == values[0].place for value in values]
    comparable = _same_metric(runs, "activation_patching") and len(depths) == 1
    kept = [one if agrees and comparable else None for one, agrees in zip(counted, same, strict=True)]
    name = say("{site} by word", site=site) if end.endswith("_role") else site
    row = _row(f"{name}, {_word(direction)}", runs, values, kept)
    return replace(row, at="" if values[0] is None else values[0].place)


def _worth_a_row(values: Sequence[Value | None]) -> bool:
    """Whether two runs have it, and at least one has it somewhere."""
    found = [value for value in values if value is not None]
    return len(found) > 1 and any(math.isfinite(value.mean) for value in found)


def _place(effects: _Effects, at: dict[str, int], site: str) -> str:
    """A cell in words; of a stream between layers, the layer that was done."""
    layer, parts = at["layer"], []
    if "head" in at:
        parts.append(head_label(layer, at["head"]))
    elif "kv_head" in at:
        parts.append(f"L{layer}KV{at['kv_head']}")
    else:
        parts.append(depth.of(site, layer))
    if "role" in at:
        parts.append(called("role", str(effects.shown["role"].values[at["role"]])))
    return say("{what} at {role}", what=parts[0], role=parts[1]) if len(parts) == 2 else parts[0]


# --- probes ---


def _probes(runs: Sequence[Side]) -> Part:
    roles = dict.fromkeys(
        role for side in runs if side.passed and (found := side.run.get("probing")) for role in found.labels("role")
    )
    rows = [row for role in roles if (row := _probe_row(runs, role))]
    reading = say(
        "The best layer of the probe at each word, and how far its accuracy lies above that of its control: nowhere, "
        "where that interval holds 0, or where its p-value over all places is above 0.05. Intervals are over folds; a "
        "layer was chosen by its number, which is therefore a little too large."
    )
    return _part(runs, "probes", say("Where a probe reads the source"), reading, say("selectivity, a share"), rows,
                 drawn=False)  # fmt: skip


def _probe_row(runs: Sequence[Side], role: str) -> Row | None:
    values: list[Value | None] = []
    counted: list[Counted | None] = []
    there: int | None = None
    probed = [side.run.get("probing") if side.passed else None for side in runs]
    of_one_depth = len({found.data.sizes["layer"] for found in probed if found is not None}) == 1
    for found in probed:
        if found is None or role not in found.labels("role"):
            values.append(None)
            counted.append(None)
            continue
        folds = found.data["selectivity"].isel(site=0, role=found.labels("role").index(role))
        shown = summary.mean(folds, "fold")
        if not np.isfinite(shown["mean"].values).any():
            values.append(None)
            counted.append(None)
            continue
        i = int(np.nanargmax(shown["mean"].values))
        if there is None:
            there = i
        elif of_one_depth:
            less, more = (_mean(folds.isel(layer=layer).values) for layer in (there, i))
            i = there if _may_be_equal(less, more) else i
        best, where = shown.isel(layer=i), depth.of(found.labels("site")[0], found.labels("layer")[i])
        shared = where if of_one_depth else ""
        found_there = Value(float(best["mean"]), float(best["low"]), float(best["high"]), where, shared)
        readable = found_there.low > 0 and _is_readable(found, i, role)
        values.append(found_there if readable else Value(math.nan, place=say("nowhere")))
        counted.append(_mean(folds.isel(layer=i).values))
    if not _worth_a_row(values):
        return None
    same = [value is not None and values[0] is not None and value.place == values[0].place for value in values]
    kept = [one if agrees and of_one_depth else None for one, agrees in zip(counted, same, strict=True)]
    row = _row(
        say("selectivity of the probe at {role}", role=called("role", role)),
        runs,
        values,
        kept,
        same=lambda first, other: False,
    )
    return replace(row, at="" if values[0] is None else values[0].place)


def _is_readable(probing: Result, layer: int, role: str) -> bool:
    """Whether its p-value over all places says so, as the run's own page does; an older result has none."""
    if not probing.has("p_value"):
        return True
    p = probing.need("p_value", "site", "layer", "role").values[0, layer, probing.labels("role").index(role)]
    return bool(p <= READABLE)


# --- one sentence ---


def _arrives(runs: Sequence[Side]) -> Part:
    values, counted = [], []
    for side in runs:
        found = side.run.files["reach"]
        at = [i for i, role in enumerate(found.labels("role")) if role == "target"][-1]
        difference = found.data["difference"].isel(layer=-1, position=at)
        values.append(_of_mean(difference))
        counted.append(_mean(difference.values))
    rows = [_row(say("the stream at the target, after the last layer"), runs, values, counted)]
    reading = say(
        "How far the stream at the target differs with other words in the place of the source, as a share of "
        "its length. Intervals are over the other words."
    )
    return _part(runs, "arrives", say("What arrives at the target"), reading, say("share of the length"), rows)


def _predicted(runs: Sequence[Side]) -> Part:
    values, counted = [], []
    for side in runs:
        nats = side.run.files["predictions"].data["kl"].isel(position=0)
        values.append(_of_mean(nats))
        counted.append(_mean(nats.values))
    rows = [_row(say("what is predicted after the target"), runs, values, counted)]
    reading = say(
        "How much what is predicted changes with other words in the place of the source, KL(sentence || "
        "counterfactual). Intervals are over the other words."
    )
    return _part(runs, "predicted", say("What changes in what is predicted"), reading, say("nats"), rows)


def _continued(runs: Sequence[Side]) -> Part:
    """What the sentence's own continuation loses with other words; of continuations of as many tokens, subtracted."""
    found = [side.run.get("continuation") for side in runs]
    lost = [
        None if one is None else (one.data["log_probability"] - one.data["clean_log_probability"]).sum("step")
        for one in found
    ]
    steps = {one.data.sizes["step"] for one in found if one is not None}
    rows = []
    if any(one is not None for one in lost):
        values = [None if one is None else _of_mean(one) for one in lost]
        counted = [None if one is None or len(steps) > 1 else _mean(one.values) for one in lost]
        rows = [_row(say("log-probability of the sentence's own continuation"), runs, values, counted)]
    reading = say(
        "By how much the log-probability of the sentence's own continuation changes with other words in the place of "
        "the source. Continuations of other lengths are not subtracted."
    )
    return _part(runs, "continued", say("How it goes on"), reading, say("nats"), rows)


def _of_mean(values: xr.DataArray) -> Value:
    shown = summary.mean(values)
    return Value(float(shown["mean"]), float(shown["low"]), float(shown["high"]))


def _paths_of_sentence(runs: Sequence[Side]) -> Part:
    """The strongest paths of each run; the models must have one shape for a path to be the same."""
    rows: list[Row] = []
    if len({side.shape for side in runs if side.shape is not None}) == 1:
        for direction in summary.DIRECTIONS:
            rows += _path_rows(runs, direction)
    reading = say(
        "The strongest paths between leading heads, as a share of the whole difference at the target. A path that a "
        "run did not patch has no number there."
    )
    return _part(runs, "paths", say("By which paths it goes"), reading, say("share of the difference"), rows)


def _path_rows(runs: Sequence[Side], direction: str) -> Iterator[Row]:
    found = [side.run.get("paths") for side in runs]
    effects = [None if one is None else _Effects.of(one, "", direction) for one in found]
    places = [
        {} if one is None else {
            (sender, receiver): {"sender": i, "receiver": j}
            for i, sender in enumerate(one.labels("sender"))
            for j, receiver in enumerate(one.labels("receiver"))
        }
        for one in found
    ]  # fmt: skip
    leading: dict[tuple[str, str], None] = {}
    for one, at in zip(effects, places, strict=True):
        if one is not None:
            size = {path: float(np.nan_to_num(one.shown["mean"].isel(cell), nan=-np.inf)) for path, cell in at.items()}
            leading |= dict.fromkeys(path for path in sorted(size, key=size.__getitem__)[-LEADING:] if size[path] > 0)
    for path in leading:
        cells = [(one, at.get(path)) for one, at in zip(effects, places, strict=True)]
        values = [None if one is None or cell is None else one.value(cell) for one, cell in cells]
        counted = [None if one is None or cell is None else one.counted(cell) for one, cell in cells]
        sender = say("the source") if path[0] == "embed" else path[0]
        receiver = say("the stream at the target") if path[1].endswith("resid_post") else path[1]
        yield _row(f"{sender} → {receiver}, {_word(direction)}", runs, values, counted)


def _heads_of_sentence(runs: Sequence[Side]) -> Part:
    rows: list[Row] = []
    shapes = {side.shape for side in runs if side.shape is not None}
    for direction in summary.DIRECTIONS:
        effects = [
            None if (found := side.run.get("heads")) is None else _Effects.of(found, "", direction) for side in runs
        ]
        if len(shapes) != 1:
            rows.append(_leading_row(runs, effects, direction))
            continue
        leading = dict.fromkeys(at for one in effects if one is not None for at in _leading(one))
        for layer, head in leading:
            at = {"layer": layer, "head": head, "role": 0}
            values = [None if one is None else one.value(at) for one in effects]
            counted = [None if one is None else one.counted(at) for one in effects]
            rows.append(_row(f"{head_label(layer, head)}, {_word(direction)}", runs, values, counted))
    reading = say("What each leading head writes at the target, as a share of the whole difference there.")
    return _part(runs, "heads", say("Which heads write it there"), reading, say("share of the difference"), rows)


def _leading(effects: _Effects) -> list[tuple[int, int]]:
    mean = effects.shown["mean"].isel(role=0).transpose("layer", "head").values
    order = np.argsort(-np.nan_to_num(mean, nan=-math.inf), axis=None, kind="stable")[:LEADING]
    return [(int(layer), int(head)) for layer, head in zip(*np.unravel_index(order, mean.shape), strict=True)]


def _leading_row(runs: Sequence[Side], effects: Sequence[_Effects | None], direction: str) -> Row:
    """The first head of each run, where models of different shapes have no head in common."""
    values = []
    for one in effects:
        at = None if one is None else _leading(one)[0]
        values.append(
            None
            if one is None or at is None
            else one.value({"layer": at[0], "head": at[1], "role": 0}, head_label(*at))
        )
    name = say("the first head, {word}", word=_word(direction))
    return Row(name, tuple(values), (None,) * (len(runs) - 1))
