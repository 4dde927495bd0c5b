"""Exact patch sweeps: for every layer and position, role or head, what one replaced activation does to the answer.

A cell is exact: the model is really run with that one change. What the change cannot reach is not run again: a sweep
resumes at the patched layer from the stored residual stream, rows whose two activations are equal (before the first
token that differs, for instance) are 0 effect without a run, cells of one layer share batches, and only the answer
position is unembedded. ``tests/test_sweep.py`` holds it to the plain loop over TransformerLens hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import metrics, results, run, sites
from interp.errors import InterpError
from interp.prompts import PromptPairs
from interp.results import Variable
from interp.tokens import Prompts

if TYPE_CHECKING:
    from interp.model import Hook, HookedTransformer

log = logging.getLogger(__name__)

Direction: TypeAlias = Literal["denoising", "noising"]
Axis: TypeAlias = Literal["position", "role"]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with rows done and rows in all."""

MINIMUM_GAP = {"logit_difference": 0.1, "log_probability": 0.05, "probability": 0.01, "rank": 1.0}
"""Smallest clean-corrupted gap, in the metric's units, that is worth normalising by."""

NOT_PATCHED = frozenset({"embed", "pos_embed", "scores", "result", "rot_q", "rot_k"})
"""Sites that are read but not swept: another says the same (``resid_pre`` for ``embed``, ``z`` for ``result``)."""

READ_BY_LATER_TOKENS = frozenset({"resid_pre", "k", "v"})
"""Sites whose token is read by other tokens in the same layer's attention."""

STORED_BYTES = 512 * 2**20
"""Activations that a sweep keeps at a time, roughly."""


@dataclass(frozen=True)
class Readout:
    """How a number is read off the logits: positions, answer ids, and the metric.

    Attributes:
        positions: [prompt, answer] positions whose logits are scored.
        correct: [prompt, answer] ids.
        incorrect: [prompt, answer] ids.
        present: which answers of a prompt count (answers may differ in length).
        metric: name; summed over a prompt's answers.
    """

    positions: Int[Tensor, "prompt answer"]
    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt answer"]
    present: Bool[Tensor, "prompt answer"]
    metric: str

    @classmethod
    def of(cls, pairs: PromptPairs, metric: str) -> Readout:
        """The readout of a set of pairs; expanded pairs are scored over their whole continuation."""
        metrics.metric(metric)
        if not pairs.continuation:
            at, correct, incorrect = (
                torch.tensor(np.asarray(a).reshape(-1, 1), dtype=torch.long)
                for a in (pairs.answer_position, pairs.correct, pairs.incorrect)
            )
            return cls(at, correct, incorrect, torch.ones_like(at, dtype=torch.bool), metric)
        longest = max(len(tokens) for tokens in pairs.continuation)
        steps = torch.arange(longest)
        lengths = torch.tensor([len(tokens) for tokens in pairs.continuation]).unsqueeze(1)
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in pairs.continuation])
        present = steps < lengths
        start = torch.tensor(np.asarray(pairs.answer_position)).unsqueeze(1)
        positions = torch.where(present, start + steps, start)
        return cls(positions, ids, ids, present, metric)

    def rows(self, index: Int[Tensor, " row"]) -> Readout:
        """The readout of chosen prompts."""
        return Readout(
            self.positions[index],
            self.correct[index],
            self.incorrect[index],
            self.present[index],
            self.metric,
        )

    def __call__(self, logits: Float[Tensor, "prompt answer vocab"]) -> Float[Tensor, " prompt"]:
        """The metric per prompt, on the CPU in float64."""
        n, answers, _ = logits.shape
        flat = metrics.metric(self.metric)(
            logits.reshape(n * answers, -1),
            self.correct.reshape(-1).to(logits.device),
            self.incorrect.reshape(-1).to(logits.device),
        )
        return (flat.reshape(n, answers).cpu().double() * self.present).sum(dim=1)


def score(
    model: HookedTransformer,
    pairs: PromptPairs,
    which: Literal["clean", "corrupted"] = "clean",
    metric: str = "logit_difference",
    *,
    interventions: Sequence[Any] = (),
) -> Float[np.ndarray, " prompt"]:
    """The metric per prompt of the clean or the corrupted run, always about the *clean* prompt's answers.

    With the policy ``sum_logprob``, ``logit_difference`` is the difference of the summed log-probabilities of the two
    whole answers (nats), which for one-token answers equals the logit difference.
    """
    _check_which(which)
    if _whole_answers(pairs, metric):
        right, wrong = pairs.expand_answers()
        parts = [score(model, part, which, "log_probability", interventions=interventions) for part in (right, wrong)]
        return np.asarray(parts[0] - parts[1] if metric == "logit_difference" else parts[0])
    prompts = getattr(pairs, which)
    readout = Readout.of(pairs, metric)
    logits = run.logits_at(model, prompts, readout.positions.numpy(), interventions=interventions)
    return readout(logits).numpy()


