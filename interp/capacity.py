"""What a study takes: memory and hours by model, device and number of workers. Arithmetic alone, no model.

Operations and rows are those of a plan (``interp.sweeps.plan``), which follows from the tokens. A device is the rate at
which sweeps go there, and its memory. A rate is measured, or it is extrapolated from the peak that a maker publishes;
each figure says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from interp.errors import InterpError, whole_number

How: TypeAlias = Literal["measured", "extrapolated"]

UTILISATION = 0.35
"""Share of a published float32 peak that sweeps are taken to reach on a GPU: what an H200 reached (``GPUS``)."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that its costs follow from.

    Attributes:
        n_layers: layers.
        d_model: width of the residual stream.
        n_heads: attention heads of a layer.
        n_kv_heads: heads of keys and values.
        d_head: width of a head.
        d_mlp: width of a layer's MLP.
        gated: whether the MLP multiplies two projections (SwiGLU), and so has three matrices.
        vocab: tokens of the vocabulary.
        tied: whether unembedding and embedding are one matrix.
        n_positions: learned position embeddings; 0 for rotary ones.

    >>> f"{SHAPES['gpt2-xl'].n_parameters / 1e9:.2f}", f"{SHAPES['llama-3.1-8b'].n_parameters / 1e9:.2f}"
    ('1.56', '8.03')
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    gated: bool
    vocab: int
    tied: bool
    n_positions: int = 0

    @property
    def per_layer(self) -> int:
        """Weights in the matrices of a layer."""
        attention = self.d_model * self.d_head * (2 * self.n_heads + 2 * self.n_kv_heads)
        return attention + (3 if self.gated else 2) * self.d_model * self.d_mlp

    @property
    def n_parameters(self) -> int:
        """Weights in all, but for biases and norms."""
        embedding = (1 if self.tied else 2) * self.vocab * self.d_model
        return self.n_layers * self.per_layer + embedding + self.n_positions * self.d_model

    def flop_per_token(self, length: int) -> float:
        """Floating-point operations of one layer for one token of a prompt of ``length`` tokens."""
        return 2.0 * self.per_layer + 4.0 * self.n_heads * self.d_head * length


SHAPES: Mapping[str, Shape] = {
    "gpt2": Shape(12, 768, 12, 12, 64, 3072, False, 50257, True, 1024),
    "gpt2-xl": Shape(48, 1600, 25, 25, 64, 6400, False, 50257, True, 1024),
    "llama-3.1-8b": Shape(32, 4096, 32, 8, 128, 14336, True, 128256, False),
    "llama-3.1-70b": Shape(80, 8192, 64, 8, 128, 28672, True, 128256, False),
}
"""Published sizes (Radford et al. 2019; Grattafiori et al. 2024, arXiv 2407.21783)."""


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        name: of it.
        rate: floating-point operations of a sweep in a second.
        memory: bytes; None where it is not known.
        how: whether the rate was measured.
        shared: workers share it, as the processors of one machine; otherwise each has one of its own.
        source: where the figures come from.

    >>> Device("here", 5e10, None, "measured", shared=True).rate
    50000000000.0
    """

    name: str
    rate: float
    memory: int | None
    how: How
    shared: bool = False
    source: str = ""


def published(name: str, teraflops: float, gigabytes: int, source: str) -> Device:
    """A GPU by what its maker says of it: dense float32 products (TF32 off) per second, and memory.

    >>> published("A100", 19.5, 80, "data sheet").how
    'extrapolated'
    """
    return Device(name, UTILISATION * teraflops * 1e12, gigabytes * 10**9, "extrapolated", source=source)


GPUS = (
    published("L4", 30.3, 24, "NVIDIA L4 data sheet, FP32"),
    published("A100 80 GB", 19.5, 80, "NVIDIA A100 data sheet, FP32"),
    published("H100 SXM", 67.0, 80, "NVIDIA H100 data sheet, FP32"),
    Device("H200", 2.4e13, 141 * 10**9, "measured", source="tests/benchmarks/gpu.py, GPT-2 XL's shape, 2026-11-27"),
)
"""Sweeps compute in float32 unless told otherwise, so that the peak without tensor cores is the one that counts.

