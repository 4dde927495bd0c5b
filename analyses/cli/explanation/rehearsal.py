"""``interp explain --dry-run``: what an explanation will compute, and what that takes here. Nothing is patched.

No weight of the model is read: its plan follows from its shapes, its tokenizer, and how many other words there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analyses.cli import rehearsal
from analyses.cli.explanation import as_written, counterfactuals, in_one_form
from analyses.cli.plans import Sweeps
from analyses.cli.terminal import aligned
from analyses.explaining import carriers
from interp.errors import InterpError, shown
from interp.prompts import swaps
from interp.prompts.swaps import SOURCE
from interp.sweeps import plan

if TYPE_CHECKING:
    from interp.model.outline import Outlined
    from interp.prompts.chat import Messages

PASSES = 2
"""Each run is made so often before anything is patched: for what arrives, and for what is predicted."""


def rehearsed(
    outline: Outlined,
    text: str | Messages,
    source: str,
    target: str,
    *,
    instead: Sequence[str] | None,
    n: int,
    continuation: int | None,
    seconds: float | None,
) -> Iterator[str]:
    """What ``explain`` would do with the same arguments, in lines of text.

    Raises:
        InterpError: what ``explain`` refuses, or that there are no other words but those that the model expects.
    """
    model, written = outline.whole, as_written(outline.whole, text)
    swaps.find_both(written.text, in_one_form(source), in_one_form(target), written.within)
    try:
        # Words of the vocabulary are chosen by the first layers at random: others than the model's, but as many.
        pairs, _, origin = counterfactuals(outline.sample, written, source, target, instead=instead, n=n)
    except InterpError as error:
        if instead is not None:
            raise
        raise InterpError(
            f"No list has another word for {shown(source)} with as many tokens, and which words {model.name} expects "
            "there is known once it is loaded. Give --instead, or leave --dry-run out."
        ) from error
    words, length = len(pairs), int(pairs.clean.lengths[0])
    known = [word for word in (slots[SOURCE] for slots in pairs.corrupted_slots) if origin.get(word) != "model"]
    yield f"What of {source} reaches {target} in {model.name}. This is a plan: nothing is patched or written."
    yield (
        f"{length} tokens, {int(pairs.clean.spans(SOURCE)[0, 0])} of them before {source}, which are read once; "
        f"{words} other words{': ' if known else ''}{', '.join(known)}; dropped: {len(pairs.drops)}."
    )
    if len(known) < words:
        yield f"{words - len(known)} of them are chosen from the model's own vocabulary, once it is loaded."
    sweeps = {
        "heads at the target, both ways": Sweeps.together(
            [plan(model, pairs, carriers.asked_of_heads(way, model)) for way in carriers.DIRECTIONS]
        ),
        "the stream on the way": Sweeps.together([plan(model, pairs, carriers.asked_of_route(model, pairs))]),
    }
    rate = rehearsal.operations_per_second(outline.sample, pairs)
    runs = PASSES * (words + 1) + (0 if continuation is None else words + 1)
    plain = 2.0 * model.n_parameters * (runs * length + (words + 1) * (continuation or 0))
    rows = [("plain runs", str(runs), f"{plain:.2g}", "", rehearsal.in_words(plain / rate))]
    rows += [
        (
            name,
            str(one.rows),
            f"{one.flop:.2g}",
            rehearsal.mebibytes(one.peak_bytes),
            rehearsal.in_words(one.flop / rate),
        )
        for name, one in sweeps.items()
    ]
    rows.append(("paths between leading heads", "known once these are", "", "", ""))
    yield ""
    yield from aligned(("what", "rows", "operations", "memory", "about"), rows)
    yield ""
    limit = "Without a limit all of it is made (--seconds 0)."
    if seconds is not None:
        limit = (
            f"It ends after {seconds:g} s (--seconds): what matters most comes first, and the answer says what is left."
        )
    yield limit
    if busy := rehearsal.load():
        yield busy
