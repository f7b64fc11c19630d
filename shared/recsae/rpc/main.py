"""The life of a service process: settings -> build -> start -> wait for a signal -> stop -> exit code."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from recsae.errors import RecsaeError
from recsae.rpc.server import await_stop_signals
from recsae.rpc.settings import ServiceSettings, load_settings
from recsae.telemetry.logging import configure_logging

Settings = TypeVar("Settings", bound=ServiceSettings)


class App(Protocol):
    """A service that is built, then started, then stopped."""

    def start(self) -> None:
        """Binds its ports and reports READY."""

    def stop(self) -> None:
        """Drains and ends everything it started; RecsaeError when it could not serve on."""


def _collect_rarely() -> None:
    """Spares the garbage collector what stays anyway: it took a tenth of a recommender's time.

    What is built by now stays to the end, and no collection looks through it again; a call leaves little behind that
    needs a collection at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def run_service(name: str, kind: type[Settings], build: Callable[[Settings], App]) -> int:
    """Serves until SIGTERM or SIGINT; 1 when it cannot start or go on, with the reason in the log.

    Of an error nobody foresaw, files and sockets apart, the log has type and places alone, as everywhere: its message
    may quote a secret.
    """
    settings = load_settings(kind)
    configure_logging(name, level=settings.log_level, format=settings.log_format)
    log = structlog.get_logger(f"recsae_{name}")
    try:
        app = build(settings)
        _collect_rarely()
        # Before it says that it is ready: whoever heard that may stop it at once.
        stop_signal = await_stop_signals()
        app.start()
    except RecsaeError as error:
        log.error("start_failed", code=error.code, reason=str(error))
        return 1
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        log.error("start_failed", code="failed_precondition", reason=f"{what}{error.strerror or error}", exc_info=error)
        return 1
    except Exception as error:
        log.error("start_failed", code="internal", exc_info=error)
        return 1
    status = 0
    try:
        log.info("stop_requested", signal=stop_signal())
    finally:
        try:
            app.stop()
        except RecsaeError as error:
            log.error("service_failed", code=error.code, reason=str(error))
            status = 1
    return status
