"""One process of a group that serves a port together, as seen from inside: what it tells its parent, and hears.

The parent writes on standard input and reads what was standard output, a JSON object a line; standard output itself is
led to standard error, so that nothing printed gets between. The end of standard input means that the parent is gone or
wants an end, and it comes whatever ends the parent, `kill -9` too. Not here: the parent (`process_group`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)
METRICS = "metrics"
"""Asks for the metrics, in Prometheus' text format."""
_HANDLER_PAUSE_S = 0.01
READY = "ready"
"""Says that this process serves."""


class GroupMember:
    """Tells the parent what it has to know; ends this process when the parent is gone."""

    def __init__(self, exposition: Callable[[], str], most_drain_s: float) -> None:
        """`exposition` makes the metrics; a drain that takes longer than `most_drain_s` is cut off."""
        self._exposition, self._most_drain_s = exposition, most_drain_s
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._serving = False
        threading.Thread(target=self._listen, name="recsae-group", daemon=True).start()

    def ready(self) -> None:
        """Tells the parent that this process serves."""
        self._serving = True
        self._tell(READY, "")

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == METRICS:
                self._tell(METRICS, self._metrics())
        if not self._serving:
            os._exit(1)  # nothing to drain: still loading
        pause = threading.Event()
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            pause.wait(_HANDLER_PAUSE_S)  # ready a moment ago: the main thread is about to wait for signals
        # Not SIGTERM: a service manager may have sent that already, and the second one of a kind ends at once.
        os.kill(os.getpid(), signal.SIGINT)
        pause.wait(self._most_drain_s)
        os._exit(1)

    def _metrics(self) -> str:
        try:
            return self._exposition()
        except Exception as error:  # this thread has to live on: it hears when the parent is gone
            _log.error("metrics_failed", exc_info=error)
            return ""

    def _tell(self, what: str, content: str) -> None:
        try:
            self._out.write(json.dumps({what: content}) + "\n")
            self._out.flush()
        except OSError:
            return  # the parent is gone; the end of standard input says so too
