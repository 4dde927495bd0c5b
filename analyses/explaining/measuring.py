"""What of one word arrives at another, and what carries it: the results behind an explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.explaining.beginning import Beginning, Seen
from analyses.explaining.clock import Clock
from interp import results, summary
from interp.prompts import PromptPairs
from interp.prompts.swaps import SOURCE, TARGET
from interp.prompts.template import ANSWER
from interp.results import Variable
from interp.run import ids_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer

ROUNDING = 16
"""A difference of two streams of fewer units in the last place of their data type, as a share of their length, counts
as none."""
SHOWN_WORDS = 3
"""How many words that gain, and how many that lose most probability are kept after each token."""


FOR_ARRIVAL = 0.3
"""Share of the time that may be spent on what arrives and what is predicted, with all the other words together."""
FEWEST_WORDS = 2
"""So many other words are compared however short the time."""


def affordable(beginning: Beginning, pairs: PromptPairs, clock: Clock) -> PromptPairs:
    """The counterfactuals for which there is time, by what the first of them takes; ``FEWEST_WORDS`` at least."""
    if clock.seconds is None or len(pairs) <= FEWEST_WORDS:
        return pairs
    before = clock.spent
    for measure in (arrival, predictions):
        measure(beginning, pairs.select([0]))
    each = (clock.spent - before) / 2  # the sentence ran beside it
    return pairs.select(range(max(FEWEST_WORDS, min(len(pairs), int(clock.left(FOR_ARRIVAL) / each)))))


# ---- what arrives ----


def arrival(beginning: Beginning, pairs: PromptPairs) -> tuple[xr.Dataset, xr.Dataset]:
    """``reach`` and ``sources``: how much of each stream differs, and from where each head at the target takes it.

    The sentence is run beside its counterfactuals, so that what is the same in both is rounded in the same way.
    """
    at = int(pairs.clean.spans(TARGET)[0, 1]) - 1
    sentence = ids_of(pairs.clean.select([0]))
    differences, shares, written = [], [], []
    for rows in beginning.rows(pairs.corrupted):
        seen = beginning.watch(torch.cat((sentence, ids_of(pairs.corrupted)[rows])), at)
        length = np.linalg.norm(seen.stream[:1], axis=-1)
        difference = np.linalg.norm(seen.stream[:1] - seen.stream[1:], axis=-1) / np.where(length > 0, length, 1.0)
        before = np.zeros((*difference.shape[:2], beginning.length))
        differences.append(np.concatenate((before, difference), axis=2))
        mixed, share = _mixed(seen)
        shares.append(share)
        written.append(_written(beginning.model, mixed, seen.stream[:, -1, at - beginning.length]))
    return _reach(beginning.model, pairs, np.concatenate(differences)), _sources(
        beginning.model, pairs, np.concatenate(shares), np.concatenate(written)
    )


def arrived(reach: xr.Dataset, position: int | None = None) -> xr.Dataset:
    """How much of a stream after the last layer differs, as a share of its length: ``summary.mean``.

    Args:
        reach: what ``arrival`` found.
        position: of which token; None is the last one of the target.
    """
    at = int(np.flatnonzero(reach["role"].values == TARGET)[-1]) if position is None else position
    return summary.mean(reach["difference"].isel(layer=-1, position=at))


def reaches(reach: xr.Dataset, position: int | None = None) -> bool:
    """Whether anything beyond rounding arrives there; the arguments are those of ``arrived``."""
    return float(arrived(reach, position)["mean"]) > float(reach.attrs["rounding"])


def _mixed(
    seen: Seen,
) -> tuple[Float[np.ndarray, "row layer head d_head"], Float[np.ndarray, "row layer head position"]]:
    """What each head mixes otherwise than in the first row, and the share of it that comes from each position.

    A head writes the sum over positions of weight times value, so that its difference is a sum over positions too; a
    share is a part's length along the whole.
    """
    mixed = seen.weights[..., None] * seen.values.transpose(0, 1, 3, 2, 4)
    moved = mixed[:1] - mixed[1:]
    whole = moved.sum(axis=3)
    length = (whole**2).sum(axis=-1)[..., None]
    share = np.einsum("rlhpx,rlhx->rlhp", moved, whole) / np.where(length > 0, length, np.nan)
    return whole, share


def _written(
    model: HookedTransformer, mixed: Float[np.ndarray, "row layer head d_head"], last: Float[np.ndarray, "side d_model"]
) -> Float[np.ndarray, "row layer head"]:
    """How much of the target's difference after the last layer each head writes there itself, along it."""
    difference = last[:1] - last[1:]
    length = (difference**2).sum(axis=-1)[:, None]
    parts = []
    for layer in range(mixed.shape[1]):
        weight = model.W_O(layer).double().cpu().numpy()
        along = np.einsum("hxd,rd->rhx", weight, difference)
        parts.append((mixed[:, layer] * along).sum(axis=-1) / np.where(length > 0, length, np.nan))
    return np.stack(parts, axis=1)


