"""Turns the original MovieLens-1M and Amazon Beauty files into RecBole atomic files for the fidelity benchmark.

    python -m benchmarks.convert ml-1m FOLDER OUT           # ratings.dat, movies.dat, users.dat out of ml-1m.zip
    python -m benchmarks.convert amazon-beauty FOLDER OUT   # reviews_Beauty_5.json.gz, meta_Beauty.json.gz

MovieLens-1M: GroupLens (Harper and Konstan, "The MovieLens Datasets", 2015). Beauty: the 5-core reviews of McAuley et
al., "Image-based Recommendations on Styles and Substitutes" (2015). Their terms of use hold; nothing is fetched here.
The `timestamp` column is each user's own order, 0, 1, ...; equal times keep the order of the file. Reading the result
is not here (`recsae.datasets.atomic`).
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsae.errors import InvalidRequestError, NotFoundError, RecsaeError

_TITLE_AND_YEAR = re.compile(r"(.*) \((\d{4})\)")


@dataclass(frozen=True)
class Counts:
    """Users, items and interactions of a data set."""

    users: int
    items: int
    interactions: int


# What the originals hold; anything else is another release or an incomplete download.
EXPECTED = {"ml-1m": Counts(6_040, 3_706, 1_000_209), "amazon-beauty": Counts(22_363, 12_101, 198_502)}


def convert_ml1m(folder: Path, out: Path) -> Counts:
    """Writes `ml-1m.inter`, `.item`, `.user` into `out` with MovieLens' own ids."""
    rows = _fields(folder / "ratings.dat", 4)
    taken = [(user, movie, int(time)) for user, movie, _, time in rows]
    movies = [_movie(*fields) for fields in _fields(folder / "movies.dat", 3)]
    users = [(user, gender, age, occupation) for user, gender, age, occupation, _ in _fields(folder / "users.dat", 5)]
    counts = _write_interactions(out / "ml-1m.inter", taken)
    _write(out / "ml-1m.item", "item_id:token movie_title:token_seq release_year:token genre:token_seq", movies)
    _write(out / "ml-1m.user", "user_id:token gender:token age:token occupation:token", users)
    return counts


def convert_beauty(folder: Path, out: Path) -> Counts:
    """Writes `amazon-beauty.inter` and `.item` into `out`; users and items are numbered as they first appear."""
    reviews = [json.loads(line) for line in _lines(folder / "reviews_Beauty_5.json.gz")]
    users = _numbers(review["reviewerID"] for review in reviews)
    items = _numbers(review["asin"] for review in reviews)
    taken = [(users[one["reviewerID"]], items[one["asin"]], int(one["unixReviewTime"])) for one in reviews]
    counts = _write_interactions(out / "amazon-beauty.inter", taken)
    described: dict[str, tuple[str, ...]] = {asin: (number, "", "", "") for asin, number in items.items()}
    for line in _lines(folder / "meta_Beauty.json.gz"):
        # The lines are Python literals, not JSON: strings in single quotes.
        about = ast.literal_eval(line)
        if about["asin"] in described:
            described[about["asin"]] = _product(items[about["asin"]], about)
    header = "item_id:token title:token_seq brand:token categories:token_seq"
    _write(out / "amazon-beauty.item", header, described.values())
    return counts


def _movie(movie: str, title: str, genres: str) -> tuple[str, ...]:
    found = _TITLE_AND_YEAR.fullmatch(title)
    name, year = found.groups() if found else (title, "")
    return movie, name, year, " ".join(genre.replace(" ", "_") for genre in genres.split("|"))


def _product(number: str, about: dict[str, object]) -> tuple[str, ...]:
    """Values of a sequence are separated by blanks, so a blank inside a category or brand becomes "_"."""
    paths = about.get("categories")
    first = paths[0] if isinstance(paths, list) and paths else []
    categories = [str(name).replace(" ", "_") for name in first if name != "Beauty"]
    return (
        number,
        " ".join(str(about.get("title", "")).split()),
        "_".join(str(about.get("brand", "")).split()),
        " ".join(categories),
    )


def _write_interactions(path: Path, taken: list[tuple[str, str, int]]) -> Counts:
    users: dict[str, list[tuple[int, str]]] = {}
    for user, item, time in taken:
        users.setdefault(user, []).append((time, item))
    ordered = (
        (user, item, str(order))
        for user, rows in users.items()
        for order, (_, item) in enumerate(sorted(rows, key=lambda row: row[0]))
    )
    _write(path, "user_id:token item_id:token timestamp:float", ordered)
    return Counts(len(users), len({item for _, item, _ in taken}), len(taken))


def _write(path: Path, header: str, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("\t".join(header.split(" ")) + "\n")
        for row in rows:
            stream.write("\t".join(cell.replace("\t", " ") for cell in row) + "\n")


def _fields(path: Path, width: int) -> Iterator[list[str]]:
    """Cells of a "::" separated file in Latin-1, as GroupLens publishes them."""
    if not path.is_file():
        raise NotFoundError(f"{path} is not there; unpack ml-1m.zip and name the folder that holds {path.name}")
    with path.open(encoding="latin-1") as stream:
        for number, line in enumerate(stream, start=1):
            cells = line.rstrip("\r\n").split("::")
            if len(cells) != width:
                raise InvalidRequestError(f"{path.name}, line {number}: {len(cells)} cells, expected {width}")
            yield cells


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise NotFoundError(f"{path} is not there; put {path.name} as it was downloaded into that folder")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from stream


def _numbers(names: Iterable[str]) -> dict[str, str]:
    return {name: str(number) for number, name in enumerate(dict.fromkeys(names), start=1)}


def main() -> int:
    """0 when the counts are those of the originals, else 1 and a sentence."""
    parser = argparse.ArgumentParser(description="Original data files to atomic files.")
    parser.add_argument("name", choices=list(EXPECTED))
    parser.add_argument("folder", type=Path, help="where the original files are")
    parser.add_argument("out", type=Path, help="where the folder NAME is written: the benchmark's DATA")
    arguments = parser.parse_args()
    convert = {"ml-1m": convert_ml1m, "amazon-beauty": convert_beauty}[arguments.name]
    try:
        counts = convert(arguments.folder, arguments.out / arguments.name)
    except RecsaeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"{arguments.name}: {counts}")  # noqa: T201
    if counts != EXPECTED[arguments.name]:
        print(f"expected {EXPECTED[arguments.name]}: another release, or incomplete", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
