"""Policies as people should see them: states that follow from the time and from the promoted dictionary.

Both are computed and not stored, so every replica agrees without anyone having to write them down in time.
"""

from __future__ import annotations

from dataclasses import replace

from recsae.steering.plans import suspension
from recsae.steering.policies import Policy, PolicyState, as_of
from recsae_interpreter.library import Shelf


def as_shown(policy: Policy, shelf: Shelf, now: float) -> Policy:
    """Past its end it is expired; suspended, with the reason, while it cannot be in force with the promoted dictionary.

    That is while a concept of it is gone or in doubt, or a live one's safe range no longer holds (`suspension`).
    """
    policy = as_of(policy, now)
    if policy.state not in (PolicyState.LIVE, PolicyState.SHADOW):
        return policy
    loaded = shelf.production.get(policy.model)
    if loaded is None:
        why = f"model {policy.model} has no promoted SAE and dictionary"
    else:
        why = suspension(policy, loaded.basis)
    return replace(policy, state=PolicyState.SUSPENDED, state_reason=why) if why else policy
