"""Exact sweeps: what one changed activation, edge or attention link does to the answer, for every one of them.

Every number is exact: the model is really run with that one change. What the change cannot reach is not run again
(``interp.sweeps.exact.planner`` says what can), and the rest runs in large batches on the model's own weights.
``tests/sweeps/test_sweep.py`` holds it to the plain loop over TransformerLens hooks.
"""

from interp.sweeps.ablation import ablation_sweep, knockout_sweep, plan_ablation, plan_knockout
from interp.sweeps.cells import Axis, Cells, patch_cells
from interp.sweeps.exact.planner import Plan
from interp.sweeps.graph import Kind, Node, receivers_of, senders_of
from interp.sweeps.labels import token_coords
from interp.sweeps.patching import Direction, base_and_source, plan, plan_sites, sweep, sweep_sites
from interp.sweeps.paths import path_patching, plan_paths
from interp.sweeps.progress import Meter, Progress, shifted
from interp.sweeps.reading import (
    Reading,
    check_ends_at_logits,
    checked_reading,
    described,
    score,
    scored_parts,
    whole_answers,
)

__all__ = [
    "Axis",
    "Cells",
    "Direction",
    "Kind",
    "Meter",
    "Node",
    "Plan",
    "Progress",
    "Reading",
    "ablation_sweep",
    "base_and_source",
    "check_ends_at_logits",
    "checked_reading",
    "described",
    "knockout_sweep",
    "patch_cells",
    "path_patching",
    "plan",
    "plan_ablation",
    "plan_knockout",
    "plan_paths",
    "plan_sites",
    "receivers_of",
    "score",
    "scored_parts",
    "senders_of",
    "shifted",
    "sweep",
    "sweep_sites",
    "token_coords",
    "whole_answers",
]
