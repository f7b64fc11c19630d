"""What operations may cost by what was measured for the dictionary: an upper bound of the loss of NDCG@10.

Bounds of single operations add up (see `safety`, which holds their sum to a budget). Not here: what they cost on users
at hand (`panel`).
"""

from __future__ import annotations

from collections.abc import Sequence

from recsae.concepts.effects import NEUTRAL, DoseEffect
from recsae.steering.policies import Operation
from recsae.steering.safety import Effects, HandleUse

# Doses travel in float32.
_ROUNDING = 1e-5


def loss_upper(operations: Sequence[Operation], uses: Sequence[HandleUse], effects: Effects) -> float | None:
    """Share of NDCG@10, 0 to 1; None where a dose was not measured. A handle counts as a whole.

    `operations` are those asked for one by one, without what the handles in `uses` expand to.
    """
    total = 0.0
    for operation in operations:
        record = effects(operation.concept_id)
        if record is None or not _measured(record.doses, operation.kind.value, operation.value):
            return None
        total += record.spent(operation.kind.value, operation.value).loss
    for use in uses:
        if not _measured(use.handle.doses, "add", use.dose):
            return None
        total += use.handle.spent(use.dose).loss
    return min(1.0, total)


def _measured(doses: Sequence[DoseEffect], operation: str, dose: float) -> bool:
    """Whether a dose lies within those measured: what lies beyond may cost more than any of them."""
    points = [one.dose for one in doses if one.operation == operation]
    points += [NEUTRAL[operation]] if points and operation in NEUTRAL else []
    return bool(points) and min(points) - _ROUNDING <= dose <= max(points) + _ROUNDING
