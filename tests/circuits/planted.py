"""Models of attention alone whose circuit is known, because every weight of it is written here.

Two layers of four heads on a stream of features, each a pair of coordinates (a, -a). "Red" and "blue" are embedded as
plus and minus the colour, and all that is written of them has either sign, so that no norm tells them apart. All tokens
are embedded with a constant as well: the larger it is, the straighter are the norms, and with 0 they vanish half way
from one colour to the other. Attention is uniform.

Layer 0, head 1 reads the colour and writes it to a place of its own. Layer 1, head 2 reads that place and writes to the
answer, which the logits alone read. Layer 0, head 3 reads the colour too, and what it writes is read by nobody.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge.sources import boot_native

from interp.model import HookedTransformer
from interp.prompts import PromptPairs

RED, BLUE, FILLER, ASK = range(4)
COLOR, OTHER, ASKED, MOVED, ANSWER, UNREAD, CONSTANT = range(7)
D_MODEL, D_HEAD, N_HEADS = 32, 8, 4
MOVER, DECOY, READER = 1, 3, 2


def feature(f: int) -> Tensor:
    """The direction of a feature, [d_model]."""
    direction = torch.zeros(D_MODEL)
    direction[2 * f], direction[2 * f + 1] = 1.0, -1.0
    return direction


def planted(n_kv_heads: int = N_HEADS, *, constant: float = 20.0, blue: float = -1.0) -> HookedTransformer:
    """The model.

    Args:
        n_kv_heads: with fewer than heads, heads share what is read.
        constant: what is embedded of it.
        blue: the colour blue, in units of red.
    """
    sizes: dict[str, Any] = {
        "n_layers": 2, "d_model": D_MODEL, "n_ctx": 8, "d_head": D_HEAD, "n_heads": N_HEADS, "d_vocab": 8,
        "attn_only": True, "act_fn": "relu", "normalization_type": "LN",
    }  # fmt: skip
    if n_kv_heads != N_HEADS:
        sizes["n_key_value_heads"] = n_kv_heads
    bridge = boot_native(sizes)
    parameters = dict(bridge.original_model.named_parameters())
    for name, weight in parameters.items():
        weight.data = torch.full_like(weight, float("ln" in name and name.endswith("weight")))

    def weight(place: str) -> Tensor:
        (found,) = (value for name, value in parameters.items() if name.replace("._original_component", "") == place)
        return found.data

    embedding = weight("tok_embed.weight")
    embedding[RED], embedding[BLUE] = 2 * feature(COLOR), 2 * blue * feature(COLOR)
    embedding[FILLER], embedding[ASK] = 2 * feature(OTHER), 2 * feature(ASKED)
    embedding += constant * feature(CONSTANT)
    group = N_HEADS // n_kv_heads
    for layer, head, reads, writes in ((0, MOVER, COLOR, MOVED), (0, DECOY, COLOR, UNREAD), (1, READER, MOVED, ANSWER)):
        weight(f"layers.{layer}.attn.v.weight")[D_HEAD * (head // group)] = feature(reads)
        weight(f"layers.{layer}.attn.o.weight")[:, D_HEAD * head] = 10 * feature(writes)
    weight("head.weight")[RED], weight("head.weight")[BLUE] = feature(ANSWER), -feature(ANSWER)
    return HookedTransformer.from_bridge(bridge, name="planted")


def path(n_kv_heads: int = N_HEADS) -> set[tuple[str, str]]:
    """The edges of the circuit."""
    group, kind = N_HEADS // n_kv_heads, "H" if n_kv_heads == N_HEADS else "KV"
    reads = [f"L{layer}{kind}{head // group}.v" for layer, head in ((0, MOVER), (1, READER))]
    return {("embed", reads[0]), (f"L0H{MOVER}", reads[1]), (f"L1H{READER}", "logits")}


def planted_pairs() -> PromptPairs:
    """The colour at either of two places; the corrupted prompt has the other one."""
    clean = np.array([[RED, FILLER, ASK], [FILLER, BLUE, ASK], [FILLER, RED, ASK], [BLUE, FILLER, ASK]])
    corrupted = np.where(clean == RED, BLUE, np.where(clean == BLUE, RED, clean))
    color = np.array([0, 1, 1, 0])
    correct, incorrect = clean[np.arange(4), color], corrupted[np.arange(4), color]
    roles = {"color": color, "filler": 1 - color}
    return PromptPairs.from_tokens(clean, corrupted, correct=correct, incorrect=incorrect, roles=roles)
