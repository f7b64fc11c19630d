"""A whole refresh in this process: the recommender service on a loopback port, the pipeline's stages one after another.

The stages, the contract between them and the recommender, and the artifacts are those of a running platform; what is
left out is what a benchmark does not measure: Celery, Redis, the interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsae.errors import FailedPreconditionError
from recsae.pipeline.advance import advance
from recsae.pipeline.contracts import AdvanceRun, InMemoryTaskQueue, RunStep, Task
from recsae.pipeline.leases import InMemoryLeaseStore
from recsae.pipeline.platform import Platform
from recsae.pipeline.recommender_client import RecommenderClient
from recsae.pipeline.run_store import InMemoryRunStore
from recsae.pipeline.runs import Run, RunConfig, RunState, new_run
from recsae.pipeline.stages.table import STAGES, shards_of
from recsae.pipeline.steps import run_step
from recsae.rpc.client import channel
from recsae.sae.execution import Execution
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import ChannelStore, InMemoryChannelStore
from recsae_recommender.app import RecommenderApp
from recsae_recommender.settings import RecommenderSettings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Here:
    """One folder with artifacts, and a data set whose private copy lies in `data`."""

    folder: Path
    data: Path
    pseudonym_key_file: Path

    @property
    def artifacts(self) -> ArtifactStore:
        """The artifact store of the folder."""
        return ArtifactStore(str(self.folder / "artifacts"))


class _WorkedQueue(InMemoryTaskQueue):
    """Takes tasks off in the order they came."""

    def take(self) -> Task | None:
        return self.tasks.pop(0) if self.tasks else None


@contextmanager
def serving(here: Here, models: Mapping[str, str], *, interpreter: str = "") -> Iterator[str]:
    """The address of a recommender that serves the named model versions, steered by the interpreter at an address."""
    settings = RecommenderSettings(
        port=0,
        metrics_port=0,
        artifacts=str(here.folder / "artifacts"),
        models=tuple(f"{name}={version}" for name, version in models.items()),
        history=f"file:{here.data}",
        pseudonym_key_file=here.pseudonym_key_file,
        interpreter=interpreter,
        observe_sample=0,
        drain_probe_s=0,
    )
    app = RecommenderApp(settings)
    app.start()
    try:
        yield f"127.0.0.1:{app.server.port}"
    finally:
        app.stop()


def refresh(
    here: Here,
    address: str,
    config: RunConfig,
    *,
    threads: int,
    say: Say = lambda _words: None,
    channels: ChannelStore | None = None,
) -> Run:
    """Runs a refresh to its end; FailedPreconditionError with its reason when it does not succeed.

    `channels` is where it promotes to, when the configuration says so; None keeps that here, too.
    """
    queue = _WorkedQueue()
    with channel(address) as connection:
        platform = Platform(
            runs=InMemoryRunStore(),
            leases=InMemoryLeaseStore(),
            queue=queue,
            artifacts=here.artifacts,
            artifact_root=str(here.folder / "artifacts"),
            source=RecommenderClient(connection),
            channels=channels or InMemoryChannelStore(),
            train_command=(sys.executable, "-m", "recsae_worker.train_process"),
            execution=Execution(threads=threads),
        )
        run = new_run(config, platform.clock())
        platform.runs.create(run)
        queue.enqueue(AdvanceRun(run.id))
        while (task := queue.take()) is not None:
            if isinstance(task, RunStep):
                run_step(platform, task, STAGES, lambda report: say(f"{report.step.stage}: {report.detail}"))
            elif isinstance(task, AdvanceRun):
                advance(platform, task.run_id, shards_of)
        done = platform.runs.get(run.id)
    if done.state is not RunState.SUCCEEDED:
        raise FailedPreconditionError(f"the refresh of {config.model} ended {done.state}: {done.reason}")
    return done
