"""Composition root: makes the parts of a running interpreter and ties them together; starts and stops them."""

from __future__ import annotations

from functools import partial

import structlog

from recsae.concepts.minilm import MiniLm
from recsae.drift.arena import CounterArena
from recsae.drift.panes_redis import RedisPaneStore
from recsae.errors import UnavailableError
from recsae.pipeline.celery_queue import CeleryTaskQueue
from recsae.pipeline.runs_redis import RedisRunStore
from recsae.rpc.routes import Routes, routed_channel
from recsae.rpc.server import build_server
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import AuditArchive
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import RedisTrail, index_events
from recsae.store.label_edits_redis import RedisLabelEditStore
from recsae.store.redis import connect, durability_warning, translated
from recsae.store.watching import StateWatcher
from recsae.telemetry.metrics import MetricsServer, MetricsTls, RpcMetrics, new_registry
from recsae.v1 import interpreter_pb2_grpc, pipeline_pb2_grpc, steering_pb2_grpc
from recsae_interpreter.board import PlanBoard
from recsae_interpreter.flushing import PaneFlusher
from recsae_interpreter.handlers.channels import ChannelsHandler
from recsae_interpreter.handlers.compare import CompareHandler
from recsae_interpreter.handlers.concepts import ConceptsHandler
from recsae_interpreter.handlers.edits import EditsHandler
from recsae_interpreter.handlers.encode import EncodeHandler
from recsae_interpreter.handlers.explain import ExplainHandler
from recsae_interpreter.handlers.kill_switches import KillSwitchesHandler
from recsae_interpreter.handlers.observe import ObserveHandler
from recsae_interpreter.handlers.policies import PoliciesHandler
from recsae_interpreter.handlers.policy_changes import PolicyChanges
from recsae_interpreter.handlers.policy_import import PolicyImportHandler
from recsae_interpreter.handlers.preview import PreviewHandler
from recsae_interpreter.handlers.preview_panel import PreviewPanelHandler
from recsae_interpreter.handlers.resolve import ResolveHandler
from recsae_interpreter.handlers.runs import RunsHandler
from recsae_interpreter.handlers.steer import SteerHandler
from recsae_interpreter.handlers.watch import WatchHandler
from recsae_interpreter.library import Library
from recsae_interpreter.loading import load_triple
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.recommender import GrpcRecommender
from recsae_interpreter.servicers import INTERPRETER, PIPELINE, InterpreterServicer, PipelineServicer
from recsae_interpreter.settings import InterpreterSettings
from recsae_interpreter.steering_servicer import STEERING, SteeringServicer
from recsae_interpreter.sync import StateSync

_log = structlog.get_logger(__name__)
_FIRST_STATE_S = 30.0


