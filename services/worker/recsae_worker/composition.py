"""Composition root: builds the platform a task works with, once per process, in the child that runs tasks."""

from __future__ import annotations

import sys
import time
from functools import lru_cache

import redis

from recsae.drift.monitor import DriftMonitor
from recsae.drift.panes_redis import RedisPaneStore
from recsae.drift.record import RedisDriftRecords
from recsae.pipeline.celery_queue import CeleryTaskQueue
from recsae.pipeline.leases_redis import RedisLeaseStore
from recsae.pipeline.platform import Platform
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.rpc.routes import Routes, routed_channel
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archiving import Archiver, Kept
from recsae.store.channels import PRODUCTION
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.redis import connect
from recsae_worker.app import app
from recsae_worker.settings import WorkerSettings


@lru_cache(maxsize=1)
def platform_of(settings: WorkerSettings) -> Platform:
    """What the pipeline needs."""
    state = _state(settings)
    return Platform(
        runs=RedisRunStore(state),
        leases=RedisLeaseStore(state),
        queue=CeleryTaskQueue(app),
        artifacts=ArtifactStore(settings.artifacts),
        artifact_root=settings.artifacts,
        source=RecommenderClient(routed_channel(Routes.parse(settings.recommender), settings.client_options())),
        channels=RedisChannelStore(connect(settings.state_url)),
        lease_ttl_s=settings.lease_ttl_s,
        train_command=(sys.executable, "-m", "recsae_worker.train_process"),
        execution=settings.execution(),
        train_processes=settings.train_processes,
        checkpoint_every_s=settings.checkpoint_every_s,
        llm=settings.llm(),
        llm_cache=settings.llm_cache,
    )


@lru_cache(maxsize=1)
def drift_of(settings: WorkerSettings) -> DriftMonitor:
    """What the drift look needs."""
    state, channels = _state(settings), RedisChannelStore(connect(settings.state_url))
    return DriftMonitor(
        served=lambda: {model: channels.read(model).channel(PRODUCTION).triple for model in channels.models()},
        panes=RedisPaneStore(state),
        records=RedisDriftRecords(state),
        artifacts=ArtifactStore(settings.artifacts),
        window_s=settings.drift_window_s,
        clock=time.time,
    )


@lru_cache(maxsize=1)
def archiver_of(settings: WorkerSettings) -> Archiver:
    """What archiving the audit trail needs."""
    kept = Kept(newest=settings.audit_keep, days=settings.audit_keep_days)
    return Archiver(connect(settings.state_url), ArtifactStore(settings.artifacts), kept)


@lru_cache(maxsize=1)
def _state(settings: WorkerSettings) -> redis.Redis:
    return connect(settings.state_url, decode=False)
