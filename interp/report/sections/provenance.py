"""Where everything came from: attributes, versions, seeds, timings, dropped prompts, the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from interp.language import LANGUAGES, say, say_stored, translated
from interp.report.blocks import Block, Code, Details, Facts, Section
from interp.report.inputs import RunInputs
from interp.report.tables import Cell, Column, Table

AFTER_THE_PAGE = frozenset({"status", "peak_memory_bytes"})
AFTER_THE_PAGE_TIMINGS = frozenset({"report", "total"})
"""What a run adds to its manifest after the page is written. Left out, so that rendering again gives the same bytes."""


def section(run: RunInputs) -> Section:
    """Everything needed to make the run again."""
    blocks: list[Block] = []
    command = command_text(run)
    if command:
        blocks.append(Code(say("The command that made this page"), command))
    shared, own = shared_attrs(run)
    blocks.append(
        Details(
            say("What every result shares"),
            (
                Table(
                    say("Attributes equal in all result files"),
                    (Column(say("attribute")), Column(say("value"))),
                    tuple(shared.items()),
                    language=LANGUAGES[0],
                ),
            ),
            open=True,
        )
    )
    rows: list[tuple[Cell, ...]] = [
        (f"results/{name}.nc", key, value) for name, attrs in own.items() for key, value in attrs.items()
    ]
    blocks.append(
        Details(
            say("Attributes of each result"),
            (
                Table(
                    say("Attributes that differ between files"),
                    (Column(say("file")), Column(say("attribute")), Column(say("value"))),
                    tuple(rows),
                    language=LANGUAGES[0],
                ),
            ),
        )
    )
    blocks += _manifest(run)
    blocks += _left_out(run) or _drops(run)
    if run.study_text:
        blocks.append(Code("study.yaml", run.study_text.rstrip("\n")))
    return Section(
        "provenance",
        say("Provenance"),
        say("What was run, on what, with which versions; enough to do it again."),
        blocks,
    )


def command_text(run: RunInputs) -> str:
    """The command of the manifest, as one line."""
    command = run.manifest.get("command", "")
    if isinstance(command, list):
        import shlex

        return shlex.join(str(part) for part in command)
    return str(command)


def shared_attrs(run: RunInputs) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Attributes equal in every file that has them and in more than one, and the rest by file; in English alone."""
    every = {
        name: {str(k): str(v) for k, v in result.data.attrs.items() if not translated(str(k))}
        for name, result in run.files.items()
    }
    values: dict[str, set[str]] = {}
    holders: Counter[str] = Counter()
    for attrs in every.values():
        for key, value in attrs.items():
            values.setdefault(key, set()).add(value)
            holders[key] += 1
    common = {key for key, seen in values.items() if len(seen) == 1 and holders[key] == len(every)}
    first = next(iter(every.values()))
    shared = {key: value for key, value in first.items() if key in common}
    return shared, {name: {k: v for k, v in attrs.items() if k not in common} for name, attrs in every.items()}


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted keys, in the order written."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in flat(inner, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, "–" if value is None else str(value))]


def timings(run: RunInputs) -> dict[str, float]:
    """Seconds by stage, as far as they were known when the page was first written."""
    found = run.manifest.get("timings", {})
    if not isinstance(found, Mapping):
        return {}
    return {
        str(k): float(v) for k, v in found.items() if k not in AFTER_THE_PAGE_TIMINGS and isinstance(v, int | float)
    }


def _manifest(run: RunInputs) -> list[Block]:
    skipped = {"command", "drops", "timings", "results", *AFTER_THE_PAGE}
    rows = [pair for key, value in run.manifest.items() if key not in skipped for pair in flat(value, str(key))]
    blocks: list[Block] = []
    if rows:
        blocks.append(
            Details(
                say("Model, versions, seeds"),
                (Table("manifest.json", (Column(say("key")), Column(say("value"))), tuple(rows)),),
                open=True,
            )
        )
    seconds = timings(run)
    if seconds:
        named: list[tuple[Cell, ...]] = [*seconds.items(), (say("sum"), sum(seconds.values()))]
        blocks.append(
            Details(
                say("Timings"),
                (Table(say("Wall time by stage"), (Column(say("stage")), Column(say("time"), "s", 2)), tuple(named)),),
            )
        )
    return blocks


def _left_out(run: RunInputs) -> list[Block]:
    """The other words of one sentence that did not line up, each with its reason; empty where there is none."""
    reasons = [
        reason.partition(": ")
        for result in run.files.values()
        for reason in str(result.data.attrs.get("words_left_out", "")).split("\n")
        if reason
    ]
    if not reasons:
        return []
    rows = tuple((word, say_stored(why)) for word, _, why in reasons)
    columns = (Column(say("word")), Column(say("reason")))
    return [
        Details(
            say("Other words left out: {count}", count=len(rows)),
            (Table(say("Every other word that was left out"), columns, rows),),
        )
    ]


def _drops(run: RunInputs) -> list[Block]:
    drops = [drop for drop in run.manifest.get("drops", []) if isinstance(drop, Mapping)]
    skipped = run.manifest.get("skipped_rungs", {})
    items = (
        [(f"{rung}:", say("left out, {reason}", reason=reason)) for rung, reason in skipped.items()]
        if isinstance(skipped, Mapping)
        else []
    )
    if not drops:
        return [Facts((*items, (say("Prompts dropped:"), say("none."))), say("Dropped"))]
    reasons = Counter(say_stored(str(drop.get("reason") or "no reason given")) for drop in drops)
    keys = list(dict.fromkeys(str(key) for drop in drops for key in drop))
    rows = tuple(tuple(say_stored(str(drop.get(key, ""))) for key in keys) for drop in drops)
    summary: tuple[tuple[Cell, ...], ...] = tuple((reason, count) for reason, count in reasons.most_common())
    tables = (
        Table(
            say("{count} prompts dropped, by reason", count=len(drops)), (Column(say("reason")), Column("n")), summary
        ),
        Table(say("Every dropped prompt"), tuple(Column(key) for key in keys), rows),
    )
    return [
        *([Facts(tuple(items), say("Rungs left out"))] if items else []),
        Details(say("Dropped prompts: {count}", count=len(drops)), tables),
    ]
