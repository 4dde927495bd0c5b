"""Interchange of a subspace between the two runs of each pair, and the search for the subspace that does it (DAS)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from interp import readouts, results, run
from interp._arguments import check_model, check_pairs
from interp.attribution.gradients import differentiating
from interp.errors import InterpError, whole_number
from interp.prompts import PromptPairs
from interp.prompts.places import At, token_mask
from interp.results import Variable
from interp.sites import check_layers, vector_site
from interp.subspaces.runs import Runs
from interp.subspaces.subspace import Subspace
from interp.sweeps import Direction, Meter, Progress, base_and_source, described
from interp.sweeps.patching import check_direction

if TYPE_CHECKING:
    from interp.model import HookedTransformer

STEPS = 30
"""Steps of DAS where no number is given."""
RATE = 0.05
"""Their learning rate (Adam)."""
LEAST_GAP = 0.1
"""Logits between the two runs of a pair, on average, below which distances are not enlarged any further."""

_NAMED = {"noising": "clean", "denoising": "corrupted"}
"""Direction -> the run that is edited."""


def interchange(
    model: HookedTransformer,
    pairs: PromptPairs,
    subspaces: Mapping[str, Subspace],
    *,
    site: str = "resid_pre",
    layer: int,
    at: At,
    direction: Direction = "noising",
) -> xr.Dataset:
    """Exchange the part of an activation that lies in a subspace for that of the pair's other run.

    Geiger et al. 2023 (arXiv 2303.02536). With the whole space it is activation patching (``interp.sweep``).

    Args:
        model: the model.
        pairs: clean and corrupted prompts.
        subspaces: name -> what is exchanged.
        site: a site with a vector per token; heads are laid side by side where the subspace is as wide as all of them.
        layer: its layer.
        at: roles (every token of the span) or positions.
        direction: ``"noising"``: the clean run gets the corrupted one's part; ``"denoising"``: the other way round.

    Returns:
        ``patched`` (prompt, subspace), ``clean`` and ``corrupted`` (prompt), in logits; ``recovered`` as in ``sweep``,
        0 is corrupted behaviour and 1 is clean; ``exchanged`` (prompt, subspace), whether the answer of the run that
        gave its part is now preferred, whose mean is the interchange accuracy.

    Raises:
        InterpError: an unknown site, layer, role or direction, or a subspace of another width.

    The whole stream at the last word before layer 3 makes the other answer:

    >>> from interp import HookedTransformer, subspaces, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
    >>> whole = {"all": subspaces.Subspace.spanned_by(np.eye(128), kind="whole space")}
    >>> subspaces.interchange(model, pairs, whole, layer=3, at="answer").exchanged.values.tolist()
    [[True], [True]]
    """
    runs, values = _prepared(model, pairs, site=site, layer=layer, at=at, direction=direction)
    shape = vector_site(site).shape(model.cfg.sizes)
    patched: Float[np.ndarray, "prompt subspace"] = np.empty((len(pairs), len(subspaces)))
    for column, one in enumerate(subspaces.values()):
        item = one.interchange(values, site=site, layer=layer, at=at)
        item.check(shape, layer)
        patched[:, column] = runs.measured(item)[0]
    clean, corrupted = (_unedited(model, pairs, which, site, layer, at) for which in ("clean", "corrupted"))
    metric, units = described(pairs, "logit_difference")
    gap = readouts.READOUTS["logit_difference"].minimum_gap
    recovered = readouts.recovered(*(torch.from_numpy(x) for x in (patched, clean, corrupted)), minimum_gap=gap)
    dims = ("prompt", "subspace")
    return results.build(
        {
            "patched": Variable(dims, patched, units, f"{metric} after the interchange"),
            "clean": Variable(("prompt",), clean, units, f"{metric} of the clean run"),
            "corrupted": Variable(("prompt",), corrupted, units, f"{metric} of the corrupted run"),
            "recovered": Variable(dims, recovered.numpy(), "fraction", "(patched - corrupted) / (clean - corrupted)"),
            "exchanged": Variable(dims, exchanged(patched, direction), "", "the other run's answer is preferred"),
        },
        coords={"prompt": np.arange(len(pairs)), "subspace": list(subspaces)},
        title="Interchange of a subspace",
        question="Does this part of the activation decide the answer?",
        reading="recovered: 0 is corrupted behaviour, 1 is clean; values outside are real; NaN: the gap is too small.",
        source="Geiger et al. 2023, arXiv 2303.02536",
        of=(model, pairs),
        seed=0,
        extra={"site": site, "layer": layer, "direction": direction, "metric": metric, "minimum_gap": gap},
        dims={"subspace": "subspace that is exchanged"},
    )


def exchanged(patched: Float[np.ndarray, "..."], direction: str) -> Bool[np.ndarray, "..."]:
    """Whether the answer of the run that gave its part is the preferred one, by the logit difference.

    >>> exchanged(np.array([-1.0, 2.0]), "noising").tolist()
    [True, False]
    """
    check_direction(direction)
    return np.asarray(patched < 0 if direction == "noising" else patched > 0)


@differentiating
def das(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    site: str = "resid_pre",
    layer: int,
    at: At,
    rank: int = 1,
    direction: Direction = "noising",
    wanted: Bool[np.ndarray, " prompt"] | None = None,
    steps: int = STEPS,
    rate: float = RATE,
    starts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Subspace:
    """Distributed alignment search: the subspace whose interchange makes the other run's answer on these pairs.

    Geiger et al. 2023 (arXiv 2303.02536): orthonormal directions (``torch``'s parametrisation) are trained by Adam. The
    loss is the mean squared distance of the logit difference from what it is to be, that of the other run, in shares of
    the mean gap. (The paper has the cross-entropy of the answer. That hardly falls any more once the answer is the
    preferred one, and so it can leave a direction out that other pairs need.) The search starts from the leading
    directions of the pairs' own differences, and the best step is kept. It fits the pairs it is given: test it on
    others (``interchange``), and against what it can fit of arbitrary answers (``wanted``) and in ``random_model``.

    Args:
        model: the model; its weights stay as they are.
        pairs: the pairs to fit.
        site: as in ``interchange``.
        layer: as in ``interchange``.
        at: as in ``interchange``.
        rank: how many directions.
        direction: as in ``interchange``.
        wanted: of each pair, whether the interchange is to change the answer; None: of all.
        steps: of Adam.
        rate: its learning rate.
        starts: how many searches: the first as said, the others from random directions. The one that ends with the
            smallest loss is kept.
        seed: of random directions, and of those that the differences leave free.
        progress: True for a bar, or called with steps done and steps in all.

    Raises:
        InterpError: as ``interchange``; a rank below 1 or above the width; no steps, or no start.

    >>> from interp import HookedTransformer, subspaces, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=4)
    >>> found = {"das": subspaces.das(model, pairs, layer=3, at="answer", rank=3)}
    >>> float(subspaces.interchange(model, pairs, found, layer=3, at="answer").exchanged.mean())
    1.0
    """
    runs, values = _prepared(model, pairs, site=site, layer=layer, at=at, direction=direction)
    width = int(np.prod(vector_site(site).shape(model.cfg.sizes)))
    if not 1 <= whole_number(rank, "rank") <= width:
        raise InterpError(f"rank is {rank}. Give 1 to {width}, the width of '{site}'.")
    whole_number(steps, "steps", least=1)
    whole_number(starts, "starts", least=1)
    if wanted is not None and np.shape(wanted) != (len(pairs),):
        raise InterpError(f"wanted has shape {np.shape(wanted)}. Give True or False for each of {len(pairs)} pairs.")
    base, _ = base_and_source(pairs, direction)
    other = {"clean": "corrupted", "corrupted": "clean"}[_NAMED[direction]]
    metrics = [_unedited(model, pairs, which, site, layer, at) for which in (_NAMED[direction], other)]
    own = run.activations(model, base, site, layers=[layer])[layer]
    apart = differences(own, values[layer], token_mask(base, at))
    return aligned(
        runs, values[layer], apart, *metrics, rank=rank, wanted=wanted, steps=steps, rate=rate, starts=starts,
        seed=seed, progress=progress,
    )  # fmt: skip


@differentiating
def aligned(
    runs: Runs,
    other: Float[Tensor, "prompt position ..."],
    apart: Float[np.ndarray, "token width"],
    unchanged: Float[np.ndarray, " prompt"],
    changed: Float[np.ndarray, " prompt"],
    *,
    rank: int,
    wanted: Bool[np.ndarray, " prompt"] | None,
    steps: int,
    rate: float = RATE,
    starts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Subspace:
    """``das`` of runs that are prepared.

    Args:
        runs: the run that is edited.
        other: the other run's activations.
        apart: by what the two differ, to begin with its leading directions.
        unchanged: the logit difference of the run that is edited.
        changed: that of the other run.
        rank: as in ``das``, like the other arguments.
        wanted: of each pair, whether the answer is to change.
        steps: of Adam.
        rate: its learning rate.
        starts: how many searches.
        seed: of what the differences leave free, and of further starts.
        progress: told of steps.
    """
    source = other.float().clone()  # one made in inference mode cannot enter a graph
    change = np.ones(len(runs.pairs), dtype=bool) if wanted is None else np.asarray(wanted, dtype=bool)
    target = torch.from_numpy(np.where(change, changed, unchanged))
    gap = max(float(np.abs(changed - unchanged).mean()), LEAST_GAP)
    meter = Meter(progress, steps * starts)

    def loss(basis: Float[Tensor, "direction width"]) -> Float[Tensor, ""]:
        def edit(activation: Tensor, rows: Int[np.ndarray, " row"]) -> Tensor:
            given = source[torch.from_numpy(rows).to(source.device), : activation.shape[1]]
            moved = ((given - activation[:, : given.shape[1]]).flatten(2) @ basis.T) @ basis
            appended = activation.shape[1] - given.shape[1]  # tokens of an answer
            return activation + nn.functional.pad(moved, (0, 0, 0, appended)).reshape(activation.shape)

        return ((runs.metric(edit) - target) / gap).square().mean()

    drawn = np.random.default_rng(seed)
    begun = [apart, *(drawn.normal(size=(rank, apart.shape[1])) for _ in range(starts - 1))]
    found = [_descended(loss, _leading(one, rank, seed), source.device, steps, rate, seed, meter) for one in begun]
    best = min(found, key=lambda one: one[0])[1]
    return Subspace.spanned_by(best, kind=f"DAS of rank {rank}")


def _descended(
    loss: Callable[[Tensor], Tensor],
    start: Float[np.ndarray, "direction width"],
    device: torch.device,
    steps: int,
    rate: float,
    seed: int,
    meter: Meter,
) -> tuple[float, Float[np.ndarray, "direction width"]]:
    """The smallest loss on the way, the start and the last step included, and the orthonormal directions there."""
    with torch.random.fork_rng(devices=[]):  # the parametrisation draws what completes the start to a basis
        torch.manual_seed(seed)
        rotation = orthogonal(nn.Linear(start.shape[1], len(start), bias=False))
        rotation.weight = torch.from_numpy(start).float()
    rotation.to(device)
    parameters = list(rotation.parameters())
    optimiser = torch.optim.Adam(parameters, lr=rate)
    best, kept = np.inf, rotation.weight.detach()
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            basis = rotation.weight
            now = loss(basis)
        if float(now.detach()) < best:  # a step of Adam is as long near the optimum as far from it
            best, kept = float(now.detach()), basis.detach().clone()
        if step < steps:
            for parameter, gradient in zip(parameters, torch.autograd.grad(now, parameters), strict=True):
                parameter.grad = gradient
            optimiser.step()
            meter.add(1)
    return best, kept.cpu().double().numpy()


def differences(
    own: Float[Tensor, "prompt position ..."],
    other: Float[Tensor, "prompt position ..."],
    tokens: Bool[np.ndarray, "prompt position"],
) -> Float[np.ndarray, "token width"]:
    """What an interchange of the whole space would move each token by.

    >>> differences(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), np.array([[False, True]])).tolist()
    [[1.0, 1.0, 1.0]]
    """
    apart = (other - own).flatten(2)[torch.from_numpy(tokens).to(own.device)]
    return np.asarray(apart.cpu().double().numpy())


def placebo(subspace: Subspace, *, seed: int = 0) -> Subspace:
    """The same part is read, and written along random directions that are orthogonal to it and to each other.

    An interchange of it moves each activation exactly as far, to a place where nothing is known to be.

    Raises:
        InterpError: a subspace of more than half of the space, which leaves no room.

    >>> moved = placebo(Subspace.spanned_by([[1.0, 0.0, 0.0]], kind="by hand")).erased([[2.0, 0.0, 0.0]])
    >>> float(np.linalg.norm(moved - [2.0, 0.0, 0.0]).round(6))
    2.0
    """
    rank, width = subspace.read.shape
    if 2 * rank > width:
        raise InterpError(
            f"A placebo of rank {rank} needs as many orthogonal directions in {width}. Take a lower rank."
        )
    # What is drawn turns with the basis that is read, and the root is symmetric: a subspace says nothing of the signs
    # and the order of its basis, so neither may the placebo.
    drawn = _turned(subspace.read, np.random.default_rng(seed))
    _, _, own = np.linalg.svd(subspace.written, full_matrices=False)
    other, _, back = np.linalg.svd(drawn - (drawn @ own.T) @ own, full_matrices=False)
    size, axes = np.linalg.eigh(subspace.written @ subspace.written.T)  # so that rows keep their lengths and angles
    root = (axes * np.sqrt(size.clip(min=0))) @ axes.T
    return Subspace(
        read=subspace.read, written=root @ (other @ back), offset=subspace.offset, kind=f"placebo of {subspace.kind}"
    )  # fmt: skip


def _turned(
    rows: Float[np.ndarray, "direction width"], rng: np.random.Generator, at_once: int = 512
) -> Float[np.ndarray, "direction width"]:
    """The rows times one matrix of random normal numbers, which is drawn ``at_once`` lines at a time."""
    turned = np.zeros(rows.shape)
    for first in range(0, rows.shape[1], at_once):
        part = rows[:, first : first + at_once]
        turned += part @ rng.normal(size=(part.shape[1], rows.shape[1]))
    return turned


def random_subspace(width: int, rank: int, *, seed: int = 0) -> Subspace:
    """The span of ``rank`` random directions, uniform over all such subspaces.

    >>> random_subspace(8, 3).rank
    3
    """
    drawn = np.random.default_rng(seed).normal(size=(rank, width))
    return Subspace.spanned_by(drawn, kind="random")


def random_model(model: HookedTransformer, *, seed: int = 0) -> HookedTransformer:
    """A control: the same model with the entries of each weight tensor in random order, so that nothing is learnt.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> other = random_model(model)
    >>> other.cfg.n_layers == model.cfg.n_layers, other.weights_sha256 == model.weights_sha256
    (True, False)
    """
    from interp.model import HookedTransformer

    check_model(model)
    with torch.no_grad():  # what some bridges keep of their last pass may hang on a gradient, which is not copied
        model.forward(torch.zeros(1, 1, dtype=torch.long, device=model.device))
    bridge = copy.deepcopy(model.bridge)
    generator = torch.Generator().manual_seed(whole_number(seed, "seed", least=0))
    with torch.no_grad():
        for parameter in bridge.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return HookedTransformer.from_bridge(bridge, name=f"{model.name}, weights shuffled", bos=model.bos_policy)


# ---- the pieces ----


def _prepared(
    model: HookedTransformer, pairs: PromptPairs, *, site: str, layer: int, at: At, direction: Direction
) -> tuple[Runs, dict[int, Tensor]]:
    """The run that is edited, and the activations of the other one."""
    check_pairs(model, pairs)
    check_layers(layer, model.cfg.n_layers)
    vector_site(site)
    _, source = base_and_source(pairs, direction)
    runs = Runs.of(model, pairs, _NAMED[direction], site=site, layer=layer, at=at)
    return runs, run.activations(model, source, site, layers=[layer])


def _unedited(
    model: HookedTransformer, pairs: PromptPairs, which: str, site: str, layer: int, at: At
) -> Float[np.ndarray, " prompt"]:
    with torch.no_grad():
        found = Runs.of(model, pairs, which, site=site, layer=layer, at=at).metric(lambda activation, rows: activation)
    return np.asarray(found.numpy())


def _leading(rows: Float[np.ndarray, "token width"], rank: int, seed: int) -> Float[np.ndarray, "direction width"]:
    """The leading right singular vectors, filled up with random directions."""
    drawn = np.random.default_rng(seed).normal(size=(rank, rows.shape[1]))
    _, size, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[size > 1e-6 * size.max(initial=0.0)][:rank]
    basis, _ = np.linalg.qr(np.concatenate([axes, drawn]).T)
    return np.asarray(basis.T[:rank])
