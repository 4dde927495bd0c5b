"""Peak memory of reading one role, against TransformerLens keeping everything, each in a process of its own."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import machine
from tests.benchmarks.workload import DIFFERS_AT, random_ids

TARGET = 0.1
"""Most of the cache's memory that a capture of one role should take."""
WAYS = {
    "capture": 'interp.capture(model, prompts, ["resid_pre"], at=["color"])',
    "cache": "bridge.run_with_cache(ids)",
    "filtered": "bridge.run_with_cache(ids, names_filter=resid_pre)",
}


def measure(directory: Path, *, n_prompts: int, length: int, threads: int) -> dict[str, Any]:
    """Bytes above what the process held once the model was loaded and had run once."""
    out: dict[str, Any] = {"n_prompts": n_prompts, "length": length, "ways": {}}
    for way in WAYS:
        command = [sys.executable, "-m", "tests.benchmarks.memory", way, str(directory)]
        done = subprocess.run(
            [*command, str(n_prompts), str(length), str(threads)], capture_output=True, text=True, check=False
        )
        out["ways"][way] = (
            json.loads(done.stdout.splitlines()[-1])
            if done.returncode == 0
            else {"failed": f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
        )
    capture, cache = (out["ways"][way].get("bytes") for way in ("capture", "cache"))
    out["share"] = capture / cache if capture is not None and cache else None
    return out


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as a table."""
    out = [f"  {figures['n_prompts']} prompts x {figures['length']} tokens, above what the loaded model takes"]
    for way, one in figures["ways"].items():
        if "failed" in one:
            out.append(f"  {WAYS[way]:<56} n/a ({one['failed']})")
            continue
        note = "" if one["reset"] else "  (since the start: this system does not forget a peak)"
        out.append(f"  {WAYS[way]:<56}{one['bytes'] / 2**20:>9.0f} MiB  {one['seconds']:6.2f} s{note}")
    share = figures["share"]
    if share is not None:
        verdict = "met" if share <= TARGET else "MISSED"
        out.append(f"  capture takes {share:.3f} of the cache (target {TARGET}: {verdict})")
    return out


def main() -> None:
    """One way in this process; prints JSON."""
    import time

    from interp import HookedTransformer, Prompts, capture

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("n_prompts", type=int)
    parser.add_argument("length", type=int)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = HookedTransformer.from_pretrained(arguments.directory)
    ids = random_ids(model.cfg.vocab, arguments.n_prompts, arguments.length)

    def run(rows: int) -> object:
        if arguments.way == "capture":
            return capture(model, Prompts.from_ids(ids[:rows], {"color": DIFFERS_AT}), ["resid_pre"], at=["color"])
        options = {"names_filter": lambda name: name.endswith("hook_resid_pre")} if arguments.way == "filtered" else {}
        with torch.inference_mode():
            return model.bridge.run_with_cache(torch.from_numpy(ids[:rows]), **options)

    run(1)
    gc.collect()
    reset = machine.reset_peak()
    before = machine.peak_bytes()
    started = time.perf_counter()
    kept = run(arguments.n_prompts)
    seconds = time.perf_counter() - started
    print(json.dumps({"bytes": machine.peak_bytes() - before, "before": before, "reset": reset, "seconds": seconds}))
    del kept


if __name__ == "__main__":
    main()
