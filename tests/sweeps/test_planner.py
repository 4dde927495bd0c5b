"""The planner's arithmetic on a model that is small enough to count by hand: operations, bytes, groups and batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp import tasks
from interp.model import HookedTransformer
from interp.readouts import projection
from interp.sweeps.cells import Cells, Part
from interp.sweeps.exact import planner
from interp.sweeps.exact.planner import Group, Join, Plan, Sizes, find_groups, find_rows, into_batches, joined, runs_of
from interp.sweeps.reading import Reading

# Two layers; a stream of 4; two heads of 2, which share one pair of keys and values; 6 neurons; 10 tokens.
D, Q, KV, M, V = 4, 4, 2, 6, 10
PRODUCTS = {"q": 2.0 * D * Q, "k": 2.0 * D * KV, "v": 2.0 * D * KV, "o": 2.0 * Q * D, "mlp_in": 2.0 * D * M,
            "mlp_out": 2.0 * M * D}  # fmt: skip
SIZES = Sizes(PRODUCTS, n_layers=2, d_model=D, d_kv=KV, d_q=Q, d_head=2, d_mlp=M, gated=False, vocab=V, itemsize=4)


def attended(tokens: range) -> int:
    """Scores and mixing, token by token: each looks at itself and at all before; a product is 2 operations."""
    return sum(2 * Q + 2 * Q for token in tokens for _ in range(token + 1))


def counted(join: Join, start: int, end: int, answers: int, n_layers: int = 2) -> int:
    """What is made of one row, token by token."""
    total, (first, stage) = 0, join
    for layer in range(first, n_layers):
        scored = range(answers) if layer == n_layers - 1 else range(start, end)
        if layer > first or stage == "pre":
            for _ in range(start, end):
                total += 2 * 2 * D * KV  # keys and values
            for _ in scored:
                total += 2 * D * Q + 2 * Q * D  # queries, and what is written
            total += answers * end * 4 * Q if layer == n_layers - 1 else attended(range(start, end))
        for _ in scored:
            total += 2 * D * M + 2 * M * D
    return total + answers * 2 * D * V


def test_the_sizes_are_those_of_the_toy() -> None:
    assert SIZES.axes == {"head": 2, "kv_head": 1, "d_model": 4, "d_head": 2, "neuron": 6}
    assert SIZES.qkv == 32 + 16 + 16
    assert SIZES.mlp == 96
    assert SIZES.attention(0, 3) == attended(range(3)) == 16 * (1 + 2 + 3)
    assert SIZES.attention(2, 5) == attended(range(2, 5)) == 16 * (3 + 4 + 5)


@pytest.mark.parametrize("n_layers", [2, 3])
@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("join", [(0, "pre"), (0, "mid"), (1, "pre"), (1, "mid"), (2, "pre")])
def test_operations_of_a_row_are_those_counted_token_by_token(join: Join, answers: int, n_layers: int) -> None:
    sizes = replace(SIZES, n_layers=n_layers)
    for start, end in ((0, 5), (3, 5)):
        assert sizes.row_flop(join, start, end, answers) == counted(join, start, end, answers, n_layers)


def test_a_row_pays_for_the_part_of_the_unembedding_that_its_readout_needs(mini: HookedTransformer) -> None:
    pairs = tasks.build("color-noun", tokenizer=mini, n=2)
    asked = {"logit_difference": 2, "probability": 1280, projection(2, "noun", site="resid_pre"): 0}
    assert [Sizes.of(mini.blocks, Reading.of(pairs, one)).vocab for one in asked] == [*asked.values()]


def test_operations_of_a_row_by_hand() -> None:
    # From the MLP of the last layer: 96, and 2 x 4 x 10 for the logits of one position.
    assert SIZES.row_flop((1, "mid"), 0, 5, 1) == 96 + 80
    # Tokens 3 and 4 from the attention of the last layer: keys and values; one query and output, over 5 tokens.
    assert SIZES.row_flop((1, "pre"), 3, 5, 1) == 64 + (64 + 5 * 16) + 96 + 80


def test_what_is_read_within_the_last_layer_ends_there() -> None:
    reads = {site: replace(SIZES, read=site, vocab=0).row_flop((0, "pre"), 0, 3, 1) for site in ("q", "z")}
    first = 3 * (64 + 32 + 96) + attended(range(3))
    assert reads["q"] == first + 64
    assert reads["z"] == first + 3 * 32 + 64 + 3 * 16 + 96


def test_a_trace_is_a_whole_pass_without_logits() -> None:
    assert SIZES.trace(3, 5) == 3 * 2 * (5 * (64 + 32 + 96) + attended(range(5)))


def test_bytes_by_hand() -> None:
    assert SIZES.row_bytes(5) == 4 * 5 * 2 * (2 + 2 + 4)
    # A token: 8 streams, 3 times the queries, and the larger of neurons (before and after the function) and scores.
    assert SIZES.token_bytes(1) == 4 * (32 + 12 + 12)
    assert SIZES.token_bytes(5) == 4 * (32 + 12 + 30)
    assert replace(SIZES, gated=True).token_bytes(1) == 4 * (32 + 12 + 18)
    assert SIZES.batch_bytes(2, 7, 5) == 7 * SIZES.token_bytes(5) + 2 * SIZES.row_bytes(5)
    assert SIZES.tracing_bytes(3, 5) == 2 * 3 * 5 * SIZES.token_bytes(5)
    assert SIZES.kept_bytes(10) == 720
    # Both runs: streams, queries, keys with values, and 3 numbers of the source's site; the stream once more.
    assert SIZES.cache_bytes(5, site_width=3) == 4 * 5 * (2 * (8 + 8 + 4 + 6) + 4)
    assert replace(SIZES, known=11).cache_bytes(5, site_width=3) == SIZES.cache_bytes(5, site_width=3) + 11
    with_read = replace(SIZES, read="z").cache_bytes(5, site_width=3)
    assert with_read == SIZES.cache_bytes(5, site_width=3) + 4 * 5 * 2 * 4  # z of both runs: two heads of 2


# ---- rows and groups ----


def cells(*layers: int, tokens: list[list[int]], length: int = 5, units: tuple[int, ...] | None = None) -> Cells:
    """A cell for each layer and place; a place is the tokens that it changes, in each of the prompts alike."""
    masks = torch.zeros(len(tokens), 1, length, dtype=torch.bool)
    for place, changed in enumerate(tokens):
        masks[place, 0, changed] = True
    parts = tuple((Part(layer, units),) for layer in layers for _ in tokens)
    place = np.tile(np.arange(len(tokens)), len(layers))
    shape, labels = (len(layers), len(tokens)), {"layer": [*layers], "position": [*range(len(tokens))]}
    return Cells(parts, place, masks, shape, ("layer", "position"), labels)


def groups_of(some: Cells, site: str, answers: list[int], differs: list[bool] | None = None) -> list[Group]:
    at = np.array([answers])
    told = None if differs is None else np.array([differs])
    rows = find_rows(some, site, SIZES.n_layers, answers=at, differs=told)
    return find_groups(rows, some, site, SIZES, answers=at)


def test_only_rows_that_can_reach_the_answer_are_computed() -> None:
    each = cells(0, 1, tokens=[[0], [1], [2], [3], [4]])
    answers = np.array([[3]])
    # The stream before the first layer: where the prompts differ alone. Token 4 comes after the answer.
    rows = find_rows(each, "resid_pre", 2, answers=answers, differs=np.array([[False, True, False, False, False]]))
    assert sorted(zip(rows.cell.tolist(), rows.start.tolist(), strict=True)) == [(1, 1), (6, 1), (7, 2), (8, 3)]
    # After the last layer nobody reads another token.
    rows = find_rows(each, "resid_post", 2, answers=answers, differs=None)
    assert sorted(rows.cell.tolist()) == [0, 1, 2, 3, 8]
    assert len(rows) == 5
    assert rows.where(rows.cell == 8).start.tolist() == [3]


def test_a_row_holds_every_scored_position_also_one_before_its_change() -> None:
    rows = find_rows(cells(0, tokens=[[3]]), "resid_pre", 2, answers=np.array([[2, 4]]), differs=None)
    assert rows.start.tolist() == [2]


def test_a_cut_begins_where_its_first_source_stands() -> None:
    sources = torch.zeros(1, 1, 5, dtype=torch.bool)
    for first, starts in ((None, []), (2, [2])):
        if first is not None:
            sources[0, 0, [first, 3]] = True
        cut = replace(cells(0, tokens=[[1, 2, 3]]), sources=sources)
        assert find_rows(cut, "pattern", 2, answers=np.array([[4]]), differs=None).start.tolist() == starts


@pytest.mark.parametrize(
    ("site", "layer", "tokens", "join"),
    [
        ("resid_pre", 0, [1], (0, "mid")),
        ("resid_pre", 1, [1], (1, "mid")),
        ("resid_post", 0, [1], (1, "mid")),
        ("resid_post", 1, [3], (2, "pre")),
        ("z", 0, [1], (1, "mid")),
        ("z", 0, [1, 2, 3], (0, "mid")),
        ("z", 1, [3], (1, "mid")),
        ("mlp_pre", 0, [1], (1, "pre")),
        ("mlp_pre", 1, [3], (2, "pre")),
    ],
)
def test_where_rows_join_the_batch(site: str, layer: int, tokens: list[int], join: Join) -> None:
    (group,) = groups_of(cells(layer, tokens=[tokens]), site, [3])
    assert group.join == join
    assert group.general == (site == "mlp_pre")
    assert (group.layer, group.last, group.answers) == (layer, 1, 1)


@pytest.mark.parametrize(
    ("site", "layer", "tokens", "join"),
    [
        ("resid_pre", 1, [1], (1, "mid")),
        ("resid_pre", 2, [1], (3, "pre")),
        ("resid_post", 0, [1], (1, "mid")),
        ("resid_post", 1, [1], (2, "pre")),
        ("z", 0, [1], (1, "mid")),
        ("z", 1, [1], (1, "mid")),
    ],
)
def test_rows_join_before_the_layer_within_which_something_is_read(
    site: str, layer: int, tokens: list[int], join: Join
) -> None:
    sizes, at, some = replace(SIZES, n_layers=3, read="mlp_post"), np.array([[3]]), cells(layer, tokens=[tokens])
    rows = find_rows(some, site, 3, answers=at, differs=None)
    (found,) = find_groups(rows, some, site, sizes, answers=at)
    assert found.join == join


def test_groups_come_layer_by_layer_wherever_their_prompts_end() -> None:
    """So that a batch of the last ones joins late."""
    some, at = cells(0, 1, tokens=[[1]], length=5), np.array([[4], [3]])
    some = replace(some, tokens=some.tokens.expand(-1, 2, -1))
    rows = find_rows(some, "resid_pre", 2, answers=at, differs=None)
    found = find_groups(rows, some, "resid_pre", SIZES, answers=at)
    assert [(one.layer, one.end) for one in found] == [(0, 4), (0, 5), (1, 4), (1, 5)]


def group(n: int, *, start: int = 2, end: int = 5, late: bool = False, join: Join = (1, "mid")) -> Group:
    """Rows alike in all but their prompt."""
    return Group(
        layer=join[0], start=start, end=end, dense=False, general=False, cell=np.zeros(n, int), prompt=np.arange(n),
        starts=np.full(n, start), join=join, answers=1, late=late, last=1,
    )  # fmt: skip


def test_a_group_says_what_it_holds() -> None:
    one = group(4)
    assert (one.held, one.rows, one.tokens, one.uniform) == (3, 4, 12, True)
    assert (group(4, late=True).held, group(4, late=True).tokens) == (1, 4)
    assert not replace(one, starts=np.array([2, 3, 2, 2])).uniform
    assert one.part(slice(1, 3)).prompt.tolist() == [1, 2]
    order = [group(1, join=join).order for join in ((0, "pre"), (0, "mid"), (1, "pre"), (1, "mid"), (2, "pre"))]
    assert order == [0, 1, 2, 3, 4]
    assert [group(1, join=join).scored for join in ((1, "pre"), (1, "mid"), (2, "pre"))] == [False, True, True]


def test_batches_hold_at_most_their_budget_and_at_least_a_row() -> None:
    def made(budget: int, *groups: Group) -> list[list[list[int]]]:
        return [[part.prompt.tolist() for part in batch] for batch in into_batches(groups, budget)]

    assert made(9, group(3), group(2)) == [[[0, 1, 2]], [[0, 1]]]
    assert made(12, group(3), group(2)) == [[[0, 1, 2], [0]], [[1]]]
    assert made(9, group(9)) == [[[0, 1, 2]], [[3, 4, 5]], [[6, 7, 8]]]
    assert made(1, group(2)) == [[[0]], [[1]]]
    assert made(9) == []


def test_rows_of_other_starts_enter_together_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    part, start = np.arange(3), np.array([0, 1, 4])
    # Rows of 5, 4 and 1 tokens: the second held as the first costs 1 token more, the third 4 more.
    token = PRODUCTS["o"] + 4 * Q * 5

    def made(worth: float, most: float) -> list[list[int]]:
        monkeypatch.setattr(planner, "GROUP_FLOP", worth)
        monkeypatch.setattr(planner, "MOST_PADDED", most)
        return [rows.tolist() for rows in planner._together(part, start, 5, SIZES, late=False)]

    assert made(0.0, 100) == [[0], [1], [2]]
    assert made(token - 1, 100) == [[0], [1], [2]]
    assert made(token, 100) == [[0, 1], [2]]
    assert made(5 * token - 1, 100) == [[0, 1], [2]]
    assert made(5 * token, 100) == [[0, 1, 2]]
    assert made(5 * token, 1.5) == [[0, 1, 2]]  # 15 tokens held for 10
    assert made(5 * token, 1.49) == [[0, 1], [2]]
    assert [rows.tolist() for rows in planner._together(part, start, 5, SIZES, late=True)] == [[0, 1, 2]]


def test_runs_of_equal_keys() -> None:
    assert list(runs_of("aabccc")) == [("a", slice(0, 2)), ("b", slice(2, 3)), ("c", slice(3, 6))]
    assert list(runs_of("a")) == [("a", slice(0, 1))]
    assert list(runs_of("")) == []


# ---- what a group costs before its rows join ----


def before(site: str, layer: int, tokens: list[int], *, from_run: bool = True, units: int | None = None) -> float:
    """Operations per row, of the tokens that are changed in a prompt whose answer is at token 3."""
    some = cells(layer, tokens=[tokens], units=None if units is None else tuple(range(units)))
    (one,) = groups_of(some, site, [3])
    twice = replace(one, cell=np.repeat(one.cell, 2), prompt=np.repeat(one.prompt, 2), starts=np.repeat(one.starts, 2))
    alone, both = (
        planner.flop_before_batch(SIZES, site, each, len(tokens), some, from_run=from_run) for each in (one, twice)
    )
    assert both == 2 * alone
    total = planner.flop(SIZES, site, [one], some, from_run=from_run)
    assert total == alone + SIZES.row_flop(one.join, one.start, one.end, 1)
    return alone


def test_operations_before_the_batch_by_hand() -> None:
    own = 2 * (64 - 32) + 2 * 32  # attention's products of two changed tokens: keys, values; queries
    rest = 2 * 32 + attended(range(2, 4))  # tokens 2 and 3 write, and look back
    # Another run's stream before layer 0 brings its queries, keys and values along; another value does not.
    assert before("resid_pre", 0, [2, 3]) == rest
    assert before("resid_pre", 0, [2, 3], from_run=False) == own + rest
    # After layer 0 they have to be made, whatever it comes from.
    assert before("resid_post", 0, [2]) == 32 + 32 + 32 + 4 * Q * 4
    # In the last layer: keys and values of what changes; one query, one output, four tokens looked at.
    assert before("resid_pre", 1, [2, 3], from_run=False) == 2 * 32 + 32 + 32 + 4 * Q * 4
    assert before("resid_pre", 1, [2, 3]) == 32 + 4 * Q * 4
    assert before("resid_post", 1, [3]) == 0


def test_operations_of_heads_and_neurons_by_hand() -> None:
    # One head of z at token 2: 2 x 2 x 4 through W_O for both tokens of the row, then the MLP of the changed token
    # and the attention of layer 1, which is the last: its keys and values, one query, one output.
    through, last = 2 * 2 * D * 2, 32 + 32 + 32 + 4 * Q * 4
    assert before("z", 0, [2], units=1) == through + 96 + last
    assert before("z", 0, [2]) == 2 * through + 96 + last
    # Where all tokens of the row change they join before the MLP.
    assert before("z", 0, [2, 3], units=1) == through
    # In the last layer the scored token alone.
    assert before("z", 1, [3], units=1) == 2 * 2 * D
    # Neurons: what one of them writes, and then as the stream after a layer.
    assert before("mlp_post", 0, [2], units=1) == 2 * D + last
    assert before("mlp_post", 1, [3]) == 2 * M * D


def test_operations_of_attention_by_hand() -> None:
    # One head: both tokens of the row look at (2 + 4) / 2 tokens, scored and mixed, and write; and then as a head's z.
    looked, through, rest = 2 * 3 * 2 * (2 * 2), 2 * 2 * D * 2, 96 + 32 + 32 + 32 + 4 * Q * 4
    assert before("q", 0, [2], units=1) == looked + through + rest
    assert before("q", 0, [2]) == 2 * (looked + through) + rest


def test_a_layer_that_is_run_whole() -> None:
    whole = 2 * (64 + 32 + 96) + attended(range(2, 4))
    some = cells(0, tokens=[[2]])
    both = replace(some, parts=((Part(0, None), Part(1, None)),))
    (one,) = groups_of(both, "z", [3])  # changed in two layers: all from the first to the last
    assert planner.flop_before_batch(SIZES, "z", one, 1, both, from_run=True) == 2 * whole
    assert before("mlp_pre", 0, [2]) == whole
    assert before("mlp_pre", 1, [3]) == 1 * (64 + 32 + 96) + attended(range(3, 4))


# ---- plans ----

PLAN = Plan("z", rows_in_all=8, rows=6, chunks=(2,), batches=3, flop=100.0, peak_bytes=2**20, tokens_per_batch=50)


def test_a_plan_in_words() -> None:
    assert str(PLAN) == (
        "z: 6 of 8 rows are computed (25% cannot change the number), in 3 batches of up to 50 tokens over 1 chunk of "
        "prompts; 100 floating-point operations at least, 1 MiB at most."
    )
    assert str(replace(PLAN, chunks=(1, 1), engine="hooks were asked for")).endswith(
        "over 2 chunks of prompts; 100 floating-point operations at least, 1 MiB at most; through hooks (hooks were "
        "asked for)."
    )
    assert "0 of 0 rows are computed (100% cannot" in str(replace(PLAN, rows_in_all=0, rows=0))


def test_plans_one_after_the_other() -> None:
    other = replace(PLAN, rows_in_all=10, rows=1, chunks=(3, 4), batches=1, flop=7.0, peak_bytes=5, tokens_per_batch=60)
    other = replace(other, kept=2)
    assert joined([PLAN]) is PLAN
    assert joined([PLAN, other]) == replace(
        PLAN, rows_in_all=18, rows=7, chunks=(2, 3, 4), batches=4, flop=107.0, peak_bytes=2**20 + 8 * 18,
        tokens_per_batch=60, kept=2,
    )  # fmt: skip
