"""The interpreter as its own process: what it imports, says and exposes, and what its sudden death costs: nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from recsae.steering.policies import Window
from recsae.steering.wire import window_message
from recsae.v1 import common_pb2, interpreter_pb2, recommender_pb2, steering_pb2

Start = Callable[..., Any]
USER = "marker-user-4711"
FORBIDDEN = ("torch", "scipy", "pyarrow", "pandas", "onnx")


class Process:
    """`python -m recsae_interpreter`, or another service, and its log lines."""

    def __init__(self, environment: dict[str, str], module: str = "recsae_interpreter") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log line of that event."""
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found[:] = [line for line in map(json.loads, self.lines) if line["event"] == event]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(arrived, 40), self.lines
        return found[0]

    def end(self, number: signal.Signals) -> int:
        """Sends a signal; the exit status, once the last line was read."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(40)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


@pytest.fixture
def run(published: Any, redis_url: str) -> Iterator[Callable[..., Process]]:
    """Starts interpreter processes; keyword arguments are settings by their short names."""
    started: list[Process] = []

    def start(**values: Any) -> Process:
        settings = {
            "PORT": 0,
            "METRICS_PORT": 0,
            "ARTIFACTS": published.root,
            "STATE_URL": redis_url,
            "BUS_URL": redis_url,
            "DRAIN_PROBE_S": 0,
            "LOG_LEVEL": "DEBUG",
        } | {name.upper(): value for name, value in values.items()}
        started.append(Process({f"RECSAE_INTERPRETER_{name}": str(value) for name, value in settings.items()}))
        return started[-1]

    yield start
    for one in started:
        one.end(signal.SIGKILL)


def test_serving_imports_nothing_that_belongs_to_training() -> None:
    code = f"import sys, recsae_interpreter.__main__; print([m for m in {FORBIDDEN!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def policy(concept: str) -> steering_pb2.CreatePolicyRequest:
    return steering_pb2.CreatePolicyRequest(
        policy=steering_pb2.Policy(
            name="test",
            model="tiny",
            operations=[
                steering_pb2.Operation(concept_id=concept, kind=steering_pb2.OPERATION_KIND_ADD, value=1.5),
            ],
            scope=steering_pb2.Scope(user_ids=["u-5", USER]),
            window=window_message(Window(end=time.time() + 600)),
        ),
        reason=f"asked for by {USER}",
    )


def test_no_metric_and_no_log_line_names_a_user_an_item_or_a_history(
    run: Start, start_recommender: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    recommender = start_recommender()
    process = run(recommenders=f"127.0.0.1:{recommender.server.port}")
    port = process.wait_for("server_ready")["port"]
    interpreter = stubs(port)
    interpreter.steering.CreatePolicy(policy("c-0-1"))
    history = common_pb2.History(item_ids=["i-17", "i-23"])
    interpreter.interpreter.Explain(interpreter_pb2.ExplainRequest(history=history))
    for request in (interpreter_pb2.ExplainRequest(user_id=USER), interpreter_pb2.ExplainRequest()):
        with pytest.raises(Exception, match="StatusCode"):
            interpreter.interpreter.Explain(request)
    metrics_port = process.wait_for("metrics_started")["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as page:
        exposed = page.read().decode()
    assert 'recsae_explain_total{explainable="yes",model="tiny"} 1.0' in exposed
    assert 'recsae_policies{model="tiny",state="live"} 1.0' in exposed
    assert process.end(signal.SIGTERM) == 0
    for marker in (USER, "i-17", "u-5", "c-0-1"):
        assert marker not in exposed
        assert [line for line in process.lines if marker in line] == []


def test_an_interpreter_without_a_state_server_says_so_and_ends(run: Start) -> None:
    process = run(state_url="redis://127.0.0.1:1/0")
    assert "state server did not answer" in process.wait_for("start_failed")["reason"]
    process.process.wait(20)
    assert process.end(signal.SIGTERM) == 1


def test_killing_the_interpreter_fails_no_recommendation_and_loses_no_policy(
    run: Start, start_recommender: Start, stubs: Start, promote: Start
) -> None:
    promote(0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = run(port=port)
    process.wait_for("server_ready")
    interpreter = stubs(port)
    recommender = stubs(start_recommender(interpreter=f"127.0.0.1:{port}", observe_sample=1).server.port)
    stop = threading.Event()
    failures: list[Exception] = []
    answers: list[recommender_pb2.RecommendResponse] = []

    def recommend() -> None:
        while not stop.is_set():
            try:
                answers.append(
                    recommender.recommender.Recommend(recommender_pb2.RecommendRequest(user_id="u-5"), timeout=5)
                )
            except Exception as error:
                failures.append(error)

    def wait_until(claim: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, f"it never came true that {claim}"
            time.sleep(0.01)

    caller = threading.Thread(target=recommend)
    caller.start()
    try:
        created = interpreter.steering.CreatePolicy(policy("c-0-1"), wait_for_ready=True, timeout=20)
        wait_until("the policy is live", lambda: bool(answers and answers[-1].receipt.applied))
        process.end(signal.SIGKILL)
        seen = len(answers)
        wait_until("recommendations go on", lambda: len(answers) > seen + 200)
        assert all(answer.receipt.applied for answer in answers[seen:]), "the last good plan stays in force"
        run(port=port).wait_for("server_ready")
        again = steering_pb2.GetPolicyRequest(policy_id=created.policy.id)
        assert interpreter.steering.GetPolicy(again, wait_for_ready=True, timeout=20).policy == created.policy
        request = steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, reason="over")
        interpreter.steering.DeletePolicy(request, wait_for_ready=True, timeout=20)
        wait_until("the new interpreter's plans arrive", lambda: not answers[-1].receipt.applied)
    finally:
        stop.set()
        caller.join(20)
    assert failures == []
