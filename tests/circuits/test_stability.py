"""Circuits that are found again: against indices counted by hand, and where the circuit is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp import groundtruth, tasks
from interp.circuits import Circuit, Edge, discover, finder, stability
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from tests.tiny import scattered_pairs
from tests.tolerance import close


def test_indices_counted_by_hand(gpt2: HookedTransformer) -> None:
    """All prompts give edges 1 to 4; a sample 1 and 2; the two templates 1, 2, 3 and 3, 4, 5."""
    names = [f"L0H{i}" for i in range(4)]
    edges = [Edge("embed", "MLP0"), *(Edge(name, "logits") for name in names)]
    pairs = replace(scattered_pairs(), variants=("one", "two", "one", "two"))
    seen: list[int] = []

    def find(some: PromptPairs) -> Circuit:
        seen.append(len(some))
        kept = edges[:4] if len(seen) == 1 else edges[:2] if len(seen) <= 4 else edges[:3]
        return Circuit.of(gpt2, some, edges[2:] if len(seen) == 6 else kept)

    found = stability(gpt2, pairs, find, n_resamples=3)
    assert seen == [4, 4, 4, 4, 2, 2]
    close(found.jaccard, [0.5] * 3, "arithmetic", dtype="float64")
    close(found.node_jaccard, [4 / 6] * 3, "arithmetic", dtype="float64")  # embed MLP0 L0H0 logits of six
    assert found.share.values.tolist() == [1, 1, 0, 0]
    close(found.template_jaccard, [[1, 0.2], [0.2, 1]], "arithmetic", dtype="float64")


def test_a_known_circuit_is_found_on_every_sample() -> None:
    truth = groundtruth.build("plain")
    pairs = truth.pairs.select(range(8))
    heard: list[tuple[int, int]] = []
    found = stability(
        truth.model, pairs, lambda some: discover(truth.model, some, "eap-ig-inputs", threshold=0.3, audit=None),
        n_resamples=3, progress=lambda done, total: heard.append((done, total)),
    )  # fmt: skip
    assert found.attrs["n_edges"] == len(truth.edges)
    assert (found.jaccard == 1).all()
    assert heard[-1][0] == heard[-1][1]
    with pytest.raises(InterpError, match="n_resamples is 0"):
        stability(truth.model, pairs, lambda some: Circuit.of(truth.model, some, []), n_resamples=0)


def test_a_circuit_without_an_edge_is_compared_too(gpt2: HookedTransformer) -> None:
    found = stability(gpt2, scattered_pairs(), lambda some: Circuit.of(gpt2, some, []), n_resamples=2)
    assert "share" not in found
    assert np.all(found.jaccard == 1)


@pytest.mark.parametrize("chosen", [{"size": 12}, {"threshold": 0.02}], ids=str)
def test_circuits_of_samples_made_of_the_scores_are_those_that_are_found_anew(
    mini: HookedTransformer, chosen: dict[str, Any]
) -> None:
    pairs = tasks.build("color-noun", "recall", tokenizer=mini, n=6)

    def anew(some: PromptPairs) -> Circuit:
        return discover(mini, some, "eap", audit=None, **chosen)

    made = finder(mini, pairs, "eap", audit=None, **chosen)
    assert made.for_nothing
    one, other = (stability(mini, pairs, find, n_resamples=2) for find in (made, anew))
    for name in one.data_vars:
        close(one[name], other[name], "arithmetic", dtype="float64")
    assert (one.jaccard > 0).all()


def test_greedy_circuits_are_run_again(mini: HookedTransformer) -> None:
    pairs = tasks.build("color-noun", "recall", tokenizer=mini, n=1)
    made = finder(mini, pairs, "greedy", threshold=0.3)
    assert not made.for_nothing
    assert made.again(np.array([0])).edges == made.circuit.edges
