"""What a file of a family declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interp.model.arithmetic import Blocks
from interp.model.bridged import BridgedModel


@dataclass(frozen=True)
class Family:
    """How the models of a family are read, and what is particular about them, by which the checks at load go.

    Attributes:
        blocks: reads the model's pieces off its bridge; None where the arithmetic is not written, and sweeps run
            through hooks. It raises ``UnsupportedModelError`` for a variant that is not written.
        sinks: name of the attention's parameter that holds a score per head for its sink: what a sink takes is missing
            from a row of the pattern. Empty where rows sum to 1.
        normed_sums: some of its models normalise the stream after each addition to it (post-norm), so that what a
            layer adds is not the difference of the streams around it.
    """

    blocks: Callable[[BridgedModel], Blocks] | None = None
    sinks: str = ""
    normed_sums: bool = False
