"""Read-outs: what is measured of a run, as one number per prompt.

``metric=`` takes the name of one, or one itself:

>>> from interp import readouts
>>> readouts.readout("logit_difference").units
'logits'
>>> top = readouts.custom(lambda logits, answers: logits[:, 0].amax(dim=-1), name="top logit", units="logits")
>>> top.differentiable
False
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import sites
from interp.errors import InterpError, shown, unknown_name, whole_number

Needs: TypeAlias = Literal["answers", "logits", "clean logits", "activation"]
"""What a read-out looks at: the logits of the two answers, of every token, of every token and of the clean run, or an
activation."""

IGNORED = -100
"""The label of a position that is not scored, as in Hugging Face."""


@dataclass(frozen=True)
class Answers:
    """What a read-out knows of the prompts beside their logits.

    Attributes:
        correct: [prompt, answer] the right token at each scored position.
        incorrect: [prompt, answer] the wrong one; the right one where there is none.
        present: [prompt, answer] which scored positions a prompt has; the others are padding.
        prompt: [prompt] which of the prompts that were given these are: prompts come in batches.
        clean: [prompt, answer, vocab] logits of the clean run, for read-outs that need them; else None. Of a read-out
            of an activation: [prompt, token, width] what it is in the clean run.
        corrupted: of a read-out of an activation: what it is in the corrupted run.

    Two scored positions, of which the second is padding:

    >>> answers = Answers(
    ...     correct=torch.tensor([[5, 0]]),
    ...     incorrect=torch.tensor([[6, 0]]),
    ...     present=torch.tensor([[True, False]]),
    ...     prompt=torch.tensor([0]),
    ... )
    >>> answers.mean(torch.tensor([[2.0, 100.0]])).tolist()
    [2.0]
    """

    correct: Int[Tensor, "prompt answer"]
    incorrect: Int[Tensor, "prompt answer"]
    present: Bool[Tensor, "prompt answer"]
    prompt: Int[Tensor, " prompt"]
    clean: Float[Tensor, "prompt answer vocab"] | None = None
    corrupted: Float[Tensor, "prompt answer width"] | None = None

    def total(self, values: Float[Tensor, "prompt answer"]) -> Float[Tensor, " prompt"]:
        """The sum over a prompt's scored positions, on the CPU in float64."""
        return (values.cpu().double() * self.present.cpu()).sum(dim=1)

    def mean(self, values: Float[Tensor, "prompt answer"]) -> Float[Tensor, " prompt"]:
        """The mean over a prompt's scored positions, on the CPU in float64."""
        return self.total(values) / self.present.cpu().sum(dim=1)


Measure: TypeAlias = Callable[[Float[Tensor, "prompt answer vocab"], Answers], Float[Tensor, " prompt"]]


@dataclass(frozen=True)
class Place:
    """An activation that is read.

    Attributes:
        site: its name in ``interp.sites``.
        layer: its layer.
        at: role or position; a role's tokens are read together.
        head: the one head that is read of a site that has heads; None for all of them, one after the other.
        direction: [width] what it is projected on; None for each pair's own difference, ``"means"`` for that of the
            means of all pairs, which the runs have to show first.

    >>> projection(2, "noun", site="resid_post").place.n_blocks  # those of layers 0, 1 and 2
    3
    """

    site: str
    layer: int
    at: str | int
    head: int | None = None
    direction: tuple[float, ...] | Literal["means"] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it is the residual stream before a block or after one, so that no block is run in part for it."""
        return sites.site(self.site).stage in ("before", "after")

    @property
    def n_blocks(self) -> int:
        """How many blocks are run for it; of the last one only the part that leads to it."""
        return self.layer + (self.site != "resid_pre")

    @property
    def n_attentions(self) -> int:
        """How many blocks' attention comes before it."""
        return self.layer + (not sites.site(self.site).precedes("attention"))

    def read_at(self, n_layers: int, *, changed: bool) -> tuple[str, int]:
        """Site and layer at which it is read in a run of the whole model.

        The stream after a block is the one before the next, if there is one: there it is read in a ``changed`` run,
        which may change it under either name, though that runs a block more.
        """
        if not self.is_stream:
            return self.site, self.layer
        later = changed and self.n_blocks < n_layers
        return ("resid_pre", self.n_blocks) if later else ("resid_post", self.n_blocks - 1)

    def reached_by(self, name: str, layer: int) -> bool:
        """Whether a change of a site at a layer can change it."""
        site, at = ("resid_pre", self.n_blocks) if self.is_stream else (self.site, self.layer)
        return layer < at or (layer == at and sites.site(name).leads_to(sites.site(site)))

    def width(self, lengths: Mapping[str, int]) -> int:
        """How many numbers are read per token; ``lengths``: axis -> length."""
        shape = sites.site(self.site).shape(lengths)
        return math.prod(shape if self.head is None else shape[1:])

    def of(self, values: Float[Tensor, "row token ..."]) -> Float[Tensor, "row token width"]:
        """The numbers that are read, from those of the whole site: of all heads side by side, or of one head."""
        return (values if self.head is None else values[:, :, self.head]).flatten(2)


