"""Effects of concepts in a small world where one latent promotes a genre, one nothing special, one never fires."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.measuring import Effects, measure
from recsae.concepts.causal.output_sets import labels_agree
from recsae.concepts.causal.panel import Panel, build_panel, panel_users
from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus, FacetLift, LiteralRecord, RuleRecord
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.errors import FailedPreconditionError
from recsae.sae.codes import Codes

D, ITEMS, USERS, WIDTH = 12, 120, 500, 40
HORROR, NOISE, SILENT, DEAD = 0, 1, 2, WIDTH - 1


@dataclass(frozen=True)
class Sae:
    """Latent j reads and writes direction j; the last ones never fire."""

    w_dec: NDArray[np.float32]
    version: str = "s" * 16
    width: int = WIDTH

    def encode(self, x: NDArray[np.float32]) -> Codes:
        z = x @ self.w_dec.T
        z[:, SILENT] = 0
        order = np.argsort(-z, axis=1, kind="stable")[:, :4]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(z, order, axis=1), 0).astype(np.float32))


@dataclass(frozen=True)
class Shard:
    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


@pytest.fixture(scope="module")
def world() -> tuple[Panel, Head, FacetTable, Sae, Dictionary]:
    random = np.random.default_rng(0)
    genre = np.arange(1, ITEMS + 1) % 4
    vectors = random.normal(size=(ITEMS + 1, D)).astype(np.float32)
    vectors[:, 0] = 0
    vectors[1:][genre == 0, 0] = 1.5
    member = sparse.csr_matrix(np.concatenate([np.zeros((1, 4)), np.eye(4)[genre]]).astype(np.float32))
    facets = FacetTable(("genre=Horror", "genre=War", "genre=Drama", "genre=Comedy"), ("genre",) * 4, member)
    w_dec = random.normal(size=(WIDTH, D)).astype(np.float32)
    w_dec[HORROR] = np.eye(D)[0]
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    x = random.normal(size=(USERS, D)).astype(np.float32)
    scores = x @ vectors[1:].T
    target = 1 + np.argsort(-scores + random.gumbel(size=scores.shape), axis=1)[:, 0]
    panel = Panel(x, np.arange(USERS), np.arange(USERS) % 2 == 0, target, np.zeros(USERS + 1, np.int64),
                  np.zeros(0, np.int64), "f" * 16)  # fmt: skip
    concepts = tuple(
        ConceptRecord(
            f"c-{latent}",
            latent,
            status=ConceptStatus.DEAD if latent == DEAD else ConceptStatus.UNVERIFIED,
            output_facets=(FacetLift("genre=Horror", 3.0, 2.0),) if latent == HORROR else (),
        )
        for latent in range(WIDTH)
    )
    arrays = ConceptArrays(*(np.full(WIDTH, value, np.float32) for value in (0.5, 1.0, 2.0, 0.6, 0.1)))
    return panel, Head(vectors), facets, Sae(w_dec), Dictionary("", "m", "s", concepts, arrays, {})


@pytest.fixture(scope="module")
def found(world: tuple[Panel, Head, FacetTable, Sae, Dictionary]) -> Effects:
    return measure(*world)


def test_every_live_concept_is_measured_and_the_dead_one_is_not(found: Effects) -> None:
    assert found.measured == found.live == WIDTH - 1
    assert DEAD not in found.records


def test_adding_a_genre_concept_raises_the_share_of_its_genre_more_than_others_would(found: Effects) -> None:
    record = found.records[HORROR]
    added = {one.dose: one for one in record.doses if one.operation == "add"}
    assert record.facet == "genre=Horror"
    assert added[0.5].facet_log_odds.low > 0 > added[-0.5].facet_log_odds.high
    assert added[1.0].facet_log_odds.value > added[0.5].facet_log_odds.value
    assert record.null_percentile > 0.9
    assert record.direction_percentile > 0.9
    assert added[2.0].lists_changed > added[0.1].lists_changed


def test_what_a_steered_list_gains_inside_the_facet_it_loses_outside(found: Effects) -> None:
    dose = next(one for one in found.records[HORROR].doses if (one.operation, one.dose) == ("add", 1.0))
    assert dose.ndcg_kept_inside.value > dose.ndcg_kept_outside.value
    assert dose.ndcg_kept_outside.high < 1


def test_operations_that_read_a_latent_which_never_fires_change_nothing(found: Effects) -> None:
    record = found.records[SILENT]
    for one in record.doses:
        if one.operation in ("ablate", "scale", "cap"):
            assert one.lists_changed == 0
            assert one.ndcg_kept.value == pytest.approx(1)
            assert one.loss_upper == pytest.approx(0, abs=1e-6)
    assert not record.safe_range("ablate").empty  # type: ignore[union-attr]


def test_set_adds_where_nothing_fires(found: Effects) -> None:
    record = found.records[SILENT]
    by_dose = {(one.operation, one.dose): one for one in record.doses}
    assert by_dose["set", 0.5].ndcg_kept == by_dose["add", 0.5].ndcg_kept
    assert by_dose["set", 0.5].facet_share == by_dose["add", 0.5].facet_share


def test_added_strength_survives_encoding_where_the_latent_reads_what_it_writes(found: Effects) -> None:
    strong = next(one for one in found.records[HORROR].doses if (one.operation, one.dose) == ("add", 2.0))
    silent = next(one for one in found.records[SILENT].doses if (one.operation, one.dose) == ("add", 2.0))
    assert 0.5 < strong.survives <= 1.5
    assert silent.survives == 0


def test_only_the_concepts_with_the_most_mass_are_measured_when_asked_for_few(
    world: tuple[Panel, Head, FacetTable, Sae, Dictionary],
) -> None:
    panel, head, facets, sae, dictionary = world
    density = dictionary.arrays.density.copy()
    density[[5, 9]] = 0.5
    heavy = replace(dictionary, arrays=replace(dictionary.arrays, density=density))
    few = measure(panel, head, facets, sae, heavy, most=2)
    assert set(few.records) == {5, 9}
    assert few.live == WIDTH - 1


def test_labels_agree_when_input_and_output_name_one_facet() -> None:
    out = (FacetLift("genre=Horror", 2.0, 1.0),)
    asks = RuleRecord((LiteralRecord("", "recent", "genre=Horror", 0.3),))
    refuses = RuleRecord(
        (LiteralRecord("", "recent", "genre=War", 0.3), LiteralRecord("and not", "last", "genre=Horror", 0))
    )
    assert labels_agree(ConceptRecord("c", 0, rule=asks, output_facets=out))
    assert not labels_agree(ConceptRecord("c", 0, rule=refuses, output_facets=out))
    assert labels_agree(ConceptRecord("c", 0, input_facets=out, output_facets=out))


def test_the_panel_is_the_same_users_whatever_else_there_is_and_none_the_sae_saw() -> None:
    names = [f"u{number}" for number in range(3_000)]
    parts = split_users(names)
    everyone = np.ones(3_000, bool)
    chosen = panel_users(names, parts, everyone, most=500)
    assert len(chosen) == 500
    assert (parts[chosen] != UserPart.SAE).all()
    fewer = everyone.copy()
    fewer[chosen[0]] = False
    again = panel_users(names, parts, fewer, most=500)
    assert len(set(chosen.tolist()) - set(again.tolist())) == 1
    assert {UserPart.CONSTRUCTION, UserPart.VERIFICATION} == set(parts[chosen].tolist())


def test_a_panel_row_is_the_newest_activation_with_what_was_consumed_and_what_follows() -> None:
    lengths = np.array([2, 3, 1])
    histories = Histories(np.array([0, 2, 5, 6]), np.array([4, 5, 6, 7, 8, 9], np.int32), np.arange(6.0))
    users = np.repeat(np.arange(3), lengths).astype(np.int32)
    position = np.array([0, 1, 0, 1, 2, 0], np.int32)
    shard = Shard(np.arange(6, dtype=np.float32)[:, None], users, position, histories.items)
    parts = np.array([UserPart.CONSTRUCTION, UserPart.VERIFICATION, UserPart.SAE], np.int8)
    panel = build_panel([shard], histories, np.array([1, 2, 3], np.int32), ["a", "b", "c"], parts)
    assert panel.x[:, 0].tolist() == [1, 4]
    assert panel.target.tolist() == [1, 2]
    assert panel.verifies.tolist() == [False, True]
    assert [panel.consumed[a:b].tolist() for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)] == [
        [4, 5],
        [6, 7, 8],
    ]
    only = panel.of(panel.verifies)
    assert (only.consumed.tolist(), only.offsets.tolist()) == ([6, 7, 8], [0, 3])


def test_without_a_user_to_measure_on_the_panel_is_refused() -> None:
    histories = Histories(np.array([0, 1]), np.array([1], np.int32), np.zeros(1))
    with pytest.raises(FailedPreconditionError, match="collect from more users"):
        build_panel([], histories, np.zeros(1, np.int32), ["a"], np.array([UserPart.VERIFICATION], np.int8))
