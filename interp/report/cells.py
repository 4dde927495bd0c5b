"""What a notebook shows of results: the page's figure of what matters in them, by itself in a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from markupsafe import Markup

from interp import summary, track_record
from interp._accessor import LEADING
from interp.errors import InterpError, unknown_name
from interp.language import say, say_stored, spoken
from interp.report import figures, multiples, notebook, parts, verdict
from interp.report import picture as pictures
from interp.report.blocks import Block, Details, Figure, Panel, Prose
from interp.report.heat import colour_legend
from interp.report.inputs import Result, RunInputs
from interp.report.markup import token
from interp.report.notebook import Shown
from interp.report.sections import generic, influences, sentence
from interp.report.tables import Table
from interp.sites import head_label

HEADS = 12
"""Heads in the table of a verdict."""
MOST_WEIGHTS = 100_000
"""Attention weights that are drawn at once."""

_VECTORS = ("d_model", "d_head", "neuron")
"""Axes of vectors, which are not drawn."""

_PARTS: Mapping[str, Callable[[xr.Dataset], bool]] = {
    "verdict": lambda data: "gate" in data.attrs and "label" in data,
    "behavior": lambda data: "passes" in data and "rung_of" in data.variables,
    "attention_lesson": lambda data: "dot" in data and "value_norm" in data,
    "probing": lambda data: "selectivity" in data and "control_accuracy" in data,
    "activation_patching": lambda data: "direction" in data.dims and _starts(data, "recovered_"),
    "head_attribution": lambda data: "contribution" in data and "total" in data,
    "influences": lambda data: "knockout_kl" in data and "swap_stream" in data,
    "qk_attribution": lambda data: "term" in data and "chosen_by" in data.attrs,
    "head_roles": lambda data: "head_role" in data.dims and "excess" in data,
    "logit_lens": lambda data: "rank" in data and "kl" in data and "lens" not in data.dims,
    "lenses": lambda data: "kl" in data and "lens" in data.dims,
    "places": lambda data: "recovered_erasure" in data and "selectivity" in data,
    "circuit": lambda data: "kept" in data and "receiver_nodes" in data.variables,
    "circuit_evaluation": lambda data: "own_faithfulness" in data and "complement" in data,
    "ground_truth": lambda data: "auroc" in data and "known" in data.dims,
    "false_alarms": lambda data: "alarms" in data and "claim" in data.dims,
    "approximation_audit": lambda data: "approximation" in data.dims and "trusted" in data,
}
"""Results that have a section of their own on the page -> what they are known by."""


def _starts(data: xr.Dataset, beginning: str) -> bool:
    return any(str(name).startswith(beginning) for name in data.data_vars)


def of_result(
    data: xr.Dataset | xr.DataArray, *, name: str | None = None, tokens: Sequence[str] | None = None
) -> Shown:
    """The figure of a result, as on the page.

    Args:
        data: a result, captured patterns, or any labelled numbers; a number per prompt is shown as its mean.
        name: which of its figures; None is the one that matters most.
        tokens: the tokens of the prompt, where ``data`` does not say them.

    Raises:
        InterpError: no figure of that name, or nothing in it that can be drawn.

    >>> effect = xr.Dataset({"effect": (("prompt", "layer"), [[1.0, 3.0], [2.0, 5.0]])})
    >>> of_result(effect)
    Shown('effect')
    """
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or "value")
    if _is_captured(data):
        return _of_captured(data, tokens)
    key = next((part for part, known in _PARTS.items() if known(data)), None)
    if key == "verdict" and name is None:
        return _of_verdict(data)
    drawn = {}
    if key is not None:
        blocks = _on_the_page(key, data)
        drawn = _figures(data, blocks)
        if not drawn and name is None and blocks:  # a section of tables alone
            return notebook.of_blocks(
                say_stored(str(data.attrs.get("title", ""))), blocks, names=tuple(_generic(data)), language=spoken()
            )
    if not drawn or (name is not None and name not in drawn):
        drawn = {**drawn, **_generic(data)}
    right = track_record.line_of(data) if key is None else track_record.line(key)
    return _chosen(data, drawn, name, parts.in_words([] if right is None else [right]))


def of_run(answer: str, results: Mapping[str, xr.Dataset], *, name: str | None = None) -> Shown:
    """The answer of a run, with the picture of it where there is one.

    Args:
        answer: in words.
        results: the run's results by name.
        name: of a result; it is shown instead.

    Raises:
        InterpError: no result of that name.
    """
    if name is not None:
        if name not in results:
            raise unknown_name("result", name, results)
        return of_result(results[name])
    run = RunInputs({key: Result(key, data) for key, data in results.items()}, {}, {}, "")
    picture = _picture(run)
    said: list[Block] = [Prose((answer,))]
    if picture is None:
        return notebook.of_blocks(say("the answer"), said, names=tuple(results), language=spoken())
    body = notebook.spoken(answer, picture)
    return Shown(say("the answer"), body, picture, tuple(results), spoken())


def _picture(run: RunInputs) -> Markup | None:
    """The sentence with its arcs, the map of words and ways of asking, or the first prompt with the heads' arcs."""
    explained = [one for key in ("reach", "heads", "sources") if (one := run.get(key)) is not None]
    if len(explained) == 3:
        return sentence.picture(*explained).panels[0].body
    influential = run.get("influences")
    if influential is not None:
        return influences.picture(influential).panels[0].body
    return pictures.picture(run)


