"""Running a study into a directory: the model, the pairs of every rung, the gate, the analyses, the report.

What the registry says an analysis needs is what it gets: the pairs of every rung, those of the rung that passed the
gate, or the results before it. A result that is already there under the same key (code, model, prompts, options) is
reused, so running again resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from analyses import registry
from analyses.cli import asking, plans
from analyses.cli import directory as directories
from analyses.cli import manifest as manifests
from analyses.cli.directory import MANIFEST, STUDY, RunDirectory
from analyses.cli.study import Study
from analyses.registry import Analysis
from interp import _cells, _yaml, tasks
from interp import language as languages
from interp.errors import InterpError, UnaskableError
from interp.language import say, say_stored
from interp.report import manifest as recorded

if TYPE_CHECKING:
    import xarray as xr

    from interp.model import HookedTransformer
    from interp.model.outline import Outlined
    from interp.prompts import PromptPairs
    from interp.prompts.tokens import SupportsTokenizer
    from interp.tasks import Task

# What every result of a run depends on, as the manifest records it.
_SETTING = ("model", "task", "task_sha256", "n", "seed", "main_rung", "versions", "code_sha256")

# What makes a run another run: results of two such never share a directory.
_IDENTITY = ("study", "task", "rungs", "main_rung", "n", "seed")
_MODEL_IDENTITY = ("weights_sha256", "config_sha256", "numerics", "dtype")

_DROP = ("index", "reason", "clean_text", "corrupted_text")

CPU_BUDGET = 1.4e13
"""Floating-point operations of sweeps that a run spends unasked, if these are enough prompts: some two minutes on two
cores."""
GPU_BUDGET = 5e15
FEWEST = 7
"""Prompts that are explained however large the model. Of five no head can be named: 2 of the 32 ways to choose their
signs are as extreme as those they have, and 2/32 is above the level of 0.05. Of six it takes the best case."""

Progress = Callable[[int, int], None]
"""Told (done, total) as a stage goes on."""


class Watcher(Protocol):
    """What the run tells the person who waits."""

    def stage(self, name: str) -> AbstractContextManager[Progress]:
        """A stage begins; it ends with the block."""
        ...

    def note(self, text: str) -> None:
        """One line worth reading."""
        ...


@dataclass(frozen=True)
class Tools:
    """The parts a run is composed of; ``real_tools`` gives the library's own, tests give doubles."""

    reader: Callable[[str], SupportsTokenizer]
    load_model: Callable[..., HookedTransformer]
    outline: Callable[..., Outlined]
    build_pairs: Callable[..., PromptPairs]
    function: Callable[[Analysis, str], Callable[..., Any]]
    save: Callable[[xr.Dataset, Path], object]
    load: Callable[[Path], xr.Dataset]
    render: Callable[[Path], Path]
    affordable: Callable[[Study, HookedTransformer, PromptPairs], int] = lambda study, model, pairs: len(pairs)
    """How many of the pairs can be explained within the budget."""


def real_tools(language: str | None = None, *, figures: bool = False) -> Tools:
    """The library's own parts, with a page in this language and, where asked, its figures as files. Imports torch."""
    from interp import report, results
    from interp.model import HookedTransformer
    from interp.model.source import reader

    return Tools(
        reader=reader,
        load_model=HookedTransformer.from_pretrained,
        outline=_outlined,
        build_pairs=tasks.build,
        function=Analysis.function,
        save=results.save,
        load=results.load,
        render=partial(report.draw, language=language, figures=figures),
        affordable=affordable,
    )


def _outlined(model: str, *, device: str, dtype: str) -> Outlined:
    """Loaded when a plan is asked for: a run does not, and its results do not depend on it."""
    from interp.model.outline import outlined

    return outlined(model, device=device, dtype=dtype)


