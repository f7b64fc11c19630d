"""Described NDCG is 1 where words say everything, 0 where they say nothing; the linear rival pays for every number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts import linear_facets
from recsae.concepts.described import DescribedNdcg, Descriptions, RankedRows, described_ndcg, permute_rules, set_levels
from recsae.concepts.features import RowFeatures, Windows
from recsae.concepts.linear_facets import LinearFacets, fit_linear, rule_bits
from recsae.concepts.records import LiteralRecord, RuleRecord
from recsae.datasets.facets import FacetTable
from recsae.recommenders.metrics import NOWHERE
from recsae.sae.codes import Codes
from recsae.sae.dot_product import DotProductRanker
from recsae.sae.rankings import Rankings

Floats = NDArray[np.float32]

WIDTH, D, ROWS = 6, 8, 900


@dataclass(frozen=True)
class OneLatentEach:
    """Row r fires latent `fires[r]` at strength 2: an SAE whose codes are known."""

    w_dec: NDArray[np.float32]
    b_dec: NDArray[np.float32]
    width: int = WIDTH

    def encode(self, x: NDArray[np.float32]) -> Codes:
        latent = (x @ self.w_dec.T).argmax(axis=1)[:, None].astype(np.int32)
        return Codes(latent, np.full(latent.shape, 2.0, np.float32))

    def decode(self, codes: Codes) -> NDArray[np.float32]:
        return np.asarray((codes.values[:, :, None] * self.w_dec[codes.indices]).sum(axis=1) + self.b_dec)


@dataclass(frozen=True)
class World:
    """Item i has facet i; the newest item of a row says which latent fires and which item follows."""

    sae: OneLatentEach
    features: RowFeatures
    x: NDArray[np.float32]
    values: sparse.csr_matrix
    rank: DotProductRanker
    item_ids: tuple[str, ...]


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(0)
    w_dec = np.linalg.qr(rng.normal(size=(D, D)))[0][:WIDTH].astype(np.float32)
    sae = OneLatentEach(w_dec, np.zeros(D, np.float32))
    newest = rng.integers(1, WIDTH + 1, ROWS).astype(np.int32)
    facets = FacetTable(
        tuple(f"kind={item}" for item in range(1, WIDTH + 1)),
        ("kind",) * WIDTH,
        sparse.csr_matrix(np.eye(WIDTH + 1, WIDTH, k=-1, dtype=np.float32)),
    )
    features = RowFeatures(
        Windows(newest, np.arange(ROWS), np.arange(1, ROWS + 1)), facets, np.zeros(WIDTH + 1, np.float32)
    )
    x = 2 * w_dec[newest - 1]
    values = sparse.csr_matrix((np.full(ROWS, 2.0, np.float32), (newest - 1, np.arange(ROWS))), shape=(WIDTH, ROWS))
    # Fifty items: the one that follows kind i points where latent i does, the others point nowhere near.
    vectors = np.concatenate([w_dec, 0.1 * rng.normal(size=(44, D))]).astype(np.float32)
    ids = tuple(f"i{item}" for item in range(1, WIDTH + 1))
    return World(sae, features, x, values, DotProductRanker(vectors, newest - 1), ids)


def right_rules() -> tuple[RuleRecord, ...]:
    return tuple(
        RuleRecord((LiteralRecord("", "last", f"kind={item}", 1.0),), levels=(0.0, 1.0)) for item in range(1, WIDTH + 1)
    )


def scored(world: World, rules: tuple[RuleRecord, ...]) -> DescribedNdcg:
    found = maybe_scored(world, rules, world.rank)
    assert found is not None
    return found


def maybe_scored(
    world: World, rules: tuple[RuleRecord, ...], rank: Callable[[Floats], Rankings]
) -> DescribedNdcg | None:
    p95 = np.full(WIDTH, 2.0, np.float32)
    told = Descriptions(
        rules=rules,
        permuted=permute_rules(rules, world.features, world.values, p95),
        sets=tuple(RuleRecord() for _ in range(WIDTH)),
        shows_set=np.zeros(WIDTH, bool),
        silent=np.full(WIDTH, 1 / WIDTH, np.float32),
        p95=p95,
        linear=LinearFacets(np.zeros(0, np.int64), np.zeros((0, D), np.float32), world.x.mean(axis=0)),
        bits=rule_bits(rules, 12),
    )
    rows = RankedRows(world.sae, world.x, np.arange(ROWS) // 3, world.features, rank)
    return described_ndcg(told, rows, world.item_ids)


def test_descriptions_that_say_it_all_keep_it_all(world: World) -> None:
    found = scored(world, right_rules())
    assert found.kept["sae"].value == pytest.approx(1.0)
    assert found.kept["described"].value == pytest.approx(1.0)
    assert found.score.value == pytest.approx(1.0)
    assert found.score.low > 0.95
    assert found.overlap["described"].value == pytest.approx(1.0)


def test_descriptions_of_nothing_score_nothing(world: World) -> None:
    found = scored(world, tuple(RuleRecord() for _ in range(WIDTH)))
    assert found.kept["described"].value == pytest.approx(found.kept["permuted"].value)
    assert found.score.value == pytest.approx(0.0)


def test_a_model_that_finds_no_target_has_nothing_for_descriptions_to_keep(world: World) -> None:
    def finds_none(x: Floats) -> Rankings:
        return Rankings(np.full(len(x), NOWHERE), world.rank(x).items)

    assert maybe_scored(world, right_rules(), finds_none) is None


def test_descriptions_of_other_users_keep_less(world: World) -> None:
    found = scored(world, right_rules())
    assert found.kept["shuffled"].high < found.kept["described"].low


def test_permuted_rules_are_fitted_to_the_latents_they_are_given_to(world: World) -> None:
    rules = right_rules()
    permuted = permute_rules(rules, world.features, world.values, np.full(WIDTH, 2.0, np.float32), seed=1)
    assert {rule.literals for rule in permuted} == {rule.literals for rule in rules}
    moved = [at for at in range(WIDTH) if permuted[at].literals != rules[at].literals]
    assert moved
    for at in moved:
        without, with_it = permuted[at].levels
        assert with_it < 0.1 < without


def test_levels_of_a_set_are_the_mean_strengths_without_and_with_it(world: World) -> None:
    sets = [RuleRecord(item_ids=("i1", "i2"), window=1), *(RuleRecord() for _ in range(WIDTH - 1))]
    found = set_levels(sets, world.features, world.values, np.full(WIDTH, 2.0, np.float32), world.item_ids)
    assert found[0].levels == pytest.approx((0.0, 0.5), abs=0.05)
    assert found[1].levels == ()


def test_a_linear_map_with_enough_bits_equals_least_squares(world: World) -> None:
    fitted = fit_linear(world.features, world.x, bits=1e6)
    assert np.abs(fitted.predict(world.features) - world.x).mean() < 0.2 * np.abs(world.x).mean()


def test_a_linear_map_buys_no_more_features_than_its_bits_pay_for(world: World) -> None:
    per_feature = np.log2(4 * WIDTH) + 8 * D
    fitted = fit_linear(world.features, world.x, bits=8 * D + 2.5 * per_feature)
    assert len(fitted.columns) == 2
    assert len(fit_linear(world.features, world.x, bits=0.0).columns) == 0


def test_of_very_many_columns_a_linear_map_looks_at_the_most_varied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = fit_linear(world.features, world.x, bits=1e6)
    monkeypatch.setattr(linear_facets, "_MOST_COLUMNS", 2)
    few = fit_linear(world.features, world.x, bits=1e6)
    assert 0 < len(few.columns) <= 2 < len(every.columns)
    views = np.concatenate([world.features.shares(10, 0.75), world.features.shares(40, 1.0)], axis=1)
    views = np.concatenate([views, world.features.carried(0), world.features.carried(1)], axis=1)
    most_varied = np.argsort(-views.var(axis=0))[:2]
    assert set(few.columns.tolist()) <= set(most_varied.tolist())


def test_bits_of_rules_count_questions_formulas_and_levels() -> None:
    one = RuleRecord((LiteralRecord("", "last", "a", 1.0),), levels=(0.0, 1.0))
    assert rule_bits([one], 1024) == pytest.approx(10 + 0 + 16)
    assert rule_bits([RuleRecord()], 1024) == pytest.approx(8)