# ---- results ----


@dataclass(frozen=True)
class _Drawn:
    """A figure, and what stands above it."""

    figure: Figure
    words: tuple[str, ...] = ()


def _on_the_page(key: str, data: xr.Dataset) -> list[Block]:
    """What the section shows that draws this result."""
    run = RunInputs({key: Result(key, data)}, {}, {}, "")
    part = next(part for part in parts.PARTS if key in part.results)
    context = parts.Context(run, verdict.of(run), None)
    return [block for section in part.sections(context) for block in section.blocks]


def _figures(data: xr.Dataset, blocks: Sequence[Block]) -> dict[str, _Drawn]:
    """The figures among them, by their keys."""
    answer = str(data.attrs.get("answer", ""))
    return {
        block.key: _Drawn(replace(block, file=""), (answer,) if answer else ())
        for block in blocks
        if isinstance(block, Figure)
    }


def _generic(data: xr.Dataset) -> dict[str, _Drawn]:
    """One figure for each variable that can be drawn, the leading one first."""
    names = [str(one) for one in data.data_vars if not set(_VECTORS) & set(data[one].dims)]
    if not names:
        (dim, *_) = set(_VECTORS) & set(data.dims)
        raise InterpError(
            f"{', '.join(map(str, data.data_vars))}: vectors ({dim}) are not drawn. Take a number of each, such as its "
            f"length, (x**2).sum({dim!r}) ** 0.5."
        )
    names.sort(key=lambda one: LEADING.index(one) if one in LEADING else len(LEADING))
    nothing = verdict.Verdict("", True, "", "", (), (), ())
    plain = _described(data)
    found = {}
    for name in names:
        made = Result("shown", _as_effect(plain) if name == "recovered" else plain)
        figure = generic.figure(made, name, nothing)
        if figure is not None:
            words = tuple(text for text in (made.attr("question"), made.attr("reading")) if text)
            found[name] = _Drawn(replace(figure, file=""), words)
    return found


def _described(data: xr.Dataset) -> xr.Dataset:
    """The same with what the generic section asks of every variable, and with tokens as labels of positions."""
    said = {name: {"units": "", "long_name": str(name), **one.attrs} for name, one in data.data_vars.items()}
    return _with_tokens(data.assign({name: data[name].assign_attrs(attrs) for name, attrs in said.items()}))


def _as_effect(data: xr.Dataset) -> xr.Dataset:
    """What is recovered as the page says it: how far it is sufficient, or needed, so that 1 is what matters in both.

    Of noising that is what is lost: 1 - recovered, which is what a patch would recover that moves the metric as far
    from the other run.
    """
    measured = next((one for one in ("patched", "estimated") if one in data), "")
    direction, back = data.attrs.get("direction"), data["recovered"]
    if direction not in summary.DIRECTIONS or not {"clean", "corrupted", measured} <= {*data.data_vars}:
        return data
    checked = [data.attrs["reading"]] if measured == "estimated" else []
    if direction == "denoising":
        reading = say("1: this alone brings the whole gap back; 0: nothing of it. NaN: the gap is too small.")
        said = back.attrs | {"long_name": say("sufficient: share recovered")}
        found = data.assign(recovered=back.assign_attrs(said))
    else:
        reading = say("1: the whole gap is lost without it; 0: nothing of it. NaN: the gap is too small.")
        said = back.attrs | {"long_name": say("needed: share lost")}
        found = data.assign({measured: data["clean"] + data["corrupted"] - data[measured], "recovered": 1 - back})
        found["recovered"].attrs = said
    return found.assign_attrs(reading=" ".join([reading, *checked]))


def _with_tokens(data: xr.Dataset) -> xr.Dataset:
    """Positions labelled by their tokens, where the result knows them; both, where clean and corrupted differ."""
    if "position" not in data.dims or "clean_token" not in data.coords:
        return data
    clean = [str(one) for one in data["clean_token"].values]
    other = [str(one) for one in data["corrupted_token"].values] if "corrupted_token" in data.coords else clean
    at = [int(one) for one in data["position"].values]
    labels = [
        f"{i} {token(one)}" + (f"/{token(two)}" if one != two else "")
        for i, one, two in zip(at, clean, other, strict=True)
    ]
    return data.assign_coords(position=labels)


