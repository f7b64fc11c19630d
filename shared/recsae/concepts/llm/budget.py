"""The cost cap: a call is paid for in advance at its worst case, and refused when that would exceed the cap.

The worst case is a true bound, so the cap holds whatever the model answers. What is in flight counts; a call that does
not fit waits for others to settle before it is refused. Not here: what a call's worst case is (`chat`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from recsae.concepts.llm.options import SETTINGS_PREFIX, LlmOptions
from recsae.concepts.llm.usage import NOTHING, Usage
from recsae.errors import ResourceExhaustedError


class BudgetSpentError(ResourceExhaustedError):
    """The next call could exceed the cap; nothing was sent."""


class Budget:
    """Counts what is used and what is reserved. Used from one event loop."""

    def __init__(
        self, options: LlmOptions, before: Usage = NOTHING, record: Callable[[Usage], None] = lambda _: None
    ) -> None:
        """`before` is what earlier attempts at the same run used; `record` is told each change, reservations included.

        A process that is killed therefore leaves at least as much recorded as it has cost.
        """
        self._options, self._record = options, record
        self.used = before
        self._reserved = NOTHING
        self._changed = asyncio.Condition()
        self.stopped = ""

    @property
    def cost(self) -> float:
        """Of what is used, earlier attempts included."""
        return self.used.cost(self._options)

    async def reserve(self, worst: Usage) -> None:
        """Sets the worst case of a call aside; BudgetSpentError when it does not fit, then and for every later call."""
        async with self._changed:
            while not self.stopped and (reason := self._exceeded(worst)):
                if not self._reserved.tokens:
                    self.stopped = reason
                    self._changed.notify_all()
                    break
                await self._changed.wait()
            if self.stopped:
                raise BudgetSpentError(self.stopped)
            self._reserved += worst
            self._record(self.used + self._reserved)

    async def settle(self, worst: Usage, used: Usage) -> None:
        """Puts what a call used in the place of what was set aside for it."""
        async with self._changed:
            self._reserved -= worst
            self.used += used
            self._record(self.used + self._reserved)
            self._changed.notify_all()

    def _exceeded(self, worst: Usage) -> str:
        planned = self.used + self._reserved + worst
        if planned.tokens > self._options.max_tokens:
            return (
                f"stopped after {self.used.tokens:,} tokens: the next call may take {worst.tokens:,} and "
                f"{SETTINGS_PREFIX}MAX_TOKENS is {self._options.max_tokens:,}"
            )
        if planned.cost(self._options) > self._options.max_cost:
            return (
                f"stopped at a cost of {self.cost:.4f}: the next call may cost {worst.cost(self._options):.4f} and "
                f"{SETTINGS_PREFIX}MAX_COST is {self._options.max_cost:g}"
            )
        return ""
