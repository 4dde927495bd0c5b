"""A model whose every patched number is worked out by hand, in both directions.

Two layers of GPT-2 with chosen weights answer "color, filler, ask" with the colour.

Directions. The stream has four features, each a pair of coordinates (a, -a): C colour (+ red, - blue), F filler, A ask
and O answer. A stream is written "2A + 3O". Its mean is 0 and its variance is 2 (2^2 + 3^2) / 8, so the norm divides
2A + 3O by sqrt(13 / 4). Each token is embedded as 2 of its own feature, whose variance is 2 * 4 / 8 = 1: the first norm
changes nothing. Positions are not embedded, MLPs are zero.

Layer 0, head 0 moves the colour. "ask" attends to what is neither filler nor ask, which is the colour: scores 0 there
and -200 elsewhere, so the pattern is 1, 0, 0. The value of the colour is +2 (red) or -2 (blue); written to O:
    ask: 2A + 2O (red), 2A - 2O (blue).
Head 1 attends and reads the same way, and writes nothing.

Layer 1, head 0 relays. "ask" attends to itself (score 100, the others 0). The norm divides 2A + 2O by sqrt(2), the
value is sqrt(2) for red, and it is written to O divided by sqrt(2), so it adds 1O for red, -1O for blue:
    ask: 2A + 3O (red), 2A - 3O (blue).

The logit of "red" is what of O is left after the last norm, that of "blue" its negative. A final stream 2A + nO has the
logit difference
    D(n) = 2 n / sqrt((4 + n^2) / 4).
Clean (red): D(3) = 6 / sqrt(3.25) = 3.3282. Corrupted (blue): -3.3282.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, plan, sweep
from tests.tiny import without_blocks
from tests.tolerance import near

RED, BLUE, FILLER, ASK = range(4)
C, F, A, O = range(4)  # noqa: E741  (the features' names above)
D_HEAD = 4
D3 = 3.3282  # D(3): both runs agree on red
D1 = 1.7889  # D(1) = 2 / sqrt(1.25): one of the two writers against the other
SIGN = {"denoising": 1, "noising": -1}
DIRECTIONS = pytest.mark.parametrize("direction", ["denoising", "noising"])


def feature(f: int) -> torch.Tensor:
    """The direction of a feature, [d_model]."""
    direction = torch.zeros(8)
    direction[2 * f], direction[2 * f + 1] = 1.0, -1.0
    return direction


def read(f: int) -> torch.Tensor:
    """What gives the amount of a feature in a stream."""
    return feature(f) / 2


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> HookedTransformer:
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=8, n_positions=4, vocab_size=4, bos_token_id=0, eos_token_id=0,
        layer_norm_epsilon=1e-12, tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        embedding = model.transformer.wte.weight
        embedding[RED], embedding[BLUE] = 2 * feature(C), -2 * feature(C)
        embedding[FILLER], embedding[ASK] = 2 * feature(F), 2 * feature(A)
        first, second = (block.attn for block in model.transformer.h)
        query, key, value = 0, 8, 16  # columns of c_attn; head 1 begins D_HEAD later
        for head in (0, D_HEAD):
            first.c_attn.weight[:, query + head] = 10 * read(A)
            first.c_attn.weight[:, key + head] = -10 * read(F) - 10 * read(A)
            first.c_attn.weight[:, value + head] = read(C)
        first.c_proj.weight[0] = feature(O)
        second.c_attn.weight[:, query] = 10 * read(A)
        second.c_attn.weight[:, key] = 10 * read(A)
        second.c_attn.weight[:, value] = read(O)
        second.c_proj.weight[0] = feature(O) / 2**0.5
        model.lm_head.weight[RED], model.lm_head.weight[BLUE] = read(O), -read(O)
    path = tmp_path_factory.mktemp("toy")
    model.save_pretrained(path)
    hooked = HookedTransformer.from_pretrained(path)
    assert (hooked.cfg.n_layers, hooked.cfg.n_heads, hooked.cfg.d_head) == (2, 2, D_HEAD)
    assert hooked.why_no_blocks == ""
    return hooked


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return PromptPairs.from_tokens(
        [[RED, FILLER, ASK]], [[BLUE, FILLER, ASK]], correct=RED, incorrect=BLUE,
        roles={"color": 0, "filler": 1},
    )  # fmt: skip


@pytest.fixture(params=["weights", "hooks"])
def engine(request: pytest.FixtureRequest, toy: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hooks":
        without_blocks(monkeypatch, toy)
    return request.param


def equal(found: object, by_hand: object) -> None:
    near(found, by_hand, 1e-4, why="worked out to four decimals")


@DIRECTIONS
def test_the_stream(toy: HookedTransformer, pairs: PromptPairs, direction: str, engine: str) -> None:
    """Before layer 0 the colour stands at its own token; before layer 1 it has moved to "ask"."""
    effect = sweep(toy, pairs, "resid_pre", direction)
    assert effect.attrs["engine"] == engine
    equal(effect.clean, [D3])
    equal(effect.corrupted, [-D3])
    put, left = SIGN[direction] * D3, -SIGN[direction] * D3
    equal(effect.patched[0], [[put, left, left], [left, left, put]])
    equal(effect.recovered[0], [[1, 0, 0], [0, 0, 1]] if direction == "denoising" else [[0, 1, 1], [1, 1, 0]])


@DIRECTIONS
def test_the_moving_the_idle_and_the_relaying_head(
    toy: HookedTransformer, pairs: PromptPairs, direction: str, engine: str
) -> None:
    """Layer 0, head 0 carries it all. The relay alone: 2A - 2O + 1O when denoising, so D(-1); 2A + 2O - 1O, D(1)."""
    effect = sweep(toy, pairs, "z", direction)
    put, left = SIGN[direction] * D3, -SIGN[direction] * D3
    equal(effect.patched[0], [[put, left], [-SIGN[direction] * D1, left]])
    assert effect.attrs["engine"] == engine


@DIRECTIONS
def test_both_writers_together(toy: HookedTransformer, pairs: PromptPairs, direction: str, engine: str) -> None:
    effect = sweep(toy, pairs, "z", direction, sets={"both": [(0, 0), (1, 0)], "idle": [(0, 1), (1, 1)]})
    equal(effect.patched[0], [SIGN[direction] * D3, -SIGN[direction] * D3])


@DIRECTIONS
def test_values_carry_the_colour_and_queries_keys_and_patterns_do_not(
    toy: HookedTransformer, pairs: PromptPairs, direction: str, engine: str
) -> None:
    put, left = SIGN[direction] * D3, -SIGN[direction] * D3
    equal(sweep(toy, pairs, "v", direction).patched[0], [[put, left], [-SIGN[direction] * D1, left]])
    for site in ("q", "k", "pattern"):
        effect = sweep(toy, pairs, site, direction)
        equal(effect.patched[0], np.full((2, 2), left))
        # The tokens differ and these activations do not: known once both runs are traced, and then not run.
        assert effect.attrs["rows_run"] == (0 if engine == "weights" else plan(toy, pairs, site, direction).rows)


@DIRECTIONS
def test_paths(toy: HookedTransformer, pairs: PromptPairs, direction: str) -> None:
    """One edge at a time, starting from blue's 2A - 3O when denoising.

    Mover to logits: its -2O becomes +2O, the relay still sees blue: 2A - 3O + 4O = 2A + 1O, D(1).
    Mover to the relay's value: it adds +1O for -1O: 2A - 2O + 1O, D(-1). To its query: the norm leaves the same A, so
    nothing changes. Embedding to the mover's value: everything after it is red, D(3); to the idle head or to the logits
    (the token "ask" is the same): nothing. Relay to logits: -1O becomes +1O, D(-1).
    """
    effect = path_patching(toy, pairs, direction=direction)
    sign = SIGN[direction]
    for sender, receiver, by_hand in (
        ("L0H0", "logits", D1),
        ("L0H0", "L1H0.v", -D1),
        ("L0H0", "L1H0.q", -D3),
        ("L0H0", "L1H1.v", -D3),
        ("L0H0", "MLP1", -D3),
        ("L0H1", "logits", -D3),
        ("L1H0", "logits", -D1),
        ("embed", "L0H0.v", D3),
        ("embed", "L0H1.v", -D3),
        ("embed", "logits", -D3),
    ):
        equal(effect.patched.sel(sender=sender, receiver=receiver), [sign * by_hand])
    assert np.isnan(effect.patched.sel(sender="L1H0", receiver="L1H0.v")).all()


def test_ablations_and_knockouts(toy: HookedTransformer, pairs: PromptPairs, engine: str) -> None:
    """Without the mover "ask" stays 2A, D(0) = 0; without the relay it is 2A + 2O, D(2) = 4 / sqrt(2) = 2.8284.

    Cut off from the colour, "ask" attends to filler and itself, which have no colour: 2A again.
    """
    for which, sign in (("clean", 1), ("corrupted", -1)):
        ablated = ablation_sweep(toy, pairs, "z", "zero", which=which)
        equal(ablated.ablated[0], sign * np.array([[0, D3], [2.8284, D3]]))
        cut = knockout_sweep(toy, pairs, ["answer<-color", "filler<-color"], which=which)
        equal(cut.cut[0], sign * np.array([[0, D3], [D3, D3]]))
        equal(cut.cut_effect[0], sign * np.array([[-D3, 0], [0, 0]]))
