"""Why a head looks: its score between two words, split into what wrote the query's part and what wrote the key's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp import results
from interp._arguments import check_pairs, check_prompts
from interp.errors import UnaskableError, whole_number
from interp.heads.choice import End, check_order, end_of
from interp.heads.entering import TOLERANCE
from interp.heads.head import Head, Kind
from interp.heads.reading import HeadReader, capture_at, stream_chunks, written
from interp.heads.turning import Turn
from interp.model.live_sites import sinks
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.results import Variable
from interp.sites import SITES
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

DEST, SRC = "dest", "src"
KINDS: tuple[Kind, Kind] = ("q", "k")

SOURCE = (
    "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (QK circuit, norm scales frozen); "
    "Vaswani et al. 2017, arXiv 1706.03762, equation 1"
)


def score_attribution(
    model: HookedTransformer,
    prompts: PromptPairs | Prompts,
    *,
    head: tuple[int, int],
    dest: str | int,
    src: str | int,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Split a head's attention score from one word to another into pairs of writers.

    The query of ``dest`` is a sum over everything that wrote to the stream there: the embedding, positions, every
    earlier head, every MLP, and biases. The key of ``src`` likewise. The score is their dot product times the model's
    scale, so it is a sum over pairs, one writer from each side; norms have the scale that they had in this run.
    Rotary positions turn both sides' parts alike. Where the model caps its scores (c tanh(s / c)), what is split is
    the score before the cap.

    Args:
        model: any whose queries and keys are a linear map, a rotation and a norm of the normalised stream.
        prompts: prompts, or pairs: then the corrupted ones are split too.
        head: (layer, head).
        dest: the word that looks: a role (its last token) or a position (negative: from the end).
        src: the word that is looked at; not after ``dest``.
        progress: True for a bar, or called with prompts done and prompts in all.

    Returns:
        ``term`` (prompt, query_writer, key_writer): one pair's part of the score, of any sign, without units, as scores
        are. ``query_part`` (prompt, query_writer) and ``key_part`` (prompt, key_writer) are its sums over the other
        side. ``score`` (prompt): what the model computed, before the softmax; ``weight`` (prompt): after it, in [0, 1].
        ``fixed`` (prompt), where the model adds a bias by distance to its scores: the terms and it sum to the score.
        Of pairs also ``corrupted_score``, ``corrupted_weight``, and what the terms lose from clean to corrupted:
        ``term_change`` = clean - corrupted (and ``query_part_change``, ``key_part_change``), which sum to the scores'
        difference. The attribute ``largest_error`` is the furthest that a sum is from its score, as a share of the
        largest absolute score.

    Raises:
        InterpError: an unknown head, role or position, or a model whose scores are no such sum; the message says why.

    >>> from interp import HookedTransformer, heads, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = heads.score_attribution(model, pairs, head=(1, 0), dest="answer", src="color")
    >>> bool((abs(found.term.sum(["query_writer", "key_writer"]) - found.score) < 1e-3).all())
    True
    """
    clean = _checked(model, prompts)
    one = Head.of(model, head)
    places = end_of(clean, dest), end_of(clean, src)
    check_order(*places)
    runs = {"": clean} if not isinstance(prompts, PromptPairs) else {"": clean, "corrupted_": prompts.corrupted}
    meter = Meter(progress, len(runs) * len(clean))
    split = {name: _split(model, one, part, places, meter) for name, part in runs.items()}
    whole = split[""]
    dtype = np.float64 if model.dtype == torch.float64 else np.float32
    variables = _variables(whole, split.get("corrupted_"), dtype)
    size = max(float(np.abs(part.score).max()) for part in split.values())
    return results.build(
        variables,
        coords={
            "prompt": np.arange(len(clean)),
            "query_writer": list(whole.query_writers),
            "key_writer": list(whole.key_writers),
        },
        title="Why a head looks",
        question=f"What makes {one.label} look from {places[0].name} to {places[1].name}?",
        reading="term: one pair's part of the score before the softmax, what wrote the query's part against what wrote "
        "the key's; all pairs sum to the score. A positive one makes the head look more. Norms have the scale of this "
        "run.",
        source=SOURCE,
        of=(model, *([prompts] if isinstance(prompts, PromptPairs) else [])),
        seed=0,
        extra={
            **({} if isinstance(prompts, PromptPairs) else of_prompts(prompts)),
            "layer": one.layer,
            "head": one.head,
            "head_label": one.label,
            "dest": places[0].name,
            "src": places[1].name,
            "scale": whole.scale,
            "cap": whole.cap,
            "largest_error": max(part.error for part in split.values()) / max(size, 1e-30),
        },
        dims=WRITER_DIMS,
    )


