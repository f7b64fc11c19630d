"""Use cases of kill switches: all steering of one model, or of every model, off by one call and on again by another.

A switch is stored beside the policies and raises the plan revision as they do, so it is live as soon as a policy is.
Not here: the switch of the settings, which holds for as long as the service runs with it (`board`).
"""

from __future__ import annotations

from dataclasses import dataclass

from recsae.errors import NotFoundError
from recsae.recommenders.address import split_address
from recsae.rpc.request import RequestInfo
from recsae.steering.kill_switch import EVERY_MODEL, KillSwitch
from recsae.steering.policies import validate_reason
from recsae.steering.policy_store import PolicySnapshot, PolicyStore
from recsae.store.events import change_now
from recsae_interpreter.library import Library


@dataclass(frozen=True)
class SwitchSet:
    """The switch as it is, and the plan revision from which it counts."""

    switch: KillSwitch
    plan_revision: int


class KillSwitchesHandler:
    """Sets and lists kill switches."""

    def __init__(self, policies: PolicyStore, library: Library) -> None:
        """Keeps its collaborators."""
        self._policies = policies
        self._library = library

    def set(self, model: str, *, on: bool, reason: str, info: RequestInfo) -> SwitchSet:
        """Sets the switch of a model ("" = every model); one that is set so already stays as it is.

        NotFoundError for a model nobody knows: a typing error must not pass for steering switched off.
        """
        validate_reason(reason)
        snapshot = self._policies.snapshot()
        model = self._address(model, snapshot)
        stored = snapshot.kill_switches.get(model)
        if stored is not None and stored.on == on:
            return SwitchSet(stored, snapshot.revision)
        change = change_now(actor=info.principal, action="killswitch.set", reason=reason, request_id=info.request_id)
        switch = KillSwitch(model, on, change.at, info.principal, reason)
        return SwitchSet(switch, self._policies.set_kill_switch(switch, change))

    def listed(self) -> list[KillSwitch]:
        """Those ever set, that of every model first, then by model."""
        switches = self._policies.snapshot().kill_switches
        return [switches[model] for model in sorted(switches)]

    def _address(self, model: str, snapshot: PolicySnapshot) -> str:
        if model == EVERY_MODEL:
            return model
        address = self._library.address(*split_address(model))
        served = {name for name, versions in self._library.shelf.served.items() if versions}
        known = served | {one.model for one in snapshot.policies} | set(snapshot.kill_switches) - {EVERY_MODEL}
        if address not in known:
            named = ", ".join(sorted(known)) or "none"
            raise NotFoundError(
                f"no model {model!r} to switch off (there are: {named}); leave it empty for every model"
            )
        return address
