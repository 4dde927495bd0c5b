"""The capacity table: what studies take on large models, by device and workers; and how right the model is here.

    python -m tests.benchmarks.capacity            the table of docs/large.md
    python -m tests.benchmarks.capacity --check    seconds predicted and measured here, at two sizes
    OMP_NUM_THREADS=1 python -m tests.benchmarks.capacity --check --workers 1 2    and on one and two workers of Ray

The plans are of models with the layers and heads of the large ones and narrow matrices, whose operations are scaled to
the published widths: every figure of the table is extrapolated. Prompts are those of the bundled task as mini's
tokenizer reads them; a larger vocabulary needs fewer tokens.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}  # before the imports

from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from analyses.cli import plans, rehearsal
from analyses.cli import study as studies
from interp import HookedTransformer, capacity, tasks
from interp.capacity import SHAPES, Device, Shape, Work
from interp.engines import ray
from interp.mini import WEIGHTS
from interp.model.outline import outlined
from interp.prompts import PromptPairs
from interp.sweeps import Patching, planning
from tests.benchmarks.workload import SMALL, save_random
from tests.processes import doers

STUDY, N, NARROW = "color-noun", 24, 8
MODELS = ("gpt2-xl", "llama-3.1-8b", "llama-3.1-70b")


def narrow(shape: Shape, vocab: int) -> Shape:
    """As many layers and heads, and heads of ``NARROW`` entries."""
    width = shape.n_heads * NARROW
    return Shape(
        shape.n_layers, width, shape.n_heads, shape.n_kv_heads, NARROW, width * shape.d_mlp // shape.d_model,
        shape.gated, vocab, shape.tied, shape.n_positions,
    )  # fmt: skip


def config(shape: Shape) -> PretrainedConfig:
    """A configuration of this shape: Llama's where the MLP is gated, else GPT-2's."""
    if not shape.gated:
        return GPT2Config(
            n_layer=shape.n_layers, n_head=shape.n_heads, n_embd=shape.d_model, n_inner=shape.d_mlp,
            vocab_size=shape.vocab, n_positions=shape.n_positions, architectures=["GPT2LMHeadModel"],
        )  # fmt: skip
    return LlamaConfig(
        num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, num_key_value_heads=shape.n_kv_heads,
        hidden_size=shape.d_model, head_dim=shape.d_head, intermediate_size=shape.d_mlp, vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied, architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def table() -> None:
    """Print a row for each model, device and number of workers."""
    study = studies.load(STUDY)
    print("| model | weights | rows | operations | device | workers | memory of each | at least |")
    print("|---|---|---|---|---|---|---|---|")
    for name in MODELS:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as place:
            for file in Path(WEIGHTS).iterdir():
                if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
                    shutil.copy(file, place)
            small = narrow(shape, 1280)
            config(small).save_pretrained(place)
            model = outlined(place).whole
            pairs = tasks.build(study.task, tokenizer=model, n=N, seed=study.seed)
            length = int(pairs.clean.ids.shape[1])
            # Analyses ask whether a run of the model is costly: it is to be that of the large one.
            wider = shape.flop_per_token(length) / small.flop_per_token(length)
            planning.COSTLY = 1e9 / wider
            found = plans.Sweeps.together(plans.planned(study, model, pairs, {"two": pairs}).values())
        work = Work(found.rows, found.flop, found.peak_bytes, 0).scaled(small, shape, length=length)
        for device in capacity.GPUS:
            for workers in (1, 4):
                one = capacity.bill(work, device, workers)
                _, _, memory, _, seconds, _ = capacity.row(one)
                told = seconds if one.fits else "does not fit"
                planned = f"{work.weight_bytes / 1e9:.0f} GB | {work.rows:,} | {work.flop:.1e}"
                print(f"| {name} | {planned} | {device.name} | {workers} | {memory} | {told} |", flush=True)


def check(workers: Sequence[int]) -> None:
    """Seconds of sweeps predicted from a rate measured on another sweep, beside those that they took, at two sizes.

    Workers are predicted to go at the rate of one of them while all are busy: processors share caches and memory, and
    two threads of a core are each slower than one alone.
    """
    with tempfile.TemporaryDirectory() as place:
        save_random(Path(place), SMALL)
        for name, source, n in (("mini", "mini", 24), ("GPT-2 small's shape", place, 2)):
            model = HookedTransformer.from_pretrained(source)
            reader = model if model.tokenizer is not None else HookedTransformer.from_pretrained("mini")
            pairs = tasks.build(STUDY, tokenizer=reader, n=n)
            rate = rehearsal.operations_per_second(model, pairs)
            compared(name, model, pairs, rate)
            for count in workers:
                with ray.started(count) as crew:
                    many = model.on(crew)
                    begun = time.perf_counter()
                    doers(many, 4 * count)
                    seconds, size = time.perf_counter() - begun, model.weight_bytes / 1e9
                    busy = rate_of_each(many, pairs, crew.count)
                    print(
                        f"{name}, {size:.2f} GB: {count} of Ray started in {seconds:.1f} s; each goes at "
                        f"{busy / rate:.2f} of this process's rate while all are busy",
                        flush=True,
                    )
                    compared(name, many, pairs, busy, crew.count)


def rate_of_each(model: HookedTransformer, pairs: PromptPairs, workers: int) -> float:
    """Operations a second of a worker while all of them sweep: the slowest of each round, the best of three rounds."""

    class Rate:  # sent with its code, as in tests.processes
        def ready(self, model: HookedTransformer) -> HookedTransformer:
            return model

        def do(self, ready: HookedTransformer, piece: int) -> float:
            return rehearsal.operations_per_second(ready, pairs)

    pieces = range(max(2, workers))
    return max(min(rate for _, rate in model.engine.map(model, Rate(), pieces)) for _ in range(3))


def compared(name: str, model: HookedTransformer, pairs: PromptPairs, rate: float, workers: int = 0) -> None:
    """Print the seconds of sweeps, predicted and measured; 0 workers are this process."""
    who = f"{workers} of Ray" if workers else "this process"
    for site in ("resid_pre", "z"):
        asked = Patching([site], "denoising")
        planned = asked.plan(model, pairs)
        work = Work(planned.rows, planned.flop, planned.peak_bytes, model.weight_bytes, undivided=planned.undivided)
        said = capacity.bill(work, Device(name, rate, None, "measured"), max(1, workers)).seconds
        for turn in ("first", "again") if workers else ("first",):  # workers first read the model's memory
            begun = time.perf_counter()
            asked.run(model, pairs)
            seconds = time.perf_counter() - begun
            print(
                f"{name:<20} {site:<10}{len(pairs):>3} pairs {planned.flop:.2e} operations, {who:<12}, {turn}: "
                f"{said:7.1f} s predicted, {seconds:7.1f} s measured, {said / seconds:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="predicted and measured seconds here")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="with --check: numbers of workers of Ray")
    given = parser.parse_args()
    check(given.workers) if given.check else table()