Of 8 prompts of 32 tokens with random weights of GPT-2 XL's shape, an H200 made 1.4e13 planned operations a second of a
sweep of ``resid_pre`` and 3.7e13 of one of ``z``; in bfloat16 3.0e13 and 3.4e14 (Llama 3.1 8B's shape: 3.7e14 of each).
"""


@dataclass(frozen=True)
class Work:
    """What there is to do, as plans say it.

    Attributes:
        rows: rows that are computed.
        flop: floating-point operations.
        peak_bytes: memory beside the weights.
        weight_bytes: of the model.
        how: whether the operations are those of this model's own plan, or scaled from another's.
        undivided: operations that no number of workers divides: unchanged runs, and the largest batch of each.

    >>> Work(rows=10, flop=2e12, peak_bytes=2**30, weight_bytes=2**32).how
    'measured'
    """

    rows: int
    flop: float
    peak_bytes: int
    weight_bytes: int
    how: How = "measured"
    undivided: float = 0.0

    def scaled(self, of: Shape, to: Shape, *, length: int, bytes_per_weight: int = 4) -> Work:
        """The same rows on a model of as many layers and heads, but of other widths.

        Args:
            of: the shape of the model that was planned.
            to: the other shape.
            length: tokens of a prompt.
            bytes_per_weight: 4 in float32.

        Raises:
            InterpError: other numbers of layers or heads, which have other rows.

        >>> narrow, wide = Shape(2, 8, 2, 2, 4, 32, False, 10, True), Shape(2, 16, 2, 2, 8, 64, False, 10, True)
        >>> Work(5, 1e6, 100, 0).scaled(narrow, wide, length=0).flop
        4000000.0
        """
        if (of.n_layers, of.n_heads, of.n_kv_heads) != (to.n_layers, to.n_heads, to.n_kv_heads):
            raise InterpError("Rows depend on the numbers of layers and heads. Plan a model that has those.")
        wider = to.flop_per_token(length) / of.flop_per_token(length)
        held, weights = int(self.peak_bytes * to.d_model / of.d_model), to.n_parameters * bytes_per_weight
        return Work(self.rows, self.flop * wider, held, weights, "extrapolated", self.undivided * wider)


@dataclass(frozen=True)
class Bill:
    """What some work takes on a device.

    Attributes:
        device: its name.
        workers: how many share the work.
        memory: bytes of each worker: weights, and what is held beside them.
        fits: whether the device has that memory; of workers that share it, for all of them. None: not known.
        seconds: at least; what is not planned, loading, and workers that wait come on top.
        how: ``measured`` where the rate and the plan both are, else ``extrapolated``.

    >>> Bill("here", 1, 10**9, True, 60.0, "measured").fits
    True
    """

    device: str
    workers: int
    memory: int
    fits: bool | None
    seconds: float
    how: How


def bill(work: Work, device: Device, workers: int = 1) -> Bill:
    """What work takes on so many workers, each with a copy of the model.

    Workers that each have a device divide the time. Workers that share one divide its rate, so that they save no time
    beyond what a single one leaves idle, which is not counted here. Several take no less than what they cannot divide.

    Raises:
        InterpError: fewer than one worker.

    >>> work = Work(rows=100, flop=1e14, peak_bytes=10**9, weight_bytes=3 * 10**9)
    >>> alone, four = (bill(work, GPUS[1], workers) for workers in (1, 4))
    >>> alone.memory, alone.fits, round(alone.seconds / four.seconds, 6), alone.how
    (4000000000, True, 4.0, 'extrapolated')
    >>> lopsided = Work(rows=100, flop=1e14, peak_bytes=0, weight_bytes=0, undivided=8e13)
    >>> round(bill(lopsided, GPUS[1], 4).seconds / bill(lopsided, GPUS[1]).seconds, 6)
    0.8
    """
    n = whole_number(workers, "workers", least=1)
    memory = work.weight_bytes + work.peak_bytes
    needed = memory * (n if device.shared else 1)
    divided = work.flop / (1 if device.shared else n)
    return Bill(
        device=device.name,
        workers=n,
        memory=memory,
        fits=None if device.memory is None else needed <= device.memory,
        seconds=(divided if n == 1 else max(divided, work.undivided)) / device.rate,
        how="measured" if device.how == work.how == "measured" else "extrapolated",
    )


HEADER = ("device", "workers", "memory of each", "fits", "at least", "figures")


def row(one: Bill) -> tuple[str, ...]:
    """A bill as a row of a table under ``HEADER``.

    >>> row(Bill("here", 2, 3 * 10**9, True, 7200.0, "measured"))
    ('here', '2', '3.0 GB', 'yes', '2.0 h', 'measured')
    """
    fits = {True: "yes", False: "no", None: "not known"}[one.fits]
    return one.device, str(one.workers), f"{one.memory / 1e9:.1f} GB", fits, in_time(one.seconds), one.how


def in_time(seconds: float) -> str:
    """A time in the unit that fits it.

    >>> in_time(0.2), in_time(90), in_time(1800), in_time(7200), in_time(1e6)
    ('under 1 s', '90 s', '30 min', '2.0 h', '11.6 days')
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
