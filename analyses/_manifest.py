"""What a run's manifest says of the world: versions, machine, memory, and the code the results depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_VERSIONED = ("torch", "transformers", "transformer-lens", "numpy", "xarray", "scikit-learn")


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

    library, here = Path(interp.__file__).parent, Path(__file__).parent
    outside = {library / "report", library / "mini", library / "groundtruth"}
    paths = [path for path in library.rglob("*.py") if outside.isdisjoint(path.parents)]
    paths += [path for path in here.glob("*.py") if path.name != "study.py" and not path.name.startswith("_")]
    digest = hashlib.sha256()
    for path in sorted([*paths, *library.glob("tasks/*.yaml")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read(out: Path) -> dict[str, Any]:
    """The manifest of a run's directory; empty if there is none or it is damaged."""
    try:
        content = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
