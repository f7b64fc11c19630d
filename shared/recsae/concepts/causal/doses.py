"""The grid of doses every concept is tried at, and what each asks of a user's latent value.

The same for all concepts, so that nothing is chosen on the users it is scored on. Operations that read the latent
change only users for whom it fires, so they cost little beside "add". Not here: what the doses do (`measuring`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Dose:
    """An operation as a policy names it, and its value there."""

    operation: str
    value: float


# Half a strength added to everybody changes most lists on MovieLens: what is safe lies well below one.
ADDED = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
GRID: tuple[Dose, ...] = (
    *(Dose("add", value) for value in ADDED),
    Dose("ablate", 0.0),
    *(Dose("scale", value) for value in (0.0, 0.5, 2.0, 4.0)),
    *(Dose("set", value) for value in (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)),
    *(Dose("cap", value) for value in (0.0, 0.5, 1.0, 2.0, 10.0)),
)
OPERATIONS = ("add", "ablate", "scale", "set", "cap")
ABLATED = len(ADDED)
# The added strength at which concepts are compared with nulls.
COMPARED = 0.5


def deltas(z: Floats, p95: Floats) -> Floats:
    """Change of each latent's value, float32 [c, doses, n], of values `z` [c, n] >= 0 with unit `p95` [c]."""
    unit = p95[:, None].astype(np.float32)
    changes = [_change(dose, z, unit) for dose in GRID]
    return np.stack(changes, axis=1).astype(np.float32)


def same_as() -> Ints:
    """For each dose, an earlier one whose change is often the same (-1 = none), int64 [doses].

    "set" adds where nothing fires; taking everything away is one change under four names.
    """
    found = np.full(len(GRID), -1, np.int64)
    for at, dose in enumerate(GRID):
        if dose.operation == "set" and dose.value in ADDED:
            found[at] = ADDED.index(dose.value)
        elif at > ABLATED and dose.value == 0.0:
            found[at] = ABLATED
    return found


def _change(dose: Dose, z: Floats, unit: Floats) -> Floats:
    value = np.float32(dose.value)
    changed: Floats
    match dose.operation:
        case "add":
            changed = np.zeros_like(z) + value * unit
        case "ablate":
            changed = -z
        case "scale":
            changed = z * (value - np.float32(1))
        case "set":
            changed = value * unit - z
        case _:
            changed = np.minimum(z, value * unit) - z
    return changed
