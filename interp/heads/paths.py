"""Whether a head looks for the reason that the parts of its score give: the paths into its query and key, patched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import results
from interp._arguments import check_pairs
from interp.errors import InterpError, whole_number
from interp.heads.choice import check_order, end_of
from interp.heads.head import Head
from interp.heads.scores import score_attribution
from interp.model.arithmetic import Blocks
from interp.model.frozen import FrozenNorm
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout
from interp.results import Variable
from interp.run import chunks_of, ids_of, rows_per_batch
from interp.sweeps import Direction, Node, base_and_source, described, path_patching, senders_of, shifted
from interp.sweeps.progress import Meter, Progress, listener

if TYPE_CHECKING:
    from interp.model import HookedTransformer

SIDES = ("query", "key")


def score_paths(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    head: tuple[int, int],
    dest: str | int,
    src: str | int,
    senders: Sequence[str] | None = None,
    top: int = 4,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Patch what single writers send into a head's query or key, and see what becomes of its score and of the answer.

    For each sender, what it writes in the other run is put in place of what it writes in this one, at every position,
    for the head's query alone or for its key alone (path patching, Wang et al. 2022). Beside what really happens stands
    what the parts of the score predict: the change of the sender's own part, with the norm's scale as it was. The two
    differ by what the norm does.

    Args:
        model: its arithmetic is in ``interp.model.arithmetic`` (``model.blocks`` is not None).
        pairs: clean and corrupted prompts.
        head: (layer, head), not of layer 0, before which there is only the embedding.
        dest: the word that looks: a role (its last token) or a position.
        src: the word that is looked at.
        senders: ``embed``, heads (``L0H2``) and MLPs (``MLP0``) of earlier layers. None takes the writers of the pairs
            of parts that change most from clean to corrupted (``score_attribution``). They are chosen on every other
            prompt, and these prompts are then left out (NaN), so that nothing is measured where it was chosen.
        top: how many senders are chosen.
        direction: ``"noising"`` takes the sender's output from the corrupted run into the clean one; ``"denoising"``
            the reverse.
        metric: what is measured of the answer: a name from ``interp.readouts``, or a read-out.
        progress: True for a bar, or called with rows done and rows in all.

    Returns:
        All (prompt, sender, side), changes of this run by the patch: ``predicted_change`` and ``score_change`` of the
        score before the softmax, ``weight_change`` of the attention weight, ``metric_change`` of the metric. Heads that
        share keys look by the same one, so that a patched key moves the metric through all of them.

    Raises:
        InterpError: a model without arithmetic here, a head of layer 0, an unknown sender, role or position.

    >>> from interp import HookedTransformer, heads, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = heads.score_paths(model, pairs, head=(1, 0), dest="answer", src="color", senders=["embed", "L0H2"])
    >>> bool((abs(found.predicted_change - found.score_change) < 2).all())
    True
    """
    check_pairs(model, pairs)
    one = Head.of(model, head)
    ends = end_of(pairs.clean, dest), end_of(pairs.clean, src)
    check_order(*ends)
    blocks, reason = model.own_blocks()
    if blocks is None:
        raise InterpError(f"Paths into a head are patched on the model's own weights only, and {reason}.")
    if one.layer == 0:
        raise InterpError(
            f"{one.label} reads the embedding alone: there are no paths to tell apart. Name a later head."
        )
    chosen_on = np.zeros(len(pairs), dtype=bool)
    if senders is None:
        chosen_on = held_apart(len(pairs))
        told = pairs.select(np.flatnonzero(chosen_on)) if chosen_on.any() else pairs
        senders = _leading(model, told, one, dest, src, whole_number(top, "top", least=1))
    nodes = senders_of(model, senders)
    for node in nodes:
        if node.layer >= one.layer:
            raise InterpError(
                f"{node.label} does not write before {one.label} reads. Name a sender of an earlier layer."
            )
    rows = np.flatnonzero(~chosen_on)
    some = pairs.select(rows)
    say = listener(progress)
    total = len(rows) * len(nodes) * (1 + len(SIDES))
    changes = _changes(
        model, blocks, some, one, (ends[0].positions[rows], ends[1].positions[rows]), nodes, direction,
        Meter(say, total),
    )  # fmt: skip
    receivers = [one.receiver(kind, model.cfg.grouped_query) for kind in ("q", "k")]
    patched = path_patching(
        model, some, direction=direction, metric=metric, senders=[node.label for node in nodes], receivers=receivers,
        progress=shifted(say, len(rows) * len(nodes), total),
    )  # fmt: skip
    base = patched["clean" if direction == "noising" else "corrupted"]
    changes["metric_change"] = (patched["patched"] - base).transpose("prompt", "sender", "receiver").values
    name, units = described(pairs, metric)
    said = {
        "predicted_change": ("", "change of the score that its parts predict"),
        "score_change": ("", "change of the score by the patch"),
        "weight_change": ("share", "change of the attention weight by the patch"),
        "metric_change": (units, f"change of {name} by the patch"),
    }
    dims = ("prompt", "sender", "side")
    return results.build(
        {key: Variable(dims, _over(pairs, rows, changes[key]), unit, text) for key, (unit, text) in said.items()},
        coords={"prompt": np.arange(len(pairs)), "sender": [node.label for node in nodes], "side": list(SIDES)},
        title="Paths into a head's query and key",
        question=f"Does {one.label} look from {ends[0].name} to {ends[1].name} for what these writers send it?",
        reading="Each change is what one writer's output of the other run does, sent into the query or the key alone. "
        "Where predicted and real change agree, the parts of the score explain it. NaN: prompts that the writers were "
        "chosen on.",
        source="Wang et al. 2022, arXiv 2211.00593 (path patching)",
        of=(model, pairs),
        seed=0,
        extra={
            "head_label": one.label,
            "dest": ends[0].name,
            "src": ends[1].name,
            "direction": direction,
            "metric": name,
            "n_chosen_on": int(chosen_on.sum()),
        },
        dims={"side": "what the writer's output is sent into: the query or the key"},
    )


