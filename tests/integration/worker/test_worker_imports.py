"""The parent of a prefork pool stays free of numeric code, whose threads would not survive the fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

NUMERIC = {"numpy", "scipy", "torch", "onnxruntime", "numba", "pyarrow"}


@pytest.mark.parametrize("module", ["recsae_worker.app", "recsae_worker.tasks", "recsae.pipeline.celery_queue"])
def test_nothing_numeric_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not NUMERIC & set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "recsae.drift.counters",
        "recsae.drift.panes_redis",
        "recsae.drift.arena",
        "recsae.drift.record",
        "recsae.pipeline.runs_redis",
    ],
)
def test_what_services_import_needs_neither_scipy_nor_torch(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy", "torch", "onnxruntime", "celery"} & set(done.stdout.split())
