"""Three lenses on prompts that none was made from: the same numbers as one by one, the same at every run."""

from __future__ import annotations

import numpy as np
import pytest

from analyses import lenses as analysis
from interp import HookedTransformer, InterpError, PromptPairs, lenses
from tests.tiny import VOCAB, random_ids
from tests.tolerance import close


@pytest.fixture
def pairs() -> PromptPairs:
    clean = random_ids(8, 5, seed=4)
    return PromptPairs.from_tokens(clean, (clean + 1) % VOCAB, correct=5, incorrect=9, roles={"noun": 1})


def test_it_is_the_lenses_one_by_one(llama: HookedTransformer, pairs: PromptPairs) -> None:
    found = analysis.run(llama, pairs, roles=["answer"], steps=2, jacobian_prompts=3, targets="same", seed=3)
    texts, held = lenses.held_out(pairs, seed=3)
    assert found["lens"].values.tolist() == ["logit", "tuned", "jacobian"]
    assert (found.sizes["prompt"], found.attrs["jacobian_lens_n_prompts"], found.attrs["seed"]) == (4, 3, 3)
    few = texts.select(np.array([0, 4, 7]))
    alone = {
        "logit": lenses.logit_lens(llama, held, at=["answer"]),
        "tuned": lenses.tuned_lens(llama, texts, steps=2, seed=3).read(llama, held, at=["answer"]),
        "jacobian": lenses.jacobian_lens(llama, few, targets="same").read(llama, held, at=["answer"]),
    }
    for name, one in alone.items():
        close(found["log_probability"].sel(lens=name), one["log_probability"], size=20.0)
    again = analysis.run(llama, pairs, roles=["answer"], steps=2, jacobian_prompts=3, targets="same", seed=3)
    assert again["kl"].equals(found["kl"])


def test_a_role_that_is_not_there_is_refused(llama: HookedTransformer, pairs: PromptPairs) -> None:
    with pytest.raises(InterpError, match=r"'nuon'.*Did you mean 'noun'"):
        analysis.run(llama, pairs, roles=["nuon"], steps=0, jacobian_prompts=1)
