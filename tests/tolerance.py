"""How far two numbers may lie apart in a test: stated once, by dtype, by the size of what is compared, with the reason.

A processor adds up a product in its own order, so the last digits differ from machine to machine and with the number of
threads. What may differ is a number of roundings of the dtype at the size of what is compared:

    tolerance = roundings * epsilon(dtype) * size

``size`` is the largest absolute expected number, or what the test gives: a difference of two logits near 30 is rounded
at 30, however small it is itself. Differences that are no roundings (a sample, a printed decimal, a finite step) are
held to ``near``, which takes the distance and the reason. Tests use nothing else (tests/test_tolerance.py sees to it).
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# What was computed in two ways, and how many roundings at the size of the numbers that may show.
ROUNDINGS: dict[str, tuple[float, str]] = {
    "arithmetic": (4, "a few sums or quotients of the numbers themselves"),
    "product": (16, "one sum, product, norm or softmax, its terms added in another order"),
    "pass": (32, "a pass through the layers of a small model, each product in another order"),
    "gradient": (256, "a pass and its gradient, where a rounding is multiplied on its way back"),
}


def allowed(after: str, *, size: Any, dtype: str = "float32") -> float:
    """The largest rounding after one of ``ROUNDINGS``, at the largest absolute of ``size`` (a number or an array)."""
    roundings, _ = ROUNDINGS[after]
    return roundings * EPSILON[dtype] * _largest(_array(size))


def close(
    actual: Any, expected: Any, after: str = "pass", *, dtype: str = "float32", size: Any = None, what: object = ""
) -> None:
    """Assert that two results differ by rounding alone.

    Args:
        actual: Numbers of any shape: arrays, tensors, labelled arrays, sequences.
        expected: The same shape, or one number. NaN and infinities must stand in the same places.
        after: What was computed in two ways, one of ``ROUNDINGS``.
        dtype: The least precise dtype on the way, whatever the results are stored as.
        size: The largest number that was rounded on the way (a number or an array), where it is not in ``expected``.
        what: Says which case this is, for the message.
    """
    roundings, reason = ROUNDINGS[after]
    size = _largest(_array(expected if size is None else size))
    if not size:
        raise ValueError("Zero has no size of its own to round at: give size=, that of the numbers it came from.")
    tolerance = allowed(after, size=size, dtype=dtype)
    _compare(actual, expected, tolerance, f"{roundings:g} roundings of {dtype} at size {size:.3g}: {reason}", what)


def near(actual: Any, expected: Any, within: float, *, why: str, what: object = "") -> None:
    """Assert that two results differ by at most ``within`` (their own units), for a reason that is no rounding."""
    _compare(actual, expected, within, why, what)


def _compare(actual: Any, expected: Any, tolerance: float, reason: str, what: object) -> None:
    __tracebackhide__ = True
    found, right = _array(actual), _array(expected)
    assert right.ndim == 0 or found.shape == right.shape, f"{what}: shape {found.shape}, expected {right.shape}"
    right = np.broadcast_to(right, found.shape)
    finite = np.isfinite(right)
    np.testing.assert_array_equal(found[~finite], right[~finite], err_msg=f"{what}: where no finite number is expected")
    off = np.abs(np.where(finite, found, 0) - np.where(finite, right, 0))
    wrong = ~(off <= tolerance)  # NaN is wrong
    if not wrong.any():
        return
    worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
    raise AssertionError(
        f"{what or 'The numbers'}: {wrong.sum()} of {off.size} differ by more than {tolerance:.3g} ({reason}).\n"
        f"The largest difference, at {[int(i) for i in worst]}, is {off[worst]:.3g}, "
        f"{off[worst] / tolerance if tolerance else np.inf:.3g} times what is allowed: "
        f"{float(found[worst])!r}, expected {float(right[worst])!r}."
    )


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor; this file does without torch, so that tests that need none load none
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))