@dataclass(frozen=True)
class Readout:
    """What is measured, as one number per prompt.

    Attributes:
        name: what results call it.
        units: of the number; empty where it has none.
        measure: takes the logits [prompt, answer, vocab] at the scored positions and ``Answers``; returns [prompt].
        minimum_gap: smallest clean-corrupted gap, in these units, that is worth dividing by.
        range: smallest and largest number possible, but for rounding.
        needs: what of a run it looks at.
        compares: whether it looks at the incorrect answer.
        differentiable: whether it has a gradient.
        least_at_clean: whether the clean run gives the smallest number, so that the gradient there is 0.
        better: whether more or less of it speaks for the correct answer, or for the clean run.
        labels: [prompt][answer] its own right tokens, in place of the pairs' answers.
        label_positions: [prompt][answer] the positions whose logits predict them.
        own: whether the measure is the caller's function, which a store cannot tell from another.
        place: the activation that is read, where it is one.

    Raises:
        InterpError: no name, a gap below 0 or an unknown need.

    >>> READOUTS["log_probability"].range, READOUTS["rank"].differentiable
    ((-inf, 0.0), False)
    """

    name: str
    units: str
    measure: Measure
    minimum_gap: float
    range: tuple[float, float] = (-math.inf, math.inf)
    needs: Needs = "logits"
    compares: bool = False
    differentiable: bool = True
    least_at_clean: bool = False
    better: Literal["more", "less", "unknown"] = "unknown"
    labels: tuple[tuple[int, ...], ...] | None = None
    label_positions: tuple[tuple[int, ...], ...] | None = None
    own: bool = False
    place: Place | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InterpError(f"A read-out's name is {shown(self.name)}. Give a word.")
        if not isinstance(self.minimum_gap, int | float) or not self.minimum_gap >= 0:
            raise InterpError(
                f"minimum_gap of read-out {shown(self.name)} is {shown(self.minimum_gap)}. Give a number, 0 or more."
            )
        if self.needs not in get_args(Needs):
            raise unknown_name("need", self.needs, get_args(Needs))

    def sha256(self) -> str:
        """Fingerprint of what is measured; empty where a function of the caller's does, which may be any other.

        Two projections can share a name, and differ in their direction:

        >>> one, other = (projection(2, "noun", direction) for direction in ([3.0, 4.0], [4.0, 3.0]))
        >>> one.name == other.name, one.sha256() == other.sha256()
        (True, False)
        """
        said = (self.name, self.labels, self.label_positions, self.place)
        return "" if self.own else hashlib.sha256(repr(said).encode()).hexdigest()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A read-out of the table stays that one when it is sent to another process."""
        return (readout, (self.name,)) if READOUTS.get(self.name) is self else super().__reduce_ex__(protocol)

    def __call__(
        self,
        logits: Float[Tensor, "prompt vocab"],
        correct: Int[Tensor, " prompt"],
        incorrect: Int[Tensor, " prompt"] | None = None,
        *,
        clean: Float[Tensor, "prompt vocab"] | None = None,
    ) -> Float[Tensor, " prompt"]:
        """The number of each prompt from its logits at one position; ``clean`` are the clean run's there.

        >>> logits = torch.tensor([[0.0, 2.0, -1.0]])
        >>> readout("logit_difference")(logits, torch.tensor([1]), torch.tensor([2])).tolist()
        [3.0]

        Raises:
            InterpError: no incorrect answer, or no clean run, where it takes one.
        """
        if self.compares and incorrect is None:
            raise InterpError(f"Read-out {shown(self.name)} compares two answers. Give incorrect=.")
        right = correct.unsqueeze(1)
        answers = Answers(
            right,
            right if incorrect is None else incorrect.unsqueeze(1),
            torch.ones_like(right, dtype=torch.bool),
            torch.arange(len(right)),
            None if clean is None else clean.unsqueeze(1),
        )
        return self.of(logits.unsqueeze(1), answers)

    def of(self, logits: Float[Tensor, "prompt answer vocab"], answers: Answers) -> Float[Tensor, " prompt"]:
        """The number of each prompt, on the CPU in float64.

        Raises:
            InterpError: the clean run's logits are missing, or the measure returns anything but a number per prompt.
        """
        if self.needs == "clean logits" and answers.clean is None:
            raise InterpError(f"Read-out {shown(self.name)} compares with the clean run. Give its logits as clean=.")
        found = self.measure(logits, answers)
        if not isinstance(found, Tensor) or found.shape != (len(logits),):
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InterpError(
                f"Read-out {shown(self.name)} returned {got} for {len(logits)} prompts. Return a tensor of one number "
                f"per prompt."
            )
        return found.cpu().double()


AnyReadout: TypeAlias = str | Readout | Mapping[str, Mapping[str, Any]]
"""A read-out, the name of one in ``READOUTS``, or one with settings: ``{"projection": {"layer": 3, "at": "noun"}}``."""


# ---- of the answers ----


def _pick(values: Float[Tensor, "prompt vocab"], ids: Int[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    return values.gather(1, ids.unsqueeze(1)).squeeze(1)


def logit_difference(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """logit(correct) - logit(incorrect) at the answer position, in logits, per prompt. Unbounded; 0 is indifference.

    >>> logits = torch.tensor([[0.0, 2.0, -1.0]])
    >>> logit_difference(logits, torch.tensor([1]), torch.tensor([2])).tolist()
    [3.0]
    """
    return _pick(logits, correct) - _pick(logits, incorrect)


def log_probability(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """Log P(correct) over the whole vocabulary, in nats, at most 0. ``incorrect`` is not used.

    Three tokens with equal logits have a third each:

    >>> log_probability(torch.zeros(1, 3), torch.tensor([1]), torch.tensor([2])).exp().item()
    0.333...
    """
    return _pick(logits.log_softmax(dim=-1), correct)


def probability(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """P(correct) over the whole vocabulary, in [0, 1]. ``incorrect`` is not used.

    Saturates, so it can hide components that work against the answer (Zhang and Nanda 2023, arXiv 2309.16042):
    prefer ``logit_difference`` for patching.

    >>> probability(torch.zeros(1, 4), torch.tensor([1]), torch.tensor([2])).item()
    0.25
    """
    return log_probability(logits, correct, incorrect).exp()


def rank(
    logits: Float[Tensor, "prompt vocab"], correct: Int[Tensor, " prompt"], incorrect: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """How many tokens have a larger logit than the correct one: 0 is top-1. ``incorrect`` is not used.

    Ties count against the model, so a constant output never looks right.

    >>> logits = torch.tensor([[0.0, 2.0, -1.0, 5.0]])
    >>> rank(logits, torch.tensor([1]), torch.tensor([0])).item()  # one token is above the right one
    1.0
    """
    return (logits >= _pick(logits, correct).unsqueeze(1)).sum(dim=1).to(logits.dtype) - 1


_OfTokens: TypeAlias = Callable[
    [Float[Tensor, "prompt vocab"], Int[Tensor, " prompt"], Int[Tensor, " prompt"]], Float[Tensor, " prompt"]
]


def _at_each(
    function: _OfTokens, logits: Float[Tensor, "prompt answer vocab"], answers: Answers
) -> Float[Tensor, "prompt answer"]:
    """A function of one position's logits at every scored position."""
    n, width, _ = logits.shape
    ids = (tokens.reshape(-1).to(logits.device) for tokens in (answers.correct, answers.incorrect))
    return function(logits.reshape(n * width, -1), *ids).reshape(n, width)


