"""``knockout_sweep``: what the answer loses when attention from one word to another is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from interp import run, sites
from interp._arguments import check_scored
from interp.errors import names as checked_names
from interp.interventions import check_cut, parse_edge
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.sweeps.cells import Cells, Part, window_of
from interp.sweeps.engine import Term, plan_terms, run_terms
from interp.sweeps.exact.planner import Plan
from interp.sweeps.labels import effect_of_change, how_computed
from interp.sweeps.options import RESOURCES, Resources, completed, shows
from interp.sweeps.reading import AnyPairs, Which, check_one_part, checked_reading, run_named
from interp.sweeps.statement import Sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer


@shows(Resources)
def knockout_sweep(
    model: HookedTransformer,
    pairs: AnyPairs,
    edges: Sequence[str],
    metric: AnyReadout = "logit_difference",
    *,
    which: Which = "clean",
    layers: Sequence[int] | int | None = None,
    window: int = 1,
    by_head: bool = False,
    **resources: Unpack[Resources],
) -> xr.Dataset:
    """Cut attention from one role to another, layer by layer (or window by window), and report the metric without it.

    Scores are cut before the softmax, so what is left of a destination's attention still sums to 1. Geva et al. 2023
    (arXiv 2304.14767), who cut windows of layers.

    Args:
        model: the model.
        pairs: prompts with their answers and roles: ``PromptPairs`` or ``AnsweredPrompts``.
        edges: ``"noun<-color"``: destination, then source; every token of each.
        metric: a name from ``interp.readouts``, or a read-out.
        which: cut in the clean or the corrupted run.
        layers: only these layers.
        window: cut in that many layers together, centred on each.
        by_head: cut one head at a time; otherwise all heads of a layer at once.
        resources: ``memory store progress``, as in ``sweep``; see ``interp.sweeps.Resources``.

    Returns:
        ``cut`` (prompt, layer, [head,] edge) and ``unchanged`` (prompt) in the metric's units, and ``cut_effect`` =
        cut - unchanged: negative where that attention helps.

    Raises:
        InterpError: a malformed edge, an unknown role, or a token that is left with nothing to attend to.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> effect = knockout_sweep(model, pairs, ["clause_end<-color"], layers=[0], by_head=True)
    >>> (effect.cut_effect.mean("prompt") < -5).values.tolist()  # layer head edge: the third head looks at the colour
    [[[False], [False], [True], [False]]]
    """
    return AttentionKnockout(edges, metric, which, layers, window, by_head).run(model, pairs, **resources)


@dataclass(frozen=True)
class AttentionKnockout:
    """The statement of a knockout sweep: what ``knockout_sweep`` is asked, of any model and any prompts.

    Attributes:
        edges: ``"noun<-color"``: destination, then source.
        metric: a name from ``interp.readouts``, or a read-out.
        which: the run in which attention is cut, ``"clean"`` or ``"corrupted"``.
        layers: only these layers.
        window: layers that are cut together.
        by_head: one head at a time.

    In layer 0 the end of the sentence looks at the colour, and the answer depends on it; in layer 1 it does not:

    >>> from interp import HookedTransformer, tasks
    >>> from interp.sweeps import AttentionKnockout
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> lost = AttentionKnockout(["clause_end<-color"], layers=[0, 1]).run(model, pairs)
    >>> (lost.cut_effect.mean("prompt") < -5).values.tolist()  # logits, layer edge
    [[True], [False]]
    """

    edges: Sequence[str]
    metric: AnyReadout = "logit_difference"
    which: Which = "clean"
    layers: Sequence[int] | int | None = None
    window: int = 1
    by_head: bool = False

    def plan(self, model: HookedTransformer, pairs: AnyPairs, *, memory: int | None = None) -> Plan:
        """What ``run`` would compute."""
        return plan_terms(model, [Term(1.0, (self._resolved(model, pairs),))], memory=memory)

    def run(self, model: HookedTransformer, pairs: AnyPairs, **resources: Unpack[Resources]) -> xr.Dataset:
        """What ``knockout_sweep`` returns."""
        wanted = self._resolved(model, pairs)
        ((found, screening),) = run_terms(model, [Term(1.0, (wanted,))], **completed(resources, RESOURCES))
        return effect_of_change(
            model, pairs, found, "cut", self.metric, wanted.cells,
            title="attention knockout",
            question="What does the answer lose when one word may not look at another?",
            source="Geva et al. 2023, arXiv 2304.14767",
            seed=0,
            extra={"run": self.which, "window": self.window, **how_computed(found, screening)},
        )  # fmt: skip

    def _resolved(self, model: HookedTransformer, pairs: AnyPairs) -> Sweep:
        check_scored(model, pairs)
        prompts = run_named(pairs, self.which)
        check_one_part(pairs, self.metric)
        if model.blocks is None:  # the model's own weights need no hook
            model.check_site("scores")
        layers = sites.check_layers(self.layers, model.cfg.n_layers)
        cells = _edge_cells(model, prompts, self.edges, layers, self.window, by_head=self.by_head)
        return Sweep(prompts, "scores", cells, checked_reading(model, pairs, self.metric), None)


def _edge_cells(
    model: HookedTransformer,
    prompts: Prompts,
    edges: Sequence[str],
    layers: Sequence[int],
    window: int,
    *,
    by_head: bool,
) -> Cells:
    names = list(checked_names(edges, "edges"))
    masks = [_edge(prompts, name) for name in names]
    spans = [window_of(layer, window, model.cfg.n_layers) for layer in layers]
    heads: list[tuple[int, ...] | None] = [(head,) for head in range(model.cfg.n_heads)] if by_head else [None]
    axes: list[tuple[str, list[Any]]] = [("layer", list(layers))]
    if by_head:
        axes.append(("head", list(range(model.cfg.n_heads))))
    axes.append(("edge", names))
    groups = [tuple(Part(layer, unit) for layer in span) for span in spans for unit in heads]
    return Cells(
        parts=tuple(group for group in groups for _ in names),
        place=np.tile(np.arange(len(names)), len(groups)),
        tokens=torch.stack([dest for dest, _ in masks]),
        shape=tuple(len(labels) for _, labels in axes),
        dims=tuple(dim for dim, _ in axes),
        coords=dict(axes),
        sources=torch.stack([src for _, src in masks]),
    )


def _edge(prompts: Prompts, name: str) -> tuple[Bool[Tensor, "prompt position"], Bool[Tensor, "prompt position"]]:
    """Destination and source tokens of an edge.

    Raises:
        InterpError: malformed, or a destination token would be left with nothing to attend to.
    """
    dest, src = (run.token_mask(prompts, role) for role in parse_edge(name))
    check_cut(dest[:, :, None] & src[:, None, :], f"Cutting '{name}'")
    return torch.from_numpy(dest), torch.from_numpy(src)
