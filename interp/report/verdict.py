"""What the run concluded: the answer, whether the model does the task at all, and one row per head."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr

from interp import language, summary
from interp.errors import InterpError
from interp.language import say, say_stored
from interp.prompts.vocabulary import Vocabulary
from interp.report.inputs import Result, RunInputs
from interp.report.tables import Cell, Column, Size, Table

NAMED = ("mover", "reader")
"""The jobs of heads that the verdict names."""

_PATCHED_AT = "recovered_z_"
_LABEL_NAMES = ("label", "labels", "head_role", "kind")
_SHORT = 16
_LABEL_ORDER = {"mover": 0, "reader": 1}


@dataclass(frozen=True)
class HeadColumn:
    """One quantity for every head, with interval bounds where the result has them (else NaN)."""

    name: str
    heading: str
    units: str
    values: tuple[Cell, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @cached_property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return not any(isinstance(value, str) for value in self.values)

    @property
    def sentences(self) -> bool:
        """Whether the values are longer than a table cell should be."""
        return not self.numeric and max((len(str(value)) for value in self.values), default=0) > _SHORT

    @property
    def bounded(self) -> bool:
        """Whether there is any interval."""
        return any(math.isfinite(value) for value in self.low)

    def cell(self, i: int) -> Cell:
        """A value with its interval, if it has one."""
        value, ends = self.values[i], (self.low[i], self.high[i])
        return Size(value, *ends) if isinstance(value, float) and all(map(math.isfinite, ends)) else value


UNKNOWN = Size(math.nan)
"""What was not measured."""


@dataclass(frozen=True)
class Effect:
    """What one head does at one word when it alone is patched there: 1 matters, 0 has no effect, both ways."""

    role: str
    sufficient: Size
    needed: Size

    @property
    def largest(self) -> float:
        """The larger of the two, NaN if neither was measured."""
        return float(np.fmax(self.sufficient.mean, self.needed.mean))


_NOT_PATCHED = Effect("", UNKNOWN, UNKNOWN)


@dataclass(frozen=True)
class Roles:
    """Which words the verdict is about."""

    source: str
    target: str
    meeting: str
    vocabulary: Vocabulary

    def name(self, role: str) -> str:
        """A role within a sentence, in the language spoken now."""
        return self.vocabulary.name(role)


@dataclass(frozen=True)
class Verdict:
    """The conclusion, in the order in which the page tells it.

    Attributes:
        answer: two sentences, empty without ``verdict.nc``.
        passed: whether the behaviour gate let the explanation through.
        reason: why not, or why.
        rung: the rung that is explained, empty if unknown.
        heads: head labels, named heads first.
        labels: ``mover``, ``reader`` or ``none`` per head.
        columns: the quantities of the head table.
        effects: head -> what it does at the word where it acts, or where it does most.
        roles: the words it is about; None where the result does not say.
        short: the answer in one sentence that says yes or no first, where the result has one.
    """

    answer: str
    passed: bool
    reason: str
    rung: str
    heads: tuple[str, ...]
    labels: tuple[str, ...]
    columns: tuple[HeadColumn, ...]
    effects: Mapping[str, Effect] = field(default_factory=dict)
    roles: Roles | None = None
    short: str = ""

    def named(self) -> list[tuple[str, str]]:
        """(head, job) of the heads that have one, the movers first."""
        return [(head, label) for head, label in zip(self.heads, self.labels, strict=True) if label in NAMED]

    def marks(self) -> dict[tuple[int, int], str]:
        """(layer, head) -> label, for the heads that have one."""
        return {
            place(head): label for head, label in zip(self.heads, self.labels, strict=True) if label in _LABEL_ORDER
        }

    def reading_table(self, title: str, count: int) -> Table:
        """The first heads, for reading: the job, where, both effects there, and one ablation, with their intervals."""
        ablation = next((c for c in self.columns if c.name.startswith("ablation_effect")), None)
        columns = [Column(say("head"), facet="head"), Column(say("job"))]
        if self.effects:
            columns += [Column(say("where"), facet="role"), Column(say("sufficient")), Column(say("needed"))]
        if ablation is not None:
            kind = ablation.name.partition(".")[2]
            columns.append(Column(say_stored(f"{kind} ablation"), ablation.units))
        rows: list[tuple[Cell, ...]] = []
        for i, head in enumerate(self.heads[:count]):
            cells: list[Cell] = [head, say_stored(self.labels[i])]
            if self.effects:
                effect = self.effects.get(head, _NOT_PATCHED)
                cells += [effect.role, effect.sufficient, effect.needed]
            rows.append((*cells, *([] if ablation is None else [ablation.cell(i)])))
        return Table(title, tuple(columns), tuple(rows))

    def sentences(self) -> tuple[tuple[str, str], ...]:
        """What the result says of a head in words, named heads first; heads without words are left out."""
        found = []
        for i, head in enumerate(self.heads):
            words = "; ".join(str(c.values[i]) for c in self.columns if c.sentences and c.values[i])
            if words:
                named = f"{head} ({say_stored(self.labels[i])}):" if self.labels[i] in NAMED else f"{head}:"
                found.append((named, words))
        return tuple(found)

    def full_table(self, title: str) -> Table:
        """All heads, for copying: a mean and its two bounds in three columns."""
        columns = [Column(say("head"), facet="head"), Column(say("job"))]
        for c in self.columns:
            columns.append(Column(c.heading, c.units, facet="role" if c.name == "acts_at" else ""))
            if c.bounded:
                ends = say("{name} 95% low", name=c.heading), say("{name} 95% high", name=c.heading)
                columns += [Column(name, c.units) for name in ends]
        rows: list[tuple[Cell, ...]] = []
        for i, head in enumerate(self.heads):
            cells: list[Cell] = [head, say_stored(self.labels[i])]
            for c in self.columns:
                cells += [c.values[i], c.low[i], c.high[i]] if c.bounded else [c.values[i]]
            rows.append(tuple(cells))
        return Table(title, tuple(columns), tuple(rows))


def place(head: str) -> tuple[int, int]:
    """(layer, head) of a label such as ``L9H6``."""
    match = re.fullmatch(r"L(\d+)H(\d+)", head)
    if match is None:
        raise InterpError(f"results/verdict.nc: '{head}' is not a head label such as L9H6; run the study again.")
    return int(match[1]), int(match[2])


def of(run: RunInputs) -> Verdict:
    """The run's verdict; without ``verdict.nc``, what is said of a sentence, or what the baselines alone say."""
    result, sentence = run.get("verdict"), run.get("reach") or run.get("influences")
    passed, reason, rung = _gate(run)
    if result is None:
        return Verdict("" if sentence is None else sentence.said("answer"), passed, reason, rung, (), (), ())
    result.need_attr("answer")
    answer = result.said("answer")
    if "head_label" not in result.data.sizes:
        return Verdict(answer, passed, reason, rung, (), (), (), short=result.said("answer_short"))
    heads = result.labels("head_label")
    for head in heads:
        place(head)
    label_name = next((name for name in _LABEL_NAMES if result.has(name)), None)
    labels = result.labels(label_name) if label_name else ("none",) * len(heads)
    columns = _columns(result, skip=label_name)
    order = _order(labels, columns, len(heads))
    columns = sorted((c for c in columns if any(v != "" for v in c.values)), key=_place_in_table)
    return Verdict(
        answer, passed, reason, rung,
        tuple(heads[i] for i in order),
        tuple(labels[i] for i in order),
        tuple(_reordered(column, order) for column in columns),
        _effects(result, heads),
        _roles(result),
        result.said("answer_short"),
    )  # fmt: skip


