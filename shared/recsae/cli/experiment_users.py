"""Whom an experiment asks and what items carry: users and facets of the workspace's data set.

Where a policy is rolled out to few, as many users are drawn from its rollout as from outside it: a user's place in the
rollout is a hash, so each half is an even sample of the users its arm stands for. Not here: asking them (`replay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.cli.replay import Asked
from recsae.datasets.facet_names import CROSSED, LIKE
from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import leave_one_out
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.rpc.limits import MOST_HISTORY
from recsae.steering.policies import Scope
from recsae.steering.rollout import in_rollout

_MOST_CELLS = 1 << 26
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Facets:
    """`matrix` float32 0/1 [n_items + 1, f], row 0 all zero."""

    names: tuple[str, ...]
    matrix: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TestUsers:
    """Users to ask, and the item (index from 1) each of them went on to, int64 [n]."""

    asked: Sequence[Asked]
    targets: NDArray[np.int64]


def users_to_ask(dataset: Dataset, scope: Scope, salt: str, most: int, seed: int) -> TestUsers:
    """At most `most` users with a test item (their newest), by all they did before it.

    FailedPreconditionError when the data set has none that the policy may be for.
    """
    split = leave_one_out(dataset.histories)
    able = (split.test > 0) & (split.before_test.lengths > 0)
    if scope.user_ids:
        named = set(scope.user_ids)
        able &= np.array([user_id in named for user_id in dataset.users.ids])
    if not able.any():
        whose = " whom the policy names" if scope.user_ids else ""
        raise FailedPreconditionError(
            f"data set {dataset.name} has no user{whose} with three interactions or more; name another with --data"
        )
    chosen = _drawn(dataset, np.flatnonzero(able), scope.rollout_percent, salt, most, seed)
    asked = [
        Asked(row, dataset.users.ids[user], _newest(dataset, split.before_test, user))
        for row, user in enumerate(chosen.tolist())
    ]
    return TestUsers(asked, split.test[chosen].astype(np.int64))


def facets_of(dataset: Dataset, wanted: Sequence[str] = ()) -> Facets:
    """Facets of the data set's items: metadata values and popularity bands, and those `wanted` by name first.

    InvalidRequestError for a facet there is not.
    """
    from recsae.datasets.facets import FacetSpec, build_facets  # scipy: a thin client has none

    # Values of metadata columns and popularity bands: what a policy is usually about.
    plain_values = FacetSpec(title_tokens=0, most_crossed=0, neighbourhoods=())
    table = build_facets(dataset.items, dataset.histories, plain_values)
    if any(name not in table.names for name in wanted):
        table = build_facets(dataset.items, dataset.histories)
    place = {name: at for at, name in enumerate(table.names)}
    for name in wanted:
        if name not in place:
            family = name.partition("=")[0]
            near = [one for one in table.names if one.startswith(f"{family}=")] or table.names
            families = ", ".join(list(dict.fromkeys(table.families))[:_SHOWN])
            raise InvalidRequestError(f"there is no facet {name!r}; facets are of {families}, e.g. {_some(near)}")
    plain = [at for at, family in enumerate(table.families) if family not in ("title", CROSSED, LIKE)]
    carried = np.asarray(table.matrix.sum(axis=0)).ravel()
    first = [place[name] for name in wanted]
    rest = sorted(set(plain) - set(first), key=lambda at: -carried[at])
    kept = [*first, *rest][: max(len(first), _MOST_CELLS // (dataset.items.count + 1))]
    return Facets(tuple(table.names[at] for at in kept), np.asarray(table.matrix[:, kept].toarray(), np.float32))


def _drawn(
    dataset: Dataset, able: NDArray[np.int64], percent: float, salt: str, most: int, seed: int
) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    if percent >= 100:
        parts, sizes = [able], [most]
    else:
        inside = np.array([in_rollout(percent, salt, dataset.users.ids[user], "") for user in able.tolist()])
        parts = [able[inside], able[~inside]]
        sizes = [most // 2, most - most // 2]
        for one, other in ((0, 1), (1, 0)):  # what one side cannot fill goes to the other
            sizes[other] += max(0, sizes[one] - len(parts[one]))
    drawn = [random.choice(part, min(size, len(part)), replace=False) for part, size in zip(parts, sizes, strict=True)]
    return np.sort(np.concatenate(drawn))


def _newest(dataset: Dataset, histories: Histories, user: int) -> list[str]:
    ids = dataset.items.ids
    return [ids[item - 1] for item in histories.of(user)[-MOST_HISTORY:].tolist()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) or "none"
