"""The answer in plain words, in the language of the sentence: yes or no first, then how much, by which head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from analyses.cli.sentence import FEWEST
from interp import mini, summary
from interp.language import say
from interp.prompts import swaps
from interp.prompts.ids import excerpt
from interp.prompts.swaps import SOURCE
from interp.report.markup import token, visible

if TYPE_CHECKING:
    from analyses.cli.explanation.result import Explanation

EXCERPT = 200
"""So many characters of the text, at most, stand in the question."""
MOVES = 0.005
"""A word whose probability changes by less is not named in the answer."""
NATS = 0.001
"""Below so many nats a prediction hardly changes: a word's probability does by a thousandth of itself, on average."""
LITTLE = 0.1
"""Below a tenth of the stream's length what arrives is called little: the stream keeps its direction to 6 degrees."""
LEAST_NATS = 1e-4
"""Smaller changes of a prediction are shown as below it; they are near what rounding does in float32."""
_NAMED_WORDS = 3


def asked(found: Explanation) -> str:
    """The question, in the language spoken now."""
    return say(
        'What of "{source}" reaches "{target}" in "{text}"?',
        source=found.source,
        target=found.target,
        text=excerpt(found.text, limit=EXCERPT),
    )


def sentences(found: Explanation) -> Iterator[str]:
    """The sentences of the answer, each but the first with a space before it, in the language spoken now."""
    yield short(found)
    yield _compared(found)
    yield _of_another_kind(found)
    if found.reaches:
        yield _of_predictions(found)
        yield _of_heads(found)
        yield _of_paths(found)
        yield _of_continuation(found)
        yield _left(found)
        if len(found.pairs) >= FEWEST:
            yield say(" Intervals (95%) are over the other words: of other sentences this says nothing.")
        else:
            yield say(" So few other words give no interval: of others this says nothing.")
    yield of_model(str(found.reach.attrs["model"]))


def of_model(model: str) -> str:
    """What has to be known of a model that was made for this package; nothing of any other."""
    if model != mini.NAME:
        return ""
    return say(" mini was made for this package, some of its heads seeded: of GPT-2 this says nothing.")


def quoted(word: str) -> str:
    """A word in the quotation marks of the language spoken now."""
    return say('"{word}"', word=word)


def interval(found: xr.Dataset, form: str) -> str:
    """The interval of a summary, with a space before it; empty where too few values give none."""
    low, high = float(found["low"]), float(found["high"])
    if not np.isfinite(low) or int(found["n"]) < FEWEST:
        return ""
    return say(" [{low}, {high}]", low=f"{low:{form}}", high=f"{high:{form}}")


def short(found: Explanation) -> str:
    """Yes or no, how much arrives, and whether it is used there: one sentence, in the language spoken now."""
    arrived, source, target = found.arrived, quoted(found.source), quoted(found.target)
    if not found.reaches:
        return say("No: nothing of {source} arrives at {target}.", source=source, target=target)
    whether = say("Yes") if float(arrived["mean"]) >= LITTLE else say("Yes, a little")
    return say(
        "{whether}: with another word than {source}, what {model} holds at {target} differs by {share} of its "
        "length{interval}; {used}.",
        whether=whether, source=source, model=str(found.reach.attrs["model"]), target=target, used=_used(found),
        share=f"{float(arrived['mean']):.1%}", interval=interval(arrived, ".1%"),
    )  # fmt: skip


def _used(found: Explanation) -> str:
    kl = summary.mean(found.predictions["kl"].isel(position=0))
    nats = float(kl["mean"])
    if nats < NATS:
        size = f"{nats:.1g}" if nats >= LEAST_NATS else f"< {LEAST_NATS}"
        return say("what it predicts after it hardly changes ({kl} nats)", kl=size)
    return say(
        "what it predicts after it changes by {kl} nats{interval}", kl=f"{nats:.3g}", interval=interval(kl, ".3g")
    )


def _compared(found: Explanation) -> str:
    n = len(found.pairs)
    count = say("{n} other words", n=n) if n > 1 else say("1 other word")
    words = ", ".join(slots[SOURCE] for slots in found.pairs.corrupted_slots)
    if not found.reaches:
        return say(
            " With {n} in its place, what {model} holds at {target} is the same after every layer but for rounding "
            "({words}).",
            n=count, model=str(found.reach.attrs["model"]), target=quoted(found.target), words=words,
        )  # fmt: skip
    return say(" Compared after its last layer, with {n} in its place ({words}).", n=count, words=words)


