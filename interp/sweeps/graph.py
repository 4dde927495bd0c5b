"""The graph of a transformer's residual stream: who writes to it (senders) and who reads it (receivers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from interp.errors import names as checked_names
from interp.errors import unknown_name
from interp.readouts import Place
from interp.sites import head_label

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Kind: TypeAlias = Literal["embed", "head", "mlp", "q", "k", "v", "mid", "stream", "logits"]

WRITTEN_AT: Mapping[str, str] = {"embed": "resid_pre", "head": "z", "mlp": "mlp_out"}
"""Kind of sender -> the site that holds what it writes."""


@dataclass(frozen=True)
class Node:
    """A sender (``embed head mlp``), a receiver (``q k v mlp``), or the end: ``logits``, or a stream (``mid stream``).

    Attributes:
        label: ``embed``, ``L3H2``, ``MLP3``; ``L5H3.q``, ``L5KV1.k`` (key-value heads that are shared), ``logits``,
            ``L5.resid_pre``.
        kind: what it is; ``stream`` is the residual stream before ``layer``, ``mid`` that before its MLP.
        layer: its layer; -1 for ``embed``, the number of layers for ``logits``.
        head: head or key-value head; -1 where it has none.
        role: of a sender, the word whose tokens alone are meant; empty is every token.

    >>> head, mlp = Node("L1H0", "head", 1, 0), Node("MLP1", "mlp", 1)
    >>> head.reaches(mlp), mlp.reaches(head)  # within a layer attention comes before the MLP
    (True, False)
    """

    label: str
    kind: Kind
    layer: int
    head: int = -1
    role: str = ""

    @property
    def written(self) -> tuple[str, int]:
        """Site and layer that hold what this sender writes; for the embedding it is what layer 0 reads."""
        return WRITTEN_AT[self.kind], max(self.layer, 0)

    def reaches(self, receiver: Node) -> bool:
        """Whether this sender writes before that receiver reads."""
        if receiver.kind in ("mlp", "mid") and self.kind == "head":
            return self.layer <= receiver.layer
        return self.layer < receiver.layer


def senders_of(model: HookedTransformer, names: Sequence[str] | None = None) -> tuple[Node, ...]:
    """Everything that writes to the stream, in the order of writing, or those named.

    Raises:
        InterpError: an unknown name.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> [node.label for node in senders_of(model)[:6]]
    ['embed', 'L0H0', 'L0H1', 'L0H2', 'L0H3', 'MLP0']
    """
    nodes = [Node("embed", "embed", -1)]
    for layer in range(model.cfg.n_layers):
        nodes += [Node(head_label(layer, head), "head", layer, head) for head in range(model.cfg.n_heads)]
        nodes += _mlp(model, layer)
    return _named(nodes, names, "sender")


def senders_at(senders: Sequence[Node], roles: Sequence[str] | None) -> tuple[Node, ...]:
    """Each sender at each of some roles, the roles of one sender together; None leaves the senders as they are.

    >>> [node.label for node in senders_at([Node("embed", "embed", -1)], ["noun", "color"])]
    ['embed@noun', 'embed@color']
    """
    if roles is None:
        return tuple(senders)
    return tuple(replace(node, label=f"{node.label}@{role}", role=role) for node in senders for role in roles)


def receivers_of(
    model: HookedTransformer, names: Sequence[str] | None = None, *, read: Place | None = None
) -> tuple[Node, ...]:
    """Everything that reads the stream, in the order of reading, or those named.

    The last are the logits. Where an activation is read instead (``read``), they are what leads to it; the last is
    that activation itself if it is the residual stream, to which senders write.

    Raises:
        InterpError: an unknown name.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> [(node.label, node.layer) for node in receivers_of(model, ["L1H0.q", "logits"])]
    [('L1H0.q', 1), ('logits', 4)]
    """
    cfg = model.cfg
    nodes: list[Node] = []
    for layer in range(cfg.n_layers):
        nodes += [Node(f"{head_label(layer, head)}.q", "q", layer, head) for head in range(cfg.n_heads)]
        shared = "KV" if cfg.grouped_query else "H"
        kinds: tuple[Kind, ...] = ("k", "v")
        for kind in kinds:
            nodes += [Node(f"L{layer}{shared}{h}.{kind}", kind, layer, h) for h in range(cfg.n_kv_heads)]
        nodes += _mlp(model, layer)
    if read is None:
        nodes.append(Node("logits", "logits", cfg.n_layers))
        return _named(nodes, names, "receiver")
    reads_at = {"mlp": "mlp_pre"}
    nodes = [node for node in nodes if read.reached_by(reads_at.get(node.kind, node.kind), node.layer)]
    label = f"L{read.layer}.{read.site}"
    if read.is_stream:
        nodes.append(Node(label, "stream", read.n_blocks))
    elif read.site == "resid_mid":
        nodes.append(Node(label, "mid", read.layer))
    return _named(nodes, names, "receiver")


def _mlp(model: HookedTransformer, layer: int) -> list[Node]:
    """The MLP of a layer, where the model has any."""
    return [Node(f"MLP{layer}", "mlp", layer)] if model.has_site("mlp_out") else []


def _named(nodes: Sequence[Node], names: Sequence[str] | None, what: str) -> tuple[Node, ...]:
    if names is None:
        return tuple(nodes)
    by_label = {node.label: node for node in nodes}
    wanted = checked_names(names, f"{what}s")
    for name in wanted:
        if name not in by_label:
            raise unknown_name(what, name, by_label)
    return tuple(by_label[name] for name in wanted)
