"""A run's directory made of seeded numbers: every result file of the schema, with heads planted in it.

L1H2 is a mover (its attention goes from the noun to the colour), L2H1 a reader. Everything else is small noise.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from interp import results
from interp.prompts.vocabulary import DOES_NOT, PREFERS, SAYS, Vocabulary
from interp.sites import head_label

ROLES = ("color", "noun", "color_other", "noun_other", "asked", "answer")
RUNGS = ("recall", "two", "three")
COLORS = ("black", "red", "blue", "green")
NOUNS = ("cat", "hat", "car", "book")
NASTY = ("</script><script>alert(1)</script>", "<b>\"bold\" & 'quoted'</b>", "line\nbreak", "\u2028sep", "\u202eover")
MOVER, READER = (1, 2), (2, 1)
FILES = (
    "behavior",
    "attention_lesson",
    "attention_patterns",
    "attention_vectors",
    "probing",
    "activation_patching",
    "head_attribution",
    "verdict",
    "approximation_audit",
)

_FOLDED = re.compile(
    r'(<tbody[^>]*>)(\s*</tbody>\s*</table>\s*)<script type="text/plain" class="rows">([^<]*)</script>'
)

Variable = tuple[tuple[str, ...], Any, str]


@dataclass(frozen=True)
class RunSpec:
    """What kind of run to write.

    ``n_prompts`` is per rung. ``missing`` names result files to leave out, ``nasty`` puts markup into words, and
    prompts have at least ``n_tokens``.
    """

    n_layers: int = 3
    n_heads: int = 4
    n_prompts: int = 8
    d_head: int = 8
    grouped: bool = False
    missing: tuple[str, ...] = ()
    gate_passed: bool = True
    nasty: bool = False
    n_tokens: int = 0
    with_roles: bool = True
    seed: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads // 2 if self.grouped else self.n_heads


def only(*names: str, **more: Any) -> RunSpec:
    """A run with these result files and no others."""
    return RunSpec(missing=tuple(name for name in FILES if name not in names), **more)


def write_run(directory: Path, spec: RunSpec | None = None) -> Path:
    """Write ``results/*.nc``, ``manifest.json`` and ``study.yaml``; return the directory."""
    spec = spec or RunSpec()
    for name in FILES:
        if name not in spec.missing:
            path = directory / "results" / f"{name}.nc"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_file(name, replace(spec, missing=())))
    (directory / "manifest.json").write_text(json.dumps(_manifest(spec)), encoding="utf-8")
    (directory / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "color-noun",
                "title": "How a colour reaches its noun",
                "question": 'In "I love the color black, and I hope to have a cat like that one day", which heads look '
                "at the colour, what do they carry to the noun, and who reads it when the colour is asked for?",
                "task": "color-noun",
            },
            sort_keys=False,
        ),
        encoding="utf-8",
    )
    return directory


@cache
def _file(name: str, spec: RunSpec) -> bytes:
    """One result file of a run; many tests share it."""
    makers = (
        *(behavior, attention_lesson, attention_patterns, attention_vectors, probing, activation_patching),
        *(head_attribution, verdict, approximation_audit),
    )
    number = FILES.index(name)
    made = makers[number](spec, np.random.default_rng([spec.seed, number]))
    results.validate(made)
    return results.to_bytes(made)


def unfolded(page: str) -> str:
    """A page with the rows of its long tables where scripts put them when they are opened."""
    return _FOLDED.sub(lambda found: found[1] + zlib.decompress(base64.b64decode(found[3])).decode() + found[2], page)


def edit(directory: Path, name: str, change: Any) -> None:
    """Change one result file: ``change`` takes the dataset and returns another. Not validated on purpose."""
    path = directory / "results" / f"{name}.nc"
    with xr.open_dataset(path, engine=results.ENGINE) as opened:
        dataset = opened.load()
    path.unlink()
    path.write_bytes(results.to_bytes(change(dataset)))


def _dataset(
    spec: RunSpec,
    title: str,
    question: str,
    reading: str,
    variables: Mapping[str, Variable],
    coords: Mapping[str, Any],
    **extra: Any,
) -> xr.Dataset:
    attrs = {
        "title": title,
        "question": question,
        "reading": reading,
        "source": "Vaswani et al. 2017"
        if "attention" in title.lower()
        else "Meng et al. 2022; Heimersheim and Nanda 2024",
        "task": "color-noun",
        "rung": "two",
        "n_prompts": spec.n_prompts,
        "seed": spec.seed,
        "model": "mini" if not spec.nasty else "mini<script>",
        "weights_sha256": "a" * 64,
        "tokens_sha256": "b" * 64,
        "schema_version": results.SCHEMA_VERSION,
        "library_version": "0.1.0",
        "created_at": "2026-11-22T12:00:00Z",
        "numerics": "folded LayerNorm, centred weights",
        "bos": "prepended",
        "dtype": "float32",
        "device": "cpu",
        **extra,
    }
    data = {
        name: (dims, np.asarray(values), {"units": units, "long_name": name.replace("_", " ")})
        for name, (dims, values, units) in variables.items()
    }
    return results.validate(xr.Dataset(data, coords=dict(coords), attrs=attrs))


def _words(spec: RunSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (NASTY[:4], (NASTY[1], "hat", NASTY[4], "book")) if spec.nasty else (COLORS, NOUNS)


def _prompt(color: str, noun: str, color_other: str, noun_other: str) -> tuple[str, dict[str, tuple[int, int]]]:
    parts = [
        ("I love the color ", ""), (color, "color"), (", and I hope to have a ", ""), (noun, "noun"),
        (" like that one day. I do not like the color ", ""), (color_other, "color_other"),
        (", and I do not want a ", ""), (noun_other, "noun_other"), (" like that. The ", ""), (noun, "asked"),
        (" ", ""), ("is", "answer"),
    ]  # fmt: skip
    text, spans = "", {}
    for part, role in parts:
        if role:
            spans[role] = (len(text), len(text) + len(part))
        text += part
    return text, spans


def tokens(spec: RunSpec) -> tuple[str, ...]:
    colors, nouns = _words(spec)
    words = _prompt(colors[0], nouns[0], colors[1], nouns[1])[0].replace(",", " ,").replace(".", " .").split(" ")
    words += [f"and{i}" for i in range(spec.n_tokens - len(words) - 1)]
    return ("<|endoftext|>", words[0], *(f" {word}" for word in words[1:]))


def behavior(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    colors, nouns = _words(spec)
    n = spec.n_prompts
    chance = 0.1
    strength = {"recall": 9.0, "two": 6.0, "three": 0.6} if spec.gate_passed else dict.fromkeys(RUNGS, 0.1)
    records: dict[str, list[Any]] = {
        name: [] for name in ("rung", "text", "other", "answer", "wrong", "top", "spans", "other_spans")
    }
    clean, corrupted, top1 = [], [], []
    for rung in RUNGS:
        for i in range(n):
            a, b = colors[i % 4], colors[(i + 1) % 4]
            text, spans = _prompt(a, nouns[i % 4], b, nouns[(i + 2) % 4])
            other, other_spans = _prompt(b, nouns[i % 4], a, nouns[(i + 2) % 4])
            right = bool(rng.random() < min(0.99, strength[rung] / 6.2 + 0.05))
            for name, value in zip(
                records, (rung, text, other, f" {a}", f" {b}", f" {a if right else b}", spans, other_spans), strict=True
            ):
                records[name].append(value)
            top1.append(right)
            clean.append(strength[rung] + rng.normal() * 0.8)
            corrupted.append(-strength[rung] + rng.normal() * 0.8)
    rung_of = np.array(records["rung"])
    by = {rung: rung_of == rung for rung in RUNGS}
    clean_a, corrupted_a, top1_a = np.array(clean), np.array(corrupted), np.array(top1, dtype=np.int8)
    accuracy = np.array([top1_a[by[r]].mean() for r in RUNGS])
    from interp.stats import wilson_interval

    passes = (accuracy > 0.5).astype(np.int8)
    coords: dict[str, Any] = {
        "rung": list(RUNGS),
        "ci_bound": ["lower", "upper"],
        "rung_of": ("prompt", records["rung"]),
        "text": ("prompt", records["text"]),
        "corrupted_text": ("prompt", records["other"]),
        "answer": ("prompt", records["answer"]),
        "incorrect_answer": ("prompt", records["wrong"]),
        "top_token": ("prompt", records["top"]),
    }
    variables: dict[str, Variable] = {
        "clean": (("prompt",), clean_a, "logits"),
        "corrupted": (("prompt",), corrupted_a, "logits"),
        "clean_top1": (("prompt",), top1_a, "0 or 1"),
        "corrupted_top1": (("prompt",), top1_a, "0 or 1"),
        "clean_preferred": (("prompt",), (clean_a > 0).astype(np.int8), "0 or 1"),
        "clean_rank": (("prompt",), np.where(top1_a > 0, 0, 3), "rank from 0"),
        "clean_probability": (("prompt",), 1 / (1 + np.exp(-clean_a)), "probability"),
        "n": (("rung",), [n] * 3, "prompts"),
        "accuracy": (("rung",), accuracy, "share of prompts"),
        "accuracy_interval": (("rung", "ci_bound"), [wilson_interval(round(a * n), n) for a in accuracy], "share"),
        "preferred": (("rung",), [(clean_a[by[r]] > 0).mean() for r in RUNGS], "share of prompts"),
        "preferred_interval": (
            ("rung", "ci_bound"), [wilson_interval(int((clean_a[by[r]] > 0).sum()), n) for r in RUNGS], "share",
        ),
        "clean_mean": (("rung",), [clean_a[by[r]].mean() for r in RUNGS], "logits"),
        "corrupted_mean": (("rung",), [corrupted_a[by[r]].mean() for r in RUNGS], "logits"),
        "gap": (("rung",), [(clean_a - corrupted_a)[by[r]].mean() for r in RUNGS], "logits"),
        "chance": (("rung",), [chance, 0.5, 0.33], "share of prompts"),
        "passes": (("rung",), passes, "0 or 1"),
        "main": (("rung",), [0, 1, 0], "0 or 1"),
        "outcome": (("rung",), [_outcome(a, p) for a, p in zip(accuracy, passes, strict=True)], ""),
        "reason": (("rung",), [_reason(a, p) for a, p in zip(accuracy, passes, strict=True)], ""),
        "description": (("rung",), ["one colour, one noun", "two nouns, two colours", "three bindings"], ""),
    }  # fmt: skip
    if spec.with_roles:
        coords["role"] = list(ROLES)
        for prefix, name in (("", "spans"), ("corrupted_", "other_spans")):
            for end, at in (("start", 0), ("stop", 1)):
                values = [[spans[role][at] for role in ROLES] for spans in records[name]]
                variables[f"{prefix}role_{end}"] = (("prompt", "role"), values, "character")
    return _dataset(
        spec,
        "Behaviour",
        "Does the model do the task?",
        "accuracy is the share of prompts.",
        variables,
        coords,
        rung="all",
        explained_rung="two" if spec.gate_passed else "",
    )


def _outcome(accuracy: float, passes: int) -> str:
    if not passes:
        return DOES_NOT
    return SAYS if accuracy >= 0.75 else PREFERS


def _reason(accuracy: float, passes: int) -> str:
    return f"{'passes' if passes else 'fails'}: accuracy {accuracy:.2f} {'is at least' if passes else 'is below'} 0.50"


def attention_lesson(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    words = tokens(spec)
    size, d_head = len(words), spec.d_head
    destination, source = size - 2, 5
    k, v = rng.normal(size=(size, d_head)), rng.normal(size=(size, d_head))
    q = rng.normal(size=d_head)
    k[source] = q * 1.6
    dot = np.where(np.arange(size) <= destination, k @ q, np.nan)
    score = dot / np.sqrt(d_head)
    weight = np.where(np.isfinite(score), np.exp(score - np.nanmax(score)), 0.0)
    weight /= weight.sum()
    variables: dict[str, Variable] = {
        "q": (("d_head",), q, "activation"),
        "k": (("src_position", "d_head"), k, "activation"),
        "v": (("src_position", "d_head"), v, "activation"),
        "dot": (("src_position",), dot, "activation²"),
        "score": (("src_position",), score, "activation²"),
        "weight": (("src_position",), weight, "share"),
        "value_norm": (("src_position",), np.linalg.norm(v, axis=1), "activation"),
        "z": (("d_head",), weight @ v, "activation"),
    }
    extra = {
        "layer": MOVER[0],
        "head": MOVER[1],
        "dest_position": destination,
        "dest_token": words[destination],
        "src_of_interest": source,
        "src_token": words[source],
        "d_head": d_head,
        "weights_sum": float(weight.sum()),
        "text": "".join(words),
    }
    return _dataset(
        spec,
        "The attention lesson",
        "How does one head read?",
        "weight is a share.",
        variables,
        {"token": ("src_position", list(words))},
        **extra,
    )


N_KEPT = 2
"""Prompts of which patterns and vectors are kept."""


def _kept(spec: RunSpec, axis: str) -> dict[str, Any]:
    """What the coordinates say of the prompts that are kept; both are the first prompt's words."""
    words = tokens(spec)
    first = np.tile([[5, 13]], (N_KEPT, 1))
    return {
        "prompt": [0, 1],
        "text": ("prompt", ["".join(words)] * N_KEPT),
        "token": (("prompt", axis), [list(words)] * N_KEPT),
        "role": ["color", "noun"],
        "role_first": (("prompt", "role"), first),
        "role_last": (("prompt", "role"), first),
    }


def attention_patterns(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    size = len(tokens(spec))
    scores = rng.normal(size=(N_KEPT, spec.n_layers, spec.n_heads, size, size)) * 2
    scores[:, MOVER[0], MOVER[1], 12, 5] += 6
    scores = np.where(np.tri(size, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    dims = ("prompt", "layer", "head", "dest_position", "src_position")
    return _dataset(
        spec,
        "Attention patterns",
        "What does each head look at?",
        "A cell is a share.",
        {"pattern": (dims, weights.astype(np.float32), "share")},
        _kept(spec, "src_position"),
        vocabulary='{"source": "color", "target": "noun"}',
        text="".join(tokens(spec)),
        d_model=32,
        d_head=spec.d_head,
        d_mlp=128,
        d_vocab=100,
    )


def attention_vectors(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    labels = [head_label(i, j) for i in range(spec.n_layers) for j in range(spec.n_heads)]
    shape = (N_KEPT, len(labels), len(tokens(spec)))
    variables: dict[str, Variable] = {
        name: (("prompt", "head_label", "position", "d_head"), rng.normal(size=(*shape, spec.d_head)), "activation")
        for name in "qkv"
    }
    for name in ("written", "value_written", "stream"):
        variables[name] = (("prompt", "head_label", "position"), rng.uniform(1, 2, size=shape), "activation")
    return _dataset(
        spec,
        "Attention vectors",
        "How does any word read any other?",
        "Queries, keys and values.",
        variables,
        {"head_label": labels, **_kept(spec, "position")},
    )


def probing(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    sites, folds = ("resid_pre", "resid_post"), 4
    shape = (len(sites), spec.n_layers, len(ROLES), folds)
    rise = np.linspace(0.2, 0.9, spec.n_layers)[None, :, None, None]
    role = np.array([1.0, 0.9, 0.3, 0.2, 0.6, 0.95])[None, None, :, None]
    accuracy = np.clip(0.1 + rise * role + rng.normal(size=shape) * 0.05, 0, 1)
    control = np.clip(0.12 + rng.normal(size=shape) * 0.04, 0, 1)
    variables: dict[str, Variable] = {
        "accuracy": (("site", "layer", "role", "fold"), accuracy, "share of prompts"),
        "control_accuracy": (("site", "layer", "role", "fold"), control, "share of prompts"),
        "selectivity": (("site", "layer", "role", "fold"), accuracy - control, "share of prompts"),
        "distractor_rate": (
            ("site", "layer", "role", "fold"),
            np.clip(0.35 - accuracy * 0.3, 0, 1),
            "share of prompts",
        ),
        "majority": (("role",), [0.15] * len(ROLES), "share of prompts"),
        "chance": ((), 0.1, "share of prompts"),
        "n_train": (("fold",), [30] * folds, "prompts"),
        "n_test": (("fold",), [10] * folds, "prompts"),
        "p_value": (("site", "layer", "role"), np.where(accuracy.mean(-1) > 0.5, 0.005, 0.6), ""),
        "compression": (("site", "layer", "role"), 0.8 + accuracy.mean(-1), ""),
        "classifier_layer": (("fold",), [spec.n_layers - 1] * folds, ""),
        "classifier_accuracy": (("fold",), accuracy[0, -1, -1], "share of prompts"),
        "classifier_control_accuracy": (("fold",), control[0, -1, -1], "share of prompts"),
        "classifier_mean": ((), 0.9, "share of prompts"),
        "classifier_mean_interval": (("ci_bound",), [0.7, 0.97], "share of prompts"),
        "classifier_calibration_error": ((), 0.08, "share of prompts"),
        "classifier_brier": ((), 0.15, ""),
    }
    coords = {
        "site": list(sites),
        "layer": list(range(spec.n_layers)),
        "role": list(ROLES),
        "ci_bound": ["lower", "upper"],
    }
    return _dataset(
        spec,
        "Probing",
        "Is the colour readable at the noun?",
        "A probe that beats its control reads something that is there. Its labels have a codelength.",
        variables,
        coords,
        n_features=32,
        n_labels=10,
        n_groups=12,
        n_data=40,
        classifier_role=ROLES[-1],
        classifier_site="resid_pre",
    )


def activation_patching(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    n, layers, heads = spec.n_prompts, spec.n_layers, spec.n_heads
    words = tokens(spec)
    coords = {
        "direction": ["denoising", "noising"],
        "role": list(ROLES),
        "layer": list(range(layers)),
        "head": list(range(heads)),
        "token": ("position", list(words)),
    }
    variables: dict[str, Variable] = {
        "clean": (("prompt",), 6 + rng.normal(size=n), "logits"),
        "corrupted": (("prompt",), -6 + rng.normal(size=n), "logits"),
    }

    def effects(*shape: int) -> np.ndarray[Any, Any]:
        values = rng.normal(size=(2, n, *shape)) * 0.04
        values[1] += 1
        return values

    def plant(values: np.ndarray[Any, Any], at: tuple[Any, ...], size: float) -> None:
        spread = rng.normal(size=n) * 0.08
        values[(0, slice(None), *at)] += size + spread
        values[(1, slice(None), *at)] -= size * 0.9 + spread

    def add(name: str, dims: tuple[str, ...], values: np.ndarray[Any, Any]) -> None:
        where = ("direction", "prompt", "layer", *dims)
        variables[f"recovered_{name}"] = (where, values, "fraction of the gap")
        variables[f"patched_{name}"] = (where, values * 12 - 6, "logits")

    for site in ("resid_pre", "attn_out", "mlp_out"):
        values = effects(layers, len(ROLES))
        for layer in range(layers):
            early = 1 - layer / max(layers - 1, 1)
            plant(values, (layer, 0), (early if site == "resid_pre" else 0.05))
            plant(values, (layer, 1), 0.6 * (site == "resid_pre" and layer == 2))
            plant(values, (layer, 5), (1 - early) * (1.0 if site != "mlp_out" else 0.2))
        add(site, ("role",), values)
    for site in ("z", "q", "k", "v", "pattern"):
        axis = "kv_head" if site in "kv" and spec.grouped else "head"
        values = effects(layers, spec.n_kv_heads if axis == "kv_head" else heads)
        share = {"z": 1.0, "v": 0.9, "pattern": 0.4, "k": 0.2, "q": 0.3}[site]
        group = spec.n_heads // spec.n_kv_heads if axis == "kv_head" else 1
        for (layer, head), size in ((MOVER, 0.7), (READER, 0.5)):
            plant(values, (layer, head // group), size * share)
        add(site, (axis,), values)
    by_role = effects(layers, heads, len(ROLES))
    plant(by_role, (*MOVER, 1), 0.65)
    plant(by_role, (*READER, 5), 0.5)
    add("z_role", ("head", "role"), by_role)
    by_position = effects(layers, len(words))
    plant(by_position, (0, 5), 1.0)
    plant(by_position, (layers - 1, len(words) - 1), 1.0)
    add("resid_pre_position", ("position",), by_position)
    return _dataset(
        spec,
        "Activation patching",
        "Which activations carry the colour?",
        "0 is corrupted, 1 is clean.",
        variables,
        coords,
        minimum_gap=0.5,
        n_small_gap=0,
    )


def head_attribution(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    n, layers, heads = spec.n_prompts, spec.n_layers, spec.n_heads
    names = [
        "embed",
        "pos_embed",
        *(head_label(i, j) for i in range(layers) for j in range(heads)),
        *(f"MLP{i}" for i in range(layers)),
        "bias",
    ]
    kinds = ["embed", "pos_embed", *["head"] * (layers * heads), *["mlp"] * layers, "bias"]
    layer_of = [-1, -1, *(i for i in range(layers) for _ in range(heads)), *range(layers), -1]
    head_of = [-1, -1, *(j for _ in range(layers) for j in range(heads)), *[-1] * layers, -1]
    contribution = rng.normal(size=(n, len(names))) * 0.15
    contribution[:, names.index(head_label(*READER))] += 4.2
    contribution[:, names.index(head_label(*MOVER))] += 0.4
    contribution[:, names.index("MLP2")] += 1.1
    contribution[:, names.index("MLP0")] -= 0.6
    total = contribution.sum(axis=1)
    edges = ["noun<-color", "answer<-noun", "answer<-color"]
    attention = rng.beta(0.6, 9.0, size=(n, len(edges), layers, heads))
    attention[:, 0, MOVER[0], MOVER[1]] = rng.beta(40, 6, size=n)
    attention[:, 1, READER[0], READER[1]] = rng.beta(30, 10, size=n)
    effect = rng.normal(size=(3, n, layers, heads)) * 0.2
    for kind, factor in enumerate((1.2, 1.0, 0.9)):
        effect[kind, :, MOVER[0], MOVER[1]] -= 3.0 * factor
        effect[kind, :, READER[0], READER[1]] -= 4.5 * factor
    effect[0, :, 0, 0] -= 2.0
    variables: dict[str, Variable] = {
        "contribution": (("prompt", "component"), contribution, "logits"),
        "total": (("prompt",), total, "logits"),
        "logit_difference": (("prompt",), total + rng.normal(size=n) * 1e-6, "logits"),
        "attention": (("prompt", "edge", "layer", "head"), attention, "share"),
        "ablated": (("ablation", "prompt", "layer", "head"), effect + total[None, :, None, None], "logits"),
        "ablation_effect": (("ablation", "prompt", "layer", "head"), effect, "logits"),
    }
    coords = {
        "component": names,
        "component_kind": ("component", kinds),
        "component_layer": ("component", layer_of),
        "component_head": ("component", head_of),
        "edge": edges,
        "ablation": ["zero", "mean", "resample"],
        "layer": list(range(layers)),
        "head": list(range(heads)),
    }
    return _dataset(
        spec,
        "Head attribution",
        "Which heads write the answer?",
        "Positive pushes towards the correct answer.",
        variables,
        coords,
    )


def verdict(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    heads = [head_label(i, j) for i in range(spec.n_layers) for j in range(spec.n_heads)]
    mover, reader = heads.index(head_label(*MOVER)), heads.index(head_label(*READER))
    labels = ["none"] * len(heads)
    labels[mover], labels[reader] = "mover", "reader"
    variables: dict[str, Variable] = {}

    def noisy(large: Mapping[int, float]) -> np.ndarray[Any, Any]:
        values = rng.normal(size=len(heads)) * 0.03
        for index, size in large.items():
            values[index] += size
        return values

    def add(name: str, units: str, values: np.ndarray[Any, Any], *dims: str) -> None:
        variables[name] = ((*dims, "head_label"), values, units)
        both = np.stack([values - 0.05, values + 0.05], axis=-1)
        variables[f"{name}_interval"] = ((*dims, "head_label", "ci_bound"), both, units)

    add("attention", "share", noisy({mover: 0.86}))
    for role, head, enough, needed in (("noun", mover, 0.65, 0.6), ("answer", reader, 0.5, 0.45)):
        both = np.stack([noisy({head: enough}), 1 - noisy({head: needed})])
        add(f"recovered_z_{role}", "fraction", both, "direction")
    add("contribution", "logits", noisy({reader: 4.2, mover: 0.4}))
    add("ablation_effect", "logits", np.stack([noisy({reader: -4.5, mover: -3.0})]), "ablation")
    variables["label"] = (("head_label",), labels, "")
    words = ["agree: denoising, noising, direct contribution" if label != "none" else "" for label in labels]
    at = {"mover": "noun", "reader": "answer", "none": ""}
    variables["acts_at"] = (("head_label",), [at[label] for label in labels], "")
    variables["agreement"] = (("head_label",), words, "")
    answer = (
        "L1H2 reads the colour from the noun (attention 0.86) and carries it there: patching its output at the noun "
        "restores 65% of the gap between clean and corrupted. L2H1 fetches it at the end of the question and writes "
        "4.2 of the 6.1 logits by which the correct colour wins."
    )
    if not spec.gate_passed:
        answer = "The model does not bind colours to nouns on rung two. There is nothing to explain."
    gate = "passed" if spec.gate_passed else "failed"
    coords = {"head_label": heads, "ci_bound": ["lower", "upper"]}
    coords |= {"direction": ["denoising", "noising"], "ablation": ["mean"]}
    named = {"color": "the colour", "noun": "the noun", "asked": "the asked noun"}
    vocabulary = Vocabulary("color", "noun", ("answer",), (), ("color_other", "noun_other"), {"en": named})
    return _dataset(
        spec,
        "Verdict",
        "How does the colour reach its noun?",
        "One row per head.",
        variables,
        coords,
        answer=answer,
        gate=gate,
        source_role="color",
        target_role="noun",
        meeting="noun",
        vocabulary=vocabulary.as_json(),
    )


def approximation_audit(spec: RunSpec, rng: np.random.Generator) -> xr.Dataset:
    names = ["z, gradient", "q, gradient", "edges, EAP"]
    n, held = 6, [6, 6, 4]
    exact = rng.normal(size=(3, n))
    estimated = exact * np.array([[0.9], [-0.2], [0.7]]) + rng.normal(size=(3, n)) * 0.05
    for row, count in enumerate(held):
        exact[row, count:] = estimated[row, count:] = np.nan
    _, nouns = _words(spec)
    cells = [[f"L{row}H{j} at {nouns[j % len(nouns)]}" if j < held[row] else "" for j in range(n)] for row in range(3)]
    each, both = ("approximation",), ("approximation", "audited")
    share, bounds = "fraction", (*each, "ci_bound")
    variables: dict[str, Variable] = {
        "use": (each, ["numbers", "nothing", "ranking"], ""),
        "reason": (each, ["", "Pearson -0.40 is below 0.8", "they are about 1.43 times too small (slope 0.7)"], ""),
        "trusted": (each, [1, 0, 0], ""),
        "slope": (each, [0.9, -0.2, 0.7], ""),
        "slope_interval": (bounds, [[0.88, 0.93], [-0.3, 0.1], [0.65, 0.76]], ""),
        "largest_effect": (each, [1.9, 1.4, 2.2], "logits"),
        "median_error": (each, [0.03, 0.8, 0.21], share),
        "largest_error": (each, [0.12, 1.3, 0.31], share),
        "n_large": (each, [4, 5, 3], ""),
        "sign_errors": (each, [0, 4, 0], ""),
        "n_look_large": (each, [4, 2, 3], ""),
        "false_alarms": (each, [0, 1, 0], ""),
        "false_alarm_rate": (each, [0.0, 0.5, 0.0], share),
        "false_alarm_interval": (bounds, [[0.0, 0.49], [0.09, 0.91], [0.0, 0.56]], share),
        "missed": (each, [0, 1, 0], ""),
        "missed_rate": (each, [0.0, 0.25, 0.0], share),
        "missed_interval": (bounds, [[0.0, 0.3], [0.1, 0.6], [0.0, 0.4]], share),
        "missed_share": (each, [0.0, 0.4, 0.0], share),
        "pearson": (each, [0.99, -0.4, 0.95], ""),
        "spearman": (each, [0.97, -0.3, np.nan], ""),
        "rank_agreement": (each, [1.0, -0.5, 0.9], ""),
        "top_k_recall": (each, [1.0, 0.5, 1.0], share),
        "n_audited": (each, held, ""),
        "n_cells": (each, [12, 12, 90], ""),
        "cell": (both, cells, ""),
        "estimated": (both, estimated, "logits"),
        "exact": (both, exact, "logits"),
        "looked_largest": (both, (np.arange(n) < 2) * np.ones((3, 1)), ""),
    }
    coords = {"approximation": names, "audited": list(range(n)), "ci_bound": ["lower", "upper"]}
    return _dataset(
        spec,
        "Gradient approximations held to exact patching",
        "Where can a gradient stand in for patching?",
        "Each mark is one patch; on the diagonal the approximation is right.",
        variables,
        coords,
        direction="denoising",
        metric="logit_difference",
        large=0.2,
        minimum_agreement=0.8,
        maximum_factor=1.25,
        maximum_median_error=0.1,
        maximum_error=0.25,
        maximum_wrong=0.1,
        left_out="none",
    )


def _manifest(spec: RunSpec) -> dict[str, Any]:
    return {
        "status": "running",
        "command": "interp run color-noun --model mini --out reports/color-noun",
        "created_at": "2026-11-22T12:00:00Z",
        "versions": {"python": "3.11.7", "interp": "0.1.0", "torch": "2.13.0"},
        "machine": {"platform": "Linux x86_64", "cpu_count": 2},
        "model": {"name": "mini", "weights_sha256": "a" * 64, "dtype": "float32"},
        "study": "color-noun",
        "n": spec.n_prompts,
        "seed": spec.seed,
        "main_rung": "two",
        "explained_rung": "two" if spec.gate_passed else None,
        "skipped_rungs": {},
        "drops": [
            {
                "rung": "three",
                "index": 7,
                "reason": "clean has 31 tokens and corrupted 32",
                "clean_text": "The <b> is violet.",
            },
            {
                "rung": "three",
                "index": 9,
                "reason": "clean has 31 tokens and corrupted 32",
                "clean_text": "The cat is violet.",
            },
        ],
        "timings": {"load": 1.2, "behavior": 0.8, "activation_patching": 21.4},
        **spec.manifest,
    }
