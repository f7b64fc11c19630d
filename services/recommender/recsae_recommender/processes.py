"""A recommender of several processes on one port: the parent, and what a child does besides serving.

A process computes its lists in one thread, so more cores need more of them. Each has its own copy of the models, its
own plans, observer, exposure segments and limits per principal. The kernel spreads connections, not calls: a caller
with one connection reaches one process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import structlog
from prometheus_client import CollectorRegistry, generate_latest

from recsae.errors import FailedPreconditionError
from recsae.rpc.group_member import GroupMember
from recsae.rpc.process_group import GroupLimits, ProcessGroup
from recsae.rpc.shared_port import SharedPort, strangers
from recsae.telemetry.joined_metrics import JoinedMetrics
from recsae.telemetry.logging import configure_logging
from recsae.telemetry.metrics import MetricsServer, metrics_tls
from recsae_recommender.settings import RecommenderSettings

_log = structlog.get_logger(__name__)
_PREFIX = "RECSAE_RECOMMENDER_"
_LOOK_ROUND_S = 5.0
# Beyond what the settings give a drain: closing stores, logs and sessions.
_CLOSING_S = 15.0


class ProcessesApp:
    """The parent: holds the port, keeps the children running and serves the metrics of all. Computes nothing."""

    def __init__(self, settings: RecommenderSettings) -> None:
        """FailedPreconditionError when the port is taken."""
        self._settings = settings
        self._port = SharedPort(settings.host, settings.port)
        environments = [
            os.environ | {f"{_PREFIX}PORT": str(self._port.port), f"{_PREFIX}PROCESS": str(number)}
            for number in range(settings.processes)
        ]
        self._group = ProcessGroup(
            [sys.executable, "-m", "recsae_recommender"],
            environments,
            GroupLimits(stop_s=_most_drain_s(settings) + 5),
            on_failure=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        self._exposition: MetricsServer | None = None
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look_round, name="recsae-port", daemon=True)

    def start(self) -> None:
        """Returns when every child serves.

        FailedPreconditionError when one cannot, OSError when the metrics port is taken.
        """
        settings, registry = self._settings, CollectorRegistry()
        registry.register(JoinedMetrics(self._group.expositions, self._group.restarts, self._strangers))
        self._exposition = MetricsServer(registry, settings.metrics_port, settings.metrics_host, metrics_tls(settings))
        _log.info("metrics_started", host=settings.metrics_host, port=self._exposition.port)
        self._group.start()
        self._watch.start()
        _log.info("processes_ready", port=self._port.port, processes=settings.processes)

    def stop(self) -> None:
        """Drains all children; FailedPreconditionError when the group had given up."""
        self._stopped.set()
        self._group.stop()
        if self._exposition is not None:
            self._exposition.close()
        self._port.close()
        if self._group.failure:
            raise FailedPreconditionError(self._group.failure)

    def _strangers(self) -> int:
        return strangers(self._port.port, self._group.pids())

    def _look_round(self) -> None:
        while not self._stopped.wait(_LOOK_ROUND_S):
            if count := self._strangers():
                _log.error(
                    "port_shared_with_strangers",
                    port=self._port.port,
                    sockets=count,
                    reason="another program of this user listens on the port and gets part of the calls; stop it",
                )


class MemberApp:
    """A child: serves as one process does, tells the parent, and ends when the parent is gone."""

    def __init__(self, settings: RecommenderSettings) -> None:
        """As `RecommenderApp`."""
        from recsae_recommender.app import RecommenderApp  # the parent never loads what this needs

        configure_logging(f"recommender-{settings.process}", level=settings.log_level, format=settings.log_format)
        self._member = GroupMember(self._metrics, _most_drain_s(settings))
        self._app: RecommenderApp | None = None
        self._app = RecommenderApp(settings)

    def start(self) -> None:
        """As `RecommenderApp.start`."""
        assert self._app is not None
        self._app.start()
        self._member.ready()

    def stop(self) -> None:
        """As `RecommenderApp.stop`."""
        assert self._app is not None
        self._app.stop()

    def _metrics(self) -> str:
        return generate_latest(self._app.registry).decode() if self._app is not None else ""


def _most_drain_s(settings: RecommenderSettings) -> float:
    return settings.drain_probe_s + settings.drain_grace_s + _CLOSING_S
