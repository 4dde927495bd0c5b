"""How one attention head reads: the arithmetic of one word, from q·k to z."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from interp.errors import InterpError
from interp.language import called, say, say_stored
from interp.report import anatomy, attention
from interp.report.attention import Patterns
from interp.report.blocks import Block, Figure, Living, Notice, Panel, Prose, Section, Steps
from interp.report.bundle import Bundle
from interp.report.heat import Grid, colour_legend, heatmap
from interp.report.inputs import Result, RunInputs
from interp.report.markup import figure_number
from interp.report.palette import Scale
from interp.report.sections import classifier, patterns
from interp.report.tables import Cell, Column, Table
from interp.report.verdict import Verdict
from interp.report.words import spelled, token_strip
from interp.sites import head_label

TOLERANCE = 1e-3
"""How far sums may be from what they should be before the page says so, as a share of their size (float32)."""

MIXED = 4
"""How many source words the mix of values names; the others are summed."""


def section(run: RunInputs, verdict: Verdict, bundle: Bundle | None) -> Section | None:
    """The lesson and the patterns, or ``None`` when neither is there."""
    result, holder = run.get("attention_lesson"), attention.holder(run)
    if result is None and holder is None:
        return None
    made: list[Block] = []
    if holder is not None:
        made += _anatomy(holder, run.get("probing"))
    if result is not None:
        if holder is not None and run.get("attention_vectors") is not None:
            made.append(_living())
        made += _arithmetic(result, _read(result))
    if holder is not None:
        made += patterns.blocks(Patterns.of(holder), verdict, attention.named_head(run), bundle)
    else:
        text = say("This run has no results/attention_patterns.nc, so no pattern is drawn.")
        made.append(Notice("note", "", text))
    lead = say(
        "A word asks a question (its query q). Every word up to it offers a label (its key k) and something to hand "
        "over (its value v). How well question and label match decides how much is handed over."
    )
    return Section("lesson", say("How one head reads"), lead, made, say("One head, by hand"))


def _anatomy(patterns: Result, probing: Result | None) -> list[Block]:
    """Where the head sits in the model, for the architectures that the figure knows."""
    model = anatomy.Anatomy.of(patterns)
    if model is None:
        return []
    columns = tuple(Column(name) for name in (say("part"), say("size"), say("what it does")))
    title = say("Where the parts of {model} sit", model=model.model)
    leads_to = classifier.KEY if probing is not None and classifier.lesson(probing) else ""
    drawn = anatomy.figure(
        model, key="anatomy-map", title=title, description=say("From the tokens up."), classifier=leads_to
    )
    return [
        Figure.of(
            patterns,
            "anatomy",
            title,
            say(
                "From the tokens up. Every block reads the residual stream twice, each time through its norm "
                "({norm}), and adds what it finds: first attention, then the feed-forward part. GPT-2 small is built "
                "of the same parts: 12 blocks of 12 heads and 768 numbers per token, with two LayerNorms in each "
                "block and one at the end. A probe, the classifier of the task, reads the stream from outside.",
                norm=model.family.norm,
            ),
            panels=(Panel("", drawn, wide=True),),
            tables=(Table(title, columns, model.parts()),),
        )
    ]


def _living() -> Living:
    """The lesson for any two words: it takes the place of the one pair's, which stays below and in print."""
    return Living(
        "any-two-words",
        say("Any two words, step by step"),
        say(
            "Choose a prompt, a head, the word that reads and the word that is read. Every number is computed here "
            "from this model's own queries, keys and values."
        ),
        say("This part needs scripts, in a browser that can inflate data; the lesson below does not."),
        instead=("lesson-opening", "lesson-strip", "lesson-steps", "lesson-vectors", "lesson-mix"),
    )


@dataclass(frozen=True)
class _Lesson:
    """The numbers of one head at one reading word; arrays are [src_position] or [.., d_head]."""

    tokens: tuple[str, ...]
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    z: np.ndarray
    dot: np.ndarray
    score: np.ndarray
    weight: np.ndarray
    norm: np.ndarray
    layer: int
    head: int
    destination: int
    source: int
    reader: str
    read: str

    @property
    def name(self) -> str:
        return head_label(self.layer, self.head)

    @property
    def words(self) -> list[str]:
        """The tokens as words."""
        return [spelled(text, first=i == 0) for i, text in enumerate(self.tokens)]

    @property
    def root(self) -> float:
        """The square root of d_k."""
        return math.sqrt(len(self.q))

    @property
    def mix_error(self) -> float:
        """How far the sum of weight · v is from z."""
        return float(np.max(np.abs(np.nansum(self.weight[:, None] * self.v, axis=0) - self.z)))

    @property
    def product_error(self) -> float:
        """How far the products of q and k sum from the stated q·k."""
        return abs(float((self.q * self.k[self.source]).sum()) - float(self.dot[self.source]))


