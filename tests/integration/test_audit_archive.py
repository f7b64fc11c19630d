"""The audit trail beyond what Redis keeps: nothing is lost, nothing told twice, whenever archiving is cut short."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.integration.conftest import RedisServer

from recsae.errors import CorruptArtifactError, UnavailableError
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import AUDIT, EVENTS_FILE, AuditArchive
from recsae.store.audit_archiving import Archiver, Kept
from recsae.store.events import EVENTS, INDEXED, SUBJECTS, AuditEvent, AuditTrail, Change, RedisTrail, index_events
from recsae.store.label_edits import LabelEdit
from recsae.store.label_edits_redis import RedisLabelEditStore
from recsae.store.redis import connect

NOW = 1_790_000_000.25
KEPT = Kept(newest=10, batch=5)


def write_events(client: redis.Redis, count: int) -> list[AuditEvent]:
    """Edits of three concepts in turn; the whole trail, newest first."""
    store = RedisLabelEditStore(client)
    for number in range(count):
        edit = LabelEdit("sasrec", f"c-{number % 3}", f"label {number}", "", "me", "because", NOW, "d" * 16)
        store.write(edit, Change("me", "concept.edit", f"reason {number}", "r", NOW), expected_revision=None)
    return RedisTrail(client).events(limit=100_000)


def paged(trail: AuditTrail, subject: str = "", page: int = 4) -> list[AuditEvent]:
    found: list[AuditEvent] = []
    while events := trail.events(subject, page, found[-1].id if found else ""):
        found += events
    return found


def test_archived_events_are_read_as_before_in_whole_pages_and_by_subject(redis_url: str, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    with connect(redis_url) as client:
        everything = write_events(client, 29)
        made = Archiver(client, artifacts, KEPT).run(NOW)
        archive = AuditArchive(client, artifacts)
        trail = RedisTrail(client, archive)
        assert [one.events for one in made] == [5, 5, 5]
        assert client.xlen(EVENTS) == 14
        assert trail.events(limit=1000) == paged(trail) == everything
        for subject in {event.subject for event in everything}:
            wanted = [event for event in everything if event.subject == subject]
            assert trail.events(subject, 1000) == paged(trail, subject, 2) == wanted
        assert trail.events("nobody") == []
        assert archive.verify() == 15
        assert [one.previous for one in made] == ["", made[0].version, made[1].version]
        assert Archiver(client, artifacts, KEPT).run(NOW) == []
        # What comes later joins what was before.
        newer = write_events(client, 5)
        assert trail.events(limit=1000) == newer[:5] + everything


class Interfering(ArtifactStore):
    """An artifact store next to which something happens right after an archive was published."""

    def __init__(self, root: Path, happens: Callable[[Path], None]) -> None:
        super().__init__(str(root))
        self.folder = root
        self._happens = happens

    def publish(
        self,
        kind: str,
        source: Path,
        *,
        config: Mapping[str, Any],
        lineage: Mapping[str, str],
        scores: Mapping[str, float] | None = None,
    ) -> str:
        version = super().publish(kind, source, config=config, lineage=lineage, scores=scores)
        self._happens(self.folder / kind / version)
        return version


def test_killed_between_publishing_and_trimming_the_next_run_makes_the_same_archive(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    with connect(redis_server.url) as client:
        everything = write_events(client, 20)
        cut_short = Interfering(tmp_path / "artifacts", lambda _: redis_server.kill())
        with pytest.raises(UnavailableError):
            Archiver(client, cut_short, KEPT).run(NOW)
    redis_server.start()
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    with connect(redis_server.url) as client:
        assert client.xlen(EVENTS) == 20
        orphan = artifacts.versions(AUDIT)
        made = Archiver(client, artifacts, KEPT).run(NOW)
        assert ([made[0].version], len(made)) == (orphan, 2)
        redis_server.kill()
        redis_server.start()
        assert paged(RedisTrail(client, AuditArchive(client, artifacts))) == everything


def test_nothing_is_trimmed_when_the_archive_does_not_read_back(redis_url: str, tmp_path: Path) -> None:
    with connect(redis_url) as client:
        write_events(client, 20)

        def spoil(archive: Path) -> None:
            (archive / EVENTS_FILE).write_bytes(b"something else")

        spoilt = Interfering(tmp_path, spoil)
        with pytest.raises(CorruptArtifactError):
            Archiver(client, spoilt, KEPT).run(NOW)
        assert client.xlen(EVENTS) == 20
        assert AuditArchive(client, spoilt).archives() == []


def test_an_archive_that_was_changed_is_refused(redis_url: str, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    with connect(redis_url) as client:
        write_events(client, 20)
        first, second = Archiver(client, artifacts, KEPT).run(NOW)
        files = [tmp_path / AUDIT / one.version / EVENTS_FILE for one in (first, second)]
        files[0].write_bytes(files[1].read_bytes())
        archive = AuditArchive(client, artifacts)
        with pytest.raises(CorruptArtifactError, match=first.version):
            archive.verify()
        with pytest.raises(CorruptArtifactError, match=first.version):
            RedisTrail(client, archive).events(limit=20)
        assert len(RedisTrail(client, archive).events(limit=15)) == 15


def test_of_many_archivers_at_once_each_archive_is_made_by_one(redis_url: str, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    with connect(redis_url) as client:
        everything = write_events(client, 60)
        barrier = threading.Barrier(4)
        made: list[str] = []

        def archive() -> None:
            barrier.wait()
            for _ in range(10):  # one that found another quicker stops, and would look again at the next beat
                made.extend(one.version for one in Archiver(client, artifacts, KEPT).run(NOW))

        threads = [threading.Thread(target=archive) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(set(made))) == (10, 10)
        assert AuditArchive(client, artifacts).verify() == 50
        assert paged(RedisTrail(client, AuditArchive(client, artifacts)), page=50) == everything


def test_events_past_their_days_are_archived_whole_days_at_a_time(redis_url: str, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    with connect(redis_url) as client:
        everything = write_events(client, 7)
        made_at = int(everything[-1].id.partition("-")[0]) / 1000
        archiver = Archiver(client, artifacts, Kept(newest=100, days=2, batch=50))
        assert archiver.run(made_at + 2 * 86_400) == []
        assert [one.events for one in archiver.run(made_at + 3 * 86_400)] == [7]
        assert client.xlen(EVENTS) == 0
        trail = RedisTrail(client, AuditArchive(client, artifacts))
        assert trail.events() == everything
        assert trail.events(everything[0].subject, 1) == everything[:1]


def test_events_of_a_release_without_lists_by_subject_are_found_once_they_are_listed(redis_url: str) -> None:
    with connect(redis_url) as client:
        everything = write_events(client, 9)
        for key in client.scan_iter(f"{SUBJECTS}*"):
            client.delete(key)
        subject = everything[0].subject
        assert RedisTrail(client).events(subject) == []
        index_events(client)
        assert RedisTrail(client).events(subject) == [one for one in everything if one.subject == subject]
        # From then on only what came since is looked at.
        assert client.get(INDEXED) == everything[0].id
        write_events(client, 3)
        index_events(client)
        assert len(RedisTrail(client).events(subject)) == 4
