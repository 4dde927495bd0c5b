"""A null for "readable": the same probe, on labels exchanged between prompts that differ in the label alone.

What may be exchanged decides what is tested. The two prompts of a pair are the same sentence with one of two words, and
which of them stands first is nobody's choice. If the activations at a place say nothing of the word beyond the
sentence, their labels can change places and nothing is lost: the relabelled data are as likely as the data. So labels
are exchanged *within blocks*, the prompts that differ in the label alone, and never between sentences or held-out
groups. A probe that recognises sentences, nouns or "one of these two words" gains as much under every relabelling, and
no evidence comes of it; one that reads *which* word it is loses it all. The test is exact for any number of
relabellings (Phipson and Smyth 2010), and its p-values are corrected over all places at once by the largest statistic
(max-T, Westfall and Young 1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from interp.errors import InterpError

INDICATORS_AT_ONCE = 2**21
"""Labels of relabelled rows, as indicators, that are held at a time."""


def relabellings(
    labels: Shaped[np.ndarray, " row"], blocks: Shaped[np.ndarray, " row"], *, n: int, seed: int = 0
) -> Int[np.ndarray, "1+relabelling row"]:
    """Labels as numbers, row by row: first as they are, then ``n`` times exchanged at random within blocks.

    >>> drawn = relabellings(np.array(["a", "b", "a", "c"]), np.array([0, 0, 1, 1]), n=20)
    >>> drawn[0].tolist(), sorted(set(map(tuple, drawn.tolist())))
    ([0, 1, 0, 2], [(0, 1, 0, 2), (0, 1, 2, 0), (1, 0, 0, 2), (1, 0, 2, 0)])
    """
    codes = np.unique(labels, return_inverse=True)[1]
    block_of = np.unique(blocks, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    drawn = np.empty((1 + n, len(codes)), dtype=np.intp)
    drawn[0] = codes
    places = np.argsort(block_of, kind="stable")
    for one in drawn[1:]:
        one[places] = codes[np.lexsort((rng.random(len(codes)), block_of))]
    return drawn


def exchangeable(labels: Shaped[np.ndarray, " row"], blocks: Shaped[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Which rows are in a block that has two different labels: where none is, nothing can be exchanged.

    >>> exchangeable(np.array(["a", "b", "a"]), np.array([0, 0, 1])).tolist()
    [True, True, False]
    """
    several = {b for b in np.unique(blocks).tolist() if len(np.unique(labels[blocks == b])) > 1}
    return np.array([b in several for b in blocks.tolist()], dtype=bool)


def ridge_accuracies(
    x: Float[np.ndarray, "row feature"],
    drawn: Int[np.ndarray, "relabelling row"],
    folds: Sequence[Bool[np.ndarray, " row"]],
    *,
    alpha: float | None = None,
) -> Float[np.ndarray, " relabelling"]:
    """Held-out accuracy of a ridge probe under each relabelling, in [0, 1].

    The probe is ``RidgeProbe`` (standardised within the fit). Its predictions are linear in the labels, so that one
    linear system per fold serves all relabellings. Rows whose label the fit lacks do not count.

    Args:
        x: features.
        drawn: labels as numbers from 0, one row per relabelling (``relabellings``).
        folds: which rows each fold tests.
        alpha: the ridge penalty; None is the number of features.

    Raises:
        InterpError: a fold that tests every row, or none.

    >>> rng = np.random.default_rng(0)
    >>> blocks = np.repeat(np.arange(20), 2)
    >>> labels = np.tile([0, 1], 20)
    >>> x = labels[:, None] * 3.0 + rng.normal(size=(40, 4))
    >>> found = ridge_accuracies(x, relabellings(labels, blocks, n=50), [np.arange(40) < 20, np.arange(40) >= 20])
    >>> bool(found[0] > 0.9), bool(found[1:].mean() < 0.65)
    (True, True)
    """
    n_labels = int(drawn.max()) + 1
    right, counted = np.zeros(len(drawn)), np.zeros(len(drawn))
    for test in folds:
        if test.all() or not test.any():
            raise InterpError("A fold must test some rows and leave some to fit on.")
        hat = _hat(x[~test], x[test], alpha)
        for start in range(0, len(drawn), _at_once(n_labels, len(x))):
            some = slice(start, start + _at_once(n_labels, len(x)))
            hits, known = _hits(hat, drawn[some, ~test], drawn[some, test], n_labels)
            right[some] += hits
            counted[some] += known
    with np.errstate(invalid="ignore"):
        return np.asarray(right / counted)


def _at_once(n_labels: int, n_rows: int) -> int:
    """Relabellings whose indicators are held at a time."""
    return max(1, INDICATORS_AT_ONCE // (n_labels * n_rows))


def _hits(
    hat: Float[np.ndarray, "test fit"],
    said: Int[np.ndarray, "relabelling fit"],
    truth: Int[np.ndarray, "relabelling test"],
    n_labels: int,
) -> tuple[Int[np.ndarray, " relabelling"], Int[np.ndarray, " relabelling"]]:
    """How many tested rows are predicted right, and how many have a label that the fit has."""
    indicators = (said.T[:, :, None] == np.arange(n_labels)).astype(np.float64)  # [fit relabelling label]
    seen, share = indicators.any(axis=0), indicators.mean(axis=0)
    centred = (indicators - share).reshape(len(indicators), -1)
    scores = (hat @ centred).reshape(len(hat), *share.shape) + share
    # Equal scores stay equal despite rounding: of equals the first label is said, on every machine.
    scores = np.where(seen, np.round(scores, 8), -np.inf)
    known = np.take_along_axis(seen, truth, axis=1)
    return ((scores.argmax(axis=2).T == truth) & known).sum(axis=1), known.sum(axis=1)


def _hat(
    fit: Float[np.ndarray, "fit feature"], test: Float[np.ndarray, "test feature"], alpha: float | None
) -> Float[np.ndarray, "test fit"]:
    """What each fitted row's label adds to each tested row's prediction."""
    mean, scale = fit.mean(axis=0), fit.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)
    scale = np.where(scale == 0, 1.0, scale)
    inner, outer = (fit - mean) / scale, (test - mean) / scale
    penalty = float(fit.shape[1] if alpha is None else alpha)
    if len(inner) > inner.shape[1]:
        return np.asarray(outer @ np.linalg.solve(inner.T @ inner + penalty * np.eye(inner.shape[1]), inner.T))
    return np.asarray(np.linalg.solve(inner @ inner.T + penalty * np.eye(len(inner)), inner @ outer.T).T)
