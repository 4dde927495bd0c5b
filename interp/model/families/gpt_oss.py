"""GPT-OSS: each head has an attention sink, a learned score that takes part of every row (Agarwal et al. 2025)."""

from __future__ import annotations

from interp.model.families.family import Family

FAMILY = Family(sinks="sinks")