def _summed(function: _OfTokens) -> Measure:
    return lambda logits, answers: answers.total(_at_each(function, logits, answers))


def _cross_entropy(logits: Float[Tensor, "prompt answer vocab"], answers: Answers) -> Float[Tensor, " prompt"]:
    """Minus the mean log-probability of the labels, as Hugging Face's loss of one prompt."""
    return -answers.mean(_at_each(log_probability, logits, answers))


# ---- against the clean run ----


def _kl(logits: Float[Tensor, "prompt answer vocab"], answers: Answers) -> Float[Tensor, " prompt"]:
    """KL(clean run || this run), summed over the scored positions."""
    now, clean = _log_probabilities(logits, answers)
    return answers.total((clean.exp() * (clean - now)).sum(dim=-1))


def _js(logits: Float[Tensor, "prompt answer vocab"], answers: Answers) -> Float[Tensor, " prompt"]:
    """Half of each run's KL to the mean of both, summed over the scored positions."""
    now, clean = _log_probabilities(logits, answers)
    mean = torch.logaddexp(now, clean) - math.log(2)
    apart = ((one.exp() * (one - mean)).sum(dim=-1) for one in (now, clean))
    return answers.total(0.5 * sum(apart, torch.zeros_like(mean[..., 0])))


def _log_probabilities(
    logits: Float[Tensor, "prompt answer vocab"], answers: Answers
) -> tuple[Float[Tensor, "prompt answer vocab"], Float[Tensor, "prompt answer vocab"]]:
    """Of this run and of the clean one."""
    assert answers.clean is not None
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(dim=-1), answers.clean.to(logits).log_softmax(dim=-1)


