"""What a local platform consists of: commands and settings of its two servers, two services and three worker processes.

Not here: running them (`recsae.cli.keeper`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsae.cli.health import is_serving, worker_answers
from recsae.cli.ports import Ports
from recsae.cli.processes import ProcessSpec
from recsae.cli.servers import bus_server, state_server
from recsae.cli.workspace import Addresses, ModelEntry, Workspace
from recsae.rpc.routes import Routes

_DRAIN_PROBE_S = "0"  # no load balancer watches a local platform's health


@dataclass(frozen=True)
class ServingOptions:
    """What `recsae up` lets people set."""

    observe_sample: float = 0.1
    log_level: str = "info"
    exposure_sample: float = 0.0
    recommender_processes: int = 1


def local_addresses(workspace: Workspace, ports: Ports) -> Addresses:
    """Where everything listens, models of other servers included."""
    elsewhere = {model.name: model.address for model in workspace.models() if model.address}
    own = _recommender_address(ports) if workspace.bundles() else ""
    return Addresses(
        recommender=str(Routes(own, elsewhere)),
        interpreter=f"127.0.0.1:{ports.interpreter}",
        state_url=f"redis://127.0.0.1:{ports.state}/0",
        bus_url=f"redis://127.0.0.1:{ports.bus}/0",
        metrics={
            "recommender": f"http://127.0.0.1:{ports.recommender_metrics}/metrics",
            "interpreter": f"http://127.0.0.1:{ports.interpreter_metrics}/metrics",
            "worker": f"http://127.0.0.1:{ports.worker_metrics}/metrics",
        },
    )


def local_processes(workspace: Workspace, ports: Ports, options: ServingOptions) -> list[list[ProcessSpec]]:
    """The processes in stages, each stage needing those before it; FailedPreconditionError without a model.

    Where other servers serve all models, there is no recommender among them.
    """
    workspace.model("")
    addresses = local_addresses(workspace, ports)
    recommender = [_recommender(workspace, ports, options, addresses)] if workspace.bundles() else []
    return [
        [
            state_server(workspace.server_folder("state"), ports.state),
            bus_server(workspace.server_folder("bus"), ports.bus),
        ],
        [_interpreter(workspace, ports, options, addresses), *recommender],
        _worker_processes(workspace, ports, options, addresses),
    ]


def _recommender(workspace: Workspace, ports: Ports, options: ServingOptions, addresses: Addresses) -> ProcessSpec:
    models = workspace.bundles()
    default = models[0]
    apart = [model for model in models if model.dataset and model.dataset != default.dataset]
    environment = {
        "RECSAE_RECOMMENDER_PORT": str(ports.recommender),
        "RECSAE_RECOMMENDER_METRICS_PORT": str(ports.recommender_metrics),
        "RECSAE_RECOMMENDER_ARTIFACTS": workspace.artifacts_url,
        "RECSAE_RECOMMENDER_MODELS": ",".join(f"{model.name}={model.version}" for model in models),
        "RECSAE_RECOMMENDER_HISTORY": _history(workspace, default),
        "RECSAE_RECOMMENDER_HISTORIES": ",".join(f"{model.name}={_history(workspace, model)}" for model in apart),
        "RECSAE_RECOMMENDER_PSEUDONYM_KEY_FILE": str(workspace.pseudonym_key_file()),
        "RECSAE_RECOMMENDER_INTERPRETER": addresses.interpreter,
        "RECSAE_RECOMMENDER_OBSERVE_SAMPLE": str(options.observe_sample),
        "RECSAE_RECOMMENDER_EXPOSURES": str(workspace.exposures),
        "RECSAE_RECOMMENDER_EXPOSURE_SAMPLE": str(options.exposure_sample),
        "RECSAE_RECOMMENDER_PROCESSES": str(options.recommender_processes),
        "RECSAE_RECOMMENDER_LOG_LEVEL": options.log_level,
        "RECSAE_RECOMMENDER_DRAIN_PROBE_S": _DRAIN_PROBE_S,
    }
    return _service("recommender", environment, _recommender_address(ports))


def _recommender_address(ports: Ports) -> str:
    return f"127.0.0.1:{ports.recommender}"


def _history(workspace: Workspace, model: ModelEntry) -> str:
    return f"file:{workspace.dataset(model.dataset).folder}" if model.dataset else ""


def _interpreter(workspace: Workspace, ports: Ports, options: ServingOptions, addresses: Addresses) -> ProcessSpec:
    environment = {
        "RECSAE_INTERPRETER_PORT": str(ports.interpreter),
        "RECSAE_INTERPRETER_METRICS_PORT": str(ports.interpreter_metrics),
        "RECSAE_INTERPRETER_ARTIFACTS": workspace.artifacts_url,
        "RECSAE_INTERPRETER_STATE_URL": addresses.state_url,
        "RECSAE_INTERPRETER_BUS_URL": addresses.bus_url,
        "RECSAE_INTERPRETER_RECOMMENDERS": addresses.recommender,
        "RECSAE_INTERPRETER_LOG_LEVEL": options.log_level,
        "RECSAE_INTERPRETER_DRAIN_PROBE_S": _DRAIN_PROBE_S,
    }
    return _service("interpreter", environment, addresses.interpreter)


def _worker_processes(
    workspace: Workspace, ports: Ports, options: ServingOptions, addresses: Addresses
) -> list[ProcessSpec]:
    environment = {
        "RECSAE_WORKER_ARTIFACTS": workspace.artifacts_url,
        "RECSAE_WORKER_STATE_URL": addresses.state_url,
        "RECSAE_WORKER_BUS_URL": addresses.bus_url,
        "RECSAE_WORKER_RECOMMENDER": addresses.recommender,
        "RECSAE_WORKER_LOG_LEVEL": options.log_level,
        "RECSAE_WORKER_METRICS_PORT": str(ports.worker_metrics),
        "RECSAE_WORKER_TRAIN_THREADS": str(max(1, (os.cpu_count() or 2) - 1)),  # one core stays free for serving
    }
    celery = _python("-m", "celery", "-A", "recsae_worker.app")
    level = ("--loglevel", options.log_level)
    worker = [*celery, "worker", "-c", "1", "-Q", "collect,train,concepts,drift", *level]
    return [
        ProcessSpec("worker", worker, _unbuffered(environment), ready=lambda pid: worker_answers(addresses.bus_url)),
        ProcessSpec("beat", [*celery, "beat", "--pidfile", "", *level], _unbuffered(environment)),
        ProcessSpec("exporter", _python("-m", "recsae_worker.exporter"), _unbuffered(environment)),
    ]


def _service(name: str, environment: Mapping[str, str], address: str) -> ProcessSpec:
    command = _python("-m", f"recsae_{name}")
    return ProcessSpec(name, command, _unbuffered(environment), ready=lambda pid: is_serving(address))


def _python(*arguments: str) -> Sequence[str]:
    return [sys.executable, *arguments]


def _unbuffered(environment: Mapping[str, str]) -> dict[str, str]:
    return {"PYTHONUNBUFFERED": "1", **environment}
