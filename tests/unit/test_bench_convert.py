"""The original files of MovieLens-1M and Amazon Beauty, handmade and tiny, become atomic files that load."""

import gzip
import json
from pathlib import Path

import pytest
from benchmarks.convert import Counts, convert_beauty, convert_ml1m

from recsae.datasets.atomic import load_atomic
from recsae.errors import InvalidRequestError, NotFoundError

RATINGS = "1::20::5::300\n1::10::3::100\n1::30::4::300\n2::10::5::50\n"
MOVIES = (
    "10::Café au Lait (1993)::Comedy\n20::Postino, Il (The Postman) (1994)::Drama|Romance\n"
    "30::X::Sci-Fi\n40::Y (2000)::War\n"
)
USERS = "1::F::1::10::48067\n2::M::56::16::70072\n"


@pytest.fixture
def ml1m(tmp_path: Path) -> Path:
    for name, text in {"ratings": RATINGS, "movies": MOVIES, "users": USERS}.items():
        (tmp_path / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return tmp_path


def test_movielens_is_ordered_by_time_with_ties_in_file_order(ml1m: Path) -> None:
    assert convert_ml1m(ml1m, ml1m / "out") == Counts(users=2, items=3, interactions=4)
    lines = (ml1m / "out" / "ml-1m.inter").read_text().splitlines()
    assert lines == ["user_id:token\titem_id:token\ttimestamp:float", "1\t10\t0", "1\t20\t1", "1\t30\t2", "2\t10\t0"]


def test_movielens_loads_with_titles_years_genres_and_user_attributes(ml1m: Path) -> None:
    convert_ml1m(ml1m, ml1m / "out")
    dataset = load_atomic(ml1m / "out").dataset
    assert dataset.items.titles == ("Café au Lait", "Postino, Il (The Postman)", "X")
    assert dataset.items.columns["release_year"] == ("1993", "1994", "")
    assert dataset.items.columns["genre"] == ("Comedy", "Drama|Romance", "Sci-Fi")
    assert dataset.users.columns["age"] == ("1", "56")


def test_a_line_of_another_width_is_named(ml1m: Path) -> None:
    (ml1m / "users.dat").write_text("1::F\n")
    with pytest.raises(InvalidRequestError, match=r"users\.dat, line 1: 2 cells, expected 5"):
        convert_ml1m(ml1m, ml1m / "out")


def test_a_missing_original_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"ratings\.dat"):
        convert_ml1m(tmp_path, tmp_path / "out")


def test_beauty_is_numbered_by_first_appearance_and_described(tmp_path: Path) -> None:
    reviews = [("B", "x", 20), ("A", "y", 5), ("B", "y", 10)]
    with gzip.open(tmp_path / "reviews_Beauty_5.json.gz", "wt") as stream:
        for user, item, time in reviews:
            stream.write(json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time}) + "\n")
    with gzip.open(tmp_path / "meta_Beauty.json.gz", "wt") as stream:
        stream.write(
            "{'asin': 'y', 'title': 'Nail\\tPolish', 'brand': 'O P I', "
            "'categories': [['Beauty', 'Makeup', 'Nail Polish']]}\n"
        )
        stream.write("{'asin': 'z', 'title': 'Not reviewed', 'categories': [['Beauty']]}\n")
    assert convert_beauty(tmp_path, tmp_path / "out") == Counts(users=2, items=2, interactions=3)
    dataset = load_atomic(tmp_path / "out").dataset
    assert dataset.items.titles == ("1", "Nail Polish")
    assert dataset.items.columns["brand"] == ("", "O_P_I")
    assert dataset.items.columns["categories"] == ("", "Makeup|Nail_Polish")
    assert [dataset.histories.of(user).tolist() for user in range(2)] == [[2, 1], [2]]
