"""What the figures were measured on, and how fast it multiplies matrices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

from interp.model import products

PACKAGES = ("interp", "torch", "transformers", "transformer-lens", "nnsight", "pyvene", "numpy", "xarray")
PRODUCT = (1056, 768, 3072)
"""Rows, inner and columns of the product whose rate is the floor's: GPT-2 small's MLP on 66 prompts of 16 tokens."""


def describe() -> dict[str, str | int]:
    """Machine, processor, cores, threads and versions."""
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "torch_threads": torch.get_num_threads(),
        "load_average": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "n/a",
        "memory_gib": _memory_gib(),
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        part = ", ".join(f"{key} {named[key]}" for key in ("cpu family", "model") if key in named)
        return f"{named.get('model name', platform.processor())}{f' ({part})' if part else ''}"
    return platform.processor() or platform.machine()


def _memory_gib() -> str:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return "n/a"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def product_rates(repeats: int = 20) -> dict[str, list[float]]:
    """Operations per second of one float32 matrix product with bias, per repeat; a multiply-add counts two.

    By every way that there is here, of which ``interp.model.products`` chooses.
    """
    rows, inner, columns = PRODUCT
    left, right, bias = torch.randn(rows, inner), torch.randn(inner, columns), torch.randn(columns)
    rates: dict[str, list[float]] = {}
    with torch.inference_mode():
        for way in products.ways(right, activated=True):
            if way.fused:
                continue  # there is no activation here
            weight = products.pack(right, rows) if way.packed else right
            for _ in range(3):
                way(left, weight, bias, None)
            rates[str(way)] = []
            for _ in range(repeats):
                started = time.perf_counter()
                way(left, weight, bias, None)
                rates[str(way)].append(2.0 * rows * inner * columns / (time.perf_counter() - started))
    return rates


def product_rate(repeats: int = 20) -> list[float]:
    """That of the fastest way: the floor is what the machine can do."""
    return max(product_rates(repeats).values(), key=median)


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def peak_bytes() -> int:
    """Most memory that this process has held since the last reset.

    The status file counts this program only; ``ru_maxrss``, the fall-back, starts at the size of the process that
    started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Forget the peak so far, which loading a model leaves high; whether the system lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
