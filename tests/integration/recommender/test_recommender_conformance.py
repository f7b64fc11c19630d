"""RecSAE's own recommender keeps the contract it asks of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.rpc.client import channel
from recsae_recommender.app import RecommenderApp

NOT_FOR_THIS_MODEL = {"activations.other-hooks", "subjects.attributes", "ranking.passthrough"}
NEEDS_AN_INTERPRETER = {"steering.receipts", "steering.unsteered", "steering.ranked"}
FITS = {"refusals.rows"}


@pytest.mark.parametrize("model", ["", "tiny-other"])
def test_our_recommender_passes_every_check_that_applies(
    start_recommender: Callable[..., RecommenderApp], model: str
) -> None:
    app = start_recommender()
    with channel(f"127.0.0.1:{app.server.port}") as opened:
        outcomes = list(run(GrpcService(opened), model))
    assert [one for one in outcomes if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
    skipped = {one.check.name for one in outcomes if one.verdict == Verdict.SKIPPED}
    assert skipped <= NOT_FOR_THIS_MODEL | NEEDS_AN_INTERPRETER | FITS
