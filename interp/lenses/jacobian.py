"""The Jacobian lens: the mean effect of the stream at a place on the stream after the last layer, as a translator.

Gurnee et al. 2026, "Verbalizable Representations Form a Global Workspace in Language Models", Transformer Circuits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp._arguments import check_model
from interp._kept import fingerprint
from interp.attribution.gradients import differentiating
from interp.errors import unknown_name
from interp.lenses.reading import stream_sites
from interp.lenses.streams import SKIP_FIRST, Streams
from interp.lenses.trained import TrainedLens, as_translators
from interp.run import Texts
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Targets: TypeAlias = Literal["later", "same"]
"""Where the effect of a token's stream is looked at: at itself and all later tokens, summed; or at itself alone."""


class JacobianLens(TrainedLens):
    """A linear translator for each place of the stream: the mean Jacobian of the last layer's stream by that there.

    >>> import tempfile
    >>> from interp import HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lens = lenses.jacobian_lens(model, ["The cat is black."], sites=["resid_post"])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     lenses.JacobianLens.load(lens.save(f"{place}/lens.safetensors"), model)
    JacobianLens('mini', 3 places of resid_post)
    """

    kind = "jacobian"
    title = "Jacobian lens"
    source = "Jacobian lens: Gurnee et al. 2026, transformer-circuits.pub/2026/workspace"


@differentiating
def jacobian_lens(
    model: HookedTransformer,
    inputs: Texts,
    *,
    sites: Sequence[str] | None = None,
    targets: Targets = "later",
    skip_first: int = SKIP_FIRST,
    progress: Progress | None = None,
) -> JacobianLens:
    """Average the Jacobian of the stream after the last layer with respect to the stream at each place.

    The stream after the last layer is taken before the final norm. The lens says ``unembed(J stream)``: no offset.
    ``J`` is the mean over prompts of the mean over a prompt's tokens t of the sum over the tokens t' from t on of
    d final[t'] / d stream[t], as Gurnee et al. define it (``targets="later"``). They leave out the first 16 tokens and
    the last of long texts; here all but the first ``skip_first`` take part, since prompts are short and end where the
    answer is asked for. With ``targets="same"`` only t' = t counts: what a token's own stream becomes.

    The Jacobians are exact. One pass forwards and ``d_model`` backwards serve all prompts of a batch and all places;
    with ``targets="same"`` these are needed for each token of the longest prompt. The graph of a batch is bounded.

    Args:
        model: the model, in float32 or better.
        inputs: texts, token ids or prompts to average over.
        sites: states of the stream; None is all that the model has.
        targets: tokens at which the effect is looked at.
        skip_first: leading tokens of each prompt that are left out, as sources and as targets.
        progress: True for a bar, or called with backward passes done and passes in all.

    Returns:
        The lens, whose ``made`` says all of this.

    Raises:
        InterpError: inputs that the model cannot read, no token left, unknown targets, a half-precision model whose
            gradients cannot be taken, or matrices that do not fit in memory.

    >>> from interp import HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> lens = lenses.jacobian_lens(model, ["The cat is black."])
    >>> lens.matrices["resid_mid", 3].shape  # from within the last layer to its end
    torch.Size([128, 128])
    """
    check_model(model, inputs)
    if targets not in get_args(Targets):
        raise unknown_name("value of targets", targets, get_args(Targets))
    chosen = stream_sites(model, sites)
    streams = Streams.of(model, inputs, chosen, skip_first)
    streams.check_memory(2, "A Jacobian lens")
    prompts, width = streams.prompts, model.cfg.d_model
    batches = list(streams.through.batches(prompts, more=len(streams.points) * prompts.ids.shape[1] * width))
    looked_at = [len(list(_masks(streams.counted_of(rows), targets))) for rows in batches]
    meter = Meter(progress, sum(looked_at) * width)
    total = {point: torch.zeros(width, width, device=model.device) for point in streams.points}
    for rows in batches:
        zeros, final = streams.recorded(rows)
        counted = streams.counted_of(rows)
        share = 1 / (counted.sum(dim=1, keepdim=True) * len(prompts))
        for mask in _masks(counted, targets):
            weight = (mask * share).to(final.dtype)
            for entry in range(width):
                effects = _effects(final, list(zeros.values()), mask, entry)
                for point, effect in zip(zeros, effects, strict=True):
                    total[point] = total[point].to(final.dtype)
                    total[point][entry] += torch.einsum("rt,rtd->d", weight, effect)
                meter.add(1)
    made: dict[str, str | int | float] = {
        "tokens_sha256": prompts.sha256(), "n_prompts": len(prompts), "n_tokens": streams.n_tokens,
        "targets": targets, "skip_first": skip_first,
    }  # fmt: skip
    return JacobianLens(*as_translators(total), chosen, model.cfg.n_layers, fingerprint(model), made)


def _masks(counted: Tensor, targets: Targets) -> Iterator[Tensor]:
    """The tokens whose effects are looked at in one go: all, or one of each prompt at a time."""
    if targets == "later":
        yield counted
        return
    for position in torch.nonzero(counted.any(dim=0)).flatten():
        one = torch.zeros_like(counted)
        one[:, position] = counted[:, position]
        yield one


def _effects(
    final: Float[Tensor, "row token d_model"], places: Sequence[Tensor], mask: Tensor, entry: int
) -> tuple[Float[Tensor, "row token d_model"], ...]:
    """The gradient of one entry of the last stream, summed over the tokens of the mask, at each place."""
    towards = torch.zeros_like(final)
    towards[..., entry] = mask.to(final.dtype)
    return torch.autograd.grad(final, places, towards, retain_graph=True, allow_unused=True, materialize_grads=True)
