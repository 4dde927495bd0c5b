"""One table for each place: what can be read there, what erasing it costs, what exchanging and patching it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from interp import readouts, results, run
from interp._arguments import check_pairs
from interp.errors import UnaskableError, names, whole_number
from interp.interventions import Intervention, Replace
from interp.probes import data, online_codelength
from interp.probes.logistic import fitted, predictions
from interp.prompts import PromptPairs
from interp.prompts.places import token_mask
from interp.prompts.template import ANSWER
from interp.results import Variable
from interp.sites import check_layers, vector_site
from interp.subspaces.erasure import LEACE, MeanProjection
from interp.subspaces.interchange import aligned, differences, exchanged, placebo, random_model, random_subspace
from interp.subspaces.runs import Runs
from interp.subspaces.subspace import Subspace
from interp.sweeps import Meter, Plan, Progress, described, passes, score

if TYPE_CHECKING:
    from interp.model import HookedTransformer

ERASERS = ("leace", "means", "shuffled", "random")
SUBSPACES = ("means", "das", "placebo", "random")
FITS = ("das", "arbitrary", "random model")
PARTS = ("fitted", "held out")
DIRECTION = "noising"
STEPS = 20
"""Steps of DAS for each place."""


def place(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    layer: int,
    at: str,
    *,
    rank: int | None = None,
    steps: int = STEPS,
    controls: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """``places`` of one site, layer and role.

    >>> from interp import HookedTransformer, subspaces, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> found = subspaces.place(model, pairs, "resid_pre", 3, "answer", controls=False, steps=2)
    >>> bool(found["recovered"].mean() < 0.1)  # patched, hardly anything is left of the clean answer
    True
    """
    return places(
        model, pairs, site=site, layers=[layer], roles=[at], rank=rank, steps=steps, controls=controls, seed=seed,
        progress=progress,
    )  # fmt: skip


def places(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    site: str = "resid_pre",
    layers: Sequence[int] | None = None,
    roles: Sequence[str] | None = None,
    rank: int | None = None,
    steps: int = STEPS,
    controls: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Whether the source word can be read at some places, and whether what is there is used, on the same prompts.

    What is fitted (probes, erasers, DAS) is fitted on one half of the pairs and tested on the other, and the other way
    round, so that each number of a pair is one that no fit has seen. The halves share no target word, where the target
    is a word; an interval over prompts takes the fits as they are. Every edit is of the clean run: it loses what it
    loses of the gap between clean and corrupted.

    Args:
        model: the model.
        pairs: clean and corrupted prompts; their vocabulary says what is read.
        site: a site with a vector per token.
        layers: where; None is a quarter and three quarters of the way up.
        roles: where (every token of each; probes read the last one); None is source, target, the
            last place where they can meet, and answer, as far as the prompts have them.
        rank: directions that DAS finds; None is one fewer than there are words, as many as class means span.
        steps: of DAS.
        controls: whether DAS is also asked for arbitrary answers, and in a model of shuffled weights.
        seed: of halves, controls and random directions.
        progress: True for a bar, or called with fits of DAS done and in all.

    Returns:
        All (prompt, layer, role), most with one axis more.

        - ``decoded``: share of the pair's two prompts whose word a logistic probe reads; NaN for words that its fit
          never saw. ``control``: likewise of a random word per sentence, each sentence seen with its other word
          (``interp.subspaces`` follows the analysis ``probing``). ``selectivity``: their difference.
        - ``compression`` (layer, role): how many times shorter the words are sent with the activations than
          without (``interp.probes.online_codelength``).
        - ``patched``, ``recovered``: after the whole activation is the corrupted run's, as by ``interp.sweep``.
        - ``patched_erasure``, ``recovered_erasure``, ``kl_erasure`` (..., eraser): after ``leace`` (its covariance
          shrunken), the projection of class means, LEACE of ``shuffled`` words, and off a ``random`` subspace of
          the same rank, all about the mean. ``kl``: nats, from the clean run. Where nothing is left neither answer is
          preferred: that is about half of the gap.
        - ``patched_interchange``, ``recovered_interchange``, ``exchanged`` (..., subspace): after interchange of the
          span of the class means, of what DAS finds, of its ``placebo`` and of a ``random`` subspace.
        - ``agreement`` (..., fit, part): whether the interchange did what DAS was asked for, on pairs fitted and held
          out: the other answer (``das``); that, or the same answer, by a coin per pair (``arbitrary``); the other
          answer in a model of shuffled weights. The last two are fitted on one half only.

        ``clean``, ``corrupted`` (prompt). ``majority``: what the most frequent word of the fit would score.
        ``rank`` (layer, role): directions of DAS.

    Raises:
        UnaskableError: no source word, or one word only.
        InterpError: an unknown site, layer or role, or one that cannot be changed.

    At the last word before layer 3 the colour can be read and is used; before layer 1 it has not arrived:

    >>> from interp import HookedTransformer, subspaces, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=16)
    >>> found = subspaces.places(model, pairs, layers=[1, 3], roles=["answer"], controls=False, steps=5)
    >>> (found["recovered"].mean("prompt") < 0.1).values.ravel().tolist()
    [False, True]
    """
    asked = _Asked.of(model, pairs, site=site, layers=layers, roles=roles, seed=seed)
    whole_number(steps, "steps", least=1)
    shape = (len(pairs), len(asked.layers), len(asked.roles))
    found = {name: np.full((*shape, *more), np.nan) for name, more in _SHAPES.items()}
    found["compression"] = np.full(shape[1:], np.nan)
    ranks = np.zeros(shape[1:], dtype=int)
    others = [model, random_model(model, seed=seed)] if controls else [model]
    scores = [_Scores.of(one, pairs) for one in others]
    coins = np.random.default_rng(seed).permutation(len(pairs)) % 2 == 0
    n_fits = 4 if controls else 2
    meter = Meter(progress, shape[1] * shape[2] * n_fits)
    for row, layer in enumerate(asked.layers):
        read = [asked.activations(one, layer) for one in others]
        for column, role in enumerate(asked.roles):
            here = _Here(asked, layer, role, read[0], model, scores[0])
            cell = (slice(None), row, column)
            found["decoded"][cell], found["control"][cell] = here.decoded()
            found["compression"][row, column] = here.compression()
            for half in (0, 1):
                test = asked.halves == half
                for name, values in here.erased(half).items():
                    found[name][(test, row, column)] = values
                das = here.das(half, rank=rank, steps=steps)
                ranks[row, column] = das.rank
                for name, values in here.exchanged(half, das).items():
                    found[name][(test, row, column)] = values
                for part, chosen in zip((1, 0), (half, 1 - half), strict=True):
                    at = np.flatnonzero(asked.halves == chosen)
                    found["agreement"][at, row, column, 0, part] = here.swaps(chosen, das)
                meter.add(1)
            for fit, there in enumerate(here.controls(others, read, scores), start=1):
                wanted = coins if fit == 1 else np.ones(len(pairs), dtype=bool)
                das = there.das(0, rank=rank, steps=steps, wanted=wanted)
                for part, chosen in ((1, 0), (0, 1)):
                    at = np.flatnonzero(asked.halves == chosen)
                    found["agreement"][at, row, column, fit, part] = there.swaps(chosen, das) == wanted[at]
                meter.add(1)
    return _labelled(asked, found, ranks, scores[0], steps=steps, seed=seed)


