"""One sentence, two words: what of the first word reaches the second, in any model, without a task file.

>>> from interp import HookedTransformer, explain
>>> model = HookedTransformer.from_pretrained("mini")
>>> found = explain(model, "Me encanta el color negro y tengo un gato", source="negro", target="gato", n=4)
>>> found.language, found.reaches, len(found.pairs)
('es', True, 4)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
import xarray as xr

from analyses.cli.sentence import FEWEST
from interp import readouts, results, summary, tasks
from interp._arguments import check_model
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.prompts import PromptPairs, swaps
from interp.prompts.swaps import SOURCE, TARGET
from interp.prompts.tokens import encode_marked, encode_plain
from interp.results import Variable
from interp.run import capture, logits_at
from interp.sites import head_label
from interp.sweeps import Direction, sweep

if TYPE_CHECKING:
    from interp.model import HookedTransformer
    from interp.sweeps import Progress

Language: TypeAlias = Literal["en", "es"]

N = 8
"""How many other words stand in the place of the source, unless more or fewer are asked for."""
ROUNDING = 16
"""A difference of two streams of fewer units in the last place of their data type, as a share of their length, counts
as none."""
LIKELY = 0.2
"""A word of several tokens is one that the model expects only if each of its later tokens has this probability."""
MOVES = 0.005
"""A word whose probability changes by less is not named in the answer."""
_SHOWN_WORDS = 3
_DIRECTIONS: tuple[Direction, ...] = ("denoising", "noising")
_SPANISH = frozenset("el la los las un una que de del y en es con por para me mi su se al como pero más".split())
_ENGLISH = frozenset("the a an of and in is are with for my his her to that it he she you on was but as".split())


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What of one word reaches another, with everything it was computed from.

    Attributes:
        text: the sentence.
        source: the word that is exchanged, as it was asked for (``"gato@2"`` is the second).
        target: the word that is asked about, likewise.
        language: of the sentence, in which the answer is written.
        pairs: the sentence and its counterfactuals; ``pairs.drops`` says which words were left out and why.
        reach: ``difference`` (prompt, layer, position): length of the difference of the residual streams after each
            layer, as a share of the length of the sentence's own.
        predictions: from the target on, ``kl`` (prompt, position) in nats, KL(sentence || counterfactual) of what is
            predicted after each token; ``clean_probability`` (position, word) and ``corrupted_probability`` (prompt,
            position, word) of the words that move most.
        heads: patches of one head's output at the target, ``recovered`` (prompt, direction, layer, head, role): the
            share of the target's own difference after the last layer that is there.
        sources: ``share`` (prompt, layer, head, position): of what a head writes otherwise at the target's last token,
            the share that it takes from each position; a head's shares sum to 1.
        route: patches of the residual stream, ``recovered`` (prompt, layer, position), from the source to the target.

    >>> from interp import HookedTransformer, explain
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = explain(model, "The cat is black. The cat is", "black", "is@2", instead=["white", "red"])
    >>> enough, needed = found.head_effects
    >>> str(enough["cell"].values[0]), round(float(enough["mean"][0]), 2)
    ('L1H0', 1.1)
    """

    text: str
    source: str
    target: str
    language: Language
    pairs: PromptPairs
    reach: xr.Dataset
    predictions: xr.Dataset
    heads: xr.Dataset
    sources: xr.Dataset
    route: xr.Dataset

    @property
    def results(self) -> dict[str, xr.Dataset]:
        """All results by name, the answer among the attributes of ``reach``."""
        found = {name: getattr(self, name) for name in ("reach", "heads", "sources", "predictions", "route")}
        said = {
            "answer": self.answer,
            "title": f"{self.source} > {self.target}",
            "question": _WORDS[self.language].question.format(source=self.source, target=self.target, text=self.text),
            "language": self.language,
            "reaches": int(self.reaches),
        }
        return found | {"reach": self.reach.assign_attrs(said)}

    def save(self, directory: str | Path) -> Path:
        """Write the results and the page of the answer into a directory; returns the page's path.

        Raises:
            InterpError: the directory holds something already, or cannot be written.

        >>> import tempfile
        >>> from interp import HookedTransformer, explain
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> found = explain(model, "The cat is black. The cat is", "black", "is@2", instead=["white", "red"])
        >>> with tempfile.TemporaryDirectory() as place:
        ...     page = found.save(place)
        ...     page.name, sorted(path.stem for path in (page.parent / "results").iterdir())
        ('report.html', ['heads', 'predictions', 'reach', 'route', 'sources'])
        """
        from interp import report

        where = Path(directory)
        check_empty(where)
        for name, result in self.results.items():
            results.save(result, where / "results" / f"{name}.nc")
        return report.render(where, interactive=False)

    @property
    def reaches(self) -> bool:
        """Whether anything beyond rounding arrives at the target."""
        return float(self.arrived["mean"]) > float(self.reach.attrs["rounding"])

    @property
    def arrived(self) -> xr.Dataset:
        """How much of the target's stream after the last layer differs, as a share of its length: ``summary.mean``."""
        at = [position for position, role in zip(*_of(self.reach, "position", "role"), strict=True) if role == TARGET]
        return summary.mean(self.reach["difference"]).isel(layer=-1).sel(position=at[-1])

    @property
    def head_effects(self) -> tuple[xr.Dataset, xr.Dataset]:
        """How far each head's output at the target is sufficient and needed, over ``cell``; the most sufficient first.

        1 is the whole difference that arrives at the target, in both: brought back by the head alone, or lost
        without it.
        """
        whole = summary.of(self.heads, "recovered").isel(role=0)
        enough, needed = (
            summary.effect(whole.sel(direction=direction), direction).stack(cell=("layer", "head"), create_index=False)
            for direction in _DIRECTIONS
        )
        order = np.argsort(-np.nan_to_num(enough["mean"].values, nan=-np.inf))
        names = [head_label(int(layer), int(head)) for layer, head in zip(*_of(enough, "layer", "head"), strict=True)]
        enough, needed = (part.assign_coords(cell=names).isel(cell=order) for part in (enough, needed))
        return enough, needed

    def moved(self, index: int) -> list[tuple[str, float, float]]:
        """After a position of ``predictions``: word, its probability in the sentence, and its mean with other words.

        The word whose probability changes most comes first.
        """
        after = self.predictions.isel(position=index)
        clean, other = after["clean_probability"].values, after["corrupted_probability"].mean("prompt").values
        order = np.argsort(-np.abs(other - clean))
        return [(str(after["word"].values[i]), float(clean[i]), float(other[i])) for i in order]

    @property
    def answer(self) -> str:
        """The answer in plain words, in the language of the sentence; yes or no comes first."""
        return "".join(_sentences(self))

    def __repr__(self) -> str:
        return self.answer

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, and the picture of the page."""
        from interp.report import notebook
        from interp.report.inputs import Result
        from interp.report.sections import sentence

        made = self.results
        found = [Result(name, made[name]) for name in ("reach", "heads", "sources")]
        return notebook.fragment(self.answer, sentence.picture(*found).panels[0].body)


def explain(
    model: HookedTransformer,
    text: str,
    source: str,
    target: str,
    *,
    instead: Sequence[str] | None = None,
    n: int = N,
    language: Language | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """What of one word of a sentence reaches another: how much, what it changes, and which heads write it there.

    The sentence is compared with counterfactuals: itself with another word in the place of the source, of as many
    tokens. Other words come from the bundled lexicons where the source is in one of them, then from what the model
    itself expects in that place.

    Args:
        model: the model, with a tokenizer.
        text: the sentence, or any text.
        source: a word of it, or several in a row; ``"gato@2"`` is the second ``gato``.
        target: a later word, likewise.
        instead: the words to put in the place of the source; None chooses.
        n: at most so many counterfactuals.
        language: ``"en"`` or ``"es"``, of the answer; None goes by the sentence.
        progress: called with patches done and patches in all.

    Returns:
        The answer in words, and every result it rests on. Intervals are over counterfactuals, so that they say how
        far the choice of the other word matters, and nothing of other sentences.

    Raises:
        InterpError: a word that is not in the text or is there several times, a target before the source, or no other
            word with as many tokens.

    >>> from interp import HookedTransformer, explain
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> found = explain(model, "The cat is black. The cat is", "black", "cat@2", instead=["white", "red"])
    >>> [pair.incorrect for pair in found.pairs], found.heads.recovered.dims
    ([' white', ' red'], ('prompt', 'direction', 'layer', 'head', 'role'))
    """
    check_model(model, text)
    if whole_number(n, "n") < 1:
        raise InterpError(f"n is {shown(n)}. Ask for at least one counterfactual.")
    if language not in (None, "en", "es"):
        raise unknown_name("language", language, ("en", "es"))
    text = _in_one_form(text)
    first, second = swaps.find_both(text, *(_in_one_form(word) for word in (source, target)))
    words = other_words(model, text, first, n) if instead is None else instead
    pairs = swaps.swapped(model, text, first, second, words, most=n)
    said: Language = language or ("es" if is_spanish(text) else "en")
    names = _in_one_form(source), _in_one_form(target)
    seen = [capture(model, side, ["resid_post", "pattern", "v"]) for side in (pairs.clean, pairs.corrupted)]
    reach, sources = _reach(model, pairs, seen), _sources(model, pairs, seen)
    heads, route = _patched(model, pairs, progress)
    return Explanation(text, *names, said, pairs, reach, _predictions(model, pairs), heads, sources, route)


def _in_one_form(text: str) -> str:
    """Letters in one Unicode form (NFC); what is no text is refused by ``swaps.find``."""
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text


def check_empty(directory: Path) -> None:
    """Refuse to write where something is.

    Raises:
        InterpError: it is no directory, or not an empty one.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InterpError(f"{directory} is not an empty directory. Choose another one.")


