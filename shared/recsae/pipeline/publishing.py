"""Pointing channels at what a run published: what the pipeline needs of `recsae.store.channels`."""

from __future__ import annotations

from typing import Protocol

from recsae.pipeline.triples import Triple


class Publisher(Protocol):
    """Moves the channels of a model, each move one compare-and-set with its audit event."""

    def set_candidate(self, model: str, triple: Triple, reason: str) -> None:
        """Points `candidate` at the triple; nothing changes when it does already."""

    def set_production(self, model: str, triple: Triple, reason: str) -> None:
        """Points `production` at the triple; nothing changes when it does already."""

    def production(self, model: str) -> Triple | None:
        """Where `production` points; None when nowhere."""


class InMemoryPublisher:
    """Channels in memory, for tests and single-process use."""

    def __init__(self) -> None:
        """Nothing points anywhere."""
        self.channels: dict[tuple[str, str], Triple] = {}

    def set_candidate(self, model: str, triple: Triple, reason: str) -> None:
        """See `Publisher`."""
        self.channels[model, "candidate"] = triple

    def set_production(self, model: str, triple: Triple, reason: str) -> None:
        """See `Publisher`."""
        self.channels[model, "production"] = triple

    def production(self, model: str) -> Triple | None:
        """See `Publisher`."""
        return self.channels.get((model, "production"))
