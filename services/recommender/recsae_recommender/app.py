"""Composition root: makes the parts of a running recommender and ties them together; starts and stops them."""

from __future__ import annotations

import structlog

from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.rpc.server import build_server
from recsae.store.artifacts import ArtifactStore
from recsae.store.histories import AsideStore, is_remote, open_history_store
from recsae.telemetry.metrics import MetricsServer, RecommenderMetrics, RpcMetrics, metrics_tls, new_registry
from recsae.v1 import recommender_pb2_grpc
from recsae_recommender.exposures import open_exposures
from recsae_recommender.handlers.embed import EmbedHandler
from recsae_recommender.handlers.export import ExportHandler
from recsae_recommender.handlers.items import ItemsHandler
from recsae_recommender.handlers.rank import RankHandler
from recsae_recommender.handlers.recommend import RecommendHandler
from recsae_recommender.loading import load_recommender, serve_model
from recsae_recommender.loop import make_lane, start_server
from recsae_recommender.models import ModelTable, ServedModel
from recsae_recommender.observer import Observer
from recsae_recommender.servicers import (
    ACTIVATION_EXPORTER,
    RECOMMENDER,
    ActivationExporterServicer,
    RecommenderServicer,
)
from recsae_recommender.settings import RecommenderSettings
from recsae_recommender.steering import ModelSteering, try_interpreter_client
from recsae_recommender.subjects import SubjectReader

_log = structlog.get_logger(__name__)
_FIRST_PLAN_S = 1.0


class RecommenderApp:
    """A recommender: loads its models when made, serves between `start` and `stop`."""

    def __init__(self, settings: RecommenderSettings) -> None:
        """RecsaeError when a model, the history store or a certificate is not what the settings say."""
        self._settings = settings
        self.registry = new_registry()
        """The metrics of this process."""
        self._metrics = RecommenderMetrics(self.registry)
        self._interpreter = try_interpreter_client(settings)
        self._observer = self._make_observer()
        self._exposures = open_exposures(settings, self._metrics)
        store, threads = ArtifactStore(settings.artifacts), settings.threads_per_model
        recommenders = [load_recommender(store, name, version, threads) for name, version in settings.model_versions()]
        self._lane = make_lane(settings, recommenders)
        self._subjects: dict[str, SubjectReader] = {}
        self._steerings: list[ModelSteering] = []
        self._models = ModelTable([self._make_model(recommender) for recommender in recommenders])
        self.server = build_server(settings, RpcMetrics(self.registry))
        self._add_services()
        self._exposition: MetricsServer | None = None

    @property
    def metrics_port(self) -> int:
        """Port of the metrics endpoint, once started."""
        return self._exposition.port if self._exposition else 0

    def start(self) -> None:
        """Binds both ports and reports READY: every model has answered a warm-up request by now."""
        self._wait_for_plans()
        if self._settings.process is None:  # else the parent serves the metrics of all its processes
            self._serve_metrics()
        start_server(self.server, self._lane)
        self.server.mark_ready()

    def stop(self) -> None:
        """Drains the server, then ends what it used, in reverse order."""
        self.server.drain()
        self._models.close()
        if self._exposures is not None:
            self._exposures.close()
        for steering in self._steerings:
            steering.close()
        if self._observer is not None:
            self._observer.close()
        if self._interpreter is not None:
            self._interpreter.close()
        if self._exposition is not None:
            self._exposition.close()

    def _serve_metrics(self) -> None:
        settings = self._settings
        tls = metrics_tls(settings)
        self._exposition = MetricsServer(self.registry, settings.metrics_port, settings.metrics_host, tls)
        _log.info("metrics_started", host=settings.metrics_host, port=self._exposition.port)

    def _wait_for_plans(self) -> None:
        """Gives the interpreter a moment, so that a new replica does not begin with unsteered answers."""
        deadline = Deadline.after(_FIRST_PLAN_S)
        for steering in self._steerings:
            steering.wait_for_plan(max(deadline.remaining() or 0, 0))

    def _make_observer(self) -> Observer | None:
        settings = self._settings
        if self._interpreter is None or settings.observe_sample == 0:
            return None
        return Observer(
            self._interpreter, self._metrics, share=settings.observe_sample, capacity=settings.observe_buffer
        )

    def _make_model(self, recommender: OnnxRecommender) -> ServedModel:
        settings = self._settings
        steering = ModelSteering(recommender, self._interpreter, settings, self._metrics)
        self._steerings.append(steering)
        subjects = self._subjects_of(settings.history_of(recommender.name))
        observe = self._observer.offer if self._observer is not None else None
        return serve_model(recommender, steering, observe, subjects, settings, self._metrics, self._lane)

    def _subjects_of(self, url: str) -> SubjectReader:
        """One reader per store, however many models share it."""
        if url not in self._subjects:
            store = open_history_store(url) if url else None
            if store is not None and is_remote(url):
                store = AsideStore(store, self._lane.aside)
            self._subjects[url] = SubjectReader(store, self._settings.pseudonym_key(), self._lane.aside)
        return self._subjects[url]

    def _add_services(self) -> None:
        models = self._models
        self.server.add(
            recommender_pb2_grpc.add_RecommenderServicer_to_server,
            RecommenderServicer(RecommendHandler(models, self._metrics, self._exposures), RankHandler(models)),
            RECOMMENDER,
            lanes={"Recommend": self._lane},
        )
        self.server.add(
            recommender_pb2_grpc.add_ActivationExporterServicer_to_server,
            ActivationExporterServicer(models, EmbedHandler(models), ExportHandler(models), ItemsHandler(models)),
            ACTIVATION_EXPORTER,
        )
