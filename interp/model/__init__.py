"""The model: loaded whole or refused, checked, and readable in every place.

``load`` goes from a name to a model: ``source`` and ``checkpoint`` read its files, ``bridged`` runs what was read,
``live_sites`` and ``checks`` find what holds of it. ``hooked`` is the model. ``arithmetic`` and ``products`` compute
its pieces, and ``families`` has one file per family of models. ``outline`` is a model without its weights, for plans.
"""

from interp.model.bridged import Hook, HookFunction
from interp.model.config import ModelConfig
from interp.model.hooked import HookedTransformer
from interp.model.running import resolve_device
from interp.prompts.tokens import BosPolicy

__all__ = ["BosPolicy", "Hook", "HookFunction", "HookedTransformer", "ModelConfig", "resolve_device"]
