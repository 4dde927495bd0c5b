"""What heads do, by measurement: each role against what the same head does on shuffled prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp import results, stats
from interp._arguments import check_model, check_pairs
from interp.errors import InterpError, whole_number
from interp.heads.choice import End, ends, looking_most
from interp.heads.direct import final_norm, logit_direction
from interp.heads.entering import Entering, check_adds
from interp.heads.scores import of_prompts
from interp.interventions import Ablate, AblationKind, Intervention, check_ablation, parse_edge
from interp.model.frozen import FrozenNorm
from interp.prompts import PromptPairs
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts, bos_ids, usable_ids
from interp.results import Variable
from interp.run import capture, chunks_of, rows_per_batch
from interp.sweeps import ablation_sweep, score, sweep
from interp.sweeps.progress import Meter, Progress, listener

if TYPE_CHECKING:
    from interp.model import HookedTransformer

LEVEL = 0.05
"""Chance of even one false role among all heads and measures, at most."""
PREFERRED = 0.75
"""Share of prompts on which a model has to prefer the correct answer, for roles that are about the answer."""
PUSHES = 0.05
"""Share of the mean logit difference that a head has to push directly, for others to make up for it."""

Of: TypeAlias = Literal["random tokens", "pairs"]


class Measure(NamedTuple):
    """A measure of heads: what it says, its units, the least mean above the null that counts, and its prompts."""

    meaning: str
    units: str
    least: float
    of: Of


MEASURES: Mapping[str, Measure] = {
    "previous token": Measure("attention to the token before", "share", 0.25, "random tokens"),
    "duplicate token": Measure("attention to where the same token stood before", "share", 0.25, "random tokens"),
    "induction": Measure("attention to the token after that", "share", 0.25, "random tokens"),
    "copying": Measure("direct push towards the token after that", "logits", 0.0, "random tokens"),
    "looking": Measure("attention from the destination to the source", "share", 0.1, "pairs"),
    "carrying": Measure("share of the runs' difference that is written from the source", "fraction", 0.05, "pairs"),
    "moving": Measure("share of the gap that comes back with the head's clean output", "fraction", 0.05, "pairs"),
    "writing against": Measure("direct push away from the answer", "fraction", 0.05, "pairs"),
    "raised by ablation": Measure("gain of the answer without the head", "fraction", 0.05, "pairs"),
    "self-repair": Measure("share of the lost push that later heads make up for", "fraction", 0.1, "pairs"),
}
"""What is measured of every head."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "previous token": ("previous token",),
    "duplicate token": ("duplicate token",),
    "induction": ("induction", "copying"),
    "mover": ("looking", "carrying", "moving"),
    "inhibition": ("writing against", "raised by ablation"),
    "self-repair": ("self-repair",),
}
"""Role of a head -> the measures that must all be there."""

_ABOUT_THE_ANSWER = ("mover", "inhibition", "self-repair")


