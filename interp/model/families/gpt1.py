"""GPT-1: the stream is normalised after each addition to it (Radford et al. 2018)."""

from __future__ import annotations

from interp.model.families.family import Family

FAMILY = Family(normed_sums=True)
