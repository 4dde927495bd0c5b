"""A study: one task, one model, and the analyses to run on it, written down as YAML.

``load`` reads and checks a study; ``execute`` runs it into a directory: the model, the pairs of every rung,
the behavior gate, then the other analyses on the rung that passed, the verdict and the report. A result that
is already there under the same key (code, model, prompts and options) is reused, so running again resumes.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from interp.errors import InterpError

if TYPE_CHECKING:
    import xarray as xr

    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

STUDIES = Path(__file__).parent / "studies"

ANALYSES: dict[str, str] = {
    "behavior": "analyses.behavior",
    "attention_lesson": "analyses.attention_lesson",
    "activation_patching": "analyses.activation_patching",
    "head_attribution": "analyses.head_attribution",
    "probing": "analyses.probing",
    "context_flow": "analyses.context_flow",
}
"""Every analysis a study may name, in the order they run. Adding one: write the module, add its line here."""

VERDICT = "context_flow"
FAILURE_LOG = "failure.log"

# What the study's own keys settle: not options of an analysis.
_OFFERED = ("seed", "progress", "main")

# What every result of a run depends on, as the manifest records it.
_SETTING = ("model", "task", "n", "seed", "main_rung", "versions", "code_sha256")

_DROP = ("index", "reason", "clean_text", "corrupted_text")

_VERSIONED = ("torch", "transformers", "transformer-lens", "numpy", "xarray", "scikit-learn")


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        name: short name, also the default directory under reports/.
        title: one line for the page.
        question: what the study asks.
        task: a bundled task (``interp.tasks.names()``).
        rungs: the task's rungs to use, in ladder order; None is all of them.
        main_rung: the rung to explain if the model does it; None is the task's own choice.
        n: pairs per rung.
        seed: seed of the pairs and of everything random in the analyses.
        model: what ``HookedTransformer.from_pretrained`` takes.
        gate: the least behavior worth explaining, handed to the behavior analysis.
        analyses: analysis -> options, in the order of the registry.
    """

    name: str
    title: str
    question: str
    task: str
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