def _roles(result: Result) -> Roles | None:
    source, target, stated = (result.attr(name) for name in ("source_role", "target_role", "vocabulary"))
    if not (source and target and stated):
        return None
    return Roles(source, target, result.attr("meeting"), Vocabulary.from_json(stated))


def _effects(result: Result, heads: tuple[str, ...]) -> dict[str, Effect]:
    """Of every head, what patching it does at the word where it acts; of one without a job, where it does most."""
    names = [name for key in result.data.data_vars if (name := str(key)).startswith(_PATCHED_AT)]
    roles = [name.removeprefix(_PATCHED_AT) for name in names if not name.endswith("_interval")]
    at = {role: _at(result, f"{_PATCHED_AT}{role}") for role in roles}
    acts = result.labels("acts_at") if result.has("acts_at") else ("",) * len(heads)
    found = {}
    for i, head in enumerate(heads):
        each = [Effect(role, *(sizes[i] for sizes in both)) for role, both in at.items()]
        own = [effect for effect in each if effect.role == acts[i]] or [e for e in each if not math.isnan(e.largest)]
        if own:
            found[head] = max(own, key=lambda effect: effect.largest)
    return found


def _at(result: Result, name: str) -> list[list[Size]]:
    """Per direction, sufficient and needed, the effects of all heads that one variable of the verdict holds."""
    mean = result.need(name, "direction", "head_label")
    bounds = result.need(f"{name}_interval", "direction", "head_label", "ci_bound").values
    asked, sizes = result.labels("direction"), []
    for direction in summary.DIRECTIONS:
        if direction not in asked:
            sizes.append([UNKNOWN] * mean.sizes["head_label"])
            continue
        i = asked.index(direction)
        parts = {"mean": mean.values[i], "low": bounds[i, :, 0], "high": bounds[i, :, 1]}
        one = summary.effect(xr.Dataset({key: ("head_label", values) for key, values in parts.items()}), direction)
        sizes.append([Size(*map(float, three)) for three in zip(*(one[key].values for key in parts), strict=True)])
    return sizes


