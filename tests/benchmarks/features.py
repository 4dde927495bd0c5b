"""Probes fitted on features that stay on disk: seconds, peak memory and held-out accuracy.

    python -m tests.benchmarks.features [ROWS [FEATURES]]

The file is written and read in chunks; with 200 000 rows of 768 features it has 614 MB, and the process, all libraries
included, stays within 1 GiB.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier

from interp.probes import MeanDifference, RidgeProbe, StoredFeatures, fit_stored

ROWS, FEATURES, LABELS, CHUNK = 200_000, 768, 10, 8192
TARGET = 1024
"""Most MiB that the process should ever hold."""


def chunks(labels: np.ndarray, n_features: int, seed: int) -> Iterator[np.ndarray]:
    """Noise, and a weak direction for every label."""
    means = 0.12 * np.random.default_rng(0).normal(size=(LABELS, n_features)).astype(np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, len(labels), CHUNK):
        said = labels[start : start + CHUNK]
        yield rng.standard_normal(size=(len(said), n_features), dtype=np.float32) + means[said]


def peak() -> float:
    """MiB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(n_rows: int = ROWS, n_features: int = FEATURES) -> None:
    """Write the features, fit every probe on them, test it on other rows, and print the figures."""
    labels = np.random.default_rng(1).integers(LABELS, size=n_rows)
    said = np.random.default_rng(3).integers(LABELS, size=CHUNK)
    (tested,) = chunks(said, n_features, 4)
    print(f"{'libraries':<28}{peak():>9.0f} MiB")
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        shape = (n_rows, n_features)
        stored = StoredFeatures.write(Path(place) / "x.npy", chunks(labels, n_features, 2), shape=shape)
        size = stored.path.stat().st_size / 1e6
        print(f"{'written, ' + format(size, '.0f') + ' MB':<28}{peak():>9.0f} MiB{time.perf_counter() - begun:8.1f} s")
        ways: dict[str, tuple[Any, dict[str, Any]]] = {
            "difference of means": (MeanDifference(), {}),
            "ridge": (RidgeProbe(), {}),
            "logistic, SGD": (SGDClassifier(loss="log_loss", random_state=0), {"standardise": True, "epochs": 2}),
        }
        for name, (probe, how) in ways.items():
            begun = time.perf_counter()
            fitted = fit_stored(probe, stored, labels, rows=CHUNK, **how)
            seconds, right = time.perf_counter() - begun, fitted.score(tested, said)
            print(f"{name:<28}{peak():>9.0f} MiB{seconds:8.1f} s  held-out accuracy {right:.3f}")
    print(f"target {TARGET} MiB: {'met' if peak() <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
