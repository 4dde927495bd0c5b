"""Subspaces of activations: erase what a linear probe can read, exchange one direction between two runs.

>>> from interp import subspaces
>>> eraser = subspaces.LEACE().fit([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]], [0, 0, 1, 1])
>>> eraser.transform([[2.0, 5.0]]).round(6).tolist()
[[1.0, 5.0]]
"""

from interp.subspaces.erasure import INLP, LEACE, MeanProjection
from interp.subspaces.subspace import Subspace

__all__ = ["INLP", "LEACE", "MeanProjection", "Subspace"]
