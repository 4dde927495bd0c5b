"""What a GPU gives: rounding beside the CPU, drift of half precision, speed beside TransformerLens, memory beside plan.

    python -m tests.benchmarks.gpu --out reports/gpu                  on the GPU
    python -m tests.benchmarks.gpu --out /tmp/try --device cpu        tiny sizes on the CPU, to know that it works

One table, ``table.md``, and the same figures in ``figures.json``. A part that fails is named in both, and the exit
status is 1; the other parts are measured all the same. ``bash tests/gpu.sh`` runs the tests marked ``cuda`` before.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # before the imports

import numpy as np
import torch

from interp import HookedTransformer, PromptPairs, capture
from interp.sweeps import path_patching, plan, sweep, sweep_sites
from tests.benchmarks import machine, ours
from tests.benchmarks.peers.lens import Lens
from tests.benchmarks.workload import LARGE, SITES, SMALL, Workload, random_ids, save_random, workload

Row: TypeAlias = tuple[str, str, str]
"""What, figure, remark."""

TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 32, "vocab_size": 100}
LIGHT = "{name: light, title: t, question: q, task: color-noun, rungs: [recall], analyses: {behavior: }}"
CAPTURED = ("resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "mlp_out")


@dataclass(frozen=True)
class Bench:
    """What every part gets: the same weights on the device and on the CPU, with the same prompts."""

    device: str
    directory: Path
    work: Workload
    on_cpu: HookedTransformer

    @property
    def model(self) -> HookedTransformer:
        """The model on the device."""
        return self.work.model

    @property
    def is_gpu(self) -> bool:
        """Whether figures mean anything."""
        return self.device == "cuda"


# ---- the parts ----


def rounding(bench: Bench) -> list[Row]:
    """The device against the CPU in float32: activations, log-probabilities and effects, as shares of the largest."""
    rows: list[Row] = []
    for tf32 in (False, True) if bench.is_gpu else (False,):
        with _tf32(tf32):
            here, there = (capture(model, bench.work.clean, CAPTURED) for model in (bench.on_cpu, bench.model))
            worst = {site: _share(there[site].values, here[site].values) for site in CAPTURED}
            site = max(worst, key=worst.__getitem__)
            said = [model.forward(bench.work.clean).cpu().log_softmax(-1) for model in (bench.on_cpu, bench.model)]
            swept = {
                name: [
                    _effect(model, bench.work, name, layers=_some_layers(model))
                    for model in (bench.on_cpu, bench.model)
                ]
                for name in ("resid_pre", "z")
            }
        name = f"float32, TF32 {'on' if tf32 else 'off'}, beside the CPU"
        rows.append(
            (
                f"{name}: activations",
                f"{worst[site]:.1e}",
                f"share of the largest; worst of {len(CAPTURED)} sites: {site}",
            )
        )
        rows.append((f"{name}: log-probabilities", f"{float((said[0] - said[1]).abs().max()):.1e}", "nats, largest"))
        for site, (left, right) in swept.items():
            rows.append((f"{name}: effects of {site}", f"{_share(right, left):.1e}", "share of the largest effect"))
    return rows


def loading(bench: Bench) -> list[Row]:
    """Whether a model is still held to its self-check, and not refused, where someone has switched TF32 on."""
    with _tf32(bench.is_gpu):
        checks = HookedTransformer.from_pretrained(bench.directory, device=bench.device).checks
    worst = max(checks, key=checks.__getitem__)
    return [("self-check of a model loaded with TF32 on", f"{checks[worst]:.1e}", f"worst of {len(checks)}: {worst}")]


def drift(bench: Bench) -> list[Row]:
    """What bfloat16 changes: the whole model in it, and a sweep screened in it."""
    half = HookedTransformer.from_pretrained(bench.directory, device=bench.device, dtype="bfloat16")
    exact, rounded = (model.forward(bench.work.clean).float().log_softmax(-1) for model in (bench.model, half))
    kl = (exact.exp() * (exact - rounded)).sum(-1)
    same = float((exact.argmax(-1) == rounded.argmax(-1)).float().mean())
    rows = [
        ("bfloat16 model: log-probabilities", f"{float((exact - rounded).abs().max()):.2g}", "nats, largest"),
        ("bfloat16 model: KL from float32", f"{float(kl.mean()):.2g}", "nats, mean over tokens"),
        ("bfloat16 model: same top token", f"{100 * same:.1f} %", "of tokens; weights are random, so gaps are small"),
    ]
    for site in ("resid_pre", "z"):
        layers = _some_layers(bench.model)
        full = sweep(bench.model, bench.work.pairs, site, layers=layers)
        screened = sweep(bench.model, bench.work.pairs, site, layers=layers, precision="bfloat16")
        effect = full["patched"].values - full["corrupted"].values[:, None, None]
        off = np.abs(screened["patched"].values - full["patched"].values).max()
        stated = screened.attrs["screening_max_error"]
        rows.append(
            (
                f"bfloat16 screening of {site}",
                f"{off / np.abs(effect).max():.1e}",
                f"share of the largest effect; stated {stated:.1e} logits, true {off:.1e}",
            )
        )
    return rows


def speed(bench: Bench) -> list[Row]:
    """Sweeps and reading, beside TransformerLens on the same device; medians of turns."""
    work, lens = bench.work, Lens(bench.work)
    every = tuple(range(work.model.cfg.n_layers))
    rows: list[Row] = []
    jobs = [("resid_pre", ("resid_pre",)), ("z", ("z",)), ("ten sites, one call", SITES)]
    for name, sites in jobs if bench.is_gpu else jobs[:2]:
        cells = [cell for site in sites for cell in work.cells(site, every)]

        def theirs(sites: Any = sites, cells: Any = cells) -> list[float]:
            lens.prepare(sites)
            return lens.run([[cell] for cell in cells])

        turns = 3 if bench.is_gpu and len(sites) == 1 else 1
        found = ours.sites(work, sites, every)
        mine, other, values = _in_turns(lambda sites=sites: ours.sites(work, sites, every), theirs, turns)
        gap = max(abs(found.values[cell] - value) for cell, value in zip(cells, values, strict=True))
        rows.append(
            (
                f"sweep of {name}",
                f"{1e3 * mine:.0f} ms",
                f"TransformerLens {1e3 * other:.0f} ms: {other / mine:.1f} times; largest difference {gap:.1e} logits",
            )
        )
    with torch.inference_mode():
        mine, other, _ = _in_turns(
            lambda: capture(work.model, work.pairs.clean, ["resid_pre"], at=["color"]),
            lambda: work.model.bridge.run_with_cache(work.clean), 3,
        )  # fmt: skip
    rows.append(("capture of one site at one role", f"{1e3 * mine:.0f} ms", f"run_with_cache {1e3 * other:.0f} ms"))
    return rows


def memory(bench: Bench) -> list[Row]:
    """Most that a sweep holds beside what it planned."""
    if not bench.is_gpu:
        return [("peak memory beside the plan", "n/a", "only a GPU counts it")]
    rows: list[Row] = []
    jobs: dict[str, Callable[[], Any]] = {
        "resid_pre": lambda: sweep(bench.model, bench.work.pairs, "resid_pre").attrs["planned_peak_bytes"],
        "z in 256 MiB": lambda: sweep(bench.model, bench.work.pairs, "z", memory=2**28).attrs["planned_peak_bytes"],
        "ten sites": lambda: max(
            one.attrs["planned_peak_bytes"] for one in sweep_sites(bench.model, bench.work.pairs, SITES).values()
        ),
        "paths, one sender a layer": lambda: path_patching(
            bench.model, bench.work.pairs, senders=[f"L{layer}H0" for layer in range(bench.model.cfg.n_layers)]
        ).attrs["planned_peak_bytes"],
    }
    for name, job in jobs.items():
        _settle()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        planned = job()
        used = torch.cuda.max_memory_allocated() - before
        verdict = "under plan" if used <= planned else "ABOVE PLAN"
        rows.append(
            (f"peak memory, {name}", f"{used / 2**20:.0f} MiB", f"planned {planned / 2**20:.0f} MiB: {verdict}")
        )
    return rows


def rates(bench: Bench) -> list[Row]:
    """Planned operations a second of sweeps at the shape of GPT-2 XL: what ``interp.capacity`` takes of a device."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        save_random(Path(directory), LARGE if bench.is_gpu else TINY, device=bench.device)
        for dtype in ("float32", "bfloat16"):
            model = HookedTransformer.from_pretrained(directory, device=bench.device, dtype=dtype)
            ids = random_ids(model.cfg.vocab, 8, 32)
            other = ids.copy()
            other[:, 8] = (other[:, 8] + 7) % model.cfg.vocab
            pairs = PromptPairs.from_tokens(ids, other, correct=1, incorrect=2)
            flop = seconds = 0.0
            for site in ("resid_pre", "z"):
                planned = plan(model, pairs, site).flop
                taken, _, _ = _in_turns(lambda m=model, p=pairs, s=site: sweep(m, p, s), lambda: None, 1)
                rate = planned / taken
                rows.append((f"{dtype} sweep of {site}, large", f"{rate:.2e} operations/s", f"{taken:.2f} s"))
                flop, seconds = flop + planned, seconds + taken
            rows.append((f"{dtype} sweeps, large", f"{flop / seconds:.2e} operations/s", "both sites together"))
            del model
            gc.collect()
    return rows


