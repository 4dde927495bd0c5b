"""``interp explain``: the answer for one sentence and two words, as lines of text, and its results in a directory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from analyses.cli.terminal import Screen, aligned

if TYPE_CHECKING:
    from analyses.cli.explanation import Explanation

HEADS, WORDS = 5, 3
"""How many heads, and how many words after each token, are listed."""
FEWEST = 5
"""Fewer counterfactuals than this give no interval: a bootstrap of so few is no more than their spread."""


def explained(arguments: argparse.Namespace, screen: Screen) -> Iterator[str]:
    """Load the model, explain, keep the results where asked, and say the answer. Imports torch.

    Raises:
        InterpError: bad input; words are looked for before the model is loaded.
    """
    from interp.prompts import swaps

    swaps.find_both(arguments.text, arguments.source, arguments.target)
    out: Path | None = arguments.out
    from analyses.cli.explanation import check_empty, explain
    from interp.model import HookedTransformer

    if out is not None:
        check_empty(out)
    with screen.stage(f"loading {arguments.model}"):
        model = HookedTransformer.from_pretrained(arguments.model, device=arguments.device, dtype=arguments.dtype)
    with screen.stage("patching") as advance:
        found = explain(
            model,
            arguments.text,
            arguments.source,
            arguments.target,
            instead=None if arguments.instead is None else arguments.instead.split(","),
            n=arguments.n,
            language=arguments.lang,
            progress=advance,
        )
    yield from lines(found)
    if out is not None:
        yield f"Report: {found.save(out)}"


def lines(found: Explanation) -> Iterator[str]:
    """The answer, the words that were left out, the leading heads, and what changes in the predictions."""
    yield found.answer
    for drop in found.pairs.drops:
        yield f"Left out: {drop.reason}."
    if not found.reaches:
        return
    enough, needed = (part.isel(cell=slice(HEADS)) for part in found.head_effects)
    yield ""
    interval = "; 95% interval over the other words" if len(found.pairs) >= FEWEST else ""
    yield f"Heads at {found.target!r} (1 is the whole difference there{interval}):"
    rows = [
        (str(enough["cell"].values[i]), _cell(enough.isel(cell=i)), _cell(needed.isel(cell=i)))
        for i in range(enough.sizes["cell"])
    ]
    yield from _table(("head", "sufficient", "needed"), rows)
    yield ""
    yield "What is predicted, in the sentence and with the other words:"
    rows = [_prediction(found, i) for i in range(found.predictions.sizes["position"])]
    yield from _table(("after", "nats", "what changes most"), rows)


def _prediction(found: Explanation, i: int) -> tuple[str, str, str]:
    after = found.predictions.isel(position=i)
    moved = ", ".join(f"{word!r} {clean:.1%} to {other:.1%}" for word, clean, other in found.moved(i)[:WORDS])
    return repr(str(after["token"].values)), f"{float(after['kl'].mean()):.3g}", moved


def _cell(part: xr.Dataset) -> str:
    low, high = float(part["low"]), float(part["high"])
    return f"{float(part['mean']):+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if int(part["n"]) >= FEWEST else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"  {line}" for line in aligned(header, rows))
