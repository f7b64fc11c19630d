"""Looks a foreign graph over: its inputs' roles, its tensors as they turn out, its scores, where it can be cut.

Nothing is written here (`onnx_import`). What cannot be found out has to be stated, and is asked for in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.recommenders.inputs import ModelInputs
from recsae.recommenders.onnx_batches import settle_batch
from recsae.recommenders.onnx_candidates import Candidate, candidates, has_places
from recsae.recommenders.onnx_graph import OnnxGraph, Size
from recsae.recommenders.onnx_inputs import Conventions, original_feed
from recsae.recommenders.onnx_observing import BATCH, Feed, TensorSeen
from recsae.recommenders.onnx_roles import Role, assign_roles, listed

# History lengths tried where the graph leaves that axis open and nobody says how long a history may be.
_TRIED_LENGTHS = (6, 5)


@dataclass(frozen=True)
class Statements:
    """What a person says about a graph; everything left out is guessed or has its usual value.

    `first_index` is the graph's index of the first item, `padding_index` what it reads where there is no item;
    `first_user` and `unknown_user` likewise.
    """

    inputs: tuple[str, ...] = ()
    scores: str = ""
    padding: Literal["left", "right"] = "right"
    first_index: int = 1
    padding_index: int | None = None
    max_history: int = 0
    first_user: int = 1
    unknown_user: int | None = None


@dataclass(frozen=True)
class Study:
    """A graph looked over: `original` as it came, `graph` with a free batch where that works and a fixed history."""

    original: OnnxGraph
    graph: OnnxGraph
    roles: tuple[Role, ...]
    how: Conventions
    batch: Size
    seen: Mapping[str, TensorSeen]
    scores: str
    notes: tuple[str, ...] = field(default=())

    @property
    def pairs(self) -> bool:
        """True when the graph scores one candidate per row."""
        return any(role.kind == "candidate" for role in self.roles)

    @property
    def columns(self) -> int:
        """Scores per row."""
        return self.seen[self.scores].numbers

    def sequences(self) -> tuple[str, ...]:
        """Tensors with a vector per place of the history, which can be read beside a cut, in order of execution."""
        if self.pairs or not any(role.kind == "history" for role in self.roles):
            return ()
        nodes = sorted(self.graph.ancestors([self.scores]))
        made = [name for at in nodes for name in self.graph.nodes[at].output if name in self.seen]
        return tuple(name for name in made if has_places(self.seen[name], self.how.max_history))

    def candidates(self) -> tuple[Candidate, ...]:
        """Where it can be cut."""
        return candidates(self.graph, self.seen, self.scores, self.how.max_history)


def study(path: Path, stated: Statements, *, to_import: bool = True) -> Study:
    """Reads a graph and runs it on made-up inputs.

    `to_import=False` does with less: no values of categories, no length of histories. InvalidRequestError says what the
    graph is and what has to be stated.
    """
    original = OnnxGraph.read(path)
    roles = assign_roles(original.inputs, stated.inputs, values_needed=to_import)
    how, lengths = _conventions(roles, stated, to_import)
    graph = original.with_free_axes(_history_axes(roles, how.max_history)) if to_import else original
    output = stated.scores or original.outputs[0]
    _check_tensor(original, output)
    try:
        settled = settle_batch(original, graph, _feed(roles, how), lengths, output)
    except InvalidRequestError:
        raise
    except Exception as error:  # onnxruntime raises its own classes straight from Exception
        raise InvalidRequestError(
            f"{path.name} fails on histories of item 1, padded on the {how.padding} to {lengths[0]}: {error}. It reads "
            f"{listed(original.inputs)}: say what they are with --input, and how it counts and pads with --padding, "
            "--first-index, --padding-index and --max-history"
        ) from error
    pairs = any(role.kind == "candidate" for role in roles)
    scores = _scores(settled.graph, settled.seen, stated.scores, pairs)
    batch: Size = BATCH if settled.batch is None else settled.batch
    return Study(settled.original, settled.graph, roles, how, batch, settled.seen, scores, settled.notes)


def _conventions(roles: Sequence[Role], stated: Statements, to_import: bool) -> tuple[Conventions, Sequence[int]]:
    """How the graph counts and pads, and the history lengths to try it with."""
    history = next((role for role in roles if role.kind == "history"), None)
    user = any(role.kind == "user" for role in roles)
    told_lengths = any(role.kind in ("length", "mask") for role in roles)
    if stated.first_index not in (0, 1) or stated.first_user not in (0, 1):
        raise InvalidRequestError("items and users are counted from 0 or 1: --first-index and --first-user")
    padding_index = stated.padding_index or 0
    if stated.first_index == 0 and stated.padding_index is None and history and not told_lengths and to_import:
        raise InvalidRequestError(
            "the graph counts items from 0 and reads neither length nor mask: say with --padding-index what it reads "
            "where there is no item"
        )
    if stated.unknown_user is None and stated.first_user == 0 and user and len(roles) > 1 and to_import:
        raise InvalidRequestError(
            "the graph counts users from 0, so no index means a user it does not know: say with --unknown-user which "
            "one to read then"
        )
    unknown_user = stated.first_user - 1 if stated.unknown_user is None else stated.unknown_user
    how = Conventions(1, stated.padding, stated.first_index, padding_index, stated.first_user, unknown_user)
    if history is None:
        return how, (1,)
    length = history.type.dims[1]
    if isinstance(length, int):
        if stated.max_history not in (0, length):
            raise InvalidRequestError(
                f"--max-history {stated.max_history}, but {history.tensor!r} takes {length} items"
            )
        return replace(how, max_history=length), (length,)
    if stated.max_history:
        tried = (stated.max_history,) if to_import else (stated.max_history, stated.max_history - 1 or 2)
        return replace(how, max_history=stated.max_history), tried
    if to_import:
        raise InvalidRequestError(
            f"{history.tensor!r} leaves the length of a history open; say how many items to read, e.g. --max-history 50"
        )
    return replace(how, max_history=_TRIED_LENGTHS[0]), _TRIED_LENGTHS


def _history_axes(roles: Sequence[Role], length: int) -> dict[str, dict[int, Size]]:
    """Axes of histories and masks, as long as asked for."""
    return {role.tensor: {1: length} for role in roles if role.kind in ("history", "mask")}


def _feed(roles: Sequence[Role], how: Conventions) -> Feed:
    """Made-up rows that no table is too small for: histories of item 1 of every length, user 1."""

    def feed(rows: int, length: int) -> Mapping[str, NDArray[Any]]:
        counts = 1 + np.arange(rows) % length
        history = (np.arange(length) < counts[:, None]).astype(np.int64)
        inputs = ModelInputs(history, np.ones(rows, np.int64))
        return original_feed(roles, replace(how, max_history=length), inputs, np.ones(rows, np.int64))

    return feed


def _check_tensor(graph: OnnxGraph, name: str) -> None:
    if name not in graph.producer:
        raise InvalidRequestError(f"the graph makes no tensor {name!r}; its outputs are {', '.join(graph.outputs)}")


def _scores(graph: OnnxGraph, seen: Mapping[str, TensorSeen], stated: str, pairs: bool) -> str:
    """The tensor with the scores: as stated, or the only output it can be."""
    if stated:
        _check_tensor(graph, stated)
    fits = [name for name in ([stated] if stated else graph.outputs) if name in seen and _is_scores(seen[name], pairs)]
    widest = max((seen[name].numbers for name in fits), default=0)
    fits = [name for name in fits if seen[name].numbers == widest]
    if len(fits) == 1:
        return fits[0]
    shapes = "; ".join(f"{name} {seen.get(name, '[no number per subject]')}" for name in graph.outputs)
    wanted = "one number per row [batch]" if pairs else "a number per item [batch, items]"
    which = f"{stated!r} is {seen.get(stated, 'the same for all')}" if stated else f"the outputs are {shapes}"
    raise InvalidRequestError(f"scores are {wanted}, and {which}; name the tensor that has them with --scores NAME")


def _is_scores(seen: TensorSeen, pairs: bool) -> bool:
    if not (seen.is_float and seen.has_row_per_subject and seen.is_sized):
        return False
    return seen.numbers == 1 if pairs else len(seen.shape) == 2 and seen.numbers > 1
