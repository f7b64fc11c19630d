"""A torch model behind the exporter contract: what the user says of it, tried once, as a `ServedModel`.

Not here: the contract itself (`exporter`) and the hooks (`torch_tap`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.description import Hook
from recsae.sdk.exporter import Exporter
from recsae.sdk.model import Batch, DotProduct, Floats, Head, HistoryOf, ItemScores, ModelCard, PairScores
from recsae.sdk.torch_batch import TorchBatch
from recsae.sdk.torch_place import Place, as_floats, rows_in
from recsae.sdk.torch_scope import Capture
from recsae.sdk.torch_version import version_of
from recsae.sdk.vocabulary import Users, Vocabulary

Ids = Sequence[object] | Mapping[object, int]
_PROBE_ITEMS = 6
# Of |x|: batched and single rows differ in the last bits, a model that looks ahead differs far more.
_SAME = 1e-3
# Of half precision, a few roundings apart are the same.
_ROUNDINGS = 4


@dataclass(frozen=True, kw_only=True)
class TorchSource:
    """What an exporter has to know of a torch model.

    `embed` runs the model on a `TorchBatch`; the tap sees the activations (with no module attached, it returns them).
    `items` and `users`: ids in the order of the model's indices from 1 (0 is padding or an unknown user), or a mapping
    of ids to the indices themselves. The head is `item_vectors` [items, d] with `item_bias` [items], or any `head` from
    activations to scores [n, items] ([n] for pairs). `version` defaults to `version_of` the weights.
    """

    name: str
    items: Ids
    embed: Callable[[TorchBatch], Any]
    version: str = ""
    item_vectors: Any = None
    item_bias: Any = None
    head: Callable[[Tensor], Tensor] | None = None
    users: Ids | None = None
    unknown_user: int = 0
    pseudonym_key: bytes | None = None
    history_of: HistoryOf | None = None
    max_history: int = 50
    padding: Literal["right", "left"] = "right"
    reads_history: bool = True
    empty_history: bool = False
    attributes: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    family: str = "torch"
    max_rows: int = 65_536
    """Most rows of one answer; fewer for a slow model, so that a call ends within its deadline of a minute."""
    lock: AbstractContextManager[Any] | None = None
    """Held while the model runs; give the server's own where the model must not run twice at once."""


class TapLike(Protocol):
    """What is needed of a tap."""

    model: nn.Module
    places: tuple[Place, ...]
    padding: int

    def capturing(self, lengths: Any, *, left: bool) -> AbstractContextManager[Capture]:
        """See `Tap`."""


def exporter_of(tap: TapLike, source: TorchSource) -> Exporter:
    """The exporter; runs the model on a few made-up subjects to learn the shapes, and refuses what does not work."""
    return Exporter(TorchModel(tap, source), history_of=source.history_of)


