"""How many threads a fit takes: on small features, one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

SMALL = 10_000_000
"""Numbers below which the products of a fit are too short to be shared among threads."""


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """Let the products of a fit on ``size`` numbers run in one thread, where they are too short to be shared.

    A fit by lbfgs is thousands of products of microseconds. Shared among many cores, each waits for the slowest of
    them: on 16 cores a grid of probes that takes seconds takes minutes.

    Args:
        size: rows times features.

    >>> from threadpoolctl import threadpool_info
    >>> with threads_for(100):
    ...     {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
    {1}
    """
    if size >= SMALL:
        yield
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    """The linear algebra that is loaded: looked for once, since looking takes milliseconds."""
    return ThreadpoolController()
