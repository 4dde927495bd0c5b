"""Kills runs, sweeps with a store, captures and workers of Ray, and does the same again.

    python -m tests.kills.harness --runs 40 --stores 100 --captures 100 --drivers 5 --workers 5

Of ten seven are killed at a file-system event (every third of these twice), two after some time, and one is sent
SIGTERM. One process loads everything once and forks a child for each, so that a kill costs no imports. A child counts
what it does to the file system below its directory (an audit hook of Python, and ``os.fsync``) and kills itself at the
event it was told. What is there in the end must be what an undisturbed job leaves: the same names, and the same bytes
but for timings and, where other rows share a batch, for rounding.

``--drivers`` kills the process that has the workers; the sweep goes on without Ray, and no process of Ray may be left.
``--workers`` kills one of two workers in the middle of a sweep, which has to end as if nothing had happened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from interp.model import HookedTransformer
from tests import processes
from tests.kills.jobs import JOBS, Job, SweepByWorkers

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
    """Does one job over and over in children of this process."""

    def __init__(self, place: Path, job: Job) -> None:
        self.place, self.job = place, job
        self.journal = place / "events"
        self.reference = place / "undisturbed" / "out"
        assert job.again(place / "first" / "out") == 0  # imports what the job imports, for all the children
        assert self.run(self.reference) == 0, (place / "said").read_text()
        started = time.monotonic()
        assert self.run(place / "counted" / "out", watch=0) == 0
        self.seconds = time.monotonic() - started
        self.events = self.journal.read_text().splitlines()

    def run(
        self, out: Path, *, watch: int | None = None, disturb: Callable[[int], None] | None = None, again: bool = False
    ) -> int:
        """Do the job in a child; its exit code, or minus the signal that killed it."""
        out.parent.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(self.place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                if watch is not None:
                    Events(out, watch, self.journal).install()
                code = (self.job.again if again else self.job.do)(out)
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        if disturb is not None:
            disturb(child)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def at_event(self, strikes: list[int]) -> Outcome:
        """Kill the job at an event, do it again and kill that at the next one, ...; then leave it alone."""
        out = Path(tempfile.mkdtemp(dir=self.place)) / "out"
        killed, how = 0, []
        for strike in strikes:
            self.journal.unlink(missing_ok=True)
            if self.run(out, watch=strike) == -signal.SIGKILL:
                killed += 1
                how.append(self.journal.read_text().strip())
        return self._after(out, "; then ".join(how) or f"not reached: {strikes}", killed)

    def at_time(self, seconds: float, number: signal.Signals) -> Outcome:
        """Send a signal after some time, then leave the same job alone."""
        out = Path(tempfile.mkdtemp(dir=self.place)) / "out"

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
        left = self._left()
        code = self.run(out, again=True)
        wrong = self.job.wrong(self.reference, out) if code == 0 else (self.place / "said").read_text().strip()
        shutil.rmtree(out.parent)
        return Outcome(how, killed, code, left + wrong)

    def _left(self) -> str:
        """Processes that still work for a killed job, after the time that Ray takes to notice; empty if none do."""
        for _ in range(100):
            alive = set(processes.pids()) - {os.getpid()}
            left = [one for one in processes.commands(alive) if str(self.place) in one]
            if not left:
                return ""
            time.sleep(0.1)
        return f"still there: {left[0][:80]}; "


def disturbed(harness: Harness, n: int, chance: random.Random) -> Iterator[Outcome]:
    """So many jobs, each disturbed in one of the ways."""
    everything = range(1, len(harness.events) + 1)
    step = len(everything) / max(1, n)
    for i in range(n):
        if i % 10 < 7:
            strike = everything[int((i + chance.random()) * step)]
            yield harness.at_event([strike, chance.choice(everything)] if i % 3 == 2 else [strike])
        else:
            number = signal.SIGTERM if i % 10 == 9 else signal.SIGKILL
            yield harness.at_time(chance.uniform(0, harness.seconds), number)


def with_dying_workers(job: SweepByWorkers, n: int, chance: random.Random) -> Iterator[Outcome]:
    """So many sweeps by the workers of one Ray, in each of which one worker is killed."""
    right = job.place / "undisturbed" / "out"
    right.parent.mkdir()
    assert job.again(right) == 0  # without workers, which every driver would have to start
    with job.workers() as workers:
        model = job.model.on(workers)
        heard: list[int] = []
        job.sweep(model, None, lambda done, total: heard.append(done))
        for i in range(n):
            strike, victims = chance.randrange(1, len(heard)), []
            out = job.place / f"worker-{i}" / "out"

            def kill(done: int, total: int, strike: int = strike, victims: list[int] = victims) -> None:
                if done >= heard[strike] and not victims:
                    of_workers = [
                        pid for pid in processes.descendants(os.getpid())
                        if any("ray::_Worker" in command for command in processes.commands([pid]))
                    ]  # fmt: skip
                    victims.append(chance.choice(sorted(of_workers)))
                    os.kill(victims[0], signal.SIGKILL)

            out.parent.mkdir()
            job.sweep(model, out, kill)
            yield Outcome(f"a worker after {heard[strike]} rows", len(victims), 0, job.wrong(right, out))


def campaign(seed: int = 0, workers: int = 0, **how_many: int) -> Iterator[tuple[str, Outcome]]:
    """Disturb so many of each kind of job."""
    chance = random.Random(seed)
    torch.set_num_threads(1)  # a child has none of its parent's other threads, and would wait for them
    model = HookedTransformer.from_pretrained("mini", device="cpu")
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        for name, n in how_many.items():
            if n:
                (Path(place) / name).mkdir()
                harness = Harness(Path(place) / name, JOBS[name](Path(place) / name, model))
                for outcome in disturbed(harness, n, chance):
                    yield name, outcome
        if workers:
            (Path(place) / "workers").mkdir()
            for outcome in with_dying_workers(SweepByWorkers(Path(place) / "workers", model), workers, chance):
                yield "workers", outcome


def main() -> int:
    """Print one line of JSON for each disturbed job; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in (*JOBS, "workers", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    code = 0
    for name, outcome in campaign(**vars(parser.parse_args())):
        sys.stdout.write(json.dumps({"job": name, **asdict(outcome)}) + "\n")
        sys.stdout.flush()
        code |= int(bool(outcome.wrong or outcome.code))
    return code


if __name__ == "__main__":
    sys.exit(main())
