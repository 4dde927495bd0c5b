"""What lenses cost, before any is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from interp.lenses.reading import LOGITS_AT_ONCE, stream_sites
from interp.lenses.streams import SKIP_FIRST, point_of
from interp.prompts.tokens import Prompts
from interp.sweeps import Plan, passes

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

PER_LOGIT_READ = 3500.0
"""Operations of matrix products that take as long as what is measured of one logit: softmax, rank, divergence."""
PER_LOGIT_TRAINED = 2200.0
"""The same of one logit that a step of training looks at: two softmaxes, their divergence, and the way back.

Both are rough, near the middle of what ``python -m tests.benchmarks.budget`` found on a machine of two cores: 2700 to
4800 for the one, 1100 to 3300 for the other.
"""


def reading_passes(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    roles: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    n_lenses: int = 1,
) -> Plan:
    """What reading some lenses comes to: one run of the clean prompts, and an unembedding at every place.

    Args:
        model: the model.
        pairs: the prompts that are read.
        roles: where; None is every role.
        sites: states of the stream; None is all that the model has.
        n_lenses: how many lenses; all but the first translate the stream.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> one, both = (reading_passes(model, pairs, sites=["resid_post"], roles=at) for at in (["answer"], None))
    >>> one.flop < both.flop
    True
    """
    cfg, n = model.cfg, len(pairs)
    n_sites, n_places = len(stream_sites(model, sites)), len(pairs.roles if roles is None else roles)
    cells = n * n_places * n_sites * (cfg.n_layers + 1)
    translated = (n_lenses - 1) * 2.0 * cfg.d_model**2
    each = n_lenses * (_unembedding(model) + PER_LOGIT_READ * cfg.vocab_out) + translated
    made = passes(model, pairs.clean, unembedded=0, besides=cells * each)
    held = 8 * 4 * min(LOGITS_AT_ONCE, n * n_places * (cfg.n_layers + 1) * cfg.vocab_out)
    return replace(made, peak_bytes=made.peak_bytes + held)


def tuned_passes(
    model: HookedTransformer, prompts: Prompts, *, sites: Sequence[str] | None = None, steps: int, tokens: int
) -> Plan:
    """What training a tuned lens comes to: the closed form, and the steps, each with the logits of every place.

    Args:
        model: the model.
        prompts: those that it is trained on.
        sites: states of the stream; None is all that the model has.
        steps: of training.
        tokens: that a step looks at, about.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = tasks.build("color-noun", "recall", tokenizer=model, n=2).clean
    >>> none, ten, twenty = (tuned_passes(model, prompts, steps=n, tokens=64).flop for n in (0, 10, 20))
    >>> round((twenty - none) / (ten - none), 6)
    2.0
    """
    cfg, n_points = model.cfg, _points(model, sites)
    n_tokens = max(1, int(prompts.lengths.sum()) - SKIP_FIRST * len(prompts))
    looked_at = min(tokens, n_tokens)
    share = looked_at / n_tokens
    products = 4.0 * cfg.d_model**2  # the sums of the closed form, and a translator
    solving = n_points * 3.0 * cfg.d_model**3
    of_logits = 2 * _unembedding(model) + PER_LOGIT_TRAINED * cfg.vocab_out
    step = n_points * looked_at * (of_logits + 3 * products)
    made = passes(
        model, prompts, forward=1 + steps * share, unembedded=0,
        besides=n_points * n_tokens * products + solving + steps * step,
    )  # fmt: skip
    return replace(made, peak_bytes=made.peak_bytes + 5 * n_points * cfg.d_model**2 * 4)


def jacobian_passes(
    model: HookedTransformer, prompts: Prompts, *, sites: Sequence[str] | None = None, targets: str = "later"
) -> Plan:
    """What a Jacobian lens comes to: one run forwards, and one backwards for each entry of the stream.

    Args:
        model: the model.
        prompts: those that are averaged over.
        sites: states of the stream; None is all that the model has.
        targets: as for ``jacobian_lens``.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> prompts = tasks.build("color-noun", "recall", tokenizer=model, n=2).clean
    >>> jacobian_passes(model, prompts).rows  # 128 entries of the stream
    258
    """
    width, n_points = model.cfg.d_model, _points(model, sites)
    looks = 1 if targets == "later" else int(prompts.lengths.max()) - SKIP_FIRST
    backwards = width * max(1, looks)
    made = passes(model, prompts, backward=backwards, unembedded=0)
    return replace(made, peak_bytes=made.peak_bytes + 2 * n_points * width**2 * 4)


def _unembedding(model: HookedTransformer) -> float:
    """Operations of the logits of one position."""
    return 2.0 * model.cfg.d_model * model.cfg.vocab_out


def _points(model: HookedTransformer, sites: Sequence[str] | None) -> int:
    n_layers = model.cfg.n_layers
    chosen = stream_sites(model, sites)
    return len({point_of(site, layer, n_layers) for site in chosen for layer in range(n_layers)} - {None})
