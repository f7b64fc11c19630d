"""Run records as JSON, versioned, for any store that keeps bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recsae.errors import FailedPreconditionError
from recsae.pipeline.runs import Run, RunConfig, RunState, Stage
from recsae.pipeline.sweeps import PointResult, SweepGrid, SweepPoint
from recsae.pipeline.triples import Triple

SCHEMA_VERSION = 3
# 1 knew no sweeps, variants or measures, 2 no language model and no stages evidence and causal: all have defaults. Who
# knows only 2 could not do the stages of 3.
_READ = (1, 2, SCHEMA_VERSION)


def run_to_json(run: Run) -> str:
    """The record as one line of JSON."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(run)}, sort_keys=True, allow_nan=False)


def run_from_json(text: str | bytes) -> Run:
    """The record back; FailedPreconditionError when another release wrote it in another form."""
    raw: dict[str, Any] = json.loads(text)
    version = raw.pop("schema_version", None)
    if version not in _READ:
        raise FailedPreconditionError(
            f"run record has schema {version!r}, this release reads {SCHEMA_VERSION}; let the release that wrote it "
            "finish it"
        )
    return Run(
        **{
            **raw,
            "config": RunConfig(**{**raw["config"], "sweep": _grid(raw["config"].get("sweep"))}),
            "state": RunState(raw["state"]),
            "triple": Triple(**raw["triple"]),
            "stages": tuple(Stage(**{**stage, "state": RunState(stage["state"])}) for stage in raw["stages"]),
            "points": tuple(
                PointResult(**{**result, "point": SweepPoint(**result["point"])}) for result in raw.get("points", ())
            ),
        }
    )


def _grid(raw: Mapping[str, Any] | None) -> SweepGrid | None:
    """JSON has no tuples."""
    return None if raw is None else SweepGrid(**{name: tuple(values) for name, values in raw.items()})