def _whole_answers(pairs: PromptPairs, metric: str) -> bool:
    if pairs.answer_policy != "sum_logprob" or pairs.continuation:
        return False
    if metric not in ("logit_difference", "log_probability"):
        raise InterpError(f"Metric '{metric}' is not defined for whole answers (sum_logprob). Use 'logit_difference'.")
    return True


def _check_which(which: str) -> None:
    if which not in ("clean", "corrupted"):
        raise InterpError(f"Unknown run '{which}'. Choose 'clean' or 'corrupted'.")


@dataclass(frozen=True)
class Cells:
    """The cells of one layer: which heads and which tokens each replaces.

    Attributes:
        heads: [cell, head] or None at sites without heads.
        tokens: [cell, prompt, position].
        shape: sizes of the cell axes, in the order of ``dims``.
        dims: names of the cell axes.
        coords: labels of the cell axes.
    """

    heads: Bool[Tensor, "cell head"] | None
    tokens: Bool[Tensor, "cell prompt position"]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    coords: dict[str, list[Any]]


def sweep(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    direction: Direction = "denoising",
    metric: str = "logit_difference",
    *,
    axis: Axis | None = None,
    roles: Sequence[str] | None = None,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | int | None = None,
    minimum_gap: float | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Patch every cell of a site and report the metric after each.

    Denoising runs the corrupted prompt and puts in the clean activation (is it sufficient?); noising runs the clean
    prompt and puts in the corrupted one (is it needed?). Heimersheim and Nanda 2024 (arXiv 2404.15255).

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        site: ``resid_pre resid_mid resid_post attn_out mlp_out mlp_post`` (cells: layer x position or role) or
            ``z q k v pattern`` (cells: layer x head, all positions at once unless roles or positions are given).
        direction: ``"denoising"`` or ``"noising"``.
        metric: name from ``interp.metrics``.
        axis: ``"position"`` or ``"role"``; None takes positions where all prompts line up, else roles.
        roles: only these roles (a role of several tokens is patched whole).
        positions: only these positions.
        layers: only these layers.
        minimum_gap: clean-corrupted gap below which ``recovered`` is NaN; default by metric.
        progress: called with rows done and rows in all.

    Returns:
        ``patched`` (prompt, layer, ...), ``clean`` and ``corrupted`` (prompt) in the metric's units, and ``recovered``
        = (patched - corrupted) / (clean - corrupted): 0 is corrupted behaviour, 1 is clean, in both directions.

    Raises:
        InterpError: an unknown site, direction, metric or role, or positions that mean different things in different
            prompts.
    """
    _check_direction(direction)
    if _whole_answers(pairs, metric):
        return _sweep_whole_answers(
            model, pairs, site, direction, metric, axis, roles, positions, layers, minimum_gap, progress
        )
    wanted = model.check_site(site)
    if site in NOT_PATCHED:
        raise InterpError(
            f"Site '{site}' is not swept: use resid_pre for embeddings, pattern for scores, z for result, q or k."
        )
    chosen = sites.check_layers(layers, model.cfg.n_layers)
    cells = _cells(model, pairs, wanted, axis, roles, positions)
    readout = Readout.of(pairs, metric)
    base, source = (pairs.corrupted, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupted)
    clean = score(model, pairs, "clean", metric)
    corrupted = score(model, pairs, "corrupted", metric)
    unpatched = corrupted if direction == "denoising" else clean
    patched, n_run = _execute(model, base, source, site, chosen, cells, readout, unpatched, progress)
    patched = patched.reshape(len(pairs), len(chosen), *cells.shape)
    return _labelled(
        model, pairs, patched, clean, corrupted, unpatched,
        site=site, direction=direction, metric=metric, cells=cells, layers=chosen, n_run=n_run,
        minimum_gap=MINIMUM_GAP[metric] if minimum_gap is None else minimum_gap,
    )  # fmt: skip


def _check_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        raise InterpError(f"Unknown direction '{direction}'. Choose 'denoising' or 'noising'.")


def _sweep_whole_answers(
    model: HookedTransformer, pairs: PromptPairs, site: str, direction: Direction, metric: str, axis: Any, roles: Any,
    positions: Any, layers: Any, minimum_gap: float | None, progress: Progress | None,
) -> xr.Dataset:  # fmt: skip
    """Both whole answers swept by their log-probability; the difference is the metric."""
    if axis == "position" or positions is not None:
        raise InterpError("With whole answers (sum_logprob) prompts end at different places: sweep by role.")
    names = list(roles or pairs.roles)
    options: dict[str, Any] = {"axis": axis or "role", "roles": names, "layers": layers, "progress": progress}
    if sites.site(site).has_heads and roles is None:
        options |= {"axis": None, "roles": None}
    right, wrong = (
        sweep(model, part, site, direction, "log_probability", **options) for part in pairs.expand_answers()
    )
    if metric == "log_probability":
        return right
    out = right.copy()
    for name in ("patched", "clean", "corrupted"):
        out[name] = (right[name] - wrong[name]).assign_attrs(right[name].attrs)
    gap = MINIMUM_GAP[metric] if minimum_gap is None else minimum_gap
    values = metrics.recovered(
        *(torch.from_numpy(out[name].values) for name in ("patched", "clean", "corrupted")), minimum_gap=gap
    )
    out["recovered"] = right["recovered"].copy(data=values.numpy())
    out.attrs |= {"metric": "difference of summed log-probabilities", "minimum_gap": gap}
    out.attrs |= {name: right.attrs[name] + wrong.attrs[name] for name in ("rows_run", "rows_in_all")}
    out.attrs["changed_something"] = max(right.attrs["changed_something"], wrong.attrs["changed_something"])
    out.attrs["n_small_gap"] = int((np.abs(out["clean"].values - out["corrupted"].values) < gap).sum())
    return out


# ---- what is to be patched ----


def _cells(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: sites.Site,
    axis: Axis | None,
    roles: Sequence[str] | None,
    positions: Sequence[int] | None,
) -> Cells:
    places = _places(pairs, site, axis, roles, positions)
    if not site.has_heads:
        assert places is not None
        dim, labels, masks = places
        return Cells(None, masks, (len(labels),), (dim,), {dim: labels})
    head_dim = next(dim for dim in model.dims(site.name) if dim in ("head", "kv_head"))
    n_heads = model.n_heads_of(site.name)
    one_hot = torch.eye(n_heads, dtype=torch.bool)
    if places is None:
        everywhere = torch.from_numpy(run.token_mask(pairs.clean, None))
        masks = everywhere.expand(n_heads, *everywhere.shape)
        return Cells(one_hot, masks, (n_heads,), (head_dim,), {head_dim: list(range(n_heads))})
    dim, labels, masks = places
    return Cells(
        one_hot.repeat_interleave(len(labels), dim=0),
        masks.repeat(n_heads, 1, 1),
        (n_heads, len(labels)),
        (head_dim, dim),
        {head_dim: list(range(n_heads)), dim: labels},
    )


def _places(
    pairs: PromptPairs,
    site: sites.Site,
    axis: Axis | None,
    roles: Sequence[str] | None,
    positions: Sequence[int] | None,
) -> tuple[str, list[Any], Bool[Tensor, "place prompt position"]] | None:
    """The token axis of the cells: name, labels, masks; None when a head site is patched at all tokens at once."""
    if axis not in (None, *get_args(Axis)):
        raise InterpError(f"Unknown axis '{axis}'. Choose 'position' or 'role'.")
    if roles is not None and positions is not None:
        raise InterpError("Give roles or positions, not both.")
    if axis is None:
        if roles is not None or positions is not None:
            axis = "role" if roles is not None else "position"
        elif site.has_heads:
            return None
        else:
            axis = "position" if pairs.aligned_positions else "role"
    prompts = pairs.clean
    if axis == "role":
        names = list(pairs.roles if roles is None else roles)
        if not names:
            raise InterpError("These pairs have no roles. Sweep by position, or name roles when you make the pairs.")
        return "role", names, torch.from_numpy(np.stack([run.token_mask(prompts, name) for name in names]))
    if not pairs.aligned_positions:
        a, b = _unaligned_example(prompts)
        raise InterpError(
            f"A position does not mean the same in every prompt: prompts {a} and {b} differ in "
            "length or in where their roles stand. Sweep by role."
        )
    chosen = list(range(prompts.ids.shape[1])) if positions is None else [int(p) for p in positions]
    masks = np.stack([run.token_mask(prompts, position) for position in chosen])
    return "position", [position % prompts.ids.shape[1] for position in chosen], torch.from_numpy(masks)


def _unaligned_example(prompts: Prompts) -> tuple[int, int]:
    """Two prompts that differ in length or in the place of a role."""
    for i in range(1, len(prompts)):
        same = prompts.lengths[i] == prompts.lengths[0]
        if not same or any((spans[i] != spans[0]).any() for spans in prompts.roles.values()):
            return 0, i
    return 0, 0


# ---- the executor ----


def _execute(
    model: HookedTransformer,
    base: Prompts,
    source: Prompts,
    site: str,
    layers: Sequence[int],
    cells: Cells,
    readout: Readout,
    unpatched: Float[np.ndarray, " prompt"],
    progress: Progress | None,
) -> tuple[Float[np.ndarray, "prompt layer cell"], int]:
    """The metric after every patch, and how many rows (one prompt with one patch) had to be run."""
    n_cells, layers = cells.tokens.shape[0], list(layers)
    out = np.repeat(unpatched[:, None, None], len(layers), axis=1).repeat(n_cells, axis=2)
    first = torch.from_numpy(_first_difference(base, source))
    done = n_run = 0
    total = len(layers) * n_cells * len(base)
    for group in _layer_groups(model, base, site, layers):
        stream = run.activations(model, base, "resid_pre", layers=group)
        own = stream if site == "resid_pre" else run.activations(model, base, site, layers=group)
        new = run.activations(model, source, site, layers=group)
        for layer in group:
            reaching = _reaching(model, site, layer, cells, readout)
            rows = _rows_to_run(site, cells, reaching, own[layer], new[layer], first)
            done += n_cells * len(base) - len(rows)
            for batch in _row_batches(model, rows, base.ids.shape[1]):
                prompt, cell = batch[:, 1], batch[:, 0]
                patch = new[layer][prompt]
                logits = _resume_patched(model, site, layer, stream[layer][prompt], patch, cells, prompt, cell, readout)
                out[prompt.numpy(), layers.index(layer), cell.numpy()] = readout.rows(prompt)(logits).numpy()
                done += len(batch)
                n_run += len(batch)
                if progress is not None:
                    progress(done, total)
            if progress is not None:
                progress(done, total)
    return out, n_run


def _layer_groups(
    model: HookedTransformer, prompts: Prompts, site: str, layers: Sequence[int]
) -> Iterator[Sequence[int]]:
    """Layers whose activations are read in one pass: as many as ``STORED_BYTES`` holds."""
    n, length = prompts.ids.shape
    width = model.cfg.n_heads * length if sites.site(site).is_pattern else max(model.cfg.d_model, model.cfg.d_mlp)
    size = int(max(1, STORED_BYTES // (4 * n * length * (model.cfg.d_model + 2 * width))))
    for start in range(0, len(layers), size):
        yield layers[start : start + size]


def _reaching(
    model: HookedTransformer, site: str, layer: int, cells: Cells, readout: Readout
) -> Bool[Tensor, "cell prompt position"]:
    """The patched tokens that can reach the answer: once the last layer's attention has read, only its own position."""
    if layer < model.cfg.n_layers - 1 or site in READ_BY_LATER_TOKENS:
        return cells.tokens
    at_answer = torch.zeros(cells.tokens.shape[1:], dtype=torch.bool)
    at_answer[torch.arange(len(readout.positions)).unsqueeze(1), readout.positions] = True
    return cells.tokens & at_answer


def _first_difference(base: Prompts, source: Prompts) -> Int[np.ndarray, " prompt"]:
    """First position whose token differs, per prompt; nothing before it can differ in any activation."""
    differs = (base.ids != source.ids) & (np.arange(base.ids.shape[1]) < base.lengths[:, None])
    first: np.ndarray = np.where(differs.any(axis=1), differs.argmax(axis=1), base.ids.shape[1])
    return first


def _rows_to_run(
    site: str,
    cells: Cells,
    tokens: Bool[Tensor, "cell prompt position"],
    own: Tensor,
    new: Tensor,
    first: Int[Tensor, " prompt"],
) -> Int[Tensor, "row two"]:
    """(cell, prompt) pairs whose patch changes something."""
    changed = own != new
    if sites.site(site).is_pattern:
        per_head = changed.any(dim=-1).transpose(1, 2)  # prompt position head
    elif cells.heads is not None:
        per_head = changed.any(dim=-1)  # prompt position head
    else:
        per_head = changed.any(dim=-1, keepdim=True)
    reachable = torch.arange(per_head.shape[1]).unsqueeze(0) >= first.unsqueeze(1)
    per_head = per_head.cpu() & reachable.unsqueeze(-1)
    heads = torch.ones((cells.tokens.shape[0], 1), dtype=torch.bool) if cells.heads is None else cells.heads
    hit = torch.einsum("cps,ch,psh->cp", tokens.float(), heads.float(), per_head.float()) > 0
    return hit.nonzero()


def _row_batches(
    model: HookedTransformer, rows: Int[Tensor, "row two"], length: int
) -> Iterator[Int[Tensor, "row two"]]:
    size = run.rows_per_batch(model, length)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _resume_patched(
    model: HookedTransformer,
    site: str,
    layer: int,
    stream: Float[Tensor, "row position d_model"],
    new: Tensor,
    cells: Cells,
    prompt: Int[Tensor, " row"],
    cell: Int[Tensor, " row"],
    readout: Readout,
) -> Float[Tensor, "row answer vocab"]:
    device = stream.device
    where = cells.tokens[cell, prompt].to(device)  # row position
    table = sites.site(site)
    if cells.heads is None:
        mask = where.reshape(*where.shape, 1)
    elif table.is_pattern:
        mask = cells.heads[cell].to(device)[:, :, None, None] & where[:, None, :, None]
    else:
        mask = cells.heads[cell].to(device)[:, None, :, None] & where[:, :, None, None]

    def edit(tensor: Tensor) -> Tensor:
        return torch.where(mask, new.to(tensor.dtype), tensor)

    at = readout.positions[prompt]
    if site == "resid_pre":
        return model.resume(edit(stream), layer, logits_at=at)
    hooks: list[Hook] = run.edit_hooks(model, site, layer, edit)
    return model.resume(stream, layer, logits_at=at, hooks=hooks)


# ---- the result ----


def _labelled(
    model: HookedTransformer,
    pairs: PromptPairs,
    patched: Float[np.ndarray, "prompt layer *cell"],
    clean: Float[np.ndarray, " prompt"],
    corrupted: Float[np.ndarray, " prompt"],
    unpatched: Float[np.ndarray, " prompt"],
    *,
    site: str,
    direction: str,
    metric: str,
    cells: Cells,
    layers: Sequence[int],
    n_run: int,
    minimum_gap: float,
) -> xr.Dataset:
    units = metrics.UNITS[metric]
    recovered = metrics.recovered(
        torch.from_numpy(patched),
        torch.from_numpy(clean),
        torch.from_numpy(corrupted),
        minimum_gap=minimum_gap,
    ).numpy()
    small = int((np.abs(clean - corrupted) < minimum_gap).sum())
    if small:
        log.warning(
            "%d of %d prompts have a clean-corrupted gap below %g %s; their 'recovered' is NaN.",
            small,
            len(pairs),
            minimum_gap,
            units,
        )
    changed = bool((patched != unpatched.reshape(-1, *(1,) * (patched.ndim - 1))).any())
    if not changed:
        log.warning("No patch of '%s' changed the metric at all: the two prompts have equal activations there.", site)
    dims = ("prompt", "layer", *cells.dims)
    coords: dict[str, Any] = {"prompt": np.arange(len(pairs)), "layer": list(layers), **cells.coords}
    if "position" in cells.dims and pairs.clean.tokens is not None:
        at = np.asarray(cells.coords["position"])
        coords["clean_token"] = ("position", np.array(pairs.clean.tokens[0])[at])
        coords["corrupted_token"] = ("position", np.array(pairs.corrupted.tokens[0])[at])  # type: ignore[index]
    return results.build(
        {
            "patched": Variable(dims, patched, units, f"{metric} after the patch"),
            "clean": Variable(("prompt",), clean, units, f"{metric} of the clean run"),
            "corrupted": Variable(("prompt",), corrupted, units, f"{metric} of the corrupted run"),
            "recovered": Variable(dims, recovered, "fraction", "(patched - corrupted) / (clean - corrupted)"),
        },
        coords=coords,
        title=f"{direction} sweep of {site}",
        question=f"Which {site} is {'sufficient for' if direction == 'denoising' else 'needed for'} the answer?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean; values outside are real; NaN: the gap is too small.",
        source="Heimersheim and Nanda 2024, arXiv 2404.15255; Zhang and Nanda 2023, arXiv 2309.16042",
        of=(model, pairs),
        seed=0,
        extra={
            "site": site,
            "direction": direction,
            "metric": metric,
            "minimum_gap": minimum_gap,
            "n_small_gap": small,
            "changed_something": int(changed),
            "rows_run": n_run,
            "rows_in_all": int(np.prod(patched.shape)),
        },
    )