def _gate(run: RunInputs) -> tuple[bool, str, str]:
    """(passed, reason, rung explained), as the verdict says, or the baselines, or the manifest; never decided here."""
    verdict, behavior = run.get("verdict"), run.get("behavior")
    if verdict is not None:
        gate = str(verdict.need_attr("gate"))
        if gate not in ("passed", "failed"):
            raise InterpError(f"results/verdict.nc: attribute 'gate' is '{gate}', expected 'passed' or 'failed'.")
        return gate == "passed", verdict.said("gate_reason"), str(verdict.need_attr("rung"))
    if behavior is not None:
        explained, rungs = str(behavior.need_attr("explained_rung")), behavior.labels("rung")
        rung = explained or rungs[int(np.argmax(behavior.need("main", "rung").values))]
        return bool(explained), behavior.said_labels("reason")[rungs.index(rung)], rung
    explained = run.manifest.get("explained_rung", "")
    return explained is not None, "", explained or ""


def _columns(result: Result, *, skip: str | None) -> list[HeadColumn]:
    columns: list[HeadColumn] = []
    for key, array in result.data.data_vars.items():
        name = str(key)
        if (
            name == skip
            or "head_label" not in array.dims
            or "ci_bound" in array.dims
            or name.endswith(("_low", "_high"))
            or language.translated(name)
        ):
            continue
        others = [str(dim) for dim in array.dims if dim != "head_label"]
        values = result.need(name, "head_label", *others)
        if (own := language.key(name, language.spoken())) != name and result.has(own):
            values = result.need(own, "head_label", *others)
        low, high = _bounds(result, name, others)
        heading = say_stored(str(array.attrs["long_name"])).replace("<-", " ← ")
        for index in np.ndindex(*values.shape[1:]):
            where = [
                str(values[dim].values[i]) if dim in values.coords else str(i)
                for dim, i in zip(others, index, strict=True)
            ]
            shown = [language.called(dim, label) for dim, label in zip(others, where, strict=True)]
            suffix = f", {', '.join(shown)}" if where else ""
            at = (slice(None), *index)
            columns.append(
                HeadColumn(
                    ".".join([name, *where]),
                    heading + suffix,
                    str(array.attrs["units"]) if values.dtype.kind in "fiu" else "",
                    tuple(_cell(v) for v in values.values[at]),
                    tuple(float(v) for v in low[at]),
                    tuple(float(v) for v in high[at]),
                )
            )
    return columns


def _bounds(result: Result, name: str, others: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if result.has(f"{name}_interval"):
        both = result.need(f"{name}_interval", "head_label", *others, "ci_bound").values
        return both[..., 0], both[..., 1]
    if result.has(f"{name}_low", f"{name}_high"):
        low, high = (result.need(f"{name}_{end}", "head_label", *others).values for end in ("low", "high"))
        return low, high
    nothing = np.full(result.data[name].transpose("head_label", *others).shape, np.nan)
    return nothing, nothing


def _cell(value: object) -> Cell:
    if isinstance(value, np.floating):
        return float(value)
    return int(value) if isinstance(value, np.integer | np.bool_) else str(value)


def _order(labels: tuple[str, ...], columns: list[HeadColumn], count: int) -> list[int]:
    weight = np.zeros(count)
    for column in columns:
        if column.numeric and column.units:
            size = np.abs(np.nan_to_num(np.array(column.values, dtype=np.float64)))
            weight = np.maximum(weight, size / (size.max() or 1.0))
    return sorted(range(count), key=lambda i: (_LABEL_ORDER.get(labels[i], 2), -weight[i], i))


def _place_in_table(column: HeadColumn) -> int:
    """Short words first, then numbers, then sentences; otherwise as the file has them."""
    return 1 if column.numeric else 2 * column.sentences


def _reordered(column: HeadColumn, order: list[int]) -> HeadColumn:
    values = tuple(column.values[i] for i in order)
    low, high = (tuple(bound[i] for i in order) for bound in (column.low, column.high))
    return HeadColumn(column.name, column.heading, column.units, values, low, high)
