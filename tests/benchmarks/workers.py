"""One sweep in this process, with one worker and with two: seconds, ratio, and whether the bytes are equal.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.workers [--model mini] [--n 24] [--kill]

With ``--kill`` a worker is killed in the middle of the last sweep.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

import numpy as np

from interp import HookedTransformer, sweep, tasks
from interp.engines import ray
from tests.processes import doers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    model = HookedTransformer.from_pretrained(given.model)
    pairs = tasks.build("color-noun", "two", tokenizer=model, n=given.n)

    def measured(one: HookedTransformer, **more: object) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        found = sweep(one, pairs, "z", axis="role", **more)
        return found.patched.values, time.perf_counter() - started

    whole, seconds = measured(model)
    print(f"{model.name}, {given.n} pairs, load {os.getloadavg()[0]:.1f}")
    print(f"this process: {seconds:.1f} s")
    first = None
    for count in (1, 2):
        with ray.started(count) as workers:
            many = model.on(workers)
            doers(many, 8)  # starts them
            found, seconds = measured(many)
            first = first or seconds
            same = found.tobytes() == whole.tobytes()
            print(
                f"{count} of {workers.threads} threads: {seconds:.1f} s, {first / seconds:.2f} times one's rate; "
                f"same bytes: {same}; largest difference {np.abs(found - whole).max():.2g}"
            )
            if given.kill and count == 2:
                victim = doers(many, 2)[0]
                told = []

                def listen(done: int, total: int, victim: int = victim, told: list[int] = told) -> None:
                    told.append(done)
                    if len(told) == 4:
                        os.kill(victim, signal.SIGKILL)

                found, seconds = measured(many, progress=listen)
                print(
                    f"one killed: {seconds:.1f} s, {workers.replaced} replaced; "
                    f"same bytes: {found.tobytes() == whole.tobytes()}"
                )


if __name__ == "__main__":
    main()
