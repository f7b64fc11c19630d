"""Groups of users as they are named on the command line: ids in a file, an attribute, or what users consumed.

The platform needs no data set for a comparison: users of a file are sent as ids, others as histories drawn from the
private data set of the workspace, or as ids where a model reads more of a user than a history. Not here: the comparison
(`recsae.concepts.contrast`, run by the interpreter).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Dataset
from recsae.errors import InvalidRequestError, NotFoundError
from recsae.v1 import common_pb2, interpreter_pb2

DEFAULT_SHARE = 0.3
# The newest items are sent; no model here reads more.
_NEWEST = 200
_RULE = re.compile(r"(?:(?P<side>user|item):)?(?P<name>[^=<>]+)=(?P<value>.*?)(?:\s*>=\s*(?P<share>[\d.]+))?")
_EXAMPLES = "e.g. genre=Horror, genre=Horror>=0.4, gender=F, or @users.txt"


@dataclass(frozen=True)
class Rule:
    """Users with `name=value`: an attribute of theirs ("user"), or at least `share` of their items ("item").

    `side` "" takes the attribute where users have one of that name, else the facet.
    """

    side: str
    name: str
    value: str
    share: float | None


def parse_group(text: str) -> Rule | Path:
    """A rule, or the file of ids after "@"; InvalidRequestError for anything else."""
    if text.startswith("@"):
        return Path(text[1:])
    found = _RULE.fullmatch(text.strip())
    share = found["share"] if found else None
    if found is None or not found["value"] or (share is not None and not _is_share(share)):
        raise InvalidRequestError(f"{text!r} names no group of users; give a rule or a file of ids, {_EXAMPLES}")
    return Rule(found["side"] or "", found["name"].strip(), found["value"], float(share) if share else None)


def ids_of_file(path: Path) -> list[str]:
    """User ids, one a line; empty lines are left out and repeated ids taken once."""
    if not path.is_file():
        raise NotFoundError(f"there is no file {path} of user ids; give one id a line")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def members(dataset: Dataset, rule: Rule) -> NDArray[np.bool_]:
    """Which users [n_users] a rule holds for, those without a history left out.

    InvalidRequestError names the attributes and facets there are when it asks for another.
    """
    has_history = dataset.histories.lengths > 0
    columns = dataset.users.columns
    if rule.side != "item" and rule.name in columns:
        if rule.share is not None:
            raise InvalidRequestError(f"{rule.name!r} is an attribute of users, which has no share; leave >= out")
        held: NDArray[np.bool_] = np.array(columns[rule.name]) == rule.value
        if not held.any():
            known = _some(columns[rule.name])
            raise InvalidRequestError(f"no user has {rule.name}={rule.value}; {rule.name} is {known}")
        return np.logical_and(held, has_history)
    if rule.side == "user":
        raise InvalidRequestError(f"users have no attribute {rule.name!r}, only {', '.join(columns) or 'none'}")
    least = rule.share if rule.share is not None else DEFAULT_SHARE
    return np.logical_and(_shares(dataset, rule) >= least, has_history)


def drawn(candidates: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of the users that hold, drawn evenly, ascending."""
    users = np.flatnonzero(candidates)
    if len(users) > most:
        users = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    return users


def group_of_users(dataset: Dataset, users: NDArray[np.int64], *, by_id: bool = False) -> interpreter_pb2.UserGroup:
    """These users by their newest items, or by their ids."""
    if by_id:
        return interpreter_pb2.UserGroup(user_ids=[dataset.users.ids[user] for user in users.tolist()])
    ids = dataset.items.ids
    histories = [
        common_pb2.History(item_ids=[ids[item - 1] for item in dataset.histories.of(user)[-_NEWEST:].tolist()])
        for user in users.tolist()
    ]
    return interpreter_pb2.UserGroup(histories=histories)


def _shares(dataset: Dataset, rule: Rule) -> NDArray[np.float64]:
    """Share of each user's items that carry the facet, float64 [n_users]."""
    from recsae.datasets.facets import build_facets

    facets = build_facets(dataset.items, dataset.histories)
    name = f"{rule.name}={rule.value}"
    if name not in facets.names:
        families = dict.fromkeys(facets.families)
        known = [one.partition("=")[2] for one in facets.names if one.startswith(f"{rule.name}=")]
        of = f"{rule.name} is {_some(known)}" if known else f"attributes of users: {_some(dataset.users.columns)}"
        raise InvalidRequestError(f"there is no facet {name!r}; facets are of {', '.join(families)}, and {of}")
    carried = facets.matrix[:, [facets.names.index(name)]].toarray()[:, 0]
    histories = dataset.histories
    count = np.bincount(histories.users, carried[histories.items], minlength=histories.n_users)
    shares: NDArray[np.float64] = count / np.maximum(histories.lengths, 1)
    return shares


def _some(values: Iterable[str]) -> str:
    distinct = sorted({value for value in values if value})
    return ", ".join(distinct[:8]) + (" ..." if len(distinct) > 8 else "") or "none"


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False
