"""Kill switches: steering of one model, or of every model, switched off by a person until switched on again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EVERY_MODEL = ""


@dataclass(frozen=True)
class KillSwitch:
    """`model` is an address, "" = every model; `on` = nothing is steered; `at` in seconds since the epoch."""

    model: str
    on: bool
    at: float
    actor: str
    reason: str


def is_killed(switches: Mapping[str, KillSwitch], model: str) -> bool:
    """True when the switch of every model, or that of this one, is on."""
    return any(name in switches and switches[name].on for name in (EVERY_MODEL, model))