def roles(
    model: HookedTransformer,
    pairs: PromptPairs | None = None,
    *,
    edge: str | None = None,
    n: int = 24,
    block: int = 12,
    repaired: int = 8,
    ablation: AblationKind = "mean",
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Name the heads that do one of six things, each only where it beats a null from shuffled prompts.

    On sequences of random tokens that come twice (Olsson et al. 2022):

    * *previous token*: attention to the token before. Null: attention to another earlier token, drawn at random.
    * *duplicate token*: attention from a token's second place to its first. Null: attention to the same place in the
      prompt whose first half is shuffled.
    * *induction*: attention to the token after the first place, with the same null; and *copying*: what the head adds
      to the logit of that token by the direct path, minus the mean over the block's tokens, with the same null.

    On pairs, from role A (the source) to role B:

    * *mover*: it *looks* from B at A (null: at another earlier word); what it writes at B from A alone *carries* the
      stream from corrupted to clean (null: from that other word); and its clean output at B, put into the corrupted
      run, *moves* the answer (null: no change).
    * *inhibition*: it *writes against* the answer by the direct path (null: the answers of another prompt), and the
      answer *rises* when the head is ablated (null: no change). In shares of the mean logit difference.
    * *self-repair* (McGrath et al. 2023): when it is ablated, later heads push more towards what it pushed towards
      (null: no change). In shares of the direct push that is lost; norms have the scale of the
      unablated run. Of the heads with the largest push.

    A measure counts where its mean lies above its null by at least ``least`` and significantly so: measured and null
    are exchanged within prompts (sign flips), p is corrected over all heads by max-T (Westfall and Young 1993) and over
    the measures by Bonferroni. Roles about the answer are named only where the model prefers it on 75% of the prompts.

    Args:
        model: the model.
        pairs: clean and corrupted prompts; without them only random tokens are looked at.
        edge: B<-A, such as ``"noun<-color"``; None is the vocabulary's source, and the word from which any one head
            looks at it most.
        n: sequences of random tokens. Below 10 sequences, or pairs, no p-value can be small enough for a name.
        block: tokens that come twice, or fewer where the context or the vocabulary is short.
        repaired: how many heads are ablated to look for self-repair.
        ablation: what an ablated head's output is replaced by, as in ``interp.interventions.Ablate``. A later head that
            waits for the output to be gone altogether shows with ``"zero"`` alone.
        seed: of everything random.
        progress: True for a bar, or called with steps done and steps in all.

    Returns:
        ``measured`` and ``null`` (prompt, measure, layer, head), in the measure's ``measure_units``; NaN where a
        measure was not taken, and for the prompts that only the other measures have. ``excess`` = measured - null.
        ``p_value`` (measure, layer, head), corrected. ``named`` (head_role, layer, head): 1 where the head has the
        role. ``least`` (measure). The attribute ``edge`` is B<-A; ``left_out`` says why measures are missing.

    Raises:
        InterpError: an unknown role, a vocabulary or context too small for random tokens that repeat.

    >>> from interp import HookedTransformer, heads
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = heads.roles(model, n=8)
    >>> bool(found.named.sel(head_role="previous token", layer=0, head=0))
    True
    """
    check_model(model, pairs)
    check_ablation(ablation)
    rng = np.random.default_rng(whole_number(seed, "seed", least=0))
    cfg, reasons = model.cfg, list[str]()
    taken: dict[str, tuple[Grid, Grid]] = {}
    told = Meter(listener(progress), 6)
    taken |= _of_random_tokens(model, whole_number(n, "n", least=2), whole_number(block, "block", least=4), rng, told)
    about, preferred = "", True
    if pairs is not None:
        check_pairs(model, pairs)
        dest, src = _edge(model, pairs, edge)
        about = f"{dest.name}<-{src.name}"
        taken |= _of_moving(model, pairs, dest, src, rng, reasons)
        told.add(1)
        try:
            found, preferred = _of_answer(
                model, pairs, whole_number(repaired, "repaired", least=1), ablation, rng, seed
            )
            taken |= found
        except InterpError as error:
            reasons.append(str(error))
        told.add(1)
    else:
        told.add(2)
    if not preferred:
        reasons.append(f"The model prefers the answer on fewer than {PREFERRED:.0%} of the prompts.")
    size = max(len(measured) for measured, _ in taken.values())
    shape = (size, len(MEASURES), cfg.n_layers, cfg.n_heads)
    measured, null = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, name in enumerate(MEASURES):
        if name in taken:
            for into, values in zip((measured, null), taken[name], strict=True):
                into[: len(values), i] = values
    excess = measured - null
    p_value = _p_values(excess, seed)
    counts = {
        name: (p_value[i] <= LEVEL) & (_mean(excess[:, i]) >= max(measure.least, 1e-12))
        for i, (name, measure) in enumerate(MEASURES.items())
    }
    named = np.stack([
        np.all([counts[name] for name in needed], axis=0) & (preferred or role not in _ABOUT_THE_ANSWER)
        for role, needed in ROLES.items()
    ])  # fmt: skip
    dims = ("measure", "layer", "head")
    return results.build(
        {
            "measured": Variable(("prompt", *dims), measured, "", "measure of the head"),
            "null": Variable(("prompt", *dims), null, "", "the same on shuffled prompts"),
            "excess": Variable(("prompt", *dims), excess, "", "measure above its null"),
            "p_value": Variable(dims, p_value, "", "p-value, corrected over heads and measures"),
            "named": Variable(("head_role", "layer", "head"), named.astype(np.int8), "", "heads that have the role"),
            "least": Variable(("measure",), [one.least for one in MEASURES.values()], "", "least excess that counts"),
        },
        coords={
            "prompt": np.arange(size),
            "measure": list(MEASURES),
            "measure_units": ("measure", [one.units for one in MEASURES.values()]),
            "head_role": list(ROLES),
            "layer": np.arange(cfg.n_layers),
            "head": np.arange(cfg.n_heads),
        },
        title="What heads do",
        question="Which heads look back, find repeats, continue them, move a word, hold the answer back, are repaired?",
        reading="excess: how far the measure lies above its null from shuffled prompts. A role is named only where all "
        "of its measures are significant, corrected over heads and measures, and large enough to count.",
        source="Olsson et al. 2022, arXiv 2209.11895; Wang et al. 2022, arXiv 2211.00593; McGrath et al. 2023, arXiv "
        "2307.15771; Westfall and Young 1993",
        of=(model, *([pairs] if pairs is not None else [])),
        seed=seed,
        extra={
            **({} if pairs is not None else {**of_prompts(Prompts.from_ids([[0]])), "n_prompts": n}),
            "edge": about,
            "ablation_kind": ablation,
            "n_random": n,
            "level": LEVEL,
            "left_out": " ".join(reasons),
        },
        dims={"measure": "what is measured of a head", "head_role": "what a head does"},
    )


Grid: TypeAlias = Float[np.ndarray, "prompt layer head"]


def _mean(values: Float[np.ndarray, "prompt ..."]) -> Float[np.ndarray, " ..."]:
    """Mean over the prompts that there are; -inf where there is none."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis=0)
    return np.asarray(np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), -np.inf))


