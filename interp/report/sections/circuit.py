"""The circuit: which edges the answer comes about along, drawn, and each edge with its score."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from interp.errors import InterpError
from interp.language import say, say_reasons, say_stored
from interp.report import wiring
from interp.report.blocks import Block, Facts, Figure, Notice, Panel, Section
from interp.report.inputs import Result
from interp.report.tables import Column, Size, Table
from interp.report.wiring import Edge

KEY = "circuit"

METHODS = {
    "exact": "exact patching of every edge",
    "greedy": "greedy removal of edges",
    "eap": "EAP",
    "eap-ig-inputs": "EAP-IG (inputs)",
    "eap-ig-activations": "EAP-IG (activations)",
    "atp*": "AtP* of heads and MLPs",
    "given": "given",
}
"""Name of a method -> how it is said; another stands as it is."""


def section(circuit: Result) -> Section:
    """The picture of the strongest edges, with their table; and how the circuit was found."""
    edges = _edges(circuit)
    blocks: list[Block] = [*_warning(circuit), Facts(_facts(circuit, len(edges)), say("In short"))]
    if edges:
        blocks.append(figure(circuit, edges))
    else:
        none = say("No edge was kept: none is worth enough, or none lies on a path to the answer.")
        blocks.append(Notice("note", "", none))
    return Section(KEY, say("The circuit"), circuit.said("question"), blocks)


def figure(circuit: Result, edges: list[Edge]) -> Figure:
    """The strongest edges of the circuit, drawn and in a table."""
    shown = edges[: wiring.MOST]
    reading = say(
        "Layers go up. A dot is a part of the model, a line an edge from what writes to what reads it, as thick as its "
        "score; it enters a head at the left as a query, in the middle as a key, at the right as a value. A dashed "
        "line has a score below 0: it works against the answer."
    )
    if len(shown) < len(edges):
        reading += " " + say(
            "Drawn are the {n} edges with the largest scores; {more} more are in the file.",
            n=len(shown), more=len(edges) - len(shown),
        )  # fmt: skip
    if "role" in circuit.data["kept"].dims:
        reading += " " + say(
            "An edge stands at the word at which it is read. From a key or a value it goes on to the words at which "
            "its head is read in turn."
        )
    return Figure.of(
        circuit,
        f"{KEY}-edges",
        say("Edges of the circuit"),
        reading,
        panels=(Panel("", picture(circuit, shown), wide=True),),
        tables=(_table(circuit, shown),),
    )


def picture(circuit: Result, edges: list[Edge]) -> Markup:
    """The drawing of some edges."""
    layers = dict(zip(circuit.labels("sender"), circuit.data["sender_layer"].values.tolist(), strict=True))
    for nodes, layer in zip(
        circuit.labels("receiver_nodes"), circuit.data["receiver_layer"].values.tolist(), strict=True
    ):
        layers |= dict.fromkeys(nodes.split(), layer)
    roles = circuit.labels("role") if "role" in circuit.data["kept"].dims else ()
    return wiring.wiring(
        edges, layers, key=f"{KEY}-p", title=say("The circuit, layers up"), units=say_stored(circuit.units("score")),
        roles=[role for role in roles if any(edge.role == role for edge in edges)],
    )  # fmt: skip


def _edges(circuit: Result) -> list[Edge]:
    """The circuit's edges, the largest score first."""
    data = circuit.data
    score, kept = data["score"].values, data["kept"].values.astype(bool)
    places = np.argwhere(kept)
    order = np.argsort(-np.abs(score[kept]), kind="stable")
    senders, receivers, nodes = (circuit.labels(name) for name in ("sender", "receiver", "receiver_nodes"))
    roles = circuit.labels("role") if "role" in data["kept"].dims else ()
    low, high = data["score_interval"].values if circuit.has("score_interval") else np.full((2, *score.shape), np.nan)
    return [
        Edge(
            senders[place[0]],
            receivers[place[1]],
            tuple(nodes[place[1]].split()),
            Size(float(score[place]), float(low[place]), float(high[place])),
            roles[place[2]] if roles else "",
        )
        for place in map(tuple, places[order].tolist())
    ]


def _table(circuit: Result, edges: list[Edge]) -> Table:
    roles = any(edge.role for edge in edges)
    units = circuit.units("score")
    columns = [Column(say("sender"), facet="head"), Column(say("receiver"), facet="head")]
    columns += [Column(say("role"), facet="role")] if roles else []
    columns.append(Column(say("score"), units))
    again = _shares(circuit)
    columns += [Column(say("found again"), say("share"))] if again else []
    rows = tuple(
        (
            edge.sender, edge.receiver, *((edge.role,) if roles else ()), edge.score,
            *((again[edge.sender, edge.receiver, edge.role],) if again else ()),
        )
        for edge in edges
    )  # fmt: skip
    title = say("Edges, the largest score first, with 95% intervals over the prompts that the circuit was found on")
    return Table(title, tuple(columns), rows)


