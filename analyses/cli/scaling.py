"""Runs on many workers, and many runs in one call: ``--engine ray``, and several studies of several models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.cli import directory as directories
from analyses.cli import execution
from analyses.cli import study as studies
from analyses.cli.execution import Outcome, Tools, Watcher
from analyses.cli.study import Study
from interp.engines import ENGINES
from interp.errors import InterpError, unknown_name

if TYPE_CHECKING:
    from interp.model import HookedTransformer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """Who computes a run.

    Attributes:
        name: ``"local"``: this process; ``"ray"``: workers.
        workers: how many; None leaves it to the engine.
        address: of a cluster that runs already; None is this machine.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None

    def check(self, prefix: str = "--") -> None:
        """Refuse what does not go together; ``prefix`` is what the caller writes before a name.

        Raises:
            InterpError: an unknown engine, or workers or an address for this process.
        """
        if self.name not in ENGINES:
            raise unknown_name("engine", self.name, ENGINES)
        for name, given in (("workers", self.workers), ("address", self.address)):
            if self.name == "local" and given is not None:
                raise InterpError(f"{prefix}{name} is for workers. Add {prefix}engine ray, or leave it out.")
        if self.workers is not None and self.workers < 1:
            raise InterpError(f"{prefix}workers is {self.workers}. Give at least 1.")

    @contextlib.contextmanager
    def of(self, tools: Tools, watcher: Watcher) -> Iterator[Tools]:
        """The tools of a run whose model is computed by this engine. Its workers end with the block.

        Raises:
            InterpError: the engine is not installed, or no cluster is at the address.
        """
        if self.name == "local":
            yield tools
            return
        from interp.engines import ray

        with ray.started(self.workers, self.address, note=watcher.note) as workers:

            def load(*source: Any, **options: Any) -> HookedTransformer:
                return tools.load_model(*source, **options).on(workers)

            yield replace(tools, load_model=load)


# ---- several studies of several models ----


@dataclass(frozen=True)
class Run:
    """One of several runs.

    Attributes:
        study: the study, with its model.
        out: its directory.
    """

    study: Study
    out: Path


@dataclass(frozen=True)
class Ended:
    """How one of several runs ended.

    Attributes:
        run: the run.
        outcome: what it came to; None if it failed.
        error: why it failed; None if it did not.
    """

    run: Run
    outcome: Outcome | None
    error: Exception | None = None


def every_run(asked: Sequence[str], models: Sequence[str], out: Path, *, n: int | None, seed: int | None) -> list[Run]:
    """Every study with every model, each in a directory of its own below ``out``; a model's runs come together.

    Args:
        asked: names of bundled studies, or paths.
        models: what ``--model`` takes; none leaves each study its own.
        out: the directory of all.
        n: pairs per rung, instead of the studies' own.
        seed: instead of the studies' own.

    Raises:
        InterpError: what is wrong with a study, whatever the model, or two runs that are one.
    """
    written = [studies.load(name) for name in asked]
    runs: dict[Path, Run] = {}
    asked_of: list[str | None] = [*models] or [None]
    for model in asked_of:
        for study in written:
            chosen = studies.with_overrides(study, model=model, n=n, seed=seed)
            chosen.check_options()
            place = out / execution.default_place(chosen, study, "float32").name
            if place in runs:
                raise InterpError(f"Study {chosen.name} of {chosen.model} is asked for twice. Name it once.")
            runs[place] = Run(chosen, place)
    return list(runs.values())


def run_all(
    runs: Sequence[Run],
    *,
    tools: Tools,
    watcher: Watcher,
    command: str,
    ended: Callable[[Ended], None],
    **how: Any,
) -> list[Ended]:
    """Run one after the other. One that fails does not keep the others from running.

    Args:
        runs: what to run.
        tools: the parts to run with; a model is loaded once for its runs.
        watcher: is told of stages and progress.
        command: the command line, for the manifests.
        ended: is told of each as it ends.
        how: what ``execution.execute`` takes besides.
    """
    once = replace(tools, load_model=_once(tools.load_model))
    found = []
    for run in runs:
        watcher.note(f"{run.study.name} of {run.study.model}, in {run.out}")
        try:
            one = Ended(run, execution.execute(run.study, run.out, tools=once, watcher=watcher, command=command, **how))
        except Exception as error:
            log.exception("%s failed", run.out)
            one = Ended(run, None, error)
        found.append(one)
        ended(one)
    return found


def _once(load: Callable[..., HookedTransformer]) -> Callable[..., HookedTransformer]:
    """Loading that keeps the last model."""
    kept: list[tuple[object, HookedTransformer]] = []

    def loaded(source: str, **options: Any) -> HookedTransformer:
        asked = source, tuple(sorted(options.items()))
        if not kept or kept[0][0] != asked:
            kept.clear()  # before the next one is there
            kept.append((asked, load(source, **options)))
        return kept[0][1]

    return loaded


def compared(found: Sequence[Ended], out: Path, language: str | None) -> tuple[Path | None, str]:
    """The page that lays the runs that were finished beside each other; or None and why there is none."""
    from interp.report.comparison import compare

    done = [one.run.out for one in found if one.outcome is not None]
    if len(done) < 2:
        return None, "fewer than two runs are finished"
    try:
        with directories.refusing(out):
            return compare(*done, language=language).save(out), ""
    except InterpError as error:
        return None, str(error)


def refuse_failures(found: Sequence[Ended]) -> None:
    """Say how many have failed, and why, once the others are done.

    Raises:
        InterpError: some have, all of them by bad input.
        RuntimeError: some have, one of them otherwise.
    """
    failed = [one for one in found if one.error is not None]
    if not failed:
        return
    said = "; ".join(f"{one.run.out.name}: {one.error}" for one in failed)
    text = f"{len(failed)} of {len(found)} runs failed, the others are kept. {said}"
    unexpected = [one.error for one in failed if not isinstance(one.error, InterpError)]
    if unexpected:
        raise RuntimeError(text) from unexpected[0]
    raise InterpError(text)