OTHERS = "others"


def largest(found: xr.Dataset, n: int) -> xr.Dataset:
    """The same split with the ``n`` writers of each side that matter most, and one that is the sum of the others.

    A writer matters by its largest mean absolute part, of the clean run or of the change, in any pair. The order stays
    that of writing, and everything still sums to the whole.

    Args:
        found: what ``score_attribution`` or ``writes`` returned.
        n: writers to keep on each side, at least 1.

    >>> from interp import HookedTransformer, heads, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = heads.score_attribution(model, pairs, head=(2, 0), dest="answer", src="color")
    >>> [int(heads.largest(found, 4).sizes[side]) for side in ("query_writer", "key_writer")]
    [5, 5]
    """
    whole_number(n, "n", least=1)
    for side in [side for side in ("query_writer", "key_writer", "value_writer") if side in found.dims]:
        names = [str(name) for name in found.data_vars if side in found[name].dims]
        means = [abs(found[name]).mean("prompt") for name in names if not name.endswith(("_part", "_part_change"))]
        size = np.max([one.max([dim for dim in one.dims if dim != side]).values for one in means], axis=0)
        if len(size) <= n:
            continue
        kept = np.sort(np.argsort(-size, kind="stable")[:n])
        rest = np.setdiff1d(np.arange(len(size)), kept)
        parts = {}
        for name in names:
            summed = found[name].isel({side: rest}).sum(side, keep_attrs=True, skipna=False)
            both = xr.concat([found[name].isel({side: kept}), summed.expand_dims({side: [OTHERS]})], dim=side)
            parts[name] = both.transpose(*found[name].dims)
        meaning = found[side].attrs
        found = found.drop_dims(side).assign(parts)
        found = found.assign_coords({side: (side, found[side].values.astype(str), meaning)})
    return found


WRITER_DIMS = {
    "query_writer": "part of the model that wrote to the stream of the word that looks",
    "key_writer": "part of the model that wrote to the stream of the word that is looked at",
}


def of_prompts(prompts: Prompts) -> dict[str, str | int]:
    """What a result states of prompts that belong to no task.

    >>> of_prompts(Prompts.from_ids([[1, 2]]))["n_prompts"]
    1
    """
    return {"task": "", "n_prompts": len(prompts), "tokens_sha256": prompts.sha256()}


def _checked(model: HookedTransformer, prompts: Any) -> Prompts:
    if isinstance(prompts, PromptPairs):
        check_pairs(model, prompts)
        return prompts.clean
    check_prompts(model, prompts)
    found: Prompts = prompts
    return found


def _variables(whole: Split, other: Split | None, dtype: Any) -> dict[str, Variable]:
    both, query, key = ("prompt", "query_writer", "key_writer"), ("prompt", "query_writer"), ("prompt", "key_writer")
    variables = {
        "term": Variable(both, whole.terms.astype(dtype), "", "part of the score, by what wrote query and key"),
        "query_part": Variable(query, whole.terms.sum(2), "", "part of the score, by what wrote the query"),
        "key_part": Variable(key, whole.terms.sum(1), "", "part of the score, by what wrote the key"),
        "score": Variable(("prompt",), whole.score, "", "attention score before the softmax"),
        "weight": Variable(("prompt",), whole.weight, "share", "attention weight"),
    }
    if whole.fixed.any():
        variables["fixed"] = Variable(("prompt",), whole.fixed, "", "what the model adds to the score by distance")
    if other is not None:
        change = whole.terms - other.terms
        variables |= {
            "term_change": Variable(both, change.astype(dtype), "", "change of the part, clean - corrupted"),
            "query_part_change": Variable(
                query, change.sum(2), "", "change by what wrote the query, clean - corrupted"
            ),
            "key_part_change": Variable(key, change.sum(1), "", "change by what wrote the key, clean - corrupted"),
            "corrupted_score": Variable(("prompt",), other.score, "", "attention score in the corrupted run"),
            "corrupted_weight": Variable(("prompt",), other.weight, "share", "attention weight in the corrupted run"),
        }
    return variables


# ---- one run ----


