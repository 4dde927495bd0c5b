"""Subspaces of activations: erase what a linear probe can read, exchange some directions between two runs.

>>> from interp import subspaces
>>> eraser = subspaces.LEACE().fit([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]], [0, 0, 1, 1])
>>> eraser.transform([[2.0, 5.0]]).round(6).tolist()
[[1.0, 5.0]]
"""

from interp.subspaces.erasure import INLP, LEACE, MeanProjection
from interp.subspaces.interchange import das, interchange, placebo, random_model, random_subspace
from interp.subspaces.places import place, places
from interp.subspaces.subspace import Subspace

__all__ = [
    "INLP",
    "LEACE",
    "MeanProjection",
    "Subspace",
    "das",
    "interchange",
    "place",
    "placebo",
    "places",
    "random_model",
    "random_subspace",
]
