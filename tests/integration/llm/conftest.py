"""A running chat server, and an asker that never really waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.integration.llm.chat_server import ChatServer, Says

from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.cache import FolderCache
from recsae.concepts.llm.client import Timing
from recsae.concepts.llm.options import LlmOptions


@dataclass
class Waits:
    """Takes the place of waiting: remembers how long, and goes on at once."""

    seconds: list[float] = field(default_factory=list)

    async def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda _body: Says("fine")).running() as running:
        yield running


@pytest.fixture
def make_asker(server: ChatServer, waits: Waits, tmp_path: Path) -> Callable[..., Asker]:
    """An asker of the server; each shares the cache folder, as runs do."""

    def make(options: dict[str, Any] | None = None, **more: Any) -> Asker:
        defaults: dict[str, Any] = {"url": server.url, "model": "tiny", "concurrency": 2, "timeout_s": 20.0}
        settings = LlmOptions(**(defaults | (options or {})))
        timing = Timing(wait=waits.wait, clock=lambda: 1_000_000_000.0, jitter=lambda: 0.0)
        return Asker(settings, FolderCache(str(tmp_path / "answers")), timing=timing, **more)

    return make
