"""SmolLM2-135M: a circuit for IOI, a tuned lens and the table of one place, held to what must be so of any model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from analyses import places
from interp import AnsweredPrompts, HookedTransformer, circuits, lenses, tasks
from interp.prompts.tokens import Prompts, encode
from tests.tolerance import close, near

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def model(smollm2: Path) -> HookedTransformer:
    found = HookedTransformer.from_pretrained(smollm2)
    assert (found.cfg.n_layers, found.cfg.n_heads, found.cfg.n_kv_heads, found.cfg.d_model) == (30, 9, 3, 576)
    return found


@pytest.fixture(scope="module")
def plain(smollm2: Path) -> LlamaForCausalLM:
    """The same weights in Hugging Face's own model."""
    return AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32).eval()


@pytest.fixture
def reading(plain: LlamaForCausalLM) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What the embedding and each MLP write in its next run, and the stream as each MLP and the end read it.

    What is read is a copy that its reader alone has, so that its gradient is that of the edges into this reader.
    """
    written: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}

    def writes(name: str) -> Any:
        return lambda _, given, out: written.update({name: out})

    def reads(name: str) -> Any:
        def hook(_: torch.nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            read[name] = given[0].clone()
            if read[name].requires_grad:
                read[name].retain_grad()
            return (read[name],)

        return hook

    hooks = [
        plain.model.embed_tokens.register_forward_hook(writes("embed")),
        plain.model.norm.register_forward_pre_hook(reads("logits")),
    ]
    for layer, block in enumerate(plain.model.layers):
        hooks.append(block.mlp.register_forward_hook(writes(f"MLP{layer}")))
        hooks.append(block.post_attention_layernorm.register_forward_pre_hook(reads(f"MLP{layer}")))
    yield written, read
    for hook in hooks:
        hook.remove()


def test_the_scores_of_edges_are_those_of_hugging_faces_gradients(
    model: HookedTransformer, plain: LlamaForCausalLM, reading: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    """All 496 edges between the embedding, the MLPs and the logits, the small ones like the large ones."""
    pairs = tasks.build("ioi", tokenizer=model, n=2)
    scores = circuits.discover(model, pairs, "eap", size=30, audit=None).scores
    written, read = reading
    expected: dict[tuple[str, str], list[float]] = {}
    for row in range(len(pairs)):
        n = int(pairs.clean.lengths[row])
        with torch.no_grad():
            plain(torch.tensor(pairs.corrupted.ids[row : row + 1, :n]))
        corrupted = {name: value.clone() for name, value in written.items()}
        logits = plain(torch.tensor(pairs.clean.ids[row : row + 1, :n])).logits[0, pairs.answer_position[row]]
        (logits[pairs.correct[row]] - logits[pairs.incorrect[row]]).backward()
        names = list(written)
        for at, sender in enumerate(names):
            lost = (written[sender] - corrupted[sender]).detach()
            for receiver in [*names[at + 1 :], "logits"]:
                gradient = read[receiver].grad
                assert gradient is not None
                expected.setdefault((sender, receiver), []).append(float((lost * gradient).sum()))
        plain.zero_grad()
    assert len(expected) == 31 * 32 // 2
    senders, receivers = zip(*expected, strict=True)
    found = [float(scores.sel(sender=one, receiver=other)) for one, other in zip(senders, receivers, strict=True)]
    means = np.array([np.mean(values) for values in expected.values()])
    close(np.array(found), means, "gradient", size=float(np.abs(means).max()))


def test_the_ioi_circuit_is_better_than_random_ones_and_can_be_exported(
    model: HookedTransformer, tmp_path: Path
) -> None:
    pairs = tasks.build("ioi", tokenizer=model, n=7)
    searched, others = pairs.select(range(5)), pairs.select(range(5, 7))
    circuit = circuits.discover(model, searched, "eap", size=30, audit=None)
    found = circuits.evaluate(
        model, others, circuit, ablations=["resample"], n_random=2, n_knockouts=0, most_edges=0
    ).sel(ablation="resample")
    curve = found["faithfulness"].values
    assert found["size"].values.tolist() == list(circuits.FRACTIONS)
    # All edges are the model; of few edges that are drawn at random none lies on a path.
    close(curve[-1], 1.0)
    close(found["random_faithfulness"].sel(size=1.0), np.ones(2))
    near(found["random_faithfulness"].sel(size=0.001), 0.0, 1e-3, why="an answer that is the ablated run's", what="few")
    assert 0.05 < curve[0] < curve[-1]
    # Not the best ones alone: with the edges behind them it goes on to the model, and far from what is drawn.
    assert (curve[2:8] > found["random_faithfulness"].max("draw").values[2:8] + 0.4).all(), curve
    assert (curve[6:8] > 0.8).all(), curve
    sizes, steps = np.array(circuits.FRACTIONS), np.diff(circuits.FRACTIONS)
    for name, height in (("cpr", curve), ("cmd", np.abs(1 - curve))):
        near(found[name], float((steps * (height[1:] + height[:-1]) / 2).sum()), 1e-9, why="trapezia", what=name)
    assert sizes[0] == 0.001
    assert float(found["cpr"]) > 0.8 > float(found["random_cpr"].max())
    assert float(found["cmd"]) < 0.2 < float(found["random_cmd"].min())

    file = circuits.save_mib(model, circuit, tmp_path / "importances.json")
    told = json.loads(file.read_text())
    assert told["cfg"] == {"n_layers": 30, "n_heads": 9, "parallel_attn_mlp": False, "d_model": 576}
    # Written for each of the heads that share keys and values: a.h reads q, k and v of 1 + 30 * 10 writers at most.
    below = sum((1 + 10 * layer) * 27 + (1 + 10 * layer + 9) for layer in range(30))
    assert len(told["edges"]) == below + 1 + 30 * 10
    assert circuits.load_mib(model, others, file).edges == circuit.edges


TRAINING = [
    "The old bridge over the river was closed for repairs during the whole winter.",
    "She opened the window because the kitchen was full of smoke.",
    "Most of the children in the village walk to school every morning.",
    "In 1969 two astronauts walked on the surface of the Moon.",
    "He forgot his keys at the office and had to wait for his sister.",
    "Water boils at a lower temperature at the top of a high mountain.",
    "The committee will meet again on Thursday to discuss the new budget.",
    "My grandmother used to bake bread with olives and fresh herbs.",
    "A good dictionary gives the origin of a word as well as its meaning.",
    "The train to the coast leaves at seven and arrives shortly before noon.",
    "Nobody knew who had written the letter or why it had been hidden.",
    "Plants turn sunlight into sugar and give off oxygen while they do so.",
    "After the concert we went to a small restaurant near the station.",
    "The museum has a large collection of coins from the Roman Empire.",
    "If you mix blue paint and yellow paint you get green.",
    "The doctor told him to rest for a week and to drink a lot of tea.",
    "Prices have risen faster than wages in most countries this year.",
    "The cat slept on the chair while the dog watched the door.",
    "Before the invention of printing, books were copied by hand.",
    "They planted apple trees along the road that leads to the farm.",
    "The capital of Italy is Rome, and its largest port is Genoa.",
    "It rained so hard that the football match had to be stopped.",
    "Our neighbour plays the piano every evening after dinner.",
    "The law was changed so that women could vote in all elections.",
    "He put the map on the table and showed us the way to the lake.",
    "A whale is not a fish, although it lives in the sea.",
    "The teacher asked the students to read the first chapter at home.",
    "There are sixty seconds in a minute and sixty minutes in an hour.",
]
HELD_OUT = {
    "The largest city in the north of the country is also its oldest": " port",
    "She sat down at the desk and began to write a long": " letter",
    "Many birds fly to warmer countries before the beginning of": " winter",
    "The farmer sold his horses and bought a new": " tractor",
    "We were late because the bus had broken down on the": " road",
    "The king had three daughters, and the youngest of them was very": " beautiful",
}


def ridge_of(stream: Tensor, last: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weight and offset of the ridge regression of what the last layer's stream has beyond a layer's own."""
    beyond, width = last - stream, stream.shape[1]
    x, y = stream - stream.mean(0), beyond - beyond.mean(0)
    held = (ridge * x.square().sum() / width).sqrt() * torch.eye(width, dtype=x.dtype)  # as so many more rows of zeros
    weight = torch.linalg.lstsq(torch.cat([x, held]), torch.cat([y, torch.zeros_like(held)])).solution
    return weight, beyond.mean(0) - stream.mean(0) @ weight


