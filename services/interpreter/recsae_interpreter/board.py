"""The plans in force, compiled: what `WatchPlans` sends out and the `Steer` call applies.

Watchers wait on it; every change of policies or triples is posted as a whole. Not here: reading policies (`sync`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from recsae.steering.delta import Steerer
from recsae.steering.kill_switch import KillSwitch, is_killed
from recsae.steering.plans import PlanSet, compile_plan
from recsae.steering.policies import Policy
from recsae_interpreter.library import Shelf


@dataclass(frozen=True)
class Posting:
    """The plans of every address as of one revision; `number` counts postings, since triples change plans too."""

    number: int = 0
    revision: int = 0
    plans: Mapping[str, PlanSet] = field(default_factory=dict)
    steerers: Mapping[tuple[str, str], Steerer] = field(default_factory=dict)

    def of(self, model: str) -> PlanSet:
        """The plans of a model; none for a model nothing is promoted for."""
        return self.plans.get(model, PlanSet(self.revision, ()))


class PlanBoard:
    """Holds the newest posting. One thread posts, any number read and wait."""

    def __init__(self, *, norm_budget: float, kill_switch: bool) -> None:
        """Both go into every plan; `kill_switch` True = whatever the stored switches say."""
        self._norm_budget = norm_budget
        self._kill_switch = kill_switch
        self._posting = Posting()
        self._changed = threading.Condition()

    @property
    def posting(self) -> Posting:
        """The newest posting; number 0 = nothing was posted yet."""
        return self._posting

    def killed(self, switches: Mapping[str, KillSwitch], model: str) -> bool:
        """True when a switch, or the settings, switch all steering of an address off."""
        return self._kill_switch or is_killed(switches, model)

    def post(
        self,
        policies: tuple[Policy, ...],
        revision: int,
        shelf: Shelf,
        now: float,
        switches: Mapping[str, KillSwitch] | None = None,
    ) -> Posting:
        """Compiles the plans of every served model version that can be steered and wakes those who wait.

        `switches` are the kill switches by model.
        """
        plans: dict[str, PlanSet] = {}
        steerers: dict[tuple[str, str], Steerer] = {}
        for model, versions in shelf.served.items():
            newest = shelf.production.get(model)
            compiled = []
            for model_version, loaded in versions.items():
                if not loaded.steerable:
                    continue
                plan = compile_plan(
                    policies,
                    loaded.basis,
                    revision=revision,
                    now=now,
                    norm_budget=self._norm_budget,
                    kill_switch=self.killed(switches or {}, model),
                    newest=newest.basis if newest else None,
                )
                compiled.append(plan)
                steerers[model, model_version] = Steerer(plan, loaded.encoder)
            plans[model] = PlanSet(revision, tuple(compiled))
        with self._changed:
            self._posting = Posting(self._posting.number + 1, revision, plans, steerers)
            self._changed.notify_all()
        return self._posting

    def wait_for_change(self, seen: int, timeout_s: float) -> Posting:
        """Blocks until there is a newer posting than number `seen`, or for `timeout_s`; returns the newest."""
        with self._changed:
            self._changed.wait_for(lambda: self._posting.number > seen, timeout_s)
            return self._posting
