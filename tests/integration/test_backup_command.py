"""`recsae backup | restore` as people run them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from recsae.cli import app as cli
from recsae.cli.output import console
from recsae.pipeline.triples import Triple
from recsae.steering.kill_switch import KillSwitch
from recsae.steering.policy_store_redis import RedisPolicyStore
from recsae.store.artifacts import ArtifactStore
from recsae.store.backup import back_up
from recsae.store.channels_redis import RedisChannelStore
from recsae.store.events import REVISION, Change, RedisTrail
from recsae.store.redis import connect
from recsae.store.restore import restore

CHANGE = Change("me", "killswitch.set", "because", "r-1", 1.0)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recsae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command; returns exit code, output and errors."""
    monkeypatch.setattr(console, "width", 200)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recsae", "--home", str(tmp_path / "home"), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def switched(url: str, on: bool) -> None:
    with connect(url) as client:
        RedisPolicyStore(client).set_kill_switch(KillSwitch("", on, 1.0, "me", "x"), CHANGE)


def is_on(url: str) -> bool:
    with connect(url) as client:
        return RedisPolicyStore(client).snapshot().kill_switches[""].on


def test_a_backup_is_restored_over_a_newer_state_which_is_kept_beside_it(
    redis_url: str, recsae: Run, tmp_path: Path
) -> None:
    file = tmp_path / "state.gz"
    switched(redis_url, on=True)
    with connect(redis_url) as client:
        RedisChannelStore(client).point("sasrec", "production", Triple("a" * 16, "b" * 16, "c" * 16), CHANGE)
    code, out, _ = recsae("backup", str(file), "--state-url", redis_url, "--check-archives")
    assert (code, "0 policies, 2 audit events" in out, "0 archived" in out) == (0, True, True)
    assert recsae("backup", str(file), "--state-url", redis_url)[0] == 1, "it overwrites nothing unasked"
    switched(redis_url, on=False)
    code, _, err = recsae("restore", str(file), "--state-url", redis_url)
    assert (code, "--force" in err) == (1, True)
    assert not is_on(redis_url)
    code, out, _ = recsae("restore", str(file), "--state-url", redis_url, "--force", "--reason", "oops")
    assert code == 0
    revision = int(out.partition("count from plan revision ")[2].partition(".")[0])
    assert revision > 2
    assert f"Not in the artifact store: sae {'b' * 16}" in out
    assert is_on(redis_url)
    with connect(redis_url) as client:
        event = RedisTrail(client).events(limit=1)[0]
        assert (event.change.actor.startswith("cli:"), event.change.reason) == (True, "oops")
    # The state that was replaced can be had back.
    (kept,) = tmp_path.glob("state.gz.replaced-*")
    code, out, _ = recsae("restore", str(kept), "--state-url", redis_url, "--force", "--json")
    assert (code, json.loads(out)["revision"] > revision) == (0, True)
    assert not is_on(redis_url)


def test_a_restore_into_a_server_that_lost_its_state_counts_on_from_what_replicas_saw(
    redis_url: str, tmp_path: Path
) -> None:
    file, artifacts = tmp_path / "state.gz", ArtifactStore(str(tmp_path / "artifacts"))
    seen: list[int] = []
    with connect(redis_url) as client:
        switched(redis_url, on=True)
        back_up(client, file)
        for later_s in (0, 10):
            client.flushall()
            now = time.time() + later_s
            seen.append(restore(client, file, artifacts, actor="me", reason="x", clock=partial(float, now)).revision)
            switched(redis_url, on=False)
            seen.append(int(client.get(REVISION) or 0))
    assert seen == sorted(set(seen)), "a replica that held one of them would take what was restored for its own"


def test_without_a_platform_or_an_address_the_remedy_is_named(recsae: Run, tmp_path: Path) -> None:
    code, _, err = recsae("backup", str(tmp_path / "state.gz"))
    assert (code, "--state-url" in err) == (1, True)
    assert not (tmp_path / "state.gz").exists()


def test_a_file_that_is_cut_short_or_cannot_be_written_ends_in_a_sentence_and_leaves_nothing(
    redis_url: str, recsae: Run, tmp_path: Path
) -> None:
    file = tmp_path / "state.gz"
    at = ("--state-url", redis_url)
    switched(redis_url, on=True)
    assert recsae("backup", str(file), *at)[0] == 0
    file.write_bytes(file.read_bytes()[:-20])
    code, _, err = recsae("restore", str(file), *at, "--force")
    assert (code, "take another backup" in err) == (1, True)
    assert list(tmp_path.glob("state.gz.replaced-*")) == [], "nothing was replaced"
    code, _, err = recsae("backup", str(file / "state.gz"), *at)
    assert (code, "Traceback" in err, "name a path" in err) == (1, False, True)
    assert is_on(redis_url)
