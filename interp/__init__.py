"""How does context reach a word? Mechanistic interpretability with a name on every axis.

The public names are resolved when first used, so ``import interp`` loads no torch:

>>> import interp
>>> interp.sites.site("z").description
'attention-weighted values, before W_O'
"""

import importlib
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError

if TYPE_CHECKING:
    from analyses.cli.explanation import Explanation, Influences, explain
    from analyses.cli.notebook import study
    from interp import (
        attribution,
        capacity,
        captures,
        circuits,
        groundtruth,
        heads,
        interventions,
        lenses,
        metrics,
        probes,
        readouts,
        results,
        run,
        sites,
        stats,
        subspaces,
        summary,
        sweeps,
        tasks,
    )
    from interp.display import show
    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPair, PromptPairs, Prompts, Template, Vocabulary
    from interp.report.comparison import compare
    from interp.run import capture
    from interp.sweeps import ablation_sweep, knockout_sweep, path_patching, sweep, sweep_sites

__version__ = "0.1.0"

__all__ = [
    "AnsweredPrompts",
    "Explanation",
    "HookedTransformer",
    "Influences",
    "InterpError",
    "PromptPair",
    "PromptPairs",
    "Prompts",
    "Template",
    "Vocabulary",
    "__version__",
    "ablation_sweep",
    "attribution",
    "capacity",
    "capture",
    "captures",
    "circuits",
    "compare",
    "explain",
    "groundtruth",
    "heads",
    "interventions",
    "knockout_sweep",
    "lenses",
    "metrics",
    "path_patching",
    "probes",
    "readouts",
    "results",
    "run",
    "show",
    "sites",
    "stats",
    "study",
    "subspaces",
    "summary",
    "sweep",
    "sweep_sites",
    "sweeps",
    "tasks",
]

# public name -> the module that defines it, in interp unless it says so; a module that is public itself maps to its own
# name.
_HOME = {
    "AnsweredPrompts": "prompts",
    "HookedTransformer": "model",
    "PromptPair": "prompts",
    "PromptPairs": "prompts",
    "Prompts": "prompts",
    "Template": "prompts",
    "Vocabulary": "prompts",
    "capture": "run",
    "show": "display",
    "compare": "report.comparison",
    "study": "analyses.cli.notebook",
    "Explanation": "analyses.cli.explanation",
    "Influences": "analyses.cli.explanation",
    "explain": "analyses.cli.explanation",
    **{name: "sweeps" for name in ("sweep", "sweep_sites", "path_patching", "ablation_sweep", "knockout_sweep")},
    **{
        name: name
        for name in (
            "attribution",
            "capacity",
            "captures",
            "circuits",
            "groundtruth",
            "heads",
            "interventions",
            "lenses",
            "metrics",
            "probes",
            "readouts",
            "results",
            "run",
            "sites",
            "stats",
            "subspaces",
            "summary",
            "sweeps",
            "tasks",
        )
    },
}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name the first time it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute '{name}'")
    home = _HOME[name]
    module = importlib.import_module(home if home.startswith("analyses.") else f"interp.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
