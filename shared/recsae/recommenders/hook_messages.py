"""Hooks as messages of the contract: what our recommender service and the SDK say about a hook."""

from __future__ import annotations

from recsae.recommenders.description import Hook, Side
from recsae.v1 import common_pb2, recommender_pb2

SIDES: dict[Side, common_pb2.Side.ValueType] = {"user": common_pb2.SIDE_USER, "item": common_pb2.SIDE_ITEM}
_ROWS = {
    "subject": recommender_pb2.ROW_KIND_SUBJECT,
    "interest": recommender_pb2.ROW_KIND_INTEREST,
    "pair": recommender_pb2.ROW_KIND_PAIR,
}


def hook_info(hook: Hook) -> recommender_pb2.HookInfo:
    """The message for a hook."""
    return recommender_pb2.HookInfo(
        name=hook.name,
        side=SIDES[hook.side],
        dim=hook.dim,
        steerable=hook.steerable,
        all_positions=hook.all_positions,
        rows=_ROWS[hook.rows],
        interests=hook.interests if hook.rows == "interest" else 0,
    )
