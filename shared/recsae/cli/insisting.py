"""How the demo makes its policy: within the safe range where that shows, else refused first and then insisted on."""

from __future__ import annotations

from rich.markup import escape

from recsae.cli.context import Platform
from recsae.cli.output import console
from recsae.errors import FailedPreconditionError
from recsae.v1 import interpreter_pb2, steering_pb2

# Strengths from which a list of ten visibly changes, and what the demo would like to add.
_SEEN_STRENGTH, _UP_STRENGTH = 0.5, 1.5


def visible_strength(detail: interpreter_pb2.ConceptDetail) -> float:
    """The largest safe strength where that can be seen in a list, else one that can be."""
    safe = next((one.high for one in detail.safe_ranges if one.operation == "add"), 0.0)
    return min(safe, _UP_STRENGTH) if safe >= _SEEN_STRENGTH else _UP_STRENGTH


def create_or_insist(platform: Platform, policy: steering_pb2.Policy) -> steering_pb2.CreatePolicyResponse:
    """Makes the policy; when it is not known to be safe, shows the refusal and asks for it all the same."""
    request = steering_pb2.CreatePolicyRequest(policy=policy, reason="demonstration")
    try:
        return platform.call(platform.steering.CreatePolicy, request)
    except FailedPreconditionError as refused:
        console.print(f"Refused: {escape(str(refused))}.", style="yellow")
    request.allow_outside_safe_range = True
    console.print(
        "Asked for all the same: one user, one hour, so that the change can be seen; the audit trail says so."
    )
    return platform.call(platform.steering.CreatePolicy, request)
