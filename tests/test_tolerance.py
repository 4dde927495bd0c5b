"""The helper that holds every float in the suite, on numbers whose rounding is known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from tests import tolerance
from tests.tolerance import ROUNDINGS, allowed, close, near

EPSILON = tolerance.EPSILON["float32"]
HELD_HERE = ("tolerance.py", "test_tolerance.py")


def test_what_is_allowed_grows_with_the_dtype_and_with_the_size() -> None:
    assert allowed("arithmetic", size=1) == 4 * EPSILON
    assert allowed("pass", size=[-30, 2]) == 30 * allowed("pass", size=1)
    for dtype, epsilon in tolerance.EPSILON.items():
        assert epsilon == torch.finfo(getattr(torch, dtype)).eps
    assert allowed("product", size=1, dtype="bfloat16") == 16 * 2.0**-7
    assert allowed("product", size=1, dtype="float64") == 16 * 2.0**-52
    assert [number for number, _ in ROUNDINGS.values()] == sorted({number for number, _ in ROUNDINGS.values()})


def test_roundings_pass_and_what_is_more_fails() -> None:
    right = np.array([[1.0, -8.0], [0.5, 0.0]])
    for values in (right + 15 * EPSILON * 8, torch.tensor(right) - 15 * EPSILON * 8, xr.DataArray(right)):
        close(values, right, "product")
    off = right.copy()
    off[1, 0] += 17 * EPSILON * 8
    with pytest.raises(AssertionError) as error:
        close(off, right, "product", what="the second")
    assert re.fullmatch(
        r"the second: 1 of 4 differ by more than 1.53e-05 \(16 roundings of float32 at size 8: one sum, .*\)\.\n"
        r"The largest difference, at \[1, 0\], is 1.62e-05, 1.06 times what is allowed: 0.50001\d+, expected 0.5\.",
        str(error.value),
    )
    close(off, right, "product", size=16)
    close(off, right, "product", dtype="bfloat16")


def test_a_wrong_sign_a_neighbour_and_a_lost_term_fail() -> None:
    right = np.random.default_rng(0).normal(size=(3, 4))
    for wrong in (-right, np.roll(right, 1, axis=0), right - 1e-3):
        with pytest.raises(AssertionError, match="times what is allowed"):
            close(wrong, right, "gradient")


def test_nan_and_infinity_must_stand_in_the_same_places() -> None:
    right = np.array([1.0, np.nan, -np.inf])
    close(right, right)
    for place, value in ((0, np.nan), (0, np.inf), (1, 2.0), (2, np.inf)):
        wrong = right.copy()
        wrong[place] = value
        with pytest.raises(AssertionError):
            close(wrong, right)


def test_shapes_must_agree_unless_one_number_is_expected() -> None:
    close(np.ones((2, 3)), 1)
    with pytest.raises(AssertionError, match=r"these: shape \(2, 1\), expected \(2,\)"):
        close(np.ones((2, 1)), np.ones(2), what="these")


def test_zero_needs_the_size_of_what_was_rounded() -> None:
    with pytest.raises(ValueError, match="give size="):
        close(np.zeros(3), 0)
    close(np.full(3, 30 * EPSILON), 0, size=1)
    with pytest.raises(AssertionError):
        close(np.full(3, 40 * EPSILON), 0, size=1)


def test_what_is_no_rounding_has_its_distance_and_its_reason() -> None:
    near(0.51, 0.5, 0.02, why="10,000 draws")
    with pytest.raises(AssertionError, match=r"differ by more than 0.02 \(10,000 draws\)"):
        near([0.5, 0.53], 0.5, 0.02, why="10,000 draws")


def test_every_float_of_the_suite_is_held_by_this_helper() -> None:
    """A tolerance of its own in a test says neither dtype, size nor reason, and fails on the next processor."""
    own = re.compile(r"\b(assert_allclose|assert_close|assert_almost_equal|approx|allclose|isclose|atol|rtol)\b")
    here = Path(__file__).parent
    files = [path for path in here.rglob("*.py") if "benchmarks" not in path.parts and path.name not in HELD_HERE]
    found = [
        f"{path.relative_to(here)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if own.search(line)
    ]
    assert len(files) > 30
    assert not found, "use tests.tolerance.close or near:\n" + "\n".join(found)
