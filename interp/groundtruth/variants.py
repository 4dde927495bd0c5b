"""The hand-made models, each with the one thing that it is there to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from interp.errors import unknown_name
from interp.groundtruth.prompts import AFTER, BEFORE, COLOR_IDS, COLORS, NOUN_IDS, NOUNS, START, WORDS, Form, draw
from interp.groundtruth.value import Does, GroundTruth
from interp.groundtruth.weights import LOGITS, NOISE, SHARP, Head, Mlp, Sizes, Slots, assemble, assemble_rotary
from interp.sites import head_label

N_PROMPTS = 32
"""Pairs of prompts that a model comes with."""
N_LAYERS, N_HEADS, D_HEAD, D_MLP = 3, 4, 16, 8
D_HEAD_ROTARY = 32
"""Width of a rotary head: some of its planes turn too fast to seek features in."""
REST = 1.5 * SHARP
"""Score of the first token for a reader: less than that of the noun with its colour, more than any other."""
SEEN = 0.15
"""Share of its attention that a reader gives to the noun, where attention misleads."""

Edges = tuple[tuple[str, str], ...]
Places = tuple[tuple[int, str], ...]


class _Draft:
    """A model while it is being written: the heads and MLPs that are set so far, and what they do."""

    def __init__(self, form: Form, noise: float, *, rotary: bool) -> None:
        nouns, colors = len(NOUNS), len(COLORS)
        self.rotary, self.d_head = rotary, D_HEAD_ROTARY if rotary else D_HEAD
        self.slots = Slots(
            {"anchor": 1, "token": len(WORDS), "position": form.length, "got": colors, "code": colors, "bound": nouns,
             "asked": nouns, "unread": colors, "gate": 1, "done": 1, "out": colors}
        )  # fmt: skip
        token = self.slots["token"]
        self.start, self.nouns, self.colors = token[START], [token[i] for i in NOUN_IDS], [token[i] for i in COLOR_IDS]
        self.gate, self.done = self.slots["gate"][0], self.slots["done"][0]
        self.does: dict[str, Does] = {}
        self.heads: dict[tuple[int, int], Head] = {}
        self.mlps: dict[int, Mlp] = {}
        self.noise = noise
        self.generator = torch.Generator().manual_seed(0)

    def head(self, layer: int, head: int, does: Does) -> Head:
        """A new head, to be written into."""
        self.does[head_label(layer, head)] = does
        self.heads[layer, head] = Head(self.slots.width, self.d_head)
        return self.heads[layer, head]

    def back(self, layer: int, head: int, does: Does, by: int = 1) -> Head:
        """A head that attends to the token ``by`` places back."""
        made = self.head(layer, head, does)
        if self.rotary:
            return made.look_back(by)
        places = self.slots["position"]
        return made.seek(places[by:], places[:-by])

    def matching(self, layer: int, head: int, does: Does, flag: str = "got", rest: float = REST) -> Head:
        """A head that attends to the same noun where that holds something in a slot, and else to the first token."""
        made = self.head(layer, head, does).seek(self.nouns, self.nouns).prefer(self.slots[flag])
        return made.prefer([self.start], rest)

    def mover(self) -> Head:
        """The head that brings each colour to the noun behind it."""
        return self.back(0, 0, "moves").move(self.colors, self.slots["got"])

    def reader(self, layer: int = 1, head: int = 0, does: Does = "reads", size: float = 1.0) -> Head:
        """The head that finds the noun and writes its colour as the answer."""
        return self.matching(layer, head, does).move(self.slots["got"], self.slots["out"], size)

    def copies(self, head: Head) -> Head:
        """Make a head that attends write a little noise."""
        return head.noise(self.generator, self.noise, seeks=False)

    def fill(self, *, with_mlps: bool) -> None:
        """Make everything that is not set idle."""
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                if (layer, head) not in self.heads:
                    self.head(layer, head, "idle").noise(self.generator, self.noise)
            if with_mlps and layer not in self.mlps:
                self.does[f"MLP{layer}"] = "idle"
                self.mlps[layer] = Mlp.idle(self.slots.width, D_MLP, self.generator)

    def features(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What tokens and positions are embedded as, and which logits the features give."""
        token = torch.zeros(len(WORDS), self.slots.width)
        token[range(len(WORDS)), self.slots["token"]] = 1.0
        places = self.slots["position"]
        position = torch.zeros(len(places), self.slots.width)
        position[range(len(places)), places] = 1.0
        unembed = torch.zeros(self.slots.width, len(WORDS))
        unembed[self.slots["out"], list(COLOR_IDS)] = LOGITS
        return token, position, unembed


# ---- the variants ----


def _plain(draft: _Draft) -> None:
    draft.mover()
    draft.reader()


def _decoy(draft: _Draft) -> None:
    _plain(draft)
    draft.copies(draft.back(0, 2, "decoy"))
    draft.copies(draft.matching(1, 2, "decoy"))


def _unread(draft: _Draft) -> None:
    _plain(draft)
    draft.back(0, 2, "unread", by=2).move(draft.colors, draft.slots["unread"])


