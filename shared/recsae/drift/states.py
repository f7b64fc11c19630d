"""What a comparison says about a whole model."""

from __future__ import annotations

from enum import StrEnum


class DriftState(StrEnum):
    """Too little seen to tell, nothing moved, or at least one concept moved."""

    INSUFFICIENT_DATA = "insufficient_data"
    STABLE = "stable"
    DRIFTED = "drifted"
