"""Ranks of target items by a torch network among the whole catalogue.

For validation while training and for test figures of a network that is not exported yet; runs where the network is.
Not here: measures from ranks (`metrics`), the same over ONNX graphs (`evaluation`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsae.datasets.schema import Histories
from recsae.recommenders.families.next_item import NextItemNetwork
from recsae.recommenders.metrics import NOWHERE

_BATCH = 256

Ints = NDArray[np.int64]


def target_ranks(
    model: NextItemNetwork,
    histories: Histories,
    targets: NDArray[np.integer],
    users: Ints,
    *,
    consumed: bool = False,
    batch: int = _BATCH,
) -> Ints:
    """Ranks int64 [len(users)] from 1 of `targets` [n_users] after all of the users' `histories`; ties rank last.

    Items a user has consumed are left out, and such a target is NOWHERE, unless `consumed` says that they compete too.
    The network is in evaluation mode afterwards. Memory is bounded by `batch` users times the items, and times the
    interests where there are several.
    """
    model.eval()
    parts = [users[at : at + batch] for at in range(0, len(users), batch)]
    with torch.no_grad():
        ranks = [_ranks(model, histories, targets, part, consumed) for part in parts]
    return np.concatenate([np.zeros(0, np.int64), *ranks])


def newest_items(histories: Histories, users: Ints, max_history: int) -> Ints:
    """The newest `max_history` items of each user, int64 [len(users), max_history], 0 behind the newest one."""
    lengths = np.minimum(histories.lengths[users], max_history)
    steps = np.arange(max_history)
    inside = steps < lengths[:, None]
    at = np.where(inside, (histories.offsets[users + 1] - lengths)[:, None] + steps, 0)
    return np.where(inside, histories.items[at], 0).astype(np.int64)


def _ranks(
    model: NextItemNetwork, histories: Histories, targets: NDArray[np.integer], users: Ints, consumed: bool
) -> Ints:
    device = model.item_bias.device
    padded = torch.from_numpy(newest_items(histories, users, model.shape.max_history)).to(device)
    scores = model.scores(model.last(padded))
    scores[:, 0] = -torch.inf
    if not consumed:
        rows, items = consumed_items(histories, users)
        scores[torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)] = -torch.inf
    wanted = torch.from_numpy(targets[users].astype(np.int64)).to(device)
    own = scores.gather(1, wanted[:, None])
    ranks = (scores >= own).sum(dim=1).cpu().numpy()
    return np.where(np.isfinite(own.squeeze(1).cpu().numpy()), ranks, NOWHERE).astype(np.int64)


def consumed_items(histories: Histories, users: Ints) -> tuple[Ints, Ints]:
    """Row (index into `users`) and item of every interaction of `users`, int64 [n] each."""
    lengths = histories.lengths[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, histories.items[histories.offsets[users][rows] + within].astype(np.int64)
