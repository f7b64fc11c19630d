"""Services that serve, lose their stores and fail to start with recognisable secrets: none is in what they show.

What they show: log lines at DEBUG, standard error, metrics, and the sentences of their errors over the wire.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from tests.integration.conftest import RedisServer
from tests.integration.interpreter.conftest import MODEL, Published
from tests.integration.interpreter.test_interpreter_process import Process

from recsae.rpc.client import ClientOptions, channel
from recsae.v1 import pipeline_pb2, pipeline_pb2_grpc, recommender_pb2, recommender_pb2_grpc, steering_pb2
from recsae.v1.steering_pb2_grpc import SteeringStub

MARKER = "s3cret"
TOKEN, PEER, WRONG = f"{MARKER}-of-the-operator", f"{MARKER}-of-the-peers", f"{MARKER}-of-a-stranger"
PASSWORD = f"{MARKER}-of-redis"


def shown_secrets(text: str) -> list[str]:
    """Lines that have a secret in them."""
    return [line for line in text.splitlines() if MARKER in line]


def sentence_of(call: Callable[[], Any]) -> str:
    """What a call that fails says, by all its means."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return f"{failed.value!r} {failed.value}"


def metrics_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text: str = page.read().decode()
    return text


@pytest.fixture
def guarded_redis(redis_server: RedisServer) -> RedisServer:
    """A server that asks for a password; it forgets it when started again."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", PASSWORD)
    return redis_server


def with_password(server: RedisServer, password: str = PASSWORD) -> str:
    return server.url.replace("redis://", f"redis://:{password}@")


def interpreter_settings(published: Published, redis_url: str, **values: Any) -> dict[str, str]:
    settings = {
        "port": 0,
        "metrics_port": 0,
        "artifacts": published.root,
        "state_url": redis_url,
        "bus_url": redis_url,
        "recommenders": "127.0.0.1:1",
        "drain_probe_s": 0,
        "log_level": "DEBUG",
        "tokens": f"ops:operator:{TOKEN}",
        "peer_token": PEER,
    }
    return {f"RECSAE_INTERPRETER_{name.upper()}": str(value) for name, value in (settings | values).items()}


@pytest.fixture
def interpreter(
    published: Published, guarded_redis: RedisServer, start_recommender: Callable[..., Any]
) -> Iterator[Process]:
    """Knows the password of its state server, and not that of its bus."""
    settings = interpreter_settings(
        published,
        with_password(guarded_redis),
        bus_url=with_password(guarded_redis, f"{MARKER}-that-is-wrong"),
        recommenders=f"127.0.0.1:{start_recommender().server.port}",
    )
    process = Process(settings)
    yield process
    process.end(signal.SIGKILL)


def test_an_interpreter_that_serves_and_loses_its_state_server_shows_no_secret(
    interpreter: Process, guarded_redis: RedisServer
) -> None:
    port = interpreter.wait_for("server_ready")["port"]
    metrics_port = interpreter.wait_for("metrics_started")["port"]
    sentences = []
    refresh = pipeline_pb2.StartRefreshRequest(config=pipeline_pb2.RefreshConfig(model=MODEL))
    with (
        channel(f"127.0.0.1:{port}", ClientOptions(token=TOKEN)) as opened,
        channel(f"127.0.0.1:{port}", ClientOptions(token=WRONG)) as stranger,
    ):
        SteeringStub(opened).ListPolicies(steering_pb2.ListPoliciesRequest(), timeout=10)
        sentences += [
            sentence_of(lambda: SteeringStub(stranger).ListPolicies(steering_pb2.ListPoliciesRequest(), timeout=10)),
            sentence_of(lambda: SteeringStub(opened).ImportPolicies(steering_pb2.ImportPoliciesRequest(), timeout=10)),
            sentence_of(lambda: pipeline_pb2_grpc.PipelineStub(opened).StartRefresh(refresh, timeout=10)),
        ]
        guarded_redis.kill()
        interpreter.wait_for("state_server_lost")
        sentences += [
            sentence_of(lambda: SteeringStub(opened).ListAudit(steering_pb2.ListAuditRequest(), timeout=10)),
            sentence_of(lambda: pipeline_pb2_grpc.PipelineStub(opened).StartRefresh(refresh, timeout=20)),
        ]
    exposed = metrics_of(metrics_port)
    assert interpreter.end(signal.SIGTERM) == 0
    assert "recsae_rpc_requests_total" in exposed
    assert any("not one of this server's" in sentence for sentence in sentences)
    said = "".join(interpreter.lines)
    assert "call_failed" in said
    assert shown_secrets("\n".join([said, exposed, *sentences])) == []


def test_a_recommender_whose_history_store_wants_another_password_shows_no_secret(
    published: Published, guarded_redis: RedisServer, tmp_path: Path
) -> None:
    key = tmp_path / "pseudonym.key"
    key.write_text(f"{MARKER}-of-the-pseudonyms")
    settings = {
        "port": 0,
        "metrics_port": 0,
        "artifacts": published.root,
        "models": f"{MODEL}={published.model_version}",
        "history": with_password(guarded_redis, f"{MARKER}-that-is-wrong"),
        "pseudonym_key_file": key,
        "interpreter": "127.0.0.1:1",
        "drain_probe_s": 0,
        "log_level": "DEBUG",
        "tokens": f"shop:viewer:{TOKEN}",
        "peer_token": PEER,
    }
    environment = {f"RECSAE_RECOMMENDER_{name.upper()}": str(value) for name, value in settings.items()}
    process = Process(environment, "recsae_recommender")
    try:
        port = process.wait_for("server_ready")["port"]
        with channel(f"127.0.0.1:{port}", ClientOptions(token=TOKEN)) as opened:
            stub = recommender_pb2_grpc.RecommenderStub(opened)
            sentence = sentence_of(lambda: stub.Recommend(recommender_pb2.RecommendRequest(user_id="u-1"), timeout=10))
        exposed = metrics_of(process.wait_for("metrics_started")["port"])
    finally:
        status = process.end(signal.SIGTERM)
    assert status == 0
    assert "the history store did not answer (AuthenticationError)" in sentence
    assert shown_secrets("\n".join([*process.lines, exposed, sentence])) == []


def fails(environment: dict[str, str]) -> tuple[int, str]:
    """Status and output of an interpreter that is to fail at its start."""
    command = [sys.executable, "-m", "recsae_interpreter"]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_what_keeps_a_service_from_starting_is_said_without_a_secret(
    published: Published, guarded_redis: RedisServer, tmp_path: Path
) -> None:
    url = with_password(guarded_redis)
    broken = tmp_path / "broken.pem"
    broken.write_text(f"-----BEGIN PRIVATE KEY-----\n{MARKER}\n-----END PRIVATE KEY-----\n")
    missing = tmp_path / "missing.pem"
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"tokens": TOKEN}, 2, "`name:role:secret`"),
        ({"state_url": f"redis://user:pa#{PASSWORD}@127.0.0.1:1/0"}, 2, "percent-encoded"),
        ({"state_url": url.replace(PASSWORD, f"{MARKER}-that-is-wrong")}, 1, "refused our user name or password"),
        ({"tls_cert": missing, "tls_key": missing}, 1, "missing.pem"),
        ({"tls_cert": broken, "tls_key": broken}, 1, "start_failed"),
    ]
    environments = [interpreter_settings(published, url, **values) for values, _, _ in cases]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(fails, environments))
    for (_, status, says), (ended, said) in zip(cases, outcomes, strict=True):
        assert (ended, says in said, "Traceback" in said) == (status, True, False), said
        assert shown_secrets(said) == []
