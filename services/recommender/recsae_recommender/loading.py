"""From a name and version in the settings to a model that answers: fetch, verify, load, warm up, check batching."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import structlog

from recsae.errors import FailedPreconditionError
from recsae.recommenders.bundle import KIND, ModelBundle
from recsae.recommenders.invariance import batch_invariance
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.batch_lane import BatchLane
from recsae.steering.matching import SteerContext
from recsae.store.artifacts import ArtifactStore
from recsae.telemetry.metrics import RecommenderMetrics
from recsae.telemetry.observing import Sample
from recsae_recommender.batcher import Batcher
from recsae_recommender.models import ServedModel
from recsae_recommender.pipeline import Job, ModelPipeline
from recsae_recommender.ranking import RankAsk
from recsae_recommender.rows import most_together
from recsae_recommender.settings import RecommenderSettings
from recsae_recommender.steering import ModelSteering
from recsae_recommender.subjects import SubjectReader

_log = structlog.get_logger(__name__)


def load_recommender(store: ArtifactStore, name: str, version: str, threads: int) -> OnnxRecommender:
    """The verified model of a version; FailedPreconditionError when its bundle has another name."""
    bundle = ModelBundle.from_artifact(store.fetch(KIND, version))
    if bundle.name != name:
        raise FailedPreconditionError(
            f"model {version} is named {bundle.name!r}, not {name!r}; set {bundle.name}={version}"
        )
    recommender = OnnxRecommender(bundle, threads)
    _return_freed_memory()
    return recommender


def _return_freed_memory() -> None:
    """Gives the system what loading has freed: glibc keeps 240 MB of a model with a million items for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def serve_model(
    recommender: OnnxRecommender,
    steering: ModelSteering,
    observe: Callable[[Sample], None] | None,
    subjects: SubjectReader,
    settings: RecommenderSettings,
    metrics: RecommenderMetrics,
    lane: BatchLane,
) -> ServedModel:
    """The model, computing in `lane`, after it has answered a request through the whole pipeline."""
    check = batch_invariance(recommender)
    if not check.holds:
        _log.warning("batching_changes_results", model=recommender.name, differs=check.differs)
    metrics.batch_invariant.labels(recommender.name).set(check.holds)
    pipeline = ModelPipeline(recommender, steering, observe)
    # Through the whole pipeline but not observed: made-up histories are no traffic.
    ModelPipeline(recommender, steering, None).serve([_warm_up_job(recommender)])
    batcher = Batcher(
        pipeline.serve,
        lane,
        name=recommender.name,
        max_batch=min(settings.max_batch, most_together(recommender)) if check.holds else 1,
        max_queue=settings.batch_queue,
        on_batch=metrics.batch_size.observe,
    )
    _log.info(
        "model_ready",
        model=recommender.name,
        version=recommender.version,
        batch_invariant=check.holds,
        warm_up_s=round(check.seconds, 3),
    )
    return ServedModel(recommender, batcher, subjects)


def _warm_up_job(recommender: OnnxRecommender) -> Job:
    one, pairs = np.array([1], dtype=np.int64), recommender.hooks[0].rows == "pair"
    return Job(history=one, context=SteerContext(), ask=RankAsk(k=1, candidates=one if pairs else None))
