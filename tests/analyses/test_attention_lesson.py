"""The lesson on real heads against attention written out in NumPy from the saved weights, and worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import GPT2LMHeadModel, LlamaForCausalLM

from analyses import attention_lesson
from interp import capture, results
from interp.errors import InterpError
from interp.model import HookedTransformer
from interp.prompts import PromptPairs
from interp.prompts.vocabulary import Vocabulary
from tests.tiny import VOCAB, random_ids
from tests.tolerance import close

N_HEADS, D_HEAD = 4, 8


VOCABULARY = Vocabulary(source="color", target="noun", meeting=("clause_end",), readers=("asked", "answer"))


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    """Five pairs of 9 tokens: colour at 2, noun at 4 and 5 (two tokens), asked at 7, answer at 8."""
    clean = random_ids(5, 9, seed=3)
    corrupted = clean.copy()
    corrupted[:, 2] = (corrupted[:, 2] + 1) % VOCAB
    roles: dict[str, Any] = {"color": 2, "noun": np.array([[4, 6]] * 5), "asked": 7}
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=clean[:, 2], incorrect=corrupted[:, 2], roles=roles)
    return replace(pairs, stated=VOCABULARY)


# ---- independent arithmetic ----

Weights = Mapping[str, np.ndarray]
Heads = tuple[np.ndarray, np.ndarray, np.ndarray]


def weights_of(kind: Any, directory: Path) -> Weights:
    return {name: value.double().numpy() for name, value in kind.from_pretrained(directory).state_dict().items()}


def softmax_rows(scores: np.ndarray) -> np.ndarray:
    """Causal softmax over the last axis."""
    masked = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    exponentials = np.exp(masked - masked.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def gpt2_heads(weights: Weights, ids: np.ndarray, layer: int) -> Heads:
    """q, k, v [head, position, d_head] of one layer, from the saved weights alone."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x @ weights[f"{name}.weight"] + weights[f"{name}.bias"])

    n = len(ids)
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][:n]
    for index in range(layer + 1):
        block = f"transformer.h.{index}"
        three = np.split(linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn"), 3, axis=-1)
        q, k, v = (part.reshape(n, N_HEADS, D_HEAD).swapaxes(0, 1) for part in three)
        if index == layer:
            return q, k, v
        z = softmax_rows(q @ k.swapaxes(1, 2) / np.sqrt(D_HEAD)) @ v
        x = x + linear(z.swapaxes(0, 1).reshape(n, -1), f"{block}.attn.c_proj")
        hidden = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        curve = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + linear(curve, f"{block}.mlp.c_proj")
    raise AssertionError("unreachable")


def llama_heads(weights: Weights, ids: np.ndarray) -> Heads:
    """Q [head, ...], k and v [kv_head, position, d_head] of layer 0 after rotation, from the saved weights alone."""
    x = weights["model.embed_tokens.weight"][ids]
    block = "model.layers.0"
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weights[f"{block}.input_layernorm.weight"]
    q, k, v = (
        (x @ weights[f"{block}.self_attn.{name}_proj.weight"].T).reshape(len(ids), -1, D_HEAD).swapaxes(0, 1)
        for name in "qkv"
    )
    angles = np.arange(len(ids))[:, None] * 10000.0 ** (-np.arange(0, D_HEAD, 2) / D_HEAD)  # position, d_head / 2

    def rotated(heads: np.ndarray) -> np.ndarray:
        a, b = heads[..., : D_HEAD // 2], heads[..., D_HEAD // 2 :]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    return rotated(q), rotated(k), v


def hugging_face_patterns(kind: Any, directory: Path, ids: np.ndarray) -> np.ndarray:
    """Attention weights [prompt, layer, head, dest, src]."""
    model = kind.from_pretrained(directory, attn_implementation="eager")
    with torch.no_grad():
        found = model(torch.tensor(ids), output_attentions=True).attentions
    return np.stack([layer.double().numpy() for layer in found], axis=1)


def check(result: xr.Dataset, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> None:
    """Every number of the lesson from q [d_head], k and v [src_position, d_head]."""
    score = k @ q / np.sqrt(len(q))
    weight = np.exp(score) / np.exp(score).sum()
    for name, expected in (
        ("q", q), ("k", k), ("v", v), ("dot", k @ q), ("score", score), ("weight", weight), ("z", weight @ v),
        ("value_norm", np.sqrt((v**2).sum(axis=1))),
    ):  # fmt: skip
        close(result[name].values, expected, size=max(1.0, np.abs(expected).max()), what=name)


# ---- the numbers ----


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 3)])
def test_every_number_is_that_of_the_saved_weights(
    gpt2_directory: Path, pairs: PromptPairs, layer: int, head: int
) -> None:
    model = HookedTransformer.from_pretrained(gpt2_directory, numerics="raw")
    result = attention_lesson.run(model, pairs, layer=layer, head=head, prompt=1)
    q, k, v = gpt2_heads(weights_of(GPT2LMHeadModel, gpt2_directory), pairs.clean.ids[1], layer)
    check(result, q[head, 5], k[head, :6], v[head, :6])  # the noun's last token reads itself and the five before it
    assert (result.attrs["dest_position"], result.attrs["src_of_interest"]) == (5, 2)
    close(result.weight.sum(), 1, "product", dtype="float64")
    close(result.attrs["weights_sum"], 1, "product", dtype="float64")
    assert 0 <= float(result.weight.min())
    assert float(result.weight.max()) <= 1


