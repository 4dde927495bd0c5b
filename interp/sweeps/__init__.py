"""Exact sweeps: what one changed activation, edge or attention link does to the answer, for every one of them.

From the question to the labelled result:

1. A *statement* says what is asked, of any model and any prompts: ``Patching``, ``Ablation``, ``AttentionKnockout`` or
   ``PathPatching``. It names the site or the edges, the cells (``Where``), the direction and the read-out.
2. ``cells`` lays out the *cells*, one change each: a layer (or window, or set), a head, a position or role. ``reading``
   says which numbers are read of the logits or of an activation. Together they are a ``statement.Sweep``.
3. One prompt with one cell changed is a *row*. ``exact.planner`` finds the rows whose change can reach the answer, and
   which tokens of them have to be computed again. ``exact.cost`` fits them into memory. ``plan`` stops here.
4. ``engine`` chooses how the rows are run: on the model's own weights (``exact``), or ``through_hooks``.
5. ``exact.cache`` runs the unchanged prompts once and keeps what the rows share. ``exact.change`` works out what each
   change makes of the residual stream. ``exact.batch`` takes the rows through the remaining layers together.
6. ``resume`` keeps finished rows in a store, if one was given, so that an interrupted sweep goes on where it stopped.
7. ``labels`` turns the numbers into an ``xarray.Dataset`` with a name on every axis.

Every number is exact: the model is really run with that one change. ``tests/sweeps/test_sweep.py`` holds it to the
plain loop over TransformerLens hooks.

>>> from interp import HookedTransformer, tasks
>>> from interp.sweeps import Patching, Where, plan
>>> model = HookedTransformer.from_pretrained("mini")
>>> pairs = tasks.build("color-noun", tokenizer=model, n=2)
>>> asked = Patching("z", "denoising", where=Where(roles=["color", "asked"]))
>>> plan(model, pairs, asked).rows_in_all  # prompts x layers x heads x roles
64
>>> asked.run(model, pairs)["z"].recovered.dims  # the same as sweep(model, pairs, "z", roles=["color", "asked"])
('prompt', 'layer', 'head', 'role')
"""

from interp.sweeps.ablation import Ablation, ablation_sweep
from interp.sweeps.budget import bounded, within_budget
from interp.sweeps.cells import Cells, patch_cells
from interp.sweeps.exact.planner import Plan
from interp.sweeps.graph import Kind, Node, receivers_of, senders_of
from interp.sweeps.knockout import AttentionKnockout, knockout_sweep
from interp.sweeps.labels import token_coords
from interp.sweeps.options import Axis, How, Options, Precision, Resources, Where
from interp.sweeps.patching import Direction, Patching, base_and_source, sweep, sweep_sites
from interp.sweeps.paths import PathPatching, path_patching
from interp.sweeps.planning import Statement, Timed, costly, passes, plan, plans_of
from interp.sweeps.progress import Listener, Meter, Progress, listener, shifted
from interp.sweeps.reading import (
    Reading,
    checked_reading,
    described,
    score,
    scored_parts,
    whole_answers,
)

__all__ = [
    "Ablation",
    "AttentionKnockout",
    "Axis",
    "Cells",
    "Direction",
    "How",
    "Kind",
    "Listener",
    "Meter",
    "Node",
    "Options",
    "Patching",
    "PathPatching",
    "Plan",
    "Precision",
    "Progress",
    "Reading",
    "Resources",
    "Statement",
    "Timed",
    "Where",
    "ablation_sweep",
    "base_and_source",
    "bounded",
    "checked_reading",
    "costly",
    "described",
    "knockout_sweep",
    "listener",
    "passes",
    "patch_cells",
    "path_patching",
    "plan",
    "plans_of",
    "receivers_of",
    "score",
    "scored_parts",
    "senders_of",
    "shifted",
    "sweep",
    "sweep_sites",
    "token_coords",
    "whole_answers",
    "within_budget",
]
