"""Attribution to the words of the prompt: how far each token's own input accounts for a number, by gradients.

Three ways that libraries for language models offer side by side (Inseq, Sarti et al. 2023, arXiv 2302.13942), for one
number per prompt: saliency (Simonyan et al. 2014, arXiv 1312.6034), input times gradient (Shrikumar et al. 2017, arXiv
1605.01713) and integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365). None of them changes the prompt; an
exact patch of a word does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp import results, run
from interp._arguments import check_scored
from interp.attribution.gradients import Differentiable, Edit, Place, differentiating
from interp.attribution.result import check_gradient
from interp.errors import InterpError, shown, whole_number
from interp.prompts import AnsweredPrompts, PromptPairs
from interp.readouts import AnyReadout, readout
from interp.results import Variable
from interp.sweeps import Meter, Progress, Reading, checked_reading

if TYPE_CHECKING:
    from interp.model import HookedTransformer

INPUT: Place = ("resid_pre", 0)
"""Where the tokens enter. Positions are added there too, and are no part of what is attributed."""
METHODS = ("input_x_gradient", "integrated_gradients", "saliency")


@differentiating
def input_attribution(
    model: HookedTransformer,
    pairs: PromptPairs | AnsweredPrompts,
    *,
    metric: AnyReadout = "log_probability",
    steps: int = 16,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How far each token of the clean prompts accounts for the metric, by three kinds of gradient.

    Integrated gradients go from a prompt in which every token's input is the mean of its prompt's to the prompt as it
    is, at the nodes of a Gauss-Legendre rule. They are complete: over all tokens they sum to ``value - baseline``, but
    for the rule's error, which ``incomplete`` states.

    Args:
        model: the model.
        pairs: prompts with their answers: ``PromptPairs`` or ``AnsweredPrompts``.
        metric: a name from ``interp.readouts`` that has a gradient, or a read-out.
        steps: nodes of the rule.
        progress: True for a bar, or called with passes done and passes in all, a pass being one prompt forward and
            backward; each prompt takes ``steps + 2``.

    Returns:
        ``input_x_gradient`` and ``integrated_gradients`` (prompt, position) in the metric's units, of either sign;
        ``saliency`` (prompt, position), the length of the gradient, 0 or more; ``value`` and ``baseline`` (prompt), the
        metric of the prompt and of the one of equal tokens; ``incomplete`` (prompt), the sum of the integrated
        gradients minus the difference of these two. NaN stands beyond a prompt's end.

    Raises:
        InterpError: a metric without a gradient, or steps that are no number from 1.

    >>> from interp import HookedTransformer
    >>> from interp.prompts import AnsweredPrompts
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> asked = AnsweredPrompts.from_texts("The cat is black. The cat is", correct=" black", tokenizer=model)
    >>> found = input_attribution(model, asked)
    >>> whole = found.integrated_gradients.sum("position")
    >>> bool((abs(whole - (found.value - found.baseline)) < 0.2).all())  # nats
    True
    """
    check_scored(model, pairs)
    check_gradient(metric, "denoising", at_base=True)
    if whole_number(steps, "steps") < 1:
        raise InterpError(f"steps is {shown(steps)}. Ask for at least one.")
    reading = checked_reading(model, pairs, metric)
    place = reading.readout.place
    engine = Differentiable.of(model, INPUT[0], *(() if place is None else (place.site,)))
    prompts = pairs.clean
    found = {name: np.full(prompts.ids.shape, np.nan) for name in METHODS}
    ends = np.zeros((2, len(prompts)))
    report = Meter(progress, (steps + 2) * len(prompts)).add
    for rows in engine.batches(prompts):
        index = torch.from_numpy(rows)
        part = reading.rows(index).with_known(model)
        batch = _of_batch(engine, run.ids_of(prompts)[rows], part, prompts.lengths[rows], steps, report)
        for name in METHODS:
            found[name][rows] = batch[name]
        ends[:, rows] = batch["ends"]
    whole = np.nansum(found["integrated_gradients"], axis=1)
    units = readout(metric).units
    per_token = ("prompt", "position")
    return results.build(
        {
            "input_x_gradient": Variable(per_token, found["input_x_gradient"], units, "input times gradient"),
            "integrated_gradients": Variable(per_token, found["integrated_gradients"], units, "integrated gradients"),
            "saliency": Variable(per_token, found["saliency"], f"{units} per unit length".strip(), "saliency"),
            "value": Variable(("prompt",), ends[0], units, "metric of the prompt"),
            "baseline": Variable(("prompt",), ends[1], units, "metric where all tokens are equal"),
            "incomplete": Variable(("prompt",), whole - (ends[0] - ends[1]), units, "what the sum is off by"),
        },
        coords={"position": np.arange(prompts.ids.shape[1])},
        title="Attribution to tokens by gradients",
        question="Which tokens of the prompt account for the answer, by gradients?",
        reading="Input times gradient and integrated gradients: positive where the token raises the metric. Saliency: "
        "how much the metric changes per unit of change of the token's input, 0 or more.",
        source="Simonyan et al. 2014; Shrikumar et al. 2017; Sundararajan et al. 2017; as in Sarti et al. 2023 (Inseq)",
        of=(model, pairs),
        seed=0,
        extra={"metric": readout(metric).name, "steps": steps},
    )  # fmt: skip


def _of_batch(
    engine: Differentiable,
    ids: Int[Tensor, "prompt position"],
    reading: Reading,
    lengths: Int[np.ndarray, " prompt"],
    steps: int,
    report: Callable[[int], None],
) -> dict[str, Float[np.ndarray, "prompt position"]]:
    there = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
    tokens = _inputs(engine, ids)
    present = there[..., None].to(tokens)
    mean = (tokens * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True)
    away = (tokens - mean) * present

    def lessened(share: float) -> Edit:
        return lambda stream: stream - (1 - share) * away

    def at(share: float) -> tuple[Tensor, Tensor]:
        tape = engine.record(ids, reading, [INPUT], edits={INPUT: lessened(share)})
        found = tape.metric.detach(), tape.gradient()[INPUT]
        report(len(ids))
        return found

    value, gradient = at(1.0)
    baseline, _ = at(0.0)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    mean_gradient = torch.zeros_like(gradient)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        mean_gradient += weight / 2 * at((node + 1) / 2)[1]
    parts = {
        "input_x_gradient": (tokens * gradient).sum(dim=-1),
        "integrated_gradients": (away * mean_gradient).sum(dim=-1),
        "saliency": gradient.norm(dim=-1),
    }
    masked = {name: torch.where(there, part.cpu(), torch.nan).double().numpy() for name, part in parts.items()}
    return {**masked, "ends": torch.stack((value, baseline)).cpu().double().numpy()}


def _inputs(engine: Differentiable, ids: Int[Tensor, "prompt position"]) -> Float[Tensor, "prompt position d_model"]:
    """What each token brings into the stream, without its position."""
    stream = engine.activations(ids, [INPUT])[INPUT]
    if engine.blocks is not None:
        return stream if engine.blocks.place is None else stream - engine.blocks.place[: ids.shape[1]]
    if not engine.model.has_site("pos_embed"):
        return stream
    return stream - engine.activations(ids, [("pos_embed", 0)])[("pos_embed", 0)]
