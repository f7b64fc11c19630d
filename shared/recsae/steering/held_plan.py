"""The plan a recommender holds for one model version: verified on arrival, the last good one kept, its age known.

Knows no network: the follower feeds it. Reading it is lock-free, so requests never wait for an arrival.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from recsae.errors import InvalidRequestError, RecsaeError
from recsae.steering.clock import PartnerClock
from recsae.steering.delta import Encode, Steerer
from recsae.steering.plans import Plan, PlanSet, verify_plan
from recsae.steering.receipts import UnsteeredReason

FetchEncoder = Callable[[str, int], Encode]
"""(SAE version, d) -> its encoder; raises RecsaeError when it cannot be had now."""


@dataclass(frozen=True)
class _Held:
    revision: int
    steerer: Steerer | None
    confirmed_at: float


@dataclass(frozen=True)
class Arrival:
    """What became of a plan set: taken or not, and what stood in the way of all or a part of it."""

    taken: bool
    error: RecsaeError | None = None


class HeldPlan:
    """The current plan of one model version. One thread feeds it, any number read it."""

    def __init__(
        self,
        model: str,
        model_version: str,
        fetch_encoder: FetchEncoder,
        *,
        max_age_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`max_age_s`: from that age on without confirmation the plan is not used. `wall` is this machine's time."""
        self._model = model
        self._model_version = model_version
        self._fetch_encoder = fetch_encoder
        self._max_age_s = max_age_s
        self._clock = clock
        self._interpreter_clock = PartnerClock(clock, wall)
        self._held: _Held | None = None
        self._rejected = self._missed = False
        self._encoders: dict[str, Encode] = {}
        self.encoder_missing = False
        """True while an encoder the plan names could not be fetched; operations that read z are then unsteered."""

    @property
    def revision(self) -> int:
        """Revision of the plan held; 0 = none."""
        held = self._held
        return held.revision if held else 0

    @property
    def age_s(self) -> float:
        """Seconds since the interpreter last confirmed the plan; infinite when none is held."""
        held = self._held
        return self._clock() - held.confirmed_at if held else math.inf

    def now(self) -> float:
        """The interpreter's time, by which windows are judged; this machine's until a message said when it was sent."""
        return self._interpreter_clock.now()

    @property
    def clock_offset_s(self) -> float:
        """The interpreter's clock less this machine's."""
        return self._interpreter_clock.offset_s

    def current(self) -> Steerer | UnsteeredReason:
        """The plan to apply now, or why there is none."""
        held = self._held
        if held is None:
            return UnsteeredReason.NO_PLAN
        if self._clock() - held.confirmed_at >= self._max_age_s:
            return UnsteeredReason.PLAN_TOO_OLD
        return held.steerer or UnsteeredReason.NO_SAE_FOR_MODEL

    def take(self, plans: PlanSet, sent_at: float | None = None) -> Arrival:
        """Replaces the plan by this model version's in the set; a plan that does not verify changes nothing.

        Nor does the first set in a row without one: not taken and no error = ask for the set again.
        `sent_at` is the interpreter's time when it sent the set, None where it does not say.
        """
        if sent_at is not None:
            self._interpreter_clock.heard(sent_at)
        plan = plans.for_version(self._model_version)
        if plan is None and not self._missed:  # no digest covers a plan that is not there, so it takes two to say so
            self._missed = True
            return Arrival(False)
        error: RecsaeError | None = None
        steerer: Steerer | None = None
        if plan is not None:
            try:
                if plan.revision != plans.revision:
                    raise InvalidRequestError(f"plan {plan.revision} came in a set of revision {plans.revision}")
                verify_plan(plan, model=self._model, model_version=self._model_version)
            except RecsaeError as wrong:
                return self.reject(wrong)
            steerer, error = self._steerer(plan)
            self._missed = False
        self._rejected = False
        self._held = _Held(plans.revision, steerer, self._clock())
        return Arrival(True, error)

    def reject(self, error: RecsaeError) -> Arrival:
        """Notes that what came cannot be used: the plan held stays, and nothing confirms it until a good one came."""
        self._rejected = True
        return Arrival(False, error)

    def confirm(self, revision: int, sent_at: float | None = None) -> bool:
        """Notes that `revision` is still in force; False when another one is held, and a snapshot is needed."""
        if sent_at is not None:
            self._interpreter_clock.heard(sent_at)
        held = self._held
        # A set may be of the same revision and differ: a promotion changes plans too.
        if held is None or held.revision != revision or self._rejected:
            return False
        self._held = replace(held, confirmed_at=self._clock())
        return True

    def retry_encoder(self) -> Arrival:
        """Tries again to fetch a missing encoder of the plan held."""
        held = self._held
        if not self.encoder_missing or held is None or held.steerer is None:
            return Arrival(True)
        steerer, error = self._steerer(held.steerer.plan)
        self._held = replace(held, steerer=steerer)
        return Arrival(True, error)

    def _steerer(self, plan: Plan) -> tuple[Steerer, RecsaeError | None]:
        """A plan whose encoder is missing is taken all the same: it may be the one that switches something off."""
        error: RecsaeError | None = None
        version = plan.triple.sae_version
        if plan.reads_latents and version not in self._encoders:
            try:
                # One encoder per model version is ever in use: older ones are let go.
                self._encoders = {version: self._fetch_encoder(version, plan.dim)}
            except RecsaeError as failure:
                error = failure
        self.encoder_missing = error is not None
        return Steerer(plan, self._encoders.get(version)), error
