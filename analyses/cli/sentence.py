"""``interp explain``: the answer for one sentence and two words, as lines of text, and its results in a directory."""

from __future__ import annotations

import argparse
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analyses.cli.directory import refuse_used
from analyses.cli.terminal import Screen, aligned
from interp.errors import InterpError, shown
from interp.language import say, say_stored, speaking

if TYPE_CHECKING:
    from analyses.cli.explanation import Explanation, Influences
    from interp.model import HookedTransformer
    from interp.prompts.chat import Messages
    from interp.prompts.pairing import Drop

HEADS, WORDS = 5, 3
"""How many heads, and how many words after each token, are listed."""
PATIENCE = 3.0
"""Seconds within which the whole answer is awaited."""
ANY, NEXT = "?", ">"
"""What stands for the source where every word is asked about, and for a target that is generated."""
LONG = 500
"""A text of fewer characters is not counted before the model is loaded: no model in use reads so little."""
FEWEST = 5
"""Fewer counterfactuals than this give no interval: a bootstrap of so few is no more than their spread."""


def explained(arguments: argparse.Namespace, screen: Screen) -> Iterator[str]:
    """Load the model, explain, keep the results where asked, and say the answer. Imports torch.

    Raises:
        InterpError: bad input; words are looked for before the model is loaded.
    """
    from interp.prompts.chat import read_chat

    if (arguments.text is None) == (arguments.chat is None):
        raise InterpError("Give the sentence, or --chat with a file of messages.")
    text = read_chat(arguments.chat) if arguments.text is None else arguments.text
    out: Path | None = arguments.out
    _check_options(arguments)
    if isinstance(text, str):
        _check_words(text, arguments.source, arguments.target)
    if out is not None:
        refuse_used(out)
    _check_reading(text, arguments.model)
    if arguments.dry_run:
        yield from _rehearsed(text, arguments, screen)
        return
    from interp.model import HookedTransformer

    with screen.stage(f"loading {arguments.model}"):
        model = HookedTransformer.from_pretrained(arguments.model, device=arguments.device, dtype=arguments.dtype)
    earlier: list[Explanation] = []
    tell = _teller(screen)

    def keep(now: Explanation) -> None:
        earlier[:] = [now]
        tell(now)

    try:
        found = _found(model, text, arguments, screen, keep)
    except KeyboardInterrupt:
        yield from _shown(earlier, out, figures=arguments.figures)
        raise
    yield from _shown([found], out, figures=arguments.figures)


def _rehearsed(text: str | Messages, arguments: argparse.Namespace, screen: Screen) -> Iterator[str]:
    from analyses.cli.explanation.rehearsal import rehearsed
    from interp.model.outline import outlined

    with screen.stage(f"read the shapes of {arguments.model}"):
        outline = outlined(arguments.model, device=arguments.device, dtype=arguments.dtype)
    return rehearsed(
        outline, text, arguments.source, arguments.target, instead=_instead(arguments), n=arguments.n,
        continuation=arguments.continuation, seconds=arguments.seconds or None,
    )  # fmt: skip


def _instead(arguments: argparse.Namespace) -> list[str] | None:
    return None if arguments.instead is None else str(arguments.instead).split(",")


def _shown(found: Sequence[Explanation | Influences], out: Path | None, *, figures: bool) -> Iterator[str]:
    """Say an answer, if there is one, and keep its results where asked."""
    for one in found:
        yield from lines(one)
        if out is not None:
            yield f"Report: {one.save(out, figures=figures)}"


def _found(
    model: HookedTransformer,
    text: str | Messages,
    arguments: argparse.Namespace,
    screen: Screen,
    refined: Callable[[Explanation], None],
) -> Explanation | Influences:
    from analyses.cli.explanation import explain

    with screen.stage("patching") as advance:
        if arguments.source == ANY:
            return explain(
                model,
                text,
                ANY,
                arguments.target,
                language=arguments.lang,
                seconds=arguments.seconds or None,
                progress=advance,
            )
        return explain(
            model,
            text,
            arguments.source,
            arguments.target,
            instead=_instead(arguments),
            n=arguments.n,
            language=arguments.lang,
            continuation=arguments.continuation,
            seconds=arguments.seconds or None,
            refined=refined,
            progress=advance,
        )


