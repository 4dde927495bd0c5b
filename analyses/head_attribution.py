"""Which heads write the answer, what they look at, and what is lost without them.

Three readings of every head: direct logit attribution (what it adds to the logit difference by the direct path),
attention between roles (where it looks), and ablation (what the answer loses when its output is removed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from interp import results
from interp._arguments import check_pairs
from interp.errors import InterpError, UnaskableError, unknown_name
from interp.heads.direct import logit_direction
from interp.interventions import ABLATIONS, AblationKind, parse_edge
from interp.prompts import PromptPairs
from interp.prompts.template import ANSWER
from interp.prompts.tokens import Prompts, extend
from interp.prompts.vocabulary import Vocabulary
from interp.results import Variable
from interp.run import capture, token_mask
from interp.sites import head_label
from interp.sweeps import Ablation, Listener, Plan, Progress, ablation_sweep, costly, listener, plan, plans_of, score

if TYPE_CHECKING:
    from interp.model import HookedTransformer


BY_DEFAULT: tuple[AblationKind, ...] = ("zero", "mean", "resample")
"""The ablations that are made unless others are asked for."""
SPARED = ("zero",)
"""Those that are left out where a run is costly: no prompt makes a head write nothing, so zero misleads most."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Allowed gap between a logit difference and its contributions, as a share of the contributions' absolute sum."""