def study(bench: Bench) -> list[Row]:
    """The main job from start to report; in a dry run only its first analysis."""
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        which = "color-noun"
        if not bench.is_gpu:
            which = f"{directory}/light.yaml"
            Path(which).write_text(LIGHT)
        command = [sys.executable, "-W", "ignore", "-m", "analyses", "run", which, "--n", "8"]
        done = subprocess.run(
            [*command, "--device", bench.device, "--out", f"{directory}/run"],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-1000:]}")
        size = Path(directory, "run", "report.html").stat().st_size
    return [("`interp run color-noun --n 8`", f"{seconds:.0f} s", f"imports included; report of {size / 1e6:.1f} MB")]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "rounding": rounding, "loading": loading, "drift": drift, "speed": speed, "memory": memory, "rates": rates,
    "study": study,
}  # fmt: skip


# ---- helpers ----


@contextlib.contextmanager
def _tf32(on: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest value; masked entries are equal."""
    real = np.isfinite(expected)
    assert (np.isfinite(found) == real).all()
    return float(np.abs(found[real] - expected[real]).max() / np.abs(expected[real]).max())


def _some_layers(model: HookedTransformer) -> list[int]:
    return sorted({0, model.cfg.n_layers // 2, model.cfg.n_layers - 1})


def _effect(model: HookedTransformer, work: Workload, site: str, *, layers: list[int]) -> np.ndarray:
    found = sweep(model, work.pairs, site, layers=layers)
    return np.asarray(found["patched"].values - found["corrupted"].values[:, None, None])


def _in_turns(mine: Callable[[], Any], theirs: Callable[[], Any], turns: int) -> tuple[float, float, Any]:
    """Median seconds of both, the first run of each not counted, and what the other returned last."""
    seconds: tuple[list[float], list[float]] = ([], [])
    value = None
    for turn in range(turns + 1):
        for kept, call in zip(seconds, (mine, theirs), strict=True):
            _settle()
            started = time.perf_counter()
            value = call()
            _settle()
            if turn:
                kept.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1]), value


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _facts(device: str) -> list[Row]:
    told = machine.describe()
    versions = ", ".join(f"{name} {told[name]}" for name in ("python", "torch", "transformers", "transformer-lens"))
    name = torch.cuda.get_device_name() if device == "cuda" else "none: a dry run on the CPU, figures mean nothing"
    free = f"{torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB, CUDA {torch.version.cuda}" if device == "cuda" else ""
    return [("GPU", name, free), ("processor", str(told["cpu"]), f"{told['cores']} cores"), ("versions", versions, "")]


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| what | seen | |",
        "|---|---|---|",
        *("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure every part, write and print the table; 1 where a part failed."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = _facts(arguments.device)
    if arguments.tests:
        rows.append(("tests marked cuda", arguments.tests.strip("= "), ""))
    logging.getLogger("interp").setLevel(logging.ERROR)  # small gaps do not matter here
    shape, n_prompts = (SMALL, 8) if arguments.device == "cuda" else (TINY, 2)
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        path = save_random(Path(directory) / "model", shape)
        work = workload("random weights", path, n_prompts=n_prompts, device=arguments.device)
        bench = Bench(arguments.device, path, work, HookedTransformer.from_pretrained(path, device="cpu"))
        size = f"{shape['n_layer']} layers, d_model {shape['n_embd']}, random weights"
        rows.append(("shape", size, f"{n_prompts} pairs of {work.clean.shape[1]} tokens"))
        for name, part in PARTS.items():
            started = time.perf_counter()
            try:
                rows += part(bench)
            except Exception as error:  # the other parts are worth their time on a lent machine
                traceback.print_exc()
                lines = str(error).strip().splitlines() or [type(error).__name__]
                rows.append((name, "FAILED", lines[-1][:200]))
                failed = True
            gc.collect()
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            (arguments.out / "table.md").write_text(table(rows), encoding="utf-8")
            (arguments.out / "figures.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"), help="folder for table.md and figures.json")
    parser.add_argument("--tests", default="", help="what the tests marked cuda said, for the table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
