"""What the scripts of the page know: one block of data, made from the results as the figures are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from interp import summary
from interp.language import called, of_prompts, say, say_stored
from interp.language import edge as in_words
from interp.report import attention, palette
from interp.report.inputs import Result, RunInputs
from interp.report.markup import figure_number
from interp.report.sections import heads
from interp.report.verdict import Effect, Verdict
from interp.sites import head_label

DIGITS = 4
"""Decimals of a number in the block; the scripts show fewer."""


@dataclass(frozen=True)
class Measure:
    """What one method says of every head: ``mean``, ``low`` and ``high`` on (layer, head)."""

    name: str
    units: str
    values: xr.Dataset


def block(run: RunInputs, found: Verdict) -> dict[str, Any]:
    """The block of a run: every method's numbers for each head, and the sentences that scripts say.

    A run whose model does not do the task explains nothing, here as on the page.
    """
    measures = _measures(run) if found.passed else []
    return {
        "words": words(),
        "roles": _role_names(run),
        "prompts_lang": of_prompts(),
        "measures": [{"name": one.name, "units": one.units} for one in measures],
        "heads": _heads(run, found, measures),
        "attention": attention.block(run, found) if found.passed else {},
        "ramp": {scheme: palette.ramp("s", scheme) for scheme in ("light", "dark")},
    }


def _role_names(run: RunInputs) -> dict[str, str]:
    """The roles that are shown in other words, with those."""
    names = dict.fromkeys(
        role for result in run.files.values() if "role" in result.data.coords for role in result.labels("role")
    )
    return {role: shown for role in names if (shown := called("role", role)) != role}


def words() -> dict[str, str]:
    """The sentences that scripts say, by the name they have there."""
    return {
        "layer": say("layer {layer}"),
        "position": say("position {position}"),
        "clear": say("Choose nothing"),
        **table_words(),
        **_pattern_words(),
        **_lesson_words(),
    }


def table_words() -> dict[str, str]:
    """Those of the tables, which are copied and saved."""
    return {
        "95% low": say("{name} 95% low"),
        "95% high": say("{name} 95% high"),
        "place of": say("{name}: place"),
        "copied": say("Copied"),
        "copy by hand": say("Select and copy by hand"),
    }


def _pattern_words() -> dict[str, str]:
    return {
        "prompt": say("prompt"),
        "head": say("head"),
        "every head": say("The patterns of every head"),
        "chosen head": say("The pattern of the chosen head"),
        "pattern of": say("Attention pattern of {head}"),
        "strongest": say("{head}: looks most from {dest} to {src}, {weight}"),
        "reads": say("{head}: {dest} ({i}) reads {src} ({j}): {weight}"),
        "row": say("Where {head} looks from {dest}"),
        "bounded": say(
            "Here are {heads} of {all} heads and {prompts} of {stored} prompts: those that fit in the page."
        ),
        "as printed": say("The same for one pair of words of prompt 1, as it is printed"),
    }


def _lesson_words() -> dict[str, str]:
    return {
        "reading word": say("the word that reads"),
        "word read": say("the word that is read"),
        "divisor": say("divide the scores by"),
        "true divisor": say("√d_k = {root}, as the model does"),
        "dimension": say("{label}, dimension {dimension}: {value}"),
        "products": say("The products, number by number"),
        "all others": say("all others"),
        "sum = z": say("sum = z"),
        "pair of lesson": say("The lesson's pair, on prompt 1: {dest} reads {src} in {head}"),
        "pair of question": say("The pair of the question: {dest} reads {src}"),
        "question little": say(
            "Of what {dest} reads on this prompt, {src} gets at most {percent}%, in {head}, of the {heads} heads drawn "
            "below: so this is not where it happens."
        ),
        "question much": say(
            "Of what {dest} reads on this prompt, {src} gets at most {percent}%, in {head}, of the {heads} heads drawn "
            "below: so it can happen here."
        ),
        "step qk": say("Query and key"),
        "step qk means": say(
            "{dest} asks with its query q; {src} answers with its key k. Each is {count} numbers, which the model "
            "makes from what stands in the residual stream at that word. Orange is negative, blue positive."
        ),
        "step match": say("Match"),
        "step scale": say("Scale"),
        "step scale means": say(
            "Sums of more products are larger, and would make the softmax sharper for no other reason. Move the slider "
            "to see it."
        ),
        "step share": say("Share"),
        "step share means": say(
            "{dest} gives {src} {percent}% of its attention. Every weight lies between 0 and 1 and together they are "
            "{total}. Some courses say between −1 and 1: that is the range of a correlation or a cosine."
        ),
        "step mix": say("Mix"),
        "step mix means": say(
            "The value of every word times its weight, summed: z, what {head} hands to {dest}. Its rows above: the "
            "four words with the largest weights, all others, and the sum."
        ),
        "step add": say("What it adds to the word"),
        "step add means": say(
            "W_O turns z into what {head} adds to the residual stream x at {dest}: a vector {percent}% as long as x. "
            "The second line is the length of the part that comes from {src}. Lengths only: parts that point elsewhere "
            "do not simply add up."
        ),
        "softened true": say("Divided by {root}, as the model does: entropy in bits"),
        "softened": say("Divided by {root} instead: entropy in bits"),
        "softened top": say("(0: one word has everything); most goes to {word}: {weight}."),
        "not stored": say("Not stored"),
        "head not stored": say(
            "The queries, keys and values of {head} on prompt {prompt} are not in this page. On this prompt there are "
            "those of {here}."
        ),
        "prompt not stored": say(
            "The queries, keys and values on prompt {prompt} are not in this page, so its steps cannot be computed "
            "here. Prompts that have them: {prompts}."
        ),
        "without vectors": say("{what} (not stored)"),
    }


def _measures(run: RunInputs) -> list[Measure]:
    """Every method that gives a number per head, in the order in which they are read."""
    patching, attribution, sentence = (run.get(name) for name in ("activation_patching", "head_attribution", "heads"))
    made: list[Measure] = []
    if patching is not None and patching.has("recovered_z"):
        found = patching.summary("recovered_z", "direction", "prompt", "layer", "head")
        made += [replace(one, name=say("{effect} at all words", effect=one.name)) for one in _effects(patching, found)]
    if sentence is not None and sentence.has("recovered"):
        at_target = sentence.summary("recovered", "prompt", "direction", "layer", "head", "role").isel(
            role=0, drop=True
        )
        target = called("role", sentence.labels("role")[0])
        made += [
            replace(one, name=say("{effect} at {place}", effect=one.name, place=target))
            for one in _effects(sentence, at_target)
        ]
    if attribution is not None:
        if attribution.has("ablation_effect"):
            found = attribution.summary("ablation_effect", "prompt", "ablation", "layer", "head")
            for i, kind in enumerate(attribution.labels("ablation")):
                values = found.isel(ablation=i, drop=True)
                made.append(Measure(say_stored(f"{kind} ablation"), attribution.units("ablation_effect"), values))
        direct = heads.head_map(attribution, attribution.summary("contribution", "prompt", "component"))
        if direct is not None:
            made.append(Measure(say("direct contribution"), attribution.units("contribution"), direct))
    return made


def _effects(result: Result, recovered: xr.Dataset) -> list[Measure]:
    names = {"denoising": say("sufficient"), "noising": say("needed")}
    return [
        Measure(names[direction], "", summary.effect(recovered.isel(direction=i, drop=True), direction))
        for i, direction in enumerate(result.labels("direction"))
    ]


def _heads(run: RunInputs, found: Verdict, measures: list[Measure]) -> dict[str, Any]:
    if not found.passed:
        return {}
    sizes = [one.values.sizes for one in measures]
    shape = tuple(max((size[dim] for size in sizes), default=0) for dim in ("layer", "head"))
    jobs = {head: say_stored(job) for head, job in zip(found.heads, found.labels, strict=True) if job != "none"}
    looks = _looks(run)
    made: dict[str, dict[str, Any]] = {}
    for layer, head in np.ndindex(*shape):
        label = head_label(layer, head)
        values = [_numbers(one.values, layer, head) for one in measures]
        made[label] = {"job": jobs.get(label, ""), "values": values, "looks": looks.get(label, "")}
        if label in found.effects:
            made[label]["acts"] = _acts(found, found.effects[label])
    return made


def _acts(found: Verdict, effect: Effect) -> list[tuple[str, list[float | None]]]:
    """What the verdict says of a head, at its word: the numbers of the first screen, with their names."""
    place = found.roles.name(effect.role) if found.roles is not None else effect.role
    return [
        (say("{effect} at {place}", effect=name, place=place), [_rounded(n) for n in (size.mean, size.low, size.high)])
        for name, size in ((say("sufficient"), effect.sufficient), (say("needed"), effect.needed))
        if math.isfinite(size.mean)
    ]


def _numbers(values: xr.Dataset, layer: int, head: int) -> list[float | None] | None:
    if layer >= values.sizes["layer"] or head >= values.sizes["head"]:
        return None
    mean, low, high = (values[name].transpose("layer", "head").values[layer, head] for name in ("mean", "low", "high"))
    return None if not math.isfinite(mean) else [_rounded(mean), _rounded(low), _rounded(high)]


def _rounded(value: float) -> float | None:
    return round(float(value), DIGITS) if math.isfinite(value) else None


def _looks(run: RunInputs) -> Mapping[str, str]:
    """Head -> the pair of words between which it attends most, of those that were measured."""
    attribution = run.get("head_attribution")
    if attribution is None or not attribution.has("attention"):
        return {}
    edges = attribution.labels("edge")
    mean = attribution.need("attention", "edge", "layer", "head", "prompt").mean("prompt").values
    made = {}
    for layer, head in np.ndindex(*mean.shape[1:]):
        weights = mean[:, layer, head]
        if not np.isfinite(weights).any():
            continue
        edge = int(np.nanargmax(weights))
        arrow, weight = in_words(edges[edge]), figure_number(float(weights[edge]), 2)
        made[head_label(layer, head)] = say("attention {edge} {weight}", edge=arrow, weight=weight)
    return made
