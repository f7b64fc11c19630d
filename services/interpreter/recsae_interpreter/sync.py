"""Brings a replica in line with the state server: channels -> library, policies -> plans.

Called after every event, every gap and at the start; it reads everything it needs, so calls may be lost, late or
repeated. Not here: noticing changes (`recsae.store.watching`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import structlog

from recsae.errors import UnavailableError
from recsae.steering.policies import Policy, PolicyState
from recsae.steering.policy_store import PolicySnapshot, PolicyStore
from recsae.store.channels import ChannelStore
from recsae.store.label_edits import LabelEditStore
from recsae_interpreter.board import PlanBoard, Posting
from recsae_interpreter.library import Library, Shelf
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.policy_view import as_shown

_log = structlog.get_logger(__name__)


class StateSync:
    """One replica's view of the state server."""

    def __init__(
        self,
        channels: ChannelStore,
        policies: PolicyStore,
        edits: LabelEditStore,
        library: Library,
        board: PlanBoard,
        metrics: InterpreterMetrics,
    ) -> None:
        """Keeps its collaborators."""
        self._channels = channels
        self._policies = policies
        self._edits = edits
        self._library = library
        self._board = board
        self._metrics = metrics
        self.first_done = threading.Event()
        """Set once everything was read for the first time."""

    def __call__(self) -> None:
        """Reads, loads, compiles, posts. UnavailableError when a triple could not be loaded, to be called again."""
        # Policies before channels: what is posted under a revision must never be older than that revision.
        snapshot = self._policies.snapshot()
        wanted = {model: self._channels.read(model) for model in self._channels.models()}
        edits = self._edits.snapshot()
        complete = self._library.update(wanted)
        self._library.label(edits)
        shelf = self._library.shelf
        self._report_triples(shelf)
        if not self._posted(snapshot, shelf):
            now = time.time()
            posting = self._board.post(snapshot.policies, snapshot.revision, shelf, now, snapshot.kill_switches)
            self._report_policies(snapshot.policies, shelf, now)
            self._report_switches(posting)
            self._metrics.plan_revision.set(snapshot.revision)
            _log.info("plans_compiled", revision=snapshot.revision, models=len(shelf.served))
            if snapshot.unreadable:
                _log.error(
                    "policies_unreadable", policies=snapshot.unreadable, remedy="run the release that wrote them"
                )
            if edits.unreadable:
                _log.error("edits_unreadable", edits=edits.unreadable, remedy="run the release that wrote them")
        self.first_done.set()
        if not complete:
            raise UnavailableError(f"could not load the promoted triples of {', '.join(shelf.failed)}; trying again")

    def _posted(self, snapshot: PolicySnapshot, shelf: Shelf) -> bool:
        """True when the plans on the board are of this revision, these triples and these kill switches already."""
        posting = self._board.posting
        served = {
            (model, version): (one.triple, self._board.killed(snapshot.kill_switches, model))
            for model, held in shelf.served.items()
            for version, one in held.items()
            if one.steerable
        }
        posted = {key: (one.plan.triple, one.plan.kill_switch) for key, one in posting.steerers.items()}
        return posting.number > 0 and posting.revision == snapshot.revision and posted == served

    def _report_triples(self, shelf: Shelf) -> None:
        for model, versions in shelf.served.items():
            self._metrics.triples_loaded.labels(model).set(len(versions))
            self._metrics.triples_failed.labels(model).set(int(model in shelf.failed))

    def _report_switches(self, posting: Posting) -> None:
        for model, plans in posting.plans.items():
            self._metrics.kill_switch.labels(model).set(int(any(plan.kill_switch for plan in plans.plans)))

    def _report_policies(self, policies: tuple[Policy, ...], shelf: Shelf, now: float) -> None:
        seen = Counter((one.model, as_shown(one, shelf, now).state) for one in policies if one.model in shelf.served)
        for model in shelf.served:
            for state in PolicyState:
                self._metrics.policies.labels(model, state.value).set(seen[model, state])
