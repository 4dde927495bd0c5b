"""The place of ``interp.sweeps`` in version 0.1, kept for one version.

``from interp.sweep import path_patching`` works and says where the name is now. ``interp.sweep`` itself stays the
function, so this module puts the function in its own place: importing a submodule binds what stands in `sys.modules`.
"""

import sys
import warnings

from interp import sweeps

warnings.warn("Import from interp.sweeps: interp.sweep is the function only.", DeprecationWarning, stacklevel=2)
for _name in sweeps.__all__:
    setattr(sweeps.sweep, _name, getattr(sweeps, _name))
sys.modules[__name__] = sweeps.sweep  # type: ignore[assignment]