def streams(plain: LlamaForCausalLM, prompts: Prompts) -> list[Tensor]:
    """Of each prompt [layer, token, width] the stream after each layer, in double precision."""
    found: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, given, out, at=layer: found.update({at: out}))
        for layer, block in enumerate(plain.model.layers)
    ]
    every = []
    for ids, n in zip(prompts.ids, prompts.lengths, strict=True):
        with torch.no_grad():
            plain.model(torch.tensor(ids[None, :n]))
        every.append(torch.cat([found[layer] for layer in sorted(found)]).double())
    for hook in hooks:
        hook.remove()
    return every


@torch.no_grad()
def said(plain: LlamaForCausalLM, stream: Tensor) -> Tensor:
    """Log-probabilities of [prompt, width] streams after the last layer."""
    return plain.lm_head(plain.model.norm(stream.float())).double().log_softmax(dim=-1)


def test_a_tuned_lens_is_nearer_to_the_model_than_the_logit_lens(
    model: HookedTransformer, plain: LlamaForCausalLM
) -> None:
    """Where it starts, it is the ridge regression of Hugging Face's own streams."""
    texts = AnsweredPrompts.from_texts(list(HELD_OUT), correct=list(HELD_OUT.values()), tokenizer=model)
    made = {f"{n} steps": lenses.tuned_lens(model, TRAINING, sites=["resid_post"], steps=n, tokens=48) for n in (0, 2)}
    found = lenses.side_by_side(model, texts, made)["kl"].sel(site="resid_post", role="answer")
    kl = found.mean("prompt").transpose("lens", "layer")

    training = torch.cat([whole[:, 1:] for whole in streams(plain, encode(model, TRAINING))], dim=1)
    read = streams(plain, texts.clean)
    for layer in (3, 13, 23):
        weight, offset = ridge_of(training[layer], training[-1], 0.1)
        here, last = (torch.stack([whole[at, -1] for whole in read]) for at in (layer, -1))
        final, *others = (said(plain, stream) for stream in (last, here, here + here @ weight + offset))
        apart = [float((final.exp() * (final - other)).sum(dim=-1).mean()) for other in others]
        near(kl.sel(layer=layer, lens=["logit", "0 steps"]), apart, 0.02, why="sums in single precision")
    close(kl.sel(layer=29), np.zeros(3), size=30.0)
    before = kl.isel(layer=slice(-1))
    assert (before.sel(lens="0 steps") < before.sel(lens="logit") / 3).all()
    assert (before.sel(lens="2 steps") < before.sel(lens="logit") / 2).all()


def test_the_table_of_one_place_says_that_the_colour_is_held_and_used(model: HookedTransformer) -> None:
    pairs = tasks.build("color-noun", "recall", tokenizer=model, n=16)
    found = places.run(model, pairs, layers=[4], roles=["color"], steps=4, controls=False)
    assert {name: found.sizes[name] for name in ("prompt", "layer", "role")} == {"prompt": 16, "layer": 1, "role": 1}
    here = found.isel(layer=0, role=0).mean("prompt")
    assert float(here["decoded"]) > 0.9 > 0.5 > float(found["majority"])
    assert float(here["recovered"]) < 0.1  # the whole colour is exchanged, and with it the answer
    lost = 1 - here["recovered_erasure"]
    assert float(lost.sel(eraser="leace")) > max(0.1, float(lost.sel(eraser="random")))
    assert float(here["kl_erasure"].sel(eraser="leace")) > float(here["kl_erasure"].sel(eraser="random"))
    moved = 1 - here["recovered_interchange"]
    assert float(moved.sel(subspace="means")) > 0.3 + float(moved.sel(subspace="random"))
    assert float(moved.sel(subspace="das")) > float(moved.sel(subspace="placebo"))
