"""Running a study into a directory: the model, the pairs of every rung, the gate, the analyses, the report.

The behavior analysis sees every rung; the others see the one that passed its gate. A result that is already there
under the same key (code, model, prompts, options) is reused, so running again resumes.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from analyses import _manifest as manifests
from analyses.study import ANALYSES, Study, check_keys
from interp import _yaml
from interp.errors import InterpError

if TYPE_CHECKING:
    import xarray as xr

    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

ALSO: dict[str, dict[str, str]] = {"attention_lesson": {"attention_patterns": "patterns"}}
"""Analysis -> further result files, each with the function of the same module that makes it."""

VERDICT = "context_flow"
FAILURE_LOG = "failure.log"

# What the study's own keys settle: not options of an analysis.
_OFFERED = ("seed", "progress", "main")

# What every result of a run depends on, as the manifest records it.
_SETTING = ("model", "task", "n", "seed", "main_rung", "versions", "code_sha256")

_DROP = ("index", "reason", "clean_text", "corrupted_text")

CPU_BUDGET = 5e13
"""Floating-point operations of patching that a run spends unasked: some ten minutes on two cores."""
GPU_BUDGET = 5e15
FEWEST = 8
"""Prompts that are explained however large the model; fewer would have no intervals worth reading."""

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

    load_model: Callable[..., HookedTransformer]
    rungs_of: Callable[[str], Sequence[tuple[str, bool]]]
    build_pairs: Callable[..., PromptPairs]
    analysis: Callable[[str, str], Callable[..., Any]]
    save: Callable[[xr.Dataset, Path], object]
    load: Callable[[Path], xr.Dataset]
    render: Callable[[Path], Path]
    affordable: Callable[[HookedTransformer, PromptPairs], int] = lambda model, pairs: len(pairs)
    """How many of the pairs can be explained within the budget."""


def real_tools() -> Tools:
    """The library's own parts. Imports torch."""
    from interp import report, results, tasks
    from interp.model import HookedTransformer

    def rungs_of(task: str) -> list[tuple[str, bool]]:
        return [(rung.name, bool(rung.main)) for rung in tasks.load(task).rungs]

    def build_pairs(task: str, rung: str, **options: Any) -> PromptPairs:
        return tasks.build(task, rung, **options)

    return Tools(
        load_model=HookedTransformer.from_pretrained,
        rungs_of=rungs_of,
        build_pairs=build_pairs,
        analysis=lambda name, function: getattr(importlib.import_module(ANALYSES[name]), function),
        save=results.save,
        load=results.load,
        render=report.render,
        affordable=affordable,
    )


