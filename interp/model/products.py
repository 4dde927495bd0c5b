"""Which matrix product is fastest for a weight's shape: measured where the model runs, never assumed.

PyTorch ships two libraries that multiply float32 matrices on x86: MKL, behind ``addmm``, and oneDNN, which can make the
activation part of the product and likes a weight best in a layout of its own. Which is faster depends on processor,
shape, layout and threads, and the wrong one takes up to five times as long. Both are float32 throughout, so a choice
changes rounding alone.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

FEWEST_WEIGHTS = 2**15
"""A matrix of fewer numbers is not measured: any product takes so little time that there is nothing to choose."""
FEWEST_TO_PACK = 2**18
"""A matrix of fewer numbers is not tried in a second layout, nor is one without an activation after it: neither was
ever seen to become faster."""
MEASURED_FLOP = 3e8
"""About how many operations one measured product has: two or three milliseconds of work."""
MEASURED_ROWS = 64, 512
"""Fewest and most rows of a measured product. With fewer, laying out the weight would take most of the time."""
SCOUTING_ROWS = 16
"""Rows of a first, quick measurement of more than two ways; it drops the hopeless ones, but never ``addmm``."""
HOPELESS = 1.5
"""A way is hopeless if it takes this many times as long as the best way of its layout."""
REPEATS, MOST_REPEATS = 2, 4
"""Fewest and most measurements of each way, taken in turns. While the best two of a way differ, more are taken: another
program may be using the machine."""
SETTLED = 1.1
"""The best two measurements of a way agree if the second takes at most this many times as long."""
GAIN, GAIN_BY_PACKING = 1.05, 1.1
"""How many times as fast as ``addmm`` another product must be to be used; and as the best product of the weight as it
lies, a packed one to be worth a second copy of the weight."""


@dataclass(frozen=True)
class Activation:
    """A nonlinearity, and what oneDNN calls it where it can be made part of a matrix product."""

    function: Callable[[Tensor], Tensor]
    fused: tuple[str, str]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x)


@dataclass(frozen=True)
class Way:
    """One way to make ``activation(x @ weight + bias)``: by oneDNN or ``addmm``.

    Attributes:
        onednn: by oneDNN.
        packed: with the weight in oneDNN's own layout, as ``pack`` gives it.
        fused: with the activation as part of the product.
    """

    onednn: bool = False
    packed: bool = False
    fused: bool = False

    def __call__(
        self,
        x: Float[Tensor, "row d_in"],
        weight: Tensor,
        bias: Float[Tensor, " d_out"] | None,
        activation: Activation | None,
    ) -> Float[Tensor, "row d_out"]:
        """The product; ``weight`` [d_in, d_out], or packed."""
        if not self.onednn:
            out = x @ weight if bias is None else torch.addmm(bias, x, weight)
            return out if activation is None else activation(out)
        within = activation.fused if self.fused and activation is not None else ("none", "")
        across = weight if self.packed else weight.T
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, across, bias, within[0], [], within[1])
        return made if self.fused or activation is None else activation(made)

    def __str__(self) -> str:
        """In words."""
        name = "oneDNN" if self.onednn else "addmm"
        return f"{name}{', packed weight' if self.packed else ''}{', activation within' if self.fused else ''}"


ADDMM = Way()
"""PyTorch's own, which exists for every device and data type, and has a gradient."""


@dataclass(frozen=True)
class Choice:
    """The fastest ways found for a weight.

    Attributes:
        as_it_lies: with the weight as it lies.
        packed: with the weight packed; None where that does not gain.
        rows_to_pack: rows of a product from which packing the weight first costs less than it saves.
        rates: operations per second of every way that was measured, fastest first; empty where there was no choice.
    """

    as_it_lies: Way = ADDMM
    packed: Way | None = None
    rows_to_pack: float = 0.0
    rates: tuple[tuple[Way, float], ...] = ()

    def __str__(self) -> str:
        """What is used, and the rates it was chosen by."""
        used = self.as_it_lies if self.packed is None else self.packed
        if not self.rates:
            return f"{used} (no choice)"
        return f"{used} ({'; '.join(f'{way} {rate / 1e9:.0f}' for way, rate in self.rates)} G operations/s)"


NO_CHOICE = Choice()


