"""Edge attribution: how a change of one component would change the answer through each component that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import readouts, run
from interp._arguments import check_pairs
from interp.attribution.audit import DEFAULT, Audit, Exact
from interp.attribution.gradients import Differentiable, Edit, Place, at_value, differentiating
from interp.attribution.result import Estimates, Part, Question, check_gradient, check_method, labelled
from interp.errors import InterpError
from interp.errors import names as checked_names
from interp.model.arithmetic import Blocks
from interp.prompts import PromptPairs
from interp.readouts import AnyReadout
from interp.sweeps import (
    Direction,
    Kind,
    Meter,
    Node,
    Progress,
    Reading,
    checked_reading,
    path_patching,
    receivers_of,
    senders_of,
)

if TYPE_CHECKING:
    from interp.model import HookedTransformer

Method: TypeAlias = Literal["eap", "eap-ig-inputs", "eap-ig-activations"]

SOURCES = {
    "eap": "Syed et al. 2023, arXiv 2310.10348",
    "eap-ig-inputs": "Hanna et al. 2024, arXiv 2403.17806",
    "eap-ig-activations": "Marks et al. 2024, arXiv 2403.19647; Mueller et al. 2025, arXiv 2504.13151",
}


ACTS: dict[str, tuple[str, str]] = {
    **{kind: (kind, "resid_pre") for kind in ("q", "k", "v")},
    "mlp": ("mlp_out", "resid_mid"),
    "mid": ("resid_mid", "resid_mid"),
    **{kind: ("resid_post", "resid_post") for kind in ("stream", "logits")},  # of the layer before
}
"""Kind of receiver -> the site at which a gradient is taken, and the residual stream that it reads."""


@differentiating
def edge_attribution(
    model: HookedTransformer,
    pairs: PromptPairs,
    direction: Direction = "denoising",
    metric: AnyReadout = "logit_difference",
    *,
    method: Method = "eap",
    steps: int = 5,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    audit: Audit | None = DEFAULT,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Estimate every edge of ``path_patching`` from gradients.

    An edge's estimate is ``(source - base output of the sender) . d metric / d input of the receiver``, summed over
    positions, or over the tokens of each role. A receiver's input is its own copy of the residual stream before its
    norm, so the norm is part of the receiver, and the q, k and v of each head are receivers of their own. Methods
    differ in where the gradient is taken:

    * ``"eap"``: on the base run. The edges of one sender add up to its node estimate (``attribution_patching``).
    * ``"eap-ig-inputs"``: averaged over runs whose embedding is ``base + a (source - base)``, everything else
      following from it; a = (i + 1/2) / steps.
    * ``"eap-ig-activations"``: averaged over runs in which the sender's own output moves along that line and everything
      before it stays at base. All heads of a layer move together, so (2 layers + 1) x steps passes are run.

    (The code published with EAP-IG takes one end of each of the ``steps`` intervals; the limit is the same.)

    Args:
        model: its arithmetic is in ``interp.model.arithmetic``.
        pairs: clean and corrupted prompts.
        direction: ``"denoising"`` or ``"noising"``.
        metric: a name from ``interp.readouts`` or a read-out, of those with a gradient.
        method: see above.
        steps: of the integrals.
        senders: ``"embed"``, ``"L3H2"``, ``"MLP3"``; None is all.
        receivers: ``"L5H3.q"``, ``"L5H3.k"``, ``"L5H3.v"``, ``"MLP5"``, ``"logits"``; in grouped-query models keys and
            values are read by key-value heads, ``"L5KV1.k"``. None is all. A projection takes the place of the logits,
            as in ``path_patching``.
        roles: at whose tokens the receiver reads the other run, each by itself, as in ``path_patching``; None is every
            position at once.
        audit: what is patched exactly to check the estimates; None checks nothing.
        seed: of the audit's random sample.
        progress: True for a bar, or called with passes done and passes in all, a pass being one prompt forward and
            backward.

    Returns:
        Dims (prompt, sender, receiver and, with ``roles``, role), NaN where the sender does not come before the
        receiver: ``estimated_effect`` (change of the metric, its units), ``estimated`` = unpatched +
        ``estimated_effect`` (to compare with ``patched``), ``recovered`` from it, ``clean`` and ``corrupted``;
        ``audited`` and ``exact_effect`` (NaN where not audited), figures of the audit as ``audit_...`` attributes, of
        which ``audit_use`` says what the estimates are good for (``numbers``, ``ranking``, ``nothing``), and
        ``trusted``: 1 for numbers, else 0.

    Raises:
        InterpError: an unknown sender, receiver, method, direction or metric, or a model whose arithmetic is not
            written in ``interp.model.arithmetic``.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> edges = edge_attribution(model, pairs, senders=["L0H2"], receivers=["L1H0.q", "L1H0.v", "logits"], audit=None)
    >>> (edges.estimated_effect.mean("prompt") > 5).values.tolist()  # logits: what it writes is read as a value
    [[False, True, False]]
    """
    check_pairs(model, pairs)
    check_method(method, get_args(Method), steps)
    check_gradient(metric, direction, at_base=method == "eap")
    read = readouts.readout(metric).place
    if read is not None:
        checked_reading(model, pairs, metric)  # before its receivers are looked for
    sending, receiving = senders_of(model, senders), receivers_of(model, receivers, read=read)
    before = np.array([[sender.reaches(receiver) for receiver in receiving] for sender in sending], dtype=bool)
    if not before.any():
        raise InterpError("No sender comes before a receiver: name senders of earlier layers.")
    engine = Differentiable.of(model, *(() if read is None else (read.site,)))
    engine.pieces("Edge attribution")
    question = Question.of(model, pairs, direction, metric)
    runs = _runs(method, sending, steps if method != "eap" else 1)
    report = Meter(progress, len(question.parts) * len(pairs) * sum(len(shares) for _, shares, _ in runs)).add
    at = None if roles is None else checked_names(roles, "roles")
    effect = np.zeros((len(pairs), len(sending), len(receiving), 1 if at is None else len(at)))
    differs = np.zeros((len(sending), effect.shape[-1]), dtype=bool)
    for part in question.parts:
        for rows in engine.batches(part.base, more=len(sending) * part.base.ids.shape[1] * model.cfg.d_model):
            batch = _Batch.of(engine, part, rows, sending, receiving, at)
            for edit_at, shares, moved in runs:
                effect[np.ix_(rows, np.array(moved))] += part.sign * batch.scores(edit_at, shares, moved, report)
            for place, (_, changes) in enumerate(batch.changes_at(range(len(sending)))):
                differs[:, place] |= changes.abs().amax(dim=(0, 2, 3)).cpu().numpy() > 0
    effect[:, ~before] = np.nan
    eligible = before[:, :, None] & differs[:, None, :]
    writing, reading = [node.label for node in sending], [node.label for node in receiving]
    return labelled(
        question,
        Estimates(
            effect=effect if at is not None else effect[..., 0],
            eligible=eligible if at is not None else eligible[..., 0],
            dims=("sender", "receiver") if at is None else ("sender", "receiver", "role"),
            coords={"sender": writing, "receiver": reading, **({} if at is None else {"role": list(at)})},
            exact=_exact(question, writing, reading, at),
        ),
        audit,
        what="edges",
        method=method,
        reading="estimated_effect: first-order change of the metric by the edge; NaN: the sender comes too late.",
        source=SOURCES[method],
        seed=seed,
        extra={"steps": 1 if method == "eap" else steps},
    )


