"""Gradient approximations of exact patching, each checked against it: attribution patching, AtP*, EAP and EAP-IG.

One forward and one backward pass estimate every cell of a sweep, where the exact sweep needs a run per cell. The price
is a straight line in place of the model, which is wrong where attention is saturated or effects cancel; so every
result carries its ``Audit``: exact patching of the cells that look largest and of a random sample of the others. It
says whether the estimates are good as numbers, only as a ranking, or not at all.

>>> from interp import HookedTransformer, tasks
>>> from interp.attribution import attribution_patching
>>> model = HookedTransformer.from_pretrained("mini")
>>> pairs = tasks.build("color-noun", "recall", tokenizer=model, n=2)
>>> attribution_patching(model, pairs, "z").attrs["audit_use"]  # the estimates find the heads, but are too small
'ranking'
"""

from interp.attribution.audit import Audit
from interp.attribution.edges import edge_attribution
from interp.attribution.inputs import input_attribution
from interp.attribution.nodes import attribution_patching

__all__ = ["Audit", "attribution_patching", "edge_attribution", "input_attribution"]
