"""Compares the graphs of a bundle with the torch modules they were exported from, on made-up inputs.

Runs onnxruntime on its own, without the serving code, so that only the export can be at fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsae.errors import FailedPreconditionError
from recsae.recommenders.bundle import HEAD, TRUNK, TRUNK_POSITIONS, ModelBundle
from recsae.recommenders.description import BundleDescription
from recsae.recommenders.graph import open_session
from recsae.recommenders.made_up_feed import Feed, made_up_feed

_TOLERANCE = 1e-5
_CHECKED_BATCHES = (1, 2, 7, 64)

Arrays = list[NDArray[Any]]


def check_against_torch(
    bundle: ModelBundle, trunk: nn.Module, positions: nn.Module | None = None, head: nn.Module | None = None
) -> float:
    """Largest difference between torch and the exported graphs, relative to the largest value of an output.

    Batches of 1 to 64 rows. Where there is a graph of every position, its newest one must be what the trunk gives.
    FailedPreconditionError above 1e-5.
    """
    run = {name: _runner(bundle.folder / name) for name in _files(positions, head)}
    random, differences = np.random.default_rng(0), list[float]()
    for size in _CHECKED_BATCHES:
        feed = made_up_feed(bundle.description, size, random)
        made = run[TRUNK](feed)
        differences.append(_difference(made, _torch(trunk, feed)))
        if positions is not None:
            every = {name: values for name, values in feed.items() if name != "candidate"}
            found = run[TRUNK_POSITIONS](every)
            differences.append(_difference(found, _torch(positions, every)))
            newest, kept = _newest(found, feed["history"])
            alone = run[TRUNK](_at_newest(bundle.description, feed))[: len(found)]
            differences.append(_difference(newest, [rows[kept] for rows in alone]))
        if head is not None:
            passed = made[len(bundle.description.hooks) :]
            rows = dict(zip(("activation", *bundle.description.passthrough), [made[0], *passed], strict=True))
            differences.append(_difference(run[HEAD](rows), _torch(head, rows)))
    worst = float(np.max(differences))
    if not worst <= _TOLERANCE:
        raise FailedPreconditionError(
            f"the exported {bundle.name} differs from torch by {worst:.1e}, more than {_TOLERANCE:.0e}; "
            f"export it with another opset or report the operator"
        )
    return worst


def _files(positions: nn.Module | None, head: nn.Module | None) -> list[str]:
    return [TRUNK, *([TRUNK_POSITIONS] if positions is not None else []), *([HEAD] if head is not None else [])]


def _runner(path: Path) -> Any:
    session = open_session(path, threads=1)
    read = {one.name for one in session.get_inputs()}

    def run(feed: Feed) -> Arrays:
        return list(session.run(None, {name: values for name, values in feed.items() if name in read}))

    return run


def _torch(module: nn.Module, feed: Feed) -> Arrays:
    with torch.no_grad():
        result = module(*(torch.from_numpy(values) for values in feed.values()))
    return [rows.numpy() for rows in (result if isinstance(result, tuple) else (result,))]


def _difference(found: Arrays, wanted: Arrays) -> float:
    """NaN anywhere counts as a difference: it makes the result NaN, which is not below any bound."""
    pairs = zip(found, wanted, strict=True)
    relative = [np.abs(one - other).max() / max(1.0, np.abs(other).max()) for one, other in pairs if other.size]
    return float(np.max([0.0, *relative]))


def _newest(positions: Arrays, history: NDArray[np.int64]) -> tuple[Arrays, NDArray[np.bool_]]:
    """Rows at the newest item, of the subjects that have one; bool [n] says which."""
    lengths = (history > 0).sum(axis=1)
    kept = lengths > 0
    at = np.maximum(lengths - 1, 0)
    return [rows[np.arange(len(at)), at][kept] for rows in positions], kept


def _at_newest(description: BundleDescription, feed: Feed) -> Mapping[str, NDArray[Any]]:
    """The trunk's inputs for the newest position: of a pair, the newest item is the candidate of what came before."""
    if description.hooks[0].rows != "pair":
        return feed
    history = feed["history"].copy()
    rows, at = np.arange(len(history)), np.maximum((history > 0).sum(axis=1) - 1, 0)
    candidate = np.where(history[rows, at] > 0, history[rows, at], feed["candidate"])
    history[rows, at] = 0
    return {**feed, "history": history, "candidate": candidate}