_Run: TypeAlias = tuple[Place | None, list[float], list[int]]
"""What moves from base to source, how far in each pass, and the senders whose edges these passes are for."""


def _runs(method: str, senders: Sequence[Node], steps: int) -> list[_Run]:
    everyone = list(range(len(senders)))
    shares = [(step + 0.5) / steps for step in range(steps)]
    if method == "eap":
        return [(None, [0.0], everyone)]
    if method == "eap-ig-inputs":
        return [(("resid_pre", 0), shares, everyone)]
    if method != "eap-ig-activations":
        raise InterpError(f"Where method '{method}' takes its gradients is not written in interp.attribution.edges.")
    together: dict[Place, list[int]] = {}
    for index, node in enumerate(senders):
        together.setdefault(node.written, []).append(index)
    return [(place, shares, moved) for place, moved in together.items()]


@dataclass(frozen=True)
class _Batch:
    """Some of the prompts.

    Attributes:
        engine: the model.
        ids: the base run's tokens.
        reading: of these prompts.
        base: the senders' sites on the base run.
        source: the same on the source run.
        changes: [prompt, sender, position, d_model] source minus base of what each sender writes.
        senders: the senders.
        receivers: the receivers.
        at: [role, prompt, position] the tokens of each role; None is every token at once.
    """

    engine: Differentiable
    ids: Int[Tensor, "prompt position"]
    reading: Reading
    base: dict[Place, Tensor]
    source: dict[Place, Tensor]
    changes: Float[Tensor, "prompt sender position d_model"]
    senders: tuple[Node, ...]
    receivers: tuple[Node, ...]
    at: Bool[Tensor, "role prompt position"] | None

    @classmethod
    def of(
        cls,
        engine: Differentiable,
        part: Part,
        rows: Int[np.ndarray, " prompt"],
        senders: tuple[Node, ...],
        receivers: tuple[Node, ...],
        roles: Sequence[str] | None,
    ) -> _Batch:
        blocks = engine.pieces("Edge attribution")
        places = list(dict.fromkeys(node.written for node in senders))
        reading = part.reading.rows(torch.from_numpy(rows)).with_known(engine.model)
        ids, other = (torch.from_numpy(np.array(run.ids[rows])) for run in (part.base, part.source))
        base, source = (engine.activations(tokens, places) for tokens in (ids, other))
        moves = {place: source[place] - base[place] for place in places}
        changes = [_written(blocks, node, moves[node.written]) for node in senders]
        at = None
        if roles is not None:
            prompts = part.base.select(rows)
            at = torch.from_numpy(np.stack([run.token_mask(prompts, role) for role in roles])).to(ids.device)
        return cls(engine, ids, reading, base, source, torch.stack(changes, dim=1), senders, receivers, at)

    def changes_at(
        self, moved: Sequence[int]
    ) -> list[tuple[slice | Tensor, Float[Tensor, "prompt moved token d_model"]]]:
        """Of each role the positions at which it stands in any prompt, and what some senders change there; 0 in others.

        Without roles every position.
        """
        changes = self.changes[:, list(moved)]
        if self.at is None:
            return [(slice(None), changes)]
        found: list[tuple[slice | Tensor, Tensor]] = []
        for tokens in self.at.to(changes.device):
            here = tokens.any(dim=0).nonzero()[:, 0]
            found.append((here, changes[:, :, here] * tokens[:, here][:, None, :, None]))
        return found

    def scores(
        self, moving: Place | None, shares: Sequence[float], moved: Sequence[int], report: Callable[[int], None]
    ) -> Float[np.ndarray, "prompt moved receiver place"]:
        """The edges of some senders, their gradients averaged over runs in which ``moving`` is on its way to source."""
        blocks = self.engine.pieces("Edge attribution")
        groups: dict[tuple[Kind, int], list[int]] = {}
        for index, node in enumerate(self.receivers):
            if any(self.senders[sender].reaches(node) for sender in moved):
                groups.setdefault((node.kind, node.layer), []).append(index)
        layer_of = {group: group[1] - (group[0] in ("stream", "logits")) for group in groups}
        outputs = {group: self._made_at(group[0], layer) for group, layer in layer_of.items()}
        inputs = {group: (ACTS[group[0]][1], layer) for group, layer in layer_of.items()}
        n_places = 1 if self.at is None else len(self.at)
        total = torch.zeros(len(self.ids), len(moved), len(self.receivers), n_places, dtype=torch.float64)
        # Flat, since einsum over two axes copies all changes anew for each group of receivers.
        changed = [(here, changes.flatten(2)) for here, changes in self.changes_at(moved)]
        for share in shares:
            edits: dict[Place, Edit] = {}
            if moving is not None:
                edits[moving] = at_value(torch.lerp(self.base[moving], self.source[moving], share))
            tape = self.engine.record(
                self.ids, self.reading, list(outputs.values()), kept=list(inputs.values()), edits=edits
            )
            gradients = tape.gradient()
            for group, indices in groups.items():
                nodes = [self.receivers[index] for index in indices]
                site, _ = outputs[group]
                at_input = _at_input(blocks, nodes, tape.values[inputs[group]], site, gradients[outputs[group]])
                for place, (here, changes) in enumerate(changed):
                    summed = changes @ at_input[:, :, here].flatten(2).mT
                    total[:, :, indices, place] += summed.double().cpu() / len(shares)
            report(len(self.ids))
        return total.numpy()

    def _made_at(self, kind: Kind, layer: int) -> Place:
        """Where a gradient is taken: at what a receiver makes of its input, or at what is read on the way to that."""
        read = self.reading.inside
        if kind == "mlp" and read is not None and read.layer == layer:
            return read.site, layer
        return ACTS[kind][0], layer


