"""Log configuration: structured events as JSON lines or, for people, as coloured text, on stderr.

Called once by a service's `__main__`. Events are names with fields (`plan_received`, revision=7); never secrets,
user ids, item ids or histories: for exceptions only the type and the places are logged, because messages may
quote what a user sent.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

LogFormat = Literal["json", "console"]


def configure_logging(
    service: str, *, level: str = "INFO", format: LogFormat = "json", stream: TextIO | None = None
) -> None:
    """Routes structlog and the standard library's logging to one stream (default stderr)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service_adder(service),
        describe_exception,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def describe_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replaces `exc_info` by the exception's type and places, without its message or locals."""
    found = event.pop("exc_info", None)
    if not found:
        return event
    error = found if isinstance(found, BaseException) else sys.exc_info()[1]
    if isinstance(found, tuple):
        error = found[1]
    if error is not None:
        event["exception"] = exception_types(error)
        event["places"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
    return event


def exception_types(error: BaseException) -> str:
    """Type names of an exception and its causes, e.g. "KeyError < ValueError"."""
    names: list[str] = []
    cursor: BaseException | None = error
    while cursor is not None and len(names) < 8:
        names.append(type(cursor).__name__)
        cursor = cursor.__cause__ or cursor.__context__
    return " < ".join(names)


def _service_adder(service: str) -> Processor:
    def add(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add