# --- reading ---


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
    if not path.is_file():
        if looks_like_path:
            raise InterpError(f"No study file at {text}. Bundled studies: {', '.join(names())}.")
        raise InterpError(f"Unknown study '{text}'.{_nearest(text, names())} Bundled studies: {', '.join(names())}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InterpError(f"{path} is not readable YAML ({error}).") from error
    return parse(content, where=str(path) if looks_like_path else path.name)


def parse(content: object, *, where: str) -> Study:
    """Check a study's content; ``where`` names the file in messages.

    Raises:
        InterpError: an unknown or missing key, a wrong type, an unknown task or analysis.
    """
    if not isinstance(content, dict):
        raise InterpError(f"{where} must be a mapping of keys such as name, task and analyses.")
    _check_keys(content, Study.__dataclass_fields__, where)
    for key in ("name", "title", "question", "task", "analyses"):
        if key not in content:
            raise InterpError(f"{where} lacks the key '{key}'.")
    values: dict[str, Any] = {}
    for key in ("name", "title", "question", "task", "model", "main_rung"):
        if key in content:
            values[key] = _text(content[key], key, where)
    for key, least in (("n", 1), ("seed", 0)):
        if key in content:
            values[key] = _whole(content[key], key, where, least)
    values["rungs"] = _rungs(content.get("rungs", "all"), where)
    values["gate"] = _gate(content.get("gate"), where)
    values["analyses"] = _analyses(content["analyses"], where)
    study = Study(**values)
    _check_task(study, where)
    return study


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice, which YAML would settle silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            keys = [str(key.value) for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.YAMLError(f"the key '{twice}' is given twice, line {node.start_mark.line + 1} and on")
        return mapping


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _check_keys(mapping: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in mapping:
        if key not in known:
            raise InterpError(
                f"Unknown key '{key}' in {where}.{_nearest(str(key), known)} Known keys: {', '.join(known)}."
            )


def _wrong(key: str, where: str, expected: str, value: object) -> InterpError:
    return InterpError(f"'{key}' in {where} must be {expected}, not {value!r}.")


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, where, "some text", value)
    return " ".join(value.split())


def _whole(value: object, key: str, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(key, where, f"a whole number of at least {least}", value)
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
        if not isinstance(key, str) or isinstance(number, bool) or not isinstance(number, int | float):
            raise _wrong(f"gate.{key}", where, "a number", number)
    return dict(value)


def _analyses(value: object, where: str) -> dict[str, dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = dict.fromkeys(value)
    if not isinstance(value, dict) or not value:
        raise _wrong("analyses", where, "a list of analyses, or a mapping of analysis to options", value)
    for name, options in value.items():
        if name not in ANALYSES:
            raise InterpError(
                f"Unknown analysis '{name}' in {where}.{_nearest(str(name), ANALYSES)} Known: {', '.join(ANALYSES)}."
            )
        if not isinstance(options, dict | None) or not all(isinstance(key, str) for key in options or {}):
            raise _wrong(f"analyses.{name}", where, "a mapping of options", options)
    if "behavior" not in value:
        raise InterpError(
            f"{where} must name the analysis 'behavior': without it nothing says the model does the task."
        )
    return {name: dict(value[name] or {}) for name in ANALYSES if name in value}


def _check_task(study: Study, where: str) -> None:
    from interp import tasks

    known = tuple(tasks.names())
    if study.task not in known:
        raise InterpError(
            f"Unknown task '{study.task}' in {where}.{_nearest(study.task, known)} Known tasks: {', '.join(known)}."
        )
    ladder = tuple(rung.name for rung in tasks.load(study.task).rungs)
    for rung in (*(study.rungs or ()), *([study.main_rung] if study.main_rung else [])):
        if rung not in ladder:
            raise InterpError(
                f"Unknown rung '{rung}' in {where}.{_nearest(rung, ladder)} Rungs of {study.task}: {', '.join(ladder)}."
            )
    if study.rungs and study.main_rung and study.main_rung not in study.rungs:
        raise InterpError(f"main_rung '{study.main_rung}' in {where} is not among its rungs {', '.join(study.rungs)}.")


# --- running ---

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
    analysis: Callable[[str], Callable[..., Any]]
    save: Callable[[xr.Dataset, Path], object]
    load: Callable[[Path], xr.Dataset]
    render: Callable[[Path], Path]


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
        analysis=lambda name: importlib.import_module(ANALYSES[name]).run,
        save=results.save,
        load=results.load,
        render=report.render,
    )


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
    if out.exists() and not out.is_dir():
        raise InterpError(f"--out {out} is a file; name a new directory.")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise InterpError(f"--out {out} is not empty and holds no run; name a new or empty directory.")
    made: list[Path] = []
    try:
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

    Raises:
        InterpError: bad input, found before anything is written where it can be.
    """
    check_writable(out)
    runners = {name: tools.analysis(name) for name in study.analyses}
    for name, runner in runners.items():
        _check_keys(study.analyses[name], _options(runner), f"analyses.{name}")
    _check_keys(study.gate, (key for key in _options(runners["behavior"]) if key.startswith("minimum_")), "gate")
    started = time.perf_counter()
    with watcher.stage(f"load {study.model}"):
        model = tools.load_model(study.model, device=device, dtype=dtype)
    loaded = time.perf_counter() - started
    with watcher.stage(f"build the pairs of {study.task}"):
        ladder, main, skipped = _build(study, model, tools)
    for rung, reason in skipped.items():
        watcher.note(f"rung {rung} left out: {reason}")
    run = _Run(study, out, tools, watcher, model, ladder, main, runners)
    run.begin(command, skipped, load_seconds=loaded)
    try:
        run.compute()
        with watcher.stage("write the report"):
            page = run.timed("report", lambda: tools.render(out))
    except BaseException as error:
        run.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.end("done")
    return Outcome(page, run.answer())


def _options(runner: Callable[..., Any]) -> list[str]:
    """The options of an analysis that a study may set: its keyword-only parameters."""
    parameters = inspect.signature(runner).parameters.items()
    return [name for name, kind in parameters if kind.kind is kind.KEYWORD_ONLY and name not in _OFFERED]


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
    ) -> None:
        self.study, self.out, self.tools, self.watcher = study, out, tools, watcher
        self.model, self.ladder, self.main, self.runners = model, ladder, main, runners
        self.manifest: dict[str, Any] = {}
        self.done: dict[str, xr.Dataset] = {}
        self.keys: dict[str, str] = {}

    def begin(self, command: str, skipped: Mapping[str, str], load_seconds: float) -> None:
        """Make the directory; from here on there is something to keep."""
        from interp import results

        model = self.model
        self.manifest = {
            "status": "running",
            "command": command,
            "created_at": results.now(),
            "versions": versions(),
            "machine": machine(),
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
            "code_sha256": _code_sha256(),
            "results": {},
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "results").mkdir(exist_ok=True)
        self._clear_stale()
        _write(self.out / "study.yaml", yaml.safe_dump(self.study.as_dict(), sort_keys=False, allow_unicode=True))
        self._write_manifest()

    def compute(self) -> None:
        """Behavior over the ladder, then, on the rung that passed the gate, everything else."""
        self.result("behavior", dict(self.ladder), {**self.study.analyses["behavior"], **self.study.gate})
        rung = explained_rung(self.done["behavior"], self.main)
        self.manifest["explained_rung"] = rung
        if rung is None:
            self.watcher.note("no rung passes the behavior gate: nothing is explained")
        for name, options in self.study.analyses.items():
            if name not in ("behavior", VERDICT) and rung is not None:
                self.result(name, self.ladder[rung], options)
        if VERDICT in self.study.analyses and rung is not None:
            self.result(VERDICT, dict(self.done), self.study.analyses[VERDICT])
        self._remove(path for path in self._saved() if path.stem not in self.done)

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
        self.manifest["peak_memory_bytes"] = peak_memory()
        self.manifest["timings"]["total"] = round(sum(self.manifest["timings"].values()), 2)
        self._write_manifest()

    def answer(self) -> str:
        """The answer in two sentences: the verdict's, or that the model does not do the task."""
        if "verdict" in self.done:
            return str(self.done["verdict"].attrs.get("answer", ""))
        behavior = self.done["behavior"]
        if self.manifest["explained_rung"] is None:
            reasons = [f"{rung}: {reason}" for rung, reason in _rung_column(behavior, "reason")]
            why = "; ".join(reasons)
            return f"{self.model.name} does not do {self.study.task}, so nothing is explained. {why}"
        scores = [f"{rung} {float(score):.0%}" for rung, score in _rung_column(behavior, "accuracy")]
        done = ", ".join(scores)
        return f"{self.model.name} does {self.study.task}: accuracy {done}. The study asks for no verdict."

    def _call(self, name: str, given: Any, options: Mapping[str, Any], progress: Progress) -> dict[str, xr.Dataset]:
        runner = self.runners[name]
        accepted = inspect.signature(runner).parameters
        offered: dict[str, Any] = {"seed": self.study.seed, "progress": progress}
        if self.main in self.ladder:
            offered["main"] = self.main
        extra = {key: value for key, value in offered.items() if key in accepted}
        arguments = (given,) if name == VERDICT else (self.model, given)
        made = runner(*arguments, **extra, **options)
        file = "verdict" if name == VERDICT else name
        return {file: made}

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
        earlier = _read_manifest(self.out)
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
        _write(self.out / "manifest.json", json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n")


def explained_rung(behavior: xr.Dataset, main: str) -> str | None:
    """The main rung if it passes the gate, else the highest rung of the ladder that does, else None."""
    passing = [rung for rung, passes in _rung_column(behavior, "passes") if passes]
    if main in passing:
        return main
    return passing[-1] if passing else None


def _rung_column(behavior: xr.Dataset, variable: str) -> list[tuple[str, Any]]:
    return [(str(rung), value) for rung, value in zip(behavior["rung"].values, behavior[variable].values, strict=True)]


def with_overrides(study: Study, *, model: str | None, n: int | None, seed: int | None) -> Study:
    """The study with the command line's choices, checked like the file's own.

    Raises:
        InterpError: n below 1 or a negative seed.
    """
    given: dict[str, Any] = {"model": model, "n": n, "seed": seed}
    chosen = {key: value for key, value in given.items() if value is not None}
    for key, least in (("n", 1), ("seed", 0)):
        if key in chosen:
            _whole(chosen[key], f"--{key}", "the command line", least)
    return replace(study, **chosen)


def versions() -> dict[str, str]:
    """Versions of Python, interp and what the numbers depend on."""
    from interp import __version__

    found = {"python": platform.python_version(), "interp": __version__}
    for package in _VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """What the run ran on: nothing that names the machine or its user."""
    return {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": os.cpu_count() or 0}


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _code_sha256() -> str:
    """Fingerprint of the code that results depend on: not the report, the training script or this layer."""
    import interp

    digest = hashlib.sha256()
    library = Path(interp.__file__).parent
    outside = {library / "report", library / "mini", library / "groundtruth"}
    paths = [*library.rglob("*.py"), *library.glob("tasks/*.yaml"), *Path(__file__).parent.glob("*.py")]
    for path in sorted(paths):
        if outside.isdisjoint(path.parents) and path.name not in ("__main__.py", "study.py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_manifest(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _plain(value: object) -> str:
    return str(value).removeprefix("torch.")
