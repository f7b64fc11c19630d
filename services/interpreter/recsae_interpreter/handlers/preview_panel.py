"""Use case: what operations would do to the lists of many users, without a policy being made.

Read the users in batches, steer every row, rank before and after with their histories left out, and measure; then the
same for their histories without the newest item, which the lists should bring back. No policy in force is looked at.
Hooks with a row per pair are refused: their lists are of candidates that are each user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from recsae.concepts.catalogue import Catalogue
from recsae.concepts.estimates import Estimate
from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import split_address
from recsae.rpc.deadline import Deadline
from recsae.rpc.limits import check_time
from recsae.steering.delta import Steerer
from recsae.steering.expected_cost import loss_upper
from recsae.steering.panel import Pair, mean_over, moves, paired
from recsae.steering.policies import Operation, Policy, validate_operations
from recsae.steering.safety import HandleUse, expanded, outside_safe_range, told_apart
from recsae_interpreter.handlers.panel_facts import Example, FacetShift, ItemFacts, examples, gains, shown_of
from recsae_interpreter.handlers.panel_lists import Trial, Tried
from recsae_interpreter.handlers.panel_users import PanelUsers, Who, check_who
from recsae_interpreter.handlers.policy_checks import (
    HandleDose,
    check_concepts,
    check_steerable,
    effects_of,
    handle_uses,
)
from recsae_interpreter.handlers.preview import list_length, trial_plan
from recsae_interpreter.library import Library
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import ModelFacts
from recsae_interpreter.recommender import Recommender

_NAMED_FACETS = 5


@dataclass(frozen=True)
class PanelQuery:
    """What to try (operations and handles, or a stored policy), for whom, and the facet meant ("" = the change's own).

    `k` 0 = ten items.
    """

    operations: tuple[Operation, ...] = ()
    handles: tuple[HandleDose, ...] = ()
    policy_id: str = ""
    model: str = ""
    who: Who = field(default_factory=Who)
    k: int = 0
    facet: str = ""
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class PanelPreview:
    """What it did. None = not known: the dictionary keeps no catalogue, histories are too short, doses not measured.

    `delta_share`: mean over users of the largest share a row changed by, and the least and the largest of them.
    """

    triple: Triple
    model: str
    users: int
    users_changed: int
    overlap: Estimate
    entered: Estimate
    moved: Estimate
    facet: str
    target_share: Pair | None
    off_target: list[FacetShift]
    coverage: Pair | None
    popularity: Pair | None
    ndcg: Pair | None
    expected_loss_upper: float | None
    outside_safe_range: str
    refused: dict[str, int]
    delta_share: Estimate
    examples: list[Example]


class PreviewPanelHandler:
    """Previews operations for many users."""

    def __init__(
        self,
        library: Library,
        recommender: Recommender,
        policy: Callable[[str], Policy],
        *,
        norm_budget: float,
    ) -> None:
        """`policy` gives a stored policy by its id; `norm_budget` is that of the plans."""
        self._library = library
        self._recommender = recommender
        self._policy = policy
        self._norm_budget = norm_budget
        self._reading_segments: set[str] = set()

    def __call__(self, query: PanelQuery) -> PanelPreview:
        """The panel; InvalidRequestError, NotFoundError and FailedPreconditionError as they say.

        DeadlineExceededError once the caller's time is over, between two batches of users.
        """
        k = list_length(query.k)
        check_who(query.who)
        query = self._of_policy(query)
        if not query.handles:
            validate_operations(query.operations)
        loaded = self._library.model(query.model)
        check_steerable(loaded)
        uses = handle_uses(query.handles, loaded)
        operations = expanded(query.operations, uses)
        validate_operations(operations)
        check_concepts(operations, loaded.basis)
        facet = _facet(query, uses, loaded)
        facts = self._facts(loaded, query.deadline)
        steerer = Steerer(trial_plan(loaded, operations, self._norm_budget), loaded.encoder)
        trial = Trial(self._recommender, steerer, query.deadline)
        users = PanelUsers(self._recommender, loaded, query.deadline, self._reading_segments)
        tried, user_ids, ndcg = self._try(trial, users, query, facts, k)
        effects = effects_of(loaded)
        # Handles of a stored policy are written out in it, and were measured as a whole.
        alone, uses = told_apart(operations, loaded.dictionary.handles) if query.policy_id else (query.operations, uses)
        return replace(
            _measured(tried, user_ids, trial, facet, loaded, facts),
            ndcg=ndcg,
            expected_loss_upper=loss_upper(alone, uses, effects),
            outside_safe_range=outside_safe_range(alone, uses, effects),
        )

    def _of_policy(self, query: PanelQuery) -> PanelQuery:
        """The query with what a stored policy says, where it names one."""
        if not query.policy_id:
            return query
        if query.operations or query.handles:
            raise InvalidRequestError("a policy and operations came; try one or the other")
        policy = self._policy(query.policy_id)
        wanted = self._library.address(*split_address(query.model)) if query.model else policy.model
        if wanted != policy.model:
            raise InvalidRequestError(f"policy {policy.id} steers model {policy.model}, not {query.model}")
        return replace(query, operations=policy.operations, model=policy.model)

    def _facts(self, loaded: LoadedTriple, deadline: Deadline) -> ModelFacts:
        facts = self._recommender.describe(loaded.model, loaded.triple.model_version, deadline)
        hook = facts.hook(split_address(loaded.model).hook)
        if hook.rows == "pair":
            raise FailedPreconditionError(
                f"hook {hook.name!r} of model {facts.name} has a row per candidate item, and a panel has no candidates "
                "in common; preview users one by one"
            )
        return facts

    def _try(
        self, trial: Trial, users: PanelUsers, query: PanelQuery, facts: ModelFacts, k: int
    ) -> tuple[Tried, list[str], Pair | None]:
        """Lists of all users, whose they are, and NDCG@k of their hidden items."""
        parts: list[Tried] = []
        user_ids: list[str] = []
        before, after = [np.zeros(0)], [np.zeros(0)]
        for readings in users.readings(query.who):
            check_time(query.deadline)
            if not readings:
                continue
            parts.append(trial(readings, k))
            user_ids += [one.user_id for one in readings]
            earlier, hidden = ([], []) if facts.ignores_history else users.before_newest(readings)
            if earlier:
                found = trial(earlier, k + 1)
                before.append(gains(found.before, hidden, trial.numbers, k))
                after.append(gains(found.after, hidden, trial.numbers, k))
        if not parts:
            raise FailedPreconditionError("every user of the panel is gone since it was listed; try again")
        ranked = sum(len(one) for one in before)
        ndcg = paired(np.concatenate(before), np.concatenate(after)) if ranked else None
        return Tried.joined(parts), user_ids, ndcg


def _measured(
    tried: Tried, user_ids: list[str], trial: Trial, facet: str, loaded: LoadedTriple, facts: ModelFacts
) -> PanelPreview:
    """All figures that come of the lists themselves."""
    before, after = tried.before.items, tried.after.items
    found, catalogue = moves(before, after), loaded.catalogue()
    items = ItemFacts.of(catalogue, trial.numbers) if catalogue is not None else None
    count = facts.item_count or (len(catalogue) if catalogue is not None else 0)
    share = tried.share
    return PanelPreview(
        triple=loaded.triple,
        model=loaded.model,
        users=len(user_ids),
        users_changed=int(found.changed.sum()),
        overlap=mean_over(found.overlap),
        entered=mean_over(found.entered),
        moved=mean_over(found.moved),
        facet=facet,
        target_share=items.share(facet, before, after) if items is not None and facet else None,
        off_target=items.off_target(facet, before, after) if items is not None else [],
        coverage=shown_of(before, after, trial.numbers, count) if count else None,
        popularity=items.popularity(before, after) if items is not None else None,
        ndcg=None,
        expected_loss_upper=None,
        outside_safe_range="",
        refused=dict(tried.refused),
        delta_share=Estimate(float(share.mean()), float(share.min()), float(share.max())),
        examples=examples(user_ids, tried.before, tried.after, trial.numbers, found),
    )


def _facet(query: PanelQuery, uses: tuple[HandleUse, ...], loaded: LoadedTriple) -> str:
    """The facet meant: the one asked for, that of the handle, or the output facet of the first concept; "" = none.

    NotFoundError for one asked for that no item carries, FailedPreconditionError where that is not known.
    """
    catalogue = loaded.catalogue()
    if query.facet:
        return _asked(query.facet, catalogue, loaded.triple.dictionary_version)
    if uses:
        own = [uses[0].handle.facet]
    else:
        concept = loaded.dictionary.by_id(query.operations[0].concept_id)
        own = [concept.causal.facet] if concept.causal else []
        own += [one.facet for one in concept.output_facets[:1]]
    return next((one for one in own if catalogue is not None and one in catalogue.facet_index), "")


def _asked(facet: str, catalogue: Catalogue | None, version: str) -> str:
    if catalogue is None:
        raise FailedPreconditionError(
            f"dictionary {version} keeps no facets of its items, so shares of {facet!r} are not known; run a refresh, "
            "or leave the facet out"
        )
    if facet not in catalogue.facet_index:
        family = facet.partition("=")[0]
        alike = [one for one in catalogue.facets if one.startswith(f"{family}=")] or list(catalogue.facets)
        named = ", ".join(alike[:_NAMED_FACETS]) or "none"
        raise NotFoundError(f"no item of dictionary {version} carries facet {facet!r}; there are e.g. {named}")
    return facet