def places_passes(
    model: HookedTransformer,
    pairs: PromptPairs,
    *,
    site: str = "resid_pre",
    layers: Sequence[int] | None = None,
    roles: Sequence[str] | None = None,
    steps: int = STEPS,
    controls: bool = True,
) -> Plan:
    """What ``places`` comes to: DAS, which runs half of the pairs forward and backward at each step, and the edits.

    Args:
        model: as for ``places``, like the others.
        pairs: the pairs.
        site: the site.
        layers: its layers.
        roles: the roles.
        steps: of DAS.
        controls: whether DAS is also asked for arbitrary answers, and in a model of shuffled weights.

    >>> from interp import HookedTransformer, tasks
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=8)
    >>> few, more = (places_passes(model, pairs, layers=[3], roles=["answer"], steps=n) for n in (1, 2))
    >>> more.rows - few.rows  # four fits, each on half of the pairs, forward and backward, in the last of four layers
    8
    """
    chosen = _layers(model, site, layers)
    there = _roles(pairs) if roles is None else names(roles, "roles")
    n_fits = 4 if controls else 2
    fits = n_fits / 2  # each on half of the pairs
    # After each fit both halves are edited; once per pair all erasers (read twice) and subspaces, and the whole state.
    edits = n_fits + 2 * len(ERASERS) + len(SUBSPACES) + 1
    above = len(there) * sum(1 - layer / model.cfg.n_layers for layer in chosen)  # runs go on from the edited layer
    states = 2 * len(chosen) * (2 if controls else 1)
    made = passes(
        model, pairs.clean, forward=above * (fits * steps + edits) + states, backward=above * fits * steps
    )  # fmt: skip
    return replace(made, peak_bytes=made.peak_bytes + (model.weight_bytes if controls else 0))