def affordable(study: Study, model: HookedTransformer, pairs: PromptPairs) -> int:
    """How many of the pairs the study's sweeps can afford: all of them on a small model or a GPU, at least ``FEWEST``.

    Sweeps cost the same for every pair, near enough: those of a few are planned.
    """
    few = pairs.spread(FEWEST)
    without = asking.check(study, pairs, Analysis.function)
    flop = sum(sweeps.flop for sweeps in plans.planned(study, model, few, without=without).values())
    budget = CPU_BUDGET if model.device.type == "cpu" else GPU_BUDGET
    return min(len(pairs), max(FEWEST, int(len(few) * budget / max(flop, 1.0))))


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        answer: yes or no in one sentence, then the figures, in the language asked for or that of the study's prompts.
        report: the page.
        explained_rung: the rung that passed the gate and was explained; None if none did.
        results: every result of the run, by the name of its file.
        language: of the answer.
    """

    answer: str
    report: Path = field(repr=False)
    explained_rung: str | None = None
    results: Mapping[str, xr.Dataset] = field(default_factory=dict, repr=False)
    language: str = languages.LANGUAGES[0]

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, and the picture of it."""
        return _cells.html(self)

    @property
    def verdict(self) -> xr.Dataset | None:
        """The result that joins the others, if the study asks for it and a rung was explained."""
        return self.results.get("verdict")


def default_place(study: Study, written: Study, dtype: str) -> Path:
    """The directory of a run that is not told where to go.

    Args:
        study: what is run.
        written: the study before the caller's choices: what differs is in the name.
        dtype: of the model.
    """
    changed = [f"{key}{getattr(study, key)}" for key in ("n", "seed") if getattr(study, key) != getattr(written, key)]
    changed += [] if dtype == "float32" else [dtype]
    return directories.default_out(study.name, study.model, tuple(changed))


def execute(
    study: Study,
    out: Path,
    *,
    tools: Tools,
    watcher: Watcher,
    command: str,
    device: str = "auto",
    dtype: str = "float32",
    every_prompt: bool = False,
    language: str | None = None,
) -> Outcome:
    """Run a study into a directory and write its report.

    Finished results are kept, whatever happens, and reused by a later run with the same key: an interrupted run
    resumes. The directory is held against other runs meanwhile.

    Args:
        study: what to run.
        out: the run's directory.
        tools: the parts to run with.
        watcher: is told of stages and progress.
        command: the command line, for the manifest.
        device: what ``HookedTransformer.from_pretrained`` takes.
        dtype: likewise.
        every_prompt: explain every prompt, however long that takes; otherwise as many as the budget allows.
        language: of the answer; None is that of the prompts where it is one of ``interp.language.LANGUAGES``.

    Raises:
        InterpError: bad input, another run at work or kept in ``out``, a full disk. What is found before anything is
            finished leaves nothing behind.
    """
    directories.refuse_foreign(out)
    study.check_options()
    stages = _stages(study, tools)
    task = tasks.load(study.task)
    ladder, main = study.ladder(task)
    study.check_names(task.rung(main))
    with directories.held(out, command):
        place = RunDirectory(out, tools.load, tools.save, watcher.note)
        place.tidy()
        earlier = recorded.read(out)
        asked = _asked(study, task, ladder, main)
        _refuse_another(place, earlier, {**asked, "model": {"dtype": dtype}})
        with watcher.stage(f"build the pairs of {task.name}"):
            pairs, skipped = build(study, task, ladder, tools)
        for rung, reason in skipped.items():
            watcher.note(f"rung {rung} left out: {reason}")
        if main in pairs:
            asking.check(study, pairs[main], tools.function)
        started = time.perf_counter()
        with watcher.stage(f"load {study.model}"):
            model = tools.load_model(study.model, device=device, dtype=dtype)
        loaded = time.perf_counter() - started
        description = _description(model)
        _refuse_another(place, earlier, {**asked, "model": description})
        run = _Run(study, task, place, tools, watcher, model, pairs, main, stages, every_prompt)
        with run.ending():
            run.begin(
                {"command": command, **asked, "model": description, "skipped_rungs": skipped},
                earlier,
                load_seconds=loaded,
            )
            run.compute()
            with watcher.stage("write the report"):
                page = run.timed("report", lambda: tools.render(out))
        spoken = languages.chosen(language, task.language)
        return Outcome(run.answer(spoken), page, run.manifest["explained_rung"], run.done, spoken)


