"""The ladder of rungs (does the model do it?) and the example prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from interp import summary
from interp.errors import InterpError, shown
from interp.language import called, listed, of_prompts, say, say_stored
from interp.prompts.vocabulary import GUESSING, OUTCOMES
from interp.report.blocks import (
    Block,
    Details,
    Facts,
    Figure,
    Notice,
    Panel,
    PromptExample,
    PromptRung,
    Prompts,
    Section,
)
from interp.report.inputs import Result
from interp.report.lines import Point, Series, dot_rows, line_legend
from interp.report.markup import figure_number, token
from interp.report.tables import Cell, Column, Table
from interp.report.verdict import Roles, Verdict
from interp.report.words import Spans, tone, with_changes, with_roles

EXAMPLES = 2
"""Examples shown of the explained rung; the others show one."""


@dataclass(frozen=True)
class _Rungs:
    """The baselines of every rung, as points with intervals, in ladder order."""

    names: tuple[str, ...]
    count: list[int]
    passes: list[bool]
    outcomes: tuple[str, ...]
    reasons: tuple[str, ...]
    descriptions: tuple[str, ...]
    accuracy: tuple[Point, ...]
    preferred: tuple[Point, ...]
    clean: tuple[Point, ...]
    corrupted: tuple[Point, ...]
    gap: list[float]
    chance: list[float]
    units: str

    @classmethod
    def of(cls, behavior: Result) -> _Rungs:
        names = behavior.labels("rung")
        count = [int(v) for v in behavior.need("n", "rung").values]
        return cls(
            names=names,
            count=count,
            passes=[bool(v) for v in behavior.need("passes", "rung").values],
            outcomes=outcomes(behavior),
            reasons=behavior.said_labels("reason"),
            descriptions=_descriptions(behavior),
            accuracy=_shares(behavior, "accuracy", count),
            preferred=_shares(behavior, "preferred", count),
            clean=_mean_by_rung(behavior, "clean", names),
            corrupted=_mean_by_rung(behavior, "corrupted", names),
            gap=_per_rung(behavior, "gap"),
            chance=_per_rung(behavior, "chance"),
            units=behavior.units("clean"),
        )

    def table(self) -> Table:
        columns = [Column(say("rung")), Column("n"), Column(say("passes")), Column(say("the model"))]
        parts = (
            (say("top token"), say("share"), self.accuracy),
            (say("preferred"), say("share"), self.preferred),
            (say("clean"), self.units, self.clean),
            (say("corrupted"), self.units, self.corrupted),
        )
        for name, units, _ in parts:
            ends = say("{name} 95% low", name=name), say("{name} 95% high", name=name)
            columns += [Column(one, units) for one in (name, *ends)]
        columns += [Column(say("gap"), self.units), Column(say("chance of the top token"), say("share"))]
        columns += [Column(say("chance of preferring"), say("share")), Column(say("reason"))]
        rows: list[tuple[Cell, ...]] = []
        for i, name in enumerate(self.names):
            numbers = [v for _, _, points in parts for v in (points[i].mean, points[i].low, points[i].high)]
            passes = say("yes") if self.passes[i] else say("no")
            said = say_stored(self.outcomes[i])
            chances = self.chance[i], GUESSING
            rows.append(
                (called("rung", name), self.count[i], passes, said, *numbers, self.gap[i], *chances, self.reasons[i])
            )
        title = say(
            "Baselines. Intervals: Wilson 95% for shares; {interval} for {units}",
            interval=summary.usual_interval(), units=self.units,
        )  # fmt: skip
        return Table(title, tuple(columns), tuple(rows))


def ladder(behavior: Result, verdict: Verdict) -> Section:
    """Baselines of every rung with intervals, and which ones the model does."""
    rungs = _Rungs.of(behavior)
    reading = say(
        "Top token: the correct answer beats the whole vocabulary. Preferred: it at least beats the incorrect answer. "
        "A grey bar on the same line is what guessing gives: one of the rung's answers for the top token, one of two "
        "for what is preferred. A model says the answer if it is mostly the top token, and otherwise only prefers it. "
        "Logit difference: logit(correct) − logit(incorrect); the further the clean and the corrupted mean "
        "lie apart, the more there is to explain."
    )
    figure = Figure.of(
        behavior,
        "ladder-figure",
        say("Baselines per rung"),
        reading,
        panels=(_shares_panel(rungs), _logits_panel(rungs)),
        tables=(rungs.table(),),
    )
    items = tuple(
        (
            called("rung", name),
            f"{_sentence(rungs.descriptions[i])} {_sentence(verdict_text(rungs.passes[i], rungs.reasons[i]))}".strip(),
        )
        for i, name in enumerate(rungs.names)
    )
    blocks: list[Block] = [figure, Facts(items, say("The rungs, easiest first"))]
    failed = [n for n, ok in zip(rungs.names, rungs.passes, strict=True) if not ok and n != verdict.rung]
    if failed and verdict.passed:
        text = say(
            "The model does not do {rungs}. The explanation below is about {rung} only.",
            rungs=listed([called("rung", one) for one in failed]), rung=called("rung", verdict.rung),
        )  # fmt: skip
        blocks.insert(0, Notice("warn", say("Not every rung is done"), text))
    lead = say("An explanation is worth reading only for a behaviour the model has. Each rung asks for a little more.")
    return Section("ladder", say("Does the model do it?"), lead, blocks, say("Does it do it?"))


def _shares_panel(rungs: _Rungs) -> Panel:
    top, preferred = say("top token"), say("preferred")
    series = (
        Series(top, "a", rungs.accuracy, tuple(rungs.chance)),
        Series(preferred, "b", rungs.preferred, (GUESSING,) * len(rungs.names)),
    )
    drawn = dot_rows(
        [called("rung", name) for name in rungs.names],
        series,
        axis=say("share of prompts"),
        low=0.0,
        high=1.0,
        key="ladder-a",
        title=say("Accuracy per rung"),
        description=say("Share of prompts answered correctly, with 95% Wilson intervals."),
        badges=[
            ("pass" if passes else "fail", say_stored(said))
            for passes, said in zip(rungs.passes, rungs.outcomes, strict=True)
        ],
    )
    entries = [(top, "a"), (preferred, "b"), (say("guessing"), "mark"), ("95%", "band")]
    return Panel(say("How often is the answer right?"), drawn, legend=line_legend(entries, key="ladder-al"))


def _logits_panel(rungs: _Rungs) -> Panel:
    low, high = _reach([*rungs.clean, *rungs.corrupted])
    drawn = dot_rows(
        [called("rung", name) for name in rungs.names],
        (Series(say("clean"), "a", rungs.clean), Series(say("corrupted"), "b", rungs.corrupted)),
        axis=say("logit difference ({units})", units=rungs.units),
        low=low,
        high=high,
        key="ladder-b",
        title=say("Logit difference per rung"),
        description=say("Mean logit difference of clean and corrupted prompts, with 95% bootstrap intervals."),
    )
    legend = line_legend([(say("clean"), "a"), (say("corrupted"), "b"), ("95%", "band")], key="ladder-bl")
    return Panel(say("How clear is the answer?"), drawn, legend=legend)


def prompts(behavior: Result, verdict: Verdict) -> Section:
    """Example prompts per rung: clean, corrupted, and what the model said."""
    rung_of = behavior.labels("rung_of")
    descriptions = (
        behavior.said_labels("description") if behavior.has("description") else ("",) * behavior.data.sizes["rung"]
    )
    roles = behavior.labels("role") if behavior.has("role_start", "role_stop") else ()
    toned = _toned(roles, verdict.roles)
    rungs = []
    for i, rung in enumerate(behavior.labels("rung")):
        chosen = [p for p, name in enumerate(rung_of) if name == rung][: EXAMPLES if rung == verdict.rung else 1]
        if chosen:
            examples = tuple(_example(behavior, p, roles, toned) for p in chosen)
            rungs.append(PromptRung(rung, descriptions[i], examples))
    rungs.sort(key=lambda rung: rung.name != verdict.rung)
    used = [
        role
        for role in roles
        if any(w.role == role for r in rungs for e in r.examples for w in (*e.clean, *e.corrupted))
    ]
    legend = tuple((role, tone(role, toned)) for role in used)
    lead = say(
        "A clean prompt and its corrupted twin differ in one stated way; everything else is kept, token by token."
    )
    return Section(
        "prompts", say("The prompts"), lead, (Prompts(tuple(rungs), legend, ()), _all_prompts(behavior, rung_of))
    )


def _toned(roles: tuple[str, ...], about: Roles | None) -> tuple[str, ...]:
    """Roles in the order of their tones: source and target first, as in the picture, and what is called after them."""
    if about is None:
        return roles
    ends = (about.source, about.target)
    alike = (next((role for role in roles if role.startswith(f"{end}_")), "") for end in ends)
    first = tuple(role for role in dict.fromkeys((*ends, *alike)) if role in roles)
    return (*first, *(role for role in roles if role not in first))


def _all_prompts(behavior: Result, rung_of: tuple[str, ...]) -> Details:
    names = [
        ("text", say("clean prompt")),
        ("corrupted_text", say("corrupted prompt")),
        ("answer", say("answer")),
        ("top_token", say("model says")),
    ]
    names = [(name, heading) for name, heading in names if behavior.has(name)]
    texts = [behavior.labels(name) for name, _ in names]
    numbers = [behavior.need(name, "prompt").values for name in ("clean", "corrupted")]
    columns = (
        Column(say("rung")),
        *(Column(h) for _, h in names),
        Column(say("clean"), behavior.units("clean")),
        Column(say("corrupted"), behavior.units("corrupted")),
    )
    rows: list[tuple[Cell, ...]] = [
        (called("rung", rung), *(text[p] for text in texts), *(float(values[p]) for values in numbers))
        for p, rung in enumerate(rung_of)
    ]
    table = Table(say("All prompts"), columns, tuple(rows), language=of_prompts() or "")
    return Details(say("All {n} prompts", n=len(rows)), (table,))


def _example(behavior: Result, p: int, roles: tuple[str, ...], toned: tuple[str, ...]) -> PromptExample:
    """One prompt with its partner: ``roles`` as the result has them, ``toned`` as their tones follow each other."""
    text, corrupted = behavior.labels("text")[p], behavior.labels("corrupted_text")[p]
    if roles:
        own = _spans(behavior, "", p, roles)
        other = _spans(
            behavior, "corrupted_" if behavior.has("corrupted_role_start", "corrupted_role_stop") else "", p, roles
        )
        words = with_roles(text, own, corrupted, other, toned), with_roles(corrupted, other, text, own, toned)
    else:
        words = with_changes(text, corrupted), with_changes(corrupted, text)
    answer = behavior.labels("answer")[p]
    other_answer = behavior.labels("incorrect_answer")[p] if behavior.has("incorrect_answer") else ""
    facts = []
    if behavior.has("top_token"):
        facts.append((say("model says"), token(behavior.labels("top_token")[p])))
    if behavior.has("clean_probability"):
        facts.append(
            (
                say("probability of the answer"),
                figure_number(float(behavior.need("clean_probability", "prompt").values[p]), 3),
            )
        )
    if behavior.has("clean_rank"):
        facts.append((say("rank (0: first)"), figure_number(float(behavior.need("clean_rank", "prompt").values[p]), 0)))
    clean_value, corrupted_value = (
        figure_number(float(behavior.need(name, "prompt").values[p]), 2) for name in ("clean", "corrupted")
    )
    facts.append((say("logit difference, clean → corrupted"), f"{clean_value} → {corrupted_value}"))
    return PromptExample(words[0], words[1], token(answer), token(other_answer) if other_answer else "", tuple(facts))


def _spans(behavior: Result, prefix: str, p: int, roles: tuple[str, ...]) -> Spans:
    start, stop = (behavior.need(f"{prefix}role_{end}", "prompt", "role").values[p] for end in ("start", "stop"))
    return {role: (int(start[i]), int(stop[i])) for i, role in enumerate(roles) if start[i] >= 0}


def _shares(behavior: Result, name: str, count: list[int]) -> tuple[Point, ...]:
    mean = behavior.need(name, "rung").values
    bounds = behavior.need(f"{name}_interval", "rung", "ci_bound").values
    return tuple(Point(float(m), float(b[0]), float(b[1]), n) for m, b, n in zip(mean, bounds, count, strict=True))


def outcomes(behavior: Result) -> tuple[str, ...]:
    """Of each rung, whether the model ``says it``, ``prefers it`` or ``does not``.

    Raises:
        InterpError: a result without them, or with another word.
    """
    behavior.need("outcome", "rung")
    found = behavior.labels("outcome")
    for word in found:
        if word not in OUTCOMES:
            raise InterpError(
                f"{behavior.file}: 'outcome' holds {shown(word)}, which is none of {', '.join(OUTCOMES)}; run the "
                "study again with this version of interp."
            )
    return found


def verdict_text(passes: bool, reason: str) -> str:
    """``Passes: reason`` or ``Fails: reason``, whether or not the reason begins with that word itself."""
    word, rest = (
        (say("Passes"), say("passes: {why}", why="")) if passes else (say("Fails"), say("fails: {why}", why=""))
    )
    text = reason.strip()
    text = text[len(rest) :].strip() if text.lower().startswith(rest.strip()) else text
    return f"{word}: {text}" if text else word


def _per_rung(behavior: Result, name: str) -> list[float]:
    if not behavior.has(name):
        return [math.nan] * behavior.data.sizes["rung"]
    return [float(v) for v in np.broadcast_to(behavior.data[name].values, (behavior.data.sizes["rung"],))]


def _mean_by_rung(behavior: Result, name: str, rungs: tuple[str, ...]) -> tuple[Point, ...]:
    values, rung_of = behavior.need(name, "prompt"), np.array(behavior.labels("rung_of"))
    points = []
    for rung in rungs:
        chosen = values.isel(prompt=np.flatnonzero(rung_of == rung))
        if chosen.sizes["prompt"] == 0:
            points.append(Point(math.nan, math.nan, math.nan, 0))
            continue
        one = summary.mean(chosen)
        points.append(Point(float(one["mean"]), float(one["low"]), float(one["high"]), int(one["n"])))
    return tuple(points)


def _reach(points: list[Point]) -> tuple[float, float]:
    values = [v for p in points for v in (p.mean, p.low, p.high) if math.isfinite(v)] or [0.0, 1.0]
    low, high = min([0.0, *values]), max([0.0, *values])
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _descriptions(behavior: Result) -> tuple[str, ...]:
    return behavior.said_labels("description") if behavior.has("description") else ("",) * behavior.data.sizes["rung"]


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."
