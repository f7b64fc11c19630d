"""The one place that says which users and which items are used for what (docs/method.md, section 3).

Users: 60 % train the SAE, 20 % construct (labels, thresholds, p95, steering weights), 20 % verify, and verification
is read once. Deciding items: 70 % are seen by describers, 30 % are not, so that a label can be scored on items it was
not built from. A SHA-256 of id and seed decides, so that the split needs no list, is the same on every machine, and
a user who returns with more interactions stays where it was. Not here: leave-one-out splits for recommenders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_SEEN_SHARE = 0.7
_HASH_BITS = 64


class UserPart(IntEnum):
    """What a user's rows may be used for."""

    SAE = 0
    CONSTRUCTION = 1
    VERIFICATION = 2


# Upper ends of the shares of SAE and CONSTRUCTION; the rest verifies.
_PART_ENDS = (0.6, 0.8)


def split_users(pseudonyms: Iterable[str], seed: int = 0) -> NDArray[np.int8]:
    """The part of each user, int8 [n_users] of `UserPart` values, from its pseudonymous id."""
    return np.searchsorted(_PART_ENDS, _uniform("user", pseudonyms, seed), side="right").astype(np.int8)


def unseen_items(item_ids: Iterable[str], seed: int = 0) -> NDArray[np.bool_]:
    """Bool [n_items + 1]: the 30 % of items no label is built from. Row 0 (padding) is False."""
    unseen = _uniform("item", item_ids, seed) >= _SEEN_SHARE
    return np.concatenate([[False], unseen])


def _uniform(kind: str, ids: Iterable[str], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per id; `kind` keeps a user and an item of one id apart."""
    hashes = [
        int.from_bytes(hashlib.sha256(f"{kind}\0{seed}\0{name}".encode()).digest()[: _HASH_BITS // 8]) for name in ids
    ]
    return np.array(hashes, dtype=np.float64) / 2.0**_HASH_BITS
