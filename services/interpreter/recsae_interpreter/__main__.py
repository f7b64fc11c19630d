"""`python -m recsae_interpreter`: settings -> build -> run -> exit code."""

from __future__ import annotations

import sys

import structlog

from recsae.errors import RecsaeError
from recsae.rpc.server import wait_for_stop_signal
from recsae.rpc.settings import load_settings
from recsae.telemetry.logging import configure_logging
from recsae_interpreter.app import InterpreterApp
from recsae_interpreter.settings import InterpreterSettings


def main() -> int:
    """Serves until SIGTERM or SIGINT; 1 when it cannot start."""
    settings = load_settings(InterpreterSettings)
    configure_logging("interpreter", level=settings.log_level, format=settings.log_format)
    log = structlog.get_logger("recsae_interpreter")
    try:
        app = InterpreterApp(settings)
        app.start()
    except RecsaeError as error:
        log.error("start_failed", code=error.code, reason=str(error))
        return 1
    try:
        log.info("stop_requested", signal=wait_for_stop_signal())
    finally:
        app.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
