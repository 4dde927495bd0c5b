"""A study: one task, one model, and the analyses to run on it, written down as YAML and read strictly.

Its task is bundled, or the researcher's own: a file beside the study, or written in the study itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses import options, registry
from interp import _names, _yaml
from interp._keys import QUOTE, TEXT, Key, some, whole
from interp._names import component
from interp.errors import InterpError, nearest, shown, unknown_name

if TYPE_CHECKING:
    from interp.tasks import Rung, Task

STUDIES = Path(__file__).parents[1] / "studies"


_RANGES = {"n": (1, 1_000_000), "seed": (0, _yaml.LARGEST)}
"""The least and the most of each whole number."""

KEYS = (
    Key("name", _names.HOLDS, "A short name, also of the directory under reports/.", required=True),
    Key("title", TEXT, "One line for the page.", required=True),
    Key("question", TEXT, "What the study asks.", required=True),
    Key(
        "task",
        {},
        "The prompts: a bundled task, the path of a task's .yaml file from here, or a whole task.",
        required=True,
    ),
    Key(
        "rungs",
        {"anyOf": [{"const": "all"}, some({"type": "string"})]},
        "The task's rungs to use: all (the default), or a list of names.",
    ),
    Key("main_rung", TEXT, "The rung to explain if the model does it; by default the task's own choice."),
    Key("n", whole(*_RANGES["n"]), "Pairs of prompts for each rung; 48 by default."),
    Key("seed", whole(*_RANGES["seed"]), "Fixes the pairs and everything random in the analyses; 0 by default."),
    Key("model", TEXT, "mini (the default), a hub name, a Hugging Face directory or a .gguf file."),
    Key("gate", {}, "The least behaviour that is worth explaining."),
    Key(
        "analyses",
        {},
        "What is measured, each with its options, if any; behavior must be there.",
        required=True,
    ),
)
"""The keys of a study's file; what may stand in task, gate and analyses depends on what is installed (``schema``)."""


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        name: short name, also the default directory under reports/.
        title: one line for the page.
        question: what the study asks.
        task: the name of a bundled task (``interp.tasks.names()``), or a whole task as its file would hold it.
        rungs: the task's rungs to use, in ladder order; None is all of them.
        main_rung: the rung to explain if the model does it; None is the task's own choice.
        n: pairs per rung.
        seed: seed of the pairs and of everything random in the analyses.
        model: what ``HookedTransformer.from_pretrained`` takes.
        gate: the least behavior worth explaining, handed to the behavior analysis.
        analyses: analysis -> options, in the order in which they run.
    """

    name: str
    title: str
    question: str
    task: str | Mapping[str, Any]
    rungs: tuple[str, ...] | None = None
    main_rung: str | None = None
    n: int = 48
    seed: int = 0
    model: str = "mini"
    gate: Mapping[str, float] = field(default_factory=dict)
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The study as plain YAML values; ``parse`` reads it back to an equal study."""
        plain = asdict(self)
        plain["rungs"] = list(self.rungs) if self.rungs else "all"
        plain["gate"] = dict(self.gate)
        plain["analyses"] = {name: dict(options) for name, options in self.analyses.items()}
        return {key: value for key, value in plain.items() if value is not None}

    def options(self, analysis: str) -> dict[str, Any]:
        """What an analysis is told; the gate is the behavior analysis's."""
        return {**self.analyses[analysis], **(self.gate if analysis == "behavior" else {})}

    def check_options(self, where: str = "") -> None:
        """Refuse options of the analyses that are wrong whatever the model and the prompts.

        Args:
            where: names the study's file in messages.

        Raises:
            InterpError: names the option, where it stands, and what to give.
        """
        found = registry.ordered(self.analyses)
        options.check(found["behavior"].option, self.gate, f"gate of {where}" if where else "gate")
        for name, given in self.analyses.items():
            found[name].check(given, where)

    def check_names(self, rung: Rung, where: str = "") -> None:
        """Refuse options that name a role or slot that the prompts of a rung do not have.

        Args:
            rung: the rung that is to be explained.
            where: names the study's file in messages.

        Raises:
            InterpError: names the option, where it stands, and the names that there are.
        """
        names = options.Names(rung.name, rung.pair_roles, rung.slots)
        for name, analysis in registry.ordered(self.analyses).items():
            analysis.check_names(self.analyses[name], names, where)

    def ladder(self, task: Task) -> tuple[list[str], str]:
        """The names of its rungs in order, and that of the main one."""
        chosen = [rung for rung in task.rungs if not self.rungs or rung.name in self.rungs]
        main = self.main_rung or next((rung.name for rung in chosen if rung.main), chosen[-1].name)
        return [rung.name for rung in chosen], main

    def task_sha256(self) -> str:
        """Fingerprint of all that the task says, wherever it is written."""
        from interp import tasks

        content = tasks.content(self.task) if isinstance(self.task, str) else self.task
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def names() -> tuple[str, ...]:
    """The bundled studies, alphabetically."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.yaml")))


def load(name_or_file: str | Path) -> Study:
    """Read and check a study: a bundled name, or a path to a YAML file.

    Raises:
        InterpError: no such study or file, or not a valid study; one line that says which key and where.
    """
    text = str(name_or_file)
    looks_like_path = text.endswith((".yaml", ".yml")) or os.sep in text
    path = Path(text) if looks_like_path else STUDIES / f"{text}.yaml"
    if not looks_like_path and text not in names():
        raise unknown_name("study", text, names())
    if looks_like_path and not os.path.lexists(path):
        raise InterpError(f"No study file at {text}. Bundled studies: {', '.join(names())}.")
    where = text if looks_like_path else path.name
    return parse(_yaml.read(path, where), where=where, folder=path.parent)


def parse(content: object, *, where: str, folder: Path = Path()) -> Study:
    """Check a study's content.

    Args:
        content: what the file holds.
        where: names the file in messages.
        folder: where the file is; the path of a task is relative to it.

    Raises:
        InterpError: an unknown or missing key, a wrong type, an unknown analysis, a wrong option of one, or a task
            that is not valid.
    """
    if not isinstance(content, dict):
        raise InterpError(f"{where} must be a mapping of keys such as name, task and analyses.")
    check_keys(content, (key.name for key in KEYS), where)
    for key in KEYS:
        if key.required and key.name not in content:
            raise InterpError(f"{where} lacks the key '{key.name}'.")
    values: dict[str, Any] = {}
    values["name"] = component(content["name"], f"'name' in {where}")
    for name in ("title", "question", "model", "main_rung"):
        if name in content:
            values[name] = _text(content[name], name, where)
    for name in _RANGES:
        if name in content:
            values[name] = _whole(content[name], name, where)
    task, values["task"] = _task(content["task"], where, folder)
    values["rungs"] = _rungs(content.get("rungs", "all"), where)
    values["gate"] = _gate(content.get("gate"), where)
    values["analyses"] = _analyses(content["analyses"], where)
    study = Study(**values)
    _check_rungs(study, task, where)
    study.check_options(where)
    study.check_names(task.rung(study.ladder(task)[1]), where)
    if isinstance(study.task, Mapping):
        _yaml.plain(study.as_dict(), where)  # a run keeps the study with its task in one file
    return study


def check_keys(mapping: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Refuse a key that is not known.

    Raises:
        InterpError: names the key, where it stands and the nearest match.
    """
    known = list(known)
    for key in mapping:
        if key not in known:
            raise InterpError(
                f"Unknown key {shown(key)} in {where}.{nearest(key, known)} Known keys: {', '.join(known)}."
            )


