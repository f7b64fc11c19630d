"""Messages of `CompareGroups` to and from the handler's values. Nothing here computes."""

from __future__ import annotations

from recsae.concepts.contrast import Interval
from recsae.rpc.request import RequestInfo
from recsae.steering.wire_plans import triple_message
from recsae.v1 import interpreter_pb2
from recsae_interpreter.convert import concept_message
from recsae_interpreter.handlers.compare import Compared, CompareQuery, UserGroup


def compare_query(request: interpreter_pb2.CompareGroupsRequest, info: RequestInfo) -> CompareQuery:
    """The handler's query for a request."""
    return CompareQuery(
        model=request.model,
        a=_group(request.a),
        b=_group(request.b),
        limit=request.limit,
        candidates=list(request.candidate_item_ids),
        deadline=info.deadline,
    )


def compare_response(found: Compared) -> interpreter_pb2.CompareGroupsResponse:
    """The response for a comparison."""
    contrast = found.contrast
    return interpreter_pb2.CompareGroupsResponse(
        differences=[
            interpreter_pb2.GroupDifference(
                concept=concept_message(concept),
                rate_a=contrast.rate_a[concept.latent],
                rate_b=contrast.rate_b[concept.latent],
                rate_difference=_estimate(contrast.rate_difference, concept.latent),
                log_odds=_estimate(contrast.log_odds, concept.latent),
                strength_a=contrast.strength_a[concept.latent],
                strength_b=contrast.strength_b[concept.latent],
                strength_difference=_estimate(contrast.strength_difference, concept.latent),
                auc=contrast.auc[concept.latent],
                q=contrast.q[concept.latent],
            )
            for concept in found.concepts
        ],
        users_a=contrast.users_a,
        users_b=contrast.users_b,
        tested=len(contrast.tested),
        triple=triple_message(found.triple),
        model=found.model,
    )


def _group(message: interpreter_pb2.UserGroup) -> UserGroup:
    return UserGroup(list(message.user_ids), [list(one.item_ids) for one in message.histories])


def _estimate(interval: Interval, latent: int) -> interpreter_pb2.Estimate:
    value, low, high = interval.value[latent], interval.low[latent], interval.high[latent]
    return interpreter_pb2.Estimate(value=value, low=low, high=high)