# ---- other words ----


def is_spanish(text: str) -> bool:
    """Whether a text is plainly Spanish: letters that English lacks, or more of its small words.

    >>> is_spanish("tengo un gato en la casa"), is_spanish("a cat is in the house")
    (True, False)
    """
    words = re.findall(r"\w+", text.lower())
    spanish, english = (sum(word in known for word in words) for known in (_SPANISH, _ENGLISH))
    return spanish > english or (spanish == english and bool(re.search("[ñáéíóú¿¡]", text.lower())))


def other_words(model: HookedTransformer, text: str, source: tuple[int, int], n: int) -> list[str]:
    """Words for the place of the source: of the bundled lexicons that hold it, then what the model expects there.

    Args:
        model: the model.
        text: the sentence.
        source: characters of the word.
        n: how many counterfactuals are wanted. The model is asked only where fewer words of the lexicons line up.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> other_words(model, "el color negro", (9, 14), 2)[:2]
    ['blanco', 'rojo']
    """
    word = text[slice(*source)]
    found = [other for other in dict.fromkeys(_of_lexicons(word)) if other != word]
    if sum(_lines_up(model, text, source, found)) >= n:
        return found
    expected = [
        other
        for other in _expected(model, text, source, 8 * n)
        if other.isalpha() and other.islower() == word.islower() and other not in (word, *found)
    ]
    return found + [
        other for other, fits in zip(expected, _lines_up(model, text, source, expected), strict=True) if fits
    ]