def test_folded_numerics_give_the_same_weights(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs
) -> None:
    assert gpt2.numerics == "compatibility"
    result = attention_lesson.run(gpt2, pairs, layer=1, head=2)
    q, k, _ = gpt2_heads(weights_of(GPT2LMHeadModel, gpt2_directory), pairs.clean.ids[0], 1)
    expected = softmax_rows(q[2] @ k[2].T / np.sqrt(D_HEAD))[5, :6]
    close(result.weight.values, expected, size=1)
    close(result.weight.values @ result.v.values, result.z.values)


@pytest.mark.parametrize(("head", "kv_head"), [(0, 0), (1, 0), (3, 1)])
def test_rotary_and_grouped_query_heads_use_rotated_queries_and_their_group_s_keys(
    llama: HookedTransformer, llama_directory: Path, pairs: PromptPairs, head: int, kv_head: int
) -> None:
    result = attention_lesson.run(llama, pairs, layer=0, head=head, dest="answer")
    weights = weights_of(LlamaForCausalLM, llama_directory)
    q, k, v = llama_heads(weights, pairs.clean.ids[0])
    score = k[kv_head] @ q[head, 8] / np.sqrt(D_HEAD)
    close(result.score.values, score)
    close(result.weight.values, np.exp(score) / np.exp(score).sum(), size=1)
    close(result.weight.values @ result.v.values, result.z.values)
    close(result.v.values, v[kv_head])
    assert result.attrs["kv_head"] == kv_head


def by_hand() -> xr.Dataset:
    """One head of four dimensions, two tokens: dot products 0 and 2, scores 0 and 1."""
    q = np.array([[9.0, 9, 9, 9], [1, 1, 1, 1]])
    k = np.array([[0.0, 0, 0, 0], [1, 1, 0, 0]])
    v = np.array([[4.0, 0, 0, 0], [0, 2, 0, 0]])
    scores = np.array([[0.0, -np.inf], [0, 1]])
    pattern = np.array([[1.0, 0], [0.2689414214, 0.7310585786]])
    z = np.array([[4.0, 0, 0, 0], [1.0757656855, 1.4621171573, 0, 0]])
    stream = ("prompt", "layer", "position", "head", "d_head")
    edge = ("prompt", "layer", "head", "dest_position", "src_position")
    sites = {name: (stream, value[None, None, :, None]) for name, value in (("q", q), ("k", k), ("v", v), ("z", z))}
    edges = {name: (edge, value[None, None, None]) for name, value in (("scores", scores), ("pattern", pattern))}
    return xr.Dataset({**sites, **edges})


HAND: Any = SimpleNamespace(
    name="by hand",
    dtype=torch.float32,
    cfg=SimpleNamespace(n_layers=1, n_heads=1, n_kv_heads=1, architecture="hand"),
    has_site=lambda name: name in ("q", "k", "v", "scores", "pattern", "z"),
    provenance=lambda: {"model": "by hand", "weights_sha256": "0"},
)
"""What the lesson asks of a model, for `by_hand`."""


