"""The parts of the page, in order: which results each draws, and how. What no part draws gets the generic section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from interp import track_record
from interp.language import say
from interp.report.blocks import Facts, Notice, Section
from interp.report.bundle import Bundle
from interp.report.inputs import RunInputs
from interp.report.sections import (
    approximations,
    behavior,
    certainty,
    circuit,
    circuit_evaluation,
    generic,
    ground_truth,
    heads,
    influences,
    lenses,
    lesson,
    patching,
    places,
    probe,
    provenance,
    qk,
    roles,
    sentence,
)
from interp.report.verdict import Verdict


@dataclass(frozen=True)
class Context:
    """What a part may look at: the whole run, what it concluded, and the script that draws patterns, if any."""

    run: RunInputs
    verdict: Verdict
    bundle: Bundle | None


Draw: TypeAlias = Callable[[Context], Sequence[Section | None]]
"""Makes the sections of a part; None where it has nothing to show."""


@dataclass(frozen=True)
class Part:
    """One part of the page.

    Attributes:
        key: the anchor of the line that stands here if there is nothing to draw.
        title: the title of that line.
        draw: makes the sections.
        results: the names under which the results are saved that it draws.
        explains: whether it explains the behaviour, and is withheld where there is none.
        expected: whether its absence is worth a line, unless the study says that it asks for other analyses.
        of_sentence: whether it belongs on the page of one sentence (``interp explain``) too.
    """

    key: str
    title: str
    draw: Draw
    results: tuple[str, ...] = ()
    explains: bool = True
    expected: bool = True
    of_sentence: bool = False

    def sections(self, context: Context) -> list[Section]:
        """Its sections; or why it has none, if that is worth a line."""
        drawn = [section for section in self.draw(context) if section is not None]
        if drawn:
            return [*drawn[:-1], _with_record(drawn[-1], [name for name in self.results if name in context.run.files])]
        asked = context.run.study.get("analyses")
        if not self.expected or (isinstance(asked, Mapping) and self.results[0] not in asked):
            return drawn
        return [missing(context.run, self.key, self.title, self.results[0])]


def sections(context: Context) -> list[Section]:
    """All sections of the page, in order."""
    shown = [part for part in PARTS if context.verdict.passed or not part.explains]
    if INFLUENCES in context.run.files or all(name in context.run.files for name in SENTENCE):
        shown = [part for part in shown if part.of_sentence]
    return [section for part in shown for section in part.sections(context)]


def missing(run: RunInputs, key: str, title: str, name: str) -> Section:
    """The section in place of a result that a run does not have: why it is not there."""
    reason = run.manifest.get("not_asked", {}).get(name)
    text = f"This run has no results/{name}.nc, so this section is left out."
    if reason is not None:
        text = f"This cannot be asked here. {reason}"
    return Section(key, title, "", (Notice("note", "", text),))


def _with_record(section: Section, names: Sequence[str]) -> Section:
    """A section, and at its foot how often the methods of its results were right where the answer is known."""
    return replace(section, blocks=(*section.blocks, *record(names)))


def record(names: Sequence[str]) -> tuple[Facts, ...]:
    """How often the methods of some results were right where the answer is known; nothing where none was on trial.

    >>> record(["head_roles"])[0].items[0][0], record(["behavior"])
    ('Where the answer is known:', ())
    """
    return in_words([line for name in names if (line := track_record.line(name)) is not None])


def in_words(lines: Sequence[str]) -> tuple[Facts, ...]:
    """Lines of the track record as they stand at the foot of what they are about; nothing where there are none."""
    return (Facts(tuple((say("Where the answer is known:"), line) for line in lines)),) if lines else ()


def _sentence(context: Context) -> list[Section | None]:
    found = [one for name in SENTENCE if (one := context.run.get(name)) is not None]
    if len(found) < len(SENTENCE):
        return []
    reach, heads, sources, predictions = found
    return [sentence.section(reach, heads, sources, predictions, *(context.run.get(name) for name in FURTHER))]


def _influences(context: Context) -> list[Section | None]:
    found = context.run.get(INFLUENCES)
    return [] if found is None else [influences.section(found)]


def _behavior(context: Context) -> list[Section | None]:
    found = context.run.get("behavior")
    if found is None:
        return []
    return [behavior.ladder(found, context.verdict), behavior.prompts(found, context.verdict)]


def _lesson(context: Context) -> list[Section | None]:
    return [lesson.section(context.run, context.verdict, context.bundle)]


def _probing(context: Context) -> list[Section | None]:
    found = context.run.get("probing")
    return [] if found is None else [probe.section(found, context.verdict)]


def _lens(name: str) -> Draw:
    """What draws a result in which lenses are read, one or several side by side."""

    def draw(context: Context) -> list[Section | None]:
        found = context.run.get(name)
        return [] if found is None else [lenses.section(found)]

    return draw


def _places(context: Context) -> list[Section | None]:
    found = context.run.get("places")
    return [] if found is None else [places.section(found)]


def _patching(context: Context) -> list[Section | None]:
    found = context.run.get("activation_patching")
    return [] if found is None else [patching.section(found, context.verdict)]


def _heads(context: Context) -> list[Section | None]:
    return [heads.section(context.run.get("head_attribution"), context.verdict)]


def _approximations(context: Context) -> list[Section | None]:
    found = context.run.get("approximation_audit")
    return [] if found is None else [approximations.section(found)]


def _qk(context: Context) -> list[Section | None]:
    found = context.run.get("qk_attribution")
    return [] if found is None else [qk.section(found)]


def _ground_truth(context: Context) -> list[Section | None]:
    return [ground_truth.section(context.run.get("ground_truth"), context.run.get("false_alarms"))]


def _roles(context: Context) -> list[Section | None]:
    found = context.run.get("head_roles")
    return [] if found is None else [roles.section(found, context.verdict)]


def _circuit(context: Context) -> list[Section | None]:
    found = context.run.get("circuit")
    return [] if found is None else [circuit.section(found)]


def _circuit_evaluation(context: Context) -> list[Section | None]:
    found = context.run.get("circuit_evaluation")
    return [] if found is None else [circuit_evaluation.section(found)]


def _certainty(context: Context) -> list[Section | None]:
    return [certainty.section(context.run, context.verdict)]


def _others(context: Context) -> list[Section | None]:
    """The generic section of every result that no part draws, and why others could not be asked."""
    drawn = {name for part in PARTS for name in part.results}
    run = context.run
    found: list[Section | None] = [
        _with_record(generic.section(result, context.verdict), [name])
        for name, result in run.files.items()
        if name not in drawn
    ]
    not_asked = [name for name in run.manifest.get("not_asked", {}) if name not in drawn and name not in run.files]
    return [*found, *(missing(run, generic.anchor(name), name, name) for name in not_asked)]


SENTENCE = ("reach", "heads", "sources", "predictions")
"""The results of ``interp explain`` that are drawn together."""
INFLUENCES = "influences"
"""The result of ``interp explain --from ?``."""
FURTHER = ("paths", "continuation", "route")
"""Those that are drawn with them where they are there."""

PARTS = (
    Part("sentence", "", _sentence, (*SENTENCE, *FURTHER), expected=False, of_sentence=True),
    Part("influences", "", _influences, (INFLUENCES,), expected=False, of_sentence=True),
    Part("ladder", "Does the model do it?", _behavior, ("behavior",), explains=False),
    Part("lesson", "How one head reads", _lesson, ("attention_lesson", "attention_patterns", "attention_vectors")),
    Part("probing", "Where it can be read", _probing, ("probing",)),
    Part("logit-lens", "", _lens("logit_lens"), ("logit_lens",), expected=False),
    Part("lenses", "", _lens("lenses"), ("lenses",), expected=False),
    Part("patching", "What carries it", _patching, ("activation_patching",)),
    Part("heads", "Which heads", _heads, ("head_attribution", "verdict")),
    Part("qk", "", _qk, ("qk_attribution",), expected=False),
    Part("roles", "", _roles, ("head_roles",), expected=False),
    Part("places", "", _places, ("places",), expected=False),
    Part("approximations", "", _approximations, ("approximation_audit",), expected=False),
    Part("ground-truth", "", _ground_truth, ("ground_truth", "false_alarms"), explains=False, expected=False),
    Part("circuit", "", _circuit, ("circuit",), expected=False),
    Part("circuit-evaluation", "", _circuit_evaluation, ("circuit_evaluation",), expected=False),
    Part("others", "", _others, expected=False, of_sentence=True),
    Part("certainty", "", _certainty, ("verdict",), expected=False),
    Part(
        "provenance",
        "",
        lambda context: [provenance.section(context.run)],
        explains=False,
        expected=False,
        of_sentence=True,
    ),
)
"""Every part, in the order of the page. A result with a section of its own has its line here."""
