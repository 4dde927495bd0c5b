"""How much of the time that was given is left."""

from __future__ import annotations

import time


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
