"""GetModel: the model is described, by a version and limits that others can rely on."""

from __future__ import annotations

import re

from recsae.conformance.expecting import NOT_FOUND, refused
from recsae.conformance.outcomes import BrokenError, Check, DoubtfulError
from recsae.conformance.probe import UNKNOWN_MODEL, Probe
from recsae.v1 import common_pb2, recommender_pb2

_VERSION = re.compile(r"[0-9a-f]{16}")


def answers(probe: Probe) -> str:
    """A name, a version, and the model that was asked for."""
    info = probe.info
    if not info.name or not info.version:
        raise BrokenError(
            f'GetModel of "{probe.model}"',
            f"name {info.name!r}, version {info.version!r}",
            "give the model a name and a version that changes whenever its activations may",
        )
    if probe.model and info.name != probe.model:
        raise BrokenError(f'GetModel of "{probe.model}"', f"model {info.name!r}", "describe the model asked for")
    return f"{info.name} {info.version}, {info.family or 'no family'}, {info.item_count} items"


def listed(probe: Probe) -> str:
    """The model is among the available ones, the default first, and answers to its name."""
    names = list(probe.described.available_models)
    asked = "GetModel's available_models"
    if probe.info.name not in names:
        raise BrokenError(asked, f"{names} without {probe.info.name!r}", "list every model, the default one first")
    if not probe.model and names[0] != probe.info.name:
        raise BrokenError(asked, f"{names[0]!r} first", f"list the default model first: {probe.info.name!r}")
    again = probe.service.get_model(recommender_pb2.GetModelRequest(model=probe.info.name)).model
    if again.name != probe.info.name:
        raise BrokenError(f'GetModel of "{probe.info.name}"', f"model {again.name!r}", "describe the model asked for")
    return f"{len(names)} models" if len(names) > 1 else ""


def unknown_refused(probe: Probe) -> str:
    """A model nobody has is NOT_FOUND."""
    request = recommender_pb2.GetModelRequest(model=UNKNOWN_MODEL)
    asked = f'GetModel of "{UNKNOWN_MODEL}"'
    refused(lambda: probe.service.get_model(request), asked, NOT_FOUND, "there is no such model")
    return ""


def hooks(probe: Probe) -> str:
    """Hooks with a name, a length and rows that fit together."""
    found = probe.info.hooks
    asked = "GetModel's hooks"
    if not found:
        raise BrokenError(asked, "none", "name at least one place where activations can be read, with its dim")
    if len({hook.name for hook in found}) < len(found) or not all(hook.name for hook in found):
        raise BrokenError(asked, f"names {[hook.name for hook in found]}", "give each hook a name of its own")
    for place, hook in enumerate(found):
        if hook.rows not in recommender_pb2.RowKind.values():
            raise BrokenError(asked, f"hook {hook.name!r} with rows {hook.rows}", "use a value of RowKind")
        several = hook.rows == recommender_pb2.ROW_KIND_INTEREST
        if hook.dim < 1:
            raise BrokenError(
                asked, f"hook {hook.name!r} with dim {hook.dim}", "say how long its vectors are, at least 1"
            )
        if hook.side == common_pb2.SIDE_UNSPECIFIED:
            raise BrokenError(asked, f"hook {hook.name!r} without a side", "say SIDE_USER or SIDE_ITEM")
        if several != (hook.interests >= 2) or (not several and hook.interests):
            came = f"hook {hook.name!r} with interests {hook.interests} and rows {_rows(hook)}"
            raise BrokenError(asked, came, "set interests, 2 or more, with ROW_KIND_INTEREST and only there")
        if place and hook.steerable:
            raise BrokenError(asked, f"hook {hook.name!r}, not the first, is steerable", "only the first hook can be")
    return ", ".join(f"{hook.name} [{hook.dim}] {_rows(hook)}" for hook in found)


def limits(probe: Probe) -> str:
    """What fits: history, items, rows of an answer."""
    info = probe.info
    asked = "GetModel's limits"
    if info.max_history < 1 and not info.ignores_history:
        raise BrokenError(
            asked, "max_history 0", "say how many of the newest items the model reads, or ignores_history"
        )
    if info.item_count < 1:
        raise BrokenError(asked, "item_count 0", "say how many items the model can return")
    if info.max_export_rows < 1:
        raise DoubtfulError(asked, "max_export_rows 0", "say how many activation rows one answer may have")
    if info.head not in recommender_pb2.HeadKind.values():
        raise BrokenError(asked, f"head {info.head}", "use a value of HeadKind")
    head = recommender_pb2.HeadKind.Name(info.head).removeprefix("HEAD_KIND_").lower()
    return f"max_history {info.max_history}, max_export_rows {info.max_export_rows}, head {head}"


def stable(probe: Probe) -> str:
    """The version is the same a moment later."""
    again = probe.service.get_model(recommender_pb2.GetModelRequest(model=probe.model)).model.version
    if again != probe.info.version:
        came = f"{probe.info.version} and then {again}"
        raise BrokenError(
            "GetModel twice", came, "derive the version from the model's content, not from time or process"
        )
    return ""


def version_form(probe: Probe) -> str:
    """16 hex digits, as a content hash."""
    if not _VERSION.fullmatch(probe.info.version):
        raise DoubtfulError(
            "GetModel's version",
            repr(probe.info.version),
            "use the first 16 hex digits of a hash over the model's files: artifacts are named by it",
        )
    return ""


def _rows(hook: recommender_pb2.HookInfo) -> str:
    return recommender_pb2.RowKind.Name(hook.rows).removeprefix("ROW_KIND_").lower()


_ANSWERS = ("model.answers",)
CHECKS = (
    Check("model.answers", "describes the model asked for, else the server's default", answers),
    Check(
        "model.listed",
        "all models are named, the default first",
        listed,
        _ANSWERS,
    ),
    Check("model.unknown", "a model that is not there is refused with NOT_FOUND", unknown_refused, _ANSWERS),
    Check("model.hooks", "hooks have a name, a side, a dim and rows of one kind", hooks, _ANSWERS),
    Check("model.limits", "history, items and rows of an answer have their bounds", limits, _ANSWERS),
    Check("model.stable", "the version of an unchanged model stays the same", stable, _ANSWERS),
    Check("model.version", "the version is 16 hex digits of a content hash", version_form, _ANSWERS),
)
