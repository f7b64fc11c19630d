"""Users and items are split by hash: disjoint, stable, and alike wherever it is asked."""

from __future__ import annotations

import numpy as np

from recsae.concepts.splits import UserPart, split_users, unseen_items

_IDS = [f"{number:016x}" for number in range(20_000)]


def test_shares_are_sixty_twenty_twenty() -> None:
    shares = np.bincount(split_users(_IDS), minlength=3) / len(_IDS)
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.015)  # 4 standard errors


def test_a_user_stays_in_its_part_whoever_else_is_there() -> None:
    together = split_users(_IDS[:500])
    alone = [int(split_users([user])[0]) for user in _IDS[:500]]
    assert together.tolist() == alone
    assert split_users(_IDS[499::-1]).tolist() == alone[::-1]


def test_the_split_is_pinned_across_releases() -> None:
    assert split_users(["a", "b", "c", "d", "e", "f"]).tolist() == [0, 2, 0, 1, 0, 1]


def test_another_seed_gives_another_split() -> None:
    moved = (split_users(_IDS, 0) != split_users(_IDS, 1)).mean()
    assert 0.5 < moved < 0.62  # 1 - (.36 + .04 + .04)


def test_thirty_percent_of_items_are_unseen_and_padding_is_not_one() -> None:
    unseen = unseen_items(_IDS)
    assert len(unseen) == len(_IDS) + 1
    assert not unseen[0]
    assert abs(unseen[1:].mean() - 0.3) < 0.015


def test_a_user_and_an_item_of_one_id_are_split_independently() -> None:
    verification = split_users(_IDS) == UserPart.VERIFICATION
    unseen = unseen_items(_IDS)[1:]
    assert abs(unseen[verification].mean() - 0.3) < 0.03
