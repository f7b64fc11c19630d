"""A real worker with beat keeps the audit trail in Redis short, and nothing of it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import AuditArchive
from recsae.store.events import EVENTS, RedisTrail
from recsae.store.redis import connect

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet


def test_beat_has_old_audit_events_archived(fleet: Fleet) -> None:
    artifacts = ArtifactStore(str(fleet.folder / "artifacts"))
    with connect(fleet.redis_url) as client:
        with client.pipeline(transaction=False) as pipeline:
            for revision in range(1, 6_101):
                pipeline.xadd(
                    EVENTS,
                    {
                        "revision": revision, "actor": "me", "action": "concept.edit", "subject": f"s-{revision % 7}",
                        "reason": "because", "request_id": "r", "at": "1.0", "before": "", "after": "{}",
                    },
                )  # fmt: skip
            pipeline.execute()
        fleet.start_worker()
        fleet.wait_for(lambda: client.xlen(EVENTS) < 6_100, "archive")
        archive = AuditArchive(client, artifacts)
        assert (client.xlen(EVENTS), archive.verify()) == (1_100, 5_000)
        oldest = RedisTrail(client, archive).events(limit=6_100)[-1]
        assert (oldest.revision, oldest.subject) == (1, "s-1")
