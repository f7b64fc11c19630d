"""Lists to rank, cut into calls of bounded size. Not here: the messages (`convert_readings`) and the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsae_interpreter.readings import HeadRows, Reading

# One Rank call: what a recommender takes at most, and 3 MiB, since gRPC servers take 4 MiB unless told otherwise.
_MOST_LISTS = 1_024
_MOST_BYTES = 3 << 20


def rank_parts(
    readings: Sequence[Reading], lists: Sequence[HeadRows]
) -> Iterator[tuple[Sequence[Reading], list[HeadRows]]]:
    """Lists and the reading each is of, in calls of bounded size; a list alone is never cut."""
    begin, held = 0, 0
    for at, (reading, one) in enumerate(zip(readings, lists, strict=True)):
        size = _bytes_of(reading, one)
        if at > begin and (at - begin == _MOST_LISTS or held + size > _MOST_BYTES):
            yield readings[begin:at], list(lists[begin:at])
            begin, held = at, 0
        held += size
    if begin < len(lists):
        yield readings[begin:], list(lists[begin:])


def _bytes_of(reading: Reading, rows: HeadRows) -> int:
    """Bytes that cross for one list: its rows, what crosses with them, and the ids that are left out of it."""
    crossing = [reading.activations, *reading.passthrough.values()]
    row_bytes = sum(tensor.nbytes // max(1, len(tensor)) for tensor in crossing)
    return len(rows.places) * row_bytes + sum(len(item_id) + 2 for item_id in reading.history)
