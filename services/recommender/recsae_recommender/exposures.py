"""The exposure log of this service: what of a response is written, and under which pseudonym.

Not here: the log itself (`recsae.exposures`).
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import structlog

from recsae.exposures.log import ExposureLog
from recsae.exposures.record import OWN_KEY, Exposure, ShadowExposure, overlap
from recsae.exposures.segments import SegmentWriter
from recsae.recommenders.runtime import OnnxRecommender
from recsae.steering.receipts import ShadowOutcome, UnsteeredReason
from recsae.store.pseudonyms import pseudonym
from recsae.telemetry.metrics import RecommenderMetrics
from recsae_recommender.pipeline import Ranking
from recsae_recommender.settings import RecommenderSettings
from recsae_recommender.shadows import ShadowRows, shadow_list

_log = structlog.get_logger(__name__)
_KEY_BYTES = 32


class Exposures:
    """Writes a share of responses to the log."""

    def __init__(self, log: ExposureLog, key: bytes, metrics: RecommenderMetrics) -> None:
        """`key` makes the pseudonyms; an empty one is replaced by one of this process, which joins with nothing."""
        self._log, self._metrics = log, metrics
        self._key, self._mark = (key, "") if key else (secrets.token_bytes(_KEY_BYTES), OWN_KEY)

    def drawn(self) -> bool:
        """Whether to offer the response at hand; asked first, because it is nearly free."""
        return self._log.drawn()

    def offer(self, recommender: OnnxRecommender, ranking: Ranking, *, user_id: str, request_id: str) -> None:
        """Takes a response to be written in the background; takes microseconds and never raises."""
        try:
            at, shadow = time.time(), ranking.shadow.copied() if ranking.shadow is not None else None
        except Exception as error:  # a list that is ready is served, whatever the log has to say
            self._metrics.exposures_dropped.labels("error").inc()
            _log.warning("exposure_not_offered", model=recommender.name, exc_info=error)
            return
        self._log.offer(
            lambda: self._exposure(recommender, ranking, shadow, user_id, request_id, at),
            size=shadow.nbytes if shadow is not None else 0,
        )

    def close(self) -> None:
        """Writes what is held."""
        self._log.close()

    def _exposure(
        self,
        recommender: OnnxRecommender,
        ranking: Ranking,
        shadow: ShadowRows | None,
        user_id: str,
        request_id: str,
        at: float,
    ) -> Exposure:
        receipt, ids = ranking.receipt, recommender.bundle.item_ids
        items = tuple(ids[index - 1] for index in ranking.items.indices)
        return Exposure(
            at=at,
            request_id=request_id,
            user=self._mark + pseudonym(self._key, user_id) if user_id else "",
            model=recommender.name,
            triple=receipt.triple,
            plan_revision=receipt.plan_revision,
            reason=receipt.reason,
            item_ids=items,
            applied=receipt.applied,
            held_out=receipt.held_out,
            delta_share=receipt.delta_share,
            shadow=None if receipt.shadow is None else self._shadow(recommender, receipt.shadow, shadow, items),
        )

    def _shadow(
        self, recommender: OnnxRecommender, outcome: ShadowOutcome, rows: ShadowRows | None, served: tuple[str, ...]
    ) -> ShadowExposure:
        """The outcome with the list that would have been; without it when it would not have applied, or failed."""
        found = ShadowExposure(outcome.policies, outcome.delta_share, outcome.reason)
        if rows is None or outcome.reason is not UnsteeredReason.STEERED:
            return found
        try:
            ids = recommender.bundle.item_ids
            items = tuple(ids[index - 1] for index in shadow_list(recommender, rows).indices)
        except Exception as error:
            _log.warning("shadow_list_failed", model=recommender.name, exc_info=error)
            return found
        share = overlap(served, items)
        self._metrics.shadow_overlap.labels(recommender.name).observe(share)
        return ShadowExposure(outcome.policies, outcome.delta_share, outcome.reason, items, share)


def open_exposures(settings: RecommenderSettings, metrics: RecommenderMetrics) -> Exposures | None:
    """The log the settings ask for, None when they ask for none; FailedPreconditionError when it cannot be written."""
    if not settings.exposures or settings.exposure_sample == 0:
        return None
    key = settings.pseudonym_key()
    if not key:
        _log.warning("exposures_without_key", remedy="set pseudonym_key_file: pseudonyms then join over restarts")
    log = ExposureLog(
        SegmentWriter(Path(settings.exposures), retention_days=settings.exposure_retention_days),
        share=settings.exposure_sample,
        capacity=settings.exposure_buffer,
        on_written=metrics.exposures_written.inc,
        on_dropped=lambda reason, records: metrics.exposures_dropped.labels(reason).inc(records),
    )
    return Exposures(log, key, metrics)
