"""The steering and debiasing studies on a small made world: what they report is there, paired and of the right sign."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.study.combinations import combination_study
from benchmarks.study.debiasing import debiasing_study
from benchmarks.study.frontiers import estimate_of
from benchmarks.study.steering import LOSSES, steering, untagged
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.completing import complete
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus, FacetLift
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.sae.codes import Codes

D, ITEMS, USERS, WIDTH, LENGTH = 12, 150, 1_200, 20, 6
FACET = "genre=Sci-Fi"


@dataclass(frozen=True)
class Sae:
    """Latents read what they write."""

    w_dec: NDArray[np.float32]
    version: str = "s" * 16
    width: int = WIDTH

    def encode(self, x: NDArray[np.float32]) -> Codes:
        z = x @ self.w_dec.T
        order = np.argsort(-z, axis=1, kind="stable")[:, :4]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(z, order, axis=1), 0).astype(np.float32))


@pytest.fixture(scope="module")
def material() -> Any:
    random = np.random.default_rng(0)
    genre = np.arange(1, ITEMS + 1) % 5
    vectors = random.normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[0] = 0
    vectors[1:][genre == 0, :2] += 1.0
    names = (FACET, "genre=War", "genre=Drama", "genre=Comedy", "genre=Horror")
    member = sparse.csr_matrix(np.concatenate([np.zeros((1, 5)), np.eye(5)[genre]]).astype(np.float32))
    w_dec = random.normal(size=(WIDTH, D)).astype(np.float32)
    w_dec[:4, :2] = 2.0
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    women = random.random(USERS) < 0.4
    x = random.normal(size=(USERS, 2, D)).astype(np.float32)
    x[women] += 1.2 * w_dec[7]
    chosen = np.argsort(-(x @ vectors[1:].T + random.gumbel(size=(USERS, 2, ITEMS))), axis=2)[:, :, 0] + 1
    items = random.integers(1, ITEMS + 1, size=(USERS, LENGTH)).astype(np.int32)
    items[:, -1] = chosen[:, 0]
    pseudonyms = tuple(f"u{user}" for user in range(USERS))
    histories = Histories(np.arange(USERS + 1) * LENGTH, items.ravel(), np.arange(USERS * LENGTH, dtype=np.float64))
    shard = SimpleNamespace(
        x=x.reshape(-1, D),
        user=np.repeat(np.arange(USERS), 2).astype(np.int32),
        position=np.tile([LENGTH - 2, LENGTH - 1], USERS).astype(np.int32),
    )
    concepts = tuple(
        ConceptRecord(
            f"c-{latent}",
            latent,
            label=f"Concept {latent}",
            status=ConceptStatus.UNVERIFIED,
            output_facets=(FacetLift(FACET, 2.0, 1.0),) if latent < 4 else (),
        )
        for latent in range(WIDTH)
    )
    arrays = ConceptArrays(*(np.full(WIDTH, value, np.float32) for value in (0.5, 1.0, 2.0, 0.6, 0.1)))
    inputs = SimpleNamespace(
        shards=[shard],
        histories=histories,
        pseudonyms=pseudonyms,
        parts=np.append(split_users(pseudonyms), np.int8(0)),
        facets=FacetTable(names, ("genre",) * 5, member),
    )
    return SimpleNamespace(
        inputs=inputs,
        split=SimpleNamespace(test=chosen[:, 1].astype(np.int32), train=histories),
        sae=Sae(w_dec),
        dictionary=Dictionary("", "m", "s", concepts, arrays, {}),
        item_vectors=vectors,
        item_bias=np.zeros(ITEMS + 1, np.float32),
        dataset=SimpleNamespace(users=SimpleNamespace(columns={"gender": ["F" if one else "M" for one in women]})),
    )


def test_a_facet_is_reported_with_its_frontier_nulls_and_every_baseline(material: Any) -> None:
    found = steering(material, (FACET, "genre=Unknown"))
    (facts,) = found.facets
    wanted = {"facet", "dlogodds", "loss", "loss_upper", "out_of_facet_loss", "off_target_excess", "null_percentile"}
    assert wanted <= set(facts)
    assert facts["dlogodds"] > 0
    assert facts["loss"] == pytest.approx(0.02, abs=0.02)
    assert facts["loss_upper"] > facts["loss"]
    assert facts["null_percentile"] > 0.8
    assert {"handle", "single", "difference_of_means", "tag"} <= set(facts["frontier"])
    assert set(facts["at_loss"]) == set(found.mean) == {f"{loss:.0%}" for loss in LOSSES}
    assert json.loads(json.dumps(facts)) == facts, "plain numbers only"


def test_one_facet_is_its_own_mean_and_a_method_paired_with_itself_differs_by_nothing(material: Any) -> None:
    found = steering(material, (FACET,))
    assert found.mean == found.facets[0]["at_loss"]
    assert estimate_of(np.zeros(10)) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_concepts_without_a_facet_are_those_no_tag_steers_by(material: Any) -> None:
    assert untagged(material) == {"live": WIDTH, "untagged": WIDTH - 4, "share": round(1 - 4 / WIDTH, 4)}


def test_debiasing_raises_the_long_tail_and_hides_gender_at_a_stated_loss(material: Any) -> None:
    found = debiasing_study(material)
    plain = found["popularity"]["unsteered"]["tail_share"]
    for method in ("concepts", "reranking"):
        assert found["popularity"][method]["at_loss"]["5%"]["tail_share"] > plain
    gender = found["gender"]
    assert gender["unsteered"]["probe_auc"] > 0.6
    assert gender["projected"]["probe_auc"] < gender["unsteered"]["probe_auc"] - 0.05
    assert gender["equalised"]["probe_auc"] < gender["unsteered"]["probe_auc"] - 0.05
    assert gender["unsteered"]["ndcg_kept"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert json.loads(json.dumps(found)) == found


def test_combinations_report_what_several_cost_beside_their_summed_bounds(material: Any) -> None:
    found = combination_study(material, draws=20)
    assert found["measured"] == WIDTH
    for name, facts in found.items():
        if name.endswith("concepts"):
            assert facts["mean_loss"] <= facts["mean_summed_bound"]


def test_a_dictionary_is_completed_with_effects_and_handles_and_stays_as_it_was_without_targets(material: Any) -> None:
    inputs = SimpleNamespace(**vars(material.inputs), sae=material.sae, seed=0)
    head, rows, targets = Head(material.item_vectors), material.inputs.shards, material.split.test
    done = complete(material.dictionary, inputs, head, rows, targets)  # type: ignore[arg-type]
    assert all(one.causal is not None for one in done.dictionary.concepts)
    assert [one.facet for one in done.dictionary.handles] == [FACET]
    assert done.dictionary.summary["causal"] == done.facts
    assert (done.facts["measured"], done.facts["handles"]) == (WIDTH, 1)
    verifies = inputs.parts[:-1] == UserPart.VERIFICATION
    constructed = complete(material.dictionary, inputs, head, rows, np.where(verifies, 0, targets))  # type: ignore[arg-type]
    assert constructed.facts["measured"] == done.facts["measured"]
    assert not [name for name in constructed.facts if name.startswith("deletion")]
    few = complete(material.dictionary, inputs, head, rows, targets, most=3)  # type: ignore[arg-type]
    assert sum(one.causal is not None for one in few.dictionary.concepts) == 3
    none = complete(material.dictionary, inputs, head, rows, np.zeros_like(targets))  # type: ignore[arg-type]
    assert none.dictionary is material.dictionary
    assert "not measured: no user" in none.detail
