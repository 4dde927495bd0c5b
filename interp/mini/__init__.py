"""`mini`: a small bilingual GPT-2, trained on generated sentences, that binds colours to nouns.

`WEIGHTS` is a Hugging Face directory (config, safetensors, tokenizer); MODEL_CARD.md says what
the model can and cannot do. Importing this package loads no torch.
"""

from pathlib import Path

NAME = "mini"
WEIGHTS = Path(__file__).parent / "weights"

CAVEAT = (
    "mini is a model organism: it started with heads that look back (L0H0, L0H1), average over recent tokens (L0H2) "
    "and match tokens (L1H0, L1H1, L2H0), so where such heads are found is no accident of training (MODEL_CARD.md)"
)
"""What every finding about this model has to be read with."""

__all__ = ["CAVEAT", "NAME", "WEIGHTS"]
