"""Run records as JSON, versioned, for any store that keeps bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from recsae.errors import FailedPreconditionError
from recsae.pipeline.runs import Run, RunConfig, RunState, Stage
from recsae.pipeline.triples import Triple

SCHEMA_VERSION = 1


def run_to_json(run: Run) -> str:
    """The record as one line of JSON."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(run)}, sort_keys=True, allow_nan=False)


def run_from_json(text: str | bytes) -> Run:
    """The record back; FailedPreconditionError when another release wrote it in another form."""
    raw: dict[str, Any] = json.loads(text)
    version = raw.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise FailedPreconditionError(
            f"run record has schema {version!r}, this release reads {SCHEMA_VERSION}; let the old release finish it"
        )
    return Run(
        **{
            **raw,
            "config": RunConfig(**raw["config"]),
            "state": RunState(raw["state"]),
            "triple": Triple(**raw["triple"]),
            "stages": tuple(Stage(**{**stage, "state": RunState(stage["state"])}) for stage in raw["stages"]),
        }
    )
