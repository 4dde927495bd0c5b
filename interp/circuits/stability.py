"""Whether a circuit would be found again: on other prompts of the same kind, and on each template alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Int

from interp import results
from interp._arguments import check_pairs
from interp.circuits.circuit import Circuit
from interp.circuits.discovery import Finder
from interp.circuits.evaluation import label
from interp.errors import whole_number
from interp.results import Variable
from interp.stats import LEVEL
from interp.sweeps import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

_DIMS = {
    "draw": "bootstrap sample of the prompts",
    "circuit_edge": "edge of the circuit",
    "template": "template that prompts come from",
    "other_template": "template that it is compared with",
}


def stability(
    model: HookedTransformer,
    pairs: PromptPairs,
    find: Callable[[PromptPairs], Circuit] | Finder,
    *,
    n_resamples: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Find a circuit again on bootstrap samples of the prompts, and on the prompts of each template.

    Two circuits are compared by the Jaccard index of their edges and of their nodes: those in both over those in
    either.

    Args:
        model: the model.
        pairs: the prompts that the circuit is found on.
        find: finds a circuit on pairs, each time in the same way; or what ``finder`` made of these pairs, which mostly
            runs nothing again.
        n_resamples: bootstrap samples, each of as many pairs as there are, drawn with replacement.
        seed: of the samples.
        progress: True for a bar, or called with circuits found and circuits in all.

    Returns:
        ``jaccard`` and ``node_jaccard`` (draw) of each sample's circuit with that of all pairs, from 0 to 1, and the
        interval that holds the middle 95% of them (ci_bound); ``share`` (circuit_edge), how many samples found each
        edge of the circuit; where there are several templates, ``template_jaccard`` (template, other_template).

    Raises:
        InterpError: fewer than one sample, or what ``find`` refuses.

    >>> from interp import HookedTransformer, tasks
    >>> from interp.circuits import discover
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = stability(model, pairs, lambda some: discover(model, some, "eap", size=9, audit=None), n_resamples=2)
    >>> bool((found.jaccard > 0.2).all()), found.share.sizes["circuit_edge"] <= 9
    (True, True)
    """
    check_pairs(model, pairs)
    whole_number(n_resamples, "n_resamples", least=1)
    rng, n = np.random.default_rng(seed), len(pairs)
    templates = sorted(set(pairs.variants))
    several = templates if len(templates) > 1 else []
    meter = Meter(progress, 1 + n_resamples + len(several))

    def found(rows: Int[np.ndarray, " prompt"] | None = None) -> Circuit:
        if isinstance(find, Finder):
            circuit = find.circuit if rows is None else find.again(rows)
        else:
            circuit = find(pairs if rows is None else pairs.select(rows))
        meter.add(1)
        return circuit

    whole = found()
    drawn = [found(rng.integers(n, size=n)) for _ in range(n_resamples)]
    alone = [found(np.flatnonzero(np.array(pairs.variants) == name)) for name in several]
    compared = [whole.compare(one) for one in drawn]
    edges = [edge for edge, _ in whole.ranked()]
    variables: dict[str, Variable] = {}
    tail = (1 - LEVEL) / 2
    for name, values, what in (
        ("jaccard", [one.edges for one in compared], "Jaccard index of edges"),
        ("node_jaccard", [one.nodes for one in compared], "Jaccard index of nodes"),
    ):
        variables[name] = Variable(("draw",), values, "", f"{what}, sample and all prompts")
        ends = np.quantile(values, [tail, 1 - tail])
        variables[f"{name}_spread"] = Variable(("ci_bound",), ends, "", f"where the middle {LEVEL:.0%} of {name} lie")
    coords: dict[str, list[str] | np.ndarray] = {"draw": np.arange(n_resamples), "ci_bound": ["lower", "upper"]}
    if edges:
        share = [float(np.mean([edge in one.edges for one in drawn])) for edge in edges]
        variables["share"] = Variable(("circuit_edge",), share, "", "share of the samples that found the edge")
        coords["circuit_edge"] = [label(edge) for edge in edges]
    if several:
        both = np.eye(len(several))
        for (i, one), (j, other) in combinations(enumerate(alone), 2):
            both[i, j] = both[j, i] = one.compare(other).edges
        dims = ("template", "other_template")
        variables["template_jaccard"] = Variable(dims, both, "", "Jaccard index of edges, two templates")
        coords |= dict.fromkeys(dims, several)
    return results.build(
        variables,
        coords=coords,
        title="Stability of a circuit",
        question="Would other prompts of the same kind give the same circuit?",
        reading="1: the same edges; 0: no edge in common.",
        source="bootstrap over prompts (Efron 1979); Jaccard 1912",
        of=(model, pairs),
        seed=seed,
        dims={dim: meaning for dim, meaning in _DIMS.items() if dim in coords},
        extra={"method": str(whole.data.attrs.get("method", "")), "n_edges": len(whole), "n_resamples": n_resamples},
    )