class InterpreterApp:
    """An interpreter: serves between `start` and `stop`."""

    def __init__(self, settings: InterpreterSettings) -> None:
        """Connects nothing yet."""
        self._settings = settings
        self._registry = new_registry()
        self._metrics = InterpreterMetrics(self._registry)
        self._artifacts = ArtifactStore(settings.artifacts)
        self._state = connect(settings.state_url)
        self._panes_client = connect(settings.state_url, decode=False)
        self._peer = routed_channel(Routes.parse(settings.recommenders), settings.client_options())
        self._recommender = GrpcRecommender(self._peer, timeout_s=settings.recommender_timeout_s)
        self._load = partial(load_triple, self._artifacts, embedder=MiniLm.installed())
        self._library = Library(self._load)
        self._board = PlanBoard(norm_budget=settings.norm_budget, kill_switch=settings.kill_switch)
        self._channels = RedisChannelStore(self._state, settings.state_replicas)
        self._policies = RedisPolicyStore(self._state, settings.state_replicas)
        self._edits = RedisLabelEditStore(self._state, settings.state_replicas)
        self._sync = StateSync(self._channels, self._policies, self._edits, self._library, self._board, self._metrics)
        self._watcher = StateWatcher(settings.state_url, self._sync)
        self._metrics.state_age.set_function(lambda: self._watcher.age_s)
        self._arena = CounterArena()
        self._flusher = PaneFlusher(
            self._arena, RedisPaneStore(self._panes_client), self._metrics, period_s=settings.flush_s
        )
        self.server = build_server(settings, RpcMetrics(self._registry))
        self._add_services()
        self._exposition: MetricsServer | None = None

    @property
    def metrics_port(self) -> int:
        """Port of the metrics endpoint, once started."""
        return self._exposition.port if self._exposition else 0

    def start(self) -> None:
        """Binds both ports and reports READY once the state was read and its triples are loaded.

        UnavailableError when the state server does not answer within 30 s.
        """
        settings = self._settings
        with translated("reading its configuration"):
            if warning := durability_warning(self._state, settings.state_replicas):
                _log.warning("state_not_durable", reason=warning)
            index_events(self._state)
        tls = None
        if settings.tls_cert and settings.tls_key:
            tls = MetricsTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._exposition = MetricsServer(self._registry, settings.metrics_port, settings.metrics_host, tls)
        _log.info("metrics_started", host=settings.metrics_host, port=self._exposition.port)
        self.server.start()
        self._flusher.start()
        self._watcher.start()
        if not self._sync.first_done.wait(_FIRST_STATE_S):
            raise UnavailableError(f"the state was not read within {_FIRST_STATE_S:.0f} s; see the log above")
        self.server.mark_ready()

    def stop(self) -> None:
        """Drains the server, then ends what it used, in reverse order."""
        self.server.drain()
        self._watcher.close()
        self._flusher.close()
        self._peer.close()
        self._state.close()
        self._panes_client.close()
        if self._exposition is not None:
            self._exposition.close()

    def _add_services(self) -> None:
        library, metrics, recommender = self._library, self._metrics, self._recommender
        self.server.add(
            interpreter_pb2_grpc.add_InterpreterServicer_to_server,
            InterpreterServicer(
                ExplainHandler(library, recommender, metrics),
                EncodeHandler(library),
                ConceptsHandler(library),
                EditsHandler(self._edits, library),
                ObserveHandler(library, self._arena, metrics),
                CompareHandler(library, recommender),
            ),
            INTERPRETER,
        )
        self.server.add(
            steering_pb2_grpc.add_SteeringServicer_to_server,
            SteeringServicer(
                PoliciesHandler(
                    self._policies, RedisTrail(self._state, AuditArchive(self._state, self._artifacts)), library
                ),
                PolicyChanges(self._policies, library),
                KillSwitchesHandler(self._policies, library),
                PolicyImportHandler(self._policies, library),
                ResolveHandler(self._policies, library, self._board),
                PreviewHandler(library, recommender, norm_budget=self._settings.norm_budget),
                PreviewPanelHandler(library, recommender, self._policies.get, norm_budget=self._settings.norm_budget),
                SteerHandler(
                    self._board,
                    library,
                    metrics,
                    state_age_s=lambda: self._watcher.age_s,
                    max_age_s=self._settings.plan_max_age_s,
                ),
                self._watch_handler(),
                library,
                metrics,
                self.server.draining,
            ),
            STEERING,
        )
        queue = CeleryTaskQueue.connect(self._settings.bus_url)
        runs = RunsHandler(RedisRunStore(self._state), queue, self._artifacts, recommender)
        self.server.add(
            pipeline_pb2_grpc.add_PipelineServicer_to_server,
            PipelineServicer(runs, ChannelsHandler(self._channels, self._load)),
            PIPELINE,
        )

    def _watch_handler(self) -> WatchHandler:
        return WatchHandler(
            self._board,
            state_age_s=lambda: self._watcher.age_s,
            state_max_age_s=self._settings.state_max_age_s,
            max_stream_s=self._settings.max_stream_s,
        )
