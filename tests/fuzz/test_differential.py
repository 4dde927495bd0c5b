"""interp against Hugging Face in float64, on random architectures, prompts and questions.

INTERP_FUZZ_CASES=1000 make test MARKERS=fuzz TESTS=tests/fuzz
INTERP_FUZZ_FIRST=123 INTERP_FUZZ_CASES=1 make test MARKERS=fuzz TESTS=tests/fuzz    case 123 alone
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.model import HookedTransformer
from tests.fuzz import architectures
from tests.fuzz.cases import PER_ARCHITECTURE, ask
from tests.fuzz.oracle import Plain
from tests.tolerance import allowed, close

FIRST, CASES = (int(os.environ.get(f"INTERP_FUZZ_{name}", default)) for name, default in (("FIRST", 0), ("CASES", 30)))

pytestmark = pytest.mark.fuzz


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Number of an architecture -> its description, its model and its oracle; the last one is kept."""

    @lru_cache(maxsize=1)
    def make(number: int) -> tuple[str, HookedTransformer, Plain]:
        rng = np.random.default_rng([number, 0])
        path: Path = tmp_path_factory.mktemp("architecture")
        described = architectures.make(rng, path)
        numerics, dtype = str(rng.choice(["compatibility", "raw"])), str(rng.choice(architectures.DTYPES))
        model = HookedTransformer.from_pretrained(path, numerics=numerics, dtype=dtype)
        if model.blocks is not None and rng.integers(3) == 0:
            model.blocks, model.why_no_blocks = None, "hooks were asked for"
        plain = Plain(path)
        _check_oracle(plain, path)
        engine = "hooks" if model.blocks is None else "weights"
        return f"{described}, numerics {model.numerics}, {dtype}, {engine}", model, plain

    return make


def _check_oracle(plain: Plain, path: Path) -> None:
    """Unchanged, the oracle gives the logits of Hugging Face's own attention and norms (which round in float32)."""
    hf = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
    ids = list(range(2, 12))
    with torch.no_grad():
        close(plain.run(ids, [{}]), hf(torch.tensor([ids])).logits)


@pytest.mark.parametrize("number", range(FIRST, FIRST + CASES))
def test_numbers_are_those_of_the_plain_loop(number: int, made, record_property) -> None:
    described, model, plain = made(number // PER_ARCHITECTURE)
    case = ask(number, model, plain)
    margin = allowed("pass", size=case.scale, dtype=case.dtype)
    known = np.isfinite(case.expected)
    error, moved = (
        float(np.abs(case.expected - other)[known].max(initial=0)) / margin for other in (case.found, case.unchanged)
    )
    record_property("share_of_what_is_allowed", error)
    record_property("moved", moved > 10)
    record_property("dtype", case.dtype)
    assert error <= 1, (
        f"Case {number} is off by {error:.3g} times what is allowed.\n{described}\n{case.question}\n"
        f"found {case.found.tolist()}\nexpected {case.expected.tolist()}\n"
        f"Alone: INTERP_FUZZ_FIRST={number} INTERP_FUZZ_CASES=1 make test MARKERS=fuzz TESTS=tests/fuzz"
    )
