"""The bundled analyses. What stands here is held to the code by ``tests/analyses/test_registry.py``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from analyses.options import Edge, Either, Flag, Number, Option, Role, Settings, Several, Text
from analyses.registry import Analysis, File
from interp import sites, track_record

READOUTS = ("logit_difference", "log_probability", "probability", "rank", "cross_entropy", "kl", "js")
DIRECTIONS = ("denoising", "noising")

_SITE = Text(tuple(sites.SITES), read=sites.site)
_VECTOR_SITE = Text(tuple(name for name, site in sites.SITES.items() if site.has_vectors), read=sites.vector_site)
_STREAM_SITE = Text(("resid_post", "resid_mid", "resid_pre"))
_DIRECTION = Text(DIRECTIONS)
_ROLE = Role()
_SLOT_OR_ROLE = Role(slots=True)
_FRACTION = Number("a fraction between 0 and 1", least=0, most=1)
_INDEX = Number("0 or more", least=0, whole=True)
_PLACE = Either((_ROLE, Number(whole=True)))


def _readable(
    layer: int, at: str | int, site: str = "resid_pre", head: int | None = None, direction: object = None
) -> None:
    sites.projected_site(site, layer, head)


PROJECTION = Settings(
    "projection",
    (
        Option("layer", _INDEX, None, "layer of the activation that is read"),
        Option("at", Either((_ROLE, _INDEX)), None, "role or position whose activation is read"),
        Option("site", replace(_VECTOR_SITE, read=partial(sites.vector_site, use="Project")), "resid_pre", "its site"),
        Option("head", _INDEX, None, "of a site of heads, the one that is read", "all of them"),
        Option(
            "direction",
            Either((Text(("means",)), Several(Number(), "number"))),
            None,
            "a vector to project on, or the difference of the means of clean and corrupted",
            "each pair's own difference",
        ),
    ),
    required=("layer", "at"),
    read=_readable,
)
"""The settings of ``interp.readouts.projection``."""


def _metric(*without: str) -> Option:
    known = Text(tuple(name for name in READOUTS if name not in without))
    return Option("metric", Either((known, PROJECTION)), "logit_difference", "what is measured of a run")


def _max_prompts(default: int | None) -> Option:
    return Option(
        "max_prompts", Number("at least 1", least=1, whole=True), default,
        "use only that many prompts, spread evenly over the set", "every prompt",
    )  # fmt: skip


def _unless_slow(number: int) -> str:
    """What null means of a number that is lower on a large model."""
    return f"{number}, or fewer where they take long"


_BEHAVIOR = Analysis(
    "behavior",
    "analyses.behavior",
    "Does the model do the task, and does the context decide its answer?",
    needs="ladder",
    options=(
        Option("minimum_gap", Number("a number of logits, 0 or more", least=0), 0.5, "least mean of clean - corrupted"),
        Option(
            "minimum_preferred", Number("a share between 0 and 1", least=0, most=1), 0.75,
            "least share of prompts that prefer the right answer",
        ),
    ),
    settled=("progress", "main", "descriptions"),
    plans=True,
)  # fmt: skip

_ATTENTION_LESSON = Analysis(
    "attention_lesson",
    "analyses.attention_lesson",
    "How does one head read one word, number by number?",
    options=(
        Option("layer", _INDEX, None, "layer of the head", "the numbers choose"),
        Option("head", _INDEX, None, "index of the head", "the numbers choose"),
        Option("dest", _PLACE, None, "the reading word: a role or a position", "the numbers choose"),
        Option("src", _PLACE, None, "the word that is read: a role or a position", "the answer's"),
        Option("prompt", _INDEX, 0, "which prompt"),
    ),
    settled=("progress",),
    further=(
        File("attention_patterns", "patterns", ("prompt",)),
        File("attention_vectors", "vectors", ("prompt", "dest", "src")),
    ),
    asks=("dest", "src", "prompt"),
    plans=True,
)

_ACTIVATION_PATCHING = Analysis(
    "activation_patching",
    "analyses.activation_patching",
    "Which activations carry the answer: at which word, in which layer, through which head?",
    options=(
        Option(
            "sites", Several(_SITE, "site to patch"), None, "sites to patch",
            "all that the model offers; without q, k and v where a run takes over 1e9 operations",
        ),
        Option(
            "directions", Several(_DIRECTION, "direction to patch in"), DIRECTIONS,
            "clean activations into the corrupted run (denoising), or the other way round",
        ),
        Option("roles", Several(_ROLE), None, "roles at which stream and block sites are patched", "every role"),
        _metric(),
        Option(
            "by_position", Flag(), None, "patch resid_pre position by position too, where positions line up",
            "true, unless a run takes over 1e9 operations",
        ),
        Option("head_roles", Several(_ROLE), None, "roles at which z is patched head by head", "every role"),
        _max_prompts(None),
    ),
    settled=("progress",),
    plans=True,
)  # fmt: skip

_HEAD_ATTRIBUTION = Analysis(
    "head_attribution",
    "analyses.head_attribution",
    "Which heads write the answer, what do they look at, and what is lost without them?",
    options=(
        Option(
            "ablations", Several(Text(("zero", "zero_raw", "mean", "resample"))), None,
            "what a head's output is replaced by", "zero, mean, resample; no zero if a run takes over 1e9 operations",
        ),
        Option(
            "edges", Several(Edge()), None, "pairs of roles whose attention is read",
            "those that the prompts' vocabulary is about",
        ),
        _max_prompts(None),
    ),
    plans=True,
)  # fmt: skip

_LOGIT_LENS = Analysis(
    "logit_lens",
    "analyses.logit_lens",
    "What would the model say at each word if it stopped after each layer?",
    options=(
        Option("roles", Several(_ROLE), None, "roles to read at", "every role"),
        Option("sites", Several(_STREAM_SITE, "state of the stream"), None, "states of the stream to read", "all"),
        _max_prompts(None),
    ),
    settled=("progress",),
    plans=True,
)

_QK_ATTRIBUTION = Analysis(
    "qk_attribution",
    "analyses.qk_attribution",
    "Why does a head look where it looks, and who uses what it passes on?",
    options=(
        Option("layer", _INDEX, None, "layer of the head", "the numbers choose"),
        Option("head", _INDEX, None, "index of the head", "the numbers choose"),
        Option("dest", _PLACE, None, "the word that looks: a role or a position", "the numbers choose"),
        Option("src", _PLACE, None, "the word that is looked at", "the answer's"),
        Option("writers", Number("at least 1", least=1, whole=True), 6, "writers of either side that stand alone"),
        Option("senders", Number("at least 1", least=1, whole=True), 4, "writers whose paths are patched"),
        Option("readers", Number("at least 1", least=1, whole=True), 24, "later readers whose paths are patched"),
        _metric(),
        _max_prompts(None),
    ),
    reads=("activation_patching", "head_attribution"),
    settled=("found", "progress"),
    asks=("dest", "src"),
    plans=True,
)

_COMPOSITION = Analysis(
    "composition",
    "analyses.composition",
    "Which heads can read what earlier heads write, by their weights?",
    options=(
        Option("distance", Number("0 or more", least=0, whole=True), 0, "tokens between the words, in rotary models"),
    ),
    settled=("seed", "progress"),
    plans=True,
)

_HEAD_ROLES = Analysis(
    "head_roles",
    "analyses.head_roles",
    "Which heads look back, continue repeats, move a word, hold the answer back, or are made up for?",
    options=(
        Option("edge", Edge(), None, "destination<-source of the mover", "the vocabulary's"),
        Option("n", Number("at least 2", least=2, whole=True), 24, "sequences of random tokens"),
        Option("repaired", Number("at least 1", least=1, whole=True), 8, "heads ablated to look for self-repair"),
        Option(
            "ablation",
            Text(("zero", "zero_raw", "mean", "resample")),
            "mean",
            "what takes the place of an ablated head",
        ),
        _max_prompts(24),
    ),
    settled=("seed", "progress"),
    asks=("edge",),
    plans=True,
)

_LENSES = Analysis(
    "lenses",
    "analyses.lenses",
    "What would the model say early, by the logit lens, a trained one and its own Jacobian, on held-out prompts?",
    options=(
        Option("roles", Several(_ROLE), None, "roles to read at", "every role"),
        Option("sites", Several(_STREAM_SITE, "state of the stream"), None, "states of the stream to read", "all"),
        Option(
            "held_out", Number("a fraction between 0 and 1", above=0, below=1), 0.5,
            "share of the pairs that no lens is made from",
        ),
        Option(
            "steps", _INDEX, None, "of training the tuned lens; 0 leaves its closed form", _unless_slow(20),
        ),
        Option("tokens", Number("at least 1", least=1, whole=True), 128, "about how many tokens a step looks at"),
        Option(
            "jacobian_prompts", Number("at least 1", least=1, whole=True), None, "prompts of the mean Jacobian",
            _unless_slow(8),
        ),
        Option("targets", Text(("later", "same")), "later", "tokens at which the Jacobian looks"),
        _max_prompts(None),
    ),
    plans=True,
)  # fmt: skip

_PROBING = Analysis(
    "probing",
    "analyses.probing",
    "At which layer, and at which word, can a linear probe read the source?",
    options=(
        Option("target", _SLOT_OR_ROLE, None, "what to read: a slot or a role", "the vocabulary's source"),
        Option(
            "group", Role(slots=True, also=("pair", "template")), None,
            "what to hold out: a slot, a role, pair or template",
            "the vocabulary's target",
        ),
        Option("sites", Several(_VECTOR_SITE, "site to probe"), ("resid_pre",), "sites to read from"),
        Option("roles", Several(_ROLE), None, "roles to read at", "every role"),
        Option("layers", Several(_INDEX), None, "layers to read from", "every layer"),
        Option("n_folds", Number("at least 2", least=2, whole=True), 5, "at most this many folds"),
        Option(
            "probes", Several(Text(("means", "ridge", "tuned", "mlp"))), ("means", "ridge"),
            "further probes on the same folds: difference of means, ridge, C chosen within the fit, perceptron",
        ),
        Option("codelength", Flag(), True, "measure the online codelength of the labels too"),
        Option(
            "n_permutations", Number("0 or more", least=0, whole=True), 200,
            "labels exchanged within pairs, for p-values; 0 for none",
        ),
        Option(
            "transfer", Several(Text(form=r"[^/]+(/[^/]+)?", like=("task or task/rung", "color-noun-es"))), (),
            "bundled tasks on which the probe is tested too, and the other way round: in another language, say",
        ),
    ),
    asks=("target", "group", "transfer"),
    plans=True,
)  # fmt: skip

_APPROXIMATION_AUDIT = Analysis(
    "approximation_audit",
    "analyses.approximation_audit",
    "How good are the gradient approximations of patching on this model and task?",
    options=(
        Option(
            "sites", Several(_SITE), None, "sites whose patches are estimated",
            "all that the model offers; at q, k and v no plain gradient where a run takes over 1e9 operations",
        ),
        Option(
            "methods", Several(Text(("gradient", "integrated", "atp*"))), ("gradient", "atp*"),
            "how patches are estimated",
        ),
        Option(
            "edge_methods", Several(Text(("eap", "eap-ig-inputs", "eap-ig-activations"))), ("eap", "eap-ig-inputs"),
            "how edges are estimated",
        ),
        Option("direction", _DIRECTION, "denoising", "which activations are put where"),
        _metric("rank"),  # has no gradient
        Option(
            "max_prompts", Number("at least 1", least=1, whole=True), None,
            "use only that many prompts, spread evenly over the set", "16; 4 where a run takes over 1e9 operations",
        ),
        Option("top_k", Number("at least 1", least=1, whole=True), 10, "cells that look largest, patched exactly"),
        Option(
            "random", Number("at least 0", least=0, whole=True), None, "other cells, patched exactly",
            "30; 10 where a run takes over 1e9 operations",
        ),
        Option(
            "large", Number("a fraction above 0, at most 1", above=0, most=1), 0.2,
            "share of the largest effect from which on an effect is large",
        ),
        Option(
            "minimum_agreement", Number("a correlation in [-1, 1]", least=-1, most=1), 0.8,
            "least correlation and rank agreement",
        ),
        Option("maximum_factor", Number("1 to 100", least=1, most=100), 1.25, "by which estimates may be off"),
        Option("maximum_median_error", _FRACTION, 0.1, "of large effects, as a share of the largest"),
        Option("maximum_error", _FRACTION, 0.25, "of any effect, as a share of the largest"),
        Option("maximum_wrong", _FRACTION, 0.1, "share of wrong signs, misses and false alarms of a ranking"),
    ),
    plans=True,
)  # fmt: skip

_PLACES = Analysis(
    "places",
    "analyses.places",
    "Where the source can be read, is it also what the answer uses?",
    options=(
        Option("site", _VECTOR_SITE, "resid_pre", "site that is read, erased and exchanged"),
        Option("layers", Several(_INDEX), None, "its layers", "a quarter and three quarters of the way up"),
        Option("roles", Several(_ROLE), None, "roles", "source, target, where they can meet last, and the answer"),
        Option(
            "rank", Number("at least 1", least=1, whole=True), None, "directions that DAS finds",
            "one fewer than there are words",
        ),
        Option("steps", Number("at least 1", least=1, whole=True), None, "steps of DAS", _unless_slow(20)),
        Option("controls", Flag(), True, "DAS for arbitrary answers, and in a model of shuffled weights"),
        replace(_max_prompts(None), null=_unless_slow(32)),
    ),
    asks=("roles",),
    plans=True,
)  # fmt: skip

_GROUND_TRUTH = Analysis(
    "ground_truth",
    "analyses.ground_truth",
    "Which method finds the circuit of a model that was made by hand?",
    options=(
        Option(
            "known", Several(Text(tuple(track_record.table()["models"])), "model"), None,
            "hand-made models that are asked about", "all",
        ),
        Option("methods", Several(Text(tuple(track_record.methods())), "method"), None, "methods on trial", "all"),
    ),
    settled=("progress",),
    plans=True,
)  # fmt: skip

_FALSE_ALARMS = Analysis(
    "false_alarms",
    "analyses.false_alarms",
    "How often is something found in a model with random weights?",
    options=(Option("n_models", Number("at least 1", least=1, whole=True), 400, "models with random weights"),),
    settled=("progress",),
    plans=True,
)


_CIRCUIT = Analysis(
    "circuit",
    "analyses.circuit",
    "Along which edges of the model does the answer come about?",
    options=(
        Option(
            "method", Text(("exact", "greedy", "eap", "eap-ig-inputs", "eap-ig-activations", "atp*")), None,
            "how edges are scored", "the plan chooses",
        ),
        Option("direction", _DIRECTION, "noising", "which activations are put where"),
        _metric(),
        Option("roles", Several(_ROLE), None, "words at which edges are told apart", "every position at once"),
        Option("size", Number("0 or more", least=0), None, "edges, or share of all", "those that reach the threshold"),
        Option("threshold", Number("a share, 0 or more", least=0), 0.02, "least score, as a share of the gap"),
        Option("steps", Number("at least 1", least=1, whole=True), 5, "steps of the integrals of EAP-IG"),
        _max_prompts(48),
        Option(
            "n_resamples", Number("0 or more", least=0, whole=True), None,
            "bootstrap samples of the prompts on which it is found again; 0 for none",
            "20 where that costs nothing, else none",
        ),
    ),
    plans=True,
)  # fmt: skip

_COUNT = Number("0 or more", least=0, whole=True)

_CIRCUIT_EVALUATION = Analysis(
    "circuit_evaluation",
    "analyses.circuit_evaluation",
    "Does the circuit alone do what the model does, on prompts it was not found on?",
    options=(
        Option(
            "ablations", Several(Text(("zero", "mean", "mean_by_role", "resample"))),
            ("zero", "mean", "mean_by_role", "resample"), "what edges outside the circuit carry",
        ),
        *(
            _CIRCUIT.option[name]
            for name in ("method", "direction", "metric", "roles", "size", "threshold", "steps", "max_prompts")
        ),
        Option("n_random", _COUNT, None, "random circuits of each kind and size", _unless_slow(10)),
        Option("n_knockouts", _COUNT, 6, "random parts that are taken out of circuit and model"),
        Option("most_edges", _COUNT, 12, "edges that are taken out one by one"),
    ),
    reads=("circuit",),
    settled=("seed", "found", "progress"),
    plans=True,
)  # fmt: skip

_CONTEXT_FLOW = Analysis(
    "context_flow",
    "analyses.context_flow",
    "Which heads carry the source to the target, and which read it?",
    needs="results",
    reads=(
        "behavior", "activation_patching", "head_attribution", "probing", "logit_lens", "places", "circuit",
        "qk_attribution", "head_roles", "composition",
    ),
    options=(
        Option("source", _ROLE, None, "role of the word that carries the context", "the vocabulary's"),
        Option("target", _ROLE, None, "role of the word that it belongs to", "the vocabulary's"),
        Option(
            "minimum_effect", Number("a fraction between 0 and 1", above=0, below=1), 0.1,
            "least fraction of the clean-corrupted gap that counts",
        ),
    ),
    settled=("seed", "not_asked"),
    file="verdict",
    asks=("source", "target"),
)  # fmt: skip

BUNDLED = {
    analysis.name: analysis
    for analysis in (
        _BEHAVIOR,
        _ATTENTION_LESSON,
        _ACTIVATION_PATCHING,
        _HEAD_ATTRIBUTION,
        _PROBING,
        _LOGIT_LENS,
        _QK_ATTRIBUTION,
        _HEAD_ROLES,
        _COMPOSITION,
        _LENSES,
        _CIRCUIT,
        _CIRCUIT_EVALUATION,
        _APPROXIMATION_AUDIT,
        _PLACES,
        _GROUND_TRUTH,
        _FALSE_ALARMS,
        _CONTEXT_FLOW,
    )
}
"""Name -> analysis, in the order in which those of one need run."""
