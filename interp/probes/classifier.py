"""The classical task classifier: one linear layer on the frozen features of a model, text in and label out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from interp import _kept
from interp._arguments import check_model
from interp.errors import InterpError
from interp.probes.features import Features
from interp.probes.logistic import REGULARISATION, chosen_regularisation, fitted, quiet
from interp.probes.streamed import stored_logistic
from interp.stored import StoredFeatures

if TYPE_CHECKING:
    from interp.model import HookedTransformer

VERSION = "1"
_FINGERPRINT = (*_kept.FINGERPRINT, "bos")
"""What must be equal of two models for features of texts of one to be features of the other."""


class TaskClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear layer on frozen features, fitted by logistic regression: what is added to a language model for a task.

    The model is not trained; only ``coef_`` and ``intercept_`` are. With ``features`` it takes texts; without, it takes
    the matrix of features itself, as any classifier of scikit-learn. The layer and the word can be chosen like any
    other parameter: ``GridSearchCV(classifier, {"features__layer": range(12)})``.

    Args:
        features: what is read of the model (``Features``), or None for a matrix of features.
        C: inverse strength of the L2 penalty, on standardised features; or several, of which the fit chooses one on
            groups that it holds out of its own rows.
        max_iter: iterations of lbfgs.

    Attributes:
        classes_: the labels, sorted.
        coef_: weights on the features as they are (class, feature); of two classes there is one row.
        intercept_: one per row of ``coef_``.
        C_: the penalty that was used.
        n_features_in_: features.
        n_iter_: iterations.

    >>> from interp import HookedTransformer
    >>> model = HookedTransformer.from_pretrained("mini")
    >>> texts = [f"The {noun} is {color}." for noun in ("cat", "dog", "hat", "cup") for color in ("black", "white")]
    >>> classifier = TaskClassifier(Features(model, layer=0, at=-2)).fit(texts, ["dark", "light"] * 4)
    >>> classifier.predict(["The house is black.", "The house is white."]).tolist(), classifier.coef_.shape
    (['dark', 'light'], (1, 128))
    """

    classes_: Shaped[np.ndarray, " class"]
    coef_: Float[np.ndarray, "row feature"]
    intercept_: Float[np.ndarray, " row"]

    def __init__(
        self,
        features: Features | None = None,
        *,
        C: float | Sequence[float] = REGULARISATION,
        max_iter: int = 1000,
    ) -> None:
        self.features = features
        self.C = C
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, groups: Any = None) -> TaskClassifier:
        """Fit the linear layer.

        Args:
            X: texts, token ids or ``Prompts``; without ``features``, a matrix (row, feature).
            y: a label per text.
            groups: texts that share one are held out together when C is chosen; None is each text by itself.
        """
        x, labels = validate_data(self, self._matrix(X), y, dtype=[np.float64, np.float32])
        with quiet():
            check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {self.classes_[0]!r}.")
        x = x.astype(np.float64)
        if np.ndim(self.C):
            held = np.arange(len(labels)) if groups is None else np.asarray(groups)
            self.C_ = chosen_regularisation(x, labels, held, candidates=tuple(np.ravel(self.C)))
        else:
            self.C_ = float(np.asarray(self.C))
        found = fitted(x, labels, regularisation=self.C_, max_iterations=self.max_iter)
        assert found.probe is not None  # two classes at least
        self.coef_ = found.probe.coef_ / found.scaler.scale_
        self.intercept_ = found.probe.intercept_ - self.coef_ @ found.scaler.mean_
        self.n_iter_ = int(np.max(found.probe.n_iter_))
        return self

    def fit_stored(
        self, stored: StoredFeatures, labels: Shaped[np.ndarray, " row"], *, rows: int | None = None
    ) -> TaskClassifier:
        """Fit the linear layer on features that stay on the disk; each step of the fit reads them once.

        It is what ``fit`` finds, up to the rounding of sums over chunks.

        Args:
            stored: the features, as wide as those of ``features`` where there are any.
            labels: a label per row.
            rows: rows in memory at a time; None is 64 MiB.

        Raises:
            InterpError: several values of C, one label only, or features of another width.
        """
        if np.ndim(self.C):
            raise InterpError("On features that stay on the disk C is not chosen. Give one value of C.")
        if self.features is not None and self.features.n_features != stored.shape[1]:
            raise InterpError(
                f"The rows have {stored.shape[1]} features, those of the model {self.features.n_features}."
            )
        scaler = StandardScaler()
        for _, x in stored.chunks(rows):
            scaler.partial_fit(x.astype(np.float64))

        def scaled() -> Iterator[tuple[slice, Float[np.ndarray, "row feature"]]]:
            for at, x in stored.chunks(rows):
                yield at, scaler.transform(x.astype(np.float64))

        self.C_ = float(np.asarray(self.C))
        found = stored_logistic(scaled, labels, regularisation=self.C_, max_iterations=self.max_iter)
        self.classes_, self.n_features_in_, self.n_iter_ = found.classes, stored.shape[1], found.n_iter
        self.coef_ = found.coef / scaler.scale_
        self.intercept_ = found.intercept - self.coef_ @ scaler.mean_
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "text class"] | Float[np.ndarray, " text"]:
        """The output of the linear layer: a logit per class, or of two classes, that of the second."""
        check_is_fitted(self)
        x = validate_data(self, self._matrix(X), reset=False, dtype=[np.float64, np.float32])
        scores: Float[np.ndarray, "text row"] = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.intercept_) == 1 else scores

    def predict_proba(self, X: Any) -> Float[np.ndarray, "text class"]:
        """The probability of each class, in the order of ``classes_``; rows sum to 1."""
        scores = self.decision_function(X)
        logits = np.stack([np.zeros(len(scores)), scores], axis=1) if scores.ndim == 1 else scores
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> Shaped[np.ndarray, " text"]:
        """The most probable label of each text."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)])

    def save(self, path: str | Path) -> Path:
        """Write the linear layer as safetensors, with what it was fitted on in its header as JSON. There is no pickle.

        Raises:
            InterpError: it was not fitted, it has no model, its labels are neither text nor numbers, or the file cannot
                be written.

        >>> import tempfile
        >>> from interp import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("mini")
        >>> made = TaskClassifier(Features(model)).fit(["The cat", "A dog", "The hat", "A cup"], [1, 0, 1, 0])
        >>> with tempfile.TemporaryDirectory() as place:
        ...     again = TaskClassifier.load(made.save(Path(place) / "articles.safetensors"), model)
        >>> bool((again.predict_proba(["The bird"]) == made.predict_proba(["The bird"])).all())
        True
        """
        if not hasattr(self, "coef_") or self.features is None:
            raise InterpError(
                "Only a fitted classifier on Features can be saved: TaskClassifier(Features(model)).fit(...)."
            )
        if self.classes_.dtype.kind not in "biuU" and self.classes_.dtype != object:
            raise InterpError(f"Labels of type {self.classes_.dtype} cannot be saved. Use text or whole numbers.")
        classes = self.classes_.tolist()
        if not all(isinstance(one, str | int) for one in classes):
            raise InterpError("Labels that are neither text nor whole numbers cannot be saved. Use text.")
        told = {
            "version": VERSION,
            "classes": classes,
            "site": self.features.site,
            "layer": self.features.index,
            "at": self.features.at,
            "C": self.C_,
            "n_iter": self.n_iter_,
            **_kept.fingerprint(self.features.model, _FINGERPRINT),
        }
        # Safetensors writes the memory as it lies, so it must lie row by row.
        arrays = {"coef": np.ascontiguousarray(self.coef_), "intercept": np.ascontiguousarray(self.intercept_)}
        return _kept.write(path, save(arrays, metadata=_kept.header(told)))

    @classmethod
    def load(cls, path: str | Path, model: HookedTransformer) -> TaskClassifier:
        """Read what ``save`` wrote, to be used on the model it was fitted on.

        Raises:
            InterpError: no such file, damaged, not one of these, or fitted on another model.

        >>> from interp import HookedTransformer
        >>> TaskClassifier.load("none.safetensors", HookedTransformer.from_pretrained("mini"))
        Traceback (most recent call last):
        interp.errors.InterpError: Cannot read the classifier none.safetensors: No such file or directory. Name ...
        """
        check_model(model)
        file = Path(path)
        content = _kept.read(file, "classifier", "TaskClassifier.save")
        try:
            arrays = load(content)
            told = _kept.told(content)
            coef, intercept = arrays["coef"], arrays["intercept"]
            features = Features(model, site=told["site"], layer=told["layer"], at=told["at"])
            made = cls(features, C=told["C"])
            classes, version = np.array(told["classes"]), told["version"]
            made.C_, made.n_iter_ = float(told["C"]), int(told["n_iter"])
            theirs = {name: told[name] for name in ("model", *_FINGERPRINT)}
        except (SafetensorError, *_kept.WRONG) as error:
            raise InterpError(f"{file} is not a classifier that TaskClassifier.save wrote ({error}).") from error
        if version != VERSION:
            raise InterpError(f"{file} has version {version}, this library reads {VERSION}. Fit and save it again.")
        if differing := _kept.differing(model, theirs, _FINGERPRINT):
            raise InterpError(
                f"{file} was fitted on {theirs['model']}, whose {' and '.join(differing)} differ from those of "
                f"{model.name}. Load that model, or fit the classifier on this one."
            )
        rows = 1 if len(classes) == 2 else len(classes)
        if coef.shape != (rows, features.fit(None).n_features) or intercept.shape != (rows,):
            raise InterpError(f"{file} has weights of shape {coef.shape}, which fit neither its labels nor its site.")
        made.classes_, made.coef_, made.intercept_ = classes, coef, intercept
        made.n_features_in_ = coef.shape[1]
        return made

    def _matrix(self, inputs: Any) -> Any:
        return inputs if self.features is None else self.features.transform(inputs)