def _lines_up(model: HookedTransformer, text: str, source: tuple[int, int], words: Sequence[str]) -> list[bool]:
    """Whether the sentence keeps its number of tokens with each word."""
    texts = [text, *(swaps.with_word(text, source, word) for word in words)]
    first, *others = (len(ids) for ids, _ in encode_plain(model, texts))
    return [length == first for length in others]


def _of_lexicons(word: str) -> Iterator[str]:
    for name in tasks.names():
        for words in tasks.load(name).lexicon.values():
            if word in words:
                yield from words
            elif word.lower() in words and word.istitle():
                yield from (other.capitalize() for other in words)


def _expected(model: HookedTransformer, text: str, source: tuple[int, int], most: int) -> list[str]:
    """Whole words that the model expects in the place of the source, of as many tokens; the likeliest first."""
    prompts, _ = encode_marked(model, [text], [{SOURCE: source}])
    start, stop = prompts.spans(SOURCE)[0].tolist()
    lead = prompts.ids[0, :start].tolist()
    if not lead:
        raise InterpError(
            "Nothing stands before the source, so that the model expects no word there. Give other words: instead=, or "
            "--instead with commas between them."
        )
    reader: Any = model.tokenizer
    rows = torch.tensor([lead])
    first = model.forward(rows)[0, -1, : len(reader)].topk(min(most, len(reader))).indices.cpu()
    rows = torch.cat([rows.expand(len(first), -1), first[:, None]], dim=1)
    for _ in range(start + 1, stop):
        chances, best = model.forward(rows)[:, -1].softmax(dim=-1).cpu().max(dim=-1)
        rows = torch.cat([rows, best[:, None]], dim=1)[chances >= LIKELY]
    goes_on = torch.tensor([_goes_on(str(reader.decode([token]))) for token in range(len(reader))])
    ends = model.forward(rows)[:, -1, : len(reader)].softmax(dim=-1).cpu()[:, goes_on].sum(dim=-1) < 0.5
    words = [str(reader.decode(row[len(lead) :])).strip() for row in rows.tolist()]
    return [word for word, whole in zip(words, ends.tolist(), strict=True) if whole]


