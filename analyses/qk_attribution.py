"""Why one head looks at one word: its score in parts that add up, the paths tested, and what it passes on to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import xarray as xr

from analyses.head_evidence import MINIMUM_EFFECT, Evidence
from interp import heads
from interp._arguments import check_pairs
from interp.errors import InterpError, whole_number
from interp.heads.choice import chosen_head, ends, looking_most
from interp.heads.head import Head
from interp.readouts import AnyReadout, readout
from interp.results import validate
from interp.sites import head_label
from interp.sweeps import (
    Listener,
    PathPatching,
    Plan,
    Progress,
    listener,
    passes,
    plan,
    plans_of,
    receivers_of,
    senders_of,
    shifted,
    whole_answers,
)

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.prompts import PromptPairs

STAGES = 4
"""The split, the paths, what is written, who reads it: progress is told in as many parts."""

_Stage: TypeAlias = Callable[[Listener | None], xr.Dataset]
_STEPS = 100
_APART = {"clean": "clean_metric", "corrupted": "corrupted_metric", "patched": "reader_patched"}
_RENAMED = {"metric_change": "reader_change", "recovered": "reader_recovered", **_APART}


def check(*, writers: int, senders: int, readers: int) -> None:
    """Refuse what no model and no prompts can make right.

    Raises:
        InterpError: a number below 1.
    """
    for name, number in (("writers", writers), ("senders", senders), ("readers", readers)):
        whole_number(number, name, least=1)


def check_askable(pairs: PromptPairs, *, dest: str | int | None = None, src: str | int | None = None) -> None:
    """Refuse words that these pairs do not have or cannot read, whatever the model; the arguments are those of ``run``.

    Raises:
        UnaskableError: ``dest`` comes before ``src``, or no word is there to be read by default.
        InterpError: an unknown role or position.
    """
    ends(pairs, dest, src)


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    layer: int | None = None,
    head: int | None = None,
    dest: str | int | None = None,
    src: str | int | None = None,
    writers: int = 6,
    senders: int = 4,
    readers: int = 24,
    metric: AnyReadout = "logit_difference",
    max_prompts: int | None = None,
    found: Mapping[str, xr.Dataset] | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """One head and two words: the score split into pairs of writers, the leading paths patched, the value followed.

    Args:
        model: the model.
        pairs: clean and corrupted prompts with their answers.
        layer: the layer; None lets the numbers choose, as for the lesson: the head that looks most, of those after
            layer 0, whose queries and keys are the embedding's alone.
        head: the index of the head; None lets the numbers choose.
        dest: the word that looks: a role (its last token) or a position; None is that from which one head looks most.
        src: the word that is looked at; None is the role that holds the answer.
        writers: how many writers of query, key and value each stand alone; the others are summed.
        senders: how many writers are tested by path patching.
        readers: how many later readers are tested by path patching.
        metric: what is measured of the answer: a name from ``interp.readouts``, or a read-out.
        max_prompts: use only that many prompts, spread evenly over the set; None is all.
        found: ``activation_patching`` and ``head_attribution``, if they were asked. Where neither head nor words are
            given and patching names heads, it is the strongest of these after layer 0, where it acts.
        progress: True for a bar, or called with steps done and steps in all.

    Returns:
        What ``interp.heads.score_attribution`` returns, with its largest writers; of ``interp.heads.score_paths`` the
        four changes (prompt, sender, side); what ``interp.heads.writes`` returns; and of ``interp.heads.readers``
        ``reader_change`` (prompt, reader). A part that cannot be asked of this head or model is left out, and the
        attribute ``left_out`` says why.

    Raises:
        InterpError: an unknown role, position, layer or head, or scores that cannot be split.

    >>> from analyses import qk_attribution
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = qk_attribution.run(model, pairs, layer=1, head=0, dest="answer", src="color", writers=4)
    >>> float(abs(found.term.sum(["query_writer", "key_writer"]) - found.score).max()) < 1e-4
    True
    """
    check_pairs(model, pairs)
    check(writers=writers, senders=senders, readers=readers)
    pairs = pairs.spread(max_prompts)
    named = _named(pairs, found or {}) if (layer, head, dest, src) == (None, None, None, None) else None
    if named is not None:
        layer, head, dest, src = named
    possible, read = ends(pairs, dest, src)
    later = min(1, model.cfg.n_layers - 1) if layer is None else 0  # before layer 1 there is only the embedding
    looks = looking_most(model, pairs, possible, read, from_layer=later)
    layer, head, chosen_by = chosen_head(model, pairs, layer, head, looks, read, from_layer=later)
    chosen_by = chosen_by if named is None else "named by patching"
    to, at = looks.name if dest is None else dest, read.name if src is None else src
    told, one = listener(progress), (layer, head)
    split = heads.score_attribution(model, pairs, head=one, dest=to, src=at, progress=_part(told, 0))
    joined, reasons = heads.largest(split, writers), []
    further: tuple[_Stage, ...] = (
        lambda say: heads.score_paths(
            model, pairs, head=one, dest=to, src=at, top=senders, metric=metric, progress=say
        ),
        lambda say: heads.largest(heads.writes(model, pairs, head=one, dest=to, src=at, progress=say), writers),
        lambda say: heads.readers(model, pairs, head=one, top=readers, metric=metric, progress=say),
    )
    for stage, make in enumerate(further, start=1):
        try:
            other = make(_part(told, stage))
        except InterpError as error:
            reasons.append(str(error))
            continue
        names = {name: new for name, new in _RENAMED.items() if "reader" in other.dims}
        joined = xr.merge([joined, other.rename(names)], combine_attrs="override", compat="no_conflicts", join="outer")
        joined.attrs |= {key: other.attrs[key] for key in ("minimum_gap", "metric") if key in other.attrs}
        if "n_chosen_on" in other.attrs:
            joined.attrs["reader_chosen_on" if "reader" in other.dims else "sender_chosen_on"] = other.attrs[
                "n_chosen_on"
            ]
    if told is not None:
        told(STAGES * _STEPS, STAGES * _STEPS)
    joined.attrs |= {"chosen_by": chosen_by, "left_out": " ".join(dict.fromkeys(reasons))}
    joined["prompt"] = np.arange(len(pairs))
    return validate(joined)


def _named(pairs: PromptPairs, found: Mapping[str, xr.Dataset]) -> tuple[int, int, str, str] | None:
    """The strongest head after layer 0 that patching names, with the words it looks from and at, if both are known."""
    words = pairs.vocabulary
    if words.source is None or words.target is None or not {"activation_patching", "head_attribution"} <= set(found):
        return None
    heads_of = Evidence.of(found, words, MINIMUM_EFFECT, 0)
    for one in sorted((*heads_of.labelled("mover"), *heads_of.labelled("reader")), key=heads_of.strength, reverse=True):
        edge = heads_of.strongest_edge(one)
        dest, _, src = (edge or "").partition("<-")
        behind = edge is not None and (pairs.clean.role_positions(dest) > pairs.clean.role_positions(src)).all()
        if heads_of.layer[one] > 0 and behind:
            return int(heads_of.layer[one]), int(heads_of.head[one]), dest, src
    return None


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    layer: int | None,
    head: int | None,
    senders: int,
    readers: int,
    metric: AnyReadout,
    max_prompts: int | None,
) -> list[Plan]:
    """What ``run`` computes with the same options. Nothing is run.

    A head that the numbers choose counts as an early one, whose paths are the longest.

    >>> from analyses import qk_attribution
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> few, more = (qk_attribution.planned(model, pairs, readers=n)[-1].rows for n in (1, 2))
    >>> more - few  # one more reader
    2
    """
    check_pairs(model, pairs)
    pairs = pairs.spread(max_prompts)
    # The patterns that choose; the split of the score, of both runs; gradients that choose senders and readers.
    whole = passes(model, pairs.clean, forward=6, backward=2)
    if model.blocks is None or whole_answers(pairs, metric):
        return [whole]
    at = min(1, model.cfg.n_layers - 1) if layer is None else layer
    sending = [node.label for node in senders_of(model, None) if node.layer < at][:senders]
    reading = [
        node.label for node in receivers_of(model, read=readout(metric).place) if node.layer > at
    ][:readers]  # fmt: skip
    one = head_label(at, head or 0)
    kinds = [Head.of(model, (at, head or 0)).receiver(kind, model.cfg.grouped_query) for kind in ("q", "k")]
    asked = [(sending, kinds), ([one], reading)]
    plans = [
        plan(model, pairs, PathPatching("noising", metric, senders=who, receivers=what)) for who, what in asked if what
    ]
    return [whole, *plans]


def _part(told: Listener | None, stage: int) -> Listener | None:
    """Progress of one stage as progress of all; each stage counts as much as any other."""
    whole = shifted(told, stage * _STEPS, STAGES * _STEPS)
    return None if whole is None else lambda done, total: whole(done * _STEPS // max(total, 1), total)
