"""The exposure log: what is on disk survives any death, nothing blocks, and what is lost is counted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.exposures.log import ExposureLog
from recsae.exposures.reader import ExposureReader
from recsae.exposures.record import Exposure, ShadowExposure, from_line, overlap, to_line
from recsae.exposures.segments import SegmentWriter, segment_files
from recsae.pipeline.triples import Triple
from recsae.steering.receipts import PolicyRef, UnsteeredReason

NOON = 1_700_049_600.0  # 2023-11-15 12:00 UTC
HOUR, DAY = 3600.0, 86_400.0
SHADOW = ShadowExposure((PolicyRef("p-2", 1),), 0.25, UnsteeredReason.STEERED, ("i-1", "i-9"), 0.5)
FULL = Exposure(
    at=NOON + 0.125,
    request_id="r-1",
    user="0123456789abcdef",
    model="tiny",
    triple=Triple("m" * 16, "s" * 16, "d" * 16),
    plan_revision=7,
    reason=UnsteeredReason.STEERED,
    item_ids=("i-1", "i\n2"),
    applied=(PolicyRef("p-1", 3),),
    held_out=(PolicyRef("p-3", 1),),
    delta_share=0.125,
    shadow=SHADOW,
)
BARE = replace(FULL, reason=UnsteeredReason.NONE_MATCHED, applied=(), held_out=(), shadow=None)


def numbered(number: int) -> Exposure:
    return replace(BARE, request_id=f"r-{number}")


def made(number: int) -> Callable[[], Exposure]:
    return lambda: numbered(number)


def log_in(folder: Path, **values: object) -> ExposureLog:
    arguments: dict[str, object] = {"share": 1.0} | values
    return ExposureLog(SegmentWriter(folder, retention_days=7), **arguments)  # type: ignore[arg-type]


def read(folder: Path) -> list[str]:
    return [one.request_id for one in ExposureReader(folder)]


@pytest.mark.parametrize("exposure", [FULL, BARE, replace(FULL, shadow=replace(SHADOW, item_ids=None, overlap=None))])
def test_an_exposure_is_one_line_and_reads_back_the_same(exposure: Exposure) -> None:
    line = to_line(exposure)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_line(line) == exposure


@pytest.mark.parametrize("line", [b"", b"{", b"[]\n", b'{"v":1}\n', b'{"v":2}\n', b"1\n", to_line(FULL)[:-9]])
def test_a_line_that_is_no_exposure_of_this_schema_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        from_line(line)


def test_overlap_is_the_share_of_the_longer_list() -> None:
    assert overlap(["a", "b"], ["b", "a"]) == 1.0
    assert overlap(["a", "b", "c", "d"], ["a"]) == 0.25
    assert overlap([], ["a"]) == 0.0
    assert overlap([], []) == 1.0


def test_what_was_offered_is_read_back_and_only_its_owner_may(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "log"
    written: list[int] = []
    log = log_in(folder, on_written=written.append)
    for number in range(100):
        log.offer(made(number))
    log.close()
    assert read(folder) == [f"r-{number}" for number in range(100)]
    assert log.written == sum(written) == 100
    (segment,) = segment_files(folder)
    assert segment.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


WRITER = """
import sys
from pathlib import Path
from tests.unit.test_exposures_log import numbered
from recsae.exposures.record import to_line
from recsae.exposures.segments import SegmentWriter
writer, number = SegmentWriter(Path(sys.argv[1]), retention_days=7), 0
while True:
    writer.append([to_line(numbered(number)), to_line(numbered(number + 1))])
    number += 2
    print(number, flush=True)
