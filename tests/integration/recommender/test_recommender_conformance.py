"""RecSAE's own recommender keeps the contract it asks of others, with a model of every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import run
from recsae.datasets.schema import save_dataset
from recsae.recommenders.bundle import publish_bundle
from recsae.recommenders.families.table import FAMILIES
from recsae.recommenders.synthetic import tiny_dataset, tiny_family_bundle
from recsae.rpc.client import channel
from recsae.store.artifacts import ArtifactStore
from recsae_recommender.app import RecommenderApp

NEEDS_AN_INTERPRETER = {"steering.receipts", "steering.unsteered", "steering.ranked"}
# All rows that 4,096 histories of a small model can have fit an answer, and an answer of these models carries no more
# than activations.
FITS = {"refusals.rows", "ranking.passthrough"}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a recommender with an untrained model of every family and their users' histories."""
    root, histories = tmp_path_factory.mktemp("artifacts"), tmp_path_factory.mktemp("histories")
    save_dataset(tiny_dataset(), histories)
    versions = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family.name)
        tiny_family_bundle(family.name, folder)
        versions[family.name] = publish_bundle(ArtifactStore(str(root)), folder)
    models = ",".join(f"{name}={version}" for name, version in versions.items())
    return {"artifacts": str(root), "models": models, "history": f"file:{histories}"}


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_a_model_of_every_family_passes_every_check_that_applies(
    start_recommender: Callable[..., RecommenderApp], families: dict[str, str], name: str
) -> None:
    app = start_recommender(**families)
    with channel(f"127.0.0.1:{app.server.port}") as opened:
        outcomes = {one.check.name: one for one in run(GrpcService(opened), name)}
    assert [one for one in outcomes.values() if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
    skipped = {check for check, one in outcomes.items() if one.verdict == Verdict.SKIPPED}
    assert outcomes["pages.users"].verdict == Verdict.PASSED
    assert skipped <= NEEDS_AN_INTERPRETER | FITS | not_for(name)


def not_for(name: str) -> set[str]:
    """Checks that a family's models have nothing to show for."""
    one_hook, no_attributes = {"activations.other-hooks"}, {"subjects.attributes"}
    opaque = {"items.vectors", "ranking.scores"}
    last_alone = {f"positions.{check}" for check in ("order", "last", "prefix", "long")}
    reads_no_history = last_alone | {f"activations.{check}" for check in ("newest", "unknown-items", "empty")}
    return (
        one_hook
        | no_attributes
        | {
            "comirec": opaque,
            "bpr": reads_no_history | {"subjects.same"},
            "lightgcn": reads_no_history | {"subjects.same"},
            "deepfm": opaque | last_alone,
            "din": opaque | last_alone,
        }.get(name, set())
    )


def test_the_models_of_a_server_are_tested_by_name(
    start_recommender: Callable[..., RecommenderApp], families: dict[str, str]
) -> None:
    app = start_recommender(**families)
    with channel(f"127.0.0.1:{app.server.port}") as opened:
        tested = {name: next(run(GrpcService(opened), name)).note for name in ("", FAMILIES[-1].name)}
    assert tested[""].startswith(f"{FAMILIES[0].name} ")
    assert tested[FAMILIES[-1].name].startswith(f"{FAMILIES[-1].name} ")
