"""What of a word reaches another through a head, what it was made of, and which later parts of the model use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp import results
from interp._arguments import check_pairs
from interp.attribution import edge_attribution
from interp.errors import whole_number
from interp.heads.choice import End, check_order, end_of
from interp.heads.entering import Entering, check_adds
from interp.heads.head import Head
from interp.heads.paths import held_apart
from interp.heads.reading import HeadReader, capture_at, stream_chunks, written
from interp.heads.scores import DEST, SRC
from interp.prompts import PromptPairs
from interp.prompts.tokens import Prompts
from interp.readouts import AnyReadout, readout
from interp.results import Variable
from interp.sweeps import Direction, described, path_patching, receivers_of, senders_of
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

MOST_READERS = 40
"""Later readers that are patched exactly, where nobody names them."""


def writes(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    head: tuple[int, int],
    dest: str | int,
    src: str | int,
    progress: Progress | None = None,
) -> xr.Dataset:
    """What a head writes at one word from another word alone, by what wrote the value's part there.

    From the source alone a head writes the attention weight times the source's value times ``W_O``. The value is a sum
    over everything that wrote to the stream at the source, the norm's scale being that of the run. Each part is
    measured along the direction in which the two runs differ at the destination, right after the head's layer has
    attended: how far it carries the stream from corrupted to clean.

    Args:
        model: any whose values are a linear map of the normalised stream.
        pairs: clean and corrupted prompts.
        head: (layer, head).
        dest: the word at which it is written: a role (its last token) or a position.
        src: the word from which it is taken.
        progress: True for a bar, or called with prompts done and prompts in all.

    Returns:
        ``written_change`` (prompt, value_writer): what the part differs by, clean - corrupted, along the unit vector of
        the runs' difference, in the units of the stream; ``share`` (prompt): what the source's parts together are of
        the whole difference, ``head_share``: what the head's output from all words is of it (fractions that may lie
        outside [0, 1]; NaN where the runs do not differ there). ``written`` (prompt, value_writer): the parts of the
        clean run along the same vector; ``length`` (prompt): of all that is written from the source in the clean run.

    Raises:
        InterpError: an unknown head, role or position, or a model whose values are no such sum.

    >>> from interp import HookedTransformer, heads, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = heads.writes(model, pairs, head=(0, 2), dest="after_noun", src="color")
    >>> found["written_change"].dims
    ('prompt', 'value_writer')
    """
    check_pairs(model, pairs)
    one = Head.of(model, head)
    ends = end_of(pairs.clean, dest), end_of(pairs.clean, src)
    check_order(*ends)
    meter = Meter(progress, 2 * len(pairs))
    difference = _difference(model, pairs, one, ends[0])
    size = difference.norm(dim=-1)
    along = difference / torch.where(size > 0, size, torch.nan).unsqueeze(1)
    clean, corrupted = (_written(model, one, prompts, ends, along, meter) for prompts in (pairs.clean, pairs.corrupted))
    change = clean.parts - corrupted.parts
    by_writer, plain = ("prompt", "value_writer"), ("prompt",)
    share, head_share = (one_side / size for one_side in (change.sum(1), clean.head - corrupted.head))
    variables = {
        "written_change": Variable(by_writer, change.numpy(), "activation", "what the part carries, clean - corrupted"),
        "written": Variable(by_writer, clean.parts.numpy(), "activation", "what the part writes in the clean run"),
        "share": Variable(
            plain, share.numpy(), "fraction", "share of the runs' difference that the source's parts are"
        ),
        "head_share": Variable(
            plain, head_share.numpy(), "fraction", "share of the runs' difference that the whole head writes"
        ),
        "length": Variable(plain, clean.length.numpy(), "activation", "length of what is written from the source"),
    }
    return results.build(
        variables,
        coords={"prompt": np.arange(len(pairs)), "value_writer": list(clean.labels)},
        title="What a head writes from one word",
        question=f"What of {ends[1].name} does {one.label} write at {ends[0].name}?",
        reading="Positive: the part carries the stream at the destination towards the clean run. share: 1 is all of "
        "the difference between the two runs there.",
        source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (OV circuit, norm scales frozen)",
        of=(model, pairs),
        seed=0,
        extra={"head_label": one.label, "dest": ends[0].name, "src": ends[1].name},
        dims={"value_writer": "part of the model that wrote to the stream of the word that is read"},
    )


def readers(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    head: tuple[int, int],
    readers: Sequence[str] | None = None,
    top: int = MOST_READERS,
    direction: Direction = "noising",
    metric: AnyReadout = "logit_difference",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Which later queries, keys, values and MLPs, or the logits themselves, use what a head writes.

    The head's output of the other run is sent into one reader alone (path patching, at every position).

    Args:
        model: its arithmetic is in ``interp.model.arithmetic``.
        pairs: clean and corrupted prompts.
        head: (layer, head).
        readers: labels as in ``path_patching``; None is every later one if they are at most ``top``. Of more, the
            ``top`` with the largest gradient estimates (EAP) are patched exactly; they are chosen on every other
            prompt, and these prompts are then left out (NaN).
        top: see ``readers``.
        direction: ``"noising"`` or ``"denoising"``, as in ``path_patching``.
        metric: a name from ``interp.readouts``, or a read-out.
        progress: True for a bar, or called with rows done and rows in all.

    Returns:
        ``patched`` and ``recovered`` (prompt, reader), ``clean`` and ``corrupted`` (prompt), as ``path_patching`` has
        them, and ``metric_change`` (prompt, reader), of the run that is patched. Readers are in the order of
        their mean change, the largest first.

    Raises:
        InterpError: a model without arithmetic here, an unknown head or reader.

    >>> from interp import HookedTransformer, heads, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> heads.readers(model, pairs, head=(0, 2), readers=["L1H0.v", "logits"])["reader"].values.tolist()
    ['L1H0.v', 'logits']
    """
    check_pairs(model, pairs)
    one = Head.of(model, head)
    (sender,) = senders_of(model, [one.label])
    known = [node.label for node in receivers_of(model, read=readout(metric).place) if sender.reaches(node)]
    apart = np.zeros(len(pairs), dtype=bool)
    if readers is None and len(known) > whole_number(top, "top", least=1):
        apart = held_apart(len(pairs))
        told = pairs.select(np.flatnonzero(apart)) if apart.any() else pairs
        guess = edge_attribution(model, told, direction, metric, senders=[one.label], receivers=known, audit=None)
        size = np.abs(guess["estimated_effect"].mean("prompt").values[0])
        known = [known[i] for i in sorted(np.argsort(-size, kind="stable")[:top])]
    rows = np.flatnonzero(~apart)
    found = path_patching(
        model, pairs.select(rows), direction=direction, metric=metric, senders=[one.label],
        receivers=known if readers is None else readers, progress=progress,
    ).isel(sender=0, drop=True)  # fmt: skip
    base = found["clean" if direction == "noising" else "corrupted"]
    change = (found["patched"] - base).transpose("prompt", "receiver")
    order = np.argsort(-np.abs(change.mean("prompt").values), kind="stable")
    name, units = described(pairs, metric)
    found["change"] = change
    whole = found.isel(receiver=order).assign_coords(prompt=rows).reindex(prompt=np.arange(len(pairs)))
    by_reader = ("prompt", "reader")
    variables = {
        "metric_change": Variable(by_reader, whole["change"].values, units, f"change of {name} by the patch"),
        **{
            key: Variable(by_reader, whole[key].transpose("prompt", "receiver").values, **_attrs(whole[key]))
            for key in ("patched", "recovered")
        },
        **{key: Variable(("prompt",), whole[key].values, **_attrs(whole[key])) for key in ("clean", "corrupted")},
    }
    return results.build(
        variables,
        coords={"prompt": np.arange(len(pairs)), "reader": whole["receiver"].values},
        title="Who uses what a head writes",
        question=f"Which later part of the model uses what {one.label} writes?",
        reading="metric_change: what is lost or won when that reader alone is given the head's output of the other "
        "run. NaN: prompts that the readers were chosen on.",
        source="Wang et al. 2022, arXiv 2211.00593 (path patching)",
        of=(model, pairs),
        seed=0,
        extra={
            "head_label": one.label,
            "direction": direction,
            "metric": name,
            "minimum_gap": float(found.attrs["minimum_gap"]),
            "n_chosen_on": int(apart.sum()),
        },
        dims={"reader": "later part of the model that reads the head's output"},
    )