def _of_another_kind(found: Explanation) -> str:
    """Which of the other words are not of the source's kind and language, and what would be compared with such."""
    source, used = quoted(found.source), [slots[SOURCE] for slots in found.pairs.corrupted_slots]
    abroad, unlisted = (
        ", ".join(word for word in used if found.origins.get(word) == origin)
        for origin in ("another language", "model")
    )
    said = ""
    if found.listed:
        said += say(
            " Of its kind ({words}) none has as many tokens as {source}.", words=", ".join(found.listed), source=source
        )
    if abroad:
        said += say(" Of its kind, but of another language: {words}.", words=abroad)
    start, stop = found.pairs.clean.spans(SOURCE)[0].tolist()
    if unlisted and stop - start > 1:
        said += say(
            " In no list of words of its kind: {words}; {model} put them together from tokens that it expects there, "
            "and they may be no words.",
            words=unlisted, model=str(found.reach.attrs["model"]),
        )  # fmt: skip
    elif unlisted:
        said += say(
            " In no list of words of its kind: {words}; of the model's own words these are most like it there.",
            words=unlisted,
        )
    if len(found.listed) > 1:
        said += say(
            " With {word} in the sentence, {n} of its kind can take its place: put it there, and ask from {word}.",
            word=quoted(found.listed[0]), n=len(found.listed) - 1,
        )  # fmt: skip
    return said


def _of_predictions(found: Explanation) -> str:
    """The words whose probability after the target changes most."""
    moved = ", ".join(
        say(
            "{word} ({clean} to {other})",
            word=quoted(token(word)), clean=f"{clean:.1%}", other=f"{other:.1%}",
        )
        for word, clean, other in found.moved(0)[:_NAMED_WORDS]
        if abs(other - clean) >= MOVES
    )  # fmt: skip
    if not moved:
        return ""
    return say(
        " Of what it predicts after {target}, these change most on average: {words}.",
        target=quoted(found.target), words=moved,
    )  # fmt: skip


def _of_heads(found: Explanation) -> str:
    enough, needed = found.head_effects
    target = quoted(found.target)
    end = "low" if found.heads.sizes["prompt"] >= FEWEST else "mean"
    certain = np.flatnonzero((enough[end].values > 0) & (needed[end].values > 0))
    if not len(certain):
        return say(" No head by itself writes a part of it at {target} that can be told from 0.", target=target)
    enough, needed = (part.isel(cell=int(certain[0])) for part in (enough, needed))
    patched, all_heads = _patched(found)
    heads = say("heads") if patched == all_heads else say("{n} heads that were patched", n=patched)
    words = _words_of_heads(found)
    of_what = say("the difference") if words is None else say("the difference with {words} in its place", words=words)
    return say(
        " Of the {heads}, {head} writes the largest part of it there: its output at {target} alone brings back "
        "{enough} of {of_what}{interval}, and without it {needed} is lost{other_interval}.",
        heads=heads, head=str(enough["cell"].values), target=target, of_what=of_what,
        enough=f"{float(enough['mean']):.2f}", interval=interval(enough, ".2f"),
        needed=f"{float(needed['mean']):.2f}", other_interval=interval(needed, ".2f"),
    ) + _way(found, str(enough["cell"].values))  # fmt: skip


def _patched(found: Explanation) -> tuple[int, int]:
    """How many heads were patched, and how many there are."""
    heads = found.heads["patched"].isel(prompt=0, direction=0, role=0)
    return int(np.isfinite(heads).sum()), heads.size


def _words_of_heads(found: Explanation) -> str | None:
    """The other words with which heads were patched, where there was no time for all: theirs is the difference then."""
    n = found.heads.sizes["prompt"]
    if n == len(found.pairs):
        return None
    return ", ".join(slots[SOURCE] for slots in found.pairs.corrupted_slots[:n])


def _way(found: Explanation, head: str) -> str:
    """How it comes to the word that a head takes it from, where that is not the source itself."""
    layer, number = (int(part) for part in head.removeprefix("L").split("H"))
    share = found.sources["share"].mean("prompt").sel(layer=layer, head=number)
    if not np.isfinite(share.values).any():
        return ""
    most = int(np.nanargmax(share.values))
    if str(share["role"].values[most]) == SOURCE:
        return ""
    word = quoted(_seen(_whole_word(share["token"].values.tolist(), most)))
    source, target = quoted(found.source), quoted(found.target)
    if found.paths is None or (before := _before(found.paths, head)) is None:
        return say(
            " {head} takes it from {word}, which by then holds something of {source} already.",
            head=head, word=word, source=source,
        )  # fmt: skip
    name, weakest = before
    return say(
        " {head} takes it from {word}, not from {source} itself; the strongest way there that was patched is {way}. "
        "The weaker of its two links into {first} and {head} brings back {weakest}.",
        head=head, word=word, source=source, way=f"{source} → {name} → {head} → {target}", first=name,
        weakest=f"{weakest:.2g}",
    )  # fmt: skip


def _whole_word(tokens: Sequence[str], index: int) -> str:
    """The word that a token is a piece of; the token itself in a script that sets no words apart."""

    def joined(i: int) -> bool:
        return all(swaps.spaced(letter) for letter in (tokens[i - 1][-1:], tokens[i][:1]))

    first = next(i for i in range(index, -1, -1) if i == 0 or not joined(i))
    stop = next(i for i in range(index + 1, len(tokens) + 1) if i == len(tokens) or not joined(i))
    return "".join(tokens[first:stop])


def _seen(token: str) -> str:
    """A token as it is quoted: a space alone is made visible."""
    return token.strip() or token.replace(" ", "␣").replace("\n", "⏎")