def _constant(draft: _Draft) -> None:
    draft.mover()
    draft.reader().prefer([draft.start], 2 * SHARP).prefer([draft.start], -2 * SHARP, when=draft.gate)
    draft.head(0, 1, "constant").prefer([draft.start]).move([draft.start], [draft.gate])


def _backup(draft: _Draft) -> None:
    draft.mover()
    draft.reader().gather(draft.slots["got"], draft.done)
    draft.reader(2, 1, "stands in").prefer([draft.start], 2 * SHARP, when=draft.done)


def _parallel(draft: _Draft) -> None:
    draft.mover()
    draft.reader(size=0.5)
    draft.reader(head=3, size=0.5)


def _mlp(draft: _Draft) -> None:
    draft.mover()
    code = draft.slots["code"]
    draft.mlps[0] = Mlp.converting(draft.slots.width, D_MLP, draft.slots["got"], [*code[1:], code[0]])
    draft.does["MLP0"] = "converts"
    draft.matching(1, 0, "reads", "code").move([*code[1:], code[0]], draft.slots["out"])


def _misleading(draft: _Draft) -> None:
    draft.mover()
    draft.matching(1, 0, "reads", rest=2 * SHARP + math.log((1 - SEEN) / SEEN)).move(
        draft.slots["got"], draft.slots["out"], 1 / SEEN
    )
    draft.copies(draft.matching(1, 2, "decoy"))


def _mlps(draft: _Draft) -> None:
    draft.mover()
    got, code, further, width = (*(draft.slots[name] for name in ("got", "code", "unread")), draft.slots.width)
    for layer, source, target in ((0, got, code), (1, code, further), (2, got, draft.slots["out"])):
        draft.mlps[layer] = Mlp.converting(width, D_MLP, source, target)
        draft.does[f"MLP{layer}"] = "converts"
    draft.matching(2, 0, "reads", "unread").move(further, got)


def _attending(draft: _Draft) -> None:
    _binding(draft, moves="moves")


def _binding(draft: _Draft, moves: Does = "selects") -> None:
    draft.back(0, 0, "selects", by=2).move(draft.nouns, draft.slots["bound"])
    draft.back(0, 1, moves).move(draft.nouns, draft.slots["asked"])
    reader = draft.head(1, 0, "reads").seek(draft.slots["asked"], draft.slots["bound"]).prefer(draft.colors)
    reader.prefer([draft.start], REST).move(draft.colors, draft.slots["out"])


THROUGH_THE_NOUN: Edges = (("embed", "L0H0.v"), ("L0H0", "L1H0.v"), ("L1H0", "logits"))
HELD: Places = (*((layer, "color") for layer in range(N_LAYERS)), (1, "noun"), (2, "noun"), (2, "answer"))
USED: Places = ((0, "color"), (1, "noun"), (2, "answer"))


@dataclass(frozen=True)
class _Variant:
    """What is written, and what is true of it."""

    write: Callable[[_Draft], None]
    summary: str
    edges: Edges = THROUGH_THE_NOUN
    held: Places = HELD
    used: Places = USED
    form: Form = BEFORE
    differs: Literal["color", "asked"] = "color"
    n_kv_heads: int = N_HEADS
    with_mlps: bool = False
    rotary: bool = False
    noise: float = NOISE
    expected: Mapping[str, str] = field(default_factory=dict)


_ATTENTION = "attention says where a head looks, not what it takes from there or who reads it"
_NO_CARRYING = "an ablation takes away whatever a head writes, so what only selects, or is the same always, is lost too"

_FLAT = "the attention is sharp, so that a small change of a query changes nothing, and no gradient passes there"

