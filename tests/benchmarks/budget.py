"""How far off the constants are by which work is planned: what a logit costs, and what a budget takes, on this machine.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.budget [--model MODEL]

``PER_LOGIT_READ`` and ``PER_LOGIT_TRAINED`` of ``interp.lenses.planning`` say how many operations of matrix products
take as long as what is measured of one logit. ``interp.sweeps.budget.CPU_BUDGET`` is a number of operations, and stands
for some two minutes of one core. All are compared with what is found here, in seconds of the processor, so that other
work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}  # before the imports

from interp import HookedTransformer, lenses, tasks
from interp.lenses.planning import PER_LOGIT_READ, PER_LOGIT_TRAINED, reading_passes, tuned_passes
from interp.sweeps import Patching, budget
from tests.benchmarks import machine
from tests.benchmarks.workload import SMALL, save_random, workload

if TYPE_CHECKING:
    from interp.prompts import PromptPairs

N_PAIRS, N_LARGE, TOKENS = 8, 4, 32
FEW, MANY = (1, 3), (1, 101)  # steps of training whose difference is measured: long enough to be told from noise
SITE = "resid_post"


def seconds(job: Callable[[], object], repeats: int) -> float:
    """The least seconds of the processor that a job takes, of some repeats."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        job()
        taken.append(time.process_time() - started)
    return min(taken)


def lines(
    name: str, model: HookedTransformer, pairs: PromptPairs, *, repeats: int = 1, steps: tuple[int, int] = FEW
) -> list[str]:
    """What was found of one model; what takes long is measured once."""
    cfg, n_steps = model.cfg, steps[1] - steps[0]
    sweep = Patching(["resid_pre"], "denoising")
    rate = sweep.plan(model, pairs).flop / seconds(lambda: sweep.run(model, pairs), repeats)

    read = seconds(lambda: lenses.logit_lens(model, pairs, sites=[SITE]), repeats)
    to_read = reading_passes(model, pairs, sites=[SITE]).flop
    n_read = len(pairs) * len(pairs.roles) * (cfg.n_layers + 1) * cfg.vocab_out
    of_reading = PER_LOGIT_READ + (read * rate - to_read) / n_read

    asked = {"sites": [SITE], "tokens": TOKENS}
    few, many = (seconds(partial(lenses.tuned_lens, model, pairs.clean, steps=n, **asked), repeats=1) for n in steps)
    fewer, more = (tuned_passes(model, pairs.clean, steps=n, **asked).flop for n in steps)
    step, to_step = (many - few) / n_steps, (more - fewer) / n_steps
    n_trained = (cfg.n_layers - 1) * TOKENS * cfg.vocab_out  # after the last layer nothing is trained
    of_training = PER_LOGIT_TRAINED + (step * rate - to_step) / n_trained
    return [
        f"{name}: {cfg.n_layers} layers of {cfg.d_model}, {cfg.vocab_out} tokens, {len(pairs)} pairs",
        f"  a sweep makes {rate:.2g} planned operations a second: {budget.CPU_BUDGET:.0e} take "
        f"{budget.CPU_BUDGET / rate:.0f} s",
        f"  a logit that is read costs {of_reading:.0f} operations (planned: {PER_LOGIT_READ:.0f}): all took "
        f"{read:.2f} s, {to_read / rate:.2f} s were planned",
        f"  a logit that is trained on costs {of_training:.0f} (planned: {PER_LOGIT_TRAINED:.0f}): a step took "
        f"{step:.2f} s, {to_step / rate:.2f} s were planned",
    ]


def main() -> None:
    """Print the machine and what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model instead of mini and one of the shape of GPT-2 small")
    asked = parser.parse_args()
    print("\n".join(f"{key}: {value}" for key, value in machine.describe().items()))
    if asked.model:
        model = HookedTransformer.from_pretrained(asked.model, device="cpu")
        print("\n".join(lines(asked.model, model, tasks.build("color-noun", "recall", tokenizer=model, n=N_LARGE))))
        return
    model = HookedTransformer.from_pretrained("mini", device="cpu")
    print(
        "\n".join(
            lines("mini", model, tasks.build("color-noun", "recall", tokenizer=model, n=N_PAIRS), repeats=3, steps=MANY)
        )
    )
    with tempfile.TemporaryDirectory() as place:
        work = workload("small", save_random(Path(place), SMALL), n_prompts=N_LARGE, device="cpu")
        print("\n".join(lines("GPT-2 small's shape", work.model, work.pairs)))


if __name__ == "__main__":
    main()
