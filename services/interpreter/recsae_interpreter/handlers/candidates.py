"""Candidates of a subject at a hook with a row per pair: those a caller names, or the model's own best."""

from __future__ import annotations

from collections.abc import Sequence

from recsae.errors import InvalidRequestError
from recsae.recommenders.address import split_address
from recsae.rpc.deadline import Deadline
from recsae_interpreter.library import Library
from recsae_interpreter.readings import Subject
from recsae_interpreter.recommender import Recommender

MOST_CANDIDATES = 1_000


class Candidates:
    """Finds them."""

    def __init__(self, library: Library, recommender: Recommender) -> None:
        """Keeps its collaborators."""
        self._library = library
        self._recommender = recommender

    def best(self, address: str, subject: Subject, count: int, deadline: Deadline) -> Sequence[str]:
        """The `count` items the model would recommend; none where its hook has no row per pair."""
        version = self._library.promoted_version(address)
        hook = self._recommender.describe(address, version, deadline).hook(split_address(address).hook)
        return self._recommender.best_items(address, subject, count, deadline) if hook.rows == "pair" else ()


def check_candidates(candidates: Sequence[str], most: int = MOST_CANDIDATES) -> None:
    """InvalidRequestError for too many, and for one that is named twice."""
    if len(candidates) > most:
        raise InvalidRequestError(f"{len(candidates)} candidates came; name at most {most:,}")
    if len(set(candidates)) < len(candidates):
        twice = next(item for at, item in enumerate(candidates) if item in candidates[:at])
        raise InvalidRequestError(f"candidate {twice!r} is named twice; name each once")