_VARIANTS: dict[str, _Variant] = {
    "plain": _Variant(_plain, "a head moves the colour to its noun, and another reads it where the noun is said again"),
    "decoy": _Variant(
        _decoy,
        "two more heads look exactly where the mover and the reader look, and write nothing of it",
        expected={"attention": _ATTENTION},
    ),
    "unread": _Variant(
        _unread,
        "one more head copies the colour to the full stop, where nobody reads it",
        held=(*HELD, (1, "stop"), (2, "stop")),
        expected={
            "attention": _ATTENTION,
            "probe": "what can be read of a place need not be used from there",
            "lens": "the lens reads in the directions of the answer alone",
        },
    ),
    "constant": _Variant(
        _constant,
        "one more head writes the same constant everywhere, without which the reader looks elsewhere",
        expected={"zero_ablation": "zero is no value that the head ever has: what the model takes for granted is gone"},
    ),
    "backup": _Variant(
        _backup,
        "a second reader, one layer later, acts where the first is gone",
        edges=(*THROUGH_THE_NOUN, ("L0H0", "L2H1.v"), ("L2H1", "logits")),
        expected={
            name: "one component alone is not missed where another stands in for it, which does nothing until then"
            for name in (
                "denoising",
                "noising",
                "zero_ablation",
                "mean_ablation",
                "resample_ablation",
                "paths_in",
                "paths_out",
                "circuit, exact",
                "circuit, greedy",
            )
        },
    ),
    "parallel": _Variant(
        _parallel,
        "two readers write half of the answer each",
        edges=(*THROUGH_THE_NOUN, ("L0H0", "L1H3.v"), ("L1H3", "logits")),
    ),
    "mlp": _Variant(
        _mlp,
        "an MLP rewrites the colour between the mover and the reader",
        edges=(("embed", "L0H0.v"), ("L0H0", "MLP0"), ("MLP0", "L1H0.v"), ("L1H0", "logits")),
        with_mlps=True,
    ),
    "misleading": _Variant(
        _misleading,
        "the reader looks mostly at the first token, and a head that does nothing looks at the noun alone",
        noise=NOISE / 4,  # its shares of attention are no sharp ones, and any noise moves them
        expected={"attention": _ATTENTION},
    ),
    "grouped": _Variant(
        _plain,
        "the plain circuit where two heads share their keys and values",
        edges=(("embed", "L0KV0.v"), ("L0H0", "L1KV0.v"), ("L1H0", "logits")),
        n_kv_heads=N_HEADS // 2,
    ),
    "rotary": _Variant(
        _plain,
        "the plain circuit in a Llama, where the mover looks one token back by the rotation of queries and keys alone",
        rotary=True,
    ),
    "binding": _Variant(
        _binding,
        "the colour holds its noun, the question holds what it asks for, and a head matches the two",
        edges=(("embed", "L1H0.v"), ("L1H0", "logits")),
        held=(*((layer, "color") for layer in range(N_LAYERS)), (2, "answer")),
        used=((0, "color"), (1, "color"), (2, "answer")),
        form=AFTER,
        expected={name: _NO_CARRYING for name in ("zero_ablation", "mean_ablation", "resample_ablation")},
    ),
    "mlps": _Variant(
        _mlps,
        "two MLPs rewrite the colour at its noun, one after the other, and a third what is read of it",
        edges=(
            ("embed", "L0H0.v"), ("L0H0", "MLP0"), ("MLP0", "MLP1"), ("MLP1", "L2H0.v"), ("L2H0", "MLP2"),
            ("MLP2", "logits"),
        ),
        held=(*((layer, "color") for layer in range(N_LAYERS)), (1, "noun"), (2, "noun")),
        used=((0, "color"), (1, "noun"), (2, "noun")),
        with_mlps=True,
    ),
    "attending": _Variant(
        _attending,
        "what is asked for decides where a head looks, and what it finds there is the same in both prompts",
        edges=(("embed", "L0H1.v"), ("L0H1", "L1H0.q"), ("L1H0", "logits")),
        held=(*((layer, "asked") for layer in range(N_LAYERS)), (1, "answer"), (2, "answer")),
        used=((0, "asked"), (1, "answer"), (2, "answer")),
        form=AFTER,
        differs="asked",
        expected={
            **{name: _NO_CARRYING for name in ("zero_ablation", "mean_ablation", "resample_ablation")},
            **{name: _FLAT for name in ("gradient", "atp*", "eap", "circuit, eap", "circuit, atp*")},
        },
    ),
}  # fmt: skip


def models() -> tuple[str, ...]:
    """The names of all models.

    >>> from interp import groundtruth
    >>> "binding" in groundtruth.models()
    True
    """
    return tuple(_VARIANTS)


def build(name: str) -> GroundTruth:
    """The model of a name with its prompts and its truth.

    Raises:
        InterpError: there is none of that name.

    The head with the constant is gone, and with it the answer; but it carries nothing:

    >>> from interp import ablation_sweep, groundtruth
    >>> truth = groundtruth.build("constant")
    >>> without = ablation_sweep(truth.model, truth.pairs, "z", "zero")["ablation_effect"].mean("prompt")
    >>> without.sel(layer=0, head=1).round().item(), truth.components["L0H1"]
    (-8.0, 'constant')
    """
    if name not in _VARIANTS:
        raise unknown_name("ground-truth model", name, _VARIANTS)
    variant = _VARIANTS[name]
    draft = _Draft(variant.form, variant.noise, rotary=variant.rotary)
    variant.write(draft)
    draft.fill(with_mlps=variant.with_mlps or variant.rotary)
    sizes = Sizes(N_LAYERS, N_HEADS, variant.n_kv_heads, draft.d_head, D_MLP, variant.form.length, len(WORDS))
    token, position, unembed = draft.features()
    if variant.rotary:
        model = assemble_rotary(
            name, sizes, draft.slots, token=token, unembed=unembed, heads=draft.heads, generator=draft.generator
        )
    else:
        model = assemble(
            name, sizes, draft.slots, token=token, position=position, unembed=unembed, heads=draft.heads,
            mlps=draft.mlps,
        )  # fmt: skip
    return GroundTruth(
        name=name,
        summary=variant.summary,
        model=model,
        pairs=draw(variant.form, name, n=N_PROMPTS, seed=0, differs=variant.differs),
        components=dict(sorted(draft.does.items())),
        edges=frozenset(variant.edges),
        held=frozenset(variant.held),
        used=frozenset(variant.used),
        expected=variant.expected,
    )
