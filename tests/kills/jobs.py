"""What is killed: a run of a study, a sweep with a store, a capture, a sweep by workers of Ray.

Each leaves something in a directory, and does the same again there until it is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from interp import captures, sweep, tasks
from interp.model import HookedTransformer
from interp.store import Store
from interp.sweeps.exact import cost
from interp.sweeps.progress import Progress
from tests.tolerance import close

if TYPE_CHECKING:
    from interp.prompts import PromptPairs

STUDY = """\
name: light
title: A light study
question: Does it go on after it was killed?
task: color-noun
rungs: [recall, two]
n: 4
analyses:
  behavior:
  context_flow:
"""


class Job(Protocol):
    """Something that is killed."""

    def do(self, out: Path) -> int:
        """Do it, or go on with it; its exit code. What is disturbed is this."""
        ...

    def again(self, out: Path) -> int:
        """Go on after a kill."""
        ...

    def wrong(self, right: Path, found: Path) -> str:
        """How what was left in a directory differs from what an undisturbed job left; empty if it does not."""
        ...


def other_names(right: Path, found: Path) -> str:
    """The files that only one of two directories has; empty if there are none."""
    names = [{p.relative_to(d).as_posix() for p in d.rglob("*")} for d in (right, found)]
    return f"other files: {sorted(names[0] ^ names[1])}" if names[0] != names[1] else ""


def other_bytes(right: Path, found: Path, *patterns: str) -> str:
    """The first file whose bytes differ, among those of some patterns; empty if there is none."""
    for path in sorted(path for pattern in patterns for path in right.rglob(pattern) if path.is_file()):
        name = path.relative_to(right)
        if path.read_bytes() != (found / name).read_bytes():
            return f"{name} differs"
    return ""


# ---- a run ----


class StudyRun:
    """``interp run`` of a light study, with the model that is loaded already."""

    def __init__(self, place: Path, model: HookedTransformer) -> None:
        from analyses.cli import execution
        from analyses.cli import manifest as manifests
        from interp import report

        self.study = place / "light.yaml"
        self.study.write_text(STUDY)
        os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
        tools = execution.real_tools()
        fingerprint = manifests.code_sha256()
        manifests.code_sha256 = lambda: fingerprint
        object.__setattr__(tools, "load_model", lambda name, **options: model)
        object.__setattr__(tools, "render", lambda out: report.draw(out, interactive=False))
        execution.real_tools = lambda language=None, *, figures=False: tools
        self._right_drawn: list[bytes] = []

    def do(self, out: Path) -> int:
        from analyses.cli.main import main

        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return main(["run", str(self.study), "--out", str(out), "--quiet"])

    again = do

    def wrong(self, right: Path, found: Path) -> str:
        wrong = other_names(right, found) or other_bytes(right, found, "*.nc", "*.yaml")
        if wrong or not other_bytes(right, found, "*"):
            return wrong
        if _without_timings(right) != _without_timings(found):
            return "manifest.json differs"
        self._right_drawn = self._right_drawn or _drawn_without_timings(right)  # once for all that it is held to
        return "" if self._right_drawn == _drawn_without_timings(found) else "the page differs"


def _without_timings(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    for key in ("timings", "peak_memory_bytes", "command"):
        content.pop(key, None)
    for entry in content["results"].values():
        entry.pop("seconds")
    return content


def _drawn_without_timings(directory: Path) -> list[bytes]:
    """The page and its twin, drawn again from the same results and a manifest without timings."""
    from interp import report

    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "run"
        shutil.copytree(directory, copy)
        (copy / "manifest.json").write_text(json.dumps(_without_timings(directory)))
        report.draw(copy, interactive=False)
        return [(copy / name).read_bytes() for name in ("report.html", "report.json")]


# ---- a sweep with a store ----


class StoredSweep:
    """A sweep in small batches, whose rows are kept in a store."""

    def __init__(self, place: Path, model: HookedTransformer) -> None:
        self.place, self.model = place, model
        self.pairs: PromptPairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)

    def do(self, out: Path) -> int:
        return self.sweep(self.model, out)

    def again(self, out: Path) -> int:
        return self.sweep(self.model, out)

    def sweep(self, model: HookedTransformer, out: Path | None, progress: Progress | None = None) -> int:
        """Sweep, and keep the effects beside the store."""
        cost.TOKENS_PER_BATCH["cpu"], cost.BATCH_BYTES["cpu"] = 200, 0  # so that there are many
        effect = sweep(model, self.pairs, "z", layers=[1, 2], store=out, progress=progress)
        if out is not None:
            np.save(out.with_name("effects.npy"), effect.patched.values)
        return 0

    def wrong(self, right: Path, found: Path) -> str:
        if names := other_names(right, found):
            return names
        effects = [np.load(one.with_name("effects.npy")) for one in (right, found)]
        try:  # after a kill other rows share a batch, so products are added up in another order
            close(effects[1], effects[0], what="the effects")
            close(self._rows(found), self._rows(right), what="the rows of the store")
        except AssertionError as error:
            return str(error)
        return ""

    @staticmethod
    def _rows(out: Path) -> np.ndarray:
        """Every row of a store: its cell, its prompt, its value."""
        (path,) = out.glob("*.rows")
        facts = json.loads(path.read_bytes().partition(b"\n")[0])
        rows = Store.at(out).journal({key: value for key, value in facts.items() if key != "schema"}).read()
        return np.stack([rows.cell, rows.prompt, rows.value])


# ---- a capture ----


class CaptureToDisk:
    """A capture of which every prompt is a shard of its own."""

    def __init__(self, place: Path, model: HookedTransformer) -> None:
        self.model = model
        self.texts = [f"The {noun} is" for noun in ("cat", "dog", "car", "house", "bird", "tree")]

    def do(self, out: Path) -> int:
        captures.write(self.model, self.texts, ["resid_post", "z"], to=out, bytes_at_once=1)
        return 0

    again = do

    def wrong(self, right: Path, found: Path) -> str:
        captures.Capture.open(found)
        return other_names(right, found) or other_bytes(right, found, "*")


# ---- workers of Ray ----


class SweepByWorkers(StoredSweep):
    """A stored sweep by two workers of a Ray of its own, which goes on without Ray."""

    def do(self, out: Path) -> int:
        with self.workers() as workers:
            return self.sweep(self.model.on(workers), out)

    @contextlib.contextmanager
    def workers(self) -> Iterator[Any]:
        """Two of them; what Ray writes lies below this job's place, by which its processes are known."""
        from interp.engines import ray

        tempfile.tempdir = str(self.place)
        with ray.started(2, note=lambda text: None) as found:
            yield found


JOBS = {"runs": StudyRun, "stores": StoredSweep, "captures": CaptureToDisk, "drivers": SweepByWorkers}