def run(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    ablations: Sequence[AblationKind] | None = None,
    edges: Sequence[str] | None = None,
    max_prompts: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Attribute the clean run's logit difference to heads and other components.

    Everything is about the clean prompts and about logit(correct) - logit(incorrect) of one token. For whole answers
    (policy ``sum_logprob``) that is the first token in which the two answers differ, the tokens they share being
    appended to the prompt; the attribute ``readout`` says so.

    Args:
        model: the model.
        pairs: clean and corrupted prompts with their answers.
        ablations: which of ``zero``, ``zero_raw``, ``mean``, ``resample`` to make (``interp.interventions.Ablate``, of
            one head's ``z`` at all tokens); None is ``BY_DEFAULT``, without ``zero`` where one run of one prompt takes
            over 1e9 operations; an empty list makes none.
        edges: destination<-source, such as ``"noun<-color"``; None is those of ``edges_of`` the pairs' vocabulary, or,
            where there are none, every ordered pair of roles.
        max_prompts: use only that many prompts, spread evenly over the set; None is all.
        seed: of the resample ablation's donors.
        progress: True for a bar, or called with rows done and rows in all; a row is one prompt with one head ablated.

    Returns:
        ``contribution`` (prompt, component), logits: a component's output at the answer position through the final
        norm with its scale frozen at this run's value, dotted with W_U[correct] - W_U[incorrect]. Components: embed,
        pos_embed (learned positions only), every head, every MLP, and ``bias`` (attention output biases, final norm's
        bias, unembedding bias). They sum to ``logit_difference`` (prompt); ``total`` (prompt) is their sum.
        ``attention`` (prompt, edge, layer, head), a share in [0, 1]: weight from the destination role's last token to
        all tokens of the source role; NaN where the source ends after the destination and cannot be seen.
        ``ablated`` and ``ablation_effect`` (ablation, prompt, layer, head), logits: the logit difference without the
        head, and that minus the clean one (negative: the head helps). ``resample`` is NaN for a prompt that has no
        other of its length, and ``mean`` where all prompts are the same: there is nothing to ablate with.
        ``role_position`` (prompt, role): the last token of each role.

    Raises:
        InterpError: contributions that do not sum to the logit difference, an unknown ablation or role, a malformed
            edge, or pairs from ``expand_answers``.

    >>> from analyses import head_attribution
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> found = head_attribution.run(model, pairs, ablations=[])
    >>> bool((abs(found.contribution.sum("component") - found.logit_difference) < 1e-3).all())
    True
    """
    check_pairs(model, pairs)
    kinds = _kinds(model, pairs, ablations)
    pairs = pairs.spread(max_prompts)
    scored = _first_differing(pairs)
    wanted = _edges(scored, edges)
    parts = _contributions(model, scored)
    clean = score(model, scored)
    _check_sum(model, parts.values.sum(axis=1), clean, np.abs(parts.values).sum(axis=1))
    variables = {
        "contribution": Variable(
            ("prompt", "component"), parts.values, "logits", "direct contribution to the logit difference"
        ),
        "total": Variable(("prompt",), parts.values.sum(axis=1), "logits", "sum of all contributions"),
        "logit_difference": Variable(("prompt",), clean, "logits", "logit(correct) - logit(incorrect), clean run"),
        "role_position": Variable(
            ("prompt", "role"), _role_positions(scored.clean), "tokens", "position of the role's last token"
        ),
    }
    coords: dict[str, Any] = {
        "prompt": np.arange(len(pairs)),
        "component": list(parts.labels),
        "component_kind": ("component", list(parts.kinds)),
        "component_layer": ("component", list(parts.layers)),
        "component_head": ("component", list(parts.heads)),
        "role": list(scored.roles),
        "layer": np.arange(model.cfg.n_layers),
        "head": np.arange(model.cfg.n_heads),
    }
    if wanted:
        coords["edge"] = [f"{dest}<-{src}" for dest, src in wanted]
        variables["attention"] = Variable(
            ("prompt", "edge", "layer", "head"), _attention(model, scored.clean, wanted), "share",
            "attention weight from the destination role to the source role",
        )  # fmt: skip
    if kinds:
        coords["ablation"] = list(kinds)
        dims = ("ablation", "prompt", "layer", "head")
        ablated = _ablated(model, scored, kinds, seed, listener(progress))
        effect = ablated - clean[:, None, None]
        variables["ablated"] = Variable(dims, ablated, "logits", "logit difference with one head ablated")
        variables["ablation_effect"] = Variable(dims, effect, "logits", "ablated - clean logit difference")
    whole = pairs.answer_policy == "sum_logprob"
    return results.build(
        variables,
        coords=coords,
        title="Head attribution",
        question="Which heads write the answer, what do they look at, and what is lost without them?",
        reading="contribution: positive pushes towards the correct answer by the direct path; all sum to the logit "
        "difference. ablation_effect: negative means the head helps. attention: share of the destination's attention.",
        source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (direct attribution); "
        "Wang et al. 2022, arXiv 2211.00593; Zhang and Nanda 2023, arXiv 2309.16042 (ablation)",
        of=(model, pairs),
        seed=seed,
        extra={
            "metric": "logit_difference",
            "readout": "first token in which the whole answers differ" if whole else "scored token",
            "largest_sum_error": float(np.abs(parts.values.sum(axis=1) - clean).max()),
        },
    )


# ---- what was asked for ----


@plans_of(run)
def planned(
    model: HookedTransformer,
    pairs: PromptPairs,
    ablations: Sequence[AblationKind] | None,
    max_prompts: int | None,
    seed: int,
) -> list[Plan]:
    """The plans of the ablations that ``run`` makes with the same options. Nothing is run.

    >>> from analyses import head_attribution
    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> [plan.rows_in_all for plan in head_attribution.planned(model, pairs, ablations=["zero"])]  # 2 prompts, 16 heads
    [32]
    """
    pairs = pairs.spread(max_prompts)
    kinds = _kinds(model, pairs, ablations)
    found = ((kind, _with_reference(pairs.clean, kind)) for kind in kinds)
    return [plan(model, pairs.select(rows), Ablation("z", kind, seed=seed)) for kind, rows in found if len(rows)]


def _kinds(
    model: HookedTransformer, pairs: PromptPairs, ablations: Sequence[AblationKind] | None
) -> tuple[AblationKind, ...]:
    """The ablations that are asked for, or the usual ones, in the order in which results have them."""
    if ablations is None:
        spared = SPARED if costly(model, pairs) else ()
        ablations = [kind for kind in BY_DEFAULT if kind not in spared]
    names = [ablations] if isinstance(ablations, str) else list(ablations)
    for name in names:
        if name not in ABLATIONS:
            raise unknown_name("ablation", name, ABLATIONS)
    return tuple(kind for kind in ABLATIONS if kind in names)


def _first_differing(pairs: PromptPairs) -> PromptPairs:
    """The same pairs, scored by one token: whole answers by the first in which they differ."""
    if pairs.continuation:
        raise InterpError("These pairs come from expand_answers. Give the pairs before it.")
    if pairs.answer_policy != "sum_logprob":
        return pairs
    both = list(zip(pairs.correct_tokens, pairs.incorrect_tokens, strict=True))
    shared = [next(k for k, (a, b) in enumerate(zip(*answers, strict=False)) if a != b) for answers in both]
    lead = [right[:k] for (right, _), k in zip(both, shared, strict=True)]
    position = np.asarray(pairs.answer_position) + shared
    role = {ANSWER: np.stack([position, position + 1], axis=1)}
    clean, corrupted = (extend(prompts, lead) for prompts in (pairs.clean, pairs.corrupted))
    return replace(
        pairs,
        clean=clean.with_roles({**clean.roles, **role}),
        corrupted=corrupted.with_roles({**corrupted.roles, **role}),
        correct=np.array([right[k] for (right, _), k in zip(both, shared, strict=True)]),
        incorrect=np.array([wrong[k] for (_, wrong), k in zip(both, shared, strict=True)]),
        answer_position=position,
        answer_policy="first_differing",
    )


def edges_of(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The edges that a question is about, as (destination, source): between its words, and from its readers.

    None where the source is not known, or where nothing stands between it and the answer position.
    """
    source, target, meeting = vocabulary.source, vocabulary.target, vocabulary.meeting or ()
    readers = vocabulary.readers or ()
    if source is None or target is None or target in readers:
        return []
    found = [(target, source), *((place, word) for place in meeting for word in (source, target)), (source, target)]
    found += [(reader, word) for reader in readers for word in (target, source)]
    found += [(readers[-1], place) for place in meeting]
    return [(dest, src) for dest, src in dict.fromkeys(found) if dest not in (src, f"after_{src}")]


def _edges(pairs: PromptPairs, edges: Sequence[str] | None) -> list[tuple[str, str]]:
    prompts = pairs.clean
    if edges is None:
        known = [edge for edge in edges_of(pairs.vocabulary) if set(edge) <= set(prompts.roles)]
        every = [(dest, src) for dest in prompts.roles for src in prompts.roles if dest != src]
        return [edge for edge in known or every if not _unseen(prompts, *edge).all()]
    chosen = [parse_edge(edge) for edge in dict.fromkeys([edges] if isinstance(edges, str) else edges)]
    for role in (role for edge in chosen for role in edge):
        if role not in prompts.roles:
            raise unknown_name("role", role, prompts.roles, " in edges")
    return chosen


def _unseen(prompts: Prompts, dest: str, src: str) -> np.ndarray:
    """Per prompt, whether some token of the source comes after the destination's last."""
    return np.asarray(prompts.role_positions(src) > prompts.role_positions(dest))


def _role_positions(prompts: Prompts) -> Int[np.ndarray, "prompt role"]:
    return np.stack([prompts.role_positions(role) for role in prompts.roles], axis=1)


# ---- direct logit attribution ----


@dataclass(frozen=True)
class Contributions:
    """Contributions [prompt, component] in float64, and what each component is (-1: no layer or head)."""

    values: Float[np.ndarray, "prompt component"]
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]


def _contributions(model: HookedTransformer, pairs: PromptPairs) -> Contributions:
    """Every component's output at the answer position, along the direction in which the logit difference grows."""
    embeds = [name for name in ("embed", "pos_embed") if model.has_site(name)]
    blocks = [name for name in ("mlp_out",) if model.has_site(name)]  # some models have attention only
    found = capture(model, pairs.clean, [*embeds, "z", *blocks, "resid_post"], at=[ANSWER])
    at_answer = {str(name): torch.from_numpy(array.sel(role=ANSWER).values) for name, array in found.data_vars.items()}
    correct, incorrect = (torch.from_numpy(np.array(ids)) for ids in (pairs.correct, pairs.incorrect))
    direction, constant = logit_direction(model, at_answer["resid_post"][:, -1], correct, incorrect)
    cfg = model.cfg
    columns = {name: ("embed" if name == "embed" else "pos_embed", -1, -1) for name in embeds}
    values = [(at_answer[name].double() * direction).sum(-1, keepdim=True) for name in embeds]
    for layer in range(cfg.n_layers):
        written = torch.einsum("hdm,pm->phd", model.W_O(layer).detach().double().cpu(), direction)
        values.append((at_answer["z"][:, layer].double() * written).sum(-1))
        constant = constant + direction @ model.b_O(layer).detach().double().cpu()
        columns |= {head_label(layer, head): ("head", layer, head) for head in range(cfg.n_heads)}
    for name in blocks:
        values.append(torch.einsum("plm,pm->pl", at_answer[name].double(), direction))
        columns |= {f"MLP{layer}": ("mlp", layer, -1) for layer in range(cfg.n_layers)}
    values.append(constant.unsqueeze(1))
    columns["bias"] = ("bias", -1, -1)
    kinds, layers, heads = zip(*columns.values(), strict=True)
    return Contributions(torch.cat(values, dim=1).numpy(), tuple(columns), kinds, layers, heads)


def _check_sum(
    model: HookedTransformer,
    total: Float[np.ndarray, " prompt"],
    expected: Float[np.ndarray, " prompt"],
    size: Float[np.ndarray, " prompt"],
) -> None:
    """Refuse an attribution that is not one.

    Raises:
        UnaskableError: names the prompt that is furthest off and the likely cause.
    """
    share = np.abs(total - expected) / np.maximum(size, 1e-6)
    allowed = TOLERANCE.get(model.dtype, 5e-2)
    if bool((share <= allowed).all()):
        return
    i = int(np.nan_to_num(share, nan=np.inf).argmax())
    raise UnaskableError(
        f"Contributions sum to {total[i]:.4g} but logit difference is {expected[i]:.4g} (prompt {i}, {model.name}). "
        f"{_cause(model)}"
    )


def _cause(model: HookedTransformer) -> str:
    cap = float(getattr(model.bridge.cfg, "output_logits_soft_cap", None) or -1.0)
    if cap > 0:
        return f"Its logits are soft-capped at {cap:g}, so they are no sum of parts: use ablation and patching instead."
    if model.dtype in (torch.float16, torch.bfloat16):
        return f"Its dtype is {str(model.dtype).removeprefix('torch.')}: load it with dtype='float32'."
    if model.numerics == "raw":
        return "Its numerics are 'raw': load it with numerics='compatibility', which folds the norms."
    return (
        f"{model.cfg.architecture} seems to scale or normalise what a block adds, or its logits, outside the sites "
        "read here: use ablation and patching instead."
    )


# ---- attention ----


def _attention(
    model: HookedTransformer, prompts: Prompts, edges: Sequence[tuple[str, str]]
) -> Float[np.ndarray, "prompt edge layer head"]:
    dests = list(dict.fromkeys(dest for dest, _ in edges))
    pattern = capture(model, prompts, ["pattern"], at=dests)["pattern"]
    weights = np.nan_to_num(pattern.transpose("role", "prompt", "layer", "head", "src_position").values)
    out = np.empty((len(prompts), len(edges), *weights.shape[2:4]), weights.dtype)
    for e, (dest, src) in enumerate(edges):
        mask = token_mask(prompts, src).astype(weights.dtype)
        out[:, e] = np.einsum("plhs,ps->plh", weights[dests.index(dest)], mask)
        out[_unseen(prompts, dest, src), e] = np.nan
    return out


# ---- ablation ----


def _ablated(
    model: HookedTransformer,
    pairs: PromptPairs,
    kinds: Sequence[AblationKind],
    seed: int,
    progress: Listener | None,
) -> Float[np.ndarray, "ablation prompt layer head"]:
    """The logit difference with one head's ``z`` ablated at all tokens."""
    cfg = model.cfg
    out = np.full((len(kinds), len(pairs), cfg.n_layers, cfg.n_heads), np.nan)
    for k, kind in enumerate(kinds):
        rows = _with_reference(pairs.clean, kind)
        if not len(rows):
            continue
        before = k * out[0].size

        def told(done: int, total: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, out.size)

        out[k, rows] = ablation_sweep(model, pairs.select(rows), "z", kind, seed=seed, progress=told)["ablated"].values
    if progress is not None:
        progress(out.size, out.size)
    return out


def _with_reference(prompts: Prompts, kind: AblationKind) -> Int[np.ndarray, " row"]:
    """Prompts that can be ablated: a resample needs another of its length, and a mean prompts that vary."""
    rows = [tuple(row) for row in prompts.rows()]
    match kind:
        case "zero" | "zero_raw":
            return np.arange(len(rows))
        case "mean":
            return np.arange(len(rows) if len(set(rows)) > 1 else 0)
        case "resample":
            different = Counter(len(row) for row in set(rows))
            return np.flatnonzero([different[len(row)] > 1 for row in rows])
        case _:
            raise InterpError(f"Which prompts can be ablated by '{kind}' is not written in analyses.head_attribution.")
