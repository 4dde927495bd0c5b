"""What discovery would cost, and which method it takes if none is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from interp import sweeps
from interp.circuits.graph import START, Graph
from interp.errors import InterpError, unknown_name
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.sweeps import Direction, PathPatching

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Method: TypeAlias = Literal["exact", "greedy", "eap", "eap-ig-inputs", "eap-ig-activations", "atp*"]
METHODS: tuple[Method, ...] = get_args(Method)
INTEGRATED: tuple[Method, ...] = ("eap-ig-inputs", "eap-ig-activations")
"""Those that take steps."""

CHEAP = 2e11
"""Floating-point operations up to which exact path patching is taken by default: some ten seconds of one core."""
GRADIENT = 3
"""Forward passes that one pass forward and backward costs, about."""
AUDITED = 40
"""Edges that an audit patches exactly, about."""


@dataclass(frozen=True)
class DiscoveryPlan:
    """What a discovery would compute.

    Attributes:
        method: the method, chosen or named.
        reason: why it was chosen; empty if it was named.
        n_edges: edges that get a score.
        passes: runs of one prompt through the model, from above; a gradient counts as ``GRADIENT``.
        flop: floating-point operations of their matrix products, about.
        peak_bytes: memory beside the model, from above, where that is planned; 0 where batches are fitted to it later.

    >>> made = DiscoveryPlan("eap", "", n_edges=479, passes=86, flop=4.9e9, peak_bytes=0)
    >>> print(made)
    eap: 479 edges, about 86 passes of one prompt and 4.9e+09 floating-point operations.
    """

    method: Method
    reason: str
    n_edges: int
    passes: int
    flop: float
    peak_bytes: int

    @property
    def rows(self) -> int:
        """Runs of one prompt, as the plan of a sweep counts them."""
        return self.passes

    @property
    def rows_in_all(self) -> int:
        """The same: no run is left out."""
        return self.passes

    @property
    def batches(self) -> int:
        """Batches, at least."""
        return 1

    def __str__(self) -> str:
        """The plan in words."""
        why = f" ({self.reason})" if self.reason else ""
        peak = f", {self.peak_bytes / 2**20:.0f} MiB at most" if self.peak_bytes else ""
        return (
            f"{self.method}{why}: {self.n_edges} edges, about {self.passes} passes of one prompt and {self.flop:.3g} "
            f"floating-point operations{peak}."
        )


def plan(
    model: HookedTransformer,
    pairs: PromptPairs,
    method: Method | None = None,
    *,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    roles: Sequence[str] | None = None,
    steps: int = 5,
    memory: int | None = None,
) -> DiscoveryPlan:
    """What ``discover`` would compute, and by which method, without computing it.

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        method: as for ``discover``.
        direction: as there.
        metric: as there.
        roles: as there.
        steps: as there.
        memory: as there.

    Returns:
        Method, passes, operations and bytes. Printing it says it in words.

    Raises:
        InterpError: what ``discover`` refuses of these.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> print(plan(model, pairs))
    exact (it is cheap here): 479 edges, about 958 passes of one prompt and ... operations, ... MiB at most.
    """
    if method is not None and method not in METHODS:
        raise unknown_name("method", method, METHODS)
    graph = Graph.of(model, roles=roles, metric=metric)
    n_edges, n_layers, n = int(graph.possible.sum()), model.cfg.n_layers, len(pairs)
    if model.own_blocks()[0] is None:
        if method not in (None, "atp*"):
            why = model.own_blocks()[1]
            raise InterpError(f"Edges are found on the model's own weights only, and {why}. Use method='atp*'.")
        why = "" if method else "edges of this architecture are not patched here, its heads and MLPs are"
        return DiscoveryPlan("atp*", why, n_edges, GRADIENT * 2 * (1 + n_layers) * n, 0.0, 0)
    whole_answers = sweeps.whole_answers(pairs, metric)
    one, everything = (
        None if whole_answers else sweeps.plan(model, pairs, asked, memory=memory)
        for asked in (
            PathPatching(direction, metric, senders=[START], receivers=[graph.receivers[0]]),
            PathPatching(direction, metric, roles=roles),
        )
    )
    forward = 0.0 if one is None else one.flop / 3  # two runs to compare, and one with the edge
    reason = ""
    if method is None:
        cheap = everything is not None and everything.flop <= CHEAP
        method = "exact" if cheap else "eap-ig-inputs"
        reason = "it is cheap here" if cheap else "exact patching of all edges would take longer"
        if whole_answers:
            reason = "whole answers are not path-patched"
    if method == "exact" and everything is not None:
        return DiscoveryPlan(method, reason, n_edges, everything.rows, everything.flop, everything.peak_bytes)
    passes = {
        "exact": n_edges * n,
        "greedy": n_edges * n,
        "eap": (GRADIENT + AUDITED) * n,
        "eap-ig-inputs": (GRADIENT * steps + AUDITED) * n,
        "eap-ig-activations": (GRADIENT * steps * (2 * n_layers + 1) + AUDITED) * n,
        "atp*": (GRADIENT * 2 * (1 + n_layers) + 2 * AUDITED) * n,
    }[method]
    return DiscoveryPlan(method, reason, n_edges, passes, passes / n * forward, 0)
