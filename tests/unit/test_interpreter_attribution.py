"""Attribution of a head that is no dot product: by removal, through the recommender; and what cannot be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsae.concepts.attribution import refusal
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights
from recsae.store.artifacts import ArtifactStore
from recsae_interpreter.handlers.attribute import Firing, ItemAttributor
from recsae_interpreter.loading import LoadedTriple, load_triple
from recsae_interpreter.recommender import ItemTable, Row, Rows, ScoredItem

_D, _WIDTH, _K, _ITEMS = 8, 20, 4, 15
_MODEL_VERSION = "a" * 16
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TwoLayers:
    """A recommender in memory whose head has a bend: scores are no dot product of item vectors. `bend` 0 = none."""

    vectors: Floats
    bend: float

    def scores(self, x: Floats) -> Floats:
        plain = x @ self.vectors.T
        return np.asarray(plain + self.bend * np.tanh(plain) ** 2, np.float32)

    def embed(self, model: str, user_id: str, history: Sequence[str] | None, deadline: Deadline) -> Row:
        raise NotImplementedError

    def embed_histories(
        self, model: str, model_version: str, histories: Sequence[Sequence[str]], deadline: Deadline
    ) -> Rows:
        raise NotImplementedError

    def rank(
        self, row: Row, activations: Floats, *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        wanted = [int(item) for item in candidates] or list(range(_ITEMS))
        lists = []
        for scores in self.scores(activations):
            best = sorted(wanted, key=lambda item: -float(scores[item]))[:k]
            lists.append([ScoredItem(str(item), float(scores[item]), f"Item {item}") for item in best])
        return lists

    def items(self, row: Row, deadline: Deadline) -> ItemTable | None:
        return None


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedTriple:
    rng = np.random.default_rng(0)
    store = ArtifactStore(str(tmp_path / "store"))
    w_dec = rng.normal(size=(_WIDTH, _D)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(_D, np.float32)
    export_sae(
        SaeWeights(w_dec, np.zeros(_WIDTH, np.float32), w_dec, zeros, zeros),
        _K,
        TrainingFacts(error_p99=0.4, mean_norm=1.0),
        tmp_path / "sae",
    )
    config = {"hook": "sequence", "model": "bent"}
    sae_version = store.publish("sae", tmp_path / "sae", config=config, lineage={"model": _MODEL_VERSION})
    ones = np.ones(_WIDTH, np.float32)
    concepts = tuple(ConceptRecord(f"c{latent}", latent, status=ConceptStatus.VERIFIED) for latent in range(_WIDTH))
    (tmp_path / "dictionary").mkdir()
    Dictionary("", _MODEL_VERSION, sae_version, concepts, ConceptArrays(ones, ones, ones, ones, ones), {}).save(
        tmp_path / "dictionary"
    )
    lineage = {"model": _MODEL_VERSION, "sae": sae_version}
    version = store.publish("dictionary", tmp_path / "dictionary", config=config, lineage=lineage)
    return load_triple(store, "bent", Triple(_MODEL_VERSION, sae_version, version))


def explained_row(loaded: LoadedTriple) -> tuple[Row, list[Firing]]:
    x = np.random.default_rng(3).normal(size=_D).astype(np.float32)
    codes = loaded.sae.encode(x[None])
    pairs = zip(codes.indices[0].tolist(), codes.values[0].tolist(), strict=True)
    firings = [Firing(loaded.dictionary.by_latent(latent), value, value) for latent, value in pairs if value > 0]
    return Row("bent", _MODEL_VERSION, x), firings


@pytest.mark.parametrize("bend", [0.0, 1.5])
def test_parts_are_what_the_score_loses_and_sum_to_it_whatever_the_head(loaded: LoadedTriple, bend: float) -> None:
    vectors = np.random.default_rng(1).normal(size=(_ITEMS, _D)).astype(np.float32)
    recommender = TwoLayers(vectors, bend)
    row, firings = explained_row(loaded)
    found = ItemAttributor(recommender).attribute(loaded, row, firings, len(firings), 5, Deadline())
    assert len(found) == 5
    for one in found:
        item = int(one.item.item_id)
        total = one.catalogue_mean + one.base + sum(part.score for part in one.contributions) + one.other
        assert total + one.unexplained == pytest.approx(one.item.score, abs=1e-4)
        for firing in firings:
            part = next(part for part in one.contributions if part.concept_id == firing.concept.id)
            without = row.activation - firing.value * loaded.sae.w_dec[firing.concept.latent]
            lost = recommender.scores(row.activation[None])[0, item] - recommender.scores(without[None])[0, item]
            assert part.score == pytest.approx(float(lost), abs=1e-4)
        assert sum(part.share for part in one.contributions) <= 1


def test_of_a_straight_head_removal_tells_the_exact_contribution(loaded: LoadedTriple) -> None:
    vectors = np.random.default_rng(1).normal(size=(_ITEMS, _D)).astype(np.float32)
    row, firings = explained_row(loaded)
    for one in ItemAttributor(TwoLayers(vectors, 0.0)).attribute(loaded, row, firings, len(firings), 3, Deadline()):
        for firing in firings:
            part = next(part for part in one.contributions if part.concept_id == firing.concept.id)
            exact = firing.value * float(loaded.sae.w_dec[firing.concept.latent] @ vectors[int(one.item.item_id)])
            assert part.score == pytest.approx(exact, abs=1e-4)


def test_concepts_beyond_those_named_are_left_to_the_unexplained_part(loaded: LoadedTriple) -> None:
    vectors = np.random.default_rng(1).normal(size=(_ITEMS, _D)).astype(np.float32)
    row, firings = explained_row(loaded)
    found = ItemAttributor(TwoLayers(vectors, 1.5)).attribute(loaded, row, firings, 1, 2, Deadline())
    assert [len(one.contributions) for one in found] == [1, 1]
    for one in found:
        assert one.contributions[0].score + one.unexplained == pytest.approx(one.item.score, abs=1e-4)


def test_one_row_in_a_hundred_like_those_of_training_is_refused() -> None:
    """The limit is the 99th percentile of training errors: 1 % of such rows are refused, and a sentence says why."""
    errors = np.random.default_rng(5).exponential(0.05, 20_000)
    limit = float(np.percentile(errors, 99))
    refused = [bool(refusal(float(error), limit)) for error in errors]
    assert np.mean(refused) == pytest.approx(0.01, abs=0.001)
    assert "more than the 99th percentile in training" in refusal(2 * limit, limit)
