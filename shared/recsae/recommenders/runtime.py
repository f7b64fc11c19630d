"""Runs a model bundle on onnxruntime: histories -> activations -> ranked lists.

Nothing here knows user or item ids, gRPC or steering. A row's result does not depend on the other rows of its batch;
`OnnxRecommender.warm_up` proves that on this machine, so that a server can fall back to batches of one where it fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.bundle import HEAD, TRUNK, TRUNK_POSITIONS, ModelBundle
from recsae.recommenders.description import BundleError, HeadKind, Hook

_WARM_UP_SIZES = (1, 2, 8, 64)
_WARM_UP_K = 20
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Embedded:
    """Activations float32 [n, d], and the other tensors that cross from trunk to head, n rows each."""

    activation: NDArray[np.float32]
    passthrough: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Ranked:
    """Items int64 [n, k], best first, and scores float32 [n, k]; -inf marks places that no item may fill."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Items and scores of one row without the unfilled places."""
        filled = self.scores[index] > -np.inf
        return self.items[index][filled], self.scores[index][filled]


@dataclass(frozen=True)
class BatchInvariance:
    """Whether a row's bits stayed the same at each batch size tried. `differs` names what changed, e.g. `scores@8`."""

    batch_sizes: tuple[int, ...]
    differs: tuple[str, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """True when batching changes no bit of any answer."""
        return not self.differs


class OnnxRecommender:
    """A loaded bundle. Safe to call from several threads."""

    def __init__(self, bundle: ModelBundle, threads: int = 1) -> None:
        """`threads` is the number of intra-op threads per call; 1 suits a server that batches."""
        self.bundle = bundle
        self._threads = threads
        self._trunk = open_session(bundle.folder / TRUNK, threads)
        self._head = open_session(bundle.folder / HEAD, threads)
        self._positions: onnxruntime.InferenceSession | None = None
        self._lock = threading.Lock()
        self._outputs = ["activation", *bundle.description.passthrough]

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.bundle.name

    @property
    def version(self) -> str:
        """Content version of the bundle, 16 hex digits."""
        return self.bundle.version

    @property
    def max_history(self) -> int:
        """Newest items of a history the model reads."""
        return self.bundle.description.max_history

    @property
    def n_items(self) -> int:
        """Items it can return, indices 1..n_items."""
        return self.bundle.n_items

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Places where activations can be read; the first one is the default."""
        return self.bundle.description.hooks

    @property
    def head(self) -> HeadKind:
        """How the head scores."""
        return self.bundle.description.head

    @property
    def item_vectors(self) -> NDArray[np.float32] | None:
        """float32 [n_items + 1, d] of a dot-product head, else None."""
        return self.bundle.item_vectors

    @property
    def item_bias(self) -> NDArray[np.float32] | None:
        """float32 [n_items + 1] when the head has a bias, else None."""
        return self.bundle.item_bias

    def pad(self, histories: Sequence[Sequence[int] | NDArray[np.integer]]) -> NDArray[np.int64]:
        """int64 [n, max_history], oldest first, filled up with 0 on the right; keeps the newest items.

        InvalidRequestError for an empty history or an index outside 1..n_items.
        """
        padded = np.zeros((len(histories), self.max_history), dtype=np.int64)
        for row, history in enumerate(histories):
            newest = np.asarray(history[-self.max_history :], dtype=np.int64)
            if not newest.size:
                raise InvalidRequestError(f"history {row} is empty; give at least one item")
            if newest.min() < 1 or newest.max() > self.n_items:
                raise InvalidRequestError(f"history {row} has an item index outside 1..{self.n_items}")
            padded[row, : newest.size] = newest
        return padded

    def embed(self, histories: NDArray[np.int64]) -> Embedded:
        """Activations at the newest item of each padded history int64 [n, max_history]."""
        values = self._trunk.run(self._outputs, {"history": self._checked(histories)})
        return Embedded(values[0], dict(zip(self._outputs[1:], values[1:], strict=True)))

    def embed_positions(self, histories: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [n, max_history, d]: row [i, t] is what `embed` gives for the first t + 1 items; 0 at padding.

        FailedPreconditionError when the bundle has no all-positions trunk.
        """
        if not self.hooks[0].all_positions:
            raise FailedPreconditionError(
                f"model {self.name} exports last positions only; import it with {TRUNK_POSITIONS}"
            )
        with self._lock:
            if self._positions is None:  # opened on first use: serving alone never needs its copy of the item table
                self._positions = open_session(self.bundle.folder / TRUNK_POSITIONS, self._threads)
        activations: NDArray[np.float32] = self._positions.run(["activations"], {"history": self._checked(histories)})[
            0
        ]
        return activations

    def rank(
        self,
        activation: NDArray[np.float32],
        passthrough: Mapping[str, NDArray[Any]] | None = None,
        *,
        k: int,
        exclude: NDArray[np.int64] | None = None,
        candidates: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """The best k items of each activation float32 [n, d]; k is cut to n_items.

        `exclude` int64 [n, e] and `candidates` int64 [n, c] are filled up with 0; c = 0 means every item.
        InvalidRequestError for wrong shapes, values that are not finite and indices outside 0..n_items.
        """
        dim, count = self.hooks[0].dim, len(activation)
        if activation.shape != (count, dim):
            raise InvalidRequestError(f"activations have shape {activation.shape}, model {self.name} needs [n, {dim}]")
        if not np.isfinite(activation).all():
            raise InvalidRequestError("activations hold values that are not finite")
        if k < 1:
            raise InvalidRequestError(f"k is {k}, it must be at least 1")
        feed: dict[str, NDArray[Any]] = {
            "activation": np.ascontiguousarray(activation, dtype=np.float32),
            "exclude": self._indices("exclude", exclude, count),
            "candidates": self._indices("candidates", candidates, count),
            "k": np.array([min(k, self.n_items)], dtype=np.int64),
        }
        for name in self.bundle.description.passthrough:
            if passthrough is None or name not in passthrough:
                raise InvalidRequestError(f"the head of model {self.name} needs the pass-through tensor {name!r}")
            feed[name] = passthrough[name]
        items, scores = self._head.run(["items", "scores"], feed)
        return Ranked(items, scores)

    def warm_up(self, batch_sizes: Sequence[int] = _WARM_UP_SIZES) -> BatchInvariance:
        """Answers made-up requests at each batch size and compares every row bit by bit with its result alone."""
        started = time.perf_counter()
        largest = max(batch_sizes)
        random = np.random.default_rng(0)
        lengths = random.integers(1, self.max_history + 1, size=largest)
        histories = self.pad([random.integers(1, self.n_items + 1, size=length) for length in lengths])
        alone = [self._answer(histories[row : row + 1]) for row in range(largest)]
        differs = []
        for size in batch_sizes:
            starts = range(0, largest, size)
            parts = [self._answer(histories[start : start + size]) for start in starts]
            for position, what in enumerate(("activation", "items", "scores")):
                together = np.concatenate([part[position] for part in parts])
                apart = np.concatenate([answer[position] for answer in alone])
                if together.tobytes() != apart.tobytes():
                    differs.append(f"{what}@{size}")
        return BatchInvariance(tuple(batch_sizes), tuple(differs), time.perf_counter() - started)

    def _answer(self, histories: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        embedded = self.embed(histories)
        ranked = self.rank(embedded.activation, embedded.passthrough, k=_WARM_UP_K, exclude=histories)
        return embedded.activation, ranked.items, ranked.scores

    def _checked(self, histories: NDArray[np.int64]) -> NDArray[np.int64]:
        if histories.ndim != 2 or histories.shape[1] != self.max_history:
            raise InvalidRequestError(
                f"histories have shape {histories.shape}, expected [n, {self.max_history}]; use pad()"
            )
        return self._within("histories", np.ascontiguousarray(histories, dtype=np.int64))

    def _indices(self, what: str, indices: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
        if indices is None:
            return np.zeros((count, 0), dtype=np.int64)
        if indices.ndim != 2 or len(indices) != count:
            raise InvalidRequestError(f"{what} has shape {indices.shape}, expected [{count}, any]")
        return self._within(what, np.ascontiguousarray(indices, dtype=np.int64))

    def _within(self, what: str, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        # A negative index would wrap around silently inside the graph.
        if indices.size and (indices.min() < 0 or indices.max() > self.n_items):
            raise InvalidRequestError(f"{what} holds an item index outside 0..{self.n_items}")
        return indices


def stack_indices(rows: Iterable[Sequence[int] | NDArray[np.integer]]) -> NDArray[np.int64]:
    """int64 [n, longest]: unequal lists of item indices, filled up with 0 on the right, for `OnnxRecommender.rank`."""
    lists = [np.asarray(row, dtype=np.int64) for row in rows]
    stacked = np.zeros((len(lists), max((len(row) for row in lists), default=0)), dtype=np.int64)
    for index, row in enumerate(lists):
        stacked[index, : len(row)] = row
    return stacked


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; BundleError when the graph cannot be loaded."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise BundleError(f"{path} cannot be loaded by onnxruntime: {error}") from error
