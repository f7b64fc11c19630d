"""What a foreign graph's indices stand for, and real subjects to compare on: from lists of ids and from a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.datasets.schema import Dataset
from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_check import RealSubjects, rows_to_check
from recsae.recommenders.onnx_study import Study


@dataclass(frozen=True)
class IdList:
    """Ids in the order of a graph's indices, and titles (of items; empty where there are none)."""

    ids: tuple[str, ...]
    titles: tuple[str, ...] = ()


def read_ids(path: Path) -> IdList:
    """A JSON file: a list of ids, or {"ids": [...], "titles": [...]}; InvalidRequestError for anything else."""
    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{path} cannot be read as JSON: {error}") from error
    raw = content if isinstance(content, dict) else {"ids": content}
    ids, titles = (_texts(path, raw.get(key, []), key) for key in ("ids", "titles"))
    if not ids:
        raise InvalidRequestError(f'{path} needs a list of ids, or {{"ids": [...], "titles": [...]}}')
    if titles and len(titles) != len(ids):
        raise InvalidRequestError(f"{path} has {len(ids)} ids and {len(titles)} titles; give one title per id")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise InvalidRequestError(f"{path} has the id {twice!r} more than once")
    return IdList(ids, titles)


def item_list(study: Study, path: Path | None, dataset: Dataset | None) -> tuple[IdList, tuple[str, ...]]:
    """Items of the graph and notes: those of the file, else those of the data set where the counts fit."""
    known = dict(zip(dataset.items.ids, dataset.items.titles, strict=True)) if dataset else {}
    if path is not None:
        given = read_ids(path)
        return IdList(given.ids, given.titles or tuple(known.get(one, one) for one in given.ids)), ()
    if dataset is None:
        raise InvalidRequestError(
            "give the ids of the items in the order of the graph's indices: --items items.json, a JSON list or "
            '{"ids": [...], "titles": [...]}; or --data, where they are those of a data set'
        )
    n = dataset.items.count
    if study.pairs or study.columns not in (n, n + 1):
        scores = "one score per pair" if study.pairs else f"{study.columns} scores per row"
        raise InvalidRequestError(
            f"the graph gives {scores}, data set {dataset.name} has {n} items: whether they are the same cannot be "
            "seen; give their ids in the order of the graph's indices with --items"
        )
    note = f"item i of the graph is taken for item i of data set {dataset.name}: both have {n}"
    return IdList(dataset.items.ids, dataset.items.titles), (note,)


def user_list(study: Study, path: Path | None, dataset: Dataset | None) -> tuple[IdList, tuple[str, ...]]:
    """Users of the graph and notes: those of the file, else those of the data set; none where it reads no user."""
    if not any(role.kind == "user" for role in study.roles):
        if path is not None:
            raise InvalidRequestError("--users is given, and the graph reads no user; say which input it is: --input")
        return IdList(()), ()
    if path is not None:
        return read_ids(path), ()
    if dataset is None:
        raise InvalidRequestError(
            "the graph reads users: give their ids in the order of its indices: --users users.json"
        )
    n = len(dataset.users.ids)
    note = f"user i of the graph is taken for user i of data set {dataset.name}, which has {n}"
    return IdList(dataset.users.ids), (note,)


def real_subjects(
    dataset: Dataset, item_ids: Sequence[str], published_as: Callable[[str], str], seed: int = 0
) -> RealSubjects:
    """Users of the data set by random, with what the graph knows of their histories, as item indices from 1.

    InvalidRequestError when it knows none of the items.
    """
    index = {item: at for at, item in enumerate(item_ids, start=1)}
    ours = np.array([0, *(index.get(item, 0) for item in dataset.items.ids)], np.int64)
    mapped = ours[dataset.histories.items]
    known = np.bincount(dataset.histories.users, weights=mapped > 0, minlength=dataset.histories.n_users)
    users = np.random.default_rng(seed).permutation(np.flatnonzero(known))[: rows_to_check(len(item_ids))]
    if not len(users):
        raise InvalidRequestError(
            f"the items have none of the ids of data set {dataset.name}, e.g. {dataset.items.ids[0]!r}; give the same "
            "ids, or leave --data out"
        )
    offsets = dataset.histories.offsets
    histories: list[NDArray[np.integer]] = []
    for user in users:
        history = mapped[offsets[user] : offsets[user + 1]]
        histories.append(history[history > 0])
    return RealSubjects(histories, [published_as(dataset.users.ids[user]) for user in users])


def _texts(path: Path, values: Any, key: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(one, str | int) and one != "" for one in values):
        raise InvalidRequestError(f"{path}: {key} must be a list of texts or whole numbers, none of them empty")
    return tuple(str(one) for one in values)