def _wrong(key: str, where: str, expected: str, value: object) -> InterpError:
    return InterpError(f"'{key}' in {where} must be {expected}, not {shown(value)}.")


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        quote = QUOTE if not isinstance(value, str | None) else ""
        raise InterpError(f"{_wrong(key, where, 'some text', value)}{quote}")
    if not _yaml.is_clean(value):
        raise _wrong(key, where, "text without control characters", value)
    return " ".join(value.split())


def _whole(value: object, key: str, where: str, prefix: str = "") -> int:
    least, most = _RANGES[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(prefix + key, where, f"a whole number of at least {least}", value)
    if value > most:
        raise _wrong(prefix + key, where, f"a whole number of at most {most:,}", value)
    return value


def _rungs(value: object, where: str) -> tuple[str, ...] | None:
    if value == "all":
        return None
    if not isinstance(value, list) or not value or not all(isinstance(rung, str) for rung in value):
        raise _wrong("rungs", where, "'all' or a list of rung names", value)
    return tuple(dict.fromkeys(value))


def _gate(value: object, where: str) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong("gate", where, "a mapping such as {minimum_preferred: 0.75}", value)
    for key, number in value.items():
        if not isinstance(key, str):
            raise InterpError(f"gate in {where} has the key {shown(key)}; keys are text, such as minimum_preferred.")
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise _wrong(f"gate.{key}", where, "a finite number", number)
    return dict(value)


def _analyses(value: object, where: str) -> dict[str, dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(value)
    if not isinstance(value, dict) or not value:
        raise _wrong("analyses", where, "a list of analyses, or a mapping of analysis to options", value)
    order = registry.ordered(value, f" in {where}")
    for name, given in value.items():
        if not isinstance(given, dict | None) or not all(isinstance(key, str) for key in given or {}):
            raise _wrong(f"analyses.{name}", where, "a mapping of options", given)
    if "behavior" not in value:
        raise InterpError(
            f"{where} must name the analysis 'behavior': without it nothing says the model does the task."
        )
    return {name: dict(value[name] or {}) for name in order}


def _task(value: object, where: str, folder: Path) -> tuple[Task, str | dict[str, Any]]:
    """The task, and what a study keeps of it: the name of a bundled one, or all that another one says."""
    from interp import tasks

    if isinstance(value, dict):
        placed = tasks.located(value, folder)
        return tasks.parse_task(placed, where), placed
    if not isinstance(value, str) or not _yaml.is_clean(value):
        raise _wrong("task", where, "a bundled task, the path of a .yaml file, or a whole task as a mapping", value)
    if value.endswith(tasks.FILES):
        path = folder / Path(value).expanduser()
        if not os.path.lexists(path):
            raise InterpError(
                f"No task file at {path}, which {where} names: a path is relative to the study. "
                f"Bundled tasks: {', '.join(tasks.names())}."
            )
        content = tasks.content(path)
        return tasks.parse_task(content, value), content
    known = tasks.names()
    if value not in known:
        raise InterpError(
            f"Unknown task {shown(value)} in {where}.{nearest(value, known)} Known tasks: {', '.join(known)}. "
            "A task of your own is the path of its .yaml file, or a mapping."
        )
    return tasks.load(value), value


def _check_rungs(study: Study, task: Task, where: str) -> None:
    ladder = tuple(rung.name for rung in task.rungs)
    for rung in (*(study.rungs or ()), *([study.main_rung] if study.main_rung else [])):
        if rung not in ladder:
            raise InterpError(
                f"Unknown rung {shown(rung)} in {where}.{nearest(rung, ladder)} "
                f"Rungs of {task.name}: {', '.join(ladder)}."
            )
    if study.rungs and study.main_rung and study.main_rung not in study.rungs:
        raise InterpError(
            f"main_rung {shown(study.main_rung)} in {where} is not among its rungs {', '.join(study.rungs)}."
        )


def with_overrides(
    study: Study,
    *,
    model: str | None,
    n: int | None,
    seed: int | None,
    where: str = "the command line",
    prefix: str = "--",
) -> Study:
    """The study with the caller's choices, checked like the file's own; ``where`` and ``prefix`` are for messages.

    Raises:
        InterpError: n below 1 or a negative seed.
    """
    given: dict[str, Any] = {"model": model, "n": n, "seed": seed}
    chosen = {key: value for key, value in given.items() if value is not None}
    for key in _RANGES:
        if key in chosen:
            _whole(chosen[key], key, where, prefix=prefix)
    return replace(study, **chosen)
