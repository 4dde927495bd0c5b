"""How fast exact patch sweeps are, against TransformerLens, nnsight and pyvene: `make bench`.

All tools get the same weights, prompts, metric and threads, in one process and in turns; figures are medians, ratios
are ratios of medians, and the numbers are compared: where they differ no ratio is printed and the exit code is 1.

    python -m tests.benchmarks.bench --quick                        a small sample of everything
    python -m tests.benchmarks.bench --only resid_pre,z             some jobs
    python -m tests.benchmarks.bench --peers nnsight --models mini  some peers, some models
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # before the imports

import torch

from interp.mini import WEIGHTS
from tests.benchmarks import circuits, growth, machine, memory, ours, peers, sweeps
from tests.benchmarks.workload import SITES, SMALL, Workload, save_random, workload

JOBS = {
    "resid_pre": "resid_pre by layer x position",
    "z": "z by layer x head",
    "sites": "every site: the stream and the blocks by position, heads at all positions; ours in one call",
    "path": "path patching: heads into queries, keys and values of later heads",
    "edges": "path patching: every edge out of the embedding, heads and MLPs",
    "circuits": "circuits: edge scores by EAP, and faithfulness of the best edges, on mini",
    "memory": "peak memory of reading one role",
    "growth": "growth with layers, positions and prompts",
}
TARGETS = {"resid_pre": 12.0, "z": 6.0, "sites": 6.0, "path": 10.0}
"""How many times faster than the fastest peer, used as its documentation says, a job is expected to be."""
MODELS = {"gpt2-small": "GPT-2 small's shape, random weights", "mini": "the bundled mini"}


def main() -> int:
    """Measure, print, write JSON and the plot; 1 if numbers differ."""
    arguments = _arguments()
    logging.getLogger("interp").setLevel(logging.ERROR)  # small gaps do not matter here
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    figures: dict[str, Any] = {"machine": machine.describe(), "options": _plain(vars(arguments))}
    figures |= {"products": {}, "models": {}}
    for name, value in figures["machine"].items():
        print(f"{name:<18}{value}")
    figures["rates"] = {name: machine.median(found) for name, found in machine.product_rates().items()}
    shape = " x ".join(map(str, machine.PRODUCT))
    for name, rate in figures["rates"].items():
        print(f"{'product, ' + name:<32}{rate / 1e9:.1f} G operations/s ({shape}, float32)")
    with tempfile.TemporaryDirectory() as directory:
        small = Path(directory) / "gpt2-small"
        if "gpt2-small" in arguments.models and set(arguments.only) - {"growth"}:
            save_random(small, SMALL)
        for name in arguments.models:
            if set(arguments.only) - {"memory", "growth"}:
                work = workload(name, small if name == "gpt2-small" else WEIGHTS)
                figures["products"][name] = _products(work)
                figures["models"][name] = _model(work, arguments)
        if "memory" in arguments.only and small.is_dir():
            _headline("memory", "gpt2-small")
            n_prompts = 64 if arguments.quick else 512
            figures["memory"] = memory.measure(small, n_prompts=n_prompts, length=16, threads=torch.get_num_threads())
            print(*memory.lines(figures["memory"]), sep="\n", flush=True)
        if "growth" in arguments.only:
            _headline("growth", "small shapes")
            figures["growth"] = growth.measure(Path(directory), repeats=arguments.repeats, quick=arguments.quick)
            print(*growth.lines(figures["growth"]), sep="\n", flush=True)
            (arguments.out / "growth.svg").write_text(growth.svg(figures["growth"]), encoding="utf-8")
    figures["seconds"] = time.perf_counter() - started
    (arguments.out / "bench.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"\n{figures['seconds']:.0f} s in all; figures in {arguments.out / 'bench.json'}")
    differing = [
        f"{model}: {job}: {peer} differs by {one['difference']:.2e}, more than {one['limit']:.2e}"
        for model, jobs in figures["models"].items()
        for job, found in jobs.items()
        for peer, one in found["peers"].items()
        if not one["agrees"]
    ]
    for line in differing:
        print(f"Not the same numbers, so no ratio: {line}.", file=sys.stderr)
    return 1 if differing else 0


def _products(work: Workload) -> dict[str, str]:
    """How interp multiplies here, by shape of the weights; printed too."""
    choices = {shape: str(choice) for shape, choice in work.model.blocks.measured().choices().items()}
    print(f"\nproducts of {work.name}")
    for shape, choice in choices.items():
        print(f"  {shape}: {choice}", flush=True)
    return choices


def _model(work: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """The sweeps at one model, ours and the peers' in turns."""
    loaded = _peers(work, arguments.peers)
    gc.collect()
    gc.freeze()  # what the peers' imports leave behind would be searched for garbage in everyone's time
    layers = tuple(range(work.model.cfg.n_layers))
    large = work.name != "mini"
    if arguments.quick and large:
        layers = (work.model.cfg.n_layers // 2, work.model.cfg.n_layers - 2)
    per_layer = None if not large or arguments.heads == 0 else arguments.heads
    settings = sweeps.Settings(arguments.repeats, arguments.sample if large else 0)
    lens = [peer for peer in loaded if peer.name == "transformer-lens"]
    found = {}
    for job in arguments.only:
        if job in ("memory", "growth"):
            continue
        shown = f"{work.name}: {len(work.pairs)} pairs x {work.clean.shape[1]} tokens"
        if len(layers) < work.model.cfg.n_layers:
            shown += f", only layers {', '.join(map(str, layers))}"
        if job in ("path", "edges") and per_layer is not None:
            shown += f", only {per_layer} sending head{'s' if per_layer > 1 else ''} of each layer, drawn at random"
        if job == "circuits" and (large or not lens):
            continue
        _headline(job, shown)
        if job == "circuits":
            found[job] = circuits.measure(work, arguments.repeats)
            print(*circuits.lines(found[job]), sep="\n", flush=True)
            continue
        if job in ("path", "edges") and not ours.has_paths():
            print("  n/a: this interp.sweeps has no path_patching", flush=True)
            continue
        if job == "path":
            found[job] = sweeps.measure(sweeps.path_job(work, layers, per_layer), lens, settings)
        elif job == "edges":
            found[job] = sweeps.measure(sweeps.every_edge_job(work, layers, per_layer), [], settings)
        else:
            sites = SITES if job == "sites" else (job,)
            found[job] = sweeps.measure(sweeps.site_job(work, sites, layers), loaded, settings)
        print(*sweeps.lines(found[job], target=TARGETS.get(job), judged=large), sep="\n", flush=True)
    return found


def _peers(work: Workload, names: list[str]) -> list[peers.Peer]:
    """The peers that are installed; the others are named."""
    loaded = []
    for name in names:
        try:
            loaded += peers.load(name, work)
        except ImportError as error:
            print(f"{name} is left out: {error}. `make bench` installs it.")
    return loaded


def _headline(job: str, where: str) -> None:
    print(f"\n{JOBS[job]}; {where}", flush=True)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them; where the output goes is no part of a figure."""
    return {key: value for key, value in options.items() if key != "out"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, choices in (("only", JOBS), ("peers", peers.NAMES), ("models", MODELS)):
        parser.add_argument(
            f"--{option}",
            type=lambda text, choices=choices: _some(text, choices),  # type: ignore[misc]
            default=list(choices),
            help=f"some of {', '.join(choices)}",
        )
    parser.add_argument("--repeats", type=int, help="turns of everyone (5; 2 with --quick; at most 3 of a long job)")
    parser.add_argument("--sample", type=int, help="cells of a peer per turn at GPT-2 small's shape, 0 is all (48; 6)")
    parser.add_argument(
        "--heads", type=int, default=1, help="sending heads per layer in path jobs at GPT-2 small's shape, 0 is all (1)"
    )
    parser.add_argument("--threads", type=int, help="threads of torch, for all tools (as torch chooses)")
    parser.add_argument(
        "--quick", action="store_true", help="few layers, few cells, few turns: to try it, not to quote"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/bench"), help="folder for bench.json and growth.svg")
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = 2 if arguments.quick else 5
    if arguments.sample is None:
        arguments.sample = 6 if arguments.quick else 48
    if arguments.repeats < 1 or arguments.sample < 0 or arguments.heads < 0:
        parser.error("--repeats is at least 1; --sample and --heads are at least 0")
    return arguments


def _some(text: str, choices: dict[str, Any]) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: choose from {', '.join(choices)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
