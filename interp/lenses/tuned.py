"""The tuned lens: an affine translator for each place of the stream (Belrose et al. 2023, arXiv 2303.08112)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp._arguments import check_model
from interp._kept import fingerprint
from interp.attribution.gradients import differentiating
from interp.captures import Capture
from interp.errors import InterpError, shown, whole_number
from interp.lenses import reading
from interp.lenses.reading import stream_sites
from interp.lenses.streams import SKIP_FIRST, CapturedStreams, Point, Streams
from interp.lenses.trained import TrainedLens, as_translators
from interp.run import Texts, as_prompts, chunks_of
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer


class TunedLens(TrainedLens):
    """An affine translator for each place of the stream, trained to say there what the model says in the end.

    >>> import tempfile
    >>> from interp import HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lens = lenses.tuned_lens(model, ["The cat is black.", "The dog is white."], sites=["resid_post"], steps=0)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     lenses.TunedLens.load(lens.save(f"{place}/lens.safetensors"), model)
    TunedLens('mini', 3 places of resid_post)
    """

    kind = "tuned"
    title = "Tuned lens"
    source = "tuned lens: Belrose et al. 2023, arXiv 2303.08112"


@differentiating
def tuned_lens(
    model: HookedTransformer,
    inputs: Texts,
    *,
    sites: Sequence[str] | None = None,
    steps: int = 50,
    tokens: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    ridge: float = 0.1,
    skip_first: int = SKIP_FIRST,
    seed: int = 0,
    captured: Capture | None = None,
    progress: Progress | None = None,
) -> TunedLens:
    """Train an affine translator for each place of the stream, by the divergence from what the model says in the end.

    A translator starts in closed form, as the ridge regression of the last layer's stream on the stream at its place.
    Then AdamW lowers KL(model's output || lens), with a learning rate that falls to 0. Both pull the translator towards
    the identity, which is the logit lens. After the last layer there is none. The model's weights are not touched.

    Args:
        model: the model, in float32 or better.
        inputs: texts, token ids or prompts to train on; every token of them, but the first.
        sites: states of the stream; None is all that the model has.
        steps: of AdamW; 0 leaves the closed form.
        tokens: about how many tokens a step looks at: whole prompts, drawn without replacement in each round.
        learning_rate: of AdamW, at the first step.
        weight_decay: of AdamW, on how far a translator is from the identity.
        ridge: of the closed form, as a share of the stream's mean variance; above 0.
        skip_first: leading tokens of each prompt that are left out.
        seed: of the order of the prompts.
        captured: the streams of these prompts on the disk (``capture(model, inputs, [*sites, "resid_post"],
            to=DIR)``), so that they are read and not computed again at each step.
        progress: True for a bar, or called with steps done and steps in all (the closed form is one).

    Returns:
        The lens, whose ``made`` says all of this. The streams are computed again at each step and never kept whole.

    Raises:
        InterpError: inputs that the model cannot read, no token left, a setting out of range, a half-precision model
            whose gradients cannot be taken, matrices that do not fit in memory, or a capture of something else.

    >>> from interp import HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lenses.tuned_lens(model, ["The cat is black.", "The dog is white."], steps=2)
    TunedLens('mini', 8 places of resid_post, resid_mid, resid_pre)
    """
    check_model(model, inputs)
    for name, value in (("steps", steps), ("tokens", tokens)):
        whole_number(value, name, least=int(name == "tokens"))
    for name, number in (("learning_rate", learning_rate), ("ridge", ridge)):
        if not number > 0:
            raise InterpError(f"{name} is {shown(number)}. Give a number above 0.")
    if not weight_decay >= 0:
        raise InterpError(f"weight_decay is {shown(weight_decay)}. Give 0 or more.")
    chosen = stream_sites(model, sites)
    streams = _streams(model, inputs, chosen, skip_first, captured)
    streams.check_memory(5, "A tuned lens")  # the closed form's sums, or a matrix with its gradient and AdamW's state
    meter = Meter(progress, steps + 1)
    start = _closed_form(streams, ridge)
    meter.add(1)
    weights = {point: (weight.requires_grad_(), offset.requires_grad_()) for point, (weight, offset) in start.items()}
    flat = [part for both in weights.values() for part in both]
    optimiser = torch.optim.AdamW(flat, lr=learning_rate, weight_decay=weight_decay)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(steps, 1))
    for _, rows in zip(range(steps), _rounds(streams, tokens, seed), strict=False):
        _set_gradients(streams, rows, weights)
        optimiser.step()
        falling.step()
        meter.add(1)
    eye = torch.eye(model.cfg.d_model)
    matrices, offsets = as_translators(
        {point: eye.to(weight) + weight for point, (weight, _) in weights.items()},
        {point: offset for point, (_, offset) in weights.items()},
    )
    made: dict[str, str | int | float] = {
        "tokens_sha256": streams.prompts.sha256(), "n_prompts": len(streams.prompts), "n_tokens": streams.n_tokens,
        "steps": steps, "tokens": tokens, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "ridge": ridge, "skip_first": skip_first, "seed": seed,
    }  # fmt: skip
    return TunedLens(matrices, offsets, chosen, model.cfg.n_layers, fingerprint(model), made)


def _streams(
    model: HookedTransformer, inputs: Texts, sites: Sequence[str], skip_first: int, captured: Capture | None
) -> Streams:
    if captured is None:
        return Streams.of(model, inputs, sites, skip_first)
    prompts = as_prompts(model, inputs)
    if captured.told["attrs"]["tokens_sha256"] != prompts.sha256():
        raise InterpError(f"{captured.path} was captured from other prompts. Give those, or capture these.")
    return CapturedStreams.of(model, prompts, sites, skip_first).taking(captured, sites)


def _closed_form(
    streams: Streams, ridge: float
) -> dict[Point, tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]]:
    """Point -> weight and offset whose ``stream + weight @ stream + offset`` is nearest to the last layer's stream."""
    width, device = streams.model.cfg.d_model, streams.model.device
    # With a column of ones the sums of products hold the means too.
    sums = {point: torch.zeros(width + 1, 2 * width + 1, device=device) for point in streams.points}
    for rows in streams.through.batches(streams.prompts):
        found, final = streams.read(rows)
        for point, stream in found.items():
            ones = torch.cat([stream, torch.ones_like(stream[:, :1])], dim=1)
            sums[point] = sums[point].to(stream) + ones.T @ torch.cat([ones, final - stream], dim=1)
    solved = {}
    for point, both in sums.items():
        total, dtype = both.double(), both.dtype
        mean = total[-1] / streams.n_tokens
        centred = total[:-1] - total[:-1, width : width + 1] * mean
        spread = centred[:, :width]
        strength = ridge * spread.trace() / width
        weight = torch.linalg.solve(spread + strength * torch.eye(width).to(spread), centred[:, width + 1 :])
        offset = mean[width + 1 :] - mean[:width] @ weight
        solved[point] = weight.T.to(dtype).contiguous(), offset.to(dtype)
    return solved


def _rounds(streams: Streams, tokens: int, seed: int) -> Iterator[Int[np.ndarray, " row"]]:
    """Prompts of about so many tokens, without end; each round has every prompt once."""
    rng = np.random.default_rng(seed)
    n = len(streams.prompts)
    size = min(n, max(1, round(tokens * n / streams.n_tokens)))
    while True:
        order = rng.permutation(n)
        for rows in chunks_of(n, size):
            yield np.sort(order[rows])


def _set_gradients(
    streams: Streams, rows: Int[np.ndarray, " row"], weights: Mapping[Point, tuple[Tensor, Tensor]]
) -> None:
    """Leave at each weight the gradient of the mean divergence over the tokens of some prompts."""
    found, final = streams.read(rows)
    for both in weights.values():
        for part in both:
            part.grad = torch.zeros_like(part)
    for part_of in chunks_of(len(final), max(1, reading.LOGITS_AT_ONCE // streams.model.cfg.vocab_out)):
        with torch.no_grad():
            said = streams.through.unembed(final[part_of]).log_softmax(dim=-1)
        said = said.clone()  # made in inference mode where the model runs through hooks
        for point, (weight, offset) in weights.items():
            stream = found[point][part_of]
            lens = streams.through.unembed(stream + stream @ weight.T + offset).log_softmax(dim=-1)
            apart = (said.exp() * (said - lens)).sum() / len(final)
            for part, gradient in zip((weight, offset), torch.autograd.grad(apart, (weight, offset)), strict=True):
                part.grad = gradient if part.grad is None else part.grad + gradient
