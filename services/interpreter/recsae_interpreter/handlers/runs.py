"""Use cases of refresh runs and sweeps: start, look, cancel.

The run record is the truth; the queue only carries a hint.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from recsae.errors import InvalidRequestError, NotFoundError, UnavailableError
from recsae.pipeline.contracts import AdvanceRun, TaskQueue
from recsae.pipeline.run_store import MAX_LISTED, RunStore, cancel, start_refresh
from recsae.pipeline.runs import Run, RunConfig
from recsae.recommenders.address import address_of, split_address
from recsae.rpc.deadline import Deadline
from recsae.store.artifacts import ArtifactStore
from recsae_interpreter.recommender import Recommender

DEFAULT_LISTED = 20

_log = structlog.get_logger(__name__)


class RunsHandler:
    """Fronts the pipeline's run records."""

    def __init__(self, runs: RunStore, queue: TaskQueue, artifacts: ArtifactStore, recommender: Recommender) -> None:
        """Keeps its collaborators."""
        self._runs = runs
        self._queue = queue
        self._artifacts = artifacts
        self._recommender = recommender

    def start(self, config: RunConfig, idempotency_key: str, deadline: Deadline) -> Run:
        """A queued run. It is kept when the broker does not answer: workers sweep for runs nobody advances.

        InvalidRequestError for a hook its model does not have.
        """
        config.validate()
        config = replace(
            config,
            model=self._filed_under(config.model, deadline),
            control_model=self._filed_under(config.control_model, deadline),
        )
        if config.dataset_version not in self._artifacts.versions("dataset"):
            raise NotFoundError(f"no dataset {config.dataset_version!r} is published; publish one and give its version")
        run = start_refresh(self._runs, config, idempotency_key)
        if not run.state.ended:
            try:
                self._queue.enqueue(AdvanceRun(run.id))
            except UnavailableError as error:
                _log.warning("broker_lost", run=run.id, exc_info=error)
        return run

    def _filed_under(self, address: str, deadline: Deadline) -> str:
        """The address a hook is known by: a model's own name where its first hook was named."""
        name, hook = split_address(address)
        if not hook:
            return address
        facts = self._recommender.describe(name, "", deadline)
        facts.hook(hook)
        return address_of(name, hook, facts.hooks[0].name)

    def get(self, run_id: str) -> Run:
        """The run; NotFoundError when there is none."""
        return self._runs.get(run_id)

    def list(self, model: str, limit: int) -> list[Run]:
        """Runs, newest first; of one model when named."""
        if limit > MAX_LISTED:
            raise InvalidRequestError(f"limit {limit}; ask for at most {MAX_LISTED} runs")
        return self._runs.list(model, limit or DEFAULT_LISTED)

    def cancel(self, run_id: str, reason: str) -> Run:
        """Ends a run; one that has ended stays as it is."""
        return cancel(self._runs, run_id, reason)
