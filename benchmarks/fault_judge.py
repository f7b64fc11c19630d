"""Judges every answer of a fault run: whether its list is what its receipt says, and whether that was in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.fault_load import Asked, Written
from benchmarks.fault_world import Listed, Reference
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.wire_plans import receipt_from

TOLERANCE = 1e-6
"""Of scores under policies; without, they are compared bit for bit."""
# Ends of windows need no message: this is for the estimate of the clock and a request under way.
_WINDOW_SLACK_S = 0.3


@dataclass
class Verdict:
    """What became of the requests of one scenario; `examples` are sentences about the first few that were wrong."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    unexplained: int = 0
    steered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Keeps the first few."""
        if len(self.examples) < 5:
            self.examples.append(sentence)


def judge(asked: Iterable[Asked], written: Sequence[Written], reference: Reference, bound_s: float) -> Verdict:
    """Counts what is wrong.

    A policy may be applied from its first attempt to `bound_s` after the acknowledgement of its end, and has to be from
    `bound_s` after its acknowledgement until its end, wherever the answer says that all is well.
    """
    verdict, by_id = Verdict(), {one.id: one for one in written if one.id}
    for one in asked:
        verdict.requests += 1
        if one.reply is None:
            verdict.failed += 1
            verdict.note(f"{one.replica}: {one.error[:300]}")
            continue
        receipt = receipt_from(one.reply.receipt)
        verdict.reasons[receipt.reason.value] += 1
        verdict.steered += receipt.reason is UnsteeredReason.STEERED
        if not receipt.triple.model_version or (receipt.reason is UnsteeredReason.STEERED) != bool(receipt.applied):
            verdict.unexplained += 1
            verdict.note(f"{one.replica}: {receipt}")
            continue
        if trouble := _trouble(one, written, by_id, reference, bound_s):
            verdict.wrong += 1
            verdict.note(f"{one.replica}, {one.user}: {trouble}")
    return verdict


def _trouble(
    one: Asked, written: Sequence[Written], by_id: dict[str, Written], reference: Reference, bound_s: float
) -> str:
    """What is wrong with an answer, in a sentence; "" when nothing is."""
    assert one.reply is not None
    receipt = receipt_from(one.reply.receipt)
    found: Listed = tuple((item.item_id, item.score) for item in one.reply.items)
    applied = [by_id.get(ref.policy_id) for ref in receipt.applied]
    known = [policy for policy in applied if policy is not None]
    if len(known) < len(applied):
        return "a policy nobody made was applied"
    for policy in known:
        if one.user not in policy.users or not _may_hold(policy, one, bound_s):
            return f"{policy.name} was applied and is not in force (made {policy.made}, ended {policy.ended})"
    if not _same(found, reference.listed(one.user, [policy.operations for policy in known]), exact=not known):
        return f"the list is not that under {[policy.name for policy in known] or 'no policy'}"
    if receipt.reason in (UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED):
        names = {policy.name for policy in known}
        for policy in written:
            if one.user in policy.users and policy.name not in names and _must_hold(policy, one, bound_s):
                return f"{policy.name} is in force and was not applied ({receipt.reason})"
    return ""


def _may_hold(policy: Written, one: Asked, bound_s: float) -> bool:
    end = policy.window_end + _WINDOW_SLACK_S
    if len(policy.ended) == 2:
        end = min(end, policy.ended[1] + bound_s)
    return one.answered >= policy.made[0] and one.sent <= end


def _must_hold(policy: Written, one: Asked, bound_s: float) -> bool:
    if len(policy.made) < 2:
        return False
    end = min([policy.window_end - _WINDOW_SLACK_S, *policy.ended[:1]])
    return one.sent >= policy.made[1] + bound_s and one.answered <= end


def _same(found: Listed, expected: Listed, *, exact: bool) -> bool:
    if exact:
        return found == expected
    return len(found) == len(expected) and all(
        item == other and abs(score - wanted) <= TOLERANCE * max(1.0, abs(wanted))
        for (item, score), (other, wanted) in zip(found, expected, strict=True)
    )