_SHAPES: dict[str, tuple[int, ...]] = {
    "decoded": (),
    "control": (),
    "patched": (),
    "patched_erasure": (len(ERASERS),),
    "kl_erasure": (len(ERASERS),),
    "patched_interchange": (len(SUBSPACES),),
    "agreement": (len(FITS), len(PARTS)),
}
"""Variable -> its axes after prompt, layer and role."""


@dataclass(frozen=True)
class _Read:
    """A layer's activations of both runs, whole."""

    clean: Float[Tensor, "prompt position ..."]
    corrupted: Float[Tensor, "prompt position ..."]


@dataclass(frozen=True)
class _Scores:
    """The logit difference of both runs, unedited."""

    clean: Float[np.ndarray, " prompt"]
    corrupted: Float[np.ndarray, " prompt"]

    @classmethod
    def of(cls, model: HookedTransformer, pairs: PromptPairs) -> _Scores:
        return cls(score(model, pairs, "clean"), score(model, pairs, "corrupted"))


@dataclass(frozen=True)
class _Asked:
    """What is asked: the pairs with the source word of each prompt, and the half that each pair is tested in.

    Attributes:
        words: of the clean prompts, then of the corrupted ones.
    """

    model: HookedTransformer
    pairs: PromptPairs
    site: str
    layers: tuple[int, ...]
    roles: tuple[str, ...]
    words: Shaped[np.ndarray, "run prompt"]
    halves: Int[np.ndarray, " prompt"]
    seed: int

    @classmethod
    def of(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        *,
        site: str,
        layers: Sequence[int] | None,
        roles: Sequence[str] | None,
        seed: int,
    ) -> _Asked:
        check_pairs(model, pairs)
        vector_site(site)
        model.check_editable(site)
        words = source_words(pairs)
        chosen = names(_roles(pairs) if roles is None else roles, "roles")
        for role in chosen:
            pairs.clean.spans(role)
        halves = _halves(pairs)
        return cls(model, pairs, site, _layers(model, site, layers), chosen, words, halves, seed)

    def half(self, half: int) -> PromptPairs:
        return self.pairs.select(np.flatnonzero(self.halves == half))

    def activations(self, model: HookedTransformer, layer: int) -> _Read:
        runs = (self.pairs.clean, self.pairs.corrupted)
        return _Read(*(run.activations(model, one, self.site, layers=[layer])[layer] for one in runs))


def source_words(pairs: PromptPairs) -> Shaped[np.ndarray, "run prompt"]:
    """The word that stands in the source's slot of each clean prompt and of each corrupted one, or its tokens.

    Raises:
        UnaskableError: no source, or the same word everywhere.

    >>> pairs = PromptPairs.from_tokens([[5, 6, 7]], [[5, 8, 7]], correct=9, incorrect=10, roles={"color": 1})
    >>> source_words(pairs).tolist()
    [['6'], ['8']]
    """
    source = pairs.vocabulary.source
    if source is None:
        raise UnaskableError("Clean and corrupted differ in no word that has a role. Give that word a role.")
    found = data.words(pairs, source, "source").reshape(2, -1)
    if len(np.unique(found)) < 2:
        raise UnaskableError(f"Every prompt has the same {source}, so there is nothing to read. Vary it.")
    return found