# ---- the table ----

READOUTS: dict[str, Readout] = {
    one.name: one
    for one in (
        Readout(
            "logit_difference", "logits", _summed(logit_difference), 0.1, needs="answers", compares=True, better="more"
        ),
        Readout("log_probability", "nats", _summed(log_probability), 0.05, range=(-math.inf, 0.0), better="more"),
        Readout("probability", "", _summed(probability), 0.01, range=(0.0, 1.0), better="more"),
        Readout("rank", "tokens", _summed(rank), 1.0, range=(0.0, math.inf), differentiable=False, better="less"),
        Readout("cross_entropy", "nats", _cross_entropy, 0.05, range=(0.0, math.inf), better="less"),
        Readout("kl", "nats", _kl, 0.01, (0.0, math.inf), "clean logits", least_at_clean=True, better="less"),
        Readout("js", "nats", _js, 0.01, (0.0, math.inf), "clean logits", least_at_clean=True, better="less"),
    )
}
"""Name -> read-out. Where pairs have several scored positions, the sum over them; ``cross_entropy`` is the mean.

At one position ``js`` is at most log 2.
"""


def readout(given: Any) -> Readout:
    """A read-out as it is, by name, or by name with its settings, as a study's file has them.

    Raises:
        InterpError: an unknown name or setting, or something else.

    >>> readout("kl").units
    'nats'
    >>> readout({"projection": {"site": "z", "layer": 2, "at": "noun"}}).name
    'projection of z 2 at noun'
    >>> readout("logit_diff")
    Traceback (most recent call last):
    interp.errors.InterpError: Unknown metric 'logit_diff'. Did you mean 'logit_difference'? ...
    """
    if isinstance(given, Readout):
        return given
    if isinstance(given, Mapping):
        return _with_settings(given)
    if not isinstance(given, str):
        way = " Wrap a function of your own: readouts.custom(function)." if callable(given) else ""
        raise InterpError(
            f"A metric is a name or a read-out, not {type(given).__name__}. Choose from: {', '.join(READOUTS)}.{way}"
        )
    if given not in READOUTS:
        raise unknown_name("metric", given, READOUTS)
    return READOUTS[given]


PROJECTION_SETTINGS = ("layer", "at", "direction", "site", "head")
"""What a projection can be told, the first two always; as the parameters of ``projection``."""


def _with_settings(given: Mapping[Any, Any]) -> Readout:
    """A projection by its settings, which alone has any that a file can hold.

    Raises:
        InterpError: another name, or a setting that is unknown or missing.
    """
    settings = given.get("projection")
    if len(given) != 1 or not isinstance(settings, Mapping):
        raise InterpError(
            "A metric with settings is {'projection': {'layer': 3, 'at': 'noun'}}, not "
            f"{shown(dict(given))}. Every other is a name alone."
        )
    for key in settings:
        if key not in PROJECTION_SETTINGS:
            raise unknown_name("setting", key, PROJECTION_SETTINGS, " of projection")
    for key in PROJECTION_SETTINGS[:2]:
        if key not in settings:
            raise InterpError(f"The settings of projection lack {key!r}. Give layer and at, such as 3 and 'noun'.")
    return projection(**settings)