def _shares(circuit: Result) -> dict[tuple[str, str, str], float]:
    """In what share of the bootstrap samples each edge was found: sender, receiver and role -> share."""
    if not circuit.has("share"):
        return {}
    names = (label.replace(" at ", " -> ", 1).split(" -> ") for label in circuit.labels("circuit_edge"))
    shares = map(float, circuit.data["share"].values)
    return {(one[0], one[1], one[2] if len(one) > 2 else ""): share for one, share in zip(names, shares, strict=True)}


def _facts(circuit: Result, n_edges: int) -> tuple[tuple[str, str], ...]:
    """How many edges, how they were found, on which prompts."""
    data = circuit.data
    n_possible = int(np.isfinite(data["score"].values).sum())
    attr = data.attrs
    share = f"{n_edges / n_possible:.1%}" if n_possible else "–"
    facts = [
        (say("Size:"), say("{n} of {all} edges ({share}).", n=n_edges, all=n_possible, share=share)),
        (say("Method:"), _method(circuit)),
        (say("Found on:"), say("{n} pairs; whether it holds is measured on others.", n=int(attr["n_prompts"]))),
    ]
    if int(attr.get("n_unconnected", 0)):
        unconnected = say(
            "{n} edges that were chosen lie on no path from the embedding to the answer.", n=int(attr["n_unconnected"])
        )
        facts.append((say("Left out:"), unconnected))
    if circuit.attr("method_reason"):
        facts.insert(2, (say("Why this method:"), say_stored(circuit.attr("method_reason")) + "."))
    facts += _found_again(circuit)
    if "held_by_roles" in attr:
        held = say(
            "all edges at these words together hold {share} of the gap; the rest goes by other words.",
            share=f"{float(attr['held_by_roles']):.0%}",
        )  # fmt: skip
        facts.append((say("Words:"), held))
    return tuple(facts)


def _found_again(circuit: Result) -> list[tuple[str, str]]:
    """Whether other prompts of the same kind, and each template alone, give the same edges."""
    if not circuit.has("jaccard"):
        return []
    edges, nodes = (float(circuit.data[name].mean()) for name in ("jaccard", "node_jaccard"))
    low, high = map(float, circuit.need("jaccard_spread", "ci_bound").values)
    said = say(
        "{n} bootstrap samples of the prompts give circuits that have on average {edges} of the edges of either in "
        "common with this one (Jaccard index; 95% of the samples: {low} to {high}), and {nodes} of the heads and MLPs.",
        n=circuit.data.sizes["draw"], edges=f"{edges:.2f}", low=f"{low:.2f}", high=f"{high:.2f}", nodes=f"{nodes:.2f}",
    )  # fmt: skip
    if circuit.has("template_jaccard"):
        values = circuit.need("template_jaccard", "template", "other_template").values
        apart = values[np.triu_indices(len(values), 1)]
        said += " " + say(
            "Of two templates alone, {least} to {most}.", least=f"{apart.min():.2f}", most=f"{apart.max():.2f}"
        )
    return [(say("Found again:"), said)]


def _method(circuit: Result) -> str:
    """How edges were scored, and which of them were kept."""
    attr = circuit.data.attrs
    text = say_stored(METHODS.get(circuit.attr("method"), circuit.attr("method")))
    if "threshold" in attr:
        kept = say(
            "{method}; kept is what is worth at least {share} of the gap between the clean and the corrupted prompts.",
            method=text, share=f"{float(attr['threshold']):.0%}",
        )  # fmt: skip
    elif "size" in attr:
        kept = say("{method}; kept are as many of the best as were asked for.", method=text)
    else:
        kept = f"{text}."
    return kept


def _warning(circuit: Result) -> list[Block]:
    """What the audit of estimates says of them."""
    use, reason = circuit.attr("audit_use", "numbers"), say_reasons(circuit.attr("audit_reason"))
    if use == "numbers":
        return []
    if use == "ranking":
        text = say("The scores are estimates, good as a ranking only: {reason}.", reason=reason)
        return [Notice("note", "", text)]
    if use == "nothing":
        text = say("The scores are estimates that are good for nothing by their audit: {reason}.", reason=reason)
        return [Notice("warn", say("Do not use this circuit."), text)]
    raise InterpError(f"{circuit.file} says that its estimates are good for {use!r}, which is not known here.")