def hand_lesson(monkeypatch: pytest.MonkeyPatch, sites: xr.Dataset) -> xr.Dataset:
    monkeypatch.setattr(attention_lesson, "capture", lambda *_, **__: sites)
    pairs = PromptPairs.from_tokens([[7, 8]], [[9, 8]], correct=7, incorrect=9, roles={"color": 0, "noun": 1})
    return attention_lesson.run(HAND, pairs, layer=0, head=0, dest="noun")


def test_two_words_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    result = hand_lesson(monkeypatch, by_hand())
    assert result.dot.values.tolist() == [0.0, 2.0]
    assert result.score.values.tolist() == [0.0, 1.0]  # 2 / sqrt(4)
    close(result.weight.values, [1 / (1 + np.e), np.e / (1 + np.e)], "product", dtype="float64")
    close(result.z.values, [4 / (1 + np.e), 2 * np.e / (1 + np.e), 0, 0], "product")
    assert result.value_norm.values.tolist() == [4.0, 2.0]
    assert result.token.values.tolist() == ["#7", "#8"]


@pytest.mark.parametrize(("site", "named"), [("q", "scores"), ("scores", "scores"), ("pattern", "pattern"), ("z", "z")])
def test_a_head_that_attends_by_another_rule_is_refused(monkeypatch: pytest.MonkeyPatch, site: str, named: str) -> None:
    sites = by_hand()
    sites[site] = sites[site] * 1.01
    with pytest.raises(InterpError, match=rf"^{named} of L0H0 recomputed .* attends by another rule"):
        hand_lesson(monkeypatch, sites)


def test_scores_that_were_not_divided_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sites = by_hand()
    sites["scores"] = sites["scores"] * 2  # q·k itself
    with pytest.raises(InterpError, match="scores of L0H0"):
        hand_lesson(monkeypatch, sites)


# ---- the choice of the head ----


@pytest.mark.parametrize(("layer", "head"), [(None, None), (1, None), (None, 2)])
def test_the_head_that_looks_most_is_chosen_and_it_is_said_why(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs, layer: int | None, head: int | None
) -> None:
    mean = hugging_face_patterns(GPT2LMHeadModel, gpt2_directory, pairs.clean.ids)[..., 5, 2].mean(axis=0)
    allowed = mean.copy()
    if layer is not None:
        allowed[[i for i in range(3) if i != layer]] = -1
    if head is not None:
        allowed[:, [i for i in range(4) if i != head]] = -1
    best = np.unravel_index(int(allowed.argmax()), mean.shape)
    result = attention_lesson.run(gpt2, pairs, layer=layer, head=head)
    assert (result.attrs["layer"], result.attrs["head"]) == best
    words = result.attrs["chosen_by"]
    assert words.startswith(f"largest mean attention noun<-color over 5 clean prompts, {mean[best]:.3f}, among the ")
    assert attention_lesson.run(gpt2, pairs, layer=0, head=1).attrs["chosen_by"] == "given"


def test_patterns_of_every_head_are_those_of_hugging_face(
    llama: HookedTransformer, llama_directory: Path, pairs: PromptPairs
) -> None:
    result = attention_lesson.patterns(llama, pairs, prompt=2)
    expected = hugging_face_patterns(LlamaForCausalLM, llama_directory, pairs.clean.ids)
    assert result.pattern.dims == ("prompt", "layer", "head", "dest_position", "src_position")
    assert result.prompt.values.tolist() == [2, 0, 1, 3, 4]
    close(result.pattern.values, expected[[2, 0, 1, 3, 4]])
    assert result.token.values[0].tolist() == [f"#{token}" for token in pairs.clean.ids[2]]
    spans = pairs.clean.spans("noun")
    at = result.sel(role="noun", prompt=3)
    assert [at.role_first.item(), at.role_last.item() + 1] == spans[3].tolist()


