"""The event logger of code that also runs where structlog is not installed: inside somebody else's server.

With structlog, its logger; without, the same events as `name key=value` lines through the standard library.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol


class EventLog(Protocol):
    """What is used of structlog's loggers: an event name, fields, and `exc_info`."""

    def info(self, event: str, /, **fields: Any) -> None:
        """Something a person may want to know."""

    def warning(self, event: str, /, **fields: Any) -> None:
        """Something went wrong and was dealt with."""

    def error(self, event: str, /, **fields: Any) -> None:
        """Something went wrong and does not work now."""


def event_log(name: str) -> EventLog:
    """The logger of a module."""
    try:
        import structlog
    except ImportError:
        return PlainLog(logging.getLogger(name))
    log: EventLog = structlog.get_logger(name)
    return log


class PlainLog:
    """Events through the standard library. Of exceptions it says type and message, without the traceback."""

    def __init__(self, logger: logging.Logger) -> None:
        """Writes to `logger`, wherever the program sends it."""
        self._logger = logger

    def info(self, event: str, /, **fields: Any) -> None:
        """See `EventLog`."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """See `EventLog`."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """See `EventLog`."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        error = fields.pop("exc_info", None)
        words = [f"{name}={value}" for name, value in fields.items()]
        if isinstance(error, BaseException):
            words.append(f"error={type(error).__name__}: {error}")
        self._logger.log(level, "%s", " ".join([event, *words]))