"""


def test_acknowledged_exposures_survive_kill_9(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}){WRITER}", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 50:
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    reader = ExposureReader(tmp_path)
    found = [one.request_id for one in reader]
    assert found[:acknowledged] == [f"r-{number}" for number in range(acknowledged)]
    assert reader.skipped.total() <= 1


def test_a_torn_last_line_is_left_out_and_counted(tmp_path: Path) -> None:
    first, second = SegmentWriter(tmp_path, retention_days=7), SegmentWriter(tmp_path, retention_days=7)
    first.append([to_line(numbered(0)), to_line(numbered(1))])
    second.append([to_line(numbered(2))])
    torn = next(path for path in segment_files(tmp_path) if b"r-1" in path.read_bytes())
    torn.write_bytes(torn.read_bytes()[:-40])
    reader = ExposureReader(tmp_path)
    assert sorted(one.request_id for one in reader) == ["r-0", "r-2"]
    assert reader.skipped == {"torn": 1}


def test_a_line_of_another_schema_is_left_out_and_counted(tmp_path: Path) -> None:
    SegmentWriter(tmp_path, retention_days=7).append([json.dumps({"v": 9}).encode() + b"\n", to_line(numbered(0))])
    reader = ExposureReader(tmp_path)
    assert [one.request_id for one in reader] == ["r-0"]
    assert reader.skipped == {"unreadable": 1}


def test_a_folder_without_exposures_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="RECSAE_RECOMMENDER_EXPOSURES"):
            ExposureReader(folder)


def test_a_segment_ends_with_its_hour_and_when_it_is_full(tmp_path: Path) -> None:
    now = [NOON]
    writer = SegmentWriter(tmp_path, retention_days=7, most_bytes=2 * len(to_line(numbered(0))), clock=lambda: now[0])
    for number in range(3):
        writer.append([to_line(numbered(number))])
    now[0] += HOUR
    writer.append([to_line(numbered(3))])
    files = segment_files(tmp_path)
    assert [len(path.read_bytes().splitlines()) for path in files] == [2, 1, 1]
    assert [path.name[:21] for path in files] == [*["exposures-20231115T12"] * 2, "exposures-20231115T13"]


def test_segments_past_retention_are_deleted_and_nothing_else_is(tmp_path: Path) -> None:
    now = [NOON]
    old, other = (SegmentWriter(tmp_path, retention_days=7, clock=lambda: now[0]) for _ in range(2))
    old.append([to_line(numbered(0))])
    (tmp_path / "exposures-notes.txt").write_text("mine")
    now[0] += 7 * DAY
    other.append([to_line(numbered(1))])
    assert other.delete_old() == 0  # its hour ended less than seven days ago
    now[0] += HOUR
    assert other.delete_old() == 1
    assert read(tmp_path) == ["r-1"]
    assert (tmp_path / "exposures-notes.txt").exists()


def test_old_segments_are_deleted_when_a_log_opens_even_without_traffic(tmp_path: Path) -> None:
    SegmentWriter(tmp_path, retention_days=7, clock=lambda: NOON).append([to_line(numbered(0))])
    log_in(tmp_path).close()
    assert segment_files(tmp_path) == []


def test_a_log_that_is_behind_drops_and_counts_and_blocks_nobody(tmp_path: Path) -> None:
    going, asked = threading.Event(), threading.Event()
    dropped: list[tuple[str, int]] = []

    def slow() -> Exposure:
        asked.set()
        assert going.wait(20)
        return numbered(0)

    log = log_in(tmp_path, capacity=2, on_dropped=lambda reason, records: dropped.append((reason, records)))
    log.offer(slow)
    assert asked.wait(20)
    for number in range(1, 23):
        log.offer(made(number))
    assert log.dropped == {"buffer_full": 20}
    assert sum(records for _, records in dropped) == 20
    going.set()
    log.close()
    assert log.written == 3
    assert read(tmp_path) == ["r-0", "r-1", "r-2"]


def test_what_requests_hold_is_bounded_in_bytes(tmp_path: Path) -> None:
    log = log_in(tmp_path, most_bytes=1_000)
    for number in range(3):
        log.offer(made(number), size=400)
    log.close()
    assert log.dropped == {"buffer_full": 1}
    assert read(tmp_path) == ["r-0", "r-1"]


def test_a_disk_that_refuses_costs_records_and_later_ones_are_written(tmp_path: Path) -> None:
    folder, failed, written = tmp_path / "log", threading.Event(), threading.Event()
    log = log_in(folder, capacity=2, on_dropped=lambda *_: failed.set(), on_written=lambda _: written.set())
    shutil.rmtree(folder)
    log.offer(made(0))
    assert failed.wait(20)
    folder.mkdir()
    log.offer(made(1))
    assert written.wait(20)
    log.close()
    assert log.dropped == {"write_failed": 1}
    assert read(folder) == ["r-1"]


def full_disk(descriptor: int, content: memoryview, write: Callable[[int, bytes], int] = os.write) -> int:
    """Takes a part of a line, then nothing."""
    if os.fstat(descriptor).st_size % 7 == 0:
        return write(descriptor, bytes(content[:8]))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_stays_full_is_left_with_no_file_for_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, retention_days=7)
    with monkeypatch.context() as patched:
        patched.setattr("os.write", full_disk)
        for number in range(20):
            with pytest.raises(OSError, match="No space left"):
                writer.append([to_line(numbered(number))])
    assert segment_files(tmp_path) == []
    writer.append([to_line(numbered(20))])
    assert read(tmp_path) == ["r-20"]


def test_a_segment_that_will_not_close_is_never_written_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, closed = SegmentWriter(tmp_path, retention_days=7), list[int]()

    def close(descriptor: int, close: Callable[[int], None] = os.close) -> None:
        close(descriptor)  # as Linux does, whatever it says then
        closed.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer.append([to_line(numbered(0))])
    with monkeypatch.context() as patched:
        patched.setattr("os.close", close)
        with pytest.raises(OSError, match="Input/output"):
            writer.close()
    with (tmp_path / "another").open("wb") as another:
        assert another.fileno() in closed, "the number is given out again"
        writer.append([to_line(numbered(1))])
    assert (tmp_path / "another").read_bytes() == b""
    assert sorted(read(tmp_path)) == ["r-0", "r-1"]


def test_a_name_that_is_no_hour_ends_no_log(tmp_path: Path) -> None:
    strange = tmp_path / "exposures-20231399T99-00000000-0001.jsonl"
    strange.write_bytes(b"")
    SegmentWriter(tmp_path, retention_days=7, clock=lambda: NOON + 365 * DAY).append([to_line(numbered(0))])
    log = log_in(tmp_path)
    log.offer(made(1))
    log.close()
    assert log.written == 1
    assert [path.exists() for path in (strange, *segment_files(tmp_path))] == [True, True, True]
    assert read(tmp_path) == ["r-1"], "the old one is deleted all the same"


def test_a_record_that_cannot_be_made_costs_itself_alone(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.offer(lambda: numbered(int("nothing")))
    log.offer(lambda: replace(BARE, delta_share=float("nan")))
    log.offer(made(1))
    log.close()
    assert log.dropped == {"error": 2}
    assert read(tmp_path) == ["r-1"]


def test_a_place_that_cannot_be_written_to_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPreconditionError, match="name a folder"):
        SegmentWriter(tmp_path / "file" / "log", retention_days=7)


def test_the_share_is_honoured(tmp_path: Path) -> None:
    chances = iter([0.05, 0.1, 0.5, 0.0999, 0.9])
    log = log_in(tmp_path, share=0.1, chance=lambda: next(chances))
    assert [log.drawn() for _ in range(5)] == [True, False, False, True, False]
    log.close()
