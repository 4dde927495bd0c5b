"""What processes there are, from Linux's own table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path


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