class TorchModel:
    """See `ServedModel`."""

    def __init__(self, tap: TapLike, source: TorchSource) -> None:
        """Tries the model; FailedPreconditionError or InvalidRequestError say what does not fit."""
        self._tap, self._source = tap, source
        self._lock = source.lock or threading.Lock()
        self._items = Vocabulary(source.items)
        if source.reads_history and tap.padding in self._items.indices:
            raise InvalidRequestError(
                f"an item has index {tap.padding}, which also means padding; attach with another `padding=`"
            )
        self.card = self._card()
        self.head = self._head()
        self._looks_ahead = self._positions_differ()

    def embed(self, batch: Batch, hook: str) -> Floats:
        """See `ServedModel`."""
        place, capture, tensor = self._run(batch, hook)
        rows = rows_in(tensor, place.row, lambda seen: capture.newest(seen, self._tap.padding))
        x = rows.read()
        return x.reshape(len(tensor), rows.each, -1) if place.row == "interest" else x

    def embed_positions(self, batch: Batch, hook: str) -> Floats | None:
        """See `ServedModel`; None where the tensor holds one position, or positions that know what comes later."""
        return None if self._looks_ahead else self._positions(batch, hook)

    def _positions(self, batch: Batch, hook: str) -> Floats | None:
        """The positions of the tensor that belong to each history, moved to the front, float32 [n, L, d]."""
        place, capture, tensor = self._run(batch, hook)
        if place.row != "last" or tensor.ndim != 3:
            return None
        newest = capture.newest(tensor, self._tap.padding)
        lengths = batch.lengths
        offsets = newest + 1 - lengths
        if (offsets < 0).any():
            return None
        width = int(lengths.max())
        places = np.minimum(offsets[:, None] + np.arange(width), tensor.shape[1] - 1)
        return np.take_along_axis(as_floats(tensor), places[:, :, None], axis=1)

    def _run(self, batch: Batch, hook: str) -> tuple[Place, Capture, Tensor]:
        """One run of the model, and the tensor a place saw in it."""
        model, source = self._tap.model, self._source
        if model.training:
            raise FailedPreconditionError("the model is in training mode, where dropout makes noise; call model.eval()")
        place = next(one for one in self._tap.places if hook in ("", one.name))
        given = TorchBatch.of(batch, source.max_history, self._tap.padding, source.padding == "left", device_of(model))
        with self._lock, torch.no_grad(), self._tap.capturing(batch.lengths, left=source.padding == "left") as capture:
            returned = source.embed(given)
        seen = capture.seen.get(place.name, [])
        if not seen and place.path is None and isinstance(returned, Tensor):
            seen = [returned]
        if len(seen) != 1:
            raise FailedPreconditionError(
                f"embed() passed {place.path or place.name!r} {len(seen)} times; attach to a module that one call of "
                "embed() runs once"
            )
        return place, capture, seen[0]

    def _card(self) -> ModelCard:
        source, places = self._source, self._tap.places
        users = None
        if source.users is not None:
            users = Users(Vocabulary(source.users, "user"), source.unknown_user, source.pseudonym_key)
        seen = {place.name: self._tried(self._probe(users, place), place) for place in places}
        hooks = tuple(
            Hook(
                name=place.name,
                side="user",
                dim=int(seen[place.name].shape[-1]),
                steerable=place is places[0],
                all_positions=source.reads_history,
                rows=place.kind,
                interests=int(seen[place.name].shape[1]) if place.row == "interest" else 1,
            )
            for place in places
        )
        where = ";".join(place.described for place in places)
        return ModelCard(
            name=source.name,
            version=source.version or version_of(self._tap.model, where),
            hooks=hooks,
            items=self._items,
            max_history=source.max_history,
            family=source.family,
            titles=tuple(source.titles),
            users=users,
            attributes=tuple(source.attributes),
            reads_history=source.reads_history,
            empty_history=source.empty_history,
            max_rows=source.max_rows,
        )

    def _tried(self, batch: Batch, place: Place) -> Tensor:
        """The tensor of a place in a first run, in which rows can be told apart."""
        _, capture, tensor = self._run(batch, place.name)
        rows_in(tensor, place.row, lambda seen: capture.newest(seen, self._tap.padding))
        return tensor

    def _head(self) -> Head | None:
        source = self._source
        if source.item_vectors is not None:
            bias = None if source.item_bias is None else as_floats(source.item_bias)
            return DotProduct(as_floats(source.item_vectors), bias)
        if source.head is None:
            return None
        if self.card.hooks[0].rows == "pair":
            return PairScores(lambda x: self._scored(x).reshape(-1))
        return ItemScores(lambda x: self._by_item(self._scored(x)))

    def _scored(self, x: Floats) -> Floats:
        assert self._source.head is not None
        model = self._tap.model
        with self._lock, torch.no_grad():
            return as_floats(self._source.head(torch.from_numpy(x.copy()).to(device_of(model), kind_of(model))))

    def _by_item(self, scores: Floats) -> Floats:
        """Columns in the order of the items: columns by index (a column for padding among them) are picked."""
        indices = self._items.indices
        return scores[:, indices] if scores.shape[1] > indices.max() else scores

    def _probe(self, users: Users | None, place: Place, lengths: Sequence[int] = (_PROBE_ITEMS, 1)) -> Batch:
        """Made-up subjects, one per length of history."""
        some = self._items.indices[:_PROBE_ITEMS]
        most = min(len(some), self._source.max_history)
        read = [some[: min(length, most)] if self._source.reads_history else some[:0] for length in lengths]
        user = users.index_of(users.vocabulary.ids[0]) if users else 0
        user_id = users.vocabulary.ids[0] if users else ""
        return Batch(
            histories=tuple(read),
            users=np.full(len(read), user, dtype=np.int64),
            user_ids=(user_id,) * len(read),
            attributes=({},) * len(read),
            candidates=np.full(len(read), some[0], dtype=np.int64) if place.kind == "pair" else None,
        )

    def _positions_differ(self) -> bool:
        """Whether some position of a history is not what the history up to there gives alone: then no shortcut."""
        place, users = self._tap.places[0], self.card.users
        if not self._source.reads_history or place.row != "last":
            return True
        whole = self._positions(self._probe(users, place, (_PROBE_ITEMS,)), place.name)
        if whole is None:
            return True
        prefixes = self.embed(self._probe(users, place, range(1, whole.shape[1] + 1)), place.name)
        same = max(_SAME, _ROUNDINGS * torch.finfo(kind_of(self._tap.model)).eps)
        return not np.allclose(whole[0], prefixes, rtol=0, atol=same * float(np.abs(prefixes).max()))


def kind_of(model: nn.Module) -> torch.dtype:
    """The type of a model's numbers."""
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's numbers are."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
