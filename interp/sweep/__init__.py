"""Exact sweeps: what one changed activation, edge or attention link does to the answer, for every one of them.

Every number is exact: the model is really run with that one change. What the change cannot reach is not run again
(``interp.sweep.plan`` says what can), and the rest runs in large batches on the model's own weights.
``tests/test_sweep.py`` holds it to the plain loop over TransformerLens hooks.
"""

from interp.sweep.ablation import ablation_sweep, knockout_sweep, plan_ablation, plan_knockout
from interp.sweep.cells import NOT_PATCHED, Axis
from interp.sweep.patch import Direction, plan, plan_sites, sweep, sweep_sites
from interp.sweep.paths import path_patching, plan_paths
from interp.sweep.plan import Plan
from interp.sweep.progress import Progress
from interp.sweep.readout import Reading, score

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
