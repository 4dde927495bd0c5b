"""Probes: what can be read from a model's activations, how surely, and how cheaply.

``TaskClassifier`` puts a linear layer on ``Features`` of a model. ``MeanDifference`` and ``RidgeProbe`` have a closed
form and are exact in one pass over features that stay on disk (``Features.to``, ``fit_stored``). ``online_codelength``,
``expected_calibration_error`` and ``brier_score`` say more of a probe than its accuracy, and the null of
``relabellings`` and ``ridge_accuracies`` whether that accuracy is more than chance, over a whole grid of places.
``transfer`` fits a probe on some prompts and tests it on those of another rung or language.
"""

from interp.probes.across import same_words, transfer
from interp.probes.calibration import brier_score, expected_calibration_error
from interp.probes.classifier import TaskClassifier
from interp.probes.codelength import Codelength, online_codelength
from interp.probes.features import Features, fit_stored
from interp.probes.linear import MeanDifference, RidgeProbe
from interp.probes.logistic import chosen_regularisation
from interp.probes.null import exchangeable, relabellings, ridge_accuracies
from interp.stored import StoredFeatures

__all__ = [
    "Codelength",
    "Features",
    "MeanDifference",
    "RidgeProbe",
    "StoredFeatures",
    "TaskClassifier",
    "brier_score",
    "chosen_regularisation",
    "exchangeable",
    "expected_calibration_error",
    "fit_stored",
    "online_codelength",
    "relabellings",
    "ridge_accuracies",
    "same_words",
    "transfer",
]
