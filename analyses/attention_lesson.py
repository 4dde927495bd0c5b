"""The founding lesson on a real head: how one word reads another, number by number.

A head compares the query of the reading word with the key of every word up to it, divides by the square root of
d_head, turns the scores into weights with a softmax, and mixes the values by those weights. Every number here is
computed from the model's own queries, keys and values, and refused unless it equals what the model computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from interp import capture, results
from interp._arguments import check_pairs
from interp.errors import InterpError, UnaskableError, whole_number
from interp.heads.choice import End, chosen_head, ends, looking_most, mean_attention
from interp.results import Variable
from interp.sites import head_label
from interp.sweeps import Meter, Plan, Progress, passes, plans_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs
    from interp.prompts.tokens import Prompts

SOURCE = "Vaswani et al. 2017, Attention Is All You Need, arXiv 1706.03762, equation 1"

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a recomputed number may be from the model's, as a share of the sizes summed: rounding in that data type."""

PATTERN_BYTES = 2**22
"""Bytes of attention patterns that are kept; the first prompt's are kept whatever they take."""

VECTOR_BYTES = 2**20
"""Bytes of queries, keys and values that are kept."""

_FLOAT = 4
"""Bytes of a number as it is kept."""


def check_askable(
    pairs: PromptPairs, *, dest: str | int | None = None, src: str | int | None = None, prompt: int = 0
) -> None:
    """Refuse words that these pairs do not have or cannot read, whatever the model; the arguments are those of ``run``.

    Raises:
        UnaskableError: ``dest`` comes before ``src``, or no word is there to be read by default.
        InterpError: an unknown role, position or prompt.
    """
    _check_prompt(pairs, prompt)
    ends(pairs, dest, src)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    layer: int | None = None,
    head: int | None = None,
    dest: str | int | None = None,
    src: str | int | None = None,
    prompt: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """One head, one clean prompt, one reading word: q·k, division by sqrt(d_head), softmax, and the mix of values.

    Args:
        model: the model.
        pairs: the prompts; only the clean ones are used.
        layer: the layer; None lets the numbers choose.
        head: the head; None lets the numbers choose. Chosen is the head with the largest mean attention from ``dest``
            to ``src`` over all clean prompts, among those of the given layer or index if one is given.
        dest: the reading word: a role (its last token) or a position (negative: from the end). None is the role,
            among target, meeting places and readers of the pairs' vocabulary that are behind ``src``, from which any
            one head looks at ``src`` most.
        src: the word of interest among those read: a role (its last token) or a position. None is the role that holds
            the correct answer in every prompt (the vocabulary's source, if it does, else the first); if none does,
            the source.
        prompt: which prompt.
        progress: True for a bar, or called with steps done and steps in all.

    Returns:
        Dims src_position (the tokens up to and with ``dest``, BOS included) and d_head. ``q`` (d_head), ``k`` and ``v``
        (src_position, d_head), ``dot`` = q·k, ``score`` = dot / sqrt(d_head), ``weight`` = softmax of the scores (each
        in [0, 1], summing to 1), ``value_norm``, and ``z`` (d_head), the model's own mix, which equals the sum of
        weight * v. In rotary models q and k are those after rotation, since these are what is compared; in
        grouped-query models k and v are those of the group's ``kv_head``. ``chosen_by`` says how the head was chosen.

    Raises:
        InterpError: an unknown role, position, layer, head or prompt; a ``src`` after ``dest``, which causal attention
            cannot see; or a model whose attention is not softmax(q·k / sqrt(d_head)) v.

    >>> from analyses import attention_lesson
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> lesson = attention_lesson.run(model, pairs, layer=0, head=2, dest="after_noun", src="color")
    >>> abs(float((lesson.weight * lesson.v).sum("src_position")[0] - lesson.z[0])) < 1e-4  # z is the mix of values
    True
    """
    check_pairs(model, pairs)
    _check_prompt(pairs, prompt)
    meter = Meter(progress, 2)
    readers, read = ends(pairs, dest, src)
    reader = looking_most(model, pairs, readers, read)
    layer, head, chosen_by = chosen_head(model, pairs, layer, head, reader, read)
    meter.add(1)
    one = pairs.clean.select([prompt])
    position, source = int(reader.positions[prompt]), int(read.positions[prompt])
    numbers = _attend(model, one, layer, head, position)
    texts = _token_texts(one)
    meter.add(1)
    d_head = len(numbers.q)
    kind = "after rotation" if model.has_site("rot_q") else "of the head"
    by_source, by_both = ("src_position",), ("src_position", "d_head")
    return results.build(
        {
            "q": Variable(("d_head",), numbers.q, "activation", f"query {kind}, of the reading word"),
            "k": Variable(by_both, numbers.k, "activation", f"keys {kind}"),
            "v": Variable(by_both, numbers.v, "activation", "values"),
            "dot": Variable(by_source, numbers.dot, "activation²", "q · k"),
            "score": Variable(by_source, numbers.score, "", "q · k / sqrt(d_head)"),
            "weight": Variable(by_source, numbers.weight, "share", "softmax of the scores"),
            "value_norm": Variable(by_source, np.linalg.norm(numbers.v, axis=1), "activation", "length of v"),
            "z": Variable(("d_head",), numbers.z, "activation", "sum of weight * v, as the model has it"),
        },
        coords={
            "src_position": np.arange(position + 1),
            "d_head": np.arange(d_head),
            "token": ("src_position", np.array(texts[: position + 1])),
        },
        title="One head, number by number",
        question=f"How much of {texts[source]!r} does {texts[position]!r} read in {head_label(layer, head)}, and why?",
        reading="weight: share of the reading word's attention, between 0 and 1; the weights of all words sum to 1.",
        source=SOURCE,
        of=(model, pairs),
        seed=0,
        extra={
            "layer": layer,
            "head": head,
            "head_label": head_label(layer, head),
            "kv_head": head // (model.cfg.n_heads // model.cfg.n_kv_heads),
            "chosen_by": chosen_by,
            "dest": reader.name,
            "src": read.name,
            "dest_position": position,
            "dest_token": texts[position],
            "src_of_interest": source,
            "src_token": texts[source],
            "d_head": d_head,
            "weights_sum": float(numbers.weight.sum()),
            "largest_error": numbers.largest_error,
            "prompt": prompt,
            "text": _text(one),
        },
    )


