"""The event logger of code that also runs inside somebody else's server.

Where the program configured structlog (our services do), its logger. Else the same events as `name key=value` lines
through the standard library: whether structlog is not installed, or installed and left at its default, which prints to
standard output.
"""

from __future__ import annotations

import logging
from typing import Any


def event_log(name: str) -> EventLog:
    """The logger of a module."""
    return EventLog(name)


class EventLog:
    """Events with fields; `exc_info` may hold the error of one."""

    def __init__(self, name: str) -> None:
        """Named as the module that logs."""
        self._name = name
        self._plain = logging.getLogger(name)

    def info(self, event: str, /, **fields: Any) -> None:
        """Something a person may want to know."""
        self._write("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Something went wrong and was dealt with."""
        self._write("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Something went wrong and does not work now."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        configured = _structlog()
        if configured is not None:
            getattr(configured.get_logger(self._name), level)(event, **fields)
            return
        # Of an error the type alone: messages may quote what a user sent.
        error = fields.pop("exc_info", None)
        words = [event, *(f"{name}={value}" for name, value in fields.items())]
        if isinstance(error, BaseException):
            words.append(f"error={type(error).__name__}")
        getattr(self._plain, level)("%s", " ".join(words))


def _structlog() -> Any:
    """The module, when it is installed and the program has configured it; else None."""
    try:
        import structlog
    except ImportError:
        return None
    return structlog if structlog.is_configured() else None
