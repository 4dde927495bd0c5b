"""Lenses: what a model would say if it stopped at a place of its residual stream.

The logit lens hands the stream to the final norm and the unembedding as it is.
"""

from interp.lenses.appearance import appears
from interp.lenses.logit import logit_lens

__all__ = ["appears", "logit_lens"]
