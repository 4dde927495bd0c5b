"""The words of the field that the page uses: what each means, said where it is first used and again at the foot.

>>> seen = set()
>>> str(marked("A mover and another mover.", seen))[:44]
'A <a class="term" href="#term-mover" aria-de'
>>> str(marked("A mover.", seen))
'A mover.'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from interp.language import say
from interp.report import links
from interp.report.markup import element, join


@dataclass(frozen=True)
class Term:
    """A word, or several that are explained together.

    Attributes:
        key: its anchor.
        names: what it is called, in the language spoken now.
        text: what it means.
    """

    key: str
    names: tuple[str, ...]
    text: str

    @property
    def heading(self) -> str:
        """All its names."""
        return ", ".join(self.names)


def terms() -> tuple[Term, ...]:
    """The glossary of the page, which is part of that of the README, word for word."""
    return (
        Term("rung", (say("task"), say("rung")), say(
            "prompts that ask one question, as a ladder from easy to hard; a rung is one step of it"
        )),
        Term("role", (say("role"),), say(
            "a name for a word of the prompt, whatever its position (for instance color and noun); after_noun is the "
            "token behind the noun"
        )),
        Term("source", (say("source"), say("target")), say(
            "the word whose meaning is fetched (for instance a colour), and the word it is fetched for (for instance a "
            "noun)"
        )),
        Term("distractor", (say("distractor"),), say(
            "a word that could be taken for the source or the target (for instance another colour, another noun)"
        )),
        Term("clean", (say("clean"), say("corrupted")), say(
            "the prompt that gives the behaviour, and its partner that differs in one stated way, token for token"
        )),
        Term("counterfactual", (say("counterfactual"),), say(
            "the same sentence with another word in the place of the source, of as many tokens"
        )),
        Term("gate", (say("gate"),), say(
            "whether the model does the task well enough to be explained, by the thresholds of the study"
        )),
        Term("logit-difference", (say("logit difference"),), say(
            "logit(correct) - logit(incorrect) at the answer, in logits"
        )),
        Term("logits", (say("logits"), say("nats")), say(
            "the numbers that the model gives every token, before the softmax; the unit of a natural logarithm of "
            "probabilities"
        )),
        Term("residual-stream", (say("residual stream"),), say(
            "the vector at each token that every block reads and adds to"
        )),
        Term("head", ("L9H6", "L9KV2", "MLP9"), say(
            "head 6 of layer 9; key-value head 2 of layer 9; the MLP of layer 9"
        )),
        Term("resid", ("resid_pre", "resid_mid", "resid_post"), say(
            "the residual stream before attention, between attention and MLP, after the MLP"
        )),
        Term("out", ("attn_out", "mlp_out"), say("what a block adds to the stream")),
        Term("patching", (say("patching"),), say(
            "an activation of one run is put in place of the same activation in another run"
        )),
        Term("denoising", ("denoising",), say(
            "corrupted run, one activation taken from the clean run: is it sufficient?"
        )),
        Term("noising", ("noising",), say("clean run, one activation taken from the corrupted run: is it needed?")),
        Term("gap", (say("gap"),), say("the metric after the clean prompt minus that after the corrupted one")),
        Term("recovered", ("recovered",), say(
            "(patched - corrupted) / (clean - corrupted), in both directions; 0 is corrupted, 1 is clean, not clipped"
        )),
        Term("sufficient", (say("sufficient"), say("needed")), say(
            "how much a place matters, on one scale on the page: what denoising recovers there, and what noising takes "
            "away; 1 is the whole gap, 0 no effect"
        )),
        Term("interval", (say("interval"),), say(
            "95%: a percentile bootstrap over prompts for means and ratios of means, Wilson's for shares"
        )),
        Term("ablation", (say("ablation"),), say(
            "an activation is replaced by one that says nothing of this prompt"
        )),
        Term("contribution", (say("contribution"),), say(
            "direct logit attribution: a component through the final norm (its scale frozen) onto the answer; they sum "
            "to the logit difference"
        )),
        Term("slope", (say("slope"),), say(
            "of estimated on exact effects: 1 is right, below 1 the estimates are too small"
        )),
        Term("probe", (say("probe"), say("fold")), say(
            "a linear classifier that reads a word off an activation; it is tested on one part of the words (a fold) "
            "and fitted on the others"
        )),
        Term("control", (say("control"),), say(
            "the same probe with random labels, one per type: what memory alone can do"
        )),
        Term("selectivity", (say("selectivity"),), say(
            "probe accuracy minus control accuracy (Hewitt and Liang 2019, arXiv 1909.03368)"
        )),
        Term("readable", (say("readable"),), say(
            "a probe is above chance, and above what it would be with labels exchanged within pairs: p at most 0.05, "
            "corrected over all places"
        )),
        Term("compression", (say("codelength"), say("compression")), say(
            "bits that the labels cost somebody who has the activations, and how many times fewer that is than without "
            "them (Voita and Titov 2020, arXiv 2003.12298)"
        )),
        Term("classifier", (say("task classifier"),), say(
            "a linear layer on what the frozen model holds at one word, fitted to a task"
        )),
        Term("leace", (say("LEACE"), say("erasure")), say(
            "the smallest affine edit of activations after which no linear probe reads a word there (Belrose et al. "
            "2023, arXiv 2306.03819); an edit that takes something out"
        )),
        Term("interchange", (say("interchange"),), say(
            "one run's activation gets the other run's part in some directions alone (Geiger et al. 2023, arXiv "
            "2303.02536)"
        )),
        Term("das", (say("DAS"),), say(
            "a search by gradients for the directions whose interchange makes the other answer; it is tested on other "
            "prompts than it was fitted on"
        )),
        Term("placebo", (say("placebo"),), say(
            "the same interchange written along random directions: the activation moves as far, elsewhere"
        )),
        Term("mover", (say("mover"), say("reader")), say(
            "a head whose output at the place where source and target meet changes the answer; one whose output at the "
            "question or the answer does"
        )),
    )  # fmt: skip


def marked(text: str, seen: set[str]) -> Markup:
    """A sentence whose terms lead to their meaning, each once a page; heads in it can be chosen.

    Args:
        text: the sentence.
        seen: keys of the terms that the page has explained already; this adds to them.
    """
    by_name = {name.lower(): term for term in terms() for name in term.names if term.key not in seen}
    by_name = {name: term for name, term in by_name.items() if term.key != "head"}  # a head's name is chosen instead
    if not by_name:
        return links.heads_in(text)
    longest = sorted(by_name, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest))})((?:e?s)?)(?![\w-])", re.IGNORECASE)
    parts, end = [], 0
    for found in pattern.finditer(text):
        term = by_name[found[1].lower()]
        if term.key in seen:
            continue
        seen.add(term.key)
        parts += [links.heads_in(text[end : found.start()]), _link(term, found[0])]
        end = found.end()
    return join([*parts, links.heads_in(text[end:])])


def _link(term: Term, word: str) -> Markup:
    anchor = f"term-{term.key}"
    return element(
        "a", word, class_="term", href=f"#{anchor}", aria_describedby=anchor, title=term.text,
    )  # fmt: skip
