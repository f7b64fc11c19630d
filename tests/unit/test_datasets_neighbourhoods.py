"""Groups of items are found by who is consumed together, and become facets beside attributes and pairs of them."""

from __future__ import annotations

import numpy as np

from recsae.datasets.facets import FacetSpec, build_facets
from recsae.datasets.neighbourhoods import neighbourhoods
from recsae.datasets.schema import Histories, ItemTable

_ITEMS = 120


def make_histories(groups: int = 4, users: int = 300, length: int = 20) -> Histories:
    """Everybody keeps to one group of items, item i in group i mod `groups`."""
    rng = np.random.default_rng(0)
    items = [
        rng.choice(np.arange(1, _ITEMS // groups + 1), length, replace=False) * groups - user % groups
        for user in range(users)
    ]
    owner = np.repeat(np.arange(users), length)
    return Histories.from_rows(owner, np.concatenate(items), np.tile(np.arange(length, dtype=float), users), users)


def test_items_consumed_together_are_one_group() -> None:
    found = neighbourhoods(make_histories(), _ITEMS, groups=4)
    assert len(found) == 4
    for group in found:
        assert len(np.unique(group.members % 4)) == 1
        assert len(group.members) == _ITEMS // 4


def test_groups_are_the_same_again() -> None:
    one, two = (neighbourhoods(make_histories(), _ITEMS, groups=4, seed=3) for _ in range(2))
    assert [group.members.tolist() for group in one] == [group.members.tolist() for group in two]


def test_few_items_make_few_groups_and_too_few_none() -> None:
    assert len(neighbourhoods(make_histories(), _ITEMS, groups=96)) <= _ITEMS // 15
    short = make_histories(users=2)
    assert neighbourhoods(short, _ITEMS, groups=4) == ()


def test_people_who_take_one_thing_each_make_no_groups() -> None:
    users = 600
    alone = np.arange(users) % _ITEMS + 1
    histories = Histories.from_rows(np.arange(users), alone, np.zeros(users), users)
    assert neighbourhoods(histories, _ITEMS, groups=4) == ()


def test_a_column_named_like_a_made_family_stays_apart_from_it() -> None:
    names = tuple(str(item) for item in range(1, _ITEMS + 1))
    items = ItemTable(names, names, {"like": tuple("AB"[item % 2] for item in range(_ITEMS))})
    histories = make_histories()
    spec = FacetSpec(title_tokens=0, popularity_bands=0, neighbourhoods=(4,))
    facets = build_facets(items, histories, spec, together=histories)
    assert [facets.families.count(family) for family in ("like like", "like")] == [2, 4]


def test_groups_and_pairs_are_facets_of_their_own() -> None:
    items = ItemTable(
        ids=tuple(str(item) for item in range(1, _ITEMS + 1)),
        titles=tuple(f"Film {item}" for item in range(1, _ITEMS + 1)),
        columns={
            "genre": tuple("AB"[item % 2] for item in range(_ITEMS)),
            "tone": tuple("xyz"[i % 3] for i in range(_ITEMS)),
        },
    )
    histories = make_histories()
    spec = FacetSpec(title_tokens=0, popularity_bands=0, neighbourhoods=(4,))
    facets = build_facets(items, histories, spec, together=histories)
    assert [facets.families.count(family) for family in ("genre", "tone", "pair", "like")] == [2, 3, 6, 4]
    pair = facets.names.index("genre=A ∩ tone=x")
    both = facets.matrix[:, facets.names.index("genre=A")].multiply(facets.matrix[:, facets.names.index("tone=x")])
    np.testing.assert_array_equal(facets.matrix[:, pair].toarray(), both.toarray())
    assert all(name.startswith("like=Film ") for name in facets.names[-4:])
    assert not build_facets(items, histories, spec).of_family("like").size