def held_apart(n: int) -> Bool[np.ndarray, " prompt"]:
    """Which prompts something is chosen on, so that it is measured on the others; none below four.

    >>> held_apart(5).tolist(), held_apart(3).tolist()
    ([True, False, True, False, True], [False, False, False])
    """
    found: Bool[np.ndarray, " prompt"] = np.arange(n) % 2 == (0 if n >= 4 else 2)
    return found


def _over(pairs: PromptPairs, rows: Int[np.ndarray, " row"], values: np.ndarray) -> np.ndarray:
    """Values of some prompts as those of all, NaN for the others."""
    out = np.full((len(pairs), *values.shape[1:]), np.nan)
    out[rows] = values
    return out


def _leading(
    model: HookedTransformer, pairs: PromptPairs, head: Head, dest: str | int, src: str | int, top: int
) -> list[str]:
    """The writers of the pairs of parts that change most, as path patching calls them, in the order of writing."""
    found = score_attribution(model, pairs, head=(head.layer, head.head), dest=dest, src=src)["term_change"]
    mean = abs(found).mean("prompt")  # a change may have either sign, by the pair
    known = dict.fromkeys(node.label for node in senders_of(model) if node.layer < head.layer)
    writers = [mean[axis].values.tolist() for axis in ("query_writer", "key_writer")]
    places = np.unravel_index(np.argsort(-mean.values, axis=None, kind="stable"), mean.shape)
    in_order = (writers[side][i] for pair in zip(*places, strict=True) for side, i in enumerate(pair))
    chosen = list(islice(dict.fromkeys(label for label in in_order if label in known), top))
    return [label for label in known if label in chosen]


@dataclass(frozen=True)
class _Run:
    """What a run of some prompts keeps: the stream before the head's layer, and what each sender wrote."""

    stream: Float[Tensor, "prompt position d_model"]
    written: dict[str, Float[Tensor, "prompt position d_model"]]


def _changes(
    model: HookedTransformer,
    blocks: Blocks,
    pairs: PromptPairs,
    head: Head,
    at: tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, " prompt"]],
    nodes: Sequence[Node],
    direction: str,
    meter: Meter,
) -> dict[str, Float[np.ndarray, "prompt sender side"]]:
    """Predicted and real change of the score, and change of the weight."""
    base, source = base_and_source(pairs, direction)
    out = {
        name: np.empty((len(pairs), len(nodes), 2)) for name in ("predicted_change", "score_change", "weight_change")
    }
    with torch.inference_mode():
        for rows in chunks_of(len(pairs), rows_per_batch(model, base.ids.shape[1])):
            here, other = (_run(blocks, part.select(rows), head.layer, nodes) for part in (base, source))
            dest, src = (torch.from_numpy(one[rows]).to(here.stream.device) for one in at)
            look = _Look(model, blocks, head, here.stream, dest, src)
            for i, node in enumerate(nodes):
                delta = other.written[node.label] - here.written[node.label]
                for name, values in look.changed(delta).items():
                    out[name][rows, i] = values.cpu().numpy()
                meter.add(len(rows))
    return out