def pack(weight: Float[Tensor, "d_in d_out"], rows: int) -> Tensor:
    """The weight once more in oneDNN's own layout, for products of about so many rows."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.T, rows)
    return packed


def ways(weight: Float[Tensor, "d_in d_out"], *, activated: bool) -> tuple[Way, ...]:
    """The ways in which this machine can multiply by a weight; ``addmm`` is always one.

    oneDNN multiplies by a weight that is part of a wider matrix (the keys' part of GPT-2's ``c_attn``) with a loop of
    its own, hundreds of times slower, so it gets none.
    """
    whole = weight.is_contiguous() or weight.T.is_contiguous()
    if not (whole and weight.dtype == torch.float32 and weight.device.type == "cpu" and _has_onednn()):
        return (ADDMM,)
    if not activated:
        return ADDMM, Way(onednn=True)
    lying = ADDMM, Way(onednn=True), Way(onednn=True, fused=True)
    if weight.numel() < FEWEST_TO_PACK or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return lying
    return *lying, Way(onednn=True, packed=True), Way(onednn=True, packed=True, fused=True)


def choose(weight: Float[Tensor, "d_in d_out"], *, bias: bool, activation: Activation | None) -> Choice:
    """The fastest ways for a weight, measured once per shape, layout, activation and number of threads."""
    found = ways(weight, activated=activation is not None)
    if len(found) == 1 or weight.numel() < FEWEST_WEIGHTS:
        return NO_CHOICE
    d_in, d_out = weight.shape
    return _measured(found, d_in, d_out, not weight.is_contiguous(), bias, activation, torch.get_num_threads())


@cache
def _measured(
    found: tuple[Way, ...],
    d_in: int,
    d_out: int,
    across: bool,
    has_bias: bool,
    activation: Activation | None,
    threads: int,  # part of what a choice holds for
) -> Choice:
    flop = 2.0 * d_in * d_out
    rows = int(min(max(MEASURED_FLOP / flop, MEASURED_ROWS[0]), MEASURED_ROWS[1]))
    with torch.inference_mode():
        weight = torch.ones(d_out, d_in).T if across else torch.ones(d_in, d_out)
        bias = torch.ones(d_out) if has_bias else None
        started = time.perf_counter()
        packed = pack(weight, rows) if any(way.packed for way in found) else weight
        packing = time.perf_counter() - started

        def seconds(these: Sequence[Way], rows: int) -> dict[Way, float]:
            return _seconds(these, torch.ones(rows, d_in), weight, packed, bias, activation)

        scouted = seconds(found, SCOUTING_ROWS)  # the first products also start the libraries
        measured = seconds(_hopeful(scouted) if len(found) > 2 else found, rows)
    return _chosen({way: spent / rows for way, spent in measured.items()}, flop, packing)


def _seconds(
    found: Sequence[Way], x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None, activation: Activation | None
) -> dict[Way, float]:
    """Best time of each way, taken in turns until the best two of every way agree."""
    seconds: dict[Way, list[float]] = {way: [] for way in found}
    for turn in range(1, MOST_REPEATS + 1):
        for way, spent in seconds.items():
            started = time.perf_counter()
            way(x, packed if way.packed else weight, bias, activation)
            spent.append(time.perf_counter() - started)
            spent.sort()
        if turn >= REPEATS and all(spent[1] <= SETTLED * spent[0] for spent in seconds.values()):
            break
    return {way: spent[0] for way, spent in seconds.items()}


def _hopeful(seconds: dict[Way, float]) -> tuple[Way, ...]:
    """The ways that are not hopeless, and ``addmm``."""
    best = {way.packed: float("inf") for way in seconds}
    for way, spent in seconds.items():
        best[way.packed] = min(best[way.packed], spent)
    return tuple(way for way, spent in seconds.items() if way == ADDMM or spent <= HOPELESS * best[way.packed])


def _chosen(seconds: dict[Way, float], flop: float, packing: float) -> Choice:
    """The fastest, where it gains enough; from seconds and operations per row, and the seconds of packing."""
    rates = tuple((way, flop / seconds[way]) for way in sorted(seconds, key=seconds.__getitem__))
    # With more rows than were measured, the product leaves the processor's cache, and a separate activation has to
    # read it again: so ways that make the activation part of the product are preferred a little.
    ordered = sorted(seconds, key=lambda way: seconds[way] / (GAIN if way.fused else 1.0))
    lying = next(way for way in ordered if not way.packed)
    if seconds[ADDMM] < GAIN * seconds[lying]:
        lying = ADDMM
    packed = next((way for way in ordered if way.packed), None)
    if packed is None or seconds[lying] < GAIN_BY_PACKING * seconds[packed]:
        return Choice(lying, rates=rates)
    return Choice(lying, packed, packing / (seconds[lying] - seconds[packed]), rates)


def _has_onednn() -> bool:
    """Whether this PyTorch has oneDNN's linear layer, and it is the x86 one, which is tested."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available and x86 and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
