"""The page: sections in order, one self-contained HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from interp.prompts.vocabulary import PREFERS
from interp.report import links, palette, parts, verdict
from interp.report.blocks import Notice, Script
from interp.report.bundle import Bundle
from interp.report.inputs import RunInputs
from interp.report.markup import embedded_json, figure_number, shown
from interp.report.sections import behavior
from interp.report.tables import interval_text
from interp.report.verdict import Verdict

NOT_DONE = "The model does not do this; nothing below explains it."
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
"""The page forbids itself every request, so a mistake cannot make one."""
_HEADING = ("verdict", "behavior", "reach")
"""The results whose title and question can head the page."""


@dataclass(frozen=True)
class Tile:
    """One number of the page's head."""

    value: str
    name: str
    detail: str


def html(run: RunInputs, bundle: Bundle | None) -> str:
    """The whole page. Pure: the same inputs give the same text."""
    found = verdict.of(run)
    sections = parts.sections(parts.Context(run, found, bundle))
    scripts = [block for section in sections for block in section.blocks if isinstance(block, Script)]
    data = {block.key: {"component": block.component, "props": block.data} for block in scripts}
    head = (str(run.study.get("name", "")), run.first_attr("task"), run.first_attr("model"))
    template = _environment().get_template("page.html")
    return template.render(
        title=_title(run),
        question=str(run.study.get("question") or run.first_attr("question", _HEADING) or _title(run)),
        eyebrow=[text for text in dict.fromkeys(head) if text],
        made=run.first_attr("created_at"),
        answer=_answer(run, found),
        gate=_gate_notice(run, found),
        tiles=_tiles(run, found),
        sections=sections,
        policy=POLICY,
        css=Markup(_asset("page.css") + palette.stylesheet()),
        js=Markup(_asset("page.js")),
        bundle=bundle.code if bundle and scripts else None,
        data=embedded_json(data),
    )


def _title(run: RunInputs) -> str:
    return str(run.study.get("title") or run.first_attr("title", _HEADING) or "interp report")


def _answer(run: RunInputs, found: Verdict) -> str:
    if found.answer:
        return found.answer
    if not found.passed:
        task, model = run.first_attr("task") or "this task", run.first_attr("model") or "this model"
        behaved = run.get("behavior")
        rungs = f" at any rung ({', '.join(behaved.labels('rung'))})" if behaved else ""
        return f"{model} does not do {task}{rungs}. There is no behaviour to explain."
    return "This run has no verdict; the sections below show its results one by one."


def _gate_notice(run: RunInputs, found: Verdict) -> Notice | None:
    if found.passed:
        return _other_rung(run, found) or _only_preferred(run, found)
    reason = f" {behavior.verdict_text(False, found.reason).rstrip('.')}." if found.reason else ""
    withheld = ""
    if run.explaining:
        withheld = " Results that would explain it are in the run's directory and are withheld here."
    return Notice(
        "stop",
        NOT_DONE,
        f"Behaviour gate, rung {found.rung or 'unknown'}.{reason} Only the baselines are shown.{withheld}",
    )


def _other_rung(run: RunInputs, found: Verdict) -> Notice | None:
    """Says so if the study's main rung is not the one that is explained."""
    main = str(run.manifest.get("main_rung") or found.rung)
    behaved = run.get("behavior")
    if main == found.rung or behaved is None or main not in behaved.labels("rung"):
        return None
    reason = behaved.labels("reason")[behaved.labels("rung").index(main)]
    text = f"{behavior.verdict_text(False, reason).rstrip('.')}. Everything below explains rung {found.rung} only."
    return Notice("stop", f"The model does not do this study's main rung, {main}.", text)


def _only_preferred(run: RunInputs, found: Verdict) -> Notice | None:
    """Says so if the model prefers the right answer to the other one without saying it."""
    behaved = run.get("behavior")
    if behaved is None or found.rung not in behaved.labels("rung"):
        return None
    i = behaved.labels("rung").index(found.rung)
    if behavior.outcomes(behaved)[i] != PREFERS:
        return None
    said, preferred = (float(behaved.need(name, "rung").values[i]) for name in ("accuracy", "preferred"))
    text = (
        f"The right answer is the top token on {said:.0%} of the prompts, and beats the other answer on "
        f"{preferred:.0%}. What follows explains that preference."
    )
    return Notice("warn", "The model prefers this answer; it does not say it.", text)


def _tiles(run: RunInputs, found: Verdict) -> list[Tile]:
    tiles = []
    behaved = run.get("behavior")
    if behaved is not None and found.rung in behaved.labels("rung"):
        i = behaved.labels("rung").index(found.rung)
        bounds = behaved.need("accuracy_interval", "rung", "ci_bound").values[i]
        accuracy = float(behaved.need("accuracy", "rung").values[i])
        tiles.append(
            Tile(
                f"{accuracy:.0%}",
                "top-1 accuracy",
                f"{interval_text(float(bounds[0]), float(bounds[1]))}, rung {found.rung}",
            )
        )
        if behaved.has("clean_mean", "corrupted_mean"):
            clean, corrupted = (float(behaved.need(f"{n}_mean", "rung").values[i]) for n in ("clean", "corrupted"))
            tiles.append(
                Tile(
                    f"{figure_number(clean, 1)} → {figure_number(corrupted, 1)}",
                    "logit difference",
                    "clean → corrupted, logits",
                )
            )
        tiles.append(Tile(str(int(behaved.need("n", "rung").values[i])), "prompt pairs", f"rung {found.rung}"))
    if found.passed and found.heads:
        count = [found.labels.count(kind) for kind in ("mover", "reader")]
        names = [head for head, label in zip(found.heads, found.labels, strict=True) if label in ("mover", "reader")]
        tiles.append(
            Tile(
                f"{count[0]} + {count[1]}",
                "movers + readers",
                ", ".join(names[:4]) + ("…" if len(names) > 4 else "") or "none found",
            )
        )
    return tiles


def _asset(name: str) -> str:
    return resources.files("interp.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("interp.report", "templates"),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["heads"] = links.heads_in
    return environment
