"""How long the main job takes here: `make bench`.

Times `interp --help`, and `interp run` of every bundled study on `mini`, each in a process of its own, and
prints wall time, peak memory and the time of every stage. Options: the studies to run, `--n` pairs per rung.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analyses.cli import study

INTERP = (sys.executable, "-m", "analyses")


def seconds(*arguments: str) -> float:
    """Wall time of one command, which must succeed."""
    started = time.perf_counter()
    subprocess.run([*INTERP, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=study.names())
    parser.add_argument("--n", type=int)
    arguments = parser.parse_args()
    print(f"{'interp --help':<16} {min(seconds('--help') for _ in range(5)):7.2f} s")
    for name in arguments.studies:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / name
            n = [] if arguments.n is None else ["--n", str(arguments.n)]
            wall = seconds("run", name, "--out", str(out), "--quiet", *n)
            manifest = json.loads((out / "manifest.json").read_text())
        stages = "  ".join(f"{stage} {spent:.1f}" for stage, spent in manifest["timings"].items())
        print(f"{name:<16} {wall:7.1f} s  {manifest['peak_memory_bytes'] / 2**20:6.0f} MiB  {stages}")


if __name__ == "__main__":
    main()