def _before(paths: xr.Dataset, head: str) -> tuple[str, float] | None:
    """The head by which most comes from the source's own token into this one, on paths that count both ways.

    With it the weaker of the links into it and out of it: the smaller of being sufficient and needed.
    """
    whole = summary.of(paths, "recovered")
    means = [summary.effect(whole.sel(direction=name), name)["mean"] for name in summary.DIRECTIONS]
    weakest = np.minimum(*(part.transpose("sender", "receiver").values for part in means))
    senders, receivers = (paths[name].values.tolist() for name in ("sender", "receiver"))
    group = int(paths.attrs["heads_per_kv_head"])

    def most(sender: str, into: str) -> float:
        layer, number = into.removeprefix("L").split("H")
        names = {into, f"L{layer}KV{int(number) // group}"}
        columns = [i for i, name in enumerate(receivers) if name.partition(".")[0] in names]
        effects = weakest[senders.index(sender), columns]
        return max(effects[effects > 0].tolist(), default=0.0)

    ways = {name: min(most("embed", name), most(name, head)) for name in senders if name not in ("embed", head)}
    best = max(ways, key=ways.__getitem__, default=None)
    return (best, ways[best]) if best is not None and ways[best] > 0 else None


def strongest(paths: xr.Dataset) -> list[tuple[str, str, xr.Dataset, xr.Dataset]]:
    """Paths that are sufficient and needed for some of it: sender, receiver, and both effects; the strongest first."""
    whole = summary.of(paths, "recovered")
    enough, needed = (summary.effect(whole.sel(direction=name), name) for name in summary.DIRECTIONS)
    senders, receivers = (paths[name].values.tolist() for name in ("sender", "receiver"))
    both = np.minimum(*(part["mean"].transpose("sender", "receiver").values for part in (enough, needed)))
    order = [np.unravel_index(int(i), both.shape) for i in np.argsort(-np.nan_to_num(both, nan=-np.inf), axis=None)]
    found = []
    for s, r in order:
        if both[s, r] > 0:
            first, second = (part.isel(sender=int(s), receiver=int(r)) for part in (enough, needed))
            found.append((str(senders[s]), str(receivers[r]), first, second))
    return found


def path_name(sender: str, receiver: str, source: str) -> str:
    """A path in words: the source's own token is called by its word, the end of all paths the stream."""
    first = source if sender == "embed" else sender
    return f"{first} → {say('the stream') if receiver.endswith('.resid_post') else receiver}"


def _of_paths(found: Explanation) -> str:
    paths = [] if found.paths is None else strongest(found.paths)[:_NAMED_WORDS]
    if not paths:
        return ""
    named = ", ".join(
        f"{path_name(sender, receiver, quoted(found.source))} {float(enough['mean']):.2f}"
        for sender, receiver, enough, _ in paths
    )
    return say(
        " The strongest paths between the leading heads, by the smaller of both effects, bring back: {paths}.",
        paths=named,
    )


def _left(found: Explanation) -> str:
    """What there was no time for."""
    if found.seconds is None:
        return ""
    (patched, all_heads), words = _patched(found), found.heads.sizes["prompt"]
    parts = []
    if len(found.pairs) < found.lined_up:
        parts.append(say("{n} of {all} other words were compared", n=len(found.pairs), all=found.lined_up))
    if found.continuation is not None and found.continuation.attrs["left"]:
        steps, left = found.continuation.sizes["step"], int(found.continuation.attrs["left"])
        parts.append(say("{n} of {all} tokens were generated", n=steps, all=steps + left))
    if words < len(found.pairs):
        parts.append(say("heads were patched with {n} of {all} other words", n=words, all=len(found.pairs)))
    if patched < all_heads:
        parts.append(say("{n} of {all} heads were patched, those that write most of it", n=patched, all=all_heads))
    if found.route is None:
        parts.append(say("the stream on the way was not patched"))
    elif found.route.sizes["prompt"] < len(found.pairs):
        parts.append(say("the stream on the way with {n} of the words", n=found.route.sizes["prompt"]))
    if not parts:
        return ""
    return say(" In the time given ({seconds} s): {parts}.", seconds=f"{found.seconds:g}", parts="; ".join(parts))


def _of_continuation(found: Explanation) -> str:
    if found.continuation is None:
        return ""
    own, n = found.continuation, len(found.pairs)
    parted = own["alike"].values < own.sizes["step"]
    given = summary.mean(own["log_probability"].sum("step") - own["clean_log_probability"].sum("step"))
    if not parted.any():
        other = say("with each of the other words it goes on alike")
    else:
        other = say(
            "with {n} of {all} other words it goes on otherwise, first after {k} tokens",
            n=int(parted.sum()), all=n, k=int(own["alike"].values.min()),
        )  # fmt: skip
    return say(
        " The sentence goes on {words}; {other}. With them the log-probability of these {k} tokens changes by {change} "
        "nats{interval}.",
        words=quoted(visible(own.attrs["continuation"].strip())), other=other, k=own.sizes["step"],
        change=f"{float(given['mean']):+.3g}", interval=interval(given, "+.3g"),
    )  # fmt: skip
