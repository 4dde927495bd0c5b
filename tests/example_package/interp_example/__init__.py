"""What interp knows of the analysis: this is read before torch is loaded."""

from analyses.options import Number, Option, Several
from analyses.registry import Analysis

ENTROPY = Analysis(
    "entropy",
    "interp_example.entropy",
    "How sure is the model of its answer?",
    options=(
        Option(
            "temperatures", Several(Number("a number above 0", above=0), "temperature"), (0.5, 1.0, 2.0),
            "what the logits are divided by",
        ),
    ),
    settled=(),
)  # fmt: skip
