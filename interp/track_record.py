"""How often each method was right where the answer is known: what ``interp run ground-truth`` found, as shipped.

The figures stand in ``interp/groundtruth/table.json``. Nothing here loads torch, so that a page can say them.

>>> from interp import track_record
>>> track_record.of("denoising", "carries").false_alarms
0
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from interp import stats
from interp.errors import unknown_name
from interp.language import say

FILE = Path(__file__).parent / "groundtruth" / "table.json"
"""The figures that are shipped."""
WELL_ORDERED = 0.95
"""AUROC from which the size of what is found is said to tell true ones from others."""

USED_BY: Mapping[str, tuple[tuple[str, str], ...]] = {
    "activation_patching": (("denoising", "carries"), ("noising", "carries"), ("stream_in", "used")),
    "head_attribution": (
        ("resample_ablation", "needed"), ("zero_ablation", "needed"), ("direct_effect", "carries"),
        ("attention", "carries"),
    ),
    "probing": (("probe", "held"), ("probe", "used")),
    "logit_lens": (("lens", "held"), ("lens", "used")),
    "lenses": (("lens", "used"), ("tuned lens", "used"), ("jacobian lens", "used")),
    "places": (("table, readable", "held"), ("table, used", "used"), ("leace", "used"), ("das", "used")),
    "qk_attribution": (("attention", "carries"), ("paths_in", "edges"), ("score paths", "looks")),
    "circuit": (("circuit, exact", "edges"), ("circuit, eap-ig-inputs", "edges"), ("circuit, atp*", "edges")),
    "circuit_evaluation": (("missed", "edges"),),
    "reach": (("arrival", "arrives"),),
    "heads": (("explain", "carries"),),
    "approximation_audit": (("gradient", "carries"), ("eap", "edges"), ("eap-ig-inputs", "edges")),
    "verdict": (("verdict", "carries"), ("claims", "carries"), ("positions only", "selects")),
    "head_roles": (("roles", "moves"),),
    "composition": (("composition", "between"),),
}  # fmt: skip
"""Result of a study -> the methods in it, each with the question that it is read as an answer to."""


@dataclass(frozen=True)
class Record:
    """A method and a question, over all models: what ``groundtruth.Score`` has, added up.

    Attributes:
        auroc: model -> AUROC, without those where it is not defined.
        by_model: model -> found, true, false alarms and others.

    >>> Record({"plain": 1.0, "backup": 0.5}, {"plain": [2, 2, 0, 10], "backup": [2, 3, 0, 9]}).order
    '0.75 (0.50 backup)'
    """

    auroc: Mapping[str, float]
    by_model: Mapping[str, Sequence[int]]

    @property
    def found(self) -> int:
        """True ones that are named, of all models."""
        return self._sum(0)

    @property
    def true(self) -> int:
        """True ones, of all models."""
        return self._sum(1)

    @property
    def false_alarms(self) -> int:
        """Others that are named, of all models."""
        return self._sum(2)

    @property
    def others(self) -> int:
        """Others that are scored, of all models."""
        return self._sum(3)

    def _sum(self, column: int) -> int:
        return sum(counts[column] for counts in self.by_model.values())

    @property
    def mean_auroc(self) -> float:
        """Over the models; NaN where it is defined on none."""
        return sum(self.auroc.values()) / len(self.auroc) if self.auroc else math.nan

    @property
    def order(self) -> str:
        """The mean AUROC over the models, and the worst with its model where it is not 1."""
        if not self.auroc:
            return "–"
        worst = min(self.auroc, key=lambda name: self.auroc[name])
        return "1.00" if self.auroc[worst] == 1 else f"{self.mean_auroc:.2f} ({self.auroc[worst]:.2f} {worst})"

    @property
    def tells_apart(self) -> bool:
        """Whether most others are named, and yet on every model hardly one of them is larger than a true one."""
        return bool(self.auroc) and 2 * self.false_alarms > self.others and min(self.auroc.values()) >= WELL_ORDERED


@cache
def table() -> Mapping[str, Any]:
    """All that is shipped, as plain values.

    >>> from interp import track_record
    >>> sorted(track_record.table())
    ['false_alarms', 'library_version', 'models', 'records']
    """
    found: Mapping[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def of(method: str, question: str) -> Record:
    """The record of a method on a question.

    Raises:
        InterpError: it was not asked that.

    >>> from interp import track_record
    >>> track_record.of("direct_effect", "carries").found < track_record.of("denoising", "carries").found
    True
    """
    records = table()["records"]
    key = f"{method}/{question}"
    if key not in records:
        raise unknown_name("method and question", key, records)
    return Record(**records[key])


def methods() -> dict[str, str]:
    """Every method on trial, in words.

    >>> from interp import track_record
    >>> track_record.methods()["zero_ablation"]
    'ablation by zero'
    """
    return {
        "verdict": say("the verdict (movers and readers)"),
        "claims": say("the verdict's claims (moves, stores, reads out)"),
        "positions only": say("the verdict's claims (needed, and carries nothing)"),
        "denoising": say("patching one component in"),
        "noising": say("patching one component out"),
        "knockout": say("cutting a head's attention between two words"),
        "resample_ablation": say("ablation by another prompt's values"),
        "mean_ablation": say("ablation by the mean"),
        "zero_ablation": say("ablation by zero"),
        "attention": say("attention above an even spread"),
        "direct_effect": say("the direct path to the logits"),
        "gradient": say("attribution patching"),
        "integrated": say("attribution patching, integrated"),
        "atp*": "AtP*",
        "paths_in": say("path patching in"),
        "paths_out": say("path patching out"),
        "eap": "EAP",
        "eap-ig-inputs": say("EAP-IG over inputs"),
        "eap-ig-activations": say("EAP-IG over activations"),
        "stream_in": say("patching the stream in"),
        "stream_out": say("patching the stream out"),
        "probe": say("a linear probe"),
        "lens": say("the logit lens"),
        "tuned lens": say("the tuned lens"),
        "jacobian lens": say("the Jacobian lens"),
        "roles": say("roles of heads (movers)"),
        "explain": say("the head that an explanation names"),
        "composition": say("composition of heads, by their weights"),
        "score paths": say("patching the paths into queries and keys"),
        "circuit, exact": say("the circuit by exact patching"),
        "circuit, greedy": say("the circuit by greedy removal"),
        "circuit, eap": say("the circuit by EAP"),
        "circuit, eap-ig-inputs": say("the circuit by EAP-IG over inputs"),
        "circuit, eap-ig-activations": say("the circuit by EAP-IG over activations"),
        "circuit, atp*": say("the circuit by AtP*"),
        "inlp": say("erasure by INLP"),
        "leace, oracle": say("erasure by LEACE that is told the words"),
        "leace": say("erasure by LEACE"),
        "class means": say("erasure by the projection of means"),
        "interchange": say("interchange of the means' span"),
        "das": say("interchange of what DAS finds"),
        "one direction": say("interchange along one direction"),
        "table, readable": say("the table of places (readable)"),
        "table, used": say("the table of places (patched, erased and exchanged)"),
        "missed": say("taking one edge out of a circuit"),
        "arrival": say("the yes of an explanation"),
    }


def questions() -> dict[str, str]:
    """What the methods are asked, in words.

    >>> from interp import track_record
    >>> track_record.questions()["edges"]
    'edges on which the source goes'
    """
    return {
        "carries": say("heads and MLPs that carry the source"),
        "needed": say("heads and MLPs that the answer needs"),
        "moves": say("heads that take the source from its own word"),
        "selects": say("heads that decide where others look and hold nothing of the source"),
        "edges": say("edges on which the source goes"),
        "between": say("edges between heads on which the source goes"),
        "looks": say("edges on which the source decides where a head looks"),
        "held": say("places where the source is written"),
        "used": say("places from where the source is used"),
        "arrives": say("words at which more of the source than noise arrives"),
    }


def line(result: str) -> str | None:
    """How often the methods of a study's result were right where the answer is known; None where none was on trial.

    >>> from interp import track_record
    >>> track_record.line("behavior") is None
    True
    """
    return _line(USED_BY.get(result, ()))


def line_of(data: xr.Dataset) -> str | None:
    """The same of a single sweep or estimate, by what it says of itself; None where it is none that was on trial.

    >>> from interp import HookedTransformer, sweep, tasks, track_record
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> track_record.line_of(sweep(model, pairs, "z"))
    'On 13 models whose circuit is known: patching one component in finds ... heads and MLPs that carry the source ...'
    """
    site, direction, method = (str(data.attrs.get(name, "")) for name in ("site", "direction", "method"))
    if "cut_effect" in data:
        asked = ("knockout", "carries")
    elif "ablation_kind" in data.attrs:
        asked = (f"{data.attrs['ablation_kind']}_ablation", "needed" if site in _COMPONENTS else "")
    elif {"sender", "receiver"} <= set(data.dims):
        asked = (method or _PATHS.get(direction, ""), "edges")
    elif site in _COMPONENTS:
        asked = (method or direction, "carries")
    else:
        asked = ("" if method else _STREAM.get(direction, ""), "used" if site == "resid_pre" else "")
    return _line([asked] if "/".join(asked) in table()["records"] else [])


_COMPONENTS = ("z", "mlp_out")
_PATHS = {"denoising": "paths_in", "noising": "paths_out"}
_STREAM = {"denoising": "stream_in", "noising": "stream_out"}


def _line(asked: Sequence[tuple[str, str]]) -> str | None:
    if not asked:
        return None
    words, what = methods(), questions()
    said = []
    for method, question in asked:
        one = of(method, question)
        found = say(
            "{method} finds {found} of {true} {what} and names {wrong} of {others} others",
            method=words[method], found=one.found, true=one.true, what=what[question], wrong=one.false_alarms,
            others=one.others,
        )  # fmt: skip
        if one.tells_apart:
            found = say(
                "{found}, but its size tells them apart (AUROC {auroc})", found=found, auroc=f"{one.mean_auroc:.2f}"
            )
        said.append(found)
    return say("On {n} models whose circuit is known: {said}.", n=len(table()["models"]), said="; ".join(said))


def records_of(found: xr.Dataset) -> dict[str, Record]:
    """The records in a result of the analysis ``ground_truth``, by method and question (``"denoising/carries"``).

    >>> import numpy as np, xarray as xr
    >>> from interp import track_record
    >>> one = (("question", "method", "known"), np.ones((1, 1, 1)))
    >>> names = ("auroc", "found", "true", "false_alarms", "others")
    >>> coords = {"question": ["carries"], "method": ["denoising"], "known": ["plain"]}
    >>> track_record.records_of(xr.Dataset(dict.fromkeys(names, one), coords))["denoising/carries"].by_model
    {'plain': [1, 1, 1, 1]}
    """
    known = [str(name) for name in found["known"].values]
    records = {}
    for method in map(str, found["method"].values):
        for question in map(str, found["question"].values):
            one = found.sel({"method": method, "question": question}).transpose("known")
            if not np.isfinite(one["true"].values).any():
                continue
            order = zip(known, one["auroc"].values.tolist(), strict=True)
            columns = np.stack([one[name].values for name in ("found", "true", "false_alarms", "others")], axis=1)
            records[f"{method}/{question}"] = Record(
                {name: round(value, 3) for name, value in order if np.isfinite(value)},
                dict(zip(known, columns.astype(int).tolist(), strict=True)),
            )
    return records


def rows(records: Mapping[str, Record] | None = None) -> list[tuple[str, ...]]:
    """Every method and question as a table: a head, then a row each.

    Args:
        records: by method and question, as ``records_of`` has them; None is what is shipped.

    >>> from interp import track_record
    >>> track_record.rows()[0][:2]
    ('method', 'asked for')
    """
    words, asked = methods(), questions()
    head = (say("method"), say("asked for"), "AUROC", say("found"), say("named wrongly"))
    found: list[tuple[str, ...]] = [head]
    if records is None:
        records = {key: of(*key.split("/")) for key in table()["records"]}
    for key, one in records.items():
        method, question = key.split("/")
        counts = (f"{one.found} / {one.true}", f"{one.false_alarms} / {one.others}")
        found.append((words[method], asked[question], one.order, *counts))
    return found


def alarm_rows(alarms: Mapping[str, tuple[int, int]] | None = None) -> list[tuple[str, ...]]:
    """What is claimed of models with random weights, as a table with exact 95% intervals of the rates.

    Args:
        alarms: claim -> of how many models it is made, and of how many it could be; None is what is shipped.

    >>> from interp import track_record
    >>> [row[0] for row in track_record.alarm_rows()][1:3]
    ['the behaviour gate lets the model through', 'the verdict names a head']
    """
    words = {
        "gate": say("the behaviour gate lets the model through"),
        "verdict": say("the verdict names a head"),
        "verdict, gate opened": say("the verdict names a head, the gate told to let everything through"),
        "claims, gate opened": say("anything is claimed of a head or an MLP, the gate told to let everything through"),
        "heads alone": say("a head would be named, if nothing were known of the behaviour"),
        "roles": say("a head is given a role"),
        "das": say("what DAS was fitted to, of arbitrary answers, holds for other prompts"),
        "explanation": say("an explanation says yes, all colours being embedded alike"),
        "readable": say("labels drawn at random are called readable"),
    }
    found: list[tuple[str, ...]] = [(say("claimed of models with random weights"), say("models"), say("95% interval"))]
    if alarms is None:
        alarms = {claim: (count["alarms"], count["n"]) for claim, count in table()["false_alarms"].items()}
    for claim, (count, n) in alarms.items():
        low, high = stats.exact_interval(count, n)
        found.append((words[claim], f"{count} / {n}", f"{low:.1%} – {high:.1%}"))
    return found