def _written(blocks: Blocks, node: Node, change: Tensor) -> Float[Tensor, "prompt position d_model"]:
    """A change of a sender's site as the change of the residual stream."""
    if node.kind != "head":
        return change
    rows = slice(node.head * blocks.d_head, (node.head + 1) * blocks.d_head)
    return change[:, :, node.head] @ blocks.layers[node.layer].o.weight[rows]


def _at_input(
    blocks: Blocks,
    nodes: Sequence[Node],
    stream: Float[Tensor, "prompt position d_model"],
    site: str,
    gradient: Tensor,
) -> Float[Tensor, "prompt receiver position d_model"]:
    """The gradient at the own input, before the norm, of receivers of one kind and layer.

    Args:
        blocks: the model.
        nodes: the receivers.
        stream: what they read.
        site: what they make of it: queries, keys, values, ``mlp_out`` or neurons, or the stream itself.
        gradient: of the metric with respect to that.
    """
    kind, layer = nodes[0].kind, nodes[0].layer
    if kind in ("stream", "mid", "logits"):
        return gradient.unsqueeze(1)
    block = blocks.layers[layer]
    with torch.enable_grad():
        if kind == "mlp":
            x, made = stream.clone().requires_grad_(), dict[str, Tensor]()

            def keep(name: str, _: int, value: Tensor) -> Tensor:
                made[name] = value
                return value

            blocks.mlp(layer, x, keep, (site,))
            (found,) = torch.autograd.grad(made[site], x, gradient)
            return found.unsqueeze(1)
        heads = [node.head for node in nodes]
        weight = blocks.heads(getattr(block, kind).weight)[:, heads]
        after_norm = torch.einsum("pshx,dhx->phsd", gradient[:, :, heads], weight)
        x = stream.unsqueeze(1).repeat(1, len(heads), 1, 1).requires_grad_()
        (found,) = torch.autograd.grad(block.ln1(x), x, after_norm)
    return found


def _exact(question: Question, senders: Sequence[str], receivers: Sequence[str], roles: Sequence[str] | None) -> Exact:
    """Exact effects of chosen edges; those at one role are patched together."""
    shape = (len(senders), len(receivers), 1 if roles is None else len(roles))

    def exactly(chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "prompt chosen"]:
        sending, receiving, place = np.unravel_index(chosen, shape)
        total = np.zeros((len(question.pairs), len(chosen)))
        for at in np.unique(place).tolist():
            here = np.flatnonzero(place == at)
            named = [(senders[sending[i]], receivers[receiving[i]]) for i in here]
            for part in question.parts:
                found = path_patching(
                    question.model, part.pairs, direction=question.direction, metric=part.reading.readout,
                    edges=named, roles=None if roles is None else [roles[at]], minimum_gap=0.0,
                )  # fmt: skip
                effect = question.effect_of(found).reshape(len(total), found.sizes["sender"], found.sizes["receiver"])
                rows = found.indexes["sender"].get_indexer([sender for sender, _ in named])
                columns = found.indexes["receiver"].get_indexer([receiver for _, receiver in named])
                total[:, here] += part.sign * effect[:, rows, columns]
        return total

    return exactly
