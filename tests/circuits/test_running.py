"""Running a circuit against a float64 loop in NumPy, TransformerLens's own edge ablation, and what must be equal."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import Node as TheirNode
from transformer_lens.tools.analysis import faithfulness
from transformers import GPT2LMHeadModel

from interp.circuits import Edge
from interp.circuits import running as circuit_running
from interp.circuits.graph import Graph
from interp.circuits.running import CIRCUIT_ABLATIONS, CircuitRuns, places_in, run_circuit, run_circuits
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs, Prompts
from interp.readouts import projection
from interp.sweeps import path_patching, receivers_of, score, senders_of
from tests.sweeps.test_attention_only import made
from tests.tiny import LOGITS, ragged_pairs, scattered_pairs, without_blocks
from tests.tolerance import close


def some_edges(model: HookedTransformer, share: float, roles: Collection[str | None] = (None,)) -> list[Edge]:
    """A seeded share of the model's edges."""
    rng = np.random.default_rng(1)
    both = itertools.product(senders_of(model), receivers_of(model), roles)
    return [Edge(s.label, r.label, role) for s, r, role in both if s.reaches(r) and rng.random() < share]


@pytest.fixture(scope="module")
def attention_only() -> HookedTransformer:
    return made("shared key-values")


@pytest.mark.parametrize("pairs", [scattered_pairs(), ragged_pairs()], ids=["equal", "ragged"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "attention_only"])
def test_all_edges_are_the_clean_run_and_none_the_corrupted_one(
    name: str, pairs: PromptPairs, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    every, none = run_circuits(model, pairs, [some_edges(model, 1.0), []])
    close(every, score(model, pairs), size=LOGITS)
    close(none, score(model, pairs, "corrupted"), size=LOGITS)
    for ablation in CIRCUIT_ABLATIONS:
        close(run_circuit(model, pairs, some_edges(model, 1.0), ablation=ablation), every, size=LOGITS)


def test_many_circuits_at_once_are_each_its_own_run(llama: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches: heads that one circuit of a batch does not have are run for another's sake."""
    pairs = ragged_pairs()
    circuits = [some_edges(llama, share) for share in (0.05, 0.3, 0.9)]
    together = run_circuits(llama, pairs, circuits)
    for tokens in (1, 20):
        monkeypatch.setattr(circuit_running, "BATCH_TOKENS", {"cpu": tokens})
        close(run_circuits(llama, pairs, circuits), together, size=LOGITS)
    for edges, expected in zip(circuits, together, strict=True):
        close(run_circuit(llama, pairs, edges), expected, size=LOGITS)
    assert np.abs(np.diff(together, axis=0)).max() > 0.1


@pytest.mark.parametrize(
    ("ablation", "roles"), [("zero", False), ("mean", False), ("mean_by_role", True), ("resample", True)]
)
def test_it_is_the_float64_loop(gpt2: HookedTransformer, gpt2_directory: Any, ablation: str, roles: bool) -> None:
    pairs = ragged_pairs().select([0, 1, 3])
    edges = some_edges(gpt2, 0.4, pairs.roles if roles else (None,))
    oracle = Loop(gpt2_directory, pairs, ablation)
    expected = [oracle.run(edges, prompt) for prompt in range(len(pairs))]
    close(run_circuit(gpt2, pairs, edges, ablation=ablation), expected, size=LOGITS)


@pytest.mark.parametrize("roles", [False, True], ids=["everywhere", "at roles"])
def test_it_is_transformerlens_s_edge_ablation(gpt2: HookedTransformer, roles: bool) -> None:
    pairs = scattered_pairs().select([1])
    edges = some_edges(gpt2, 0.4, pairs.roles if roles else (None,))
    theirs = []
    for edge in edges:
        at = range(pairs.clean.ids.shape[1]) if edge.role is None else range(*pairs.clean.spans(edge.role)[0])
        theirs += [(their_node(edge.sender, place), their_node(edge.receiver, place, reads=True)) for place in at]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        last = logits[0, pairs.answer_position[0]]
        return last[pairs.correct[0]] - last[pairs.incorrect[0]]

    found = faithfulness(gpt2.bridge, torch.tensor(pairs.clean.ids), torch.tensor(pairs.corrupted.ids), metric, theirs)
    gap = found.full_metric - found.corrupt_metric
    close(run_circuit(gpt2, pairs, edges), [found.corrupt_metric + gap * found.recovered], size=LOGITS)


def test_whole_answers_are_the_difference_of_both_runs(gpt2: HookedTransformer) -> None:
    single = PromptPairs.from_tokens([[3, 4, 5, 6], [7, 4, 5, 8]], [[3, 9, 5, 6], [7, 9, 5, 8]], correct=9, incorrect=8)
    right, wrong = ((9, 2), (4, 2)), ((8, 1), (8, 1))
    pairs = replace(single, answer_policy="sum_logprob", correct_tokens=right, incorrect_tokens=wrong)
    every, none = run_circuits(gpt2, pairs, [some_edges(gpt2, 1.0), []])
    close(every, score(gpt2, pairs), size=4 * LOGITS)
    close(none, score(gpt2, pairs, "corrupted"), size=4 * LOGITS)


def test_the_means_may_be_of_other_prompts(gpt2: HookedTransformer) -> None:
    """Of a single reference, the mean by position is what that prompt writes, so no edge is its run."""
    pairs = scattered_pairs().select([0])
    alone = run_circuit(gpt2, pairs, [], ablation="mean_by_role", references=pairs.clean)
    close(alone, score(gpt2, pairs), size=LOGITS)
    with pytest.raises(
        InterpError, match=r"No reference prompt has a token where token 2 of prompt 0 stands .* 'scene'"
    ):
        run_circuit(gpt2, pairs, [], ablation="mean_by_role", references=Prompts.from_ids([[1, 2, 3]]))
    with pytest.raises(InterpError, match="References are for means"):
        run_circuit(gpt2, pairs, [], references=pairs.clean)


def test_a_token_s_place_is_that_of_the_shortest_role() -> None:
    prompts = Prompts.from_ids([[1, 2, 3, 4, 5, 6]], roles={"clause": [(1, 4)], "word": [(2, 3)]})
    assert places_in(prompts)[0] == [
        ("", 0, False), ("clause", 0, True), ("word", 0, True), ("clause", 2, True), ("clause", 0, False),
        ("clause", 1, False),
    ]  # fmt: skip


def test_bad_questions_are_refused_in_one_line(llama: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = scattered_pairs()
    with pytest.raises(InterpError, match="Unknown ablation 'median'"):
        run_circuit(llama, pairs, [], ablation="median")  # type: ignore[arg-type]
    with pytest.raises(InterpError, match="There is no edge from 'L2H0' to 'L1H0"):
        run_circuit(llama, pairs, [("L2H0", "L1H0.q")])
    with pytest.raises(InterpError, match=r"ends at the logits or in the residual stream, and .* reads z"):
        run_circuit(llama, pairs, [], metric=projection(1, "color", site="z"))
    part = Graph.of(llama, roles=None, receivers=["logits"])
    with pytest.raises(InterpError, match="graph of all that leads to what is measured"):
        CircuitRuns.of(llama, pairs, part)
    without_blocks(monkeypatch, llama)
    with pytest.raises(InterpError, match="own weights only, and asked by the test"):
        run_circuit(llama, pairs, [])


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "attention_only"])
def test_without_one_edge_to_the_stream_it_is_as_path_patching_finds_it(
    name: str, site: str, request: pytest.FixtureRequest
) -> None:
    model, pairs = request.getfixturevalue(name), ragged_pairs()
    if not model.has_site(site):
        pytest.skip("a model without MLPs has no stream before them")
    direction = np.random.default_rng(3).normal(size=model.cfg.d_model)
    metric = projection(1, "answer", direction, site=site)
    graph = Graph.of(model, roles=None, metric=metric)
    edges = [graph.edge(at) for at in np.argwhere(graph.possible)]
    every, none, *without = run_circuits(
        model, pairs, [edges, [], *([one for one in edges if one != edge] for edge in edges)], metric=metric
    )
    size = float(np.abs(every).max())
    close(every, score(model, pairs, metric=metric), size=size)
    close(none, score(model, pairs, "corrupted", metric=metric), size=size)
    exact = path_patching(model, pairs, direction="noising", metric=metric)["patched"]
    for edge, values in zip(edges, without, strict=True):
        close(values, exact.sel(sender=edge.sender, receiver=edge.receiver), size=size)
    assert int(np.isfinite(exact).isel(prompt=0).sum()) == len(edges)
    means = run_circuits(model, pairs, [edges], metric=metric, ablation="mean_by_role")
    close(means[0], every, size=size)


def test_progress_ends_at_the_total(gpt2: HookedTransformer) -> None:
    heard: list[tuple[int, int]] = []
    run_circuits(gpt2, scattered_pairs(), [[], []], progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (8, 8)


# ---- oracles ----


def their_node(label: str, position: int, *, reads: bool = False) -> TheirNode:
    if label == "embed":
        return TheirNode("embed", position)
    if label == "logits":
        return TheirNode("logits", position, layer=2)
    if label.startswith("MLP"):
        return TheirNode("mlp_in" if reads else "mlp_out", position, layer=int(label[3:]))
    part, _, kind = label.partition(".")
    layer, head = map(int, part[1:].split("H"))
    return TheirNode(f"{kind}_input" if kind else "attn_head_out", position, layer=layer, head=head)  # type: ignore[arg-type]


class Loop:
    """A GPT-2 in NumPy, one token of one prompt at a time, every receiver from a sum of its own."""

    def __init__(self, directory: Any, pairs: PromptPairs, ablation: str) -> None:
        model = GPT2LMHeadModel.from_pretrained(directory)
        self.weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.pairs, self.ablation = pairs, ablation
        self.n_layers, self.n_heads, self.d_head = 3, 4, 8
        self.corrupted = [self.outputs(self.ids(pairs.corrupted, i)) for i in range(len(pairs))]

    @staticmethod
    def ids(prompts: Prompts, prompt: int) -> np.ndarray:
        return prompts.ids[prompt, : prompts.lengths[prompt]]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"transformer.{name}.weight"] + self.weights[f"transformer.{name}.bias"]

    def outputs(self, ids: np.ndarray, reader: Any = None) -> dict[str, np.ndarray]:
        """What every sender writes [token, d_model]; ``reader`` gives each receiver its input."""
        w = self.weights
        written = {"embed": w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)]}
        biases = np.zeros(32)

        def read(receiver: str) -> np.ndarray:
            found = sum(written.values()) if reader is None else reader(receiver, written)
            return found + biases  # type: ignore[no-any-return]

        future = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
        for layer in range(self.n_layers):
            at = f"transformer.h.{layer}"
            heads = {}
            for head in range(self.n_heads):
                q, k, v = (
                    (self.norm(read(f"L{layer}H{head}.{kind}"), f"h.{layer}.ln_1") @ w[f"{at}.attn.c_attn.weight"]
                     + w[f"{at}.attn.c_attn.bias"])[:, 32 * i + 8 * head : 32 * i + 8 * head + 8]
                    for i, kind in enumerate("qkv")
                )  # fmt: skip
                weight = np.exp(q @ k.T / np.sqrt(self.d_head) + future)
                z = weight / weight.sum(axis=1, keepdims=True) @ v
                heads[f"L{layer}H{head}"] = z @ w[f"{at}.attn.c_proj.weight"][8 * head : 8 * head + 8]
            written |= heads
            biases = biases + w[f"{at}.attn.c_proj.bias"]
            x = (
                self.norm(read(f"MLP{layer}"), f"h.{layer}.ln_2") @ w[f"{at}.mlp.c_fc.weight"]
                + w[f"{at}.mlp.c_fc.bias"]
            )
            x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
            written[f"MLP{layer}"] = x @ w[f"{at}.mlp.c_proj.weight"] + w[f"{at}.mlp.c_proj.bias"]
        written["logits"] = self.norm(read("logits"), "ln_f") @ w["lm_head.weight"].T
        return written

    @cache  # noqa: B019 -- the oracle lives as long as its test
    def ablated(self, prompt: int, sender: str, token: int) -> Any:
        if self.ablation == "resample":
            return self.corrupted[prompt][sender][token]
        if self.ablation == "zero":
            return self.folded_value(sender)
        rows = [(i, t) for i, length in enumerate(self.pairs.clean.lengths) for t in range(length)]
        if self.ablation == "mean_by_role":
            rows = [row for row in rows if self.place(*row) == self.place(prompt, token)]
        return np.mean([self.corrupted[i][sender][t] for i, t in rows], axis=0)

    def folded_value(self, sender: str) -> Any:
        """What a head writes by its values' bias: loading moves it into the attention's bias, which is not ablated."""
        if "H" not in sender:
            return 0.0
        layer, head = map(int, sender[1:].split("H"))
        at, w = f"transformer.h.{layer}", self.weights
        bias = w[f"{at}.attn.c_attn.bias"] + w[f"{at}.ln_1.bias"] @ w[f"{at}.attn.c_attn.weight"]
        rows = slice(8 * head, 8 * head + 8)
        return bias[64:][rows] @ w[f"{at}.attn.c_proj.weight"][rows]

    def place(self, prompt: int, token: int) -> tuple[str, int]:
        """``ragged_pairs`` has color, noun (which follows color), and the answer's token."""
        spans = {name: self.pairs.clean.spans(name)[prompt] for name in ("answer", "noun", "color")}
        for name, (start, end) in spans.items():
            if start <= token < end:
                return name, token - start
        before = {name: token - end for name, (_, end) in spans.items() if end <= token}
        nearest = min(before, key=lambda name: before[name], default="")
        return f"after {nearest}", before.get(nearest, token)

    def run(self, edges: Collection[Edge], prompt: int) -> float:
        spans = {name: self.pairs.clean.spans(name)[prompt] for name in self.pairs.roles}

        def kept(sender: str, receiver: str, token: int) -> bool:
            return any(
                (edge.sender, edge.receiver) == (sender, receiver)
                and (edge.role is None or spans[edge.role][0] <= token < spans[edge.role][1])
                for edge in edges
            )

        def read(receiver: str, written: dict[str, np.ndarray]) -> np.ndarray:
            found = np.zeros_like(written["embed"])
            for sender, value in written.items():
                for token in range(len(found)):
                    live = kept(sender, receiver, token)
                    found[token] += value[token] if live else self.ablated(prompt, sender, token)
            return found

        logits = self.outputs(self.ids(self.pairs.clean, prompt), read)["logits"][self.pairs.answer_position[prompt]]
        return float(logits[self.pairs.correct[prompt]] - logits[self.pairs.incorrect[prompt]])
