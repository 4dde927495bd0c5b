"""Telling how far a sweep is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from interp.errors import InterpError

Progress: TypeAlias = Callable[[int, int], None]
"""Called with rows done and rows in all."""


class Meter:
    """Counts rows, or passes, towards a total, for whoever wants to know.

    >>> told = []
    >>> meter = Meter(lambda done, total: told.append((done, total)), total=5)
    >>> meter.add(2)
    >>> meter.add(3)
    >>> told
    [(2, 5), (5, 5)]
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        _check(progress)
        self.progress, self.total, self.done = progress, total, 0

    def add(self, n: int) -> None:
        """Count ``n`` more that are done."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part, reported as progress of the whole.

    The second half of a job of 10 steps, 5 of which are done:

    >>> told = []
    >>> second = shifted(lambda done, total: told.append((done, total)), before=5, total=10)
    >>> second(2, 5)
    >>> told
    [(7, 10)]
    """
    _check(progress)
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _check(progress: object) -> None:
    if progress is not None and not callable(progress):
        raise InterpError(f"progress must be a function of rows done and rows in all, not {type(progress).__name__}.")
