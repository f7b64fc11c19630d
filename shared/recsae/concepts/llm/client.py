"""Asks a language model: from the cache when the question is known, else within the budget, and again when it may help.

Not here: what is asked (`prompts`), what answers mean (`answers`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from recsae.concepts.llm.budget import Budget
from recsae.concepts.llm.cache import AnswerCache
from recsae.concepts.llm.chat import ChatReply, ChatRequest, read_reply
from recsae.concepts.llm.options import SETTINGS_PREFIX, LlmOptions
from recsae.concepts.llm.retrying import passes_by, wait_before
from recsae.concepts.llm.transport import Outcome, Transport
from recsae.concepts.llm.usage import NOTHING, Spend, Usage
from recsae.errors import FailedPreconditionError, UnavailableError

# So many questions in a row without one answer: the endpoint is at fault, not the question.
_GIVE_UP_AFTER = 3
_SHOWN = 200


class CallFailedError(UnavailableError):
    """This question got no answer; others may. `brief` leaves out what the server said."""

    def __init__(self, message: str, brief: str) -> None:
        """The message may quote the server, and a server may quote the titles it was sent: it is not for logs."""
        super().__init__(message)
        self.brief = brief


@dataclass(frozen=True)
class Timing:
    """Where waiting, the time of day and chance come from; tests bring their own."""

    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


REAL_TIME = Timing()


class LlmClient:
    """One endpoint, with its cache and budget. Used from one event loop; at most `concurrency` calls are in flight."""

    def __init__(
        self, options: LlmOptions, transport: Transport, cache: AnswerCache, budget: Budget, timing: Timing = REAL_TIME
    ) -> None:
        """Keeps its collaborators."""
        self.options = options
        self._transport, self._cache, self._budget, self._timing = transport, cache, budget, timing
        self._slots = asyncio.Semaphore(options.concurrency)
        self._requests = self._cached = self._failed_in_a_row = 0

    @property
    def spend(self) -> Spend:
        """What was used so far."""
        used = self._budget
        return Spend(self._requests, self._cached, used.used, used.cost, used.stopped)

    async def ask(self, request: ChatRequest) -> str:
        """The model's answer.

        CallFailedError when there is none to this question, UnavailableError when the endpoint seems to be down,
        FailedPreconditionError when its settings are wrong, BudgetSpentError when asking could exceed the cap.
        """
        known = await asyncio.to_thread(self._cache.get, request.key)
        if known is not None:
            self._cached += 1
            return known.content
        async with self._slots:
            try:
                reply = await self._paid(request)
            except CallFailedError as error:
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= _GIVE_UP_AFTER:
                    raise UnavailableError(
                        f"{self._failed_in_a_row} questions in a row got no answer from {self.options.url} "
                        f"({SETTINGS_PREFIX}URL); last: {error.brief}; answers so far are kept"
                    ) from None
                raise
            self._failed_in_a_row = 0
            await asyncio.to_thread(self._cache.put, request.key, reply)
        return reply.content

    async def _paid(self, request: ChatRequest) -> ChatReply:
        attempt = 0
        while True:
            attempt += 1
            await self._budget.reserve(request.worst)
            used = request.worst
            try:
                self._requests += 1
                outcome = await self._transport.post(request.body())
                reply = read_reply(outcome.body) if outcome.status == 200 else None
                used = _used(request, outcome, reply)
            finally:
                await self._budget.settle(request.worst, used)
            if reply is not None:
                return reply
            self._refuse(outcome)
            wait_s = wait_before(attempt, outcome, self._timing.jitter(), self._timing.clock())
            if attempt > self.options.retries or wait_s is None:
                raise CallFailedError(f"no answer after {attempt} tries: {_words(outcome)}", _brief(outcome))
            await self._timing.wait(wait_s)

    def _refuse(self, outcome: Outcome) -> None:
        """Raises for what trying again cannot change."""
        if outcome.status in (401, 403):
            raise FailedPreconditionError(
                f"{self.options.url} refuses the key (HTTP {outcome.status}); set {SETTINGS_PREFIX}API_KEY"
            )
        if outcome.status == 404:
            raise FailedPreconditionError(
                f"{self.options.url} knows no chat completions of model {self.options.model!r} (HTTP 404); "
                f"check {SETTINGS_PREFIX}URL and {SETTINGS_PREFIX}MODEL"
            )
        if outcome.status == 200:
            raise CallFailedError(
                f"the response is no chat completion: {_shown(outcome.body)}", "the response is no chat completion"
            )
        if not passes_by(outcome):
            raise CallFailedError(f"the request was refused: {_words(outcome)}", _brief(outcome))


def _used(request: ChatRequest, outcome: Outcome, reply: ChatReply | None) -> Usage:
    """What a call is taken to have used: what the server says; its worst case where it may have worked unseen."""
    if reply is not None:
        return reply.usage or request.worst
    worked = outcome.status == 200 or (outcome.status == 0 and outcome.sent)
    return request.worst if worked else NOTHING


def _words(outcome: Outcome) -> str:
    return outcome.problem or f"HTTP {outcome.status}: {_shown(outcome.body)}"


def _brief(outcome: Outcome) -> str:
    return outcome.problem or f"HTTP {outcome.status}"


def _shown(body: bytes) -> str:
    return " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())[:_SHOWN]