def cross_entropy(labels: Sequence[Sequence[int]] | Any, positions: Sequence[Sequence[int]] | Any = None) -> Readout:
    """Mean cross-entropy, in nats, of labels of your own at several positions of each prompt.

    Args:
        labels: [prompt, answer] the right token at each position; -100 leaves a position out, so that rows may differ.
        positions: [prompt, answer] the positions whose logits predict them, counted from the prompt's start. None: the
            labels' last column is predicted at the pairs' answer position, the column before one position earlier.

    >>> cross_entropy([[5, 7], [5, 9]]).labels
    ((5, 7), (5, 9))

    Raises:
        InterpError: not one row of labels for each row of positions, a prompt without a label, or a token below 0.
    """
    right = _rows(labels, "labels")
    for i, row in enumerate(right):
        if any(token < 0 and token != IGNORED for token in row):
            raise InterpError(f"Labels of prompt {i} are {shown(list(row))}. A token is 0 or more; {IGNORED} is none.")
        if all(token == IGNORED for token in row):
            raise InterpError(f"Prompt {i} has no label. Give at least one that is not {IGNORED}.")
    at = None if positions is None else _rows(positions, "positions")
    if at is not None and [len(row) for row in at] != [len(row) for row in right]:
        raise InterpError("labels and positions do not have the same shape. Give one position for each label.")
    return replace(READOUTS["cross_entropy"], labels=right, label_positions=at)


