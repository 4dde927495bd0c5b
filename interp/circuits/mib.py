"""Circuits in the JSON format of MIB's circuit track, to be ranked there, and from there.

The format is that of ``Graph.to_json`` and ``Graph.from_json`` in EAP-IG (Hanna et al. 2024, arXiv 2403.17806;
``hannamw/EAP-IG``), which the circuit track of MIB reads (Mueller et al. 2025, arXiv 2504.13151;
``hannamw/MIB-circuit-track``): ``cfg`` with ``n_layers n_heads parallel_attn_mlp d_model``; ``nodes``, name ->
``in_graph``; ``edges``, name -> ``score`` and ``in_graph``. Names: ``input``, ``a3.h2``, ``m3``, ``logits``;
``input->a5.h3<q>``, ``a3.h2->m4``, ``m4->logits``.

A high score means there what it means here: the edge moves the answer towards the clean run. MIB gives every head keys
and values of its own. Where heads share them, their edges are written with the score of the one that they share, and
the shared one is read with the mean of theirs.

Their ``logits`` are where the stream after the last block is read, so a circuit that ends there is written with that
end. One that ends in the stream of an earlier layer cannot be said: the format has no node for a place in the stream.
Written as edges to ``logits`` it would claim that its senders reach the output past all the blocks between. Written as
edges of a model of fewer layers it would not fit the model that MIB loads by its name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import _files
from interp.circuits.circuit import Circuit
from interp.circuits.graph import Edge, Graph
from interp.errors import InterpError, shown

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

MOST_BYTES = 2**30
"""A longer file is no circuit."""
SOURCE = "circuit in MIB's format (Mueller et al. 2025, arXiv 2504.13151)"

_LABEL = re.compile(r"L(?P<layer>\d+)(?P<kind>H|KV)(?P<head>\d+)(?:\.(?P<read>[qkv]))?")
_STREAM = re.compile(r"L\d+\.resid_(?:pre|mid|post)")
_THEIRS = re.compile(r"a(\d+)\.h(\d+)(?:<([qkv])>)?|m(\d+)|input|logits")


def save_mib(model: HookedTransformer, circuit: Circuit, path: str | Path) -> Path:
    """Write a circuit with all its scores as MIB reads it.

    Args:
        model: whose circuit it is.
        circuit: its edges have no roles, which MIB's do not have either. It ends at the logits, or in the stream after
            the last block, which is MIB's ``logits``; the file does not say what was measured there.
        path: of the file, ``importances.json`` in a submission to MIB.

    Raises:
        InterpError: edges with roles, a circuit that ends in the stream of an earlier layer, another model's circuit,
            or a place that cannot be written.

    >>> import tempfile
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> circuit = Circuit.of(model, pairs, [("embed", "L0H2.v"), ("L0H2", "logits")])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     back = load_mib(model, pairs, save_mib(model, circuit, Path(place) / "importances.json"))
    >>> back.edges == circuit.edges
    True
    """
    content = json.dumps(_told(model, circuit), allow_nan=False).encode()
    target = Path(path)
    try:
        _files.write(target, content)
    except OSError as error:
        raise InterpError(f"{target} cannot be written ({error}). Give another place.") from error
    return target


def load_mib(model: HookedTransformer, pairs: PromptPairs, path: str | Path) -> Circuit:
    """Read a circuit that is in MIB's format.

    Args:
        model: the model that it is a circuit of.
        pairs: the prompts that it is about.
        path: the file.

    Raises:
        InterpError: no such file, no circuit in it, or that of a model of another shape.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> load_mib(model, pairs, "importances.json")
    Traceback (most recent call last):
    interp.errors.InterpError: importances.json cannot be read as JSON (...). Give a circuit in MIB's format.
    """
    try:
        found = json.loads(_files.read(Path(path), at_most=MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InterpError(f"{path} cannot be read as JSON ({error}). Give a circuit in MIB's format.") from error
    try:
        return _circuit(model, pairs, found)
    except InterpError as error:
        raise InterpError(f"{path}: {error}") from error


def _shape(model: HookedTransformer) -> dict[str, int | bool]:
    cfg = model.cfg
    return {"n_layers": cfg.n_layers, "n_heads": cfg.n_heads, "parallel_attn_mlp": False, "d_model": cfg.d_model}


def _told(model: HookedTransformer, circuit: Circuit) -> dict[str, Any]:
    if circuit.graph.roles is not None:
        raise InterpError("MIB's circuits have no roles. Find the circuit with edges at every position.")
    whole, last = Graph.of(model, roles=None), f"L{model.cfg.n_layers - 1}.resid_post"
    end = circuit.graph.receivers[-1]
    if end != last and _STREAM.fullmatch(end):
        raise InterpError(
            f"The circuit ends in {end}, and MIB's circuits end at the logits: its format has no node for a place in "
            "the stream before the last block's end. Find the circuit with a metric of the logits."
        )
    if set(circuit.graph.senders) - set(whole.senders) or set(circuit.graph.receivers) - {*whole.receivers, last}:
        raise InterpError(f"The circuit is not one of {model.name}: give the model that it was found in.")
    scores, kept = circuit.scores.values, circuit.kept
    edges, nodes = {}, {_their_name(node): {"in_graph": False} for node in (*whole.senders, "logits")}
    for index in map(tuple, np.argwhere(np.isfinite(scores))):
        edge = circuit.graph.edge(index)
        for receiver in _of_heads("logits" if edge.receiver == last else edge.receiver, whole):
            edges[f"{_their_name(edge.sender)}->{_their_name(receiver)}"] = {
                "score": float(scores[index]), "in_graph": bool(kept[index]),
            }  # fmt: skip
            if kept[index]:
                for node in (edge.sender, receiver.partition(".")[0]):
                    nodes[_their_name(node)]["in_graph"] = True
    return {"cfg": _shape(model), "nodes": nodes, "edges": edges}


def _circuit(model: HookedTransformer, pairs: PromptPairs, found: Any) -> Circuit:
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("cfg", "nodes", "edges")):
        raise InterpError("A circuit in MIB's format has cfg, nodes and edges. Give such a file.")
    for name, value in _shape(model).items():
        if found["cfg"].get(name) != value:
            raise InterpError(f"cfg has {name} {shown(found['cfg'].get(name))}, but {model.name} has {value}.")
    scores: dict[Edge, list[float]] = {}
    kept = set()
    for name, told in found["edges"].items():
        edge = _edge(name, model)
        score, within = (told.get(key) if isinstance(told, dict) else None for key in ("score", "in_graph"))
        if not isinstance(score, int | float) or not np.isfinite(score) or not isinstance(within, bool):
            raise InterpError(f"Edge {shown(name)} is {shown(told)}. Give it a score and in_graph, true or false.")
        scores.setdefault(edge, []).append(float(score))
        if within:
            kept.add(edge)
    means = {edge: float(np.mean(values)) for edge, values in scores.items()}
    return Circuit.of(model, pairs, sorted(kept), scores=means, title="Circuit read from MIB's format", source=SOURCE)


def _their_name(label: str) -> str:
    if label in ("embed", "logits"):
        return {"embed": "input", "logits": "logits"}[label]
    if label.startswith("MLP"):
        return f"m{label[3:]}"
    found = _LABEL.fullmatch(label)
    assert found is not None
    read = found["read"]
    return f"a{found['layer']}.h{found['head']}{f'<{read}>' if read else ''}"


def _of_heads(receiver: str, graph: Graph) -> list[str]:
    """A receiver by each of the heads that share it."""
    found = _LABEL.fullmatch(receiver)
    return [receiver] if found is None else [f"{head}.{found['read']}" for head in graph.writers(receiver)]


def _edge(name: str, model: HookedTransformer) -> Edge:
    sender, arrow, receiver = name.partition("->")
    if not arrow or _THEIRS.fullmatch(sender) is None or _THEIRS.fullmatch(receiver) is None:
        raise InterpError(f"Edge {shown(name)} has no name of MIB's, such as 'input->a0.h0<q>'.")
    return Edge(_our_name(sender, model), _our_name(receiver, model))


def _our_name(name: str, model: HookedTransformer) -> str:
    if name in ("input", "logits"):
        return {"input": "embed", "logits": "logits"}[name]
    layer, head, read, mlp = _THEIRS.fullmatch(name).groups()  # type: ignore[union-attr]  # it was checked
    if mlp is not None:
        return f"MLP{mlp}"
    if read in ("k", "v") and model.cfg.grouped_query:
        return f"L{layer}KV{int(head) * model.cfg.n_kv_heads // model.cfg.n_heads}.{read}"
    return f"L{layer}H{head}{f'.{read}' if read else ''}"