def _reach(model: HookedTransformer, pairs: PromptPairs, share: Float[np.ndarray, "row layer position"]) -> xr.Dataset:
    positions = np.arange(share.shape[2])
    return results.build(
        {
            "difference": Variable(
                ("prompt", "layer", "position"),
                share,
                "fraction",
                "difference of the streams, as a share of their length",
            )
        },
        coords={"layer": np.arange(share.shape[1]), "position": positions, **_labels(pairs, positions)},
        title="What arrives",
        question="How much of the residual stream at each word differs when the source is another word?",
        reading="0: the stream is the same whatever the source is. 0.1: the difference is a tenth as long as the "
        "stream. On the page: the mean over the other words.",
        source="",
        of=(model, pairs),
        seed=0,
        extra={"rounding": ROUNDING * torch.finfo(model.dtype).eps},
    )


def predictions(beginning: Beginning, pairs: PromptPairs) -> xr.Dataset:
    """What is predicted from the target on: KL, and the words whose probability changes most."""
    model = beginning.model
    start, length = int(pairs.clean.spans(TARGET)[0, 1]) - 1, int(pairs.clean.lengths[0])
    positions = np.arange(start, length)
    logits = beginning.logits(pairs.corrupted, positions)
    clean = beginning.logits(pairs.clean.select([0]), positions)[0].double().log_softmax(dim=-1)
    kl, expected = torch.empty(logits.shape[:2], dtype=torch.float64), torch.zeros_like(clean)
    for i, row in enumerate(logits):  # in float64 one by one: a vocabulary is long, and so may the sentence be
        other = row.double().log_softmax(dim=-1)
        kl[i] = (clean.exp() * (clean - other)).sum(dim=-1)
        expected += other.exp() / len(logits)
    moved = expected - clean.exp()
    words = torch.cat([(sign * moved).topk(min(SHOWN_WORDS, moved.shape[-1])).indices for sign in (-1, 1)], dim=-1)
    ids = torch.unique(words)
    probability = torch.stack([row.double().log_softmax(dim=-1)[:, ids].exp() for row in logits])
    return results.build(
        {
            "kl": Variable(("prompt", "position"), kl.numpy(), "nats", "change of what is predicted after a token"),
            "clean_probability": Variable(
                ("position", "word"), clean.exp()[:, ids].numpy(), "", "probability after the sentence's own tokens"
            ),
            "corrupted_probability": Variable(
                ("prompt", "position", "word"), probability.numpy(), "", "probability in a counterfactual"
            ),
        },
        coords={
            "position": positions,
            "word": [_token(model, int(token)) for token in ids],
            **_labels(pairs, positions),
        },
        title="What changes in what is predicted",
        question="What does the model predict otherwise, from the target on, when the source is another word?",
        reading="0 nats: the same prediction. The words are those that gain or lose most probability.",
        source="Kullback and Leibler 1951",
        of=(model, pairs),
        seed=0,
        dims={"word": "next token, of those whose probability changes most"},
    )


def _token(model: HookedTransformer, token: int) -> str:
    reader: Any = model.tokenizer
    return str(reader.decode([token]))


def _labels(pairs: PromptPairs, positions: np.ndarray) -> dict[str, tuple[str, list[str]]]:
    """What stands at each position of the sentence, and of which of the two words it is part."""
    tokens = (pairs.clean.tokens or ((),))[0]
    role = np.full(int(pairs.clean.lengths[0]), "", dtype="U8")
    for name in (SOURCE, TARGET):
        role[slice(*pairs.clean.spans(name)[0])] = name
    labels = {
        "token": ("position", [tokens[i] for i in positions]),
        "role": ("position", [str(role[i]) for i in positions]),
    }
    messages = [name for name in pairs.clean.roles if name not in (SOURCE, TARGET, ANSWER)]
    if messages:
        said = np.full(int(pairs.clean.lengths[0]), "", dtype="U64")
        for name in messages:
            said[slice(*pairs.clean.spans(name)[0])] = name
        labels["message"] = ("position", [str(said[i]) for i in positions])
    return labels


def _sources(
    model: HookedTransformer,
    pairs: PromptPairs,
    share: Float[np.ndarray, "row layer head position"],
    written: Float[np.ndarray, "row layer head"],
) -> xr.Dataset:
    positions = np.arange(share.shape[3])
    return results.build(
        {
            "share": Variable(("prompt", "layer", "head", "position"), share, "fraction", "taken from a position"),
            "written": Variable(
                ("prompt", "layer", "head"), written, "fraction", "part of the target's difference that the head writes"
            ),
        },
        coords={
            "layer": np.arange(share.shape[1]),
            "head": np.arange(share.shape[2]),
            "position": positions,
            **_labels(pairs, positions),
        },
        title="From where each head takes it",
        question="From which words does a head take what it writes otherwise at the target?",
        reading="The shares of a head sum to 1; a negative one works against the others. A share says nothing of how "
        "much the head matters.",
        source="weights times values: Elhage et al. 2021, transformer-circuits.pub/2021/framework",
        of=(model, pairs),
        seed=0,
    )