def _rows(values: Any, what: str) -> tuple[tuple[int, ...], ...]:
    """A table of whole numbers, its rows of one length."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(plain, list | tuple) or not all(isinstance(row, list | tuple) and row for row in plain):
        raise InterpError(f"{what} is {shown(values)}. Give a row of token numbers for each prompt.")
    rows = tuple(tuple(whole_number(value, what) for value in row) for row in plain)
    if len({len(row) for row in rows}) != 1:
        raise InterpError(f"Rows of {what} differ in length. Fill up with the label {IGNORED}, at any position.")
    return rows


def custom(
    function: Measure,
    *,
    name: str = "",
    units: str = "",
    minimum_gap: float = 1e-6,
    range: tuple[float, float] = (-math.inf, math.inf),
    compares: bool = False,
    clean: bool = False,
    differentiable: bool = False,
) -> Readout:
    """A read-out of your own.

    Args:
        function: takes logits [prompt, answer, vocab] at the scored positions and ``Answers``; returns [prompt].
        name: what results call it; default the function's.
        units: of the number.
        minimum_gap: smallest clean-corrupted gap that is worth dividing by.
        range: smallest and largest number possible.
        compares: it looks at the incorrect answer.
        clean: it looks at ``answers.clean``, the clean run's logits.
        differentiable: it has a gradient, so that attribution may use it.

    >>> def entropy(logits, answers):
    ...     p = logits[:, 0].softmax(dim=-1)
    ...     return -(p * p.log()).sum(dim=-1)
    >>> custom(entropy, units="nats", differentiable=True).name
    'entropy'

    Raises:
        InterpError: what is given is no function.
    """
    if not callable(function):
        raise InterpError(f"custom takes a function of (logits, answers), not {type(function).__name__}.")
    called = name or getattr(function, "__name__", type(function).__name__)

    def measured(logits: Tensor, answers: Answers) -> Tensor:
        try:
            return function(logits, answers)
        except Exception as error:  # the caller's own, which stays what it is
            error.add_note(f"Raised by read-out {shown(called)}, a function of (logits, answers).")
            raise

    return Readout(
        called, units, measured, minimum_gap, range=range, needs="clean logits" if clean else "logits",
        compares=compares, differentiable=differentiable, own=True,
    )  # fmt: skip


def projection(
    layer: int,
    at: str | int,
    direction: Sequence[float] | Any = None,
    *,
    site: str = "resid_pre",
    head: int | None = None,
) -> Readout:
    """How far an activation lies along a direction: what of a difference is there, whether or not the model can say it.

    Only what comes before the activation is run, and only a change that comes before it (or of it) can change the
    number: a later one leaves it exactly as it is.

    Args:
        layer: of the site.
        at: role or position whose activation is read.
        direction: [width] a vector; the number is the mean of ``activation . direction`` over the role's tokens.
            None: each pair's own clean-corrupted difference; the number is the share of it that is there, 0 in the
            corrupted run and 1 in the clean one. ``"means"``: one direction for all pairs, the difference of the means
            of their clean and their corrupted activations; the number is in units of it, so that the two runs are 1
            apart on average.
        site: any with a vector per layer and token: the stream (``resid_pre resid_mid resid_post``), what is added to
            it (``attn_out mlp_out``), ``q k v z`` and the other sites of heads, or neurons (``mlp_pre mlp_post``).
            The stream after a layer is the one before the next: a patch of either is seen.
        head: of a site of heads, the one that is read (a key-value head, where heads share those). None: all of
            them, ``width`` then being heads times the size of one.

    >>> projection(2, "noun").units
    'fraction'
    >>> projection(2, "noun", site="z", head=1).name
    'projection of z 2 head 1 at noun'

    Raises:
        InterpError: a site without a vector per layer and token, a head where there are none, the stream before layer
            0 (which nothing changes), or a direction that is no vector.
    """
    layer = whole_number(layer, "layer", least=0)
    head = None if head is None else whole_number(head, "head", least=0)
    read = sites.projected_site(site, layer, head)
    if not isinstance(at, str):
        at = whole_number(at, "at", least=0)
    name = f"projection of {site} {layer}{'' if head is None else f' head {head}'} at {at}"
    place = Place(read.name, layer, at, head)
    if direction is None:
        return Readout(name, "fraction", _restored, 0.01, needs="activation", better="more", place=place)
    if isinstance(direction, str) and direction == "means":
        of_all = replace(place, direction="means")
        return Readout(name, "mean differences", _unknown, 0.01, needs="activation", better="more", place=of_all)
    try:
        vector = torch.as_tensor(direction, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterpError(f"direction must be one vector of finite numbers, not {shown(direction)}.") from error
    if vector.ndim != 1 or not vector.isfinite().all() or not vector.any():
        raise InterpError("direction must be one vector of finite numbers, not all 0.")
    return along(Readout(name, "", _unknown, 1e-6, needs="activation", place=place), vector)


def along(readout: Readout, vector: Float[Tensor, " width"]) -> Readout:
    """The same projection on a known vector.

    >>> along(projection(2, "noun", "means"), torch.tensor([3.0, 4.0])).place.direction
    (3.0, 4.0)
    """
    assert readout.place is not None
    numbers = tuple(vector.tolist())

    def measure(activation: Float[Tensor, "prompt token width"], answers: Answers) -> Float[Tensor, " prompt"]:
        return answers.mean(activation @ activation.new_tensor(numbers))

    return replace(readout, place=replace(readout.place, direction=numbers), measure=measure)


def _unknown(activation: Float[Tensor, "prompt token width"], answers: Answers) -> Float[Tensor, " prompt"]:
    raise InterpError("A projection on the difference of means is measured by a sweep, of pairs. Give it as metric=.")


def _restored(activation: Float[Tensor, "prompt token width"], answers: Answers) -> Float[Tensor, " prompt"]:
    """How far along each pair's own difference, from corrupted (0) to clean (1); 0 where they do not differ."""
    assert answers.clean is not None
    assert answers.corrupted is not None
    now, clean, corrupted = (x.cpu().double() for x in (activation, answers.clean, answers.corrupted))
    difference = clean - corrupted
    length = answers.total((difference**2).sum(dim=-1))
    moved = answers.total(((now - corrupted) * difference).sum(dim=-1))
    return torch.where(length > 0, moved / length, 0.0)


def recovered(
    patched: Float[Tensor, "prompt ..."],
    clean: Float[Tensor, " prompt"],
    corrupted: Float[Tensor, " prompt"],
    *,
    minimum_gap: float,
) -> Float[Tensor, "prompt ..."]:
    """Fraction of the clean-corrupted gap present after a patch: ``(patched - corrupted) / (clean - corrupted)``.

    0 is corrupted behaviour and 1 is clean, in both directions; values outside [0, 1] are real and kept.
    NaN for a prompt with ``abs(clean - corrupted) < minimum_gap``: there is nothing to recover.

    The gap is 4 in the first prompt and 0 in the second, which recovers nothing:

    >>> patched, clean, corrupted = (torch.tensor(values) for values in ([3.0, 1.0], [4.0, 1.0], [0.0, 1.0]))
    >>> recovered(patched, clean, corrupted, minimum_gap=0.5).tolist()
    [0.75, nan]
    """
    gap = clean - corrupted
    gap = torch.where(gap.abs() < minimum_gap, torch.full_like(gap, torch.nan), gap)
    shape = (-1,) + (1,) * (patched.ndim - 1)
    return (patched - corrupted.reshape(shape)) / gap.reshape(shape)