def _goes_on(token: str) -> bool:
    """Whether a token goes on with the word before it. What is only the beginning of a word takes no word's place."""
    return token[:1].isalpha()


# ---- what arrives ----


def _reach(model: HookedTransformer, pairs: PromptPairs, seen: Sequence[xr.Dataset]) -> xr.Dataset:
    here, there = (side["resid_post"] for side in seen)
    dims = ("prompt", "layer", "position")
    clean, other = (one.transpose(*dims, "d_model").values.astype(np.float64) for one in (here, there))
    length = np.linalg.norm(clean, axis=-1)
    share = np.linalg.norm(clean - other, axis=-1) / np.where(length > 0, length, 1.0)
    positions = np.arange(share.shape[2])
    return results.build(
        {"difference": Variable(dims, share, "fraction", "difference of the streams, as a share of their length")},
        coords={"layer": here["layer"].values, "position": positions, **_labels(pairs, positions)},
        title="What arrives",
        question="How much of the residual stream at each word differs when the source is another word?",
        reading="0: the stream is the same whatever the source is. 0.1: the difference is a tenth as long as the "
        "stream. On the page: the mean over the other words.",
        source="",
        of=(model, pairs),
        seed=0,
        extra={"rounding": ROUNDING * torch.finfo(model.dtype).eps},
    )


def _predictions(model: HookedTransformer, pairs: PromptPairs) -> xr.Dataset:
    start, length = int(pairs.clean.spans(TARGET)[0, 1]) - 1, int(pairs.clean.lengths[0])
    positions = np.arange(start, length)
    clean, other = (
        logits_at(model, prompts, np.tile(positions, (len(prompts), 1))).double().log_softmax(dim=-1)
        for prompts in (pairs.clean.select([0]), pairs.corrupted)
    )
    clean = clean[0]
    kl = (clean.exp() * (clean - other)).sum(dim=-1)
    moved = (other.exp() - clean.exp()).mean(dim=0)
    words = torch.cat([(sign * moved).topk(min(_SHOWN_WORDS, moved.shape[-1])).indices for sign in (-1, 1)], dim=-1)
    ids = torch.unique(words)
    return results.build(
        {
            "kl": Variable(("prompt", "position"), kl.numpy(), "nats", "change of what is predicted after a token"),
            "clean_probability": Variable(
                ("position", "word"), clean.exp()[:, ids].numpy(), "", "probability after the sentence's own tokens"
            ),
            "corrupted_probability": Variable(
                ("prompt", "position", "word"), other.exp()[:, :, ids].numpy(), "", "probability in a counterfactual"
            ),
        },
        coords={
            "position": positions,
            "word": [_token(model, int(token)) for token in ids],
            **_labels(pairs, positions),
        },
        title="What changes in what is predicted",
        question="What does the model predict otherwise, from the target on, when the source is another word?",
        reading="0 nats: the same prediction. The words are those that gain or lose most probability.",
        source="Kullback and Leibler 1951",
        of=(model, pairs),
        seed=0,
        dims={"word": "next token, of those whose probability changes most"},
    )


def _token(model: HookedTransformer, token: int) -> str:
    reader: Any = model.tokenizer
    return str(reader.decode([token]))


def _labels(pairs: PromptPairs, positions: np.ndarray) -> dict[str, tuple[str, list[str]]]:
    """What stands at each position of the sentence, and of which of the two words it is part."""
    tokens = (pairs.clean.tokens or ((),))[0]
    role = np.full(int(pairs.clean.lengths[0]), "", dtype="U8")
    for name in (SOURCE, TARGET):
        role[slice(*pairs.clean.spans(name)[0])] = name
    return {
        "token": ("position", [tokens[i] for i in positions]),
        "role": ("position", [str(role[i]) for i in positions]),
    }


# ---- what carries it ----


