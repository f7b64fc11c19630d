"""Facets say what items are; planted data holds the truth it claims."""

from __future__ import annotations

import numpy as np
import pytest

from recsae.datasets.facets import FacetSpec, FacetTable, build_facets
from recsae.datasets.planted import Planted, make_planted
from recsae.datasets.schema import Histories, ItemTable
from recsae.errors import InvalidRequestError


def items_with(titles: list[str] | None = None, **columns: list[str]) -> ItemTable:
    """Items with these columns."""
    count = len(next(iter(columns.values()))) if columns else len(titles or [])
    ids = tuple(str(number) for number in range(1, count + 1))
    return ItemTable(ids, tuple(titles) if titles else ids, {name: tuple(cells) for name, cells in columns.items()})


def taken(*counts: int) -> Histories:
    """One user who took item i + 1 counts[i] times."""
    items = np.repeat(np.arange(1, len(counts) + 1), counts)
    return Histories.from_rows(np.zeros(len(items), dtype=np.int64), items, np.arange(len(items), dtype=float), 1)


def carried(facets: FacetTable) -> dict[str, list[int]]:
    """Item indices by facet."""
    dense = facets.matrix.toarray()
    return {name: np.flatnonzero(dense[:, at]).tolist() for at, name in enumerate(facets.names)}


ONLY_COLUMNS = FacetSpec(min_items=1, title_tokens=0, popularity_bands=0)


def test_values_separated_by_bars_are_facets_of_their_own() -> None:
    facets = build_facets(items_with(genre=["Comedy|Drama", "Drama", ""]), taken(1, 1, 1), ONLY_COLUMNS)
    assert carried(facets) == {"genre=Comedy": [1], "genre=Drama": [1, 2]}
    assert facets.families == ("genre", "genre")


def test_matrix_has_a_padding_row_and_holds_zero_and_one() -> None:
    facets = build_facets(items_with(genre=["a|b|a", "b", "c"]), taken(1, 1, 1), ONLY_COLUMNS)
    assert facets.matrix.shape == (4, 3)
    assert facets.matrix.dtype == np.float32
    assert facets.matrix[0].nnz == 0
    assert set(facets.matrix.data.tolist()) == {1.0}


def test_years_become_decades_and_a_few_odd_cells_carry_none() -> None:
    years = [str(1971 + number) for number in range(30)] + ["unknown"]
    facets = build_facets(items_with(release_year=years), taken(*[1] * 31), ONLY_COLUMNS)
    assert facets.names == ("decade=1970s", "decade=1980s", "decade=1990s", "decade=2000s")
    assert carried(facets)["decade=2000s"] == [30]
    assert facets.matrix[31].nnz == 0


def test_two_columns_of_years_are_both_kept() -> None:
    years = [str(1950 + number) for number in range(20)]
    facets = build_facets(items_with(made=years, sold=years[::-1]), taken(*[1] * 20), ONLY_COLUMNS)
    assert set(facets.families) == {"decade", "sold decade"}


def test_other_numbers_are_binned_by_quantiles() -> None:
    prices = [str(number) for number in [*range(1, 10), 1000]]
    facets = build_facets(
        items_with(price=prices), taken(*[1] * 10), FacetSpec(1, numeric_bins=2, title_tokens=0, popularity_bands=0)
    )
    assert carried(facets) == {"price=1–5.5": [1, 2, 3, 4, 5], "price=5.5–1000": [6, 7, 8, 9, 10]}


def test_codes_with_few_values_stay_values() -> None:
    facets = build_facets(items_with(size=["1", "2", "1", "2"]), taken(1, 1, 1, 1), ONLY_COLUMNS)
    assert carried(facets) == {"size=1": [1, 3], "size=2": [2, 4]}


def test_title_tokens_are_frequent_words_that_say_something() -> None:
    titles = ["The Dark Night", "Dark City", "The City of Night", "Émile & the dark", "Star 2000"]
    spec = FacetSpec(min_items=2, popularity_bands=0)
    assert carried(build_facets(items_with(titles), taken(*[1] * 5), spec)) == {
        "title=city": [2, 3],
        "title=dark": [1, 2, 4],
        "title=night": [1, 3],
    }


