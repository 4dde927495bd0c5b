"""The first screen: the question, the answer in one sentence, its numbers, its picture, and what it is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten

from markupsafe import Markup

from interp import mini
from interp.language import called, say
from interp.prompts.vocabulary import PREFERS
from interp.report import picture
from interp.report.arcs import WHOLE
from interp.report.blocks import Notice
from interp.report.heat import going_on
from interp.report.inputs import RunInputs
from interp.report.picture import Route
from interp.report.sections import behavior
from interp.report.tables import percent_interval
from interp.report.verdict import Verdict, place

MOSTLY = 0.5
"""Of a head that looks less than this at the word it is said to take something from, that is said."""
HEADS = 6
"""Heads whose numbers stand on the first screen, at most."""
_HEADING = ("verdict", "behavior", "reach", "influences")
"""The results whose title and question can head the page."""
_SHAPED = ("attention_patterns", "head_attribution", "heads")
"""The results that hold every head of every layer of the model, where there are any."""


@dataclass(frozen=True)
class Head:
    """What the first screen says.

    Attributes:
        title: of the page.
        eyebrow: study, task and model, in a small line.
        question: as it was asked.
        notice: what has to be known before the answer.
        answer: one sentence.
        numbers: (what, in words with numbers), the measurements behind it.
        scale: what the numbers mean.
        rest: the whole answer, where it says more than its first sentence; folded where its numbers stand above.
        about: (what, in words): the model, and what the answer cannot say.
        picture: the drawing, if there is one.
        wide: whether it has a whole sentence across, and stands below the answer.
        words: the fixed words of the template.
    """

    title: str
    eyebrow: tuple[str, ...]
    question: str
    notice: Notice | None
    answer: str
    numbers: tuple[tuple[str, str], ...]
    scale: str
    rest: str
    about: tuple[tuple[str, str], ...]
    picture: Markup | None
    wide: bool
    words: Mapping[str, str]

    @property
    def hint(self) -> Markup:
        """What says that the picture goes on to the side, where it has too little room."""
        return going_on(self.picture or Markup(""))


def of(run: RunInputs, found: Verdict) -> Head:
    """The first screen of a run."""
    names = (str(run.study.get("name", "")), run.first_attr("task"), run.first_attr("model"))
    answer = _answer(run, found)
    every = picture.routes(run, found) if found.passed else []
    routes = every[:HEADS]
    short = found.short or _first_sentence(answer)
    return Head(
        title=title(run),
        eyebrow=tuple(dict.fromkeys(text for text in names if text)),
        question=run.stated("question") or run.first_said("question", _HEADING) or title(run),
        notice=_notice(run, found),
        answer=short,
        numbers=(*_of_heads(found, routes), *_of_target(run, found, routes), *_sure(run, found)),
        scale=_scale(routes[0].head) if routes else "",
        rest=answer.removeprefix(short).strip(),
        about=(*_model(run), *_limits(run, found)),
        picture=picture.picture(run),
        wide=run.get("reach") is not None,
        words={
            "question": say("The question"),
            "answer": say("The answer, for rung {rung} only", rung=called("rung", found.rung))
            if _main_rung(run, found)
            else say("The answer"),
            "rest": say("The whole answer"),
            "picture_name": say("The picture of the answer"),
            "picture": _caption(run, found, every),
        },
    )


def _caption(run: RunInputs, found: Verdict, routes: list[Route]) -> str:
    """How to read the picture, and which of the prompts it draws: the question may quote other words."""
    undrawn = [one.head for one in routes if one.elsewhere]
    if run.get("reach") is not None or len(undrawn) < len(routes):
        drawn = say(
            "An arc is what one head takes from one word to another, at its layer; the thicker, the more it matters."
        )
    elif not routes:
        drawn = say("No head is drawn, since none was named.")
    else:
        drawn = ""
    if undrawn:
        drawn += " " + say(
            "Not drawn, since they hardly look at a word in question: {heads}.", heads=", ".join(undrawn)
        )
    drawn = drawn.strip()
    reach = run.get("reach")
    if picture.has_faint(run, found):
        drawn += " " + say("Thin and grey: next to nothing.")
    if reach is not None and (size := len(reach.labels("token"))) > WHOLE:
        drawn += " " + say("Of {n} tokens those near an arc are drawn; … stands for the others.", n=size)
    n = picture.prompts(run, found)
    return drawn if n is None else f"{drawn} {say('Drawn: prompt 1 of {n}.', n=n)}"


def title(run: RunInputs) -> str:
    """The page's title."""
    return run.stated("title") or run.first_said("title", _HEADING) or "interp report"


