"""Every kind of torch model behind the SDK keeps the contract as the conformance kit reads it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.torch_exporters import backward, gru, interests, matrix, ranker, sasrec

from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.rpc.client import channel


@pytest.mark.parametrize("make", [sasrec, gru, backward, matrix, interests, ranker])
def test_no_check_of_the_kit_fails_or_doubts(make: Any) -> None:
    _, exporter = make()
    with exporter.serve() as serving, channel(f"127.0.0.1:{serving.port}") as opened:
        outcomes = list(run(GrpcService(opened, None, 20.0), exporter.name))
    assert sum(outcome.verdict is Verdict.PASSED for outcome in outcomes) > 25
    assert [one for one in outcomes if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
