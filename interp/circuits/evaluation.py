"""What a circuit is worth: faithful, complete, minimal, and better than chance, on prompts it was not found on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.integrate import trapezoid

from interp import readouts, results, stats
from interp._arguments import check_pairs
from interp.circuits.circuit import Circuit
from interp.circuits.graph import Edge, Graph
from interp.circuits.running import BATCH_BYTES, CIRCUIT_ABLATIONS, CircuitAblation, CircuitRuns
from interp.circuits.sets import NULLS, Asked, Sets
from interp.errors import InterpError, names, shown, unknown_name, whole_number
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.results import Variable
from interp.sweeps import Plan, Progress, described, listener, passes, shifted

if TYPE_CHECKING:
    from interp.model import HookedTransformer

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes at which circuits are compared, as shares of all edges: those of MIB (Mueller et al. 2025)."""

PARTS = 48
"""Heads and MLPs of a circuit that is not known yet, about."""

_DIMS = {
    "size": "size of the circuit, as a share of all edges",
    "draw": "randomly drawn circuit",
    "null": "how random circuits are drawn",
    "knockout": "randomly drawn parts of the circuit that are taken out",
    "node": "head or MLP of the circuit",
    "circuit_edge": "edge of the circuit",
}
_READING = (
    "faithfulness: how much of the way from the ablated run (0) to the clean run (1) the circuit alone goes; below 0 "
    "and above 1 are possible. cpr and cmd: the areas below the curve over the sizes, and between it and 1."
)


