"""Why a head looks, what it writes, and what it does: heads taken apart, each part held to the model's own numbers."""

from interp.heads.composition import composition
from interp.heads.paths import score_paths
from interp.heads.roles import MEASURES, ROLES, roles
from interp.heads.scores import largest, score_attribution
from interp.heads.writing import readers, writes

__all__ = [
    "MEASURES",
    "ROLES",
    "composition",
    "largest",
    "readers",
    "roles",
    "score_attribution",
    "score_paths",
    "writes",
]
