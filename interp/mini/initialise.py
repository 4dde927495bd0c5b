"""How `mini` starts: a GPT-2 whose first layer already looks one and two tokens back.

From a plain random start a model of this size stays at "some colour of this context" for longer
than a short run lasts, because several heads must agree before any of them pays. So the start is
biased, and MODEL_CARD.md says so. The stream's 128 dimensions begin as four blocks of 32:

    token | position | token one back | token two back

Embeddings are written in the first block, sinusoids in the second. Three heads of the first layer
begin by position alone: head 0 finds the previous token and copies it to the third block, head 1
the one before that to the fourth, head 2 averages the recent tokens into a random subspace. Three
later heads begin with a preference for positions where one block matches another (`MATCHES`).
Everything else is GPT-2's own small random start; no noun, colour or sentence is built in, and every
weight is trained afterwards.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

D_HEAD = 32
D_MODEL = 4 * D_HEAD
TOKEN, POSITION, ONE_BACK, TWO_BACK = (slice(start, start + D_HEAD) for start in range(0, D_MODEL, D_HEAD))

EMBEDDING_STD = 0.15
POSITION_GAIN = 0.15
LOOK_BACK_GAIN = 1.8
RECENT_GAIN = 1.5
# The slowest pairs: alone they tell near from far, not one position from the next.
RECENT_PAIRS = 6
COPY_GAIN = 0.1
# Heads that begin with a preference: (layer, head, block of the asking position, block of the one it seeks, gain).
MATCHES = (
    (1, 0, TOKEN, ONE_BACK, 0.45),
    (1, 1, ONE_BACK, TOKEN, 0.8),
    (2, 0, ONE_BACK, TOKEN, 0.8),
)
# Keeps the first logits small although the tied embedding is large in its block.
FINAL_GAIN = 0.15


def frequencies() -> Float[Tensor, " pair"]:
    """Radians per token of each sine and cosine pair: six slow ones, then enough to tell neighbours apart."""
    return torch.cat([torch.tensor([0.03, 0.05, 0.08, 0.12, 0.17, 0.24]), torch.linspace(0.4, 2.6, 10)])


def sinusoids(n_ctx: int) -> Float[Tensor, "position d_head"]:
    """Sines (even columns) and cosines (odd columns) of every position."""
    angle = torch.arange(n_ctx)[:, None] * frequencies()
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def rotation(offset: int) -> Float[Tensor, "d_head d_head"]:
    """R such that sinusoids[p] @ R == sinusoids[p - offset]."""
    turn = torch.zeros(D_HEAD, D_HEAD)
    for pair, rate in enumerate(frequencies().tolist()):
        sine, cosine = 2 * pair, 2 * pair + 1
        turn[sine, sine] = turn[cosine, cosine] = math.cos(offset * rate)
        turn[cosine, sine], turn[sine, cosine] = -math.sin(offset * rate), math.sin(offset * rate)
    return turn


@torch.no_grad()
def initialise(model: GPT2LMHeadModel, generator: torch.Generator) -> None:
    """Write the start described above into `model`, in place."""
    transformer = model.transformer
    token, position = transformer.wte.weight, transformer.wpe.weight
    # A little noise everywhere, so that no dimension starts exactly dead.
    token.normal_(0, 0.01, generator=generator)
    token[:, TOKEN].normal_(0, EMBEDDING_STD, generator=generator)
    position.normal_(0, 0.001, generator=generator)
    position[:, POSITION] = POSITION_GAIN * sinusoids(position.shape[0])
    transformer.ln_f.weight.fill_(FINAL_GAIN)

    eye = torch.eye(D_HEAD)
    output = model.get_parameter("transformer.h.0.attn.c_proj.weight")
    query, key, value = model.get_parameter("transformer.h.0.attn.c_attn.weight").chunk(3, dim=1)
    for head in range(3):
        mine = slice(head * D_HEAD, (head + 1) * D_HEAD)
        for matrix in (query, key, value):
            matrix[:, mine] = 0
        output[mine] = 0
        if head < 2:
            query[POSITION, mine] = LOOK_BACK_GAIN * rotation(head + 1)
            key[POSITION, mine] = LOOK_BACK_GAIN * eye
            value[TOKEN, mine] = eye
            output[mine, (ONE_BACK, TWO_BACK)[head]] = COPY_GAIN * eye
        else:
            slow = torch.diag((torch.arange(D_HEAD) < 2 * RECENT_PAIRS).float())
            query[POSITION, mine] = RECENT_GAIN * slow
            key[POSITION, mine] = RECENT_GAIN * slow
            value[TOKEN, mine], _ = torch.linalg.qr(torch.randn(D_HEAD, D_HEAD, generator=generator))
            output[mine] = COPY_GAIN * torch.linalg.qr(torch.randn(D_MODEL, D_HEAD, generator=generator)).Q.T

    for layer, head, asking, offered, gain in MATCHES:
        query, key, _ = model.get_parameter(f"transformer.h.{layer}.attn.c_attn.weight").chunk(3, dim=1)
        mine = slice(head * D_HEAD, (head + 1) * D_HEAD)
        query[asking, mine] += gain * eye
        key[offered, mine] += gain * eye


def new_model(*, vocab: int, n_ctx: int, n_layers: int, end_id: int, seed: int) -> GPT2LMHeadModel:
    """An untrained `mini`; the seed fixes it."""
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=n_ctx,
        n_embd=D_MODEL,
        n_layer=n_layers,
        n_head=D_MODEL // D_HEAD,
        # The same function as gelu_new in one fused kernel; the saved config says gelu_new.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end_id,
        eos_token_id=end_id,
        use_cache=False,
    )
    torch.manual_seed(seed)  # transformers draws its own start from the global generator
    model = GPT2LMHeadModel(config)
    # On a CPU the plain attention has a far cheaper backward pass at these lengths.
    model.set_attn_implementation("eager")
    initialise(model, torch.Generator().manual_seed(seed))
    return model
