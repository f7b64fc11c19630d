"""Asks many questions and waits for all: where the event loop begins and ends.

What was answered is kept in the cache, come what may.
Not here: one question (`client`), what is asked and what answers mean (`describing`, `verifying`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from recsae.concepts.llm.budget import Budget, BudgetSpentError
from recsae.concepts.llm.cache import AnswerCache
from recsae.concepts.llm.chat import ChatRequest
from recsae.concepts.llm.client import REAL_TIME, CallFailedError, LlmClient, Timing
from recsae.concepts.llm.options import LlmOptions
from recsae.concepts.llm.transport import HttpTransport
from recsae.concepts.llm.usage import NOTHING, Spend, Usage

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What came back for one question: its text, or why there is none; `asked` is False where the budget ended."""

    text: str = ""
    failure: str = ""
    asked: bool = True


# Called with how many questions are answered and what they used; may raise to end the asking.
Asked = Callable[[int, Spend], None]


class Asker:
    """Asks one endpoint, with one budget over all calls of `ask_all`. Needs no running event loop."""

    def __init__(
        self,
        options: LlmOptions,
        cache: AnswerCache,
        *,
        before: Usage = NOTHING,
        record: Callable[[Usage], None] = lambda _: None,
        timing: Timing = REAL_TIME,
    ) -> None:
        """`before` and `record`: see `Budget`."""
        self.options = options
        self.spend = Spend(0, 0, before, before.cost(options))
        self._cache, self._record, self._timing = cache, record, timing

    def ask_all(self, requests: Sequence[ChatRequest], asked: Asked = lambda _done, _spend: None) -> list[Answer]:
        """Answers in the order of the requests, which are begun in that order too.

        The same question twice is asked once. A question without an answer fails alone; UnavailableError and
        FailedPreconditionError end it all (see `LlmClient.ask`), and so does whatever `asked` raises.
        """
        distinct = {request.key: request for request in requests}
        repeated = len(requests) - len(distinct)
        answers = asyncio.run(self._ask_all(list(distinct.values()), lambda done, spend: asked(repeated + done, spend)))
        by_key = dict(zip(distinct, answers, strict=True))
        return [by_key[request.key] for request in requests]

    async def _ask_all(self, requests: Sequence[ChatRequest], asked: Asked) -> list[Answer]:
        budget = Budget(self.options, self.spend.usage, self._record)
        budget.stopped = self.spend.stopped
        earlier = self.spend
        answers: dict[int, Answer] = {}
        async with HttpTransport(self.options) as transport:
            client = LlmClient(self.options, transport, self._cache, budget, self._timing)
            work = asyncio.create_task(self._work(client, requests, answers))
            try:
                done: set[asyncio.Task[None]] = set()
                while not done:
                    done, _ = await asyncio.wait({work}, timeout=_LOOK_EVERY_S)
                    self.spend = _after(earlier, client.spend)
                    asked(len(answers), self.spend)
                work.result()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                self.spend = _after(earlier, client.spend)
        return [answers[at] for at in range(len(requests))]

    async def _work(self, client: LlmClient, requests: Sequence[ChatRequest], answers: dict[int, Answer]) -> None:
        waiting = iter(enumerate(requests))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.options.concurrency, len(requests))):
                    group.create_task(_pull(client, waiting, answers))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def _pull(client: LlmClient, waiting: Iterator[tuple[int, ChatRequest]], answers: dict[int, Answer]) -> None:
    for at, request in waiting:
        try:
            answers[at] = Answer(await client.ask(request))
        except CallFailedError as error:
            answers[at] = Answer(failure=str(error))
        except BudgetSpentError as error:
            # What the cache holds is still free.
            answers[at] = Answer(failure=str(error), asked=False)


def _after(earlier: Spend, now: Spend) -> Spend:
    """Requests and cached answers count per client; usage and cost go on from what was used before."""
    return replace(now, requests=earlier.requests + now.requests, cached=earlier.cached + now.cached)