def _patched(model: HookedTransformer, pairs: PromptPairs, progress: Progress | None) -> tuple[xr.Dataset, xr.Dataset]:
    """Heads at the target in both directions, and the stream on the way: what restores the target's own difference."""
    last = model.cfg.n_layers - 1
    there = readouts.projection(last, TARGET, site="resid_post")
    parts = [sweep(model, pairs, "z", direction, there, roles=[TARGET], progress=progress) for direction in _DIRECTIONS]
    heads = xr.concat(
        [part[["patched", "recovered"]] for part in parts],
        xr.Variable("direction", list(_DIRECTIONS)),
        data_vars="all", coords="minimal", compat="override", combine_attrs="drop_conflicts",
    ).assign(parts[0][["clean", "corrupted"]])  # fmt: skip
    between = range(int(pairs.clean.spans(SOURCE)[0, 0]), int(pairs.clean.spans(TARGET)[0, 1]))
    route = sweep(model, pairs, "resid_pre", "denoising", there, positions=list(between), progress=progress)
    heads = heads.transpose("prompt", "direction", "layer", "head", "role").assign_attrs(
        created_at=parts[0].attrs["created_at"],
        title="Heads at the target",
        question="Which heads write at the target what differs there when the source is another word?",
    )
    return heads, route.assign_attrs(
        title="The route",
        question="Where on the way from the source to the target does the stream hold what arrives?",
    )


