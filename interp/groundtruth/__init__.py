"""Models whose circuits are known by construction, to see which methods find them.

Each is a small transformer with weights set by hand, run as any other model is, together with prompts that it answers
and the truth about them: what every head and MLP does, which edges carry the answer, and where in the stream the source
can be read and is used. A method that is right here is not thereby right elsewhere; one that is wrong here is wrong.

>>> from interp import groundtruth
>>> groundtruth.models()[:3]
('plain', 'decoy', 'unread')
>>> truth = groundtruth.build("plain")
>>> truth.components["L0H0"], truth.components["L1H0"], truth.components["L1H1"]
('moves', 'reads', 'idle')
"""

from interp.groundtruth.randomised import at_random
from interp.groundtruth.scoring import Score, score
from interp.groundtruth.value import CARRYING, DOES, NEEDED, GroundTruth
from interp.groundtruth.variants import build, models

__all__ = ["CARRYING", "DOES", "NEEDED", "GroundTruth", "Score", "at_random", "build", "models", "score"]
