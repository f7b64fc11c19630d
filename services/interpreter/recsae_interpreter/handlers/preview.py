"""Use case: what operations would do to one user's list, without a policy being made.

Where the subject has several rows all of them are steered. A ranker of pairs ranks the model's own best items again:
`CANDIDATES_PER_ITEM` times as many as the list is long, so that what moves up from just below is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import time

from recsae.concepts.effects import SafeRange
from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.steering.delta import Steerer, latent_values, target_values
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Plan, PlanPolicy, plan_operation
from recsae.steering.policies import Operation, OperationKind, Scope, Window, validate_operations
from recsae.steering.receipts import PolicyRef, Receipt
from recsae.steering.safety import expanded, outside_safe_range
from recsae_interpreter.handlers.candidates import Candidates, check_candidates
from recsae_interpreter.handlers.policy_checks import (
    HandleDose,
    check_concepts,
    check_steerable,
    effects_of,
    handle_uses,
)
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import Floats, HeadRows, Reading, ScoredItem, Subject
from recsae_interpreter.recommender import Recommender

DEFAULT_K = 10
MOST_K = 100
CANDIDATES_PER_ITEM = 5
LEAST_CANDIDATES = 50
# The receipt of a preview names this, since there is no policy yet.
PREVIEW = PolicyRef("preview", 1)


@dataclass(frozen=True)
class PreviewQuery:
    """Operations and handles for a subject; `k` 0 = ten items. `candidates` are for a hook with a row per pair."""

    operations: tuple[Operation, ...]
    model: str = ""
    subject: Subject = field(default_factory=Subject)
    candidates: Sequence[str] = ()
    k: int = 0
    handles: tuple[HandleDose, ...] = ()
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class MovedItem:
    """An item of the steered list and its rank before, from 1; 0 = it was not in the list."""

    item: ScoredItem
    rank_before: int


@dataclass(frozen=True)
class StrengthChange:
    """Strength of one concept before, what the operation asks for, and its safe range (None = not measured)."""

    concept_id: str
    label: str
    before: float
    target: float
    safe_range: SafeRange | None


@dataclass(frozen=True)
class Preview:
    """Both lists, what they share over k, and the receipt the change would carry.

    `outside_safe_range` says why the operations are not known to be safe; "" = they are. `rows` were steered.
    """

    triple: Triple
    before: Sequence[ScoredItem]
    after: Sequence[MovedItem]
    overlap: float
    receipt: Receipt
    strengths: Sequence[StrengthChange]
    outside_safe_range: str
    rows: int
    model: str = ""

    @property
    def entered(self) -> list[str]:
        """Ids of the items that were not in the list before, best first."""
        return [one.item.item_id for one in self.after if not one.rank_before]

    @property
    def left(self) -> list[str]:
        """Ids of the items that are in the list no more, best first."""
        stayed = {one.item.item_id for one in self.after}
        return [one.item_id for one in self.before if one.item_id not in stayed]

    @property
    def moved(self) -> float:
        """Mean absolute move in ranks of the items that stayed; 0 where none did."""
        distances = [abs(one.rank_before - rank) for rank, one in enumerate(self.after, start=1) if one.rank_before]
        return sum(distances) / len(distances) if distances else 0.0


class PreviewHandler:
    """Previews operations."""

    def __init__(self, library: Library, recommender: Recommender, *, norm_budget: float) -> None:
        """`norm_budget` is that of the plans."""
        self._library = library
        self._recommender = recommender
        self._candidates = Candidates(library, recommender)
        self._norm_budget = norm_budget

    def __call__(self, query: PreviewQuery) -> Preview:
        """The preview; FailedPreconditionError when the model version has no promoted SAE."""
        k = list_length(query.k)
        if not query.handles:
            validate_operations(query.operations)
        if not query.subject.named:
            raise InvalidRequestError("no subject came; set user_id or history")
        check_candidates(query.candidates)
        check_steerable(self._library.model(query.model))
        reading = self._embed(query, k)
        loaded = self._library.version(self._library.address(reading.model, reading.hook), reading.model_version)
        uses = handle_uses(query.handles, loaded)
        operations = expanded(query.operations, uses)
        validate_operations(operations)
        check_concepts(operations, loaded.basis)
        x = reading.activations
        steerer = Steerer(trial_plan(loaded, operations, self._norm_budget), loaded.encoder)
        steered = steerer.steer_groups(x, [SteerContext()], [len(x)], time())
        if steered.error is not None:
            raise steered.error
        lists = [HeadRows.of(reading), HeadRows.of(reading, steered.activation)]
        before, after = self._recommender.rank(reading, lists, k=k, deadline=query.deadline)
        ranks = {item.item_id: rank for rank, item in enumerate(before, start=1)}
        return Preview(
            triple=loaded.triple,
            before=before,
            after=[MovedItem(item, ranks.get(item.item_id, 0)) for item in after],
            overlap=sum(item.item_id in ranks for item in after) / k,
            receipt=steered.receipts[0],
            strengths=_strengths(loaded, x, operations),
            outside_safe_range=outside_safe_range(query.operations, uses, effects_of(loaded)),
            rows=len(x),
            model=loaded.model,
        )

    def _embed(self, query: PreviewQuery, k: int) -> Reading:
        address = query.model or self._library.model("").model
        count = max(CANDIDATES_PER_ITEM * k, LEAST_CANDIDATES)
        candidates = query.candidates or self._candidates.best(address, query.subject, count, query.deadline)
        return self._recommender.embed(address, query.subject, query.deadline, candidates)


def trial_plan(loaded: LoadedTriple, operations: tuple[Operation, ...], norm_budget: float) -> Plan:
    """The plan of these operations alone, for everybody and without end."""
    compiled = tuple(plan_operation(operation, loaded.basis) for operation in operations)
    return Plan(
        revision=0,
        model=loaded.model,
        triple=loaded.triple,
        policies=(PlanPolicy(PREVIEW, compiled, Scope(), Window(), salt=""),),
        dim=loaded.sae.d,
        hook=loaded.basis.hook,
        compiled_at=time(),
        norm_budget=norm_budget,
    )


def list_length(k: int) -> int:
    """The list length asked for, 0 = 10; InvalidRequestError above 100."""
    if k > MOST_K:
        raise InvalidRequestError(f"k = {k}; ask for at most {MOST_K}")
    return k or DEFAULT_K


def _strengths(loaded: LoadedTriple, x: Floats, operations: tuple[Operation, ...]) -> list[StrengthChange]:
    """Of several rows `x` float32 [n, d], those of the one where the concept is strongest."""
    codes = loaded.encoder(x)
    changes = []
    for operation in operations:
        concept = loaded.dictionary.by_id(operation.concept_id)
        before = latent_values(codes, concept.latent).max(keepdims=True) / float(loaded.basis.p95[concept.latent])
        kind = operation.kind
        target = target_values(kind, 0.0 if kind is OperationKind.ABLATE else operation.value, before)
        safe = concept.causal.safe_range(kind.value) if concept.causal else None
        changes.append(StrengthChange(concept.id, concept.label, float(before[0]), float(target[0]), safe))
    return changes
