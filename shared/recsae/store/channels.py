"""Channels: which triple of a model is candidate, which is production, and what production was before.

Promotion is one compare-and-set that also writes the audit event. Besides the channels each model has a *serving*
map: the triple that holds for each model version still served, so that two versions of a model can run side by side
while one is rolled out. Not here: what a triple's artifacts contain (`recsae_interpreter.library` loads them).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.store.events import Change, InMemoryTrail

CANDIDATE = "candidate"
PRODUCTION = "production"
HISTORY_LENGTH = 50
# Model versions of one model that are kept ready, newest promotion first; each holds an SAE and a dictionary in memory.
SERVED_VERSIONS = 4


@dataclass(frozen=True)
class Channel:
    """Where a channel points; `revision` is raised by each change, from 1; 0 = it points nowhere."""

    name: str
    triple: Triple = field(default_factory=Triple)
    revision: int = 0
    updated_at: float = 0.0


@dataclass(frozen=True)
class ModelChannels:
    """The channels of one model that point somewhere, and the triple of each model version still served."""

    channels: Mapping[str, Channel]
    serving: Mapping[str, Triple]

    def channel(self, name: str) -> Channel:
        """The channel of that name, pointing nowhere when it never did."""
        return self.channels.get(name, Channel(name))


class ChannelStore(Protocol):
    """Where channels live."""

    def read(self, model: str) -> ModelChannels:
        """Everything about one model, as of one moment."""

    def models(self) -> list[str]:
        """Names of the models any channel was ever pointed for, sorted."""

    def point(
        self, model: str, name: str, triple: Triple, change: Change, *, expected_revision: int | None = None
    ) -> Channel:
        """Points a channel at a triple; unchanged (and no event) when it points there already.

        ConflictError when `expected_revision` is given and no longer the channel's.
        """

    def roll_back(self, model: str, change: Change) -> Channel:
        """Points production at the triple before; FailedPreconditionError when there was none."""


class InMemoryChannelStore:
    """A store for tests and single-process use."""

    def __init__(self, trail: InMemoryTrail | None = None) -> None:
        """Records into `trail`."""
        self.trail = trail or InMemoryTrail()
        self._channels: dict[str, dict[str, Channel]] = {}
        self._history: dict[str, list[Channel]] = {}
        self._served: dict[str, dict[str, tuple[int, Triple]]] = {}
        self._lock: threading.RLock = self.trail.lock

    def read(self, model: str) -> ModelChannels:
        """See `ChannelStore`."""
        with self._lock:
            serving = {version: triple for version, (_, triple) in self._served.get(model, {}).items()}
            return ModelChannels(dict(self._channels.get(model, {})), serving)

    def models(self) -> list[str]:
        """See `ChannelStore`."""
        with self._lock:
            return sorted(self._channels)

    def point(
        self, model: str, name: str, triple: Triple, change: Change, *, expected_revision: int | None = None
    ) -> Channel:
        """See `ChannelStore`."""
        check_pointing(name, triple)
        with self._lock:
            current = self.read(model).channel(name)
            if current.triple == triple:
                return current
            if expected_revision not in (None, current.revision):
                raise moved_on(model, name, current.revision, expected_revision)
            if name == PRODUCTION and current.revision:
                history = self._history.setdefault(model, [])
                history.insert(0, current)
                del history[HISTORY_LENGTH:]
            return self._write(model, current, triple, change)

    def roll_back(self, model: str, change: Change) -> Channel:
        """See `ChannelStore`."""
        with self._lock:
            history = self._history.get(model, [])
            if not history:
                raise nothing_before(model)
            return self._write(model, self.read(model).channel(PRODUCTION), history.pop(0).triple, change)

    def _write(self, model: str, current: Channel, triple: Triple, change: Change) -> Channel:
        after = replace(current, triple=triple, revision=current.revision + 1, updated_at=change.at)
        self._channels.setdefault(model, {})[current.name] = after
        if current.name == PRODUCTION:
            served = self._served.setdefault(model, {})
            served[triple.model_version] = (after.revision, triple)
            for version in sorted(served, key=lambda version: -served[version][0])[SERVED_VERSIONS:]:
                del served[version]
        before_json = channel_to_json(current) if current.revision else ""
        self.trail.record(change, f"{model}/{current.name}", before_json, channel_to_json(after))
        return after


def check_pointing(name: str, triple: Triple) -> None:
    """InvalidRequestError for a channel that does not exist or a triple that is not whole."""
    if name not in (CANDIDATE, PRODUCTION):
        raise InvalidRequestError(f"there is no channel {name!r}; use {CANDIDATE!r} or {PRODUCTION!r}")
    missing = [field_name for field_name, version in asdict(triple).items() if not version]
    if missing:
        raise InvalidRequestError(f"the triple has no {missing[0]}; name a model, an SAE and a dictionary version")


def moved_on(model: str, name: str, stored: int, expected: int | None) -> ConflictError:
    """The error of a compare-and-set that lost."""
    return ConflictError(
        f"{name} of {model} is at revision {stored}, not {expected}; look at what it points to and decide again"
    )


def nothing_before(model: str) -> FailedPreconditionError:
    """The error of a rollback without history."""
    return FailedPreconditionError(f"production of {model} was never anything else; promote another triple instead")


def channel_to_json(channel: Channel) -> str:
    """JSON of a channel, without its name."""
    return json.dumps(
        {"revision": channel.revision, "triple": asdict(channel.triple), "updated_at": channel.updated_at},
        sort_keys=True,
    )


def channel_from_json(name: str, text: str) -> Channel:
    """The channel `channel_to_json` was made from."""
    stored = json.loads(text)
    return Channel(name, Triple(**stored["triple"]), int(stored["revision"]), float(stored["updated_at"]))
