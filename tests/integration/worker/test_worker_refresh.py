"""A refresh over a retrained model: the SAE goes on from the one before, turned, and concepts keep their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.origins import STABLE
from recsae.concepts.probe_set import load_probe_set
from recsae.concepts.records import ConceptStatus
from recsae.pipeline.runs import Run, RunState
from recsae.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Fleet


def dictionary_of(fleet: Fleet, run: Run) -> Dictionary:
    version = run.triple.dictionary_version
    folder = ArtifactStore(str(fleet.folder / "artifacts")).fetch("dictionary", version).folder
    probe = load_probe_set(folder)
    assert probe is not None
    assert len(probe) > 100
    return Dictionary.load(folder, version)


def test_concepts_outlive_a_retrained_model_and_the_run_says_what_became_of_them(fleet: Fleet) -> None:
    fleet.start_worker()
    cold = fleet.start_run(width=64, k=4, epochs=20, promote=True)
    first = fleet.wait_for_run(cold, lambda r: r.state is RunState.SUCCEEDED, "end of the first run")
    assert first.scores["gates.passed"] == 1
    assert not [name for name in first.scores if name.startswith("lineage.")]
    before = dictionary_of(fleet, first)
    assert before.lineage is None

    fleet.plugin.retrain()
    again = fleet.start_run(width=64, k=4, epochs=5, promote=True, warm_start=True)
    second = fleet.wait_for_run(again, lambda r: r.state is RunState.SUCCEEDED, "end of the second run")
    words = second.stage("train").detail
    assert f"warm start from SAE {first.triple.sae_version} of model version {first.triple.model_version}" in words
    assert "turned (100% of the variance explained)" in words
    after = dictionary_of(fleet, second)
    assert after.model_version != before.model_version
    assert after.lineage is not None
    assert after.lineage.ancestors == (first.triple.dictionary_version,)
    assert after.lineage.explained == pytest.approx(1, abs=1e-3)
    stable = [concept.id for concept in after.concepts if concept.origin and concept.origin.status == STABLE]
    live = [concept.id for concept in before.concepts if concept.status is not ConceptStatus.DEAD]
    assert set(stable) <= set(live)
    # Of some 900 probe rows a few latents fire on fewer than ten: these are found by their direction.
    assert len(stable) > 0.5 * len(live)
    assert len({concept.id for concept in after.concepts} & set(live)) > 0.9 * len(live)
    assert second.scores["lineage.stable"] == len(stable)
    assert second.scores["lineage.kept"] == sum(bool(fate.kept) for fate in after.lineage.fates)
    assert second.scores["lineage.false_match_rate"] < 0.05
    assert "verified concepts of the dictionary before kept" in second.stage("verify").detail