def _answer(run: RunInputs, found: Verdict) -> str:
    if found.answer:
        return found.answer
    if not found.passed:
        task = run.first_attr("task") or say("this task")
        model = run.first_attr("model") or say("this model")
        behaved = run.get("behavior")
        if behaved is None:
            return say("No: {model} does not do {task}. There is no behaviour to explain.", model=model, task=task)
        return say(
            "No: {model} does not do {task} at any rung ({rungs}). There is no behaviour to explain.",
            model=model, task=task, rungs=", ".join(called("rung", one) for one in behaved.labels("rung")),
        )  # fmt: skip
    return say("This run has no verdict; the sections below show its results one by one.")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


# ---- the numbers ----


def _of_heads(found: Verdict, routes: list[Route]) -> list[tuple[str, str]]:
    """What each named head does, with both effects."""
    if found.roles is None:
        return []
    return [(one.head, _carries(one, found)) for one in routes]


def _carries(one: Route, found: Verdict) -> str:
    assert found.roles is not None
    words = {
        "start": found.roles.name(one.start),
        "end": found.roles.name(one.end),
        "sufficient": one.effect.sufficient.text,
        "needed": one.effect.needed.text,
    }
    if one.elsewhere:
        words["weight"] = f"{one.weight:.2f}"
        return say(
            "acts at {end}: sufficient {sufficient}, needed {needed}; it hardly looks at {start} ({weight} of its "
            "attention), so that it takes it from another word",
            **words,
        )
    if one.job == "mover":
        text = say("brings it from {start} to {end}; at {end} alone: sufficient {sufficient}, needed {needed}", **words)
    else:
        text = say("reads it at {end}, from {start}; at {end} alone: sufficient {sufficient}, needed {needed}", **words)
    if one.weight is None or one.weight >= MOSTLY:
        return text
    return text + say("; only {weight:.2f} of its attention is on {start}", weight=one.weight, start=words["start"])


def _scale(head: str) -> str:
    layer, number = place(head)
    return say(
        "{head} is head {number} of layer {layer}, both counted from 0. Sufficient: what this alone brings back where "
        "the context is wrong. Needed: what is lost without it where the context is right. 1 is the whole difference "
        "between the two, 0 is nothing; in brackets, 95% intervals.",
        head=head, number=number, layer=layer,
    )  # fmt: skip


def _of_target(run: RunInputs, found: Verdict, routes: list[Route]) -> list[tuple[str, str]]:
    """What the target itself holds, where no head brings it there."""
    roles = found.roles
    if not found.passed or roles is None or roles.target in {one.end for one in routes}:
        return []
    size = picture.at_target(run, roles)
    if size is None:
        return []
    name = roles.name(roles.target)
    text = say("the residual stream there, at its best layer: sufficient {sufficient}", sufficient=size.text)
    return [(name[:1].upper() + name[1:], text)]


def _sure(run: RunInputs, found: Verdict) -> list[tuple[str, str]]:
    """How often the model is right, on how many prompts, and whether the methods agree."""
    items = []
    behaved = run.get("behavior")
    if behaved is not None and found.rung in behaved.labels("rung"):
        i = behaved.labels("rung").index(found.rung)
        low, high = (float(bound) for bound in behaved.need("accuracy_interval", "rung", "ci_bound").values[i])
        asked = int(behaved.need("n", "rung").values[i])
        patched = _patched(run) if found.passed else None
        said = {
            "rung": called("rung", found.rung), "accuracy": float(behaved.need("accuracy", "rung").values[i]),
            "interval": percent_interval(low, high),
        }  # fmt: skip
        if patched is not None and patched != asked:
            text = say(
                "{patched} of {n} pairs of prompts (rung {rung}) were patched, over which brackets hold 95% intervals; "
                "1 is the whole difference. Of all {n} the model says the right answer first in {accuracy:.0%} "
                "{interval}.",
                patched=patched, n=asked, **said,
            )  # fmt: skip
        else:
            text = say(
                "{n} pairs of prompts (rung {rung}), over which brackets hold 95% intervals{whole}. The model says the "
                "right answer first in {accuracy:.0%} {interval}.",
                n=asked, whole="" if patched is None else say("; 1 is the whole difference"), **said,
            )  # fmt: skip
        items.append((say("How sure"), text))
    verdict = run.get("verdict")
    if verdict is not None and found.passed:
        named = (("also_needed", say("Also needed")), ("agreement", say("Other methods")))
        items += [(name, text) for attr, name in named if (text := verdict.said(attr))]
    return items


