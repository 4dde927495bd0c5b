"""Where the parts of a model sit, as one inline SVG: embedding, blocks, residual stream, unembedding, and a probe."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from interp.language import say
from interp.report.heat import drawing
from interp.report.inputs import Result
from interp.report.markup import element, join


@dataclass(frozen=True)
class Family:
    """How the blocks of an architecture are built, as far as the figure shows it.

    Attributes:
        norm: what stands before attention, before the feed-forward part and before the unembedding.
        learned_positions: whether positions are added to the embedding; otherwise q and k are rotated by them.
    """

    norm: str
    learned_positions: bool


FAMILIES = {
    "GPT2LMHeadModel": Family("LayerNorm", learned_positions=True),
    "LlamaForCausalLM": Family("RMSNorm", learned_positions=False),
    "MistralForCausalLM": Family("RMSNorm", learned_positions=False),
    "Qwen2ForCausalLM": Family("RMSNorm", learned_positions=False),
}
"""Architectures whose block is what is drawn: norm, attention, sum; norm, feed-forward, sum. Others are not drawn."""


@dataclass(frozen=True)
class Anatomy:
    """The sizes of a model, as its results state them."""

    model: str
    family: Family
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int

    @classmethod
    def of(cls, patterns: Result) -> Anatomy | None:
        """What a run's patterns say of its model; None if its architecture is not in ``FAMILIES``."""
        family = FAMILIES.get(patterns.attr("architecture"))
        if family is None or "d_model" not in patterns.data.attrs:
            return None
        sizes = (int(patterns.need_attr(name)) for name in ("d_model", "d_head", "d_mlp", "d_vocab"))
        return cls(patterns.attr("model"), family, *(patterns.data.sizes[dim] for dim in ("layer", "head")), *sizes)

    def parts(self) -> tuple[tuple[str, str, str], ...]:
        """Each part from the tokens up: its name, its size, and what it does."""
        start = say("a token's number becomes a vector, to which that of its position is added")
        if not self.family.learned_positions:
            start = say("a token's number becomes a vector; its position turns q and k, in every head")
        return (
            (say("embedding"), f"{self.d_vocab} × {self.d_model}", start),
            (
                say("residual stream"),
                str(self.d_model),
                say("one vector per token, through all layers; every part reads it and adds to it"),
            ),
            (
                say("attention"),
                say("{heads} heads of {size}", heads=self.n_heads, size=self.d_head),
                say("the only part that moves anything from one token to another"),
            ),
            (
                say("feed-forward"),
                say("{count} neurons", count=self.d_mlp),
                say("works on each token by itself"),
            ),
            (
                say("unembedding"),
                f"{self.d_model} × {self.d_vocab}",
                say("the stream at a token becomes a number for every possible next token"),
            ),
            (
                say("probe"),
                say("one per layer"),
                say("a classifier for the task, fitted to the stream afterwards: no part of the model"),
            ),
        )


WIDE, BLOCK, STREAM = 252.0, 250.0, 190.0
"""Width of a box, height of the block, and where the stream runs."""


def figure(model: Anatomy, *, key: str, title: str, description: str, classifier: str = "") -> Markup:
    """Draw the parts, the first at the bottom as layers are drawn everywhere on the page.

    ``classifier`` is the anchor of what is said of a task classifier, if the page has it; the probe's box leads there.

    >>> gpt2 = Anatomy("gpt2", FAMILIES["GPT2LMHeadModel"], 12, 12, 768, 64, 3072, 50257)
    >>> drawn = figure(gpt2, key="k", title="t", description="d")
    >>> "block, 12 times" in drawn, drawn.count("LayerNorm")
    (True, 3)
    """
    right = STREAM + 40
    top = 116.0
    floor = top + BLOCK
    embedding = say("embedding + positions") if model.family.learned_positions else say("embedding")
    parts = [
        element("line", class_="line a", x1=STREAM, x2=STREAM, y1=40.0, y2=floor + 30),
        element("rect", class_="rule void", x=STREAM - 34, y=top, width=WIDE + 94, height=BLOCK, rx=6),
        element("line", class_="line a", x1=STREAM, x2=STREAM, y1=top, y2=floor),
        _text(right, top + 20, say("block, {count} times", count=model.n_layers), "tick strong", "start"),
        _box(STREAM - WIDE / 2, 8.0, say("unembedding ({size})", size=f"{model.d_model} → {model.d_vocab}")),
        _box(STREAM - WIDE / 2, 52.0, say("final {norm}", norm=model.family.norm)),
        _branch(top + 36, model.family.norm, say("feed-forward ({count} neurons)", count=model.d_mlp), right),
        _branch(top + 146, model.family.norm, say("attention ({count} heads)", count=model.n_heads), right),
        _box(STREAM - WIDE / 2, floor + 22, f"{embedding} ({model.d_vocab} → {model.d_model})"),
        _text(STREAM, floor + 68, say("tokens"), "tick", "middle"),
        _text(STREAM - 42, top + 128, say("residual stream"), "axis", "end"),
        _text(STREAM - 42, top + 143, say("({size} numbers per token)", size=model.d_model), "axis", "end"),
        element("line", class_="line c", x1=108.0, x2=STREAM, y1=top + 20, y2=top + 20),
        _probe(top, classifier),
    ]
    return drawing(parts, (STREAM + WIDE + 70, floor + 76), key=key, title=title, description=description)


def _probe(top: float, classifier: str) -> Markup:
    """The box of what reads the stream from outside."""
    box = element("rect", class_="mark reader", x=4.0, y=top + 4, width=104.0, height=32.0, rx=4)
    words = say("classifier") if classifier else say("probe")
    named = join([box, _text(56.0, top + 24, words, "tick strong", "middle")])
    return element("a", named, href=f"#{classifier}") if classifier else named


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> Markup:
    return element("text", words, class_=kind, x=x, y=y, text_anchor=anchor)


def _box(x: float, y: float, words: str) -> Markup:
    """A part with its name."""
    ground = element("rect", class_="s3", x=x, y=y, width=WIDE, height=28.0, rx=4)
    return join([ground, _text(x + WIDE / 2, y + 18, words, "value s3t", "middle")])


def _branch(y: float, norm: str, words: str, x: float) -> Markup:
    """What reads the stream below, through a norm, and is added to it above."""
    low, high = y + 86, y + 4
    path = f"M{STREAM:g} {low:g}H{x + WIDE / 2:g}V{high:g}H{STREAM:g}"
    plus = element("circle", class_="d36", cx=STREAM, cy=high, r=9.0)
    sign = _text(STREAM, high + 4.5, "+", "value d36t", "middle")
    return join([element("path", class_="line e", d=path), plus, sign, _box(x, y + 16, words), _box(x, y + 50, norm)])
