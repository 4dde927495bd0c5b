"""Minimum description length: how short the labels become for somebody who has the features.

Accuracy asks whether a probe can learn a label; the codelength asks how much data and effort that takes (Voita and
Titov 2020, arXiv 2003.12298). A label that is written plainly in the features is learnt from few prompts, so that the
rest costs few bits; random labels stay as long as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from interp import stats
from interp.errors import InterpError, shown
from interp.probes.logistic import REGULARISATION, fitted, probabilities

PORTIONS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the blocks end, as shares of the data: those of Voita and Titov, less their first ones, which hold hardly a
prompt where a study has a few hundred."""


@dataclass(frozen=True)
class Codelength:
    """The length of a set of labels in bits.

    Attributes:
        each: bits of each label with the features, by the online code, in the order of the rows.
        n_labels: K, the number of different labels.

    >>> length = Codelength(each=np.full(100, 0.5), n_labels=4)
    >>> length.bits, length.uniform_bits, length.compression
    (50.0, 200.0, 4.0)
    """

    each: Float[np.ndarray, " row"]
    n_labels: int

    @property
    def n(self) -> int:
        """How many labels are sent."""
        return len(self.each)

    @property
    def bits(self) -> float:
        """Of all labels, with the features."""
        return float(self.each.sum())

    @property
    def uniform_bits(self) -> float:
        """Of all labels without the features: each costs log2 K."""
        return self.n * math.log2(self.n_labels)

    @property
    def compression(self) -> float:
        """How many times shorter the labels are with the features: 1 is no gain, below 1 they mislead."""
        return self.uniform_bits / self.bits

    def compression_interval(
        self, units: Shaped[np.ndarray, " row"] | None = None, *, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile bootstrap interval (95%) of the compression over the rows, or over units of several rows.

        The probes and the order stay as they are: it says how far the compression hangs on which rows were sent, and
        nothing of how other rows would have fitted the probes.

        Args:
            units: rows that share one are drawn together, such as the two prompts of a pair; None draws rows.
            seed: of the draws.

        Returns:
            ``(low, high)``; NaN below two units.

        >>> Codelength(each=np.full(100, 0.5), n_labels=4).compression_interval()
        (4.0, 4.0)
        """
        unit = np.arange(self.n) if units is None else np.unique(units, return_inverse=True)[1]
        bits, rows = np.bincount(unit, self.each), np.bincount(unit)
        low, high = stats.ratio_interval(rows * math.log2(self.n_labels), bits, seed=seed)
        return float(low), float(high)


def online_codelength(
    x: Shaped[np.ndarray, "row feature"],
    labels: Shaped[np.ndarray, " row"],
    *,
    classes: Sequence[object] | np.ndarray | None = None,
    order: Int[np.ndarray, " row"] | None = None,
    portions: Sequence[float] = PORTIONS,
    regularisation: float = REGULARISATION,
    seed: int = 0,
) -> Codelength:
    """The online (prequential) code of labels given features.

    The rows come in blocks. The first block is sent by the uniform code; each later one by a logistic probe fitted on
    all rows before it. A probe's probabilities are mixed with the uniform ones, which count as one row per label: so a
    label that no earlier row had can be sent, and no label costs more than log2(rows so far + K) bits.

    Args:
        x: features (row, feature).
        labels: one per row.
        classes: the set of labels, which both sides know and which costs nothing; None is those that occur.
        order: the order in which the rows are sent; None is drawn with ``seed``. Give it to compare two tasks.
        portions: ascending shares of the rows at which blocks end, the last of them 1.
        regularisation: C of the probes.
        seed: of the order.

    Raises:
        InterpError: fewer than two labels, or portions that do not ascend to 1.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(4, size=200)
    >>> plain = np.eye(4)[labels] + 0.1 * rng.normal(size=(200, 4))
    >>> online_codelength(plain, labels).compression > 2
    True
    >>> round(online_codelength(rng.normal(size=(200, 4)), labels).uniform_bits)
    400
    """
    known = np.unique(labels if classes is None else np.asarray(classes))
    codes = np.searchsorted(known, labels)
    if len(known) < 2:
        raise InterpError("A code needs at least two different labels; all of these are the same.")
    if not np.isin(labels, known).all():
        raise InterpError("A label is not among classes. Give all of them, or leave classes out.")
    ends = _ends(portions, len(codes))
    rows = np.random.default_rng(seed).permutation(len(codes)) if order is None else np.asarray(order)
    each, start = np.full(len(codes), math.log2(len(known))), 0
    for end in ends:
        if start:
            block, before = rows[start:end], rows[:start]
            each[block] = _sent(x, codes, before, block, len(known), regularisation)
        start = end
    return Codelength(each, len(known))


def _ends(portions: Sequence[float], n: int) -> list[int]:
    shares = [float(share) for share in portions]
    if not shares or shares[-1] != 1 or any(a >= b for a, b in zip([0.0, *shares], shares, strict=False)):
        raise InterpError(f"portions must ascend from above 0 to 1, not {shown(portions)}.")
    return list(dict.fromkeys(max(1, round(share * n)) for share in shares))


def _sent(
    x: Shaped[np.ndarray, "row feature"],
    codes: Int[np.ndarray, " row"],
    before: Int[np.ndarray, " fit"],
    block: Int[np.ndarray, " sent"],
    n_labels: int,
    regularisation: float,
) -> Float[np.ndarray, " sent"]:
    """Bits of each row of a block, by a probe of the rows before it."""
    probe = fitted(x[before], codes[before], regularisation=regularisation)
    said = probabilities(probe, x[block], np.arange(n_labels))
    n = len(before)
    right = (n * said[np.arange(len(block)), codes[block]] + 1) / (n + n_labels)
    return np.asarray(-np.log2(right))
