"""The frozen activations of a model at one word, as the features of a classifier: in memory, or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp import run, sites
from interp._arguments import check_model
from interp.errors import InterpError, unknown_name, whole_number
from interp.prompts.tokens import Prompts
from interp.stored import BYTES_AT_ONCE, StoredFeatures
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer


class Features(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts in, one vector per text out: what a model holds at one site, layer and word.

    A scikit-learn transformer. Nothing is fitted and the model is not changed; a copy made by ``sklearn.clone`` shares
    the model.

    Args:
        model: the model.
        site: a site with a vector per layer and position (``interp.sites``); heads are laid side by side.
        layer: the layer; None is the last.
        at: the word: a position (-1 is the last token), or a role of the prompts (at its last token).

    >>> from interp import HookedTransformer
    >>> features = Features(HookedTransformer.from_pretrained("mini"), layer=2)
    >>> features.transform(["The cat is black.", "The cat"]).shape
    (2, 128)
    """

    def __init__(
        self,
        model: HookedTransformer,
        *,
        site: str = "resid_post",
        layer: int | None = None,
        at: int | str = -1,
    ) -> None:
        self.model = model
        self.site = site
        self.layer = layer
        self.at = at

    def __sklearn_clone__(self) -> Features:
        return Features(self.model, site=self.site, layer=self.layer, at=self.at)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def index(self) -> int:
        """The layer, where it was left open too.

        Raises:
            InterpError: the model has no such layer.
        """
        check_model(self.model)
        last = self.model.cfg.n_layers - 1
        return sites.check_layers(last if self.layer is None else self.layer, last + 1)[0]

    @property
    def n_features(self) -> int:
        """Numbers per text.

        Raises:
            InterpError: a site that the model does not have, or one without a vector per layer and position.
        """
        check_model(self.model)
        site = self.model.check_site(sites.vector_site(self.site).name)
        return int(np.prod(site.shape(self.model.cfg.sizes)))

    def fit(self, X: Any, y: Any = None) -> Features:
        """Check the site, the layer and the word against the model; nothing is learnt."""
        _ = self.n_features, self.index
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "text feature"]:
        """The vector of each text.

        Args:
            X: texts, token ids, or ``Prompts`` (which have roles).

        Raises:
            InterpError: an unknown site, layer or role, a position outside a text, or too little memory.
        """
        prompts = self._prompts(X)
        return self._read(prompts)

    def to(
        self,
        path: str | Path,
        X: Any,
        *,
        bytes_at_once: int = BYTES_AT_ONCE,
        progress: Progress | None = None,
    ) -> StoredFeatures:
        """Write the vectors of texts to a file (``.npy``), some at a time, so that they need not fit in memory.

        Args:
            path: of the file, ending in ``.npy``; it is there whole or not at all.
            X: as ``transform``.
            bytes_at_once: of features that are held.
            progress: True for a bar, or called with texts done and texts in all.

        Raises:
            InterpError: as ``transform``, or a file that cannot be written.

        >>> import tempfile
        >>> from interp import HookedTransformer
        >>> features = Features(HookedTransformer.from_pretrained("mini"), layer=0)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     stored = features.to(Path(place) / "cats.npy", ["The cat", "The dog", "A bird"])
        ...     stored.shape, [chunk.shape for _, chunk in stored.chunks(2)]
        ((3, 128), [(2, 128), (1, 128)])
        """
        prompts = self._prompts(X)
        width = self.n_features
        rows = max(1, bytes_at_once // (8 * width))
        meter = Meter(progress, len(prompts))

        def parts() -> Iterator[Float[np.ndarray, "row feature"]]:
            for some in run.chunks_of(len(prompts), rows):
                yield self._read(prompts.select(some))
                meter.add(len(some))

        return StoredFeatures.write(path, parts(), shape=(len(prompts), width))

    def _prompts(self, inputs: Any) -> Prompts:
        given = inputs.tolist() if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "UO" else inputs
        return run.as_prompts(self.model, given)

    def _read(self, prompts: Prompts) -> Float[np.ndarray, "text feature"]:
        if isinstance(self.at, str) and self.at not in prompts.roles:
            raise unknown_name("role", self.at, prompts.roles, " of the texts")
        _ = self.n_features
        found = run.capture(self.model, prompts, self.site, at=[self.at], layers=[self.index])[self.site]
        return np.asarray(found.values).reshape(len(prompts), -1)


def fit_stored(
    estimator: Any,
    stored: StoredFeatures,
    labels: Sequence[Any] | Shaped[np.ndarray, " row"],
    *,
    rows: int | None = None,
    epochs: int = 1,
    standardise: bool = False,
) -> Any:
    """Fit an estimator on features that stay on disk.

    ``MeanDifference``, ``RidgeProbe``, ``LEACE`` and ``MeanProjection`` are exact after one epoch. ``TaskClassifier``
    and ``INLP`` read the file once for each step of their fits, and end where they would in memory. Any other
    estimator needs ``partial_fit``: scikit-learn's ``SGDClassifier(loss="log_loss")`` takes several epochs, and
    features of unit variance.

    Args:
        estimator: it is fitted and returned.
        stored: the features: ``Features.to``, ``StoredFeatures.open``, or ``Capture.features`` of a capture.
        labels: one per row.
        rows: rows in memory at a time; None is 64 MiB.
        epochs: passes over the file.
        standardise: first find mean and spread of the features in a pass of their own, and return a pipeline of
            scaler and estimator.

    Raises:
        InterpError: another number of labels than rows, an estimator that cannot be fitted in chunks, or settings that
            one which says itself when its fit ends does not take.

    >>> import tempfile
    >>> from interp.probes import MeanDifference
    >>> x = np.random.default_rng(0).normal(size=(30, 4)) + np.repeat([0.0, 5.0], 15)[:, None]
    >>> with tempfile.TemporaryDirectory() as place:
    ...     stored = StoredFeatures.write(Path(place) / "x.npy", iter([x]), shape=x.shape)
    ...     probe = fit_stored(MeanDifference(), stored, ["low"] * 15 + ["high"] * 15, rows=4)
    >>> probe.predict([[5.0] * 4]).tolist()
    ['high']
    """
    said = np.asarray(labels)
    if len(said) != stored.shape[0]:
        raise InterpError(f"There are {len(said)} labels for {stored.shape[0]} rows. Give one per row.")
    if hasattr(estimator, "fit_stored"):
        if epochs != 1 or standardise:
            raise InterpError(
                f"{type(estimator).__name__} reads the file as often as its fit needs, and standardises by itself. "
                "Leave epochs and standardise out."
            )
        return estimator.fit_stored(stored, said, rows=rows)
    if not hasattr(estimator, "partial_fit"):
        raise InterpError(f"{type(estimator).__name__} has no partial_fit, so it cannot be fitted in chunks.")
    scaler = StandardScaler()
    if standardise:
        for _, x in stored.chunks(rows):
            scaler.partial_fit(x)
    classes = np.unique(said)
    for _ in range(whole_number(epochs, "epochs", least=1)):
        for at, x in stored.chunks(rows):
            estimator.partial_fit(scaler.transform(x) if standardise else x, said[at], classes=classes)
    return make_pipeline(scaler, estimator) if standardise else estimator