def _run(blocks: Blocks, prompts: Prompts, layer: int, nodes: Sequence[Node]) -> _Run:
    """One run of the prompts up to a layer."""
    wanted = {node.written for node in nodes}
    kept: dict[tuple[str, int], Tensor] = {}

    def tap(site: str, at: int, value: Tensor) -> Tensor:
        if (site, at) in wanted:
            kept[site, at] = value
        return value

    stream = blocks.forward(ids_of(prompts).to(blocks.token.device), tap=tap, fused=True, stop_at_layer=layer)
    written = {}
    for node in nodes:
        value = kept[node.written]
        written[node.label] = value if node.head < 0 else blocks.results(node.layer, value)[:, :, node.head]
    return _Run(stream, written)


@dataclass(frozen=True)
class _Look:
    """One head's look from one word to another, on some prompts."""

    model: HookedTransformer
    blocks: Blocks
    head: Head
    stream: Float[Tensor, "prompt position d_model"]
    dest: Int[Tensor, " prompt"]
    src: Int[Tensor, " prompt"]

    def changed(self, delta: Float[Tensor, "prompt position d_model"]) -> dict[str, Float[Tensor, "prompt side"]]:
        """What adding ``delta`` to the stream does, as the query's input alone and as the key's alone."""
        q, k = self._read(self.stream)
        new_q, new_k = self._read(self.stream + delta)
        rows = torch.arange(len(q), device=q.device)
        before = self._row(q, k)
        after = [self._row(new_q, k), self._row(q, new_k)]
        score = torch.stack([row[rows, self.src] - before[rows, self.src] for row in after], dim=1)
        weights = [row.softmax(-1)[rows, self.src] for row in (before, *after)]
        weight = torch.stack([one - weights[0] for one in weights[1:]], dim=1)
        return {"predicted_change": self._predicted(delta, q, k), "score_change": score, "weight_change": weight}

    def _read(self, stream: Tensor) -> tuple[Float[Tensor, "prompt d_head"], Float[Tensor, "prompt position d_head"]]:
        """The query at ``dest``, and every key, rotated."""
        length = stream.shape[1]
        positions = torch.arange(length, device=stream.device)
        q, k, _ = self.blocks.projected(self.head.layer, stream, positions, length, lambda site, layer, value: value)
        rows = torch.arange(len(stream), device=stream.device)
        return q[rows, self.dest, self.head.head].double(), k[:, :, self.head.kv_head].double()

    def _row(self, q: Tensor, k: Tensor) -> Float[Tensor, "prompt position"]:
        """The scores from ``dest`` to every position, masked."""
        scores = self.blocks.scale * torch.einsum("px,psx->ps", q, k)
        later = torch.arange(k.shape[1], device=k.device) > self.dest.unsqueeze(1)
        return scores.masked_fill(later, -torch.inf)

    def _predicted(self, delta: Tensor, q: Tensor, k: Tensor) -> Float[Tensor, "prompt side"]:
        """The change of the parts, with the norm's scale of this run."""
        rows = torch.arange(len(q), device=q.device)
        block, length = self.blocks.layers[self.head.layer], self.stream.shape[1]
        sides = []
        for kind, at, other in (("q", self.dest, k[rows, self.src]), ("k", self.src, q)):
            norm = FrozenNorm.of(self.model, self.model.bridge.blocks[self.head.layer].ln1, self.stream[rows, at])
            linear = {"q": block.q, "k": block.k}[kind]
            index = self.head.head if kind == "q" else self.head.kv_head
            read = norm(delta[rows, at].double().cpu()) @ linear.weight.double().cpu()
            part = self.blocks.heads(read)[:, index : index + 1].to(q.device)
            turned = self.blocks.rotate(part, at, length)[:, 0]
            sides.append(self.blocks.scale * (turned * other).sum(-1))
        return torch.stack(sides, dim=1)