def _p_values(
    excess: Float[np.ndarray, "prompt measure layer head"], seed: int
) -> Float[np.ndarray, "measure layer head"]:
    """Sign flips, max-T over the heads of a measure, Bonferroni over the measures that were taken; 1 where none was."""
    found = np.ones(excess.shape[1:])
    taken = [i for i in range(excess.shape[1]) if np.isfinite(excess[:, i]).any()]
    for i in taken:
        rows = np.isfinite(excess[:, i]).any(axis=(1, 2))
        cells = excess[rows, i].reshape(int(rows.sum()), -1)
        p = stats.max_t_p_values(cells, seed=seed) * len(taken)
        found[i] = np.minimum(p, 1.0).reshape(found[i].shape)
    return found


# ---- random tokens that come twice ----


def _of_random_tokens(
    model: HookedTransformer, n: int, block: int, rng: np.random.Generator, told: Meter
) -> dict[str, tuple[Grid, Grid]]:
    """The measures on random tokens, each with its null."""
    lead = bos_ids(model)
    vocabulary = usable_ids(model)
    block = min(block, (model.cfg.n_ctx - len(lead)) // 2, len(vocabulary))
    if block < 4:
        raise InterpError(
            f"Tokens that come twice need 4 different ones and a context for 8: {model.name} has {len(vocabulary)} "
            f"tokens and a context of {model.cfg.n_ctx}."
        )
    first = np.stack([rng.choice(vocabulary, size=block, replace=False) for _ in range(n)])
    shuffled = np.stack([row[_derangement(block, rng)] for row in first])
    before = np.tile(np.array(lead, dtype=np.int64), (n, 1))
    repeated, broken = (np.concatenate([before, half, first], axis=1) for half in (first, shuffled))
    second = len(lead) + block + np.arange(block)
    copies = model.cfg.vocab == model.cfg.vocab_out and getattr(model.bridge, "ln_final", None) is not None
    found = _empty(("previous token", "duplicate token", "induction", *(["copying"] if copies else [])), n, model)
    for rows in chunks_of(n, max(1, rows_per_batch(model, repeated.shape[1]) // 4)):
        patterns = [_patterns(model, ids[rows]) for ids in (repeated, broken)]
        dest = np.arange(len(lead) + 2, repeated.shape[1])
        other = np.stack([rng.integers(0, dest - 1) for _ in rows])
        values, null = found["previous token"]
        values[rows] = _at(patterns[0], dest, np.tile(dest - 1, (len(rows), 1)))
        null[rows] = _at(patterns[0], dest, other)
        for name, places, back in (("duplicate token", second, block), ("induction", second[:-1], block - 1)):
            for into, pattern in zip(found[name], patterns, strict=True):
                into[rows] = _at(pattern, places, np.tile(places - back, (len(rows), 1)))
        if copies:
            for into, ids in zip(found["copying"], (repeated, broken), strict=True):
                into[rows] = _copied(model, ids[rows], second[:-1], first[rows])
    told.add(4)
    return found


def _empty(names: Sequence[str], n: int, model: HookedTransformer) -> dict[str, tuple[Grid, Grid]]:
    shape = (n, model.cfg.n_layers, model.cfg.n_heads)
    return {name: (np.zeros(shape), np.zeros(shape)) for name in names}


def _derangement(size: int, rng: np.random.Generator) -> Int[np.ndarray, " size"]:
    """An order in which nothing stays where it was, nor comes after what it came after."""
    while True:
        order = rng.permutation(size)
        if (order != np.arange(size)).all() and (np.diff(order) != 1).all():
            return order


def _patterns(model: HookedTransformer, ids: Int[np.ndarray, "prompt position"]) -> np.ndarray:
    """[prompt, layer, head, dest, src]."""
    return np.asarray(capture(model, Prompts.from_ids(ids), ["pattern"])["pattern"].values)


def _at(pattern: np.ndarray, dest: Int[np.ndarray, " place"], src: Int[np.ndarray, "prompt place"]) -> Grid:
    """Mean attention over some edges of each prompt."""
    prompt = np.arange(len(pattern))[:, None]
    picked: Float[np.ndarray, "prompt place layer head"] = pattern.transpose(0, 3, 4, 1, 2)[prompt, dest[None], src]
    found: Grid = picked.mean(axis=1, dtype=np.float64)
    return found


def _copied(
    model: HookedTransformer,
    ids: Int[np.ndarray, "prompt position"],
    dest: Int[np.ndarray, " place"],
    block: Int[np.ndarray, "prompt token"],
) -> Grid:
    """What each head adds to the logit of the next token beyond the mean of the block's, averaged over places."""
    last = model.cfg.n_layers - 1
    prompts = Prompts.from_ids(ids)
    stream = torch.from_numpy(capture(model, prompts, ["resid_post"], layers=[last])["resid_post"].values[:, 0, dest])
    written = _written(model, prompts, None, positions=dest)
    unembed = model.W_U().detach().double().cpu().T
    target = unembed[torch.from_numpy(ids[:, dest + 1])] - unembed[torch.from_numpy(block)].mean(1, keepdim=True)
    along = FrozenNorm.of(model, final_norm(model), stream).read_along(target)
    return _pushed(model, written, along).mean(dim=2).numpy()


class _Written(NamedTuple):
    """What the heads of every layer wrote at some places: their ``z``, and what attention added to the stream."""

    z: Float[Tensor, "prompt layer place head d_head"]
    added: Float[Tensor, "prompt layer place d_model"]


def _written(
    model: HookedTransformer,
    prompts: Prompts,
    roles: Sequence[str] | None,
    *,
    positions: Int[np.ndarray, " place"] | None = None,
    changes: Sequence[Intervention] = (),
) -> _Written:
    """At the last token of some roles, or at some positions of all prompts, in a run with some changes."""
    found = capture(
        model, prompts, ["z", "attn_out"], at=None if roles is None else list(roles), interventions=list(changes)
    )
    place = "position" if roles is None else "role"
    if positions is not None:
        found = found.isel(position=positions)
    first = ("prompt", "layer", place)
    z, added = found["z"].transpose(*first, "head", "d_head"), found["attn_out"].transpose(*first, "d_model")
    return _Written(*(torch.from_numpy(one.values).double() for one in (z, added)))


def _pushed(
    model: HookedTransformer, written: _Written, along: Float[Tensor, "prompt place d"]
) -> Float[Tensor, "prompt layer place head"]:
    """Each head's output, as it enters the stream, along a direction."""
    made = []
    for layer in range(written.z.shape[1]):
        z = written.z[:, layer]
        back = Entering.of(model, layer, z, written.added[:, layer]).back(along)
        made.append((z * torch.einsum("hxd,ptd->pthx", model.W_O(layer).double().cpu(), back)).sum(-1))
    return torch.stack(made, dim=1)


# ---- from role A to role B ----


def _edge(model: HookedTransformer, pairs: PromptPairs, edge: str | None) -> tuple[End, End]:
    """The word that looks and the word that is looked at."""
    if edge is None:
        readers, read = ends(pairs, None, pairs.vocabulary.source)
        return looking_most(model, pairs, readers, read), read
    dest, src = parse_edge(edge)
    (reader,), read = ends(pairs, dest, src)
    return reader, read


def _of_moving(
    model: HookedTransformer, pairs: PromptPairs, dest: End, src: End, rng: np.random.Generator, reasons: list[str]
) -> dict[str, tuple[Grid, Grid]]:
    """The three measures of a mover; ``reasons`` are told why one is missing."""
    other = _other_words(dest.positions, src.positions, rng)
    spans = {"dest": dest.span, "src": src.span, "other": np.stack([other, other + 1], axis=1)}
    runs = [prompts.with_roles({**prompts.roles, **spans}) for prompts in (pairs.clean, pairs.corrupted)]
    rows = np.arange(len(pairs))
    looks = [
        capture(model, prompts, ["pattern"], at=["dest"])["pattern"].isel(role=0).values.astype(np.float64)
        for prompts in runs
    ]
    found = {"looking": (looks[0][rows, :, :, src.positions], looks[0][rows, :, :, other])}
    try:
        found["carrying"] = _carried(model, runs, looks, (src.positions, other))
    except InterpError as error:
        reasons.append(str(error))
    at_dest = sweep(model, pairs, "z", "denoising", roles=[dest.name])
    patched = at_dest["patched"].isel(role=0).transpose("prompt", "layer", "head").values
    gap = float((at_dest["clean"] - at_dest["corrupted"]).mean())
    moved = (patched - at_dest["corrupted"].values[:, None, None]) / (gap or np.nan)
    found["moving"] = (moved, np.zeros_like(moved))
    return found


def _carried(
    model: HookedTransformer,
    runs: Sequence[Prompts],
    looks: Sequence[Float[np.ndarray, "prompt layer head src"]],
    sources: tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, " prompt"]],
) -> tuple[Grid, Grid]:
    """The share of the runs' difference at the destination that each head writes from the source, and from the other.

    Raises:
        InterpError: what a head writes is no share of the stream in this model.
    """
    adds = [name for name in ("resid_pre", "attn_out", "mlp_out") if model.has_site(name)]
    found = [capture(model, prompts, [*adds, "resid_post"], at=["dest"]).isel(role=0) for prompts in runs]
    streams = [one["resid_post"].values.astype(np.float64) for one in found]
    written = [_written(model, prompts, ["dest"]) for prompts in runs]
    values = [capture(model, prompts, ["v"], at=["src", "other"])["v"].values.astype(np.float64) for prompts in runs]
    difference = streams[0] - streams[1]
    size = (difference**2).sum(axis=-1)
    along = torch.from_numpy(difference / np.where(size > 0, size, np.nan)[..., None])  # so that the difference is 1
    carried = _empty(["carrying"], len(difference), model)["carrying"]
    per_kv_head, rows = model.cfg.n_heads // model.cfg.n_kv_heads, np.arange(len(difference))
    for layer in range(model.cfg.n_layers):
        weight, seen = model.W_O(layer).double().cpu(), []
        for run, wrote in zip(found, written, strict=True):
            here = {name: torch.from_numpy(run[name].values[:, layer]) for name in (*adds, "resid_post")}
            check_adds(model, layer, [here[name] for name in adds], here["resid_post"])
            entering = Entering.of(model, layer, wrote.z[:, layer, 0], wrote.added[:, layer, 0])
            seen.append(torch.einsum("hxd,pd->phx", weight, entering.back(along[:, layer])).numpy())
        for into, place, at in zip(carried, (0, 1), sources, strict=True):
            parts = [
                look[rows, layer, :, at] * (np.repeat(value[:, layer, place], per_kv_head, axis=1) * one).sum(-1)
                for look, value, one in zip(looks, values, seen, strict=True)
            ]
            into[:, layer] = parts[0] - parts[1]
    return carried


def _other_words(
    dest: Int[np.ndarray, " prompt"], src: Int[np.ndarray, " prompt"], rng: np.random.Generator
) -> Int[np.ndarray, " prompt"]:
    """Another word before each destination, drawn at random; the first of the prompt only where there is no other."""
    made = []
    for at, read in zip(dest, src, strict=True):
        words = [i for i in range(1, at) if i != read] or [0]
        made.append(rng.choice(words))
    return np.array(made)


# ---- the answer ----


def _of_answer(
    model: HookedTransformer,
    pairs: PromptPairs,
    repaired: int,
    ablation: AblationKind,
    rng: np.random.Generator,
    seed: int,
) -> tuple[dict[str, tuple[Grid, Grid]], bool]:
    """The measures about the answer, and whether the model prefers it."""
    if pairs.answer_policy == "sum_logprob" or pairs.continuation:
        raise InterpError("What pushes an answer is measured of one token: give the pairs an answer of one token.")
    clean = score(model, pairs)
    preferred = float((clean > 0).mean()) >= PREFERRED
    size = float(np.abs(clean).mean()) or 1.0
    last = model.cfg.n_layers - 1
    at_answer = capture(model, pairs.clean, ["resid_post"], at=[ANSWER], layers=[last])["resid_post"].values[:, 0, 0]
    stream = torch.from_numpy(at_answer)
    ids = [torch.from_numpy(np.array(one)) for one in (pairs.correct, pairs.incorrect)]
    order = torch.from_numpy(_derangement_of(len(pairs), rng))
    pushed = []
    for right, wrong in (ids, [one[order] for one in ids]):
        along, _ = logit_direction(model, stream, right, wrong)
        pushed.append(_head_push(model, pairs.clean, along, []))
    found = {"writing against": (-pushed[0] / size, -pushed[1] / size)}
    if len({tuple(row) for row in pairs.clean.rows()}) > 1:  # else a mean or a resample is the prompt's own
        effect = ablation_sweep(model, pairs, "z", ablation, seed=seed)["ablation_effect"]
        raised = effect.transpose("prompt", "layer", "head").values / size
        found["raised by ablation"] = (raised, np.zeros_like(raised))
        along, _ = logit_direction(model, stream, *ids)
        found["self-repair"] = _repair(model, pairs.clean, along, pushed[0], repaired, PUSHES * size, ablation, seed)
    return found, preferred


def _derangement_of(n: int, rng: np.random.Generator) -> Int[np.ndarray, " prompt"]:
    """Each prompt's partner: another prompt, each once."""
    order = rng.permutation(n)
    made = np.empty(n, dtype=np.int64)
    made[order] = np.roll(order, 1)
    return made


def _head_push(
    model: HookedTransformer, prompts: Prompts, along: Float[Tensor, "prompt d_model"], changes: list[Intervention]
) -> Grid:
    """Each head's output at the answer along a direction, in a run with some changes."""
    return _pushed(model, _written(model, prompts, [ANSWER], changes=changes), along.unsqueeze(1))[:, :, 0].numpy()


def _repair(
    model: HookedTransformer,
    prompts: Prompts,
    along: Float[Tensor, "prompt d_model"],
    pushed: Grid,
    count: int,
    least: float,
    ablation: AblationKind,
    seed: int,
) -> tuple[Grid, Grid]:
    """For the heads with the largest push: how much more later heads push when it is ablated, in shares of its push."""
    mean = pushed.mean(axis=0)
    measured = np.full(pushed.shape, np.nan)
    largest = np.argsort(-np.abs(mean), axis=None, kind="stable")[:count]
    for layer, head in zip(*np.unravel_index(largest, mean.shape), strict=True):
        if layer + 1 < model.cfg.n_layers and abs(mean[layer, head]) >= least:
            change = Ablate(site="z", kind=ablation, seed=seed, layers=[int(layer)], heads=[int(head)])
            after = _head_push(model, prompts, along, [change])
            lost = (pushed - after)[:, layer, head].mean()
            measured[:, layer, head] = (after - pushed)[:, layer + 1 :].sum(axis=(1, 2)) / (lost or np.nan)
    return measured, np.where(np.isfinite(measured), 0.0, np.nan)
