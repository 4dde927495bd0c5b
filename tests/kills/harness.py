"""Kills runs of a light study, at chosen file-system events and at random times, and runs the same command again.

    python -m tests.kills.harness --events 40 --times 10 --terms 5

One process loads everything once and forks a child for every run, so a kill costs a second. A child counts what it
does to the file system below its directory (an audit hook of Python, and ``os.fsync``) and kills itself at the event
it was told. What is there in the end must be what an undisturbed run leaves: the same names, the same bytes of the
results, the same page; only timings may differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STUDY = """\
name: light
title: A light study
question: Does it go on after it was killed?
task: color-noun
rungs: [recall, two]
n: 4
analyses:
  behavior:
  attention_lesson:
  context_flow:
"""

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Outcome:
    """One disturbed run.

    Attributes:
        how: the event or the time of the (last) kill.
        killed: how often the run was killed before it was left alone.
        code: what the undisturbed command then answered.
        wrong: how what it left differs from an undisturbed run; empty is right.
    """

    how: str
    killed: int
    code: int
    wrong: str


class Events:
    """Counts what this process does to the files below a directory, and kills it at the chosen one."""

    def __init__(self, directory: Path, strike: int, journal: Path) -> None:
        self.directory, self.strike, self.journal = str(directory), strike, journal
        self.count = 0
        self.paths: dict[int, str] = {}

    def install(self) -> None:
        """Watch from now on. An audit hook cannot be taken away again: this process is given up for it."""
        sys.addaudithook(self._audit)
        fsync = os.fsync

        def watched(handle: int) -> None:
            self._happened("fsync", os.readlink(f"/proc/self/fd/{handle}"))
            fsync(handle)

        os.fsync = watched  # type: ignore[assignment]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        self._happened(event, arguments[0])

    def _happened(self, event: str, path: object) -> None:
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self.directory):
            return
        self.count += 1
        if self.count == self.strike or self.strike == 0:
            name = os.path.relpath(os.path.abspath(path), self.directory)
            self._note(f"{self.count} {event} {name}\n")
        if self.count == self.strike:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, line: str) -> None:
        handle = os.open(self.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, line.encode())
        os.close(handle)


class Harness:
    """Runs the study in children of this process."""

    def __init__(self, place: Path) -> None:
        from analyses.cli import execution
        from analyses.cli import manifest as manifests
        from interp import report
        from interp.model import HookedTransformer

        self.place = place
        (place / "light.yaml").write_text(STUDY)
        os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
        model = HookedTransformer.from_pretrained("mini", device="cpu")
        tools = execution.real_tools()
        fingerprint = manifests.code_sha256()
        manifests.code_sha256 = lambda: fingerprint
        object.__setattr__(tools, "load_model", lambda name, **options: model)
        object.__setattr__(tools, "render", lambda out: report.render(out, interactive=False))
        execution.real_tools = lambda language=None: tools
        self.reference = place / "undisturbed"
        self.journal = place / "events"
        self._here()  # imports what a run imports, for all the children
        assert self.run(self.reference) == 0
        self.page = _drawn_without_timings(self.reference)
        started = time.monotonic()
        assert self.run(place / "counted", watch=0) == 0
        self.seconds = time.monotonic() - started
        self.events = self.journal.read_text().splitlines()

    def _here(self) -> None:
        from analyses.cli.main import main

        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            assert main(["run", str(self.place / "light.yaml"), "--out", str(self.place / "first"), "--quiet"]) == 0

    def run(self, out: Path, *, watch: int | None = None, disturb: Callable[[int], None] | None = None) -> int:
        """Run the command in a child; its exit code, or minus the signal that killed it."""
        child = os.fork()
        if child == 0:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(os.open(self.place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            from analyses.cli.main import main

            if watch is not None:
                Events(out, watch, self.journal).install()
            code = main(["run", str(self.place / "light.yaml"), "--out", str(out), "--quiet"])
            sys.stderr.flush()
            os._exit(code)
        if disturb is not None:
            disturb(child)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def at_event(self, strikes: list[int]) -> Outcome:
        """Kill the run at an event, run again and kill that at the next one, ...; then leave it alone."""
        out = Path(tempfile.mkdtemp(dir=self.place)) / "run"
        killed, how = 0, []
        for strike in strikes:
            self.journal.unlink(missing_ok=True)
            if self.run(out, watch=strike) == -signal.SIGKILL:
                killed += 1
                how.append(self.journal.read_text().strip())
        return self._after(out, "; then ".join(how) or f"not reached: {strikes}", killed)

    def at_time(self, seconds: float, number: signal.Signals) -> Outcome:
        """Send a signal after some time, then leave the same command alone."""
        out = Path(tempfile.mkdtemp(dir=self.place)) / "run"

        def disturb(child: int) -> None:
            time.sleep(seconds)
            os.kill(child, number)

        code = self.run(out, disturb=disturb)
        how = f"{number.name} after {seconds:.2f} s: {code}"
        wrong = ""
        if number == signal.SIGTERM and code not in (130, 0, -signal.SIGTERM):
            wrong = f"answered {code}; "
        after = self._after(out, how, int(code != 0))
        return Outcome(after.how, after.killed, after.code, wrong + after.wrong)

    def _after(self, out: Path, how: str, killed: int) -> Outcome:
        code = self.run(out)
        wrong = self.differences(out) if code == 0 else (self.place / "said").read_text().strip()
        shutil.rmtree(out.parent)
        return Outcome(how, killed, code, wrong)

    def differences(self, found: Path) -> str:
        """How a run's directory differs from the undisturbed one, but for timings; empty if it does not."""
        names = [{p.relative_to(d).as_posix() for p in d.rglob("*")} for d in (self.reference, found)]
        if names[0] != names[1]:
            return f"other files: {sorted(names[0] ^ names[1])}"
        for name in sorted(name for name in names[0] if name.endswith((".nc", ".yaml"))):
            if (self.reference / name).read_bytes() != (found / name).read_bytes():
                return f"{name} differs"
        if _without_timings(self.reference) != _without_timings(found):
            return "manifest.json differs"
        return "" if _drawn_without_timings(found) == self.page else "the page differs"


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
        report.render(copy, interactive=False)
        return [(copy / name).read_bytes() for name in ("report.html", "report.json")]


def campaign(events: int, times: int, terms: int, seed: int) -> Iterator[Outcome]:
    """Disturb runs: at ``events`` file-system events (every third twice), at random times, by SIGTERM."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        harness = Harness(Path(place))
        everything = range(1, len(harness.events) + 1)
        step = max(1, len(everything) / max(1, events))
        chosen = sorted({everything[int((i + chance.random()) * step)] for i in range(min(events, len(everything)))})
        for i, strike in enumerate(chosen):
            strikes = [strike, chance.choice(chosen)] if i % 3 == 2 else [strike]
            yield harness.at_event(strikes)
        for _ in range(times):
            yield harness.at_time(chance.uniform(0, harness.seconds), signal.SIGKILL)
        for _ in range(terms):
            yield harness.at_time(chance.uniform(0, harness.seconds), signal.SIGTERM)


def main() -> int:
    """Print one line of JSON for each disturbed run; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, number in (("events", 40), ("times", 10), ("terms", 5), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    code = 0
    for outcome in campaign(**vars(parser.parse_args())):
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()
        code |= int(bool(outcome.wrong or outcome.code))
    return code


if __name__ == "__main__":
    sys.exit(main())