def check_askable(pairs: PromptPairs) -> None:
    """Refuse pairs that leave nothing to read or nothing to hold out, whatever the model.

    Raises:
        UnaskableError: as ``places``.
    """
    source_words(pairs)
    _halves(pairs)


def _halves(pairs: PromptPairs) -> Int[np.ndarray, " prompt"]:
    """Which half each pair is tested in; pairs that share a target word, or else a clean prompt, are in one half."""
    target = pairs.vocabulary.target
    if target is not None and all(target in slots for slots in pairs.slots):
        groups = [slots[target] for slots in pairs.slots]
    else:
        groups = []
    if len(set(groups)) < 2:
        groups = [" ".join(map(str, row)) for row in pairs.clean.rows()]
    if len(set(groups)) < 2:
        raise UnaskableError("All pairs have the same clean prompt, so no half can be held out. Give others.")
    return data.group_folds(np.array(groups), 2)[0].astype(int)


def _roles(pairs: PromptPairs) -> list[str]:
    said = pairs.vocabulary
    meeting = [role for role in said.meeting or () if role in pairs.roles]
    stated = (said.source, said.target, *meeting[-1:], ANSWER)
    return list(dict.fromkeys(role for role in stated if role is not None and role in pairs.roles))


def _layers(model: HookedTransformer, site: str, layers: Sequence[int] | None) -> tuple[int, ...]:
    n = model.cfg.n_layers
    if layers is not None:
        return check_layers(layers, n)
    return tuple(sorted({n // 4, 3 * n // 4}))


class _Here:
    """One place of one model: its activations, and the runs of each half that are edited there."""

    def __init__(
        self, asked: _Asked, layer: int, role: str, read: _Read, model: HookedTransformer, scores: _Scores
    ) -> None:
        self.asked, self.layer, self.role, self.read, self.model, self.scores = asked, layer, role, read, model, scores
        self.tokens = token_mask(asked.pairs.clean, role)
        self.runs = [
            Runs.of(model, asked.half(half), "clean", site=asked.site, layer=layer, at=role) for half in (0, 1)
        ]
        self.fits = [self._fitted(half) for half in (0, 1)]

    def controls(
        self, others: Sequence[HookedTransformer], read: Sequence[_Read], scores: Sequence[_Scores]
    ) -> Iterator[_Here]:
        """The place for arbitrary answers, and that of the model of shuffled weights."""
        if len(others) > 1:
            yield self
            yield _Here(self.asked, self.layer, self.role, read[1], others[1], scores[1])

    # ---- what can be read ----

    def _features(self) -> tuple[Float[np.ndarray, "row width"], Shaped[np.ndarray, " row"]]:
        """The role's last token of every clean prompt, then of every corrupted one, with its word."""
        at = torch.from_numpy(self.asked.pairs.clean.role_positions(self.role))
        each = torch.arange(len(at))
        runs = [
            one[each.to(one.device), at.to(one.device)].flatten(1) for one in (self.read.clean, self.read.corrupted)
        ]
        return torch.cat(runs).cpu().double().numpy(), self.asked.words.reshape(-1)

    def decoded(self) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """The share of each pair's two prompts whose word a probe gives, and whose control label."""
        x, words = self._features()
        n = len(self.asked.halves)
        halves, runs = np.tile(self.asked.halves, 2), np.repeat([0, 1], n)
        rng = np.random.default_rng(self.asked.seed)
        labels = np.tile(words[:n][rng.permutation(n)], 2)
        found = []
        for truth, folds in ((words, halves), (labels, halves ^ runs)):
            right = np.full(2 * n, np.nan)
            for fold in (0, 1):
                test = folds == fold
                said = predictions(fitted(x[~test], truth[~test]), x[test])
                right[test] = np.where(np.isin(truth[test], truth[~test]), said == truth[test], np.nan)
            found.append(right.reshape(2, n).mean(axis=0))
        return found[0], found[1]

    def compression(self) -> float:
        """Of the words, sent in one order that is drawn by the seed."""
        x, words = self._features()
        return online_codelength(x, words, seed=self.asked.seed).compression

    # ---- what is used ----

    def _fitted(self, half: int) -> dict[str, Subspace]:
        """Erasers and subspaces that are fitted on the other half."""
        other = self.asked.halves != half
        tokens = self.tokens & other[:, None]
        prompts = np.nonzero(tokens)[0]
        runs = (
            one.flatten(2)[torch.from_numpy(tokens).to(one.device)] for one in (self.read.clean, self.read.corrupted)
        )
        x = torch.cat(list(runs)).cpu().double().numpy()
        words = self.asked.words[:, prompts].reshape(-1)
        shuffled = self.asked.words[:, np.random.default_rng(self.asked.seed).permutation(len(other))]
        leace = LEACE(shrinkage="oas").fit(x, words).subspace_
        drawn = random_subspace(x.shape[1], max(leace.rank, 1), seed=self.asked.seed)
        return {
            "leace": leace,
            "means": MeanProjection().fit(x, words).subspace_,
            "shuffled": LEACE(shrinkage="oas").fit(x, shuffled[:, prompts].reshape(-1)).subspace_,
            # Erased about the mean, as the others are: what all prompts share is large, and no part of what is erased.
            "random": replace(drawn, offset=leace.offset),
        }

    def _values(self, half: int) -> dict[int, Tensor]:
        """What the corrupted run of a half has here."""
        return {self.layer: self.read.corrupted[torch.from_numpy(self.asked.halves == half)]}

    def _after(self, half: int, item: Intervention) -> tuple[np.ndarray, np.ndarray]:
        return self.runs[half].measured(item)

    def erased(self, half: int) -> dict[str, np.ndarray]:
        """The metric and the divergence of a half's clean run after each eraser."""
        place = {"site": self.asked.site, "layer": self.layer, "at": self.role}
        found = [self._after(half, self.fits[half][name].erase(**place)) for name in ERASERS]  # type: ignore[arg-type]
        scores, apart = (np.stack(values, axis=-1) for values in zip(*found, strict=True))
        return {"patched_erasure": scores, "kl_erasure": apart}

    def das(
        self, half: int, *, rank: int | None, steps: int, wanted: Bool[np.ndarray, " prompt"] | None = None
    ) -> Subspace:
        """What DAS finds on the other half."""
        other = np.flatnonzero(self.asked.halves != half)
        chosen = torch.from_numpy(other)
        own, source = self.read.clean[chosen], self.read.corrupted[chosen]
        apart = differences(own, source, self.tokens[other])
        most = apart.shape[1] // 2  # so that there is room for a placebo
        return aligned(
            self.runs[1 - half], source, apart, self.scores.clean[other], self.scores.corrupted[other],
            rank=min(rank or max(self.fits[half]["means"].rank, 1), most),
            wanted=None if wanted is None else wanted[other], steps=steps, seed=self.asked.seed,
        )  # fmt: skip

    def exchanged(self, half: int, das: Subspace) -> dict[str, np.ndarray]:
        """The metric of a half's clean run after the interchange of each subspace, and after that of everything."""
        subspaces = {
            "means": self.fits[half]["means"],
            "das": das,
            "placebo": placebo(das, seed=self.asked.seed),
            "random": random_subspace(das.read.shape[1], das.rank, seed=self.asked.seed),
        }
        place = {"site": self.asked.site, "layer": self.layer, "at": self.role}
        values = self._values(half)
        items = [subspaces[name].interchange(values, **place) for name in SUBSPACES]  # type: ignore[arg-type]
        whole = Replace(site=self.asked.site, layers=[self.layer], at=self.role, values=values)
        return {
            "patched_interchange": np.stack([self._after(half, item)[0] for item in items], axis=-1),
            "patched": self._after(half, whole)[0],
        }

    def swaps(self, half: int, das: Subspace) -> Bool[np.ndarray, " prompt"]:
        """Whether the interchange makes the corrupted run's answer, of each pair of a half."""
        item = das.interchange(self._values(half), site=self.asked.site, layer=self.layer, at=self.role)
        return exchanged(self._after(half, item)[0], DIRECTION)


def _labelled(
    asked: _Asked,
    found: dict[str, np.ndarray],
    ranks: Int[np.ndarray, "layer role"],
    scores: _Scores,
    *,
    steps: int,
    seed: int,
) -> xr.Dataset:
    model, pairs = asked.model, asked.pairs
    metric, units = described(pairs, "logit_difference")
    gap = readouts.READOUTS["logit_difference"].minimum_gap
    clean, corrupted = scores.clean, scores.corrupted
    dims = ("prompt", "layer", "role")
    axes = {"erasure": "eraser", "interchange": "subspace"}
    variables = {
        "decoded": Variable(dims, found["decoded"], "share", "accuracy of a held-out probe on the pair's prompts"),
        "control": Variable(dims, found["control"], "share", "accuracy of the same probe on the control task"),
        "selectivity": Variable(dims, found["decoded"] - found["control"], "share", "accuracy - control accuracy"),
        "compression": Variable(
            ("layer", "role"), found["compression"], "", "how many times shorter the words are sent"
        ),
        "clean": Variable(("prompt",), clean, units, f"{metric} of the clean run"),
        "corrupted": Variable(("prompt",), corrupted, units, f"{metric} of the corrupted run"),
        "majority": Variable((), _majority(asked), "share", "accuracy of the fit's most frequent word"),
        "rank": Variable(("layer", "role"), ranks, "directions", "directions that DAS finds"),
        "kl_erasure": Variable((*dims, "eraser"), found["kl_erasure"], "nats", "divergence from the clean run"),
        "exchanged": Variable(
            (*dims, "subspace"), exchanged(found["patched_interchange"], DIRECTION), "", "the other answer is preferred"
        ),
        "agreement": Variable(
            (*dims, "fit", "part"), found["agreement"], "share", "the interchange does what DAS was asked for"
        ),
    }
    for end in ("", "_erasure", "_interchange"):
        patched = found[f"patched{end}"]
        own = (*dims, axes[end[1:]]) if end else dims
        recovered = readouts.recovered(*(torch.from_numpy(x) for x in (patched, clean, corrupted)), minimum_gap=gap)
        what = end[1:] or "patch"
        variables[f"patched{end}"] = Variable(own, patched, units, f"{metric} after the {what}")
        variables[f"recovered{end}"] = Variable(own, recovered.numpy(), "fraction", f"recovered after the {what}")
    return results.build(
        variables,
        coords={
            "prompt": np.arange(len(pairs)), "layer": list(asked.layers), "role": list(asked.roles),
            "eraser": list(ERASERS), "subspace": list(SUBSPACES), "fit": list(FITS), "part": list(PARTS),
        },
        title="Readable and used, place by place",
        question="Where the source can be read, is it also what the answer uses?",
        reading="recovered: 1 is the clean run, 0 the corrupted one. What can be read at a place, and is not lost when "
        "it is erased, exchanged or patched there, is not used there. After erasure neither answer is preferred where "
        "nothing is left: half of the gap.",
        source="LEACE: Belrose et al. 2023, arXiv 2306.03819; DAS: Geiger et al. 2023, arXiv 2303.02536; selectivity: "
        "Hewitt and Liang 2019, arXiv 1909.03368; codelength: Voita and Titov 2020, arXiv 2003.12298",
        of=(model, pairs),
        seed=seed,
        extra={
            "site": asked.site, "metric": metric, "minimum_gap": gap, "direction": DIRECTION, "steps": steps,
            "n_words": len(np.unique(asked.words)),
            "n_unseen": int(np.isnan(found["decoded"][:, 0, 0]).sum()),
            "n_halves": ", ".join(str(int((asked.halves == half).sum())) for half in (0, 1)),
        },
        dims={
            "eraser": "what is erased", "subspace": "subspace that is exchanged", "fit": "what DAS was asked for",
            "part": "pairs that it was fitted on, or not",
        },
    )  # fmt: skip


def _majority(asked: _Asked) -> float:
    """What always giving the most frequent word of the fit would score."""
    right = []
    for half in (0, 1):
        test = asked.halves == half
        known, counts = np.unique(asked.words[:, ~test], return_counts=True)
        right.append(asked.words[:, test].reshape(-1) == known[counts.argmax()])
    return float(np.concatenate(right).mean())
