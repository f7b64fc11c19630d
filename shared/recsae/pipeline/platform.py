"""What the pipeline works with, gathered once by a worker (or a test) and passed down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsae.pipeline.contracts import TaskQueue
from recsae.pipeline.leases import LeaseStore
from recsae.pipeline.run_store import RunStore
from recsae.pipeline.workspace import Workspace
from recsae.sae.execution import Execution
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import ChannelStore

if TYPE_CHECKING:
    from recsae.concepts.llm.options import LlmOptions
    from recsae.pipeline.sources import ModelSource


@dataclass(frozen=True)
class Platform:
    """The adapters a run needs. `artifact_root` is the URL `artifacts` was opened with."""

    runs: RunStore
    leases: LeaseStore
    queue: TaskQueue
    artifacts: ArtifactStore
    artifact_root: str
    source: ModelSource
    channels: ChannelStore
    train_command: Sequence[str] = ()
    """Starts SAE training, the path of the job file to be added."""
    execution: Execution = field(default_factory=Execution)
    """How SAE training runs on a worker's machine."""
    train_processes: int = 1
    """Processes that train one SAE together, each on its part of every batch."""
    checkpoint_every_s: float = 10.0
    llm: LlmOptions | None = None
    """Endpoint of the language model that describes concepts; None = this worker has none."""
    llm_cache: str = ""
    """URL its answers are kept below; empty = `llm-answers` below `artifact_root`."""
    clock: Callable[[], float] = time.time
    lease_ttl_s: float = 15.0

    def workspace(self, run_id: str) -> Workspace:
        """The work folder of a run."""
        return Workspace(self.artifact_root, run_id)