def _read(result: Result) -> _Lesson:
    tokens = result.labels("token")
    layer, head, destination, source = (
        int(result.need_attr(name)) for name in ("layer", "head", "dest_position", "src_of_interest")
    )
    if not 0 <= source < len(tokens):
        raise InterpError(
            f"{result.file}: attribute 'src_of_interest' is {source}, outside the {len(tokens)} tokens; run the study "
            "again."
        )
    dot, score, weight, norm = (
        result.need(name, "src_position").values for name in ("dot", "score", "weight", "value_norm")
    )
    q, z = (result.need(name, "d_head").values for name in ("q", "z"))
    k, v = (result.need(name, "src_position", "d_head").values for name in ("k", "v"))
    return _Lesson(
        tokens, q, k, v, z, dot, score, weight, norm, layer, head, destination, source,
        spelled(result.attr("dest_token"), first=destination == 0),
        spelled(result.attr("src_token") or tokens[source], first=source == 0),
    )  # fmt: skip


def _arithmetic(result: Result, lesson: _Lesson) -> list[Block]:
    roles = {end: result.attr(end) for end in ("dest", "src")}
    named = {
        end: f" ({called('role', role)})" if role and not role.lstrip("-").isdigit() else ""
        for end, role in roles.items()
    }
    chosen = say_stored(result.attr("chosen_by")).replace("<-", " ← ")
    opening = say(
        "Head {head}, at the word {reader}: which words does it read, and why {read}?",
        head=lesson.name,
        reader=f"{lesson.reader}{named['dest']}",
        read=f"{lesson.read}{named['src']}",
    )
    if chosen and chosen != "given":
        opening = f"{opening} {say('The head was chosen by: {how}.', how=chosen)}"
    made: list[Block] = [Prose((opening,), "lesson-opening"), _strip(result, lesson), _steps(lesson)]
    made += [_what_a_weight_is(lesson), _vectors(result, lesson), _mix(result, lesson)]
    size = max(1.0, float(np.abs(lesson.z).max()), abs(float(lesson.dot[lesson.source])))
    for error, what in ((lesson.mix_error, "Σ weight · v, z"), (lesson.product_error, "Σ q × k, q·k")):
        if error > TOLERANCE * size:
            text = say("These should be equal and differ by {error}: {what}.", what=what, error=f"{error:.2e}")
            made.append(Notice("warn", say("The arithmetic does not add up"), text))
    return made


def _strip(result: Result, lesson: _Lesson) -> Figure:
    drawn = token_strip(
        lesson.tokens,
        [float(weight) for weight in lesson.weight],
        destination=lesson.destination,
        interest=lesson.source,
        label=say("Attention weights of {head} from {reader}", head=lesson.name, reader=lesson.reader),
    )
    scale = Scale.rising(0, 1, units=say("share"), name=say("attention weight"))
    return Figure.of(
        result,
        "lesson-strip",
        say("Where {head} looks from {reader}", head=lesson.name, reader=lesson.reader),
        say(
            "Under each token, the weight that {reader} (dashed) gives it. {read} has a solid outline.",
            reader=lesson.reader,
            read=lesson.read,
        ),
        panels=(Panel("", drawn, wide=True),),
        tables=(_table(lesson),),
        legend=colour_legend(scale, key="lesson-strip-l"),
        open=True,
    )


def _table(lesson: _Lesson) -> Table:
    columns = (
        Column(say("position"), facet="position"),
        Column(say("token")),
        Column("q·k", digits=4),
        Column(f"÷ √d_k = ÷ {figure_number(lesson.root)}", digits=4),
        Column(say("softmax: weight"), say("share"), 4),
        Column("|v|"),
        Column(say("weight · |v|"), digits=4),
    )
    share = lesson.weight * lesson.norm
    rows: list[tuple[Cell, ...]] = [
        (i, word, *(float(part[i]) for part in (lesson.dot, lesson.score, lesson.weight, lesson.norm, share)))
        for i, word in enumerate(lesson.words)
    ]
    rows.append((None, say("sum"), None, None, float(np.nansum(lesson.weight)), None, float(np.nansum(share))))
    return Table(say("Q·K, scaling, softmax and values, token by token"), columns, tuple(rows))


def _steps(lesson: _Lesson) -> Steps:
    dot, score, weight = (float(part[lesson.source]) for part in (lesson.dot, lesson.score, lesson.weight))
    d_head, count = len(lesson.q), int(np.isfinite(lesson.score).sum())
    match = f"q({lesson.reader}) · k({lesson.read}) = {figure_number(dot)}"
    scaled = f"{figure_number(dot)} ÷ √d_k = {figure_number(dot)} ÷ √{d_head} = {figure_number(score)}"
    mixed = f"z = {figure_number(weight, 4)} · v({lesson.read}) + … (Σ {say('weight')} · v)"
    return Steps(
        say("From q·k to z, for {reader} reading {read}", reader=lesson.reader, read=lesson.read),
        (
            (
                say("Match"),
                match,
                say("The sum of {count} products, one per dimension of the head (below).", count=d_head),
            ),
            (
                say("Scale"),
                scaled,
                say(
                    "Without this, heads with more dimensions would have larger scores, and a sharper softmax for no "
                    "other reason."
                ),
            ),
            (
                say("Share"),
                f"softmax: e^{figure_number(score)} ÷ Σ e^score = {figure_number(weight, 4)}",
                say(
                    "The sum runs over the {count} tokens that {reader} can read. The result is the weight.",
                    count=count,
                    reader=lesson.reader,
                ),
            ),
            (
                say("Mix"),
                mixed,
                say(
                    "The values of all words, each times its weight, are added up: {head}'s z. Recomputed here, it "
                    "differs from the model's by at most {error}.",
                    head=lesson.name,
                    error=f"{lesson.mix_error:.1e}",
                ),
            ),
        ),
        "lesson-steps",
    )


