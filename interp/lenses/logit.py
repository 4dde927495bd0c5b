"""The logit lens: the stream after each layer as if no layer came after it (nostalgebraist 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from interp.lenses.reading import IDENTITY, read
from interp.prompts.places import At
from interp.sweeps.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPairs


def logit_lens(
    model: HookedTransformer,
    pairs: PromptPairs | AnsweredPrompts,
    *,
    at: At = None,
    sites: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """What the model would answer if it stopped at each place of its stream, at some words of the clean prompts.

    At each place it is read what the model would say there. At the role ``answer`` this is the model's answer in the
    making. At an earlier word it says whether the answer can be read there already.

    Args:
        model: the model. Its final norm, unembedding, and what it does to its logits (a cap, a scale) are applied.
        pairs: prompts with their answers. Of an answer of several tokens the scored one is looked at, or the first.
        at: roles (each at its last token) or positions, as in ``capture``; None is every role.
        sites: of the residual stream; None is ``resid_post``, ``resid_mid`` and ``resid_pre``, as far as the model has
            them. ``resid_pre`` of a layer is ``resid_post`` of the layer before.
        progress: True for a bar, or called with places read and places in all.

    Returns:
        Dims prompt, site, layer, role or position, and answer (``correct`` and, where there is one, ``incorrect``).
        ``rank``: tokens above the answer's, 0 is the top, ties count against it; ``probability`` in [0, 1];
        ``log_probability`` in nats, at most 0; all (prompt, site, layer, role, answer).
        ``kl`` (prompt, site, layer, role), in nats and at least 0: KL(model's output || lens), which is 0 after the
        last layer.
        ``top_probability`` and ``top_right`` (prompt, site, layer, role): the probability of the token that the lens
        puts first, and whether it is the token that follows in the prompt, which at the role ``answer`` is the correct
        answer; NaN where the prompt ends.
        ``calibration_error`` (site, layer), in [0, 1], with its interval: ``stats.calibration_error`` of these two over
        prompts and places.
        ``appears`` (criterion, site, role), with its interval: the first layer from which on half of the prompts have
        the answer; ``never``: in how many it does not appear at all. See ``appears``.

    Raises:
        InterpError: no prompts with answers, an unknown role, a position outside a prompt, a site that is no state of
            the stream, or a model without the stream after a layer.

    >>> from interp import AnsweredPrompts, HookedTransformer, lenses
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> said = AnsweredPrompts.from_texts("The cat is black. The cat is", correct=" black", tokenizer=model)
    >>> lens = lenses.logit_lens(model, said).sel(site="resid_post", role="answer")
    >>> int(lens["rank"].sel(answer="correct")[0, -1]), float(lens["kl"][0, -1])
    (0, 0.0)
    >>> float(lens["appears"].sel(criterion="top"))  # the answer is on top from layer 1 on
    1.0
    """
    found = read(model, pairs, {"logit": IDENTITY}, at=at, sites=sites, progress=progress)
    return found.isel(lens=0, drop=True).assign_attrs(
        title="Logit lens",
        question="What would the model say at each word if it stopped after each layer?",
        source='nostalgebraist 2020, "interpreting GPT: the logit lens"; divergence as in Belrose et al. 2023, '
        "arXiv 2303.08112; calibration error: Guo et al. 2017, arXiv 1706.04599",
    )
