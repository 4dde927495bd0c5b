"""Circuits: the edges of a model along which a behaviour comes about.

An edge leads from what one part of the model writes to the residual stream to one reader of it: the query, key or
value input of a head, an MLP, or the logits. A ``Circuit`` is a value: edges with scores. It is saved, loaded, cut
to a size and compared.

>>> from interp import HookedTransformer, circuits, tasks
>>> model = HookedTransformer.from_pretrained("mini")
>>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
>>> circuits.Circuit.of(model, pairs, [("embed", "L0H2.v"), ("L0H2", "L1H0.v"), ("L1H0", "logits")])
Circuit(3 of 479 edges, 4 nodes, given)
"""

from interp.circuits.circuit import Circuit, Comparison, jaccard
from interp.circuits.discovery import THRESHOLD, Finder, discover, finder
from interp.circuits.evaluation import FRACTIONS, areas, evaluate
from interp.circuits.graph import Edge
from interp.circuits.halves import split
from interp.circuits.mib import load_mib, save_mib
from interp.circuits.planning import DiscoveryPlan, plan
from interp.circuits.running import CIRCUIT_ABLATIONS, run_circuit, run_circuits
from interp.circuits.stability import stability

__all__ = [
    "CIRCUIT_ABLATIONS",
    "FRACTIONS",
    "THRESHOLD",
    "Circuit",
    "Comparison",
    "DiscoveryPlan",
    "Edge",
    "Finder",
    "areas",
    "discover",
    "evaluate",
    "finder",
    "jaccard",
    "load_mib",
    "plan",
    "run_circuit",
    "run_circuits",
    "save_mib",
    "split",
    "stability",
]