def _attrs(values: xr.DataArray) -> dict[str, str]:
    return {name: str(values.attrs[name]) for name in ("units", "long_name")}


class _Part:
    """What a head writes in one run along a direction: by writer from the source alone, and in all."""

    def __init__(self, labels: tuple[str, ...], parts: Tensor, head: Tensor, length: Tensor) -> None:
        self.labels, self.parts, self.head, self.length = labels, parts, head, length


def _difference(model: HookedTransformer, pairs: PromptPairs, head: Head, dest: End) -> Float[Tensor, "prompt d_model"]:
    """Clean - corrupted stream at the destination after the head's layer has attended (or after the whole layer)."""
    site = "resid_mid" if model.has_site("resid_mid") else "resid_post"
    adds = ["attn_out", *(["mlp_out"] if site == "resid_post" and model.has_site("mlp_out") else [])]
    streams = []
    for prompts in (pairs.clean, pairs.corrupted):
        found = capture_at(
            model, prompts.with_roles({DEST: dest.span}), ["resid_pre", *adds, site], [DEST], [head.layer]
        )
        check_adds(model, head.layer, [found["resid_pre"], *(found[name] for name in adds)], found[site])
        streams.append(found[site][:, 0, 0])
    return streams[0] - streams[1]


def _written(
    model: HookedTransformer,
    head: Head,
    prompts: Prompts,
    ends: tuple[End, End],
    along: Float[Tensor, "prompt d_model"],
    meter: Meter,
) -> _Part:
    prompts = prompts.with_roles({DEST: ends[0].span, SRC: ends[1].span})
    reader = HeadReader.of(model, head, prompts.ids.shape[1], ["v"])
    output = model.W_O(head.layer)[head.head].double().cpu()
    labels: tuple[str, ...] = ()
    parts, whole, length = [], [], []
    for rows in stream_chunks(model, head.layer, prompts):
        part = prompts.select(rows)
        at_dest = capture_at(model, part, ["pattern", "z", "attn_out"], [DEST], [head.layer])
        z = at_dest["z"][:, 0, 0]
        entering = Entering.of(model, head.layer, z, at_dest["attn_out"][:, 0, 0])
        own = capture_at(model, part, ["v"], [SRC], [head.layer])["v"][:, 0, 0, head.kv_head]
        stream = written(model, part, head.layer, [SRC])
        value = reader.parts("v", stream.parts[:, 0], stream.labels, ends[1].positions[rows], own, None)
        at = torch.from_numpy(ends[1].positions[rows]).unsqueeze(1)
        weight = at_dest["pattern"][:, 0, 0, head.head].gather(1, at)
        seen = entering.back(along[torch.from_numpy(rows)]) @ output.T  # the direction as the head's values see it
        parts.append(weight * torch.einsum("pwx,px->pw", value.parts, seen))
        whole.append((z[:, head.head] * seen).sum(-1))
        length.append((weight * entering((value.total @ output).unsqueeze(1))[:, 0]).norm(dim=-1))
        labels = value.labels
        meter.add(len(rows))
    return _Part(labels, torch.cat(parts), torch.cat(whole), torch.cat(length))
