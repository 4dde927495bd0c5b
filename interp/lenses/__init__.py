"""Lenses: what a model would say if it stopped at a place of its residual stream.

The logit lens hands the stream to the final norm and the unembedding as it is. Two others translate it first, by what
was learned of the model on some prompts: the tuned lens is trained to say what the model says in the end, the Jacobian
lens is the mean effect of the stream on that after the last layer. After the last layer all are the model's own output.
"""

from interp.lenses.appearance import appears
from interp.lenses.jacobian import JacobianLens, jacobian_lens
from interp.lenses.logit import logit_lens
from interp.lenses.splitting import held_out
from interp.lenses.trained import TrainedLens, side_by_side
from interp.lenses.tuned import TunedLens, tuned_lens

__all__ = [
    "JacobianLens",
    "TrainedLens",
    "TunedLens",
    "appears",
    "held_out",
    "jacobian_lens",
    "logit_lens",
    "side_by_side",
    "tuned_lens",
]
