"""How does context reach a word? Mechanistic interpretability with a name on every axis.

The public names are resolved when first used, so ``import interp`` loads no torch:

>>> from interp import HookedTransformer, Template, PromptPairs, capture, sweep  # doctest: +SKIP
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError

if TYPE_CHECKING:
    from analyses._notebook import study
    from interp import attribution, interventions, metrics, readouts, results, run, sites, stats, tasks
    from interp.model import HookedTransformer
    from interp.prompts import AnsweredPrompts, PromptPair, PromptPairs, Template
    from interp.run import capture
    from interp.sweep import ablation_sweep, knockout_sweep, path_patching, sweep, sweep_sites
    from interp.tokens import Prompts

__version__ = "0.1.0"

__all__ = [
    "AnsweredPrompts",
    "HookedTransformer",
    "InterpError",
    "PromptPair",
    "PromptPairs",
    "Prompts",
    "Template",
    "__version__",
    "ablation_sweep",
    "attribution",
    "capture",
    "interventions",
    "knockout_sweep",
    "metrics",
    "path_patching",
    "readouts",
    "results",
    "run",
    "sites",
    "stats",
    "study",
    "sweep",
    "sweep_sites",
    "tasks",
]

# public name -> the module that defines it, in interp unless it says so; a module that is public itself maps to its own
# name.
_HOME = {
    "AnsweredPrompts": "prompts",
    "HookedTransformer": "model",
    "PromptPair": "prompts",
    "PromptPairs": "prompts",
    "Prompts": "tokens",
    "Template": "prompts",
    "capture": "run",
    "study": "analyses._notebook",
    **{name: "sweep" for name in ("sweep", "sweep_sites", "path_patching", "ablation_sweep", "knockout_sweep")},
    **{
        name: name
        for name in ("attribution", "interventions", "metrics", "readouts", "results", "run", "sites", "stats", "tasks")
    },
}
_FUNCTIONS_NAMED_LIKE_THEIR_MODULE = frozenset({"sweep"})


def __getattr__(name: str) -> Any:
    """Import the module behind a public name the first time it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute '{name}'")
    home = _HOME[name]
    module = importlib.import_module(home if home.startswith("analyses.") else f"interp.{home}")
    is_module = _HOME[name] == name and name not in _FUNCTIONS_NAMED_LIKE_THEIR_MODULE
    value = module if is_module else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``interp.sweep`` the function, whoever imports the module of the same name and when.

    Importing a submodule sets it as an attribute of its package; for ``sweep`` that would hide the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FUNCTIONS_NAMED_LIKE_THEIR_MODULE and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
