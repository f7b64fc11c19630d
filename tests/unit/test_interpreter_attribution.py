"""Attribution of a head that is no dot product: by removal, through the recommender; and what cannot be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.toy_interpreter import IDS, MODEL_VERSION, VECTORS, D, ToyRecommender, library_of, publish

from recsae.concepts.attribution import refusal
from recsae.rpc.deadline import Deadline
from recsae_interpreter.handlers.attribute import Attribution, Firing, ItemAttributor
from recsae_interpreter.loading import LoadedTriple
from recsae_interpreter.readings import ItemTable, Reading

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TwoLayers(ToyRecommender):
    """A recommender whose head has a bend: scores are no dot product of item vectors. `bend` 0 = none."""

    bend: float = 0.0

    def scores(self, x: Floats) -> Floats:
        plain = (x @ VECTORS.T)[0]
        return np.asarray(plain + self.bend * np.tanh(plain) ** 2, np.float32)

    def items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        return None


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedTriple:
    return library_of(tmp_path, {"bent": publish(tmp_path, "bent", error_p99=0.4)}).model("bent")


def explained(loaded: LoadedTriple) -> tuple[Reading, list[Firing]]:
    x = np.random.default_rng(3).normal(size=(1, D)).astype(np.float32)
    codes = loaded.sae.encode(x)
    pairs = zip(codes.indices[0].tolist(), codes.values[0].tolist(), strict=True)
    firings = [
        Firing(loaded.dictionary.by_latent(latent), value, value, {0: value}) for latent, value in pairs if value > 0
    ]
    return Reading("bent", MODEL_VERSION, x), firings


def attributed(
    loaded: LoadedTriple, recommender: TwoLayers, reading: Reading, firings: Sequence[Firing], named: int, k: int
) -> tuple[Attribution, ...]:
    every = np.ones(1, np.bool_)
    return ItemAttributor(recommender).attribute(loaded, reading, every, firings, named, k, Deadline())


@pytest.mark.parametrize("bend", [0.0, 1.5])
def test_parts_are_what_the_score_loses_and_sum_to_it_whatever_the_head(loaded: LoadedTriple, bend: float) -> None:
    recommender = TwoLayers(bend=bend)
    reading, firings = explained(loaded)
    found = attributed(loaded, recommender, reading, firings, len(firings), 5)
    assert len(found) == 5
    for one in found:
        item = IDS.index(one.item.item_id)
        total = one.catalogue_mean + one.base + sum(part.score for part in one.contributions) + one.other
        assert total + one.unexplained == pytest.approx(one.item.score, abs=1e-4)
        for firing in firings:
            part = next(part for part in one.contributions if part.concept_id == firing.concept.id)
            without = reading.activations - firing.value * loaded.sae.w_dec[firing.concept.latent]
            lost = recommender.scores(reading.activations)[item] - recommender.scores(without)[item]
            assert part.score == pytest.approx(float(lost), abs=1e-4)
        assert sum(part.share for part in one.contributions) <= 1


def test_of_a_straight_head_removal_tells_the_exact_contribution(loaded: LoadedTriple) -> None:
    reading, firings = explained(loaded)
    for one in attributed(loaded, TwoLayers(), reading, firings, len(firings), 3):
        for firing in firings:
            part = next(part for part in one.contributions if part.concept_id == firing.concept.id)
            exact = firing.value * float(loaded.sae.w_dec[firing.concept.latent] @ VECTORS[IDS.index(one.item.item_id)])
            assert part.score == pytest.approx(exact, abs=1e-4)


def test_concepts_beyond_those_named_are_left_to_the_unexplained_part(loaded: LoadedTriple) -> None:
    reading, firings = explained(loaded)
    found = attributed(loaded, TwoLayers(bend=1.5), reading, firings, 1, 2)
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
