"""The frozen activations of a model at one word, as the features of a classifier: in memory, or on disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp import _files, run, sites
from interp._arguments import check_model
from interp.errors import InterpError, shown, unknown_name, whole_number
from interp.prompts.tokens import Prompts
from interp.sweeps.progress import Meter, Progress

if TYPE_CHECKING:
    from interp.model import HookedTransformer

BYTES_AT_ONCE = 64 * 2**20
"""Bytes of features that are held at a time, on their way to or from the disk."""


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


@dataclass(frozen=True)
class StoredFeatures:
    """A matrix of features in a ``.npy`` file, of which only some rows are in memory at a time.

    Any program that reads NumPy's format reads the file, mapped into memory too: ``numpy.load(path, mmap_mode="r")``.
    Here its rows are read, not mapped, so that the memory used is that of the rows asked for, and not what the system
    keeps of the file.

    Attributes:
        path: the file.
        shape: rows and features.
        dtype: of the numbers.
        offset: bytes before the first number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     np.save(Path(place) / "x.npy", np.arange(6.0).reshape(3, 2))
    ...     [rows.tolist() for _, rows in StoredFeatures.open(Path(place) / "x.npy").chunks(2)]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]]
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def open(cls, path: str | Path) -> StoredFeatures:
        """Look at a file that ``Features.to`` or ``numpy.save`` wrote.

        Raises:
            InterpError: it is absent, or holds something else than a matrix of float32 or float64.
        """
        file = Path(path)
        try:
            with open(file, "rb") as opened:
                version = np.lib.format.read_magic(opened)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, by_columns, dtype = read(opened)
                offset = opened.tell()
        except (OSError, ValueError) as error:
            raise InterpError(
                f"{file} holds no features ({error}). Write them with Features.to(path, texts)."
            ) from error
        if len(shape) != 2 or by_columns or dtype not in (np.float32, np.float64):
            raise InterpError(f"{file} holds {dtype} of shape {shape}, not rows of float32 or float64.")
        size = offset + shape[0] * shape[1] * dtype.itemsize
        if file.stat().st_size != size:
            raise InterpError(f"{file} has {file.stat().st_size} bytes instead of {size}. Write it again.")
        return cls(file, (int(shape[0]), int(shape[1])), dtype, offset)

    @classmethod
    def write(
        cls, path: str | Path, parts: Iterator[Float[np.ndarray, "row feature"]], *, shape: tuple[int, int]
    ) -> StoredFeatures:
        """Write rows as they come.

        Args:
            path: of the file, ending in ``.npy``; it is there whole or not at all.
            parts: chunks of rows, in order, each with all features. They are kept as float32.
            shape: rows and features in all.

        Raises:
            InterpError: another ending, parts that do not make up the shape, or a file that cannot be written.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     chunks = iter([np.ones((2, 3)), np.zeros((1, 3))])
        ...     np.load(StoredFeatures.write(Path(place) / "x.npy", chunks, shape=(3, 3)).path).sum()
        np.float32(6.0)
        """
        file = Path(path)
        if file.suffix != ".npy":
            raise InterpError(f"Features are kept in a file that ends in .npy, not {shown(str(path))}.")
        partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
        written = 0
        try:
            with open(partial, "xb") as opened:
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
                np.lib.format.write_array_header_1_0(opened, {**header, "shape": shape})
                for part in parts:
                    if part.shape[1:] != shape[1:] or written + len(part) > shape[0]:
                        raise InterpError(f"Rows of shape {part.shape} after {written} do not make up {shape}.")
                    opened.write(np.ascontiguousarray(part, dtype=np.float32).tobytes())
                    written += len(part)
                if written != shape[0]:
                    raise InterpError(f"There are {written} rows instead of {shape[0]}.")
                opened.flush()
                os.fsync(opened.fileno())
            partial.replace(file)
        except OSError as error:
            raise InterpError(f"Cannot write {file}: {_files.why(error)}. Choose another place.") from error
        finally:
            partial.unlink(missing_ok=True)
        return cls.open(file)

    def chunks(self, rows: int | None = None) -> Iterator[tuple[slice, Float[np.ndarray, "row feature"]]]:
        """Rows in order, at most ``rows`` at a time (None: 64 MiB), each chunk with where it stands."""
        at_once = whole_number(rows, "rows", least=1) if rows is not None else max(1, BYTES_AT_ONCE // self._row)
        with open(self.path, "rb") as opened:
            for start in range(0, self.shape[0], at_once):
                stop = min(start + at_once, self.shape[0])
                opened.seek(self.offset + start * self._row)
                read = np.fromfile(opened, dtype=self.dtype, count=(stop - start) * self.shape[1])
                yield slice(start, stop), read.reshape(stop - start, self.shape[1])

    @property
    def _row(self) -> int:
        return self.shape[1] * self.dtype.itemsize


def fit_stored(
    estimator: Any,
    stored: StoredFeatures,
    labels: Sequence[Any] | Shaped[np.ndarray, " row"],
    *,
    rows: int | None = None,
    epochs: int = 1,
    standardise: bool = False,
) -> Any:
    """Fit a classifier with ``partial_fit`` on features that stay on disk.

    ``MeanDifference`` and ``RidgeProbe`` are exact after one epoch. Logistic regression is scikit-learn's
    ``SGDClassifier(loss="log_loss")``, which needs several, and features of unit variance.

    Args:
        estimator: it is fitted and returned.
        stored: the features.
        labels: one per row.
        rows: rows in memory at a time; None is 64 MiB.
        epochs: passes over the file.
        standardise: first find mean and spread of the features in a pass of their own, and return a pipeline of
            scaler and estimator.

    Raises:
        InterpError: another number of labels than rows, or an estimator that cannot be fitted in chunks.

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