def areas(
    fractions: Sequence[float], faithfulness: Float[np.ndarray, "*cell size"], *, log_scale: bool = False
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """CPR and CMD of faithfulness at several sizes, by the trapezoidal rule (Mueller et al. 2025, arXiv 2504.13151).

    The integrated circuit performance ratio (CPR) is the area below the curve, the integrated circuit-model distance
    (CMD) that between the curve and 1, of whichever sign. Both are taken over the sizes that are given, from the
    smallest to the largest; MIB's are ``FRACTIONS``.

    Args:
        fractions: sizes of the circuits as shares of all edges, rising.
        faithfulness: at these sizes, along the last axis.
        log_scale: integrate over the logarithm of the size; MIB's own numbers are on the linear scale.

    Returns:
        CPR and CMD.

    >>> cpr, cmd = areas([0.0, 0.5, 1.0], np.array([0.0, 1.5, 1.0]))
    >>> float(cpr), float(cmd)
    (1.0, 0.5)
    """
    sizes = np.log(fractions) if log_scale else np.asarray(fractions, dtype=np.float64)
    return trapezoid(faithfulness, sizes, axis=-1), trapezoid(np.abs(1 - faithfulness), sizes, axis=-1)


def evaluate(
    model: HookedTransformer,
    pairs: PromptPairs,
    circuit: Circuit,
    *,
    ablations: Sequence[CircuitAblation] = CIRCUIT_ABLATIONS,
    metric: AnyReadout = "logit_difference",
    fractions: Sequence[float] = FRACTIONS,
    n_random: int = 10,
    n_knockouts: int = 8,
    most_edges: int = 32,
    references: Prompts | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure a circuit under several ablations at once, against random circuits, with intervals over prompts.

    With m the mean metric over the prompts, *faithfulness* of a circuit is (m(circuit) - m(ablated)) / (m(clean) -
    m(ablated)), where "ablated" has no edge at all. Nothing is clamped. Edges on no path from the embedding to the
    end are left out of whatever is run, as MIB does.

    * Over sizes: the best ``int(fraction * all edges)`` edges by the circuit's own scores, with ``areas``.
    * *Complement*: faithfulness of all the other edges. A circuit that is all there is leaves 0.
    * *Completeness* (Wang et al. 2022, arXiv 2211.00593): random parts K of the circuit's heads and MLPs are taken out
      of the circuit and of the whole model; the mean absolute difference between the two is ``incompleteness``, 0 for
      a complete circuit. Each part is in K with probability 1/2.
    * *Minimality*: what faithfulness loses when one head, one MLP or one edge is taken out of the circuit and the rest
      stays. 0: it was superfluous.
    * *Random circuits*: ``"edges"`` has as many edges into each layer's queries, keys, values and MLP, drawn at random;
      ``"heads"`` is the circuit's own wiring through other heads of the same layers. ``..._p`` is the share of
      circuits, the circuit itself among them, that come at least as near to the model as the circuit.

    Args:
        model: its arithmetic is in ``interp.model.arithmetic``.
        pairs: prompts that the circuit was not found on (``interp.circuits.split``).
        circuit: what is measured; its scores rank the edges of other sizes.
        ablations: what edges outside the circuit carry; see ``run_circuit``.
        metric: a name from ``interp.readouts``, or a read-out: for a circuit that ends in the residual stream, the
            projection of it there.
        fractions: sizes, as shares of all edges, rising.
        n_random: random circuits of each kind and size.
        n_knockouts: sets K.
        most_edges: edges that are taken out one by one, the best first.
        references: prompts that the means are taken of; None is the corrupted prompts.
        seed: of the draws and the intervals.
        progress: True for a bar, or called with runs done and runs in all.

    Returns:
        Faithfulness over sizes (ablation, size) with ``cpr`` and ``cmd`` (ablation); that of the circuit itself as
        ``own_...``; ``incompleteness`` (ablation); ``node_cost`` (ablation, node) and ``edge_cost`` (ablation,
        circuit_edge); the same of random circuits as ``random_...`` (..., draw). Bootstrap intervals over prompts are
        ``..._interval``.

    Raises:
        InterpError: what ``run_circuit`` refuses, no ablation, or sizes that do not rise from above 0 to at most 1.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> path = [Edge("embed", "L0H2.v"), Edge("L0H2", "L1H0.v"), Edge("L1H0", "logits")]
    >>> circuit = Circuit.of(model, pairs, path)
    >>> found = evaluate(model, pairs, circuit, ablations=["resample"], n_random=2, n_knockouts=2)
    >>> found.own_faithfulness.dims, found.faithfulness.sizes["size"], found.node_cost.node.values.tolist()
    (('ablation',), 10, ['L0H2', 'L1H0'])
    """
    check_pairs(model, pairs)
    chosen = _checked(ablations)
    sizes = _rising(fractions)
    check_counts(n_random, n_knockouts, most_edges)
    sets = Sets(Graph.of(model, roles=circuit.graph.roles, metric=metric))
    asked = Asked.of(sets, circuit, sizes, n_random, n_knockouts, most_edges, seed)
    values = _values(model, pairs, sets, chosen, metric, references, progress)
    return _labelled(
        model, pairs, circuit, chosen, metric, sizes, asked, _Measured(values, asked.none, asked.every, seed), seed
    )


def evaluation_passes(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    n_ablations: int = len(CIRCUIT_ABLATIONS),
    fractions: Sequence[float] = FRACTIONS,
    n_random: int = 10,
    n_knockouts: int = 8,
    most_edges: int = 32,
) -> Plan:
    """What ``evaluate`` comes to, from above, for a circuit of about as many heads and MLPs as edges are asked for.

    Args:
        model: as for ``evaluate``, like the others.
        pairs: the prompts.
        n_ablations: how many ablations.
        fractions: sizes of the circuits.
        n_random: random circuits of each kind and size.
        n_knockouts: sets of parts that are taken out.
        most_edges: edges that are taken out one by one.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> one, four = (evaluation_passes(model, pairs, n_ablations=n).flop for n in (1, 4))
    >>> four == 4 * one
    True
    """
    graph = Graph.of(model, roles=None)
    n_edges, n_readers = int(graph.possible.sum()), len(graph.receivers)
    parts = min(len(graph.senders) - 1, max(most_edges, PARTS))
    # Heads and MLPs that no circuit of a batch has are not run.
    shares = [min(1.0, fraction * n_edges / n_readers) for fraction in fractions]
    small = min(1.0, PARTS / n_readers)
    of_own = 1 + len(NULLS) * n_random + n_knockouts + parts + most_edges
    whole = (1 + n_random) * sum(shares) + 2 + n_knockouts + small * of_own
    summing = 2.0 * n_edges * model.cfg.d_model * pairs.clean.ids.size
    made = passes(model, pairs.clean, forward=n_ablations * whole, besides=n_ablations * whole * summing)
    return replace(made, peak_bytes=made.peak_bytes + 3 * BATCH_BYTES[model.device.type])


def check_counts(n_random: int, n_knockouts: int, most_edges: int) -> None:
    """Refuse numbers of runs that no circuit can have.

    Raises:
        InterpError: one below 0.
    """
    for name, n in (("n_random", n_random), ("n_knockouts", n_knockouts), ("most_edges", most_edges)):
        whole_number(n, name, least=0)


def _checked(ablations: Sequence[CircuitAblation]) -> tuple[CircuitAblation, ...]:
    given = names(ablations, "ablations")
    for ablation in given:
        if ablation not in CIRCUIT_ABLATIONS:
            raise unknown_name("ablation", ablation, CIRCUIT_ABLATIONS)
    return given  # type: ignore[return-value]


def _rising(fractions: Sequence[float]) -> tuple[float, ...]:
    sizes = tuple(float(size) for size in fractions)
    if len(sizes) < 2 or sizes[0] < 0 or sizes[-1] > 1 or any(a >= b for a, b in pairwise(sizes)):
        raise InterpError(f"fractions is {shown(fractions)}. Give at least two shares between 0 and 1, rising.")
    return sizes


def _values(
    model: HookedTransformer,
    pairs: PromptPairs,
    sets: Sets,
    ablations: Sequence[CircuitAblation],
    metric: AnyReadout,
    references: Prompts | None,
    progress: Progress | None,
) -> Float[np.ndarray, "ablation set prompt"]:
    """The metric of every prompt under every set of edges and ablation."""
    kept, told = np.stack(sets.masks), listener(progress)
    runs = [
        CircuitRuns.of(
            model, pairs, sets.graph, ablation=ablation, metric=metric,
            references=references if ablation in ("mean", "mean_by_role") else None,
        )
        for ablation in ablations
    ]  # fmt: skip
    each = len(kept) * len(pairs) * len(runs[0].parts)
    return np.stack(
        [one.values(kept, progress=shifted(told, i * each, len(runs) * each)) for i, one in enumerate(runs)]
    )


@dataclass(frozen=True)
class _Measured:
    """The runs, and what is made of them.

    Attributes:
        values: the metric.
        none: the set without an edge.
        every: the set of all edges.
        seed: of the intervals.
    """

    values: Float[np.ndarray, "ablation set prompt"]
    none: int
    every: int
    seed: int

    @property
    def gap(self) -> Float[np.ndarray, "prompt ablation"]:
        """Clean minus ablated."""
        found: np.ndarray = (self.values[:, self.every] - self.values[:, self.none]).T
        return found

    def above(self, sets: Int[np.ndarray, "*cell"]) -> Float[np.ndarray, "prompt ablation *cell"]:
        """How far each set comes above the ablated run."""
        return np.moveaxis(self.values[:, sets] - self._spread(self.values[:, self.none], sets.ndim), -1, 0)

    def faithfulness(self, sets: Int[np.ndarray, "*cell"]) -> Float[np.ndarray, "ablation ..."]:
        """The ratio of means over prompts."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = self.above(sets).mean(axis=0) / self.gap.mean(axis=0).reshape(-1, *[1] * sets.ndim)
        return found

    def interval(
        self,
        sets: Int[np.ndarray, "*cell"],
        of: Callable[[Float[np.ndarray, "resample ablation *cell"]], Float[np.ndarray, "resample ..."]],
    ) -> Float[np.ndarray, "... ci_bound"]:
        """The interval of a number made of the faithfulness of some sets."""
        gap = self.gap.reshape(*self.gap.shape, *[1] * sets.ndim)
        ends = stats.ratio_statistic_interval(self.above(sets), gap, of, seed=self.seed)
        return np.stack(ends, axis=-1)

    @staticmethod
    def _spread(values: Float[np.ndarray, "ablation prompt"], n: int) -> Float[np.ndarray, "ablation *one prompt"]:
        return values.reshape(values.shape[0], *[1] * n, values.shape[1])


def _same(ratios: Float[np.ndarray, "resample ..."]) -> Float[np.ndarray, "resample ..."]:
    return ratios


def _apart(ratios: Float[np.ndarray, "... knockout two"]) -> Float[np.ndarray, "..."]:
    """Mean absolute difference between the circuit and the model without the same parts."""
    found: np.ndarray = np.abs(ratios[..., 0] - ratios[..., 1]).mean(axis=-1)
    return found


def _cost(ratios: Float[np.ndarray, "... set"]) -> Float[np.ndarray, "... part"]:
    """What is lost from the first set to each of the others."""
    found: np.ndarray = ratios[..., :1] - ratios[..., 1:]
    return found


def _p(random: Float[np.ndarray, "... draw"], faithfulness: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Share of circuits, the circuit itself among them, that are at least as near to the model; NaN without draws."""
    n = random.shape[-1]
    as_near = np.abs(1 - random) <= np.abs(1 - faithfulness[..., None])
    return (1 + as_near.sum(axis=-1)) / (1 + n) if n else np.full(faithfulness.shape, np.nan)


def _labelled(
    model: HookedTransformer,
    pairs: PromptPairs,
    circuit: Circuit,
    ablations: Sequence[CircuitAblation],
    metric: AnyReadout,
    fractions: Sequence[float],
    asked: Asked,
    found: _Measured,
    seed: int,
) -> xr.Dataset:
    name, units = described(pairs, metric)
    curve, random = found.faithfulness(asked.sizes), found.faithfulness(asked.random)
    cpr, cmd = areas(fractions, curve)
    random_cpr, random_cmd = areas(fractions, np.moveaxis(random, 1, -1))
    one = np.array([asked.own, asked.others])
    own, others = np.moveaxis(found.faithfulness(one), -1, 0)
    own_ends, others_ends = np.moveaxis(found.interval(one, _same), 1, 0)
    own_random = found.faithfulness(asked.own_random)
    variables: dict[str, Variable] = {}

    def add(name: str, dims: tuple[str, ...], values: Any, long_name: str, ends: Any = None, units: str = "") -> None:
        variables[name] = Variable(dims, values, units, long_name)
        if ends is not None:
            dims = (*dims, "ci_bound")
            variables[f"{name}_interval"] = Variable(dims, ends, units, f"interval over prompts of {long_name}")

    over, alone = ("ablation", "size"), ("ablation",)
    add("faithfulness", over, curve, "faithfulness", found.interval(asked.sizes, _same))
    add("cpr", alone, cpr, "area below faithfulness",
        found.interval(asked.sizes, lambda ratios: areas(fractions, ratios)[0]))  # fmt: skip
    add("cmd", alone, cmd, "area between faithfulness and 1",
        found.interval(asked.sizes, lambda ratios: areas(fractions, ratios)[1]))  # fmt: skip
    add("own_faithfulness", alone, own, "faithfulness of the circuit itself", own_ends)
    add("complement", alone, others, "faithfulness of all other edges", others_ends)
    if len(asked.knocked):
        add("incompleteness", alone, _apart(found.faithfulness(asked.knocked)),
            "how far circuit and model differ without the same parts",
            found.interval(asked.knocked, _apart))  # fmt: skip
    for what, places, dim in (("node", asked.without_node, "node"), ("edge", asked.without_edge, "circuit_edge")):
        if len(places):
            sets = np.array([asked.own, *places])
            add(f"{what}_cost", ("ablation", dim), _cost(found.faithfulness(sets)),
                f"faithfulness lost without the {what}", found.interval(sets, _cost))  # fmt: skip
    if random.shape[-1]:
        add("random_faithfulness", (*over, "draw"), random, "faithfulness of random circuits")
        add("random_cpr", ("ablation", "draw"), random_cpr, "area below faithfulness of random circuits")
        add("random_cmd", ("ablation", "draw"), random_cmd, "area between faithfulness of random circuits and 1")
        add("cmd_p", alone, _p(1 - random_cmd, 1 - cmd), "share of circuits at least as near to the model over sizes")
        add("own_random", ("ablation", "null", "draw"), own_random, "faithfulness of random circuits like the circuit")
        add(
            "own_p",
            ("ablation", "null"),
            _p(own_random, own[:, None]),
            "share of circuits at least as near to the model",
        )
    add("n_edges", ("size",), asked.taken, "edges of the circuit", units="edges")
    add("n_connected", ("size",), asked.connected, "edges of the circuit that lie on a path", units="edges")
    add("clean", ("prompt",), found.values[0, asked.every], f"{name} of the clean run", units=units)
    add("ablated", ("prompt", *alone), found.values[:, asked.none].T, f"{name} with no edge", units=units)
    add("own", ("prompt", *alone), found.values[:, asked.own].T, f"{name} with the circuit alone", units=units)
    at_sizes = np.moveaxis(found.values[:, asked.sizes], -1, 0)
    add("circuit", ("prompt", *over), at_sizes, f"{name} with the circuit of a size", units=units)
    n_random = random.shape[-1]
    coords: dict[str, Any] = {
        "prompt": np.arange(len(pairs)),
        "ablation": list(ablations),
        "size": list(fractions),
        "draw": np.arange(n_random),
        "null": list(NULLS),
        "node": asked.nodes,
        "circuit_edge": [label(edge) for edge in asked.edges],
        "ci_bound": ["lower", "upper"],
    }
    used = {dim for variable in variables.values() for dim in variable.dims}
    known = circuit.data.attrs
    return results.build(
        variables,
        coords={dim: values for dim, values in coords.items() if dim in used},
        title="Evaluation of a circuit",
        question="Does the circuit do what the model does, on prompts it was not found on?",
        reading=_READING,
        source="Mueller et al. 2025, arXiv 2504.13151; Wang et al. 2022, arXiv 2211.00593",
        of=(model, pairs),
        seed=seed,
        dims={dim: meaning for dim, meaning in _DIMS.items() if dim in used},
        extra={
            "metric": readouts.readout(metric).name,
            "n_edges": asked.n_edges,
            "n_possible": circuit.n_possible,
            "rank": str(known["rank"]),
            "circuit_method": str(known.get("method", "")),
            "found_on_sha256": str(known["tokens_sha256"]),
            "n_random": n_random,
        },
    )


def label(edge: Edge) -> str:
    """An edge in a line.

    >>> label(Edge("L0H2", "L1H0.v")), label(Edge("embed", "MLP0", "color"))
    ('L0H2 -> L1H0.v', 'embed -> MLP0 at color')
    """
    return f"{edge.sender} -> {edge.receiver}{f' at {edge.role}' if edge.role is not None else ''}"
