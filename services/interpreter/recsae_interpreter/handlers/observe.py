"""Use case: sampled live activations become counters for drift. Nothing here is kept per user."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.drift.arena import CounterArena
from recsae.errors import InvalidRequestError
from recsae_interpreter.library import Library
from recsae_interpreter.metrics import InterpreterMetrics

MOST_ROWS = 4_096
_LONGEST_ID = 64


@dataclass(frozen=True)
class Observation:
    """Activations float32 [n, d] at a hook ("" = the first) of a model; `steered` bool [n] or None = none was."""

    model: str
    hook: str
    model_version: str
    x: NDArray[np.float32]
    steered: NDArray[np.bool_] | None
    batch_id: str


class ObserveHandler:
    """Counts observations in the arena."""

    def __init__(self, library: Library, arena: CounterArena, metrics: InterpreterMetrics) -> None:
        """Keeps its collaborators."""
        self._library = library
        self._arena = arena
        self._metrics = metrics

    def __call__(self, observation: Observation) -> int:
        """Rows counted: 0 for a version without promoted SAE and for a batch seen before."""
        rows = len(observation.x)
        if rows > MOST_ROWS:
            raise InvalidRequestError(f"{rows} rows came; send at most {MOST_ROWS} in one call")
        if not 1 <= len(observation.batch_id) <= _LONGEST_ID:
            raise InvalidRequestError(
                f"batch_id has {len(observation.batch_id)} characters; give each batch an id of 1 to {_LONGEST_ID}"
            )
        address = self._library.address(observation.model, observation.hook)
        loaded = self._library.find(address, observation.model_version)
        if loaded is None:
            # The name is the caller's own; only models known here become a label.
            known = address if address in self._library.shelf.served else "unknown"
            self._metrics.observed.labels(known, "unknown_version").inc(rows)
            return 0
        codes = loaded.sae.encode(observation.x)
        counted = self._arena.observe(
            loaded.model,
            loaded.triple.sae_version,
            loaded.sae.width,
            codes.indices,
            codes.values,
            observation.x,
            loaded.sae.decode(codes),
            mean=loaded.sae.mean,
            at=time.time(),
            steered=observation.steered,
            batch_id=observation.batch_id,
        )
        self._metrics.observed.labels(loaded.model, "counted" if counted else "repeated").inc(rows)
        return counted