def _what_a_weight_is(lesson: _Lesson) -> Notice:
    total = float(np.nansum(lesson.weight))
    sound = abs(total - 1) <= TOLERANCE and float(np.nanmin(lesson.weight)) >= 0
    text = say(
        "Attention weights lie between 0 and 1, and the weights of one reading word sum to 1 (here: {total}). Some "
        "courses say that they lie between −1 and 1: that is the range of a correlation or a cosine. A weight is a "
        "share, never negative. It says where the head reads, not yet what that does to the answer.",
        total=figure_number(total, 6),
    )
    return Notice("note" if sound else "warn", say("What a weight is"), text)


def _vectors(result: Result, lesson: _Lesson) -> Figure:
    q, k = lesson.q, lesson.k[lesson.source]
    product = q * k
    own = Scale.centred(float(np.abs(np.stack([q, k])).max()), units=say("activation"), name=say("q and k"))
    sums = Scale.centred(float(np.abs(product).max()), units=say("activation²"), name="q × k")
    rows = tuple((i, float(q[i]), float(k[i]), float(product[i])) for i in range(len(q)))
    names = (f"q({lesson.reader})", f"k({lesson.read})", "q × k")
    columns = (Column(say("dimension")), *(Column(n, digits=4) for n in names))
    table = Table(say("q, k and their products"), columns, rows)
    total = float(product.sum())
    reading = say(
        "q and k are multiplied dimension by dimension; where both have the same sign the product is positive. The "
        "products sum to {total}; divided by {root}, {score}.",
        total=figure_number(total),
        root=figure_number(lesson.root),
        score=figure_number(total / lesson.root),
    )
    panels = (
        _by_dimension(np.stack([q, k]), [f"q {lesson.reader}", f"k {lesson.read}"], own, "lesson-qk"),
        _by_dimension(product[None], ["q × k"], sums, "lesson-product"),
    )
    title = say("q·k in {head}, dimension by dimension", head=lesson.name)
    return Figure.of(result, "lesson-vectors", title, reading, panels=panels, tables=(table,))


def _mix(result: Result, lesson: _Lesson) -> Figure:
    top = [int(i) for i in np.argsort(-np.nan_to_num(lesson.weight), kind="stable")[:MIXED]]
    rest = [i for i in range(len(lesson.tokens)) if i not in top]
    labels = [f"{figure_number(float(lesson.weight[i]), 2)} · v {lesson.words[i]}" for i in top]
    labels += [say("all others"), say("sum = z")]
    weighted = np.nan_to_num(lesson.weight)[:, None] * np.nan_to_num(lesson.v)
    rows = np.stack([*(weighted[i] for i in top), weighted[rest].sum(axis=0), lesson.z])
    scale = Scale.centred(float(np.abs(rows).max()), units=say("activation"), name=say("share of z"))
    columns = (Column(say("dimension")), *(Column(label, digits=4) for label in labels))
    table_rows = tuple((j, *(float(value) for value in rows[:, j])) for j in range(rows.shape[1]))
    reading = say(
        "Each row is one word's value times its weight; the last row is their sum, the vector z that the head writes "
        "(through W_O) into the residual stream."
    )
    return Figure.of(
        result,
        "lesson-mix",
        say("What {head} carries away", head=lesson.name),
        reading,
        panels=(_by_dimension(rows, labels, scale, "lesson-mix-map"),),
        tables=(Table(say("Weighted values by dimension"), columns, table_rows),),
    )


def _by_dimension(rows: np.ndarray, labels: list[str], scale: Scale, key: str) -> Panel:
    """Rows of d_head numbers as a strip of cells, with a legend of their own."""
    size = rows.shape[1]
    every = 1 if size <= 32 else 8
    columns = [str(j) if j % every == 0 else "" for j in range(size)]
    cells = {
        (i, j): say("{label}, dimension {dimension}", label=label, dimension=j)
        for i, label in enumerate(labels)
        for j in range(size)
    }
    grid = Grid(rows, labels, columns, "", say("dimension of the head (d_head)"), cells=cells)
    cell = (max(10.0, min(22.0, 640 / size)), 22.0)
    title = say("{what} by dimension", what=scale.name)
    drawn = heatmap(grid, scale, key=key, title=scale.name, description=title, cell=cell, annotate=False)
    return Panel("", drawn, legend=colour_legend(scale, key=f"{key}-l"), wide=True)