def _patched(run: RunInputs) -> int | None:
    """On how many pairs the heads or the stream were patched, which may be fewer than were asked; None if nowhere."""
    found = [one for name in ("head_attribution", "activation_patching") if (one := run.get(name)) is not None]
    return next((int(one.data.sizes["prompt"]) for one in found if "prompt" in one.data.sizes), None)


# ---- what it is about ----


def _model(run: RunInputs) -> list[tuple[str, str]]:
    name = run.first_attr("model")
    if not name:
        return []
    said = [name, run.first_attr("architecture")]
    shaped = next((result for key in _SHAPED if (result := run.get(key)) is not None), None)
    if shaped is not None and {"layer", "head"} <= set(shaped.data.sizes):
        sizes = shaped.data.sizes
        said.append(say("{layers} layers of {heads} heads", layers=sizes["layer"], heads=sizes["head"]))
    if count := run.first_attr("n_parameters"):
        said.append(say("{n} million parameters", n=f"{int(count) / 1e6:.3g}"))
    said.append(run.first_attr("dtype"))
    if run.first_attr("bos") == "prepended":
        said.append(say("its start token before every text"))
    text = f"{', '.join(part for part in said if part)}."
    if name == mini.NAME:
        text += " " + say(
            "It was made for this package, and some of its heads were set by hand before it was trained. What is "
            "found here says nothing about GPT-2 or any other model."
        )
    return [(say("The model"), text)]


def _limits(run: RunInputs, found: Verdict) -> list[tuple[str, str]]:
    heading = say("What this cannot say")
    if run.get("reach") is not None:
        text = say(
            "It is about this sentence and these other words, and heads are changed one at a time: another sentence, "
            "or heads that only work together, can do otherwise."
        )
        return [(heading, text)]
    if run.get("influences") is not None:
        return [
            (heading, say("It is about this text and the words that were tried in it: another text can do otherwise."))
        ]
    if not (found.passed and found.heads):
        return []
    text = say(
        "It is about these prompts and about heads that are changed one at a time: heads that only work together, or "
        "at words that were not patched, have no name here. Another wording can go another way."
    )
    return [(heading, text)]


# ---- what has to be known first ----


def _notice(run: RunInputs, found: Verdict) -> Notice | None:
    if found.passed:
        return _other_rung(run, found) or _only_preferred(run, found)
    reason = f" {behavior.verdict_text(False, found.reason).rstrip('.')}." if found.reason else ""
    withheld = ""
    if run.explaining:
        withheld = " " + say("Results that would explain it are in the run's directory and are withheld here.")
    text = say(
        "Behaviour gate, rung {rung}.{reason} Only the baselines are shown.",
        rung=called("rung", found.rung) or "?",
        reason=reason,
    )
    return Notice("stop", say("The model does not do this; nothing below explains it."), text + withheld)


def _main_rung(run: RunInputs, found: Verdict) -> str | None:
    """The study's main rung, where another one is explained."""
    main = str(run.manifest.get("main_rung") or found.rung)
    return main if found.passed and main != found.rung else None


def _other_rung(run: RunInputs, found: Verdict) -> Notice | None:
    """Says so if the study's main rung is not the one that is explained."""
    main, behaved = _main_rung(run, found), run.get("behavior")
    if main is None or behaved is None or main not in behaved.labels("rung"):
        return None
    reason = behaved.said_labels("reason")[behaved.labels("rung").index(main)]
    text = say(
        "{reason}. Everything below explains rung {rung} only.",
        reason=behavior.verdict_text(False, reason).rstrip("."), rung=called("rung", found.rung),
    )  # fmt: skip
    if found.rung in behaved.labels("rung_of"):
        prompt = behaved.labels("text")[behaved.labels("rung_of").index(found.rung)]
        text += " " + say("Its first prompt: “{prompt}”.", prompt=shorten(prompt, 160, placeholder=" …"))
    return Notice("stop", say("The model does not do this study's main rung, {rung}.", rung=called("rung", main)), text)


def _only_preferred(run: RunInputs, found: Verdict) -> Notice | None:
    """Says so if the model prefers the right answer to the other one without saying it."""
    behaved = run.get("behavior")
    if behaved is None or found.rung not in behaved.labels("rung"):
        return None
    i = behaved.labels("rung").index(found.rung)
    if behavior.outcomes(behaved)[i] != PREFERS:
        return None
    said, preferred = (float(behaved.need(name, "rung").values[i]) for name in ("accuracy", "preferred"))
    text = say(
        "The right answer is the top token on {said:.0%} of the prompts, and beats the other answer on "
        "{preferred:.0%}. What follows explains that preference.",
        said=said, preferred=preferred,
    )  # fmt: skip
    return Notice("warn", say("The model prefers this answer; it does not say it."), text)
