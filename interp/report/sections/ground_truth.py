"""Which method to believe: what each found of models whose circuit is known, and of models with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from interp import track_record
from interp.language import say
from interp.report.blocks import Block, Details, Section
from interp.report.inputs import Result
from interp.report.tables import Column, Table


def section(known: Result | None, alarms: Result | None) -> Section | None:
    """A table of methods and questions, and one of false alarms; None where the run has neither."""
    blocks: list[Block] = []
    if known is not None:
        reading = say(
            "AUROC is the chance that something true has a larger score than something that is not: the mean over "
            "{n} models made by hand, the worst in brackets. Found and named wrongly are at each method's threshold.",
            n=known.data.sizes["known"],
        )
        ordered: list[tuple[str, ...]] = [  # what was found and what was named wrongly stays in view on a narrow screen
            (method, asked, found, wrongly, order)
            for method, asked, order, found, wrongly in track_record.rows(track_record.records_of(known.data))
        ]
        blocks.append(_table(say("Models whose circuit is known"), ordered, reading))
    if alarms is not None:
        columns = (alarms.data[name].values.tolist() for name in ("claim", "alarms", "n"))
        rows = track_record.alarm_rows({claim: (count, n) for claim, count, n in zip(*columns, strict=True)})
        reading = say("Whatever is claimed of these models is a false alarm: they do not do the task.")
        blocks.append(_table(say("Models with random weights"), rows, reading))
    if not blocks:
        return None
    question = say("Which methods find what is there, and how often do they find what is not?")
    return Section("ground-truth", say("Which method to believe"), question, tuple(blocks))


def _table(title: str, rows: Sequence[Sequence[str]], reading: str) -> Details:
    """Rows of which the first is the head."""
    head, *rest = rows
    table = Table(title, tuple(Column(name) for name in head), tuple(tuple(row) for row in rest))
    return Details(title, (table,), open=True, reading=reading)
