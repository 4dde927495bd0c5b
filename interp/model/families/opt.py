"""OPT: like GPT-2; its 350M model normalises the stream after each addition to it (Zhang et al. 2022, 2205.01068)."""

from __future__ import annotations

from interp.model.families.family import Family

FAMILY = Family(normed_sums=True)