def kept(
    study: Study,
    out: Path,
    *,
    tools: Tools,
    watcher: Watcher,
    model: HookedTransformer,
    pairs: Mapping[str, PromptPairs],
    main: str,
    n: int,
) -> set[str]:
    """The analyses whose results a run into this directory would reuse. Nothing is written.

    Where the model is an outline, its weights are taken to be those that the directory's results are of.

    Args:
        study: what is run.
        out: the run's directory, which need not be there.
        tools: the parts to run with.
        watcher: is told nothing unless a result is damaged.
        model: the model, or its outline.
        pairs: of every rung.
        main: the main rung.
        n: how many pairs of the explained rung are explained.

    Raises:
        InterpError: the directory holds another run, or no run.
    """
    directories.refuse_foreign(out)
    task = tasks.load(study.task)
    place, earlier = RunDirectory(out, tools.load, tools.save, watcher.note), recorded.read(out)
    described = _description(model)
    if not described["weights_sha256"]:
        described["weights_sha256"] = earlier.get("model", {}).get("weights_sha256", "")
    asked = {**_asked(study, task, study.ladder(task)[0], main), "model": described}
    _refuse_another(place, earlier, asked)
    run = _Run(study, task, place, tools, watcher, model, pairs, main, _stages(study, tools), True)
    return run.kept(asked, earlier.get("explained_rung"), n)


def _asked(study: Study, task: Task, ladder: Sequence[str], main: str) -> dict[str, Any]:
    """What the manifest says of a run, but for its model."""
    return {
        "study": study.name,
        "task": task.name,
        "task_sha256": study.task_sha256(),
        "language": task.language,
        "rungs": ladder,
        "main_rung": main,
        "n": study.n,
        "seed": study.seed,
    }


@dataclass(frozen=True)
class _Stage:
    """One analysis of a study: what the registry says of it, its options, and the function of each of its files."""

    analysis: Analysis
    options: Mapping[str, Any]
    functions: Mapping[str, Callable[..., Any]]

    @property
    def name(self) -> str:
        return self.analysis.name

    @property
    def files(self) -> list[str]:
        return list(self.functions)

    def results(self, *inputs: Any, settled: Mapping[str, Any]) -> dict[str, xr.Dataset]:
        """Every file, made of the inputs, the options, and what it takes of what is settled elsewhere."""
        offered = {**self.options, **settled}
        return {
            file.name: self.functions[file.name](*inputs, **file.arguments(offered)) for file in self.analysis.files
        }


def _stages(study: Study, tools: Tools) -> list[_Stage]:
    """The analyses of a study in the order in which they run. Imports their modules.

    Raises:
        InterpError: one of another package that cannot be used.
    """
    return [
        _Stage(one, study.options(name), {file.name: tools.function(one, file.function) for file in one.files})
        for name, one in registry.ordered(study.analyses).items()
    ]


def _made_with() -> dict[str, Any]:
    """The versions and the code that results are made with."""
    return {"versions": manifests.versions(), "code_sha256": manifests.code_sha256()}


def _description(model: HookedTransformer) -> dict[str, str]:
    return {
        "name": model.name,
        "weights_sha256": model.weights_sha256,
        "config_sha256": model.config_sha256,
        "numerics": model.numerics,
        "dtype": _plain(model.dtype),
        "device": _plain(model.device),
    }


