"""The drift record of a model: what the last comparison found, as the exporter and people read it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import redis

from recsae.drift.states import DriftState

if TYPE_CHECKING:
    from recsae.drift.compare import Comparison  # needs scipy, which readers of records do without

# Series in Prometheus are per concept listed: the cap bounds them, and what it cut off is counted.
MAX_LISTED = 50
_RECORD_TTL_S = 3600
_PREFIX = "recsae:drift:"
_MODELS = "recsae:drift-models"


@dataclass(frozen=True)
class ConceptShift:
    """One concept in both sides; rates are shares of rows, `js_term` is in bits; NaN fields became None."""

    concept_id: str
    label: str
    latent: int
    reference_rate: float
    window_rate: float
    log2_ratio: float | None
    q: float | None
    js_term: float
    moved: bool


@dataclass(frozen=True)
class DriftRecord:
    """The last comparison of a model; times in seconds since the epoch; FVU None when nothing was seen.

    `concepts` are those that moved and, behind them, those with the largest js_term; `capped` counts concepts that
    moved and are not listed.
    """

    state: DriftState
    model: str
    sae_version: str
    dictionary_version: str
    compared_at: float
    window_start: float
    rows: int
    reference_rows: int
    js_divergence: float
    fvu: float | None
    reference_fvu: float | None
    dead_share: float
    moved: int
    judged: int
    capped: int
    concepts: tuple[ConceptShift, ...]


class DriftRecords(Protocol):
    """Where the records live."""

    def write(self, record: DriftRecord) -> None:
        """Replaces the model's record."""

    def read_all(self) -> list[DriftRecord]:
        """The record of every model that was compared within the hour, by model name."""


class RedisDriftRecords:
    """See `DriftRecords`: `recsae:drift:<model>` holds JSON, `recsae:drift-models` the names."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` may decode responses or not."""
        self._client: Any = client

    def write(self, record: DriftRecord) -> None:
        """See `DriftRecords`."""
        with self._client.pipeline() as both:
            both.set(_PREFIX + record.model, json.dumps(asdict(record), allow_nan=False), ex=_RECORD_TTL_S)
            both.sadd(_MODELS, record.model)
            both.execute()

    def read_all(self) -> list[DriftRecord]:
        """See `DriftRecords`."""
        names = sorted(name.decode() if isinstance(name, bytes) else name for name in self._client.smembers(_MODELS))
        stored = [self._client.get(_PREFIX + name) for name in names]
        return [_from_json(text) for text in stored if text is not None]


def build_record(
    comparison: Comparison,
    names: Mapping[int, tuple[str, str]],
    *,
    model: str,
    sae_version: str,
    dictionary_version: str,
    compared_at: float,
    window_start: float,
) -> DriftRecord:
    """The record of a comparison; `names` maps latent to (concept id, label), latents without one are left out."""
    moved = np.flatnonzero(comparison.moved)
    # Moved concepts first, each group by its share of the divergence: that is what explains it.
    rank = np.lexsort((-comparison.js_terms, ~comparison.moved))
    listed = [int(latent) for latent in rank if int(latent) in names and comparison.js_terms[latent] > 0][:MAX_LISTED]
    return DriftRecord(
        state=comparison.state,
        model=model,
        sae_version=sae_version,
        dictionary_version=dictionary_version,
        compared_at=compared_at,
        window_start=window_start,
        rows=comparison.rows,
        reference_rows=comparison.reference_rows,
        js_divergence=comparison.js_divergence,
        fvu=_finite(comparison.fvu),
        reference_fvu=_finite(comparison.reference_fvu),
        dead_share=comparison.dead_share,
        moved=len(moved),
        judged=int(comparison.judged.sum()),
        capped=len(set(moved.tolist()) - set(listed)),
        concepts=tuple(_shift(comparison, latent, *names[latent]) for latent in listed),
    )


def _shift(comparison: Comparison, latent: int, concept_id: str, label: str) -> ConceptShift:
    return ConceptShift(
        concept_id=concept_id,
        label=label,
        latent=latent,
        reference_rate=float(comparison.reference_rate[latent]),
        window_rate=float(comparison.window_rate[latent]),
        log2_ratio=_finite(float(comparison.log2_ratio[latent])),
        q=_finite(float(comparison.q[latent])),
        js_term=float(comparison.js_terms[latent]),
        moved=bool(comparison.moved[latent]),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _from_json(text: str | bytes) -> DriftRecord:
    raw: dict[str, Any] = json.loads(text)
    concepts = tuple(ConceptShift(**shift) for shift in raw.pop("concepts"))
    return DriftRecord(**{**raw, "state": DriftState(raw["state"]), "concepts": concepts})
