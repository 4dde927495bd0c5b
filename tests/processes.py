"""What processes there are, from Linux's own table, and which of them do a model's work."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from interp import HookedTransformer


def pids() -> list[int]:
    """All of them."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def descendants(pid: int) -> set[int]:
    """Every process that comes of one."""
    parents = {}
    for one in pids():
        with contextlib.suppress(OSError):
            parents[one] = int(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    for _ in parents:
        found |= {one for one, parent in parents.items() if parent in found}
    return found - {pid}


def commands(of: Collection[int]) -> list[str]:
    """Their commands; one that has ended, and waits to be asked how, has none."""
    found = []
    for one in of:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{one}/cmdline").read_text().replace("\0", " "))
    return found


def doers(model: HookedTransformer, n: int) -> list[int]:
    """Who does each of so many pieces, which take a moment, so that every worker is started and has some."""
    # A class of a function is sent with its code: a worker cannot import this file.

    class Pids:
        def ready(self, model: object) -> None:
            return None

        def do(self, ready: None, piece: int) -> int:
            time.sleep(0.05)
            return os.getpid()

    return [pid for _, pid in model.engine.map(model, Pids(), range(n))]
