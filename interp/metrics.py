"""The earlier name of ``interp.readouts``: import from there."""

from interp.readouts import READOUTS as METRICS
from interp.readouts import (
    Readout,
    log_probability,
    logit_difference,
    probability,
    rank,
    recovered,
)
from interp.readouts import readout as metric

__all__ = [
    "METRICS",
    "MINIMUM_GAP",
    "UNITS",
    "Readout",
    "log_probability",
    "logit_difference",
    "metric",
    "probability",
    "rank",
    "recovered",
]

UNITS = {name: one.units for name, one in METRICS.items()}
MINIMUM_GAP = {name: one.minimum_gap for name, one in METRICS.items()}