@dataclass(frozen=True)
class Split:
    """The scores of some prompts, split: float64, ``terms`` [prompt, query_writer, key_writer].

    Attributes:
        query_writers: labels.
        key_writers: labels.
        terms: their parts.
        fixed: what the model adds to the score itself.
        score: as the model has it, but before a cap.
        weight: as the model has it.
        scale: what a dot product is multiplied by.
        cap: of the scores; 0 where there is none.
        error: the furthest that a sum is from its score.
    """

    query_writers: tuple[str, ...]
    key_writers: tuple[str, ...]
    terms: Float[np.ndarray, "prompt query_writer key_writer"]
    fixed: Float[np.ndarray, " prompt"]
    score: Float[np.ndarray, " prompt"]
    weight: Float[np.ndarray, " prompt"]
    scale: float
    cap: float
    error: float


def _split(model: HookedTransformer, head: Head, prompts: Prompts, places: tuple[End, End], meter: Meter) -> Split:
    dest, src = places
    prompts = prompts.with_roles({DEST: dest.span, SRC: src.span})
    reader = HeadReader.of(model, head, prompts.ids.shape[1], ("q", "k"))
    rules: list[Rule] = []
    found: list[dict[str, np.ndarray]] = []
    labels: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for rows in stream_chunks(model, head.layer, prompts):
        part = prompts.select(rows)
        own = _own(model, head, part, reader)
        tried = rules or Rule.known(model, head, part.ids.shape[1], reader.turns["q"])
        rule = fitting(tried, model, head, own, dest.positions[rows])
        rules = [rule]  # the other prompts are held to it
        stream = written(model, part, head.layer, [DEST, SRC])
        at_dest, at_src = stream.parts.unbind(dim=1)
        query = reader.parts("q", at_dest, stream.labels, dest.positions[rows], own["q"], own.get("rot_q"))
        key = reader.parts("k", at_src, stream.labels, src.positions[rows], own["k"], own.get("rot_k"))
        labels = query.labels, key.labels
        at = torch.from_numpy(src.positions[rows]).unsqueeze(1)
        seen = own["pattern"].gather(1, at).squeeze(1)
        fixed = torch.zeros(len(rows), dtype=torch.float64)
        if rule.fixed is not None:
            fixed = rule.fixed[torch.from_numpy(dest.positions[rows]), at[:, 0]]
        terms = rule.scale * torch.einsum("pqx,pkx->pqk", query.parts, key.parts)
        score = own["scores"] if "scores" in own and not rule.cap else rule.raw(own, dest.positions[rows])
        score = score.gather(1, at).squeeze(1)
        if not bool(torch.isfinite(score).all()) or not bool((seen > 0).all()):
            raise UnaskableError(
                f"{head.label} of {model.name} does not see '{src.name}' from '{dest.name}' in every prompt: its "
                "attention ends before. Choose a src that is nearer, or another head.",
                by=["dest", "src"],
            )
        found.append({"terms": terms.numpy(), "fixed": fixed.numpy(), "score": score.numpy(), "weight": seen.numpy()})
        meter.add(len(rows))
    (rule,) = rules
    joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    error = float(np.abs(joined["terms"].sum((1, 2)) + joined["fixed"] - joined["score"]).max())
    return Split(
        query_writers=labels[0], key_writers=labels[1], terms=joined["terms"], fixed=joined["fixed"],
        score=joined["score"], weight=joined["weight"], scale=rule.scale, cap=rule.cap, error=error,
    )  # fmt: skip


def _own(model: HookedTransformer, head: Head, prompts: Prompts, reader: HeadReader) -> dict[str, Tensor]:
    """What the model itself computed: queries at ``dest``, keys at ``src`` and everywhere, pattern and scores."""
    layer, turns = [head.layer], {kind: reader.turns[kind] for kind in KINDS}
    shown = [kind for kind, turn in turns.items() if turn is not None and turn.strength is None]
    rows = ["pattern", *(["scores"] if model.has_site("scores") else [])]
    queries, keys = ([kind, *(f"rot_{kind}" for one in shown if one == kind)] for kind in KINDS)
    found = capture_at(model, prompts, [*queries, *rows, *keys], [DEST, SRC], layer)
    every = capture_at(model, prompts, keys[-1:], None, layer)[keys[-1]][:, 0, :, head.kv_head]
    made = {name: found[name][:, 0, 0, head.head] for name in (*queries, *rows)}
    made |= {name: found[name][:, 0, 1, head.kv_head] for name in keys}
    for kind, turn, role in zip(KINDS, turns.values(), (DEST, SRC), strict=True):
        if turn is not None and kind not in shown:
            made[f"rot_{kind}"] = turn(made[kind], torch.from_numpy(prompts.role_positions(role)))
            every = turn(every, torch.arange(every.shape[1]).expand(every.shape[:2])) if kind == "k" else every
    return {**made, "keys": every}