def _chosen(data: xr.Dataset, drawn: Mapping[str, _Drawn], name: str | None, record: Sequence[Block]) -> Shown:
    """One figure of a result, and how often the result's methods were right where the answer is known."""
    if not drawn:
        raise InterpError("The result has no numbers along an axis. Print it, or look at .interp.to_pandas().")
    if name is not None and name not in drawn:
        raise unknown_name("figure", name, drawn, " of this result")
    key = name or next(iter(drawn))
    chosen = drawn[key]
    title = str(data.attrs.get("title", "")) or chosen.figure.title
    blocks: list[Block] = [Prose(chosen.words)] if chosen.words else []
    others = [one for one in drawn if one != key]
    return notebook.of_blocks(
        say_stored(title), [*blocks, chosen.figure, *record], drawing=figures.whole(chosen.figure), names=others,
        language=spoken(),
    )  # fmt: skip


def _of_verdict(data: xr.Dataset) -> Shown:
    """The answer, and the table of heads."""
    found = verdict.of(RunInputs({"verdict": Result("verdict", data)}, {}, {}, ""))
    table = found.reading_table(say("The heads, those with a job first"), HEADS)
    shown: list[Block] = [Prose((found.answer,)), Details(say("Which heads"), (table,), open=True)]
    return notebook.of_blocks(
        say_stored(str(data.attrs["title"])), [*shown, *parts.record(["verdict"])], names=tuple(_generic(data)),
        language=spoken(),
    )  # fmt: skip


# ---- captured patterns ----


def _is_captured(data: xr.Dataset) -> bool:
    return "pattern" in data and {"dest_position", "src_position"} <= set(data["pattern"].dims)


def _of_captured(data: xr.Dataset, tokens: Sequence[str] | None) -> Shown:
    """The patterns of one prompt: a grid of all heads, or one head with its words."""
    words = []
    if "prompt" in data.dims:
        if data.sizes["prompt"] > 1:
            words.append(say("The first of {n} prompts; .isel(prompt=...) chooses another.", n=data.sizes["prompt"]))
        data = data.isel(prompt=0)
    array = data["pattern"]
    array = array.expand_dims([dim for dim in ("layer", "head") if dim not in array.dims])
    array = array.transpose("layer", "head", "dest_position", "src_position")
    length = _length(array)
    array = array.isel(dest_position=slice(length), src_position=slice(length))
    texts = _texts(data, tokens, array)
    layers, heads = (_numbers(data, array, dim) for dim in ("layer", "head"))
    weights = np.asarray(array.values, dtype=np.float64)
    if weights.shape[:2] == (1, 1):
        return _one_head(weights[0, 0], head_label(layers[0], heads[0]), texts, words)
    if weights.size > MOST_WEIGHTS:
        raise InterpError(
            f"{weights.shape[0]} layers of {weights.shape[1]} heads on {length} tokens are {weights.size:,} weights; "
            f"at most {MOST_WEIGHTS:,} are drawn. Choose layers or heads with .isel(layer=..., head=...)."
        )
    grid = multiples.patterns(weights, layers=layers, heads=heads, tokens=texts, key="patterns")
    legend = colour_legend(multiples.SCALE, key="patterns-legend")
    reading = say("Rows read, columns are read; .isel(layer=..., head=...) shows one head with its words.")
    return _patterns_shown(grid, legend, [reading, *words])


def _length(array: xr.DataArray) -> int:
    """Tokens of the prompt: what lies beyond is NaN."""
    there = np.isfinite(array.values).any(axis=(0, 1, 2))
    return max(1, int(there.sum()))


def _numbers(data: xr.Dataset, array: xr.DataArray, dim: str) -> list[int]:
    """Which layers, or heads, these are: as the coordinate says, else counted from 0."""
    if dim in array.coords:
        return [int(one) for one in np.atleast_1d(array[dim].values)]
    return [int(data[dim])] if dim in data.coords and not data[dim].ndim else list(range(array.sizes[dim]))


def _texts(data: xr.Dataset, tokens: Sequence[str] | None, array: xr.DataArray) -> list[str]:
    size = array.sizes["src_position"]
    named = next((one for one in ("src_token", "token") if one in data.variables), None)
    if tokens is None and named is not None:
        tokens = [str(one) for one in data[named].values[:size]]
    if tokens is None:
        return [str(i) for i in range(size)]
    if len(tokens) != size:
        raise InterpError(f"There are {len(tokens)} tokens, but the pattern has {size}. Give those of this prompt.")
    return [str(one) for one in tokens]


def _one_head(weights: np.ndarray, name: str, texts: Sequence[str], words: Sequence[str]) -> Shown:
    title = say("Attention pattern of {head}", head=name)
    drawn = multiples.one(weights, name, texts, key="pattern", title=title)
    legend = colour_legend(multiples.SCALE, key="pattern-legend")
    return _patterns_shown(drawn, legend, [say("Each row sums to 1."), *words], title)


def _patterns_shown(drawn: Markup, legend: Markup, words: Sequence[str], title: str = "") -> Shown:
    title = title or say("Attention patterns")
    figure = Figure(
        "patterns", title, " ".join(words), (Panel("", drawn, wide=True),), (Table(title, (), ()),), legend=legend
    )
    return notebook.of_blocks(title, [figure], drawing=figures.whole(figure), language=spoken())
