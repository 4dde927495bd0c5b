"""SmolLM2-135M: a circuit for IOI, a tuned lens and the table of one place, held to what must be so of any model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analyses import places
from interp import AnsweredPrompts, HookedTransformer, circuits, lenses, tasks
from tests.tolerance import close, near

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def model(smollm2: Path) -> HookedTransformer:
    found = HookedTransformer.from_pretrained(smollm2)
    assert (found.cfg.n_layers, found.cfg.n_heads, found.cfg.n_kv_heads, found.cfg.d_model) == (30, 9, 3, 576)
    return found


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
    sizes, steps = np.array(circuits.FRACTIONS), np.diff(circuits.FRACTIONS)
    for name, height in (("cpr", curve), ("cmd", np.abs(1 - curve))):
        near(found[name], float((steps * (height[1:] + height[:-1]) / 2).sum()), 1e-9, why="trapezia", what=name)
    assert sizes[0] == 0.001
    assert float(found["cpr"]) > float(found["random_cpr"].max())
    assert float(found["cmd"]) < float(found["random_cmd"].min())

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


def test_a_tuned_lens_is_nearer_to_the_model_than_the_logit_lens(model: HookedTransformer) -> None:
    lens = lenses.tuned_lens(model, TRAINING, sites=["resid_post"], steps=2, tokens=48)
    texts = AnsweredPrompts.from_texts(list(HELD_OUT), correct=list(HELD_OUT.values()), tokenizer=model)
    found = lenses.side_by_side(model, texts, {"tuned": lens}, at=[3, 5, 7, 9])["kl"].sel(site="resid_post")
    kl = found.mean("position").transpose("lens", "layer", "prompt")
    close(kl.sel(layer=29), np.zeros((2, len(texts))), size=30.0)
    less = (kl.sel(lens="logit") - kl.sel(lens="tuned")).values[:-1]
    error = less.std(axis=1, ddof=1) / np.sqrt(len(texts))
    assert (less.mean(axis=1) > -2 * error).all(), less.mean(axis=1)
    assert (less.mean(axis=1)[:20] > 2 * error[:20]).all(), less.mean(axis=1)


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