def test_popularity_bands_are_quantiles_and_equal_counts_share_one() -> None:
    facets = build_facets(
        items_with([str(number) for number in range(8)]),
        taken(1, 5, 2, 9, 2, 7, 2, 2),
        FacetSpec(min_items=1, title_tokens=0),
    )
    bands = carried(facets)
    assert bands["popularity=band 1 of 4"] == [1]
    assert bands["popularity=band 4 of 4"] == [4, 6]
    assert [3, 5, 7, 8] in bands.values()


def test_rare_and_universal_values_are_no_facets() -> None:
    cells = ["all|rare", "all|two", "all|two"]
    facets = build_facets(items_with(tag=cells), taken(1, 1, 1), FacetSpec(2, title_tokens=0, popularity_bands=0))
    assert facets.names == ("tag=two",)


def test_columns_can_be_chosen_and_a_missing_one_is_named() -> None:
    items = items_with(genre=["a", "b"], brand=["x", "y"])
    facets = build_facets(items, taken(1, 1), FacetSpec(1, title_tokens=0, popularity_bands=0, columns=("brand",)))
    assert facets.names == ("brand=x", "brand=y")
    with pytest.raises(InvalidRequestError, match="no column 'colour', only genre, brand"):
        build_facets(items, taken(1, 1), FacetSpec(columns=("colour",)))


def test_items_without_any_facet_make_an_empty_table() -> None:
    facets = build_facets(items_with(["1", "2"]), taken(1, 1), ONLY_COLUMNS)
    assert facets.names == ()
    assert facets.matrix.shape == (3, 0)


@pytest.fixture(scope="module")
def planted() -> Planted:
    """The planted data set of the default sizes."""
    return make_planted(seed=3)


def test_planted_concepts_are_the_genre_facets(planted: Planted) -> None:
    facets = build_facets(planted.dataset.items, planted.dataset.histories)
    found = carried(facets)
    for concept, name in enumerate(planted.concept_names):
        assert found[f"genre={name}"] == np.flatnonzero(planted.concept_of_item == concept).tolist()


def test_planted_histories_hold_distinct_known_items(planted: Planted) -> None:
    histories, count = planted.dataset.histories, planted.dataset.items.count
    for user in range(histories.n_users):
        history = histories.of(user)
        assert len(set(history.tolist())) == len(history)
        assert history.min() >= 1
        assert history.max() <= count


def test_planted_users_stay_with_a_concept_and_within_those_they_like(planted: Planted) -> None:
    histories, concepts = planted.dataset.histories, planted.concept_of_interaction
    assert planted.liked[histories.users, concepts].all()
    assert set(planted.liked.sum(axis=1).tolist()) == {3}
    same_user = histories.users[1:] == histories.users[:-1]
    stayed = (concepts[1:] == concepts[:-1])[same_user].mean()
    # Stays with .85, and a third of the switches lead back: .90, less the exhausted concepts.
    assert 0.83 < stayed < 0.93
    # Chance chose 5 % of the items, an eighth of them right.
    assert 0.94 < (planted.concept_of_item[histories.items] == concepts).mean() < 0.98


def test_planted_popularity_falls_with_the_rank_in_a_concept(planted: Planted) -> None:
    counts = np.bincount(planted.dataset.histories.items, minlength=201)[1:]
    assert counts[:40].mean() > 1.5 * counts[-40:].mean()


def test_the_same_seed_plants_the_same_data() -> None:
    sizes = {"n_users": 20, "n_items": 30, "n_concepts": 3}
    first, again, other = (make_planted(seed, **sizes).dataset.fingerprint() for seed in (5, 5, 6))
    assert first == again != other


def test_more_concepts_than_items_cannot_be_planted() -> None:
    with pytest.raises(InvalidRequestError, match="3 items, 4 concepts"):
        make_planted(n_items=3, n_concepts=4)