@dataclass(frozen=True)
class Rule:
    """How a head makes scores of dot products: ``c tanh((scale * q.k + fixed) / c)``, without a cap where c is 0.

    Attributes:
        scale: what a dot product is multiplied by.
        cap: c.
        fixed: [dest, src] what is added by distance; None for nothing.
    """

    scale: float
    cap: float
    fixed: Float[Tensor, "dest src"] | None

    @classmethod
    def known(cls, model: HookedTransformer, head: Head, length: int, turn: Turn | None) -> list[Rule]:
        """The rules by which the head may attend, for prompts of so many tokens."""
        cap = float(getattr(model.bridge.cfg, "attn_scores_soft_cap", None) or 0.0)
        fixed = _fixed(model, head, length) if model.has_site("scores") else None
        return [cls(scale, max(cap, 0.0), fixed) for scale in _scales(model, head, turn)]

    def scores(self, own: dict[str, Tensor], dest: Int[np.ndarray, " prompt"]) -> Float[Tensor, "prompt src"]:
        """The scores from ``dest`` to every position, not masked, from the model's own queries and keys."""
        raw = self.raw(own, dest)
        return self.cap * torch.tanh(raw / self.cap) if self.cap else raw

    def raw(self, own: dict[str, Tensor], dest: Int[np.ndarray, " prompt"]) -> Float[Tensor, "prompt src"]:
        """The same before a cap."""
        raw = self.scale * torch.einsum("px,psx->ps", own.get("rot_q", own["q"]), own["keys"])
        return raw if self.fixed is None else raw + self.fixed[torch.from_numpy(dest)]

    def error(
        self, model: HookedTransformer, head: Head, own: dict[str, Tensor], dest: Int[np.ndarray, " prompt"]
    ) -> float:
        """How far the softmax of these scores is from the model's own attention, over the sources that it sees."""
        pattern = own["pattern"].nan_to_num()
        scores = self.scores(own, dest).nan_to_num().masked_fill(pattern == 0, -torch.inf)
        sink = sinks(model, head.layer)
        if sink is not None:
            column = sink[head.head].double().cpu().expand(len(scores), 1)
            made = torch.cat((scores, column), dim=1).softmax(dim=1)[:, :-1]
        else:
            made = scores.softmax(dim=1)
        return float((made - pattern).abs().max())


def fitting(
    rules: Sequence[Rule], model: HookedTransformer, head: Head, own: dict[str, Tensor], dest: Int[np.ndarray, " p"]
) -> Rule:
    """The one of some rules that comes nearest to the model's own attention.

    Raises:
        UnaskableError: the model attends by another rule; says how far off the weights are.
    """
    errors = [rule.error(model, head, own, dest) for rule in rules]
    best, allowed = int(np.argmin(errors)), TOLERANCE.get(model.dtype, 5e-2)
    if not errors[best] <= allowed:
        raise UnaskableError(
            f"{head.label} of {model.name} ({model.cfg.architecture}) attends by another rule than the softmax of "
            f"q·k, or turns its queries unseen: its weights are {errors[best]:.2g} off, where {allowed:g} is allowed, "
            "so its scores cannot be split. Choose another head or model, or use path patching or knockout."
        )
    return rules[best]


def _scales(model: HookedTransformer, head: Head, turn: Turn | None) -> list[float]:
    """What models multiply a dot product by; which one a model does is seen in its attention."""
    attention = model.bridge.blocks[head.layer].attn
    stated = getattr(getattr(attention, "original_component", attention), "scaling", None)
    usual = model.cfg.d_head**-0.5
    seen = [] if turn is None or turn.strength is None else [turn.strength]
    return [*([float(stated)] if isinstance(stated, float) else []), usual, usual / (head.layer + 1), 1.0, *seen]


def _fixed(model: HookedTransformer, head: Head, length: int) -> Float[Tensor, "dest src"] | None:
    """What a model adds to its scores whatever its queries are; None for nothing."""
    kept: list[Tensor] = []
    hooks: list[Any] = [
        (SITES["q"].hook_name(head.layer), torch.zeros_like),
        (SITES["scores"].hook_name(head.layer), lambda scores: kept.append(scores[0, head.head].double().cpu())),
    ]
    nothing = torch.zeros(1, length, model.cfg.d_model, device=model.device, dtype=model.dtype)
    model.resume(nothing, head.layer, stop_at_layer=head.layer + 1, hooks=hooks)
    found = torch.where(torch.isfinite(kept[0]), kept[0], 0.0)
    found = torch.where(found < -1e4, 0.0, found)  # some mask with a large number
    return found if bool(found.any()) else None
