"""How much of the time that was given is left."""

from __future__ import annotations

import time

from interp.sweeps import Listener, Meter, Progress

MOST_OVER = 1.1
"""What takes longer than planned is given up at so many times the time."""


class LateError(Exception):
    """The time is up in the middle of a measurement."""


class Clock:
    """How much of the time is left, in seconds; without a limit there is always enough.

    >>> Clock(None).left()
    inf
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.started = seconds, time.monotonic()

    @property
    def spent(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.started

    def left(self, share: float = 1.0) -> float:
        """Until so much of the time is spent."""
        return float("inf") if self.seconds is None else share * self.seconds - self.spent


def watched(clock: Clock, progress: Progress | None = None) -> Listener:
    """Progress that gives a measurement up, by ``LateError``, where the time is long over."""
    told = Meter(progress, 1).progress

    def tell(done: int, total: int) -> None:
        if done < total and clock.left(MOST_OVER) < 0:
            raise LateError
        if told is not None:
            told(done, total)

    return tell
