"""The edges that a model has, and those of them that lie on a path from the embedding to the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from interp.errors import InterpError, shown, unknown_name
from interp.readouts import AnyReadout, readout
from interp.sites import head_label
from interp.sweeps import receivers_of, senders_of

if TYPE_CHECKING:
    from interp.model import HookedTransformer

START = "embed"
"""The sender that every path starts from."""
SIZES = ("n_heads", "n_kv_heads")
"""Attributes of a circuit's data without which shared keys and values cannot be followed."""

_READS = re.compile(r"L(\d+)(H|KV)(\d+)\.[qkv]")

_LAYER = re.compile(r"L(\d+)(?:H|KV)|MLP(\d+)")


class Edge(NamedTuple):
    """What one part of the model writes to the residual stream, as another part reads it.

    Attributes:
        sender: ``embed``, ``L3H2`` or ``MLP3``.
        receiver: ``L5H3.q``, ``L5H3.k``, ``L5H3.v`` (shared key-value heads: ``L5KV1.k``), ``MLP5`` or ``logits``; of
            a circuit that ends in the stream, ``L5.resid_post``.
        role: the word at which the receiver reads; None is every position. At a query, an MLP or the logits this is
            also where the receiver goes on. At a key or value it is the word that is looked at: from there the head
            carries on to every word that looks.

    >>> Edge("L0H2", "L1H0.v")
    Edge(sender='L0H2', receiver='L1H0.v', role=None)
    """

    sender: str
    receiver: str
    role: str | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """The edges that a model has.

    Attributes:
        senders: their labels, in the order of writing.
        receivers: theirs, in the order of reading; the last is the end.
        roles: at which receivers read; None: edges have no role.
        possible: [sender, receiver(, role)] whether there is an edge.
        n_heads: query heads of a layer.
        n_kv_heads: key-value heads of a layer.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    roles: tuple[str, ...] | None
    possible: Bool[np.ndarray, "sender receiver *role"]
    n_heads: int
    n_kv_heads: int

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        *,
        roles: Sequence[str] | None,
        senders: Sequence[str] | None = None,
        receivers: Sequence[str] | None = None,
        metric: AnyReadout = "logit_difference",
    ) -> Graph:
        """The graph of a model, or the part of it between some senders and receivers.

        Args:
            model: the model.
            roles: at which receivers read; None: edges have no role.
            senders: some of them by their labels; None is all that write before the end.
            receivers: likewise.
            metric: what is measured at the end. That of a projection of the residual stream is that stream, and
                nothing that comes later is in the graph; any other ends at the logits.

        Raises:
            InterpError: an unknown sender or receiver, or a projection of anything but the residual stream.
        """
        measured = readout(metric)
        read = measured.place
        if read is not None and not (read.is_stream or read.site == "resid_mid"):
            raise InterpError(
                f"A circuit ends at the logits or in the residual stream, and the {measured.name} reads {read.site}. "
                "Project resid_pre, resid_mid or resid_post."
            )
        sending, receiving = senders_of(model, senders), receivers_of(model, receivers, read=read)
        if senders is None:
            sending = tuple(one for one in sending if one.reaches(receiving[-1]))
        possible = np.array([[one.reaches(other) for other in receiving] for one in sending], dtype=bool)
        if roles is not None:
            possible = np.repeat(possible[:, :, None], len(roles), axis=2)
        return cls(
            tuple(node.label for node in sending),
            tuple(node.label for node in receiving),
            None if roles is None else tuple(roles),
            possible,
            model.cfg.n_heads,
            model.cfg.n_kv_heads,
        )

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of an array over its edges."""
        return ("sender", "receiver") if self.roles is None else ("sender", "receiver", "role")

    @property
    def coords(self) -> dict[str, Any]:
        """The labels of those axes, with their layers and, of a receiver, the senders that go on from it."""
        receivers = [*self.receivers]
        found: dict[str, Any] = {
            "sender": [*self.senders],
            "sender_layer": ("sender", [self._layer(name) for name in self.senders]),
            "receiver": receivers,
            "receiver_layer": ("receiver", [self._layer(name) for name in receivers]),
            "receiver_nodes": ("receiver", [" ".join(self.writers(name) or (name,)) for name in receivers]),
        }
        return found if self.roles is None else found | {"role": [*self.roles]}

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers of heads, as attributes."""
        return {name: getattr(self, name) for name in SIZES}

    def edge(self, index: Iterable[int]) -> Edge:
        """The edge at a place of such an array."""
        sender, receiver, *role = (int(at) for at in index)
        return Edge(
            self.senders[sender], self.receivers[receiver], *(() if self.roles is None else (self.roles[role[0]],))
        )

    def at(self, edge: Edge) -> tuple[int, ...]:
        """The place of an edge in such an array.

        Raises:
            InterpError: the model has no such edge.
        """
        if (edge.role is None) != (self.roles is None):
            raise InterpError(
                f"{shown(tuple(edge))} has {'no' if edge.role is None else 'a'} role, unlike the other edges. Give all "
                "edges a role, or none."
            )
        index = []
        for what, name, known in (
            ("sender", edge.sender, self._index[0]),
            ("receiver", edge.receiver, self._index[1]),
            *((("role", edge.role, self._index[2]),) if self.roles is not None else ()),
        ):
            if name not in known:
                raise unknown_name(what, name, known)
            index.append(known[name])
        if not self.possible[tuple(index)]:
            raise InterpError(
                f"There is no edge from {edge.sender!r} to {edge.receiver!r}: the sender does not come before the "
                "receiver. Name an earlier sender."
            )
        return tuple(index)

    def mask(self, edges: Iterable[Edge | tuple[str, ...]]) -> Bool[np.ndarray, "*edges"]:
        """Which edges are among those given.

        Raises:
            InterpError: the model has no such edge.
        """
        kept = np.zeros(self.possible.shape, dtype=bool)
        for edge in edges:
            kept[self.at(Edge(*edge))] = True
        return kept

    def writers(self, receiver: str) -> tuple[str, ...]:
        """The senders that go on from a receiver: its head, the heads that share it, its MLP; none from the end."""
        found = _READS.fullmatch(receiver)
        if found is None:
            return (receiver,) if receiver in self._index[0] else ()
        layer, kind, head = int(found[1]), found[2], int(found[3])
        group = self.n_heads // self.n_kv_heads if kind == "KV" else 1
        return tuple(head_label(layer, one) for one in range(head * group, (head + 1) * group))

    def _layer(self, name: str) -> int:
        """The layer of a label; -1 of the embedding, one more than that of the last sender of the end."""

        def written(label: str) -> int | None:
            found = _LAYER.match(label)
            return None if found is None else int(found[1] or found[2])

        last = max((layer for label in self.senders if (layer := written(label)) is not None), default=-1)
        own = written(name)
        return own if own is not None else -1 if name == START else last + 1

    @cached_property
    def _index(self) -> tuple[dict[str | None, int], ...]:
        return tuple({name: i for i, name in enumerate(of)} for of in (self.senders, self.receivers, self.roles or ()))


def node_of(receiver: str) -> str:
    """The part of the model that a receiver belongs to.

    >>> node_of("L1H0.q"), node_of("L1KV0.v"), node_of("MLP1"), node_of("logits")
    ('L1H0', 'L1KV0', 'MLP1', 'logits')
    """
    return receiver.partition(".")[0] if _READS.fullmatch(receiver) else receiver


def on_paths(edges: Iterable[Edge], graph: Graph) -> set[Edge]:
    """Those edges that lie on a path from the embedding to the end.

    A part of the model at a role is one place of a path. A key or value leads from its role to every role.
    """
    place = {name: i for i, name in enumerate(graph.senders)}
    ordered = sorted(edges, key=lambda edge: place[edge.sender])
    roles = graph.roles or (None,)

    def leads_to(edge: Edge) -> list[tuple[str, str | None]]:
        found = _READS.fullmatch(edge.receiver)
        everywhere = found is not None and edge.receiver[-1] in "kv"
        return [
            (node, role) for node in graph.writers(edge.receiver) for role in (roles if everywhere else (edge.role,))
        ]

    reached: set[tuple[str, str | None]] = {(START, role) for role in roles}
    forward = []
    for edge in ordered:
        if (edge.sender, edge.role) in reached:
            forward.append(edge)
            reached |= set(leads_to(edge))
    useful: set[tuple[str, str | None]] = set()
    found = set()
    for edge in reversed(forward):
        goes_on = leads_to(edge)
        if not goes_on or useful & set(goes_on):
            found.add(edge)
            useful.add((edge.sender, edge.role))
    return found
