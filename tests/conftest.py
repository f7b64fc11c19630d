"""What every test may ask for: binaries of the system, which a developer's machine may lack and CI may not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
import structlog

# Tracebacks in short: with the values of variables, a loaded dictionary takes longer to write than a test waits.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def require_binary() -> Callable[[str, str], str]:
    """Call it with a program's name and how to get it; returns its path or skips the test, saying both.

    With RECSAE_REQUIRE_BINARIES=1, as in CI, a missing program fails the test instead.
    """

    def require(name: str, how_to_get: str) -> str:
        found = shutil.which(name)
        if found is not None:
            return found
        sentence = f"needs the program {name!r}, which is not on PATH; to get it: {how_to_get}"
        if os.environ.get("RECSAE_REQUIRE_BINARIES") == "1":
            pytest.fail(sentence)
        pytest.skip(sentence)

    return require
