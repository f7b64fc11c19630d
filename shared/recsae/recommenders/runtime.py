"""Runs a model bundle on onnxruntime: subjects -> activations -> ranked lists.

Nothing here knows gRPC or steering. A row's result does not depend on the other rows of its batch; `invariance` proves
that on this machine, so that a server can fall back to batches of one where it fails.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.recommenders.bundle import HEAD, TRUNK, TRUNK_POSITIONS, ModelBundle
from recsae.recommenders.description import HeadKind, Hook, Inputs
from recsae.recommenders.graph import Graph
from recsae.recommenders.head_memory import HeadMemory
from recsae.recommenders.inputs import (
    ATTRIBUTE,
    CANDIDATE,
    HISTORY,
    USER,
    Attributes,
    Ints,
    ModelInputs,
    attribute_column,
    model_inputs,
    newest_as_candidate,
    pad_histories,
)
from recsae.recommenders.pairs import rank_pairs
from recsae.recommenders.ranked import Ranked

# Pairs computed together: larger batches gain nothing and hold memory.
_PAIRS_AT_ONCE = 4_096
# Pairs whose activations are held together where every item is one.
_PAIRS_HELD = 65_536
_LISTS = ["items", "scores"]


@dataclass(frozen=True)
class Embedded:
    """Activations float32 [n, d], and the other tensors that cross from trunk to head, n rows each.

    [n, interests, d] of a hook with a row per interest; [n, c, d] and tensors [n, c, ...] from `embed_pairs`.
    """

    activation: NDArray[np.float32]
    passthrough: Mapping[str, NDArray[Any]]


class OnnxRecommender:
    """A loaded bundle. Safe to call from several threads."""

    def __init__(self, bundle: ModelBundle, threads: int = 1) -> None:
        """`threads` is the number of intra-op threads per call; 1 suits a server that batches."""
        self.bundle = bundle
        self._threads = threads
        self._trunk = Graph(bundle.folder / TRUNK, threads)
        self._head = Graph(bundle.folder / HEAD, threads)
        self._positions: Graph | None = None
        self._lock = threading.Lock()
        description = bundle.description
        # Looked up here once: what follows is on the path of every request.
        self._hooks, self._n_items, self._max_history = description.hooks, bundle.n_items, description.max_history
        self._pairs = self._hooks[0].rows == "pair"
        first = description.hooks[0]
        self._activation_shape = (first.interests, first.dim) if first.rows == "interest" else (first.dim,)
        self._memory = HeadMemory(self._head.columns_at_once or self._n_items + 1, first.interests)
        self._outputs = {
            hook.name: [_output("activation", hook, self._hooks), *(description.passthrough if hook is first else ())]
            for hook in self._hooks
        }

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
        return self._max_history

    @property
    def n_items(self) -> int:
        """Items it can return, indices 1..n_items."""
        return self._n_items

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Places where activations can be read; the first one is the default."""
        return self._hooks

    @property
    def reads(self) -> Inputs:
        """What the trunk reads."""
        return self.bundle.description.inputs

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

    def hook(self, name: str = "") -> Hook:
        """The hook of that name, the first for ""; NotFoundError names those there are."""
        if not name:
            return self._hooks[0]
        found = next((hook for hook in self._hooks if hook.name == name), None)
        if found is None:
            there = ", ".join(repr(hook.name) for hook in self.hooks)
            raise NotFoundError(f"model {self.name} has no hook {name!r}; it has {there}")
        return found

    def lists_at_once(self, indices: int) -> int:
        """Lists the head makes together at most, each with `indices` exclusions and candidates; of more, in pieces."""
        return self._memory.lists(indices)

    def pad(self, histories: Sequence[Sequence[int] | NDArray[np.integer]]) -> Ints:
        """See `recsae.recommenders.inputs.pad_histories`."""
        return pad_histories(self.bundle, histories)

    def inputs(
        self,
        histories: Sequence[Sequence[int] | NDArray[np.integer]],
        users: Sequence[str] = (),
        attributes: Sequence[Attributes] = (),
    ) -> ModelInputs:
        """See `recsae.recommenders.inputs.model_inputs`."""
        return model_inputs(self.bundle, histories, users, attributes)

    def embed(self, batch: ModelInputs | Ints, *, hook: str = "", candidates: Ints | None = None) -> Embedded:
        """Activations of n subjects: `batch`, or padded histories int64 [n, max_history] of nobody in particular.

        [n, d], or [n, interests, d]. Of pairs, `candidates` int64 [n] says which item each is paired with; None takes
        the newest of each history, and the history before it. InvalidRequestError for candidates elsewhere.
        """
        inputs = self._checked(batch)
        chosen = self.hook(hook)
        if chosen.rows != "pair":
            if candidates is not None:
                raise InvalidRequestError(f"hook {chosen.name!r} of model {self.name} has no row per candidate")
            return self._embed(inputs, chosen, {})
        if candidates is None:
            inputs, candidates = newest_as_candidate(inputs)
        if candidates.shape != (len(inputs),):
            raise InvalidRequestError(f"candidates have shape {candidates.shape}, expected [{len(inputs)}]")
        return self._embed(inputs, chosen, {CANDIDATE: self._within(CANDIDATE, np.asarray(candidates, np.int64))})

    def embed_pairs(self, batch: ModelInputs | Ints, candidates: Ints, *, hook: str = "") -> Embedded:
        """Of each subject with each of its `candidates` int64 [n, c] (0 = none, its row is zero): [n, c, d].

        Pass-through tensors are [n, c, ...]. InvalidRequestError for a hook without a row per pair.
        """
        inputs = self._checked(batch)
        if self.hook(hook).rows != "pair":
            raise InvalidRequestError(f"hook {self.hook(hook).name!r} of model {self.name} has no row per candidate")
        row, place = np.nonzero(self._indices("candidates", candidates, len(inputs)))
        found = [
            self.embed(inputs.take(row[at]), hook=hook, candidates=candidates[row[at], place[at]])
            for at in (slice(start, start + _PAIRS_AT_ONCE) for start in range(0, max(len(row), 1), _PAIRS_AT_ONCE))
        ]

        def spread(parts: list[NDArray[Any]]) -> NDArray[Any]:
            out = np.zeros((*candidates.shape, *parts[0].shape[1:]), parts[0].dtype)
            out[row, place] = np.concatenate(parts)
            return out

        names = found[0].passthrough
        return Embedded(
            spread([part.activation for part in found]),
            {name: spread([part.passthrough[name] for part in found]) for name in names},
        )

    def embed_positions(self, batch: ModelInputs | Ints, *, hook: str = "") -> NDArray[np.float32]:
        """float32 [n, max_history, (interests,) d]: at t what `embed` gives for the first t + 1 items; 0 at padding.

        FailedPreconditionError when the bundle has no all-positions trunk.
        """
        chosen, inputs = self.hook(hook), self._checked(batch)
        if not chosen.all_positions:
            raise FailedPreconditionError(
                f"hook {chosen.name!r} of model {self.name} exports last positions only; import it with "
                f"{TRUNK_POSITIONS}"
            )
        with self._lock:
            if self._positions is None:  # opened on first use: serving alone never needs its copy of the item table
                self._positions = Graph(self.bundle.folder / TRUNK_POSITIONS, self._threads)
        output = _output("activations", chosen, self.hooks)
        activations: NDArray[np.float32] = self._positions.run([output], _feed(inputs), len(inputs))[0]
        return activations

    def rank(
        self,
        activation: NDArray[np.float32],
        passthrough: Mapping[str, NDArray[Any]] | None = None,
        *,
        k: int,
        exclude: Ints | None = None,
        candidates: Ints | None = None,
    ) -> Ranked:
        """The best k items of n lists; k is cut to n_items.

        Exact at every size of catalogue: all items are scored, none is left out by an index or an approximation.
        `activation` float32 [n, d], or [n, interests, d], or of pairs [n, c, d] for `candidates` int64 [n, c].
        `exclude` int64 [n, e] and `candidates` are filled up with 0; c = 0 means every item (of pairs, none).
        InvalidRequestError for wrong shapes, values that are not finite and indices outside 0..n_items.
        """
        count = len(activation)
        if k < 1:
            raise InvalidRequestError(f"k is {k}, it must be at least 1")
        excluded, wanted = self._indices("exclude", exclude, count), self._indices("candidates", candidates, count)
        if self._pairs and candidates is None:
            raise InvalidRequestError(f"model {self.name} scores pairs; name the candidates of each list")
        shape = (wanted.shape[1], *self._activation_shape) if self._pairs else self._activation_shape
        if activation.shape[1:] != shape:
            needed = ", ".join(str(size) for size in ("n", *shape))
            raise InvalidRequestError(f"activations have shape {activation.shape}, model {self.name} needs [{needed}]")
        if not np.isfinite(activation).all():
            raise InvalidRequestError("activations hold values that are not finite")
        feed: dict[str, NDArray[Any]] = {}
        for name in self._outputs[self._hooks[0].name][1:]:
            if passthrough is None or name not in passthrough:
                raise InvalidRequestError(f"the head of model {self.name} needs the pass-through tensor {name!r}")
            feed[name] = passthrough[name]
        k = min(k, self._n_items)
        if self._pairs:
            return rank_pairs(self._pair_scores(activation, feed, wanted), wanted, excluded, k)
        feed |= {"activation": activation, "exclude": excluded, "candidates": wanted, "k": np.array([k], np.int64)}
        most = self.lists_at_once(excluded.shape[1] + wanted.shape[1])
        return Ranked(*self._head.run(_LISTS, feed, count, most))

    def recommend(self, batch: ModelInputs | Ints, *, k: int, exclude: Ints | None = None) -> Ranked:
        """The best k of all items for each subject: `embed`, then `rank`, whatever the model's rows stand for."""
        if not self._pairs:
            embedded = self.embed(batch)
            return self.rank(embedded.activation, embedded.passthrough, k=k, exclude=exclude)
        inputs = self._checked(batch)
        at_once = max(1, _PAIRS_HELD // self.n_items)
        parts = []
        for start in range(0, max(len(inputs), 1), at_once):
            some = slice(start, start + at_once)
            every = np.tile(np.arange(1, self.n_items + 1), (len(inputs.history[some]), 1))
            embedded = self.embed_pairs(inputs.take(some), every)
            excluded = None if exclude is None else exclude[some]
            parts.append(self.rank(embedded.activation, embedded.passthrough, k=k, exclude=excluded, candidates=every))
        return Ranked(np.concatenate([part.items for part in parts]), np.concatenate([part.scores for part in parts]))

    def _embed(self, inputs: ModelInputs, hook: Hook, more: dict[str, NDArray[Any]]) -> Embedded:
        outputs = self._outputs[hook.name]
        values = self._trunk.run(outputs, _feed(inputs) | more, len(inputs))
        return Embedded(values[0], dict(zip(outputs[1:], values[1:], strict=True)))

    def _pair_scores(
        self, activation: NDArray[np.float32], passthrough: Mapping[str, NDArray[Any]], candidates: Ints
    ) -> NDArray[np.float32]:
        """float32 [n, c], -inf where there is no candidate."""
        scores = np.full(candidates.shape, -np.inf, np.float32)
        row, place = np.nonzero(candidates)
        for at in (slice(start, start + _PAIRS_AT_ONCE) for start in range(0, len(row), _PAIRS_AT_ONCE)):
            some = row[at], place[at]
            feed = {"activation": activation[some], **{name: one[some] for name, one in passthrough.items()}}
            scores[some] = self._head.run(["score"], feed, len(some[0]))[0].reshape(-1)
        return scores

    def _checked(self, batch: ModelInputs | Ints) -> ModelInputs:
        if not isinstance(batch, ModelInputs):
            batch = ModelInputs(
                batch,
                np.zeros(len(batch), np.int64),
                {one.name: attribute_column(one, [{}] * len(batch)) for one in self.reads.attributes},
            )
        if batch.history.ndim != 2 or batch.history.shape[1] != self._max_history:
            raise InvalidRequestError(
                f"histories have shape {batch.history.shape}, expected [n, {self.max_history}]; use pad()"
            )
        self._within("histories", np.asarray(batch.history, np.int64))
        return batch

    def _indices(self, what: str, indices: Ints | None, count: int) -> Ints:
        if indices is None:
            return np.zeros((count, 0), dtype=np.int64)
        if indices.ndim != 2 or len(indices) != count:
            raise InvalidRequestError(f"{what} has shape {indices.shape}, expected [{count}, any]")
        return self._within(what, np.ascontiguousarray(indices, dtype=np.int64))

    def _within(self, what: str, indices: Ints) -> Ints:
        # A negative index would wrap around silently inside the graph; seen as unsigned, it is a very large one.
        if indices.size and indices.view(np.uint64).max() > self._n_items:
            raise InvalidRequestError(f"{what} holds an item index outside 0..{self.n_items}")
        return indices


def _feed(inputs: ModelInputs) -> dict[str, NDArray[Any]]:
    feed = {HISTORY: inputs.history, USER: inputs.user}
    for name, values in inputs.attributes.items():
        feed[f"{ATTRIBUTE}{name}"] = values
    return feed


def _output(what: str, hook: Hook, hooks: Sequence[Hook]) -> str:
    return what if hook is hooks[0] else f"{what}.{hook.name}"
