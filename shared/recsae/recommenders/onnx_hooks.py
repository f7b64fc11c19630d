"""Tensors of a foreign graph as hooks: their names, and whether they can be hooks together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recsae.errors import InvalidRequestError
from recsae.recommenders.description import Hook, RowKind
from recsae.recommenders.onnx_candidates import has_places, is_activation
from recsae.recommenders.onnx_study import Study


def hook_names(activations: Sequence[str], stated: Sequence[str] = ()) -> dict[str, str]:
    """Hook name -> tensor, in order: as stated by texts `NAME=TENSOR`, else after the tensor."""
    named: dict[str, str] = {}
    for text in stated:
        name, found, tensor = text.partition("=")
        if not found or not re.fullmatch(r"\w[\w.-]{0,63}", name):
            raise InvalidRequestError(
                f"--hook {text!r} is not NAME=TENSOR, with a name of letters, digits, _, - and dots"
            )
        if tensor not in activations:
            raise InvalidRequestError(f"--hook {text!r} names no --activation; those are {', '.join(activations)}")
        named[tensor] = name
    result: dict[str, str] = {}
    for tensor in dict.fromkeys(activations):
        plain = re.sub(r"_output_\d+$", "", tensor)
        if re.fullmatch(r"/[A-Z]\w*", plain):  # an operator outside of any layer, whose name says nothing
            plain = "activation"
        name = named.get(tensor) or re.sub(r"[^\w.-]+", "_", plain).strip("_.-")[:60] or "activation"
        while name in result:
            name += "_"
        result[name] = tensor
    return result


def hooks_at(study: Study, activations: Mapping[str, str]) -> list[Hook]:
    """A hook per tensor; a further one that has a vector per place of the history is read at the newest item.

    InvalidRequestError for a tensor that is not there or has no such vectors.
    """
    hooks: list[Hook] = []
    for name, tensor in activations.items():
        if tensor not in study.graph.producer:
            raise InvalidRequestError(
                f"the graph makes no tensor {tensor!r}; run the command without --activation for a list"
            )
        seen = study.seen.get(tensor)
        if hooks and seen and has_places(seen, study.how.max_history) and hooks[0].rows == "subject":
            hooks.append(Hook(name, "user", int(seen.shape[2]), False, False))
            continue
        if seen is None or not is_activation(seen, study.how.max_history):
            found = f"{seen.dtype} {seen}" if seen and seen.element else "no vector per subject"
            raise InvalidRequestError(
                f"{tensor!r} is {found}; an activation is float32 or float16 [batch, d], or [batch, interests, d]. Run "
                "the command without --activation for a list"
            )
        *interests, dim = (int(size) for size in seen.shape[1:])
        rows: RowKind = "pair" if study.pairs else "interest" if interests else "subject"
        if study.pairs and interests:
            raise InvalidRequestError(f"{tensor!r} is {seen}: a model of pairs has one vector per row; take another")
        hooks.append(Hook(name, "user", dim, not hooks, False, rows, interests[0] if interests else 1))
    if len({(hook.rows, hook.interests) for hook in hooks}) > 1:
        shapes = "; ".join(f"{tensor} {study.seen[tensor]}" for tensor in activations.values())
        raise InvalidRequestError(f"activations of one model need rows of one kind, these are {shapes}")
    return hooks