@plans_of(run)
def planned(model: HookedTransformer, pairs: PromptPairs) -> list[Plan]:
    """About what ``run``, ``patterns`` and ``vectors`` compute: each looks at every clean prompt, twice at most.

    >>> from analyses import attention_lesson
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [plan.rows for plan in attention_lesson.planned(model, pairs)]
    [10]
    """
    check_pairs(model, pairs)
    return [passes(model, pairs.clean, forward=5)]


def patterns(model: HookedTransformer, pairs: PromptPairs, *, prompt: int = 0) -> xr.Dataset:
    """The attention pattern of every head on the clean prompts, as many as ``PATTERN_BYTES`` allows.

    Args:
        model: the model.
        pairs: the prompts; only the clean ones are used.
        prompt: which prompt comes first.

    Returns:
        ``pattern`` (prompt, layer, head, dest_position, src_position): shares in [0, 1]; each row sums to 1, and a word
        never reads what comes after it; NaN is padding. ``token`` (prompt, src_position) and ``text`` (prompt) are what
        is read; ``role_first`` and ``role_last`` (prompt, role) are the positions of each role, both included.

    Raises:
        InterpError: there is no such prompt.

    >>> from analyses import attention_lesson
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = attention_lesson.patterns(model, tasks.build("color-noun", "recall", tokenizer=model, n=2))
    >>> found.sizes["prompt"], float(found.pattern.sum("src_position").isel(dest_position=0).min()) > 0.999
    (2, True)
    """
    check_pairs(model, pairs)
    _check_prompt(pairs, prompt)
    length = int(pairs.clean.lengths.max())
    chosen = _first(pairs, prompt, PATTERN_BYTES // (model.cfg.n_layers * model.cfg.n_heads * length**2 * _FLOAT))
    some = pairs.clean.select(chosen)
    dims = ("prompt", "layer", "head", "dest_position", "src_position")
    pattern = capture(model, some, ["pattern"])["pattern"].transpose(*dims)
    return results.build(
        {"pattern": Variable(dims, pattern.values, "share", "attention weights")},
        coords={
            "layer": np.arange(model.cfg.n_layers),
            "head": np.arange(model.cfg.n_heads),
            "dest_position": np.arange(pattern.sizes["dest_position"]),
            "src_position": np.arange(pattern.sizes["src_position"]),
            **_said(some, chosen, pairs.roles, "src_position"),
        },
        title="The attention patterns of every head",
        question="Where does each head look from each word?",
        reading="Row: the word that reads; column: the word that is read. Each row sums to 1.",
        source=SOURCE,
        of=(model, pairs),
        seed=0,
        extra={
            "prompt": prompt,
            "text": _texts(some)[0],
            "d_model": model.cfg.d_model,
            "d_head": model.cfg.d_head,
            "d_mlp": model.cfg.d_mlp,
            "d_vocab": model.cfg.vocab_out,
        },
    )


def vectors(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    prompt: int = 0,
    dest: str | int | None = None,
    src: str | int | None = None,
) -> xr.Dataset:
    """Queries, keys and values of heads on some clean prompts, from which any word's reading of any other follows.

    Every head is kept if one prompt's heads fit in ``VECTOR_BYTES``; else those that look most from a reading word to
    the word that is read. Heads that attend by another rule than softmax(q·k / sqrt(d_head)) are left out.

    Args:
        model: the model.
        pairs: the prompts; only the clean ones are used.
        prompt: which prompt comes first.
        dest: the reading word, as in ``run``.
        src: the word that is read, as in ``run``.

    Returns:
        ``q``, ``k``, ``v`` (prompt, head_label, position, d_head), after rotation in rotary models; keys and values are
        those of the head's group. Where a block adds what its heads write to the stream unchanged, also the lengths of
        what is written: ``written`` (of the head's output), ``value_written`` (of each word's value on its own) and
        ``stream`` (of the residual stream that the block reads), all (prompt, head_label, position), activation. NaN
        is padding.

    Raises:
        InterpError: as ``run``; or no head attends by the rule.

    >>> from analyses import attention_lesson
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = attention_lesson.vectors(model, tasks.build("color-noun", "recall", tokenizer=model, n=2))
    >>> found.sizes["head_label"], found.q.dims
    (16, ('prompt', 'head_label', 'position', 'd_head'))
    """
    check_pairs(model, pairs)
    _check_prompt(pairs, prompt)
    readers, read = ends(pairs, dest, src)
    length, cfg = int(pairs.clean.lengths.max()), model.cfg
    one_head = 3 * length * cfg.d_head * _FLOAT
    heads = _looking(model, pairs, readers, read)[: max(1, VECTOR_BYTES // one_head)]
    chosen = _first(pairs, prompt, VECTOR_BYTES // (one_head * len(heads)))
    some = pairs.clean.select(chosen)
    names = ("rot_q", "rot_k", "v") if model.has_site("rot_q") else ("q", "k", "v")
    writes = [name for name in ("attn_out", "resid_pre") if model.has_site(name)]
    own = capture(model, some, [*names, "z", "pattern", *writes])
    parts = [_Vectors.of(model, own, names, layer, head) for layer, head in heads]
    true = [i for i, part in enumerate(parts) if part.error <= TOLERANCE.get(model.dtype, 5e-2)]
    if not true:
        raise InterpError(
            f"No head of {model.name} ({cfg.architecture}) attends by softmax(q·k / sqrt(d_head)), so that its queries "
            "and keys would not explain what it reads. Choose another model."
        )
    true.sort(key=lambda i: heads[i])
    by_dimension, by_position = ("prompt", "head_label", "position", "d_head"), ("prompt", "head_label", "position")
    kind = "after rotation" if names[0] == "rot_q" else "of each head"
    stack = {name: np.stack([getattr(parts[i], name) for i in true], axis=1) for name in ("q", "k", "v")}
    variables = {
        "q": Variable(by_dimension, stack["q"], "activation", f"queries {kind}"),
        "k": Variable(by_dimension, stack["k"], "activation", f"keys {kind}"),
        "v": Variable(by_dimension, stack["v"], "activation", "values"),
    }
    if _adds_what_heads_write(model, own):
        lengths = {
            "written": "length of what the head writes",
            "value_written": "length of what one word's value would write",
            "stream": "length of the residual stream that the block reads",
        }
        for name, meaning in lengths.items():
            values = np.stack([getattr(parts[i], name) for i in true], axis=1)
            variables[name] = Variable(by_position, values, "activation", meaning)
    return results.build(
        variables,
        coords={
            "head_label": np.array([head_label(*heads[i]) for i in true]),
            "position": np.arange(own.sizes["position"]),
            **_said(some, chosen, pairs.roles, "position"),
        },
        title="Queries, keys and values",
        question="How does any word read any other, number by number?",
        reading="The share that one word gives another is softmax(q·k / sqrt(d_head)) over all words up to it.",
        source=SOURCE,
        of=(model, pairs),
        seed=0,
        extra={"prompt": prompt, "n_heads_in_all": cfg.n_layers * cfg.n_heads},
    )


# ---- which prompt ----


def _check_prompt(pairs: PromptPairs, prompt: int) -> None:
    if not 0 <= whole_number(prompt, "prompt") < len(pairs):
        raise InterpError(f"There is no prompt {prompt}: there are {len(pairs)} (0 to {len(pairs) - 1}).")


# ---- the arithmetic ----


@dataclass(frozen=True)
class _Numbers:
    """What one head does at one position, in float64; ``largest_error`` is relative, against the model's own."""

    q: Float[np.ndarray, " d_head"]
    k: Float[np.ndarray, "src_position d_head"]
    v: Float[np.ndarray, "src_position d_head"]
    dot: Float[np.ndarray, " src_position"]
    score: Float[np.ndarray, " src_position"]
    weight: Float[np.ndarray, " src_position"]
    z: Float[np.ndarray, " d_head"]
    largest_error: float


def _attend(model: HookedTransformer, one: Prompts, layer: int, head: int, position: int) -> _Numbers:
    """Attention of one head at one position from q, k and v, held to the model's own scores, pattern and z."""
    names = ("rot_q", "rot_k") if model.has_site("rot_q") else ("q", "k")
    # Some models show no scores, but scores that were not these would give another pattern.
    held_to = ["scores", "pattern", "z"] if model.has_site("scores") else ["pattern", "z"]
    own = capture(model, one, [*names, "v", *held_to], layers=[layer])
    kv_head = head // (model.cfg.n_heads // model.cfg.n_kv_heads)
    q = _of_head(own[names[0]], head)[position]
    k, v = (_of_head(own[name], kv_head)[: position + 1] for name in (names[1], "v"))
    dot = k @ q
    score = dot / np.sqrt(len(q))
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    z = _of_head(own["z"], head)[position]
    edge = {"prompt": 0, "layer": 0, "head": head, "dest_position": position}
    models = {name: own[name].isel(edge).values.astype(np.float64)[: position + 1] for name in held_to[:-1]} | {"z": z}
    # Each error is measured against the sizes that were summed, so that cancellation is not mistaken for a fault.
    mine = {
        "scores": (score, np.abs(k) @ np.abs(q) / np.sqrt(len(q))),
        "pattern": (weight, np.ones(1)),
        "z": (weight @ v, weight @ np.abs(v)),
    }
    errors = {name: _error(mine[name][0], models[name], mine[name][1]) for name in held_to}
    tolerance = TOLERANCE.get(model.dtype, 5e-2)
    for name, error in errors.items():
        if not error <= tolerance:
            raise UnaskableError(
                f"{name} of {head_label(layer, head)} recomputed as softmax(q·k / sqrt(d_head)) v is not the model's "
                f"own: {error:.2g} off, relative, where {tolerance:g} is allowed. {model.name} "
                f"({model.cfg.architecture}) attends by another rule here, so the lesson would not be true. "
                "Choose another layer or model."
            )
    return _Numbers(q, k, v, dot, score, weight, z, max(errors.values()))


def _of_head(site: xr.DataArray, head: int) -> Float[np.ndarray, "position d_head"]:
    axis = "kv_head" if "kv_head" in site.dims else "head"
    values = site.isel({"prompt": 0, "layer": 0, axis: head}).transpose("position", "d_head").values
    return values.astype(np.float64)


def _error(mine: np.ndarray, models: np.ndarray, size: np.ndarray) -> float:
    return float(np.abs(mine - models).max() / max(float(size.max()), 1e-12))


@dataclass(frozen=True)
class _Vectors:
    """Queries, keys and values of one head on some prompts; ``error``: how far its own weights are from their softmax.

    The lengths are those of what is written through W_O: of the head's output, and of each word's value on its own.
    """

    q: Float[np.ndarray, "prompt position d_head"]
    k: Float[np.ndarray, "prompt position d_head"]
    v: Float[np.ndarray, "prompt position d_head"]
    written: Float[np.ndarray, "prompt position"]
    value_written: Float[np.ndarray, "prompt position"]
    stream: Float[np.ndarray, "prompt position"]
    error: float

    @classmethod
    def of(cls, model: HookedTransformer, own: xr.Dataset, names: Sequence[str], layer: int, head: int) -> _Vectors:
        kv_head = head // (model.cfg.n_heads // model.cfg.n_kv_heads)
        axes = ("prompt", "position", "d_head")

        def of_head(name: str) -> np.ndarray:
            axis = "kv_head" if "kv_head" in own[name].dims else "head"
            index = kv_head if axis == "kv_head" else head
            return np.asarray(own[name].isel({"layer": layer, axis: index}).transpose(*axes).values)

        q, k, v, z = (of_head(name) for name in (*names, "z"))
        score = np.einsum("pdx,psx->pds", q, k, dtype=np.float64) / np.sqrt(q.shape[-1])
        score = np.where(np.tri(score.shape[1], dtype=bool), score, -np.inf)
        with np.errstate(invalid="ignore"):  # padding is NaN
            weight = np.exp(score - np.max(score, axis=-1, keepdims=True))
            weight /= weight.sum(axis=-1, keepdims=True)
        models = own["pattern"].isel(layer=layer, head=head).transpose("prompt", "dest_position", "src_position").values
        w_o = model.W_O(layer)[head].detach().double().cpu().numpy()
        stream = own["resid_pre"].isel(layer=layer).transpose("prompt", "position", "d_model").values
        written, alone, read = (np.linalg.norm(part, axis=-1).astype(np.float32) for part in (z @ w_o, v @ w_o, stream))
        return cls(q, k, v, written, alone, read, float(np.nanmax(np.abs(weight - models))))


def _adds_what_heads_write(model: HookedTransformer, own: xr.Dataset) -> bool:
    """Whether what the heads write, with the bias, is what the attention of each layer adds to the stream."""
    if not {"attn_out", "resid_pre"} <= set(own.data_vars):
        return False
    for layer in range(model.cfg.n_layers):
        z = own["z"].isel(layer=layer).transpose("prompt", "position", "head", "d_head").values
        w_o, bias = (part.detach().double().cpu().numpy() for part in (model.W_O(layer), model.b_O(layer)))
        mine = np.einsum("pnhx,hxd->pnd", z, w_o) + bias
        added = own["attn_out"].isel(layer=layer).transpose("prompt", "position", "d_model").values
        size = float(np.nanmax(np.abs(added)))
        if not float(np.nanmax(np.abs(mine - added))) <= TOLERANCE.get(model.dtype, 5e-2) * max(size, 1e-12):
            return False
    return True


def _looking(model: HookedTransformer, pairs: PromptPairs, readers: Sequence[End], read: End) -> list[tuple[int, int]]:
    """Every head as (layer, head), first those that look most from any reading word to the word that is read."""
    means = [mean_attention(model, pairs, end.positions, read.positions) for end in readers]
    most = np.max(means, axis=0)
    return sorted(np.ndindex(*most.shape), key=lambda at: (-most[at], at))


# ---- words ----


def _first(pairs: PromptPairs, prompt: int, count: int) -> list[int]:
    """At most so many prompts (but one), the given one first."""
    return [prompt, *(i for i in range(len(pairs)) if i != prompt)][: max(1, count)]


def _said(some: Prompts, chosen: Sequence[int], roles: Sequence[str], axis: str) -> dict[str, object]:
    """Coordinates that say what each prompt is: its index, text, tokens, and where its roles are."""
    rows = [some.tokens[i] if some.tokens is not None else _ids(some, i) for i in range(len(some))]
    padded = [[*row, *[""] * (some.ids.shape[1] - len(row))] for row in rows]
    spans = np.stack([some.spans(role) for role in roles], axis=1) if roles else np.zeros((len(some), 0, 2), int)
    made: dict[str, object] = {
        "prompt": np.array(chosen),
        "text": ("prompt", np.array(_texts(some))),
        "token": (("prompt", axis), np.array(padded)),
    }
    if roles:
        made["role"] = np.array(roles)
        made["role_first"] = (("prompt", "role"), spans[..., 0])
        made["role_last"] = (("prompt", "role"), spans[..., 1] - 1)
    return made


def _ids(some: Prompts, row: int) -> tuple[str, ...]:
    return tuple(f"#{token}" for token in some.rows()[row])


def _texts(some: Prompts) -> list[str]:
    return list(some.texts) if some.texts is not None else [" ".join(_ids(some, i)) for i in range(len(some))]


def _token_texts(one: Prompts) -> tuple[str, ...]:
    return one.tokens[0] if one.tokens is not None else _ids(one, 0)


def _text(one: Prompts) -> str:
    return _texts(one)[0]
