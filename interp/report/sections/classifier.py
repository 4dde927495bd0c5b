"""The task classifier, in a lesson of its own: what is added to the model, on which features, and how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from interp import _depth as depth
from interp.language import called, listed, say
from interp.report.blocks import Block, Prose, Steps
from interp.report.inputs import Result
from interp.report.markup import figure_number

KEY = "task-classifier"
"""The anchor of the lesson."""


def lesson(probing: Result) -> list[Block]:
    """From the frozen features to a label with its probability, and what to believe of it."""
    if not probing.has("classifier_layer", "classifier_mean"):
        return []
    opening = say(
        "To make a classifier of a language model, nothing of the model is trained. One linear layer is put on what it "
        "holds at one word, and only that layer learns from labelled texts. In Python: "
        "interp.probes.TaskClassifier(Features(model, site=..., layer=..., at=...)).fit(texts, labels)."
    )
    return [Prose((opening,)), Steps(say("A task classifier on this model"), tuple(_steps(probing)), KEY)]


def _steps(probing: Result) -> list[tuple[str, str, str]]:
    n, k = (int(probing.need_attr(name)) for name in ("n_features", "n_labels"))
    site, role = str(probing.need_attr("classifier_site")), called("role", str(probing.need_attr("classifier_role")))
    layers = [str(layer) for layer in probing.data["classifier_layer"].values.tolist()]
    places = [depth.of(site, layer) for layer in dict.fromkeys(layers)]
    rows = 1 if k == 2 else k  # of two labels one logit is enough
    total = rows * n + rows
    size: dict[str, Any] = {"n": f"{n:,}", "labels": k}
    added = say("All that is added: one row of weights and one constant, whose sign tells the two labels apart.")
    if rows > 1:
        added = say("All that is added: one row of weights and one constant for each of {labels} labels.", **size)
    return [
        (
            say("Features"),
            f"x = {site} ({role}) ∈ ℝ^{n}",
            say(
                "What the frozen model holds at {role}: {n} numbers per text, read {places}.",
                role=role,
                places=listed(places),
                **size,
            ),
        ),
        (
            say("Linear layer"),
            f"W x + b: {rows} × {n:,} + {rows} = {total:,}",
            added,
        ),
        (
            say("Probabilities"),
            "p = softmax(W x + b)" if rows > 1 else "p = 1 ÷ (1 + e^−(W x + b))",
            say(
                "On average its confidence is {error} off how often it is right (expected calibration error), and its "
                "Brier score is {brier}: 0 is certainty in the right label, {uniform} is equal probabilities.",
                error=_number(probing, "classifier_calibration_error"),
                brier=_number(probing, "classifier_brier"),
                uniform=figure_number(1 - 1 / k, 2),
            ),
        ),
        (
            say("Which layer"),
            ", ".join(depth.names(site, layers)),
            say(
                "Each fold chose its layer on parts held out of the texts that it was fitted on, so that no text that "
                "tests the classifier had a say in it."
            ),
        ),
        (say("How sure"), _interval(probing), _sure(probing)),
    ]


def _interval(probing: Result) -> str:
    low, high = (figure_number(float(end), 2) for end in probing.data["classifier_mean_interval"].values)
    return f"{_number(probing, 'classifier_mean')} [{low}, {high}]"


def _sure(probing: Result) -> str:
    groups = int(probing.need_attr("n_groups"))
    return say(
        "Accuracy on {n} texts, each from a fold that held its group out ({groups} groups; each counts once in the "
        "interval). The same layer on random labels: {control}. Guessing: {chance}.",
        n=int(probing.need_attr("n_data")),
        groups=groups,
        control=figure_number(float(np.nanmean(probing.data["classifier_control_accuracy"].values)), 2),
        chance=figure_number(float(probing.data["chance"]), 2),
    )


def _number(probing: Result, name: str) -> str:
    return figure_number(float(probing.data[name]), 2)
