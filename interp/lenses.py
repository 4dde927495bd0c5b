"""Lenses: what a model would say if it stopped after a layer.

The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens") hands the residual stream after each layer to
the final norm and the unembedding, as if no layer came after it. After the last layer that is the model's own output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp import readouts, results
from interp._arguments import check_scored
from interp.prompts.places import At
from interp.results import Variable
from interp.run import capture, chunks_of
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPairs

LOGITS_AT_ONCE = 2**24
"""Logits that are held at a time."""

_OF_ANSWERS = {
    "rank": ("tokens", "rank of the answer"),
    "probability": ("", "probability of the answer"),
    "log_probability": ("nats", "log-probability of the answer"),
}


def logit_lens(
    model: HookedTransformer,
    pairs: PromptPairs | AnsweredPrompts,
    *,
    at: At = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """What the model would answer if it stopped after each layer, read at some places of the clean prompts.

    At each place it is read what the model would say there. At the role ``answer`` this is the model's answer in the
    making. At an earlier word it says whether the answer can be read there already.

    Args:
        model: the model. Its final norm, unembedding, and what it does to its logits (a cap, a scale) are applied.
        pairs: prompts with their answers. Of an answer of several tokens the scored one is looked at, or the first.
        at: roles (each at its last token) or positions, as in ``capture``; None is every role.
        progress: True for a bar, or called with places read and places in all.

    Returns:
        Dims prompt, layer (after which the model would stop), role or position, and answer (``correct`` and, where
        there is one, ``incorrect``). ``rank``: tokens above the answer's, 0 is the top, ties count against it;
        ``probability`` in [0, 1]; ``log_probability`` in nats, at most 0; all (prompt, layer, role, answer).
        ``kl`` (prompt, layer, role), in nats and at least 0: KL(model's output || lens), which is 0 after the last
        layer.

    Raises:
        InterpError: no prompts with answers, an unknown role, a position outside a prompt, or a model without the
            stream after a layer.

    >>> from interp import AnsweredPrompts, HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> said = AnsweredPrompts.from_texts("The cat is black. The cat is", correct=" black", tokenizer=model)
    >>> lens = lenses.logit_lens(model, said)
    >>> int(lens["rank"].sel(role="answer", answer="correct")[0, -1]), float(lens["kl"][0, -1, 0])
    (0, 0.0)
    """
    check_scored(model, pairs)
    prompts = pairs.clean
    stream = capture(model, prompts, "resid_post", at=list(prompts.roles) if at is None else at)["resid_post"]
    axis = str(stream.dims[2])
    streams = torch.from_numpy(np.ascontiguousarray(stream.transpose("prompt", axis, "layer", "d_model").values))
    ids = {"correct": pairs.correct} | ({} if pairs.incorrect is None else {"incorrect": pairs.incorrect})
    found = _read(model, streams, ids, progress)
    places, answers = ("prompt", "layer", axis), ("answer",)
    variables = {
        name: Variable((*places, *answers), found[name], units, said) for name, (units, said) in _OF_ANSWERS.items()
    }
    variables["kl"] = Variable(places, found["kl"], "nats", "divergence of the lens from the model's own output")
    return results.build(
        variables,
        coords={"layer": stream["layer"].values, axis: stream[axis].values, "answer": list(ids)},
        title="Logit lens",
        question="What would the model say at each word if it stopped after each layer?",
        reading="rank 0: the answer is what the lens says. Divergence 0: the lens says what the model says in the end. "
        "The stream of an early layer was not made for the unembedding, so that a poor lens does not show that nothing "
        "is known there.",
        source='nostalgebraist 2020, "interpreting GPT: the logit lens"; divergence as in Belrose et al. 2023, '
        "arXiv 2303.08112",
        of=(model, pairs),
        seed=0,
        dims={"answer": "the answer to the clean prompt (correct), or to the corrupted one (incorrect)"},
    )


def _read(
    model: HookedTransformer,
    streams: Float[Tensor, "prompt place layer d_model"],
    ids: Mapping[str, Int[np.ndarray, " prompt"]],
    progress: Progress | None,
) -> dict[str, Float[np.ndarray, "prompt layer place ..."]]:
    """The four quantities, [prompt, layer, place] and, but for ``kl``, [answer]."""
    n_prompts, n_places, n_layers, _ = streams.shape
    cells = streams.flatten(0, 1)
    prompt_of = np.repeat(np.arange(n_prompts), n_places)
    out: dict[str, Float[np.ndarray, "cell layer answer"]]
    out = {name: np.empty((len(cells), n_layers, len(ids))) for name in _OF_ANSWERS}
    kl: Float[np.ndarray, "cell layer"] = np.empty((len(cells), n_layers))
    meter = Meter(progress, len(cells))
    for rows in chunks_of(len(cells), max(1, LOGITS_AT_ONCE // (n_layers * model.cfg.vocab_out))):
        logits = model.unembed(cells[rows]).cpu()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        for a, tokens in enumerate(ids.values()):
            token = torch.as_tensor(np.repeat(tokens[prompt_of[rows]], n_layers))
            for name in _OF_ANSWERS:
                value = readouts.readout(name)(logits.flatten(0, 1), token)
                out[name][rows, :, a] = value.reshape(-1, n_layers).numpy()
        said = logits.log_softmax(dim=-1).double()
        final = said[:, -1:]
        kl[rows] = (final.exp() * (final - said)).sum(dim=-1).numpy()
        meter.add(len(rows))
    return {
        name: values.reshape(n_prompts, n_places, *values.shape[1:]).swapaxes(1, 2)
        for name, values in {**out, "kl": kl}.items()
    }
