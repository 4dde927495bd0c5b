"""A million rows of a model's activations, captured to the disk and read by every method that can: rates and memory.

    python -m tests.benchmarks.million [ROWS [D_MODEL]]

A GPT-2 of one layer with random weights reads random tokens, 32 a prompt; each token is a row. All of it, libraries
and model included, stays within 4 GiB whatever the number of rows. `/usr/bin/time -v` gives the peak of the system.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}  # before the imports

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp import HookedTransformer, captures, lenses
from interp.probes import MeanDifference, RidgeProbe, fit_stored
from interp.prompts.tokens import Prompts
from interp.subspaces import LEACE, MeanProjection
from tests.benchmarks.features import peak

ROWS, D_MODEL, LENGTH, VOCAB, LABELS = 1_000_000, 768, 32, 1000, 10
LIMIT = 4096
"""MiB that the process may hold at most."""


def model_in(place: Path, d_model: int) -> HookedTransformer:
    """A model of one layer with random weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1, n_head=12, n_embd=d_model, vocab_size=VOCAB, n_positions=LENGTH, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(place)
    return HookedTransformer.from_pretrained(place)


def main(n_rows: int = ROWS, d_model: int = D_MODEL) -> int:
    """Capture, read in every way, print the figures; 1 if the memory is over the limit."""
    rng = np.random.default_rng(0)
    n = -(-n_rows // LENGTH)
    ids = rng.integers(1, VOCAB, size=(n, LENGTH))
    labels = (ids % LABELS).ravel()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        model = model_in(place / "model", d_model)
        size = ids.size * d_model * 4 / 1e9
        print(f"{ids.size:,} rows of {d_model} features, {size:.2f} GB; {torch.get_num_threads()} threads")
        print(f"{'libraries and model':<34}{peak():>8.0f} MiB")

        prompts = Prompts.from_ids(ids)

        def timed(name: str, work: Callable[[], object], of: Prompts = prompts) -> None:
            begun = time.perf_counter()
            work()
            seconds = time.perf_counter() - begun
            print(f"{name:<34}{peak():>8.0f} MiB{seconds:>9.1f} s{of.ids.size / seconds:>12,.0f} rows/s", flush=True)

        timed("capture to the disk", lambda: captures.write(model, prompts, "resid_post", to=place / "acts"))
        timed("open, checksums compared", lambda: captures.Capture.open(place / "acts"))
        captured = captures.Capture.open(place / "acts", check=False)
        stored = captured.features("resid_post", layer=0)
        for probe in (MeanDifference(), RidgeProbe(), MeanProjection(), LEACE()):
            timed(f"{type(probe).__name__}, one pass", lambda probe=probe: fit_stored(probe, stored, labels))
        some = prompts.select(np.arange(min(n, 2000)))
        both = captures.write(model, some, ["resid_pre", "resid_post"], to=place / "both")

        def lens() -> object:
            return lenses.tuned_lens(model, some, sites=["resid_pre"], steps=0, captured=both)

        timed("tuned lens, closed form", lens, some)
    met = peak() <= LIMIT
    print(f"limit {LIMIT} MiB: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
