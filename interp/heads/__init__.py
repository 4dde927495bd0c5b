"""Why a head looks, what it writes, and what it does: heads taken apart, each part held to the model's own numbers."""

from interp.heads.composition import composition
from interp.heads.scores import score_attribution

__all__ = ["composition", "score_attribution"]
