"""onnxruntime alone: the two graphs of a model called in batches, nothing around them. ARTIFACTS VERSION PORT.

Takes `BATCH CALLS` lines on a socket and answers each when it is done: the benchmark reads the processor time.
"""

from __future__ import annotations

import socketserver
import sys
from typing import Any

import numpy as np
import onnxruntime

from recsae.recommenders.bundle import HEAD, KIND, TRUNK, ModelBundle
from recsae.recommenders.graph import open_session
from recsae.store.artifacts import ArtifactStore

LISTED = 10


class Direct:
    """Trunk and head of a bundle; as many different full histories as a batch has places."""

    def __init__(self, bundle: ModelBundle) -> None:
        self._trunk, self._head = (open_session(bundle.folder / name, 1) for name in (TRUNK, HEAD))
        self._random, self._bundle = np.random.default_rng(1), bundle

    def run(self, batch: int, calls: int) -> None:
        """Histories to lists without the items read."""
        shape = (batch, self._bundle.description.max_history)
        history = self._random.integers(1, self._bundle.n_items + 1, shape, dtype=np.int64)
        rest: dict[str, Any] = {
            "exclude": np.sort(history, axis=1),
            "candidates": np.zeros((batch, 0), np.int64),
            "k": np.array([LISTED], np.int64),
        }
        for _ in range(calls):
            (activation,) = self._trunk.run(["activation"], {"history": history})
            self._head.run(["items", "scores"], rest | {"activation": activation})


def main(artifacts: str, version: str, port: int) -> None:
    """Answers until it is ended."""
    direct = Direct(ModelBundle.from_artifact(ArtifactStore(artifacts).fetch(KIND, version)))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                batch, calls = map(int, line.split())
                direct.run(batch, calls)
                self.wfile.write(b"done\n")

    class Server(socketserver.TCPServer):
        allow_reuse_address = True

    onnxruntime.set_default_logger_severity(3)
    with Server(("127.0.0.1", port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