def test_as_many_prompts_are_kept_as_fit_but_one(
    gpt2: HookedTransformer, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = gpt2.cfg.n_layers * gpt2.cfg.n_heads * pairs.clean.ids.shape[1] ** 2 * 4
    for most, kept in ((2 * one, [1, 0]), (2 * one - 1, [1]), (0, [1])):
        monkeypatch.setattr(attention_lesson, "PATTERN_BYTES", most)
        assert attention_lesson.patterns(gpt2, pairs, prompt=1).prompt.values.tolist() == kept


def test_the_vectors_are_those_of_the_saved_weights(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs
) -> None:
    """Folding changes q and k by what every key shares and v by a bias, but not what follows from them."""
    found = attention_lesson.vectors(gpt2, pairs)
    patterns = hugging_face_patterns(GPT2LMHeadModel, gpt2_directory, pairs.clean.ids)
    assert found.sizes["head_label"] == patterns.shape[1] * patterns.shape[2]
    weights = weights_of(GPT2LMHeadModel, gpt2_directory)
    for layer, head in ((0, 0), (1, 3)):
        one = found.sel(head_label=f"L{layer}H{head}")
        score = np.einsum("pdx,psx->pds", one.q.values, one.k.values) / np.sqrt(D_HEAD)
        close(softmax_rows(score), patterns[:, layer, head])
        centred = weights[f"transformer.h.{layer}.attn.c_proj.weight"].reshape(N_HEADS, D_HEAD, -1)[head]
        centred = centred - centred.mean(axis=-1, keepdims=True)  # the final norm does not see the mean
        z = np.einsum("pds,psx->pdx", patterns[:, layer, head], one.v.values)
        close(one.written.values, np.linalg.norm(z @ centred, axis=-1))
        close(one.value_written.values, np.linalg.norm(one.v.values @ centred, axis=-1))


def test_rotary_vectors_are_those_of_the_saved_weights(
    llama: HookedTransformer, llama_directory: Path, pairs: PromptPairs
) -> None:
    q, k, v = llama_heads(weights_of(LlamaForCausalLM, llama_directory), pairs.clean.ids[0])
    found = attention_lesson.vectors(llama, pairs).isel(prompt=0)
    for head in range(len(q)):
        one = found.sel(head_label=f"L0H{head}")
        kv_head = head // (len(q) // len(k))
        score = np.einsum("dx,sx->ds", one.q.values, one.k.values) / np.sqrt(D_HEAD)
        close(softmax_rows(score), softmax_rows(q[head] @ k[kv_head].T / np.sqrt(D_HEAD)))
        close(one.v.values, v[kv_head], size=max(1.0, np.abs(v).max()))


def test_where_not_every_head_fits_those_that_look_most_at_the_word_are_kept(
    gpt2: HookedTransformer, gpt2_directory: Path, pairs: PromptPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_lesson, "VECTOR_BYTES", 3 * 2 * 3 * pairs.clean.ids.shape[1] * D_HEAD)
    found = attention_lesson.vectors(gpt2, pairs, dest="noun", src="color", prompt=1)
    ends = [pairs.clean.spans(role)[:, 1] - 1 for role in ("noun", "color")]
    mean = hugging_face_patterns(GPT2LMHeadModel, gpt2_directory, pairs.clean.ids)[
        np.arange(len(pairs)), :, :, ends[0], ends[1]
    ].mean(axis=0)
    best = np.unravel_index(int(mean.argmax()), mean.shape)
    assert found.head_label.values.tolist() == ["L{}H{}".format(*best)]
    assert found.prompt.values.tolist() == [1]


def test_padding_is_not_read(gpt2: HookedTransformer) -> None:
    clean = [random_ids(1, 6, seed=1)[0].tolist(), random_ids(1, 9, seed=2)[0].tolist()]
    corrupted = [[(row[0] + 1) % VOCAB, *row[1:]] for row in clean]
    pairs = PromptPairs.from_tokens(clean, corrupted, correct=1, incorrect=2, roles={"color": 0, "noun": [3, 4]})
    short = attention_lesson.run(gpt2, pairs, layer=0, head=0, dest="answer")
    assert short.sizes["src_position"] == 6
    both = attention_lesson.patterns(gpt2, pairs).pattern.values
    assert np.isfinite(both[0, 0, 0]).sum(axis=1).tolist() == [6] * 6 + [0] * 3
    vectors = attention_lesson.vectors(gpt2, pairs, dest="answer", src="color")
    assert np.isfinite(vectors.q.values[0, 0, :, 0]).tolist() == [True] * 6 + [False] * 3
    assert vectors.token.values[0, 6:].tolist() == [""] * 3
    alone = capture(gpt2, [clean[0]], ["pattern"])["pattern"]
    close(short.weight.values, alone.values[0, 0, 0, 5])
    close(both[0, 0, 0, :6, :6], alone.values[0, 0, 0])


# ---- the words ----


def moved(pairs: PromptPairs, **places: int) -> PromptPairs:
    """The same pairs with roles at other places."""
    n = len(pairs)
    roles = {role: np.array([[at, at + 1]] * n) for role, at in places.items()} | {
        "answer": pairs.clean.spans("answer")
    }
    return replace(
        pairs, clean=pairs.clean.with_roles(roles), corrupted=pairs.corrupted.with_roles(roles), stated=VOCABULARY
    )  # fmt: skip


@pytest.mark.parametrize(
    ("places", "readers", "read"),
    [
        ({"color": 2, "noun": 4, "asked": 7}, (4, 7, 8), 2),
        ({"color": 4, "noun": 5, "clause_end": 6, "asked": 7}, (5, 6, 7, 8), 4),
        ({"noun": 1, "color": 2, "asked": 7}, (7, 8), 2),
        ({"noun": 1, "color": 2}, (8,), 2),
        ({"first": 3, "second": 2}, (8,), 2),
    ],
    ids=["three", "four", "asked or answer, the noun being first", "the answer", "the role that holds the answer"],
)
def test_by_default_the_word_that_looks_at_the_colour_most_reads_it(
    gpt2: HookedTransformer, pairs: PromptPairs, places: dict[str, int], readers: tuple[int, ...], read: int
) -> None:
    result = attention_lesson.run(gpt2, moved(pairs, **places))
    with torch.inference_mode():
        _, cache = gpt2.bridge.run_with_cache(torch.tensor(pairs.clean.ids))
    looks = {
        reader: max(float(cache[f"blocks.{at}.attn.hook_pattern"][:, :, reader, read].mean(0).max()) for at in range(3))
        for reader in readers
    }
    assert result.attrs["dest_position"] == max(looks, key=looks.__getitem__)
    assert result.attrs["src_of_interest"] == read


def test_words_can_be_given_as_positions(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    result = attention_lesson.run(gpt2, pairs, layer=0, head=0, dest=-2, src=7)  # a word may read itself
    assert (result.attrs["dest_position"], result.attrs["src_of_interest"]) == (7, 7)
    assert result.attrs["dest_token"] == result.attrs["src_token"] == f"#{pairs.clean.ids[0, 7]}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dest": "color", "src": "noun"}, "attention is causal"),
        ({"dest": 1}, "dest '1' is token 1 of prompt 0 and src 'color' is token 2"),
        ({"dest": "nown"}, "Unknown role 'nown'. Did you mean 'noun'?"),
        ({"dest": 9}, "Position 9 is outside prompt 0, which has 9 tokens."),
        ({"layer": 3}, "There is no layer 3: "),
        ({"head": -1}, "There is no head -1: "),
        ({"prompt": 5}, "There is no prompt 5: there are 5 (0 to 4)."),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    gpt2: HookedTransformer, pairs: PromptPairs, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterpError) as error:
        attention_lesson.run(gpt2, pairs, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_role_that_holds_the_answer_the_word_must_be_named(
    gpt2: HookedTransformer, pairs: PromptPairs
) -> None:
    other = moved(pairs, verb=3)
    with pytest.raises(InterpError, match=r"No role of these prompts holds the answer\. .* one of verb, answer\.$"):
        attention_lesson.run(gpt2, other)
    assert attention_lesson.run(gpt2, other, src="verb", layer=0, head=0).attrs["src_of_interest"] == 3


def test_where_no_role_holds_the_answer_the_source_is_read(gpt2: HookedTransformer, pairs: PromptPairs) -> None:
    """As in agreement: the subject is read, and the answer is a verb that the prompt does not hold."""
    other = replace(moved(pairs, subject=2, verb=5), correct=(pairs.correct + 1) % VOCAB)
    result = attention_lesson.run(gpt2, other, layer=0, head=0)
    assert (result.attrs["src"], result.attrs["dest"]) == ("subject", "answer")


def test_the_results_are_the_same_after_saving(gpt2: HookedTransformer, pairs: PromptPairs, tmp_path: Path) -> None:
    for name, result in (
        ("attention_lesson", attention_lesson.run(gpt2, pairs)),
        ("attention_patterns", attention_lesson.patterns(gpt2, pairs)),
    ):
        assert results.load(results.save(result, tmp_path / f"{name}.nc")).identical(result)