def _sources(model: HookedTransformer, pairs: PromptPairs, seen: Sequence[xr.Dataset]) -> xr.Dataset:
    """From which position each head takes what it writes otherwise at the target: what it mixes, along its difference.

    A head writes the sum over positions of weight times value, so that its difference is a sum over positions too.
    """
    at = int(pairs.clean.spans(TARGET)[0, 1]) - 1
    mixed = []
    for side in seen:
        weights = side["pattern"].transpose("prompt", "layer", "head", "dest_position", "src_position")
        heads = "kv_head" if "kv_head" in side["v"].dims else "head"
        values = side["v"].transpose("prompt", "layer", heads, "position", "d_head").values.astype(np.float64)
        values = np.repeat(values, weights.sizes["head"] // values.shape[2], axis=2)
        mixed.append(weights.values[:, :, :, at, :, None].astype(np.float64) * values)
    moved = mixed[0] - mixed[1]
    whole = moved.sum(axis=3, keepdims=True)
    length = (whole**2).sum(axis=-1)
    share = (moved * whole).sum(axis=-1) / np.where(length > 0, length, np.nan)
    positions = np.arange(share.shape[3])
    return results.build(
        {"share": Variable(("prompt", "layer", "head", "position"), share, "fraction", "taken from a position")},
        coords={
            "layer": np.arange(share.shape[1]),
            "head": np.arange(share.shape[2]),
            "position": positions,
            **_labels(pairs, positions),
        },
        title="From where each head takes it",
        question="From which words does a head take what it writes otherwise at the target?",
        reading="The shares of a head sum to 1; a negative one works against the others. A share says nothing of how "
        "much the head matters.",
        source="weights times values: Elhage et al. 2021, transformer-circuits.pub/2021/framework",
        of=(model, pairs),
        seed=0,
    )


def _of(result: xr.Dataset, *names: str) -> list[list[object]]:
    return [result[name].values.tolist() for name in names]


# ---- the answer in words ----


@dataclass(frozen=True)
class _Words:
    """The sentences of an answer in one language."""

    question: str
    no: str
    yes: str
    same: str
    other: str
    head: str
    no_head: str
    limits: str
    few: str
    organism: str
    becomes: str
    most: str
    count: tuple[str, str]
    quoted: str
    comma: bool


_WORDS: dict[Language, _Words] = {
    "en": _Words(
        question='What of "{source}" reaches "{target}" in "{text}"?',
        no="No: nothing of {source} arrives at {target}. With {n} in its place, what {model} holds at "
        "{target} is the same after every layer but for rounding ({words}).",
        yes="Yes: something of {source} arrives at {target}. With {n} in its place, what {model} holds at "
        "{target} after its last layer differs by {share} of its length{interval} ({words}).",
        same=" What it predicts after {target} hardly changes ({kl} nats).",
        other=" What it predicts after {target} changes by {kl} nats{interval}{moved}.",
        head=" Of the heads, {head} writes most of it there: its output at {target} alone brings back {enough} of the "
        "difference{interval}, and without it {needed} is lost{other_interval}.",
        no_head=" No head by itself writes a part of it at {target} that can be told from 0.",
        limits=" Intervals (95%) are over the other words: of other sentences this says nothing.",
        few=" So few other words give no interval: of others this says nothing.",
        organism=" mini was made for this package, some of its heads seeded: of GPT-2 this says nothing.",
        becomes="{} to {}",
        most=", on average over them most of all {}",
        count=("1 other word", "{} other words"),
        quoted='"{}"',
        comma=False,
    ),
    "es": _Words(
        question="¿Qué de «{source}» llega a «{target}» en «{text}»?",
        no="No: nada de {source} llega a {target}. Con {n} en su lugar, lo que {model} guarda en "
        "{target} es lo mismo tras cada capa, salvo el redondeo ({words}).",
        yes="Sí: algo de {source} llega a {target}. Con {n} en su lugar, lo que {model} guarda en "
        "{target} tras su última capa difiere en un {share} de su longitud{interval} ({words}).",
        same=" Lo que predice después de {target} apenas cambia ({kl} nats).",
        other=" Lo que predice después de {target} cambia en {kl} nats{interval}{moved}.",
        head=" De las cabezas, {head} es la que más escribe allí: su salida en {target} devuelve por sí sola {enough} "
        "de la diferencia{interval}, y sin ella se pierde {needed}{other_interval}.",
        no_head=" Ninguna cabeza escribe por sí sola en {target} una parte que se distinga de 0.",
        limits=" Los intervalos (95 %) son sobre las otras palabras: de otras frases esto no dice nada.",
        few=" Tan pocas palabras no dan un intervalo: de otras esto no dice nada.",
        organism=" mini se hizo para este paquete, con algunas cabezas sembradas: de GPT-2 esto no dice nada.",
        becomes="de {} a {}",
        most=", de media sobre todo {}",
        count=("otra palabra", "otras {} palabras"),
        quoted="«{}»",
        comma=True,
    ),
}
_NATS = 0.001
"""Below so many nats a prediction hardly changes."""


def _sentences(found: Explanation) -> Iterator[str]:
    say = _WORDS[found.language]
    source, target = (say.quoted.format(word) for word in (found.source, found.target))
    arrived = found.arrived
    facts = {
        "source": source,
        "target": target,
        "n": say.count[len(found.pairs) > 1].format(len(found.pairs)),
        "model": found.reach.attrs["model"],
        "words": ", ".join(slots[SOURCE] for slots in found.pairs.corrupted_slots),
        "share": _number(say, f"{float(arrived['mean']):.1%}"),
        "interval": _interval(say, arrived, ".1%"),
    }
    yield (say.yes if found.reaches else say.no).format(**facts)
    if found.reaches:
        yield _of_predictions(found, say, target)
        yield _of_heads(found, say, target)
        yield say.limits if len(found.pairs) >= FEWEST else say.few
    if found.reach.attrs["model"] == "mini":
        yield say.organism


def _of_predictions(found: Explanation, say: _Words, target: str) -> str:
    kl = summary.mean(found.predictions["kl"].isel(position=0))
    if float(kl["mean"]) < _NATS:
        return say.same.format(target=target, kl=_number(say, f"< {_NATS}"))
    moved = ", ".join(
        f"{say.quoted.format(word.strip())} ({say.becomes.format(*(_number(say, f'{p:.1%}') for p in (clean, other)))})"
        for word, clean, other in found.moved(0)[:_SHOWN_WORDS]
        if abs(other - clean) >= MOVES
    )
    return say.other.format(
        moved=say.most.format(moved) if moved else "",
        target=target,
        kl=_number(say, f"{float(kl['mean']):.3g}"),
        interval=_interval(say, kl, ".3g"),
    )


def _of_heads(found: Explanation, say: _Words, target: str) -> str:
    enough, needed = found.head_effects
    end = "low" if len(found.pairs) >= FEWEST else "mean"
    certain = np.flatnonzero((enough[end].values > 0) & (needed[end].values > 0))
    if not len(certain):
        return say.no_head.format(target=target)
    enough, needed = (part.isel(cell=certain[:1]) for part in (enough, needed))
    return say.head.format(
        head=str(enough["cell"].values[0]),
        target=target,
        enough=_number(say, f"{float(enough['mean'][0]):.2f}"),
        interval=_interval(say, enough.isel(cell=0), ".2f"),
        needed=_number(say, f"{float(needed['mean'][0]):.2f}"),
        other_interval=_interval(say, needed.isel(cell=0), ".2f"),
    )


def _interval(say: _Words, found: xr.Dataset, form: str) -> str:
    low, high = float(found["low"]), float(found["high"])
    if not np.isfinite(low) or int(found["n"]) < FEWEST:
        return ""
    return _number(say, f" [{low:{form}}{';' if say.comma else ','} {high:{form}}]")


def _number(say: _Words, text: str) -> str:
    return text.replace(".", ",") if say.comma else text
