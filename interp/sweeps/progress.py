"""Telling how far a sweep is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from interp.errors import InterpError

Listener: TypeAlias = Callable[[int, int], None]
"""Called with rows done and rows in all."""

Progress: TypeAlias = Listener | bool
"""Who is told; True draws a bar, in a terminal as in a notebook."""


class Meter:
    """Counts rows, or passes, towards a total, for whoever wants to know.

    >>> heard = []
    >>> meter = Meter(lambda done, total: heard.append((done, total)), total=5)
    >>> meter.add(2)
    >>> meter.add(3)
    >>> heard
    [(2, 5), (5, 5)]
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = listener(progress), total, 0

    def add(self, n: int) -> None:
        """Count ``n`` more that are done."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)


def listener(progress: Progress | None, name: str = "") -> Listener | None:
    """Who is told of progress: the function that was given, a bar for True (with a name before it), or nobody.

    Raises:
        InterpError: something else.

    >>> listener(None) is None, listener(print) is print
    (True, True)
    """
    if progress is None or isinstance(progress, bool):
        return _Bar(name) if progress else None
    if not callable(progress):
        raise InterpError(
            f"progress must be True, or a function of rows done and rows in all, not {type(progress).__name__}."
        )
    return progress


class _Bar:
    """A bar that appears with the first step and is left standing after the last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, desc=self.name or None)
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()


def shifted(progress: Listener | None, before: int, total: int) -> Listener | None:
    """Progress of a part, reported as progress of the whole.

    The second half of a job of 10 steps, 5 of which are done:

    >>> heard = []
    >>> second = shifted(lambda done, total: heard.append((done, total)), before=5, total=10)
    >>> second(2, 5)
    >>> heard
    [(7, 10)]
    """
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
