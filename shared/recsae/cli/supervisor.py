"""Runs a whole local platform: two Redis servers, recommender, interpreter, worker, beat and exporter.

Joins who may (`claim`), what (`local_processes`) and how (`keeper`). Not here: what each process does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from recsae.cli.keeper import Announce, Keeper
from recsae.cli.local_processes import ServingOptions, local_addresses, local_processes
from recsae.cli.ports import Ports
from recsae.cli.processes import LineSink
from recsae.cli.workspace import Addresses, Workspace

__all__ = ["Announce", "Ports", "ServingOptions", "Supervisor"]


class Supervisor:
    """Owns the processes of one workspace's platform."""

    def __init__(
        self, workspace: Workspace, ports: Ports, options: ServingOptions, sink: LineSink | None = None
    ) -> None:
        """`sink` gets every line of every process."""
        self._workspace = workspace
        self._ports = ports
        self._options = options
        self._keeper = Keeper(workspace.logs, sink)
        self._heeds_requests = False

    @contextlib.contextmanager
    def running(self, announce: Announce) -> Iterator[Addresses]:
        """Everything up and ready on entry, everything stopped on exit, also when starting fails half way.

        FailedPreconditionError when another supervisor has the workspace; KeyboardInterrupt when asked to stop while
        starting.
        """
        with self._workspace.claim.held():
            stages = local_processes(self._workspace, self._ports, self._options)
            addresses = local_addresses(self._workspace, self._ports)
            self._workspace.clear_addresses()  # of a platform that was killed
            try:
                with self._heeding():
                    self._keeper.start(stages, announce)
                self._workspace.write_addresses(addresses)
                yield addresses
            finally:
                with self._heeding():
                    self._workspace.clear_addresses()
                    self._keeper.stop(announce)

    def watch(self, announce: Announce) -> None:
        """Blocks until `request_stop`, restarting processes that end on their own.

        UnavailableError when one ends more than five times within a minute.
        """
        with self._heeding():
            self._keeper.watch(announce)

    def request_stop(self) -> None:
        """Ends starting and watching in good order, and anything else with KeyboardInterrupt; for signal handlers."""
        if not self._heeds_requests:
            raise KeyboardInterrupt
        self._keeper.request_stop()

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        """No KeyboardInterrupt inside, which could come between the start of a process and the note of it."""
        self._heeds_requests = True
        try:
            yield
        finally:
            self._heeds_requests = False