def _paths(found: Explanation) -> Iterator[str]:
    """The strongest paths between the leading heads, in both directions."""
    from analyses.cli.explanation.answer import path_name, strongest

    rows = [
        (path_name(sender, receiver, repr(found.source)), _cell(enough), _cell(needed))
        for sender, receiver, enough, needed in ([] if found.paths is None else strongest(found.paths)[:HEADS])
    ]
    if rows:
        yield ""
        yield say(
            "Paths between the leading heads, ordered by the smaller of both effects (1 is the whole difference):"
        )
        yield from _table((say("path"), say("sufficient"), say("needed")), rows)


def _teller(screen: Screen) -> Callable[[Explanation], None]:
    """Says each earlier answer in a line: the first in short, of those after it only what they rest on."""
    started = time.monotonic()
    told: list[int] = []

    def tell(now: Explanation) -> None:
        if time.monotonic() - started < PATIENCE:
            return
        n = now.heads.sizes["prompt"]
        screen.note(f"so far, heads with {n} of {len(now.pairs)} other words" + ("" if told else f": {now.short}"))
        told.append(n)

    return tell


def _check_options(arguments: argparse.Namespace) -> None:
    """Look at the numbers, and at what goes together.

    Raises:
        InterpError: an option that makes no sense, by its own name.
    """
    if not 0 <= arguments.seconds < float("inf"):
        raise InterpError(f"--seconds is {arguments.seconds:g}. Give a number of seconds, or 0 for no limit.")
    if arguments.n < 1:
        raise InterpError(f"--n is {arguments.n}. Ask for at least one other word.")
    if arguments.continuation is not None and arguments.continuation < 1:
        raise InterpError(f"--continue is {arguments.continuation}. Ask for at least one token.")
    if arguments.source == ANY:
        if arguments.dry_run:
            raise InterpError("--dry-run plans what is patched between two words. Leave it out with --from '?'.")
        if arguments.instead is not None or arguments.continuation is not None:
            raise InterpError("--from ? asks of every word, so that it takes no --instead and no --continue.")
    elif re.fullmatch(rf"{NEXT}\d*", arguments.target) and arguments.target not in (arguments.text or ""):
        raise InterpError(
            f"--to {shown(arguments.target)} is a token that is generated, and goes only with --from '?', which asks "
            "which words matter to it. Write --from '?', or name a later word of the text."
        )


def _check_reading(text: str | Messages, model: str) -> None:
    """Have a chat written, and a long text counted, by the tokenizer alone: weights may take minutes to load.

    Raises:
        InterpError: a model without a chat template, or a text too long for it.
    """
    if isinstance(text, str) and len(text) < LONG:
        return
    from interp.model.source import reader
    from interp.prompts.chat import Written
    from interp.prompts.tokens import check_fits, encode

    read_by = reader(model)
    written = Written.of(read_by, text)
    check_fits(encode(written.reader, written.text), read_by)


def _check_words(text: str, source: str, target: str) -> None:
    """Look for the words before a model is loaded.

    Raises:
        InterpError: one is not there, or they stand the wrong way round.
    """
    from interp.prompts import swaps

    text, source, target = (unicodedata.normalize("NFC", part) for part in (text, source, target))
    if source != ANY:
        swaps.find_both(text, source, target)
    elif not target.startswith(NEXT):
        swaps.find(text, target)


