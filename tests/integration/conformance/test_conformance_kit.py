"""The kit passes whoever keeps the contract, and fails whoever breaks it on the line that is broken."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.conformance.broken_exporters import BROKEN
from tests.integration.conformance.small_exporter import (
    Attributes,
    Interests,
    Pairs,
    SmallExporter,
    UsersAlone,
    serving,
)

from recsae.conformance.outcomes import Outcome, Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import all_checks, run
from recsae.rpc.client import channel

BAD = (Verdict.FAILED, Verdict.DOUBTFUL)


def outcomes_of(exporter: SmallExporter, timeout_s: float = 10.0) -> list[Outcome]:
    with serving(exporter) as address, channel(address) as opened:
        return list(run(GrpcService(opened, timeout_s=timeout_s)))


@pytest.mark.parametrize("kind", [SmallExporter, Interests, Pairs, Attributes, UsersAlone])
def test_whoever_keeps_the_contract_passes(kind: type[SmallExporter]) -> None:
    outcomes = outcomes_of(kind())
    assert [one for one in outcomes if one.verdict in BAD] == []
    assert sum(one.verdict == Verdict.PASSED for one in outcomes) > 40


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_exporter_fails_on_the_line_that_is_broken(kind: Any) -> None:
    exporter = kind()
    try:
        outcomes = outcomes_of(exporter, timeout_s=2.0)
    finally:
        if hasattr(exporter, "end"):
            exporter.end.set()
    bad = [one for one in outcomes if one.verdict in BAD]
    assert [one.check.name for one in bad] == [kind.found_by]
    assert all(one.asked and one.came and one.remedy for one in bad)
    needing = [one for one in outcomes if one.note.startswith("needs ")]
    assert len(outcomes) == len(all_checks())
    assert all(one.verdict == Verdict.SKIPPED for one in needing)
