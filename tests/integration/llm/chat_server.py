"""A local server that speaks the chat-completions protocol and behaves as a test tells it.

It counts what arrives: every request's body, and how many were being answered at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Says:
    """What the server does with a request; with `until` it first waits for that event."""

    content: str = "{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    tokens_in: int = 100
    tokens_out: int = 10
    counts_tokens: bool = True
    until: threading.Event | None = None

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.status != 200:
            return json.dumps({"error": {"message": self.content}}).encode()
        usage = {"prompt_tokens": self.tokens_in, "completion_tokens": self.tokens_out}
        answer = {"role": "assistant", "content": self.content}
        value: dict[str, Any] = {"object": "chat.completion", "choices": [{"index": 0, "message": answer}]}
        return json.dumps(value | ({"usage": usage} if self.counts_tokens else {})).encode()


Script = Callable[[dict[str, Any]], Says]


class ChatServer:
    """The server while it runs; `script` may be exchanged at any time."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.hanging: list[threading.Event] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._counted(self.path, body, dict(self.headers)):
                    says = outer.script(json.loads(body))
                    if says.until is not None:
                        says.until.wait(20)
                    answer = says.body()
                    try:
                        self.send_response(says.status)
                        for name, value in says.headers.items():
                            self.send_header(name, value)
                        self.send_header("Content-Length", str(len(answer)))
                        self.end_headers()
                        self.wfile.write(answer)
                    except ConnectionError:  # the caller's deadline was shorter
                        self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that was killed is no error of the server; a broken script shows in what the caller gets."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def hang(self) -> Says:
        """Answers only when the server stops."""
        event = threading.Event()
        self.hanging.append(event)
        return Says(until=event)

    @contextmanager
    def running(self) -> Iterator[ChatServer]:
        self._thread.start()
        try:
            yield self
        finally:
            for event in self.hanging:
                event.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @contextmanager
    def _counted(self, path: str, body: bytes, headers: dict[str, str]) -> Iterator[None]:
        assert path == "/v1/chat/completions"
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


def prompt_of(body: dict[str, Any]) -> str:
    """The text of a request, system and user together."""
    return "\n".join(message["content"] for message in body["messages"])
