"""NDCG@10 and HR@10 of a RecBole model by full ranking, in both countings, with our own measures.

"consumed_compete": every item is ranked, those a user has consumed too; RecBole counts sequential models so.
"excluding_consumed": consumed items are left out; we count so, and RecBole the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recbole.material import Material
from benchmarks.recbole.settings import MODELS
from recsae.datasets.schema import Histories
from recsae.recommenders.metrics import ranking_quality, ranks_from_scores

COUNTINGS = ("consumed_compete", "excluding_consumed")
_USERS_AT_ONCE = 256
_PAIRS_AT_ONCE = 100_000

Ints = NDArray[np.int64]


def figures(model: Any, made: Material, part: str) -> dict[str, dict[str, float]]:
    """`ndcg10` and `hr10` of both countings over the users with a target; `part` is "valid" or "test"."""
    split = made.split
    histories, targets = (split.train, split.valid) if part == "valid" else (split.before_test, split.test)
    users = np.flatnonzero((targets > 0) & (histories.lengths > 0))
    ranks: dict[str, list[Ints]] = {counting: [] for counting in COUNTINGS}
    for begin in range(0, len(users), _USERS_AT_ONCE):
        some = users[begin : begin + _USERS_AT_ONCE]
        scores = full_scores(model, made, histories, some)
        scores[:, 0] = -np.inf
        ranks["consumed_compete"].append(ranks_from_scores(scores, targets[some]))
        rows = np.repeat(np.arange(len(some)), histories.lengths[some])
        scores[rows, np.concatenate([histories.of(int(user)) for user in some])] = -np.inf
        ranks["excluding_consumed"].append(ranks_from_scores(scores, targets[some]))
    found = {counting: ranking_quality(np.concatenate(parts), (10,)) for counting, parts in ranks.items()}
    return {
        counting: {"ndcg10": round(quality["ndcg@10"], 4), "hr10": round(quality["hr@10"], 4)}
        for counting, quality in found.items()
    }


def full_scores(model: Any, made: Material, histories: Histories, users: Ints) -> NDArray[np.float32]:
    """Scores float32 [len(users), n_items + 1] of every item in RecBole's index after all of the users' histories."""
    model.eval()
    with torch.no_grad():
        if made.config["model"] == "DSSM":
            return _two_towers(model, made, made.users[users])
        if MODELS[made.config["model"]].kind == "context":
            return _pairwise(model, made, made.users[users])
        inputs = {name: torch.from_numpy(values) for name, values in model_inputs(made, histories, users).items()}
        raw = model.full_sort_predict({name: values.to(made.config["device"]) for name, values in inputs.items()})
    scores: NDArray[np.float32] = raw.view(len(users), -1).float().cpu().numpy().copy()
    return scores


def model_inputs(made: Material, histories: Histories, users: Ints) -> Mapping[str, Ints]:
    """What `full_sort_predict` reads, by RecBole's own names.

    A sequential model: `item_id_list` int64 [n, L], the newest L items, oldest first, right-padded with 0, and
    `item_length` int64 [n]. A general one: `user_id` int64 [n].
    """
    if MODELS[made.config["model"]].kind == "general":
        return {"user_id": made.users[users]}
    most = made.config["MAX_ITEM_LIST_LENGTH"]
    lengths = np.minimum(histories.lengths[users], most)
    inside = np.arange(most) < lengths[:, None]
    at = np.where(inside, (histories.offsets[users + 1] - lengths)[:, None] + np.arange(most), 0)
    padded = np.where(inside, histories.items[at], 0).astype(np.int64)
    return {"item_id_list": padded, "item_length": lengths}


def _pairwise(model: Any, made: Material, users: Ints) -> NDArray[np.float32]:
    """`predict` of every user-item pair, as RecBole ranks models that score one pair at a time."""
    device = made.config["device"]
    of_users, of_items = made.dataset.get_user_feature(), made.dataset.get_item_feature()
    n_items = len(of_items)
    at_once = max(1, _PAIRS_AT_ONCE // n_items)
    scores = []
    for begin in range(0, len(users), at_once):
        some = torch.from_numpy(users[begin : begin + at_once])
        pairs = of_users[some].repeat_interleave(n_items)
        pairs.update(of_items.repeat(len(some)))
        scores.append(model.predict(pairs.to(device)).view(len(some), n_items).float().cpu().numpy())
    return np.concatenate(scores)


def _two_towers(model: Any, made: Material, users: Ints) -> NDArray[np.float32]:
    """DSSM's cosines of every pair with each tower run once per user and once per item, not once per pair.

    `predict` is a sigmoid of them, which keeps their order. A pair's towers do not see each other, so the rows of users
    and items are passed through side by side and read where the towers end.
    """
    of_users, of_items = made.dataset.get_user_feature(), made.dataset.get_item_feature()
    rows = torch.arange(max(len(users), len(of_items)))
    pairs = of_users[torch.from_numpy(users)[rows % len(users)]]
    pairs.update(of_items[rows % len(of_items)])
    vectors: dict[str, Any] = {}
    hooks = [
        tower.register_forward_hook(lambda _, __, out, name=name: vectors.update({name: out}))
        for name, tower in (("user", model.user_mlp_layers), ("item", model.item_mlp_layers))
    ]
    try:
        model.predict(pairs.to(made.config["device"]))
    finally:
        for hook in hooks:
            hook.remove()
    unit = {name: torch.nn.functional.normalize(found, dim=1) for name, found in vectors.items()}
    scores: NDArray[np.float32] = (unit["user"][: len(users)] @ unit["item"][: len(of_items)].T).cpu().numpy()
    return scores