def affordable(model: HookedTransformer, pairs: PromptPairs) -> int:
    """How many of the pairs patching can afford: all of them on a small model or a GPU, at least ``FEWEST``."""
    cost: Callable[..., float] = importlib.import_module(ANALYSES["activation_patching"]).cost
    budget = CPU_BUDGET if model.device.type == "cpu" else GPU_BUDGET
    return min(len(pairs), max(FEWEST, int(len(pairs) * budget / cost(model, pairs))))


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the page, and the answer in two sentences."""

    report: Path
    answer: str


def check_writable(out: Path) -> None:
    """Find out, before any work, that a run can be written to ``out``; leaves nothing behind.

    Raises:
        InterpError: ``out`` is a file, holds something that is not a run, or cannot be written.
    """
    made: list[Path] = []
    try:
        if out.exists() and not out.is_dir():
            raise InterpError(f"--out {out} is a file; name a new directory.")
        if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
            raise InterpError(f"--out {out} is not empty and holds no run; name a new or empty directory.")
        for directory in (*reversed(out.parents), out):
            if not directory.exists():
                directory.mkdir()
                made.append(directory)
        with tempfile.NamedTemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InterpError(f"--out {out} cannot be written ({reason}); name another directory.") from error
    finally:
        for directory in reversed(made):
            directory.rmdir()


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
) -> Outcome:
    """Run a study into a directory and write its report.

    Finished results are kept and reused by a later run with the same key, so an interrupted run resumes.

    Args:
        study: what to run.
        out: the run's directory; made when the model is loaded and the pairs are built, not before.
        tools: the parts to run with.
        watcher: is told of stages and progress.
        command: the command line, for the manifest.
        device: what ``HookedTransformer.from_pretrained`` takes.
        dtype: likewise.
        every_prompt: explain every prompt, however long that takes; otherwise as many as the budget allows.

    Raises:
        InterpError: bad input. Most is found before anything is written; what comes to light later (a role that
            the prompts lack, say) takes the new directory away again.
    """
    check_writable(out)
    runners = {name: tools.analysis(name, "run") for name in study.analyses}
    for name, runner in runners.items():
        check_keys(study.analyses[name], _options(runner), f"analyses.{name}")
    check_keys(study.gate, (key for key in _options(runners["behavior"]) if key.startswith("minimum_")), "gate")
    started = time.perf_counter()
    with watcher.stage(f"load {study.model}"):
        model = tools.load_model(study.model, device=device, dtype=dtype)
    loaded = time.perf_counter() - started
    with watcher.stage(f"build the pairs of {study.task}"):
        ladder, main, skipped = _build(study, model, tools)
    for rung, reason in skipped.items():
        watcher.note(f"rung {rung} left out: {reason}")
    run = _Run(study, out, tools, watcher, model, ladder, main, runners, every_prompt)
    run.begin(command, skipped, load_seconds=loaded)
    try:
        run.compute()
        with watcher.stage("write the report"):
            page = run.timed("report", lambda: tools.render(out))
    except InterpError:
        run.give_up()
        raise
    except BaseException as error:
        run.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.end("done")
    return Outcome(page, run.answer())


def _options(runner: Callable[..., Any]) -> list[str]:
    """The options of an analysis that a study may set: its keyword-only parameters."""
    parameters = inspect.signature(runner).parameters.items()
    return [name for name, kind in parameters if kind.kind is kind.KEYWORD_ONLY and name not in _OFFERED]


def _accepted(maker: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(maker).parameters
    return {name: value for name, value in offered.items() if name in parameters}


def _build(study: Study, model: HookedTransformer, tools: Tools) -> tuple[dict[str, PromptPairs], str, dict[str, str]]:
    """The pairs of every rung, the main rung, and the rungs this tokenizer cannot build, with the reason."""
    ladder = [(rung, main) for rung, main in tools.rungs_of(study.task) if not study.rungs or rung in study.rungs]
    main = study.main_rung or next((rung for rung, is_main in ladder if is_main), ladder[-1][0])
    pairs: dict[str, PromptPairs] = {}
    skipped: dict[str, str] = {}
    for rung, _ in ladder:
        try:
            pairs[rung] = tools.build_pairs(study.task, rung, tokenizer=model, n=study.n, seed=study.seed)
            if len(pairs[rung]) == 0:
                raise InterpError(f"the rung {rung} of {study.task} has no prompts.")
        except InterpError as error:
            skipped[rung] = " ".join(str(error).split())
    if not pairs:
        rung, reason = next(iter(skipped.items()))
        raise InterpError(f"No rung of {study.task} can be built with {study.model}; {rung}: {reason}")
    return pairs, main, skipped


class _Run:
    """One run in its directory: computes or reuses each result, and keeps the manifest true after each."""

    def __init__(
        self,
        study: Study,
        out: Path,
        tools: Tools,
        watcher: Watcher,
        model: HookedTransformer,
        ladder: Mapping[str, PromptPairs],
        main: str,
        runners: Mapping[str, Callable[..., Any]],
        every_prompt: bool,
    ) -> None:
        self.study, self.out, self.tools, self.watcher = study, out, tools, watcher
        self.model, self.ladder, self.main, self.runners = model, ladder, main, runners
        self.every_prompt = every_prompt
        self.manifest: dict[str, Any] = {}
        self.done: dict[str, xr.Dataset] = {}
        self.keys: dict[str, str] = {}
        self.made: list[Path] = []

    def begin(self, command: str, skipped: Mapping[str, str], load_seconds: float) -> None:
        """Make the directory; from here on there is something to keep."""
        from interp import results

        model = self.model
        self.manifest = {
            "status": "running",
            "command": command,
            "created_at": results.now(),
            "versions": manifests.versions(),
            "machine": manifests.machine(),
            "model": {
                "name": model.name,
                "weights_sha256": model.weights_sha256,
                "numerics": model.numerics,
                "dtype": _plain(model.dtype),
                "device": _plain(model.device),
            },
            "study": self.study.name,
            "task": self.study.task,
            "n": self.study.n,
            "seed": self.study.seed,
            "main_rung": self.main,
            "explained_rung": None,
            "skipped_rungs": dict(skipped),
            "drops": [
                {"rung": rung, **{key: getattr(drop, key) for key in _DROP}}
                for rung, pairs in self.ladder.items()
                for drop in pairs.drops
            ],
            "timings": {"load": round(load_seconds, 2)},
            "code_sha256": manifests.code_sha256(),
            "results": {},
        }
        for directory in (*reversed(self.out.parents), self.out, self.out / "results"):
            if not directory.exists():
                directory.mkdir()
                self.made.append(directory)
        self._clear_stale()
        manifests.write_text(self.out / "study.yaml", _yaml.dump(self.study.as_dict()))
        self._write_manifest()

    def compute(self) -> None:
        """Behavior over the ladder, then, on the rung that passed the gate, everything else."""
        self.result("behavior", dict(self.ladder), {**self.study.analyses["behavior"], **self.study.gate})
        rung = explained_rung(self.done["behavior"], self.main)
        self.manifest["explained_rung"] = rung
        if rung is None:
            self.watcher.note("no rung passes the behavior gate: nothing is explained")
        explained = None if rung is None else self._affordable(self.ladder[rung])
        for name, options in self.study.analyses.items():
            if name not in ("behavior", VERDICT) and explained is not None:
                self.result(name, explained, options)
        if VERDICT in self.study.analyses and rung is not None:
            self.result(VERDICT, dict(self.done), self.study.analyses[VERDICT])
        self._remove(path for path in self._saved() if path.stem not in self.done)

    def _affordable(self, pairs: PromptPairs) -> PromptPairs:
        """The pairs to explain: all, or an even spread of as many as the budget allows."""
        n = len(pairs) if self.every_prompt else self.tools.affordable(self.model, pairs)
        self.manifest["n_explained"] = n
        if n >= len(pairs):
            return pairs
        self.watcher.note(f"explaining {n} of {len(pairs)} prompts, to bound the time; --n chooses the number")
        return pairs.spread(n)

    def result(self, name: str, given: Any, options: Mapping[str, Any]) -> None:
        """One analysis: reused if the directory already has it under the same key, else run and saved."""
        key = self.keys[name] = self._key(name, given, options)
        earlier = self.manifest["results"].pop(name, None)
        if earlier and earlier["key"] == key:
            try:
                self.done.update({file: self.tools.load(self._path(file)) for file in earlier["files"]})
            except InterpError:
                pass  # a damaged file is computed again
            else:
                self.manifest["results"][name] = earlier
                self.watcher.note(f"{name}: kept from an earlier run")
                return
        self._remove(self._path(file) for file in (earlier or {}).get("files", ()))
        with self.watcher.stage(name) as progress:
            made = self.timed(name, lambda: self._call(name, given, options, progress))
            for file, dataset in made.items():
                self.tools.save(dataset, self._path(file))
        self.done.update(made)
        self.manifest["results"][name] = {
            "key": key,
            "files": list(made),
            "seconds": self.manifest["timings"][name],
        }
        self._write_manifest()

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and record its wall time in seconds."""
        started = time.perf_counter()
        value = work()
        self.manifest["timings"][name] = round(time.perf_counter() - started, 2)
        return value

    def end(self, status: str) -> None:
        """Record how the run ended, and its peak memory."""
        self.manifest["status"] = status
        self.manifest["peak_memory_bytes"] = manifests.peak_memory()
        self.manifest["timings"]["total"] = round(sum(self.manifest["timings"].values()), 2)
        self._write_manifest()

    def give_up(self) -> None:
        """Bad input came to light late: take back what this run wrote, unless it went on with an earlier run."""
        if self.out / "results" not in self.made:
            return self.end("failed")
        self._remove([*(self.out / "results").iterdir(), self.out / "study.yaml", self.out / "manifest.json"])
        self._remove(self.out / name for name in ("report.html", "report.json"))
        for directory in reversed(self.made):
            directory.rmdir()

    def answer(self) -> str:
        """The answer in two sentences: the verdict's, or that the model does not do the task."""
        if "verdict" in self.done:
            return str(self.done["verdict"].attrs.get("answer", ""))
        return without_verdict(self.model.name, self.study.task, self.main, self.done["behavior"])

    def _call(self, name: str, given: Any, options: Mapping[str, Any], progress: Progress) -> dict[str, xr.Dataset]:
        offered: dict[str, Any] = {**options, "seed": self.study.seed, "progress": progress}
        if self.main in self.ladder:
            offered["main"] = self.main
        arguments = (given,) if name == VERDICT else (self.model, given)
        makers = {"verdict" if name == VERDICT else name: self.runners[name]}
        for file, function in ALSO.get(name, {}).items():
            makers[file] = self.tools.analysis(name, function)
        return {file: maker(*arguments, **_accepted(maker, offered)) for file, maker in makers.items()}

    def _key(self, name: str, given: Any, options: Mapping[str, Any]) -> str:
        """What a result depends on, as one hash."""
        if name == VERDICT:
            inputs: object = {other: key for other, key in self.keys.items() if other != name}
        elif isinstance(given, Mapping):
            inputs = {rung: pairs.sha256() for rung, pairs in given.items()}
        else:
            inputs = given.sha256()
        setting = {key: self.manifest[key] for key in _SETTING}
        recipe = {"analysis": name, "options": options, "inputs": inputs, **setting}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()

    def _path(self, file: str) -> Path:
        return self.out / "results" / f"{file}.nc"

    def _saved(self) -> list[Path]:
        return sorted((self.out / "results").glob("*.nc"))

    def _clear_stale(self) -> None:
        """Keep what an earlier run of the same setting finished; nothing else may stand beside it."""
        earlier = manifests.read(self.out)
        same = all(earlier.get(key) == self.manifest[key] for key in _SETTING)
        if same:
            self.manifest["results"] = dict(earlier.get("results", {}))
        kept = {file for entry in self.manifest["results"].values() for file in entry["files"]}
        self._remove(path for path in self._saved() if path.stem not in kept)
        self._remove((self.out / "results").glob("*.part"))
        self._remove(self.out / name for name in ("report.html", "report.json", FAILURE_LOG))

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in list(paths):
            path.unlink(missing_ok=True)

    def _write_manifest(self) -> None:
        manifests.write_text(self.out / "manifest.json", json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n")


def explained_rung(behavior: xr.Dataset, main: str) -> str | None:
    """The main rung if it passes the gate, else the highest rung of the ladder that does, else None."""
    passing = [rung for rung, passes in _rung_column(behavior, "passes") if passes]
    if main in passing:
        return main
    return passing[-1] if passing else None


def without_verdict(model: str, task: str, main: str, behavior: xr.Dataset) -> str:
    """What can be said when there is no verdict: which rungs the model does, or why not even the main one."""
    passes = dict(_rung_column(behavior, "passes"))
    if not any(passes.values()):
        rung, reason = next((row for row in _rung_column(behavior, "reason") if row[0] == main), (main, "not built"))
        return f"{model} does no rung of {task} ({rung} {reason}). So nothing is explained."
    done = ", ".join(f"{rung} ({value:.0%})" for rung, value in _rung_column(behavior, "accuracy") if passes[rung])
    failed = ", ".join(rung for rung, passed in passes.items() if not passed) or "none"
    return (
        f"{model} does these rungs of {task} (top-1 accuracy): {done}; fails: {failed}. The study asks for no verdict."
    )


def _rung_column(behavior: xr.Dataset, variable: str) -> list[tuple[str, Any]]:
    return [(str(rung), value) for rung, value in zip(behavior["rung"].values, behavior[variable].values, strict=True)]


def _plain(value: object) -> str:
    return str(value).removeprefix("torch.")
