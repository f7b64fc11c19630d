"""Lanes: the model itself, and the untrained control, go through the same stages on different models and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from recsae.pipeline.runs import RunConfig

_CONTROL = "control_"
# Enough for a rate of verified labels with a narrow interval; more would only make the control slow.
_CONTROL_ROWS_PER_PART = 30_000


@dataclass(frozen=True)
class Lane:
    """`prefix` of stage names and of folders in the work folder; `rows_per_part` None = all there are."""

    prefix: str
    model: str
    rows_per_part: int | None

    def stage(self, name: str) -> str:
        """Name of the stage in this lane."""
        return f"{self.prefix}{name}"


def lane_of(stage: str, config: RunConfig) -> Lane:
    """The lane a stage belongs to."""
    if stage.startswith(_CONTROL):
        return Lane(_CONTROL, config.control_model, _CONTROL_ROWS_PER_PART)
    return Lane("", config.model, None)
