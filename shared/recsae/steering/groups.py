"""Requests of a batch that the same policies hold for, and what is to be done for them.

Not here: how rows are changed (`recipes`), and what the receipts say (`outcomes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from recsae.steering.receipts import PolicyRef, Receipt
from recsae.steering.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done where a match holds. `none` is the receipt of a request without rows or live policies.

    `live` changes rows. `together` is it with the policies in `shadow`, where some of those would apply; else None.
    """

    live: Recipe | None
    together: Recipe | None
    shadow: tuple[PolicyRef, ...]
    none: Receipt
    reads_latents: bool = field(init=False)
    """True when the latents of its rows are needed."""

    def __post_init__(self) -> None:
        """Decided once, for it is asked of every batch."""
        reads = any(recipe is not None and recipe.reads_latents for recipe in (self.live, self.together))
        object.__setattr__(self, "reads_latents", reads)


@dataclass(frozen=True, eq=False)
class Group:
    """Requests with the same work, their rows in the batch, None = all there are, and where those of each end."""

    work: Work
    requests: Sequence[int]
    rows: list[int] | None
    ends: Sequence[int]

    @property
    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Each request that has rows, and where they begin and end among those of the group."""
        begin = 0
        for request, end in zip(self.requests, self.ends, strict=True):
            if end > begin:
                yield request, begin, end
            begin = end


def group_of(work: Work, requests: list[int], of: int, sizes: Sequence[int] | None) -> Group:
    """Some of the `of` requests of a batch; request i owns the next `sizes[i]` rows, None = one each."""
    if sizes is None:
        return Group(work, requests, None if len(requests) == of else requests, range(1, len(requests) + 1))
    ends = list(accumulate(sizes[one] for one in requests))
    if len(requests) == of:
        return Group(work, requests, None, ends)
    stops = list(accumulate(sizes))
    return Group(work, requests, [row for one in requests for row in range(stops[one] - sizes[one], stops[one])], ends)
