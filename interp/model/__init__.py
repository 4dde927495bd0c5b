"""The model: loaded whole or refused, checked, and readable in every place.

``hooked`` is the model. ``load`` and ``checkpoint`` read it from files; ``checks`` and ``live_sites`` prove what holds
of it; ``arithmetic`` and ``products`` compute its pieces; ``families`` has one file per family of models.
"""

from interp.model.hooked import Hook, HookedTransformer, HookFunction, ModelConfig, resolve_device
from interp.prompts.tokens import BosPolicy

__all__ = ["BosPolicy", "Hook", "HookFunction", "HookedTransformer", "ModelConfig", "resolve_device"]