def lines(found: Explanation | Influences) -> list[str]:
    """What the terminal shows, in the language of the answer."""
    from analyses.cli.explanation import Influences

    with speaking(found.language):
        return list(_words(found) if isinstance(found, Influences) else _lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    """The answer, the words that were left out, the leading heads, and what changes in the predictions."""
    yield found.answer
    yield from _left_out(found.pairs.drops)
    if not found.reaches:
        return
    enough, needed = (part.isel(cell=slice(HEADS)) for part in found.head_effects)
    yield ""
    sure = found.heads.sizes["prompt"] >= FEWEST
    interval = say("; 95% interval over the other words") if sure else ""
    yield say("Heads at {target} (1 is the whole difference there{interval}):", target=found.target, interval=interval)
    rows = [
        (str(enough["cell"].values[i]), _cell(enough.isel(cell=i)), _cell(needed.isel(cell=i)))
        for i in range(enough.sizes["cell"])
    ]
    yield from _table((say("head"), say("sufficient"), say("needed")), rows)
    yield from _paths(found)
    yield ""
    yield say("What is predicted, in the sentence and with the other words:")
    rows = [_prediction(found, i) for i in range(found.predictions.sizes["position"])]
    yield from _table((say("after"), "nats", say("what changes most")), rows)

    if found.continuation is not None:
        yield ""
        yield from _continuation(found.continuation)


def _left_out(drops: Sequence[Drop]) -> Iterator[str]:
    """Which words were left out: those of another number of tokens in one line, each other with its reason."""
    uneven = [drop.reason.partition(": ")[0] for drop in drops if drop.kind in ("length", "span")]
    if uneven:
        yield say("Left out, since they have another number of tokens: {words}.", words=", ".join(uneven))
    for drop in drops:
        if drop.kind not in ("length", "span"):
            word, colon, why = drop.reason.partition(": ")
            yield say("Left out: {reason}.", reason=f"{word}{colon}{say_stored(why)}")


def _words(found: Influences) -> Iterator[str]:
    """The answer, and every word by every way, that which matters most first."""
    from interp.report.sections.influences import METHODS, mean, method_name

    yield found.answer
    yield ""
    yield say("Change of the predicted token's log-probability by each way of asking (nats; saliency: a length):")
    words = found.words
    columns = {method: words[method].values for method in METHODS[2:]}
    columns |= {
        "swap": mean(words["swap_log_probability"].values), "knockout": words["knockout_log_probability"].values
    }  # fmt: skip
    header = {method: method_name(method) for method in METHODS}
    sizes = mean(np.abs(words["swap_log_probability"].values))
    if (np.abs(sizes - np.abs(columns["swap"])) > 0).any():  # changes of both signs: what the rank goes by is shown
        columns["size"] = sizes
        header = {"swap": header["swap"], "size": say("of several, mean size"), **header}
    tried = [", ".join(word for word in row if word) for row in words["other_word"].values.tolist()]
    rows = [
        (str(words["text"].values[i]), *(_signed(float(columns[key][i]), key) for key in header), tried[i])
        for i in found.places
    ]
    yield from _table((say("word"), *header.values(), say("other words")), rows)
    if any((columns[method] == columns[method]).any() for method in METHODS[:2]):
        yield say("Another word, attention cut: the change when the word is gone. A minus says that the word helps.")
    yield say("Integrated gradients, input times gradient: the word's own part. A plus says that the word helps.")
    if found.words.attrs["generated"] and np.isnan(columns["knockout"]).any():
        yield say("No number under attention cut: the last token always looks at itself.")


def _signed(value: float, column: str) -> str:
    return "" if value != value else f"{value:{'' if column == 'size' else '+'}.3g}"


def _continuation(own: xr.Dataset) -> Iterator[str]:
    yield say("How it goes on; nats: what the sentence's own continuation loses with the other word:")
    lost = (own["log_probability"].sum("step") - own["clean_log_probability"].sum("step")).values
    rows = [("", own.attrs["continuation"], "")]
    rows += [
        (word, text, f"{value:+.3g}")
        for word, text, value in zip(
            own["other_word"].values.tolist(), own["continuation"].values.tolist(), lost, strict=True
        )
    ]
    yield from _table((say("with"), say("it goes on"), "nats"), [(word, repr(text), nats) for word, text, nats in rows])


def _prediction(found: Explanation, i: int) -> tuple[str, str, str]:
    from analyses.cli.explanation.answer import MOVES, quoted
    from interp.report.markup import token

    after = found.predictions.isel(position=i)
    moved = ", ".join(
        say("{word} {clean} to {other}", word=quoted(token(word)), clean=f"{clean:.1%}", other=f"{other:.1%}")
        for word, clean, other in found.moved(i)[:WORDS]
        if abs(other - clean) >= MOVES
    ) or say("nothing by {least} or more", least=f"{MOVES:.1%}")
    return quoted(token(str(after["token"].values))), f"{float(after['kl'].mean()):.3g}", moved


def _cell(part: xr.Dataset) -> str:
    value = f"{float(part['mean']):+.2f}"
    if int(part["n"]) < FEWEST:
        return value
    low, high = (f"{float(part[end]):+.2f}" for end in ("low", "high"))
    return value + say(" [{low}, {high}]", low=low, high=high)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"  {line}" for line in aligned(header, rows))
