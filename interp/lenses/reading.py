"""Reading lenses side by side: every place of the stream translated, unembedded, and held against the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp import results, stats
from interp import sites as site_table
from interp._arguments import check_scored
from interp.errors import InterpError
from interp.lenses.appearance import CRITERIA, appears
from interp.prompts.places import At, places_of, positions_of
from interp.prompts.template import ANSWER
from interp.results import Variable
from interp.run import capture, chunks_of
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPairs

LOGITS_AT_ONCE = 2**24
"""Logits that are held at a time."""
BINS = 10
"""Bins of the calibration error."""
STREAM = ("resid_post", "resid_mid", "resid_pre")
"""The states of the residual stream, the last one first."""

_OF_ANSWERS = {
    "rank": ("tokens", "rank of the answer"),
    "probability": ("", "probability of the answer"),
    "log_probability": ("nats", "log-probability of the answer"),
}
_OF_PLACES = {
    "kl": ("nats", "divergence of the lens from the model's own output"),
    "top_probability": ("", "probability of the token that the lens puts first"),
    "top_right": ("", "whether the token that the lens puts first is the one that follows"),
}


class Translator(Protocol):
    """What makes of the stream at a place what the final norm and the unembedding can read."""

    def translate(self, stream: Float[Tensor, "... d_model"], site: str, layer: int) -> Float[Tensor, "... d_model"]:
        """The stream as the last layer would have left it."""
        ...


class Identity:
    """The logit lens: the stream is read as it is.

    >>> Identity().translate(torch.ones(2), "resid_post", 0).tolist()
    [1.0, 1.0]
    """

    def translate(self, stream: Float[Tensor, "... d_model"], site: str, layer: int) -> Float[Tensor, "... d_model"]:
        """The stream itself."""
        return stream


IDENTITY = Identity()


def stream_sites(model: HookedTransformer, sites: Sequence[str] | None) -> tuple[str, ...]:
    """The states of the stream that are read: those asked for, or all that the model has.

    Raises:
        InterpError: a site that is no state of the stream, or that the model does not have.

    >>> from interp import HookedTransformer
    >>> stream_sites(HookedTransformer.from_pretrained("mini"), None)
    ('resid_post', 'resid_mid', 'resid_pre')
    """
    if sites is None:
        return tuple(name for name in STREAM if model.has_site(name))
    chosen = site_table.check_sites(sites)
    for one in chosen:
        if not one.is_stream:
            raise InterpError(
                f"Site '{one.name}' is no state of the residual stream, which is what a lens reads. Choose from: "
                f"{', '.join(STREAM)}."
            )
    return tuple(model.check_site(one.name).name for one in chosen)


def read(
    model: HookedTransformer,
    pairs: PromptPairs | AnsweredPrompts,
    lenses: Mapping[str, Translator],
    *,
    at: At,
    sites: Sequence[str] | None,
    progress: Progress | None,
) -> xr.Dataset:
    """Several lenses on the same prompts: what ``logit_lens`` returns, with the axis ``lens`` after ``prompt``."""
    check_scored(model, pairs)
    chosen = stream_sites(model, sites)
    prompts = pairs.clean
    captured = capture(
        model, prompts, list(dict.fromkeys((*chosen, "resid_post"))), at=list(prompts.roles) if at is None else at
    )
    axis = str(captured["resid_post"].dims[2])
    ids = {"correct": pairs.correct} | ({} if pairs.incorrect is None else {"incorrect": pairs.incorrect})
    follows = _following(pairs, captured[axis].values.tolist())
    arrays = _measured(model, captured, chosen, lenses, ids, follows, axis, progress)
    places = ("prompt", "lens", "site", "layer", axis)
    variables = {
        name: Variable((*places, "answer"), arrays[name], units, said) for name, (units, said) in _OF_ANSWERS.items()
    } | {name: Variable(places, arrays[name], units, said) for name, (units, said) in _OF_PLACES.items()}
    coords = {
        "lens": list(lenses), "site": list(chosen), "layer": captured["layer"].values, axis: captured[axis].values,
        "answer": list(ids),
    }  # fmt: skip
    variables |= _calibration(arrays["top_probability"], arrays["top_right"])
    variables |= _appearance(variables, coords)
    return results.build(
        variables,
        coords={**coords, "ci_bound": ["lower", "upper"], "criterion": list(CRITERIA[: len(ids)])},
        title="Lenses",
        question="What would the model say at each word if it stopped after each layer?",
        reading="rank 0: the answer is what the lens says. Divergence 0: the lens says what the model says in the end. "
        "The stream of an early layer was not made for the unembedding, so that a poor lens does not show that nothing "
        "is known there. The layer at which the answer appears is the first by which half of the prompts have it; "
        "prompts in which it never appears count as later than every layer.",
        source="",
        of=(model, pairs),
        seed=stats.SEED,
        extra={"calibration_bins": BINS},
        dims={
            "lens": "how the stream is translated before it is read",
            "answer": "the answer to the clean prompt (correct), or to the corrupted one (incorrect)",
            "criterion": "when the answer has appeared: it stays the top token (top), or is more probable than the "
            "incorrect one (ahead)",
        },
    )


def _following(pairs: PromptPairs | AnsweredPrompts, labels: Sequence[str | int]) -> Int[np.ndarray, "prompt place"]:
    """The token that follows at each place: the correct answer where it is asked for; -1 where the prompt ends."""
    prompts = pairs.clean
    rows = np.arange(len(prompts))
    columns = []
    for label in places_of(labels):
        at = prompts.role_positions(label) if isinstance(label, str) else positions_of(prompts, label)
        inside = at + 1 < prompts.lengths
        token = np.where(inside, prompts.ids[rows, np.where(inside, at + 1, 0)], -1)
        columns.append(np.where((label == ANSWER) | (at == pairs.answer_position), pairs.correct, token))
    return np.stack(columns, axis=1)


def _measured(
    model: HookedTransformer,
    captured: xr.Dataset,
    sites: Sequence[str],
    lenses: Mapping[str, Translator],
    ids: Mapping[str, Int[np.ndarray, " prompt"]],
    follows: Int[np.ndarray, "prompt place"],
    axis: str,
    progress: Progress | None,
) -> dict[str, Float[np.ndarray, "prompt lens site layer place ..."]]:
    """The quantities that are measured of each prompt; those of the answers have the axis answer too."""
    n_prompts, n_layers, n_places, _ = captured["resid_post"].shape
    n_cells, prompt_of = n_prompts * n_places, np.repeat(np.arange(n_prompts), n_places)
    shape = (n_cells, len(lenses), len(sites), n_layers)
    out = {name: np.empty((*shape, len(ids))) for name in _OF_ANSWERS} | {name: np.empty(shape) for name in _OF_PLACES}
    streams = {site: _cells(captured[site], axis) for site in {*sites, "resid_post"}}
    meter = Meter(progress, n_cells * len(lenses) * len(sites))
    rows_at_once = max(1, LOGITS_AT_ONCE // ((n_layers + 1) * model.cfg.vocab_out))
    for rows in chunks_of(n_cells, rows_at_once):
        tokens = {name: torch.as_tensor(of_prompt[prompt_of[rows]]) for name, of_prompt in ids.items()}
        following = torch.as_tensor(follows.reshape(-1)[rows])
        for i, j, logits in _logits(model, streams, sites, lenses, rows):
            for name, values in _quantities(logits, tokens, following).items():
                out[name][rows, i, j, : values.shape[1]] = values.numpy()
            meter.add(len(rows))
    if _known_twice(sites):  # before a layer is after the one below
        before, after = sites.index("resid_pre"), sites.index("resid_post")
        for filled in out.values():
            filled[:, :, before, 1:] = filled[:, :, after, :-1]
    return {
        name: np.moveaxis(values.reshape(n_prompts, n_places, *values.shape[1:]), 1, 4) for name, values in out.items()
    }


def _cells(stream: xr.DataArray, axis: str) -> Float[Tensor, "cell layer d_model"]:
    values = np.ascontiguousarray(stream.transpose("prompt", axis, "layer", "d_model").values)
    return torch.from_numpy(values).flatten(0, 1)


def _logits(
    model: HookedTransformer,
    streams: Mapping[str, Float[Tensor, "cell layer d_model"]],
    sites: Sequence[str],
    lenses: Mapping[str, Translator],
    rows: Int[np.ndarray, " row"],
) -> Iterator[tuple[int, int, Float[Tensor, "row layer_and_output vocab"]]]:
    """The numbers of a lens and of a site, and what that lens says there at each layer; last, what the model says."""
    output = streams["resid_post"][rows, -1:]
    for i, lens in enumerate(lenses.values()):
        for j, site in enumerate(sites):
            # After the last layer every lens says what the model says: the same numbers, to the last bit.
            layers = range(streams[site].shape[1] - (site == "resid_post"))
            if site == "resid_pre" and _known_twice(sites):
                layers = range(1)
            read_there = [lens.translate(streams[site][rows, layer], site, layer)[:, None] for layer in layers]
            logits = model.unembed(torch.cat([*read_there, output], dim=1)).cpu()
            logits = torch.cat([logits, logits[:, -1:]], dim=1) if site == "resid_post" else logits
            yield i, j, logits.to(torch.promote_types(logits.dtype, torch.float32))


def _known_twice(sites: Sequence[str]) -> bool:
    """Whether the stream between two layers is read under both of its names."""
    return {"resid_pre", "resid_post"} <= set(sites)


def _quantities(
    logits: Float[Tensor, "row layer_and_output vocab"],
    tokens: Mapping[str, Int[Tensor, " row"]],
    following: Int[Tensor, " row"],
) -> dict[str, Tensor]:
    """Each [row, layer], those of the answers [row, layer, answer]: the read-outs of these names, of one softmax."""
    lens, said = logits[:, :-1], logits.log_softmax(dim=-1)
    final, said = said[:, -1:].double(), said[:, :-1]

    def at(values: Tensor, token: Tensor) -> Float[Tensor, "row layer 1"]:
        return values.gather(2, token[:, None, None].expand(-1, values.shape[1], 1))

    log_probability = torch.cat([at(said, token) for token in tokens.values()], dim=-1)
    above = [
        torch.count_nonzero(lens >= at(lens, token), dim=-1) - 1 for token in tokens.values()
    ]  # as rank: ties count
    highest, top = said.max(dim=-1)
    right = (top == following[:, None]).double()
    likely = final.exp()
    return {
        "rank": torch.stack(above, dim=-1).double(),
        "probability": log_probability.exp().double(),
        "log_probability": log_probability.double(),
        "kl": torch.stack([(likely[:, 0] * (final[:, 0] - one)).sum(dim=-1) for one in said.unbind(1)], dim=1),
        "top_probability": highest.double().exp(),
        "top_right": torch.where(following[:, None] >= 0, right, torch.nan),
    }


def _calibration(
    confidence: Float[np.ndarray, "prompt lens site layer place"],
    right: Float[np.ndarray, "prompt lens site layer place"],
) -> dict[str, Variable]:
    """How far the lens's confidence is from its hits, over prompts and places."""
    dims, said = ("lens", "site", "layer"), "expected calibration error of the token that the lens puts first"
    shape = confidence.shape[1:-1]
    cells = [np.moveaxis(values, -1, 1).reshape(len(values), values.shape[-1], -1) for values in (confidence, right)]
    error = stats.calibration_error(*cells, bins=BINS)
    ends = np.stack([end.reshape(shape) for end in stats.calibration_interval(*cells, bins=BINS)], axis=-1)
    return {
        "calibration_error": Variable(dims, error.reshape(shape), "", said),
        "calibration_error_interval": Variable(
            (*dims, "ci_bound"), ends, "", f"95% bootstrap interval of {said}"
        ),
    }  # fmt: skip


def _appearance(variables: Mapping[str, Variable], coords: Mapping[str, object]) -> dict[str, Variable]:
    """By which layer half of the prompts have the answer, and in how many it never appears."""
    of = xr.Dataset({name: (variables[name].dims, variables[name].values) for name in _OF_ANSWERS}, coords=dict(coords))
    each = appears(of)
    dims = tuple(str(dim) for dim in each.dims[1:])
    ends = np.stack(stats.median_interval(each.values), axis=-1)
    said = "first layer by which half of the prompts have the answer; infinite: they never do"
    return {
        "appears": Variable(dims, stats.median(each.values), "layer", said),
        "appears_interval": Variable((*dims, "ci_bound"), ends, "layer", f"95% bootstrap interval of {said}"),
        "never": Variable(dims, np.isinf(each.values).sum(axis=0), "prompts", "prompts in which it never appears"),
    }
