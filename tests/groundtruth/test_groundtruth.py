"""The hand-made models, against a forward pass of their weights in NumPy: what is said of them is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch

from analyses import behavior
from interp import groundtruth
from interp.errors import InterpError
from interp.groundtruth import DOES, GroundTruth
from tests.groundtruth.models import built
from tests.tolerance import close

PAIR = 5
MUCH, LITTLE = 0.2, 0.05  # of the gap: what matters, and what noise may do


LLAMA = {
    "model.embed_tokens": "tok_embed", "model.layers": "layers", "model.norm": "ln_out", "lm_head": "head",
    "input_layernorm": "ln1", "post_attention_layernorm": "ln2", "self_attn": "attn", "_proj": "",
}  # fmt: skip
"""Names of a Llama's weights -> those of the other models."""


@cache
def weights_of(truth: GroundTruth) -> dict[str, np.ndarray]:
    state = truth.model.bridge.original_model.state_dict()
    found = {key.replace("._original_component", ""): value.double().numpy() for key, value in state.items()}
    for name, known in LLAMA.items():
        found = {key.replace(name, known): value for key, value in found.items()}
    return found


@dataclass
class Run:
    """One prompt through the weights in float64, some parts of it replaced.

    Attributes:
        writes: component -> what it adds to the stream [position, d_model], in place of its own.
        reads: receiver -> what it reads in place of the stream [position, d_model].
    """

    truth: GroundTruth
    ids: np.ndarray
    writes: Mapping[str, np.ndarray] = field(default_factory=dict)
    reads: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cfg = self.truth.model.cfg
        stream = self.w["tok_embed.weight"][self.ids]
        if not self.rotary:
            stream = stream + self.w["pos.weight"][: len(self.ids)]
        self.before: dict[str, np.ndarray] = {}
        self.wrote = {"embed": stream}
        self.pattern: dict[str, np.ndarray] = {}
        future = np.triu(np.ones((len(self.ids), len(self.ids)), bool), 1)
        shared = cfg.n_heads // cfg.n_kv_heads
        of = "KV" if cfg.grouped_query else "H"
        for layer in range(cfg.n_layers):
            total = 0
            for head in range(cfg.n_heads):
                name, group = f"L{layer}H{head}", f"L{layer}{of}{head // shared}"
                q, k, v = (
                    self.part(f"layers.{layer}.attn.{kind}", which, self.read(node, stream, f"layers.{layer}.ln1"))
                    for kind, which, node in (
                        ("q", head, f"{name}.q"),
                        ("k", head // shared, f"{group}.k"),
                        ("v", head // shared, f"{group}.v"),
                    )
                )
                if self.rotary:
                    q, k = self.turned(q), self.turned(k)
                scores = np.where(future, -np.inf, q @ k.T / cfg.d_head**0.5)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                self.pattern[name] = weights / weights.sum(axis=1, keepdims=True)
                mine = slice(head * cfg.d_head, (head + 1) * cfg.d_head)
                made = self.pattern[name] @ v @ self.w[f"layers.{layer}.attn.o.weight"][:, mine].T
                self.wrote[name] = self.writes.get(name, made)
                total = total + self.wrote[name]
            stream = stream + total
            if f"MLP{layer}" in self.truth.components:
                name = f"MLP{layer}"
                made = self.mlp(f"layers.{layer}.mlp", self.read(name, stream, f"layers.{layer}.ln2"))
                self.wrote[name] = self.writes.get(name, made)
                stream = stream + self.wrote[name]
        self.logits = self.read("logits", stream, "ln_out")[-1] @ self.w["head.weight"].T

    @property
    def w(self) -> dict[str, np.ndarray]:
        return weights_of(self.truth)

    def read(self, node: str, stream: np.ndarray, norm: str) -> np.ndarray:
        """What a receiver reads, after its norm; without what it was given instead, the stream."""
        self.before[node] = stream
        x = self.reads.get(node, stream)
        if not self.rotary:
            x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + self.eps) * self.w[f"{norm}.weight"]

    def part(self, name: str, which: int | None, x: np.ndarray) -> np.ndarray:
        """The part of a linear map that belongs to one head, or all of it."""
        width = self.truth.model.cfg.d_head
        mine = slice(None) if which is None else slice(which * width, (which + 1) * width)
        bias = 0 if self.rotary else self.w[f"{name}.bias"][mine]
        return x @ self.w[f"{name}.weight"][mine].T + bias

    def mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        """What an MLP writes: gated by SiLU in a Llama, behind a ReLU in the others."""
        if self.rotary:
            gate, up = (self.part(f"{name}.{which}", None, x) for which in ("gate", "up"))
            return gate / (1 + np.exp(-gate)) * up @ self.w[f"{name}.down.weight"].T
        return np.maximum(self.part(f"{name}.fc_in", None, x), 0) @ self.w[f"{name}.fc_out.weight"].T

    def turned(self, x: np.ndarray) -> np.ndarray:
        """Queries or keys as complex numbers, one a plane, each turned by its position times the plane's angle."""
        half = x.shape[1] // 2
        angles = np.arange(len(x))[:, None] * 1e10 ** (-np.arange(half) / half)
        planes = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
        return np.concatenate([planes.real, planes.imag], axis=1)

    @property
    def rotary(self) -> bool:
        """Whether it is a Llama."""
        return "pos.weight" not in self.w

    @property
    def eps(self) -> float:
        """What the norm adds to the mean square."""
        return 1e-6 if self.rotary else 1e-5

    @property
    def difference(self) -> float:
        """Of the two answers' logits."""
        pairs = self.truth.pairs
        return float(self.logits[pairs.correct[PAIR]] - self.logits[pairs.incorrect[PAIR]])


@dataclass
class Case:
    """A model, and one clean and one corrupted run of it."""

    truth: GroundTruth

    def __post_init__(self) -> None:
        self.clean, self.corrupted = (
            Run(self.truth, prompts.ids[PAIR]) for prompts in (self.truth.pairs.clean, self.truth.pairs.corrupted)
        )

    def lost(self, **replaced: Mapping[str, np.ndarray]) -> float:
        """The share of the gap that a change of the clean run loses."""
        gap = self.clean.difference - self.corrupted.difference
        return (self.clean.difference - Run(self.truth, self.clean.ids, **replaced).difference) / gap

    def exchanged(self, *components: str) -> float:
        """What is lost where components write what they write in the corrupted run."""
        return self.lost(writes={name: self.corrupted.wrote[name] for name in components})

    def path(self, sender: str, receiver: str) -> float:
        """What is lost where one receiver reads what one sender writes in the corrupted run."""
        difference = self.corrupted.wrote[sender] - self.clean.wrote[sender]
        return self.lost(reads={receiver: self.clean.before[receiver] + difference})

    def place(self, role: str) -> int:
        return int(self.truth.pairs.clean.role_positions(role)[PAIR])


@pytest.fixture(scope="module", params=groundtruth.models())
def case(request: pytest.FixtureRequest) -> Case:
    return Case(built(request.param))


def test_the_model_is_the_weights_and_answers_every_prompt(case: Case) -> None:
    logits = case.truth.model.forward(torch.tensor(case.truth.pairs.clean.ids[[PAIR]]))[0, -1]
    close(logits, case.clean.logits)
    found = behavior.run(case.truth.model, case.truth.pairs)
    assert (found.accuracy.item(), found.passes.item()) == (1, 1)
    assert case.truth.model.why_no_blocks == ""


def test_the_source_reaches_the_answer_through_what_carries_it_alone(case: Case) -> None:
    """Each component by itself writes what it writes in the corrupted run."""
    for name, does in case.truth.components.items():
        lost = case.exchanged(name)
        if does in groundtruth.CARRYING and does != "stands in":
            assert lost > MUCH, (name, lost)
        else:
            assert abs(lost) < LITTLE, (name, lost)
    assert case.exchanged(*case.truth.carrying) > 0.9
    others = set(case.truth.components) - case.truth.carrying
    assert abs(case.exchanged(*others)) < LITTLE


def test_the_edges_are_those_on_which_it_goes(case: Case) -> None:
    gone = {"L2H1"} if case.truth.redundant else set()
    for receiver in case.clean.before:
        for sender in case.clean.wrote:
            if _order(sender) < _order(receiver):
                much = abs(case.path(sender, receiver)) > LITTLE
                true = (sender, receiver) in case.truth.edges and not any(name in sender + receiver for name in gone)
                assert much == true, (sender, receiver)


def _order(node: str) -> tuple[int, int]:
    """When a node is run: the embedding first, heads before the MLP of their layer, the logits last."""
    if node in ("embed", "logits"):
        return (-1 if node == "embed" else 99, 0)
    is_mlp = node.startswith("MLP")
    return (int(node[3:]) if is_mlp else int(node[1]), int(is_mlp))


def test_what_each_other_kind_does(case: Case) -> None:
    """Beside carrying: attention, what is written, and what is lost when it is gone."""
    noun, color, last = case.place("noun"), case.place("color"), len(case.clean.ids) - 1
    for name, does in case.truth.components.items():
        if not name.startswith("L"):
            continue
        pattern, wrote = case.clean.pattern[name], case.clean.wrote[name]
        gone = case.lost(writes={name: np.zeros_like(wrote)})
        moved = np.abs(case.corrupted.wrote[name] - wrote).max(axis=1)
        if does == "decoy":
            assert (pattern[noun, color] if name.startswith("L0") else pattern[last, noun]) > 0.99
            assert moved.max() < LITTLE
        if does == "unread":
            assert moved[case.place("stop")] > 0.6  # of a feature's pair of coordinates
        if does == "selects":
            assert gone > 0.4
            assert moved.max() < 1e-6  # of the attention it gives to the word that differs, if that is the source
        if does == "constant":
            assert gone > 0.4
            close(wrote, wrote[:1].repeat(len(wrote), axis=0), "pass")
        if does == "stands in":
            assert abs(gone) < LITTLE
            reader = {"L1H0": np.zeros_like(wrote)}
            assert abs(case.lost(writes=reader)) < LITTLE
            assert case.lost(writes={**reader, name: np.zeros_like(wrote)}) > 0.4
        if does == "idle":
            assert abs(gone) < LITTLE


def test_where_attention_misleads_the_reader_looks_elsewhere() -> None:
    case = Case(built("misleading"))
    pattern = case.clean.pattern["L1H0"][-1]
    assert pattern[0] > 0.7
    assert 0.1 < pattern[case.place("noun")] < 0.2


def test_the_stream_holds_the_source_where_it_is_said_to(case: Case) -> None:
    """Where clean and corrupted differ by more than noise, layer by layer, at every role."""
    held = set()
    for layer in range(case.truth.model.cfg.n_layers):
        node = f"L{layer}H0.q"
        moved = np.abs(case.corrupted.before[node] - case.clean.before[node]).max(axis=1)
        held |= {(layer, role) for role in case.truth.pairs.roles if moved[case.place(role)] > 0.3}
    assert held == set(case.truth.held)
    assert case.truth.used <= case.truth.held


def test_the_rotary_mover_looks_one_token_back_whatever_the_token_and_the_place() -> None:
    """No position is in the stream, so that by the rotation alone every token looks at the one before it."""
    case = Case(built("rotary"))
    for run in (case.clean, case.corrupted):
        back = run.pattern["L0H0"][range(1, len(run.ids)), range(len(run.ids) - 1)]
        assert back.min() > 0.99


def test_every_kind_is_there_and_an_unknown_name_is_refused() -> None:
    kinds = {does for name in groundtruth.models() for does in built(name).components.values()}
    assert kinds == set(DOES)
    with pytest.raises(InterpError, match="Unknown ground-truth model 'plane'"):
        groundtruth.build("plane")
