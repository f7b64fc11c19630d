"""The SDK for a live torch model: attach to a module, serve its activations, apply steering plans in its forwards.

    tap = attach(model, "norm", row="last")
    exporter = tap.exporter(name="sasrec", items=ids, embed=lambda batch: model(batch.history), item_vectors=vectors)
    exporter.serve("127.0.0.1:50051")
    tap.follow("127.0.0.1:50052")
    with tap.steering(user_id="42") as steering:
        scores = model(histories)
    steering.reason, steering.applied

Works with eager modules, autocast, half precision and torch.compile, which runs the hooks between its graphs. Refused:
modules inside TorchScript, whose calls no Python hook sees, and DataParallel over several devices, whose threads know
no request; DistributedDataParallel and one process per device work.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.sdk.torch_batch import TorchBatch
from recsae.sdk.torch_exporter import TorchSource
from recsae.sdk.torch_place import Part, Place, Row
from recsae.sdk.torch_scope import Steering
from recsae.sdk.torch_tap import Tap
from recsae.sdk.torch_version import version_of
from recsae.steering.matching import SteerContext

__all__ = ["Place", "SteerContext", "Steering", "Tap", "TorchBatch", "TorchSource", "attach", "version_of"]

_SUGGESTIONS = 5


def attach(
    model: nn.Module,
    path: str | None = None,
    *,
    row: Row = "all",
    hook: str = "",
    at: Literal["output", "input"] = "output",
    part: Part = None,
    also: Sequence[Place] = (),
    padding: int = 0,
) -> Tap:
    """A tap where a model is read and steered: the output of the module at `path`, or its input (`at="input"`).

    `path` is dotted as in `named_modules`, "" the model itself; None puts no hook: call `tap(x)` at the activation.
    `row` says where a row lies in the tensor (`Row`), `part` which tensor of a tuple or mapping it is. `hook` is the
    name in the contract (the path by default), `also` further places, which are only read. `padding` is the index that
    fills up histories. InvalidRequestError names the paths closest to one that does not exist.
    """
    places = (Place(hook or path or "activation", path, row, at, part), *also)
    if len({place.name for place in places}) < len(places):
        raise InvalidRequestError("two places have one name; give each its own")
    if len({place.kind for place in places}) > 1:
        raise InvalidRequestError("all places of a model need rows of one kind")
    modules = {place.name: _module(model, place.path) for place in places if place.path is not None}
    for name, module in modules.items():
        _check(model, name, module)
    return Tap(model, places, modules, padding)


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = [name for name, _ in model.named_modules() if name]
        near = difflib.get_close_matches(path, names, _SUGGESTIONS, 0.0)
        raise InvalidRequestError(f"the model has no module {path!r}; closest are {', '.join(near)}") from error


def _check(model: nn.Module, name: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise FailedPreconditionError(
            f"module {name!r} is TorchScript, whose calls pass by Python's hooks; attach before scripting, call "
            "tap(x) by hand, or export the model to ONNX and import that"
        )
    for one in model.modules():
        if isinstance(one, nn.DataParallel) and len(one.device_ids) > 1:
            raise FailedPreconditionError(
                f"the model runs in DataParallel on {len(one.device_ids)} devices, whose threads know no request; use "
                "DistributedDataParallel, or one process per device"
            )