def _refuse_another(place: RunDirectory, earlier: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to put the results of one run in place of another's.

    Raises:
        InterpError: names what differs.
    """
    if not place.results():
        return
    here = {key: asked[key] for key in _IDENTITY}
    here |= {f"model {key}": asked["model"][key] for key in _MODEL_IDENTITY if key in asked["model"]}
    there = {**earlier, **{f"model {key}": value for key, value in earlier.get("model", {}).items()}}
    differing = [key for key, value in here.items() if there.get(key, value) != value]
    if differing:
        said = "; ".join(f"{key} {_brief(there[key])}, here {_brief(here[key])}" for key in differing)
        raise InterpError(f"{place.path} holds the results of another run ({said}). Name another directory with --out.")


def _brief(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def build(
    study: Study, task: Task, ladder: Sequence[str], tools: Tools
) -> tuple[dict[str, PromptPairs], dict[str, str]]:
    """The pairs of every rung, and the rungs this tokenizer cannot build, with the reason. Reads no weights."""
    reader = tools.reader(study.model)
    pairs: dict[str, PromptPairs] = {}
    skipped: dict[str, str] = {}
    for rung in ladder:
        try:
            pairs[rung] = tools.build_pairs(task, rung, tokenizer=reader, n=study.n, seed=study.seed)
            if len(pairs[rung]) == 0:
                raise InterpError(f"the rung {rung} of {task.name} has no prompts.")
        except InterpError as error:
            pairs.pop(rung, None)
            skipped[rung] = " ".join(str(error).split())
    if not pairs:
        rung, reason = next(iter(skipped.items()))
        raise InterpError(f"No rung of {task.name} can be built with {study.model}; {rung}: {reason}")
    return pairs, skipped


class _Run:
    """One run in its directory: computes or reuses each result, and keeps the manifest true after each."""

    def __init__(
        self,
        study: Study,
        task: Task,
        place: RunDirectory,
        tools: Tools,
        watcher: Watcher,
        model: HookedTransformer,
        ladder: Mapping[str, PromptPairs],
        main: str,
        stages: Sequence[_Stage],
        every_prompt: bool,
    ) -> None:
        self.study, self.task, self.place, self.tools, self.watcher = study, task, place, tools, watcher
        self.model, self.ladder, self.main, self.stages = model, ladder, main, stages
        self.every_prompt = every_prompt
        self.manifest: dict[str, Any] = {}
        self.seconds: dict[str, float | None] = {}
        self.done: dict[str, xr.Dataset] = {}
        self.keys: dict[str, str] = {}

    def begin(self, asked: Mapping[str, Any], earlier: Mapping[str, Any], load_seconds: float) -> None:
        """Write the manifest, before anything else; then nothing of another setting may stand among the results."""
        from interp import results

        self.manifest = {
            "schema_version": recorded.SCHEMA_VERSION,
            "status": "running",
            **asked,
            "created_at": results.now(),
            **_made_with(),
            "machine": manifests.machine(),
            "engine": dict(self.model.engine.described()),
            "explained_rung": None,
            "drops": [
                {"rung": rung, **{key: getattr(drop, key) for key in _DROP}}
                for rung, pairs in self.ladder.items()
                for drop in pairs.drops
            ],
            "timings": {"load": round(load_seconds, 2)},
            "results": {},
            "not_asked": {},
        }
        self.seconds = {name: entry.get("seconds") for name, entry in earlier.get("results", {}).items()}
        self._write_manifest()
        self.place.write(STUDY, _yaml.dump(self.study.as_dict()))
        self.place.clear_log()
        if any(earlier.get(key) != self.manifest[key] for key in _SETTING):
            self._set_aside(self.place.results())

    def compute(self) -> None:
        """What needs the ladder, behavior among it; then, of the rung that passed the gate, everything else."""
        for stage in self._needing("ladder"):
            self.result(stage, dict(self.ladder))
        rung = self.done["behavior"].attrs["explained_rung"] or None
        self.manifest["explained_rung"] = rung
        if rung is None:
            self.watcher.note("no rung passes the behavior gate: nothing is explained")
        else:
            self.study.check_names(self.task.rung(rung))
            explained = self._affordable(self.ladder[rung])
            for stage in self._needing("pairs"):
                self.result(stage, explained)
            for stage in self._needing("results"):
                self.result(stage, self._read_by(stage))
        self._set_aside(file for file in self.place.results() if file not in self.done)

    def kept(self, asked: Mapping[str, Any], explained: str | None, n: int) -> set[str]:
        """The analyses whose results are there under the key that they would get, if this rung is explained."""
        self.manifest = {**asked, **_made_with()}
        given: dict[str, Any] = {"ladder": dict(self.ladder)}
        if explained is not None and explained in self.ladder:
            given["pairs"] = self.ladder[explained].spread(n)
            given["results"] = {}
        found = set()
        for stage in self.stages:
            if (needs := stage.analysis.needs) in given:
                key = self._key(stage, given[needs])
                self.keys.update(dict.fromkeys(stage.files, key))
                if all(self.place.has(file, key) for file in stage.files):
                    found.add(stage.name)
        return found

    def _read_by(self, stage: _Stage) -> dict[str, xr.Dataset]:
        """The results that an analysis reads, as far as there are any."""
        return {file: self.done[file] for file in stage.analysis.reads if file in self.done}

    def _needing(self, needs: registry.Needs) -> list[_Stage]:
        return [stage for stage in self.stages if stage.analysis.needs == needs]

    def _affordable(self, pairs: PromptPairs) -> PromptPairs:
        """The pairs to explain: all, or an even spread of as many as the budget allows."""
        n = len(pairs) if self.every_prompt else self.tools.affordable(self.study, self.model, pairs)
        self.manifest["n_explained"] = n
        if n >= len(pairs):
            return pairs
        self.watcher.note(f"explaining {n} of {len(pairs)} prompts, to bound the time; --n chooses the number")
        return pairs.spread(n)

    def result(self, stage: _Stage, given: Any) -> None:
        """One analysis: reused if the directory has it under the same key, else run and saved."""
        name, files = stage.name, stage.files
        key = self._key(stage, given)
        self.keys.update(dict.fromkeys(files, key))
        kept = {file: self.place.find(file, key) for file in files}
        found = {file: dataset for file, dataset in kept.items() if dataset is not None}
        if len(found) == len(files):
            self.done.update(found)
            self.watcher.note(f"{name}: kept from an earlier run")
            seconds = self.seconds.get(name)
        else:
            self._set_aside(file for file in (*files, *self._resting_on(files)) if file not in found)
            try:
                with self.watcher.stage(self._shown(name)) as progress:
                    made = self.timed(name, lambda: self._call(stage, given, progress))
                    self.done.update({file: self.place.keep(file, dataset, key) for file, dataset in made.items()})
            except UnaskableError as error:
                asking.refuse_what_was_asked_for(self.study, name, error)
                self.manifest["not_asked"][name] = str(error)
                self.watcher.note(f"{name} cannot be asked here: {error}")
                self._write_manifest()
                return
            seconds = self.manifest["timings"][name]
        self.manifest["results"][name] = {"key": key, "files": files, "seconds": seconds}
        self._write_manifest()

    def _shown(self, name: str) -> str:
        """A stage as the person who waits reads it, with the workers."""
        workers = self.model.engine.described().get("workers")
        return name if workers is None else f"{name}, {workers} workers"

    def _resting_on(self, files: Sequence[str]) -> list[str]:
        """The results that are made from these: they go with the first of them."""
        return [file for stage in self.stages if set(stage.analysis.reads) & set(files) for file in stage.files]

    def _set_aside(self, files: Iterable[str]) -> None:
        for file in list(files):
            self.place.set_aside(file)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and record its wall time in seconds."""
        started = time.perf_counter()
        value = work()
        self.manifest["timings"][name] = round(time.perf_counter() - started, 2)
        return value

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Record how the block ended; bad input that came to light before anything was finished leaves nothing."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, InterpError) and not self.place.results():
                self.place.forget()
            elif self.manifest:  # else it was stopped before it began, and what stands there is as it was
                with contextlib.suppress(InterpError):  # a full disk, say: the error itself is what counts
                    self._end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        self._end("done")

    def _end(self, status: str) -> None:
        """Record how the run ended, and its peak memory."""
        self.manifest["status"] = status
        self.manifest["peak_memory_bytes"] = manifests.peak_memory()
        self.manifest["engine"] = dict(self.model.engine.described())
        timings = self.manifest["timings"]
        timings["total"] = round(sum(timings.values()), 2)
        self._write_manifest()

    def answer(self, language: str) -> str:
        """The answer: the verdict's, or that the model does not do the task."""
        with languages.speaking(language):
            if "verdict" not in self.done:
                return without_verdict(self.model.name, self.task.name, self.main, self.done["behavior"])
            said = self.done["verdict"].attrs
            names = (languages.key(name, language) for name in ("answer_short", "answer"))
            return " ".join(str(said[name]) for name in names if name in said)

    def _call(self, stage: _Stage, given: Any, progress: Progress) -> dict[str, xr.Dataset]:
        described = {rung.name: rung.description for rung in self.task.rungs if rung.name in self.ladder}
        settled: dict[str, Any] = {"descriptions": described, "seed": self.study.seed, "progress": progress}
        settled |= {"not_asked": self.manifest["not_asked"], "found": self._read_by(stage)}
        if self.main in self.ladder:
            settled["main"] = self.main
        inputs = (given,) if stage.analysis.needs == "results" else (self.model, given)
        return stage.results(*inputs, settled=settled)

    def _key(self, stage: _Stage, given: Any) -> str:
        """What a result depends on, as one hash."""
        setting = {key: self.manifest[key] for key in _SETTING}
        recipe = {
            "analysis": stage.name,
            "options": stage.options,
            "code_elsewhere": manifests.code_elsewhere_sha256(stage.analysis),
            "inputs": self._inputs(stage.analysis, given),
            **setting,
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()

    def _inputs(self, analysis: Analysis, given: Any) -> object:
        """What tells one input of an analysis from another."""
        match analysis.needs:
            case "ladder":
                return {rung: _fingerprint(pairs) for rung, pairs in given.items()}
            case "pairs" if analysis.reads:
                return [_fingerprint(given), self._keys_read(analysis)]
            case "pairs":
                return _fingerprint(given)
            case "results":
                return self._keys_read(analysis)

    def _keys_read(self, analysis: Analysis) -> dict[str, str]:
        return {file: self.keys[file] for file in analysis.reads if file in self.keys}

    def _write_manifest(self) -> None:
        self.place.write(MANIFEST, json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n")


def _fingerprint(pairs: PromptPairs) -> list[str]:
    """What a result takes from the pairs: what is run and scored, and which roles it is about."""
    return [pairs.sha256(), pairs.vocabulary.as_json()]


def without_verdict(model: str, task: str, main: str, behavior: xr.Dataset) -> str:
    """What can be said when there is no verdict: which rungs the model does, or why not even the main one."""
    passes = dict(_rung_column(behavior, "passes"))
    if not behavior.attrs["explained_rung"]:
        own = languages.key("reason", languages.spoken())
        reasons = dict(_rung_column(behavior, own if own in behavior else "reason"))
        return say(
            "No: {model} does no rung of {task} ({rung} {reason}). So nothing is explained.",
            model=model, task=task, rung=main, reason=reasons.get(main, say("was not built")),
        )  # fmt: skip
    columns = (_rung_column(behavior, name) for name in ("outcome", "accuracy", "preferred"))
    done = [
        say(
            "{rung} ({outcome}: top token {accuracy:.0%}, preferred {preferred:.0%})",
            rung=rung, outcome=say_stored(outcome), accuracy=accuracy, preferred=preferred,
        )
        for (rung, outcome), (_, accuracy), (_, preferred) in zip(*columns, strict=True)
        if passes[rung]
    ]  # fmt: skip
    return say(
        "{model} does these rungs of {task}: {done}; fails: {failed}. The study asks for no verdict.",
        model=model,
        task=task,
        done=", ".join(done),
        failed=", ".join(rung for rung, passed in passes.items() if not passed) or say("none of them"),
    )


def _rung_column(behavior: xr.Dataset, variable: str) -> list[tuple[str, Any]]:
    return [(str(rung), value) for rung, value in zip(behavior["rung"].values, behavior[variable].values, strict=True)]


def _plain(value: object) -> str:
    return str(value).removeprefix("torch.")
