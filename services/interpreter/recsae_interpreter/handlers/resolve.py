"""Use case: which policies would win for a request now or at another time, and why the others would not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time

from recsae.errors import NotFoundError
from recsae.pipeline.triples import Triple
from recsae.steering.matching import SteerContext
from recsae.steering.policies import Operation
from recsae.steering.policy_store import PolicyStore
from recsae.steering.resolution import PolicyVerdict, resolve
from recsae.steering.safety import judged
from recsae_interpreter.board import PlanBoard
from recsae_interpreter.handlers.policy_checks import effects_of
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.policy_view import as_shown


@dataclass(frozen=True)
class Resolution:
    """Verdicts in the order of application, and the labels of the concepts they name.

    `outside_safe_range` says why the operations that apply are, together, not known to be safe; "" = they are. With
    `kill_switch` nothing applies whatever the verdicts.
    """

    verdicts: Sequence[PolicyVerdict]
    labels: Mapping[str, str]
    model: str
    triple: Triple
    plan_revision: int
    kill_switch: bool
    outside_safe_range: str


class ResolveHandler:
    """Resolves policies from the store, as plans compiled from it would."""

    def __init__(self, policies: PolicyStore, library: Library, board: PlanBoard) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._library = library
        self._board = board

    def __call__(self, model: str, context: SteerContext, at: float | None) -> Resolution:
        """Verdicts for a request at `at` (seconds since the epoch, None = now); NotFoundError for an unknown model."""
        now = time() if at is None else at
        loaded = self._library.model(model)
        snapshot = self._policies.snapshot()
        shelf = self._library.shelf
        own = [as_shown(one, shelf, now) for one in snapshot.policies if one.model == loaded.model]
        verdicts = resolve(own, context, now)
        applied = tuple(operation for verdict in verdicts for operation in verdict.applied)
        return Resolution(
            verdicts=verdicts,
            labels=_labels(loaded, [one.operation for verdict in verdicts for one in verdict.operations]),
            model=loaded.model,
            triple=loaded.triple,
            plan_revision=snapshot.revision,
            kill_switch=self._board.killed(snapshot.kill_switches, loaded.model),
            outside_safe_range=judged(applied, loaded.dictionary.handles, effects_of(loaded)) if applied else "",
        )


def _labels(loaded: LoadedTriple, operations: Sequence[Operation]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for concept_id in {one.concept_id for one in operations}:
        try:
            labels[concept_id] = loaded.dictionary.by_id(concept_id).label
        except NotFoundError:
            # Promoted in between: the verdict names the id all the same.
            labels[concept_id] = ""
    return labels
