"""The benchmark of the exposure log runs and says what it measured, in one line of JSON. No speed is asserted."""

from __future__ import annotations

import json

import pytest
from benchmarks import exposures


def test_the_last_line_is_the_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"CALLS": 100, "OFFERS": 20, "ROUNDS": 1, "ITEMS": 60, "DIM": 16}.items():
        monkeypatch.setattr(exposures, name, value)
    exposures.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["bench"] == "exposures"
    assert set(result["log_us"]) == set(result["request_us"]) == {"plain", "shadow"}
    assert result["log_us"]["shadow"] > 0 < result["reading_us"]
