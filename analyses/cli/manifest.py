"""What a run's manifest says of the world: versions, machine, memory, and the code the results depend on."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from analyses.bundled import BUNDLED
from analyses.cli import closure
from analyses.registry import Analysis
from interp.errors import InterpError

_VERSIONED = (
    "torch", "transformers", "transformer-lens", "tokenizers", "safetensors", "gguf", "einops",
    "numpy", "scipy", "scikit-learn", "xarray", "h5netcdf",
)  # fmt: skip

RESULTS_COME_FROM = ("interp.model", "interp.prompts", "interp.tasks", *(one.module for one in BUNDLED.values()))
"""The modules that a run calls; with all that they import they are what the numbers depend on."""


def versions() -> dict[str, str]:
    """Versions of Python, interp and what the numbers depend on."""
    from interp import __version__

    found = {"python": platform.python_version(), "interp": __version__}
    for package in _VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str | int]:
    """What the run ran on: nothing that names the machine or its user."""
    return {"platform": f"{platform.system()} {platform.machine()}", "cpu_count": os.cpu_count() or 0}


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def code_sha256() -> str:
    """Fingerprint of the code that results depend on: not the report, the training script or the command line."""
    import interp

    return closure.code_sha256(Path(interp.__file__).parent.parent, RESULTS_COME_FROM)


def code_elsewhere_sha256(analysis: Analysis) -> str | None:
    """Fingerprint of the code of another package's analysis; None for a bundled one, which ``code_sha256`` covers.

    Raises:
        InterpError: its module does not lie in a file.
    """
    if BUNDLED.get(analysis.name) == analysis:
        return None
    spec = importlib.util.find_spec(analysis.module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise InterpError(f"The analysis {analysis.name} is not in a file: install its package as files, not zipped.")
    package = analysis.module.split(".")[0]
    up = len(analysis.module.split(".")) - (spec.submodule_search_locations is None)
    return closure.code_sha256(Path(spec.origin).parents[up], [analysis.module], {package})
