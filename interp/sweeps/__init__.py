"""Exact sweeps: what one changed activation, edge or attention link does to the answer, for every one of them.

Every number is exact: the model is really run with that one change. What the change cannot reach is not run again
(``interp.sweeps.exact.planner`` says what can), and the rest runs in large batches on the model's own weights.
``tests/sweeps/test_sweep.py`` holds it to the plain loop over TransformerLens hooks.
"""

from interp.sweeps.ablation import ablation_sweep, knockout_sweep, plan_ablation, plan_knockout
from interp.sweeps.cells import NOT_PATCHED, Axis
from interp.sweeps.exact.planner import Plan
from interp.sweeps.patching import Direction, plan, plan_sites, sweep, sweep_sites
from interp.sweeps.paths import path_patching, plan_paths
from interp.sweeps.progress import Progress
from interp.sweeps.readout import Reading, score

__all__ = [
    "NOT_PATCHED",
    "Axis",
    "Direction",
    "Plan",
    "Progress",
    "Reading",
    "ablation_sweep",
    "knockout_sweep",
    "path_patching",
    "plan",
    "plan_ablation",
    "plan_knockout",
    "plan_paths",
    "plan_sites",
    "score",
    "sweep",
    "sweep_sites",
]
