"""`mini`: a small bilingual GPT-2, trained on generated sentences, that binds colours to nouns.

`WEIGHTS` is a Hugging Face directory (config, safetensors, tokenizer); MODEL_CARD.md says what
the model can and cannot do. Importing this package loads no torch.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"

__all__ = ["WEIGHTS"]
