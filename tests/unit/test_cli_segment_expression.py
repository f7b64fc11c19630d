"""Segments as people write them: what a line says, that it is written as it is read, and where it cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsae.cli.segment_expression import parse_segment
from recsae.errors import InvalidRequestError
from recsae.steering.segment_words import segment_text
from recsae.steering.segments import (
    AllOf,
    AnyOf,
    Equals,
    Exists,
    In,
    Not,
    Range,
    Segment,
    evaluate,
)

DANISH = Equals("country", "DK")


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("country=DK", DANISH),
        ("country = DK AND NOT age<18", AllOf((DANISH, Not(Range("age", max=18.0))))),
        ("surface in (home,search)", In("surface", ("home", "search"))),
        ("a=1 or b=true and c=x", AnyOf((Equals("a", 1.0), AllOf((Equals("b", True), Equals("c", "x")))))),
        ("(a=1 or b=2) and c=3", AllOf((AnyOf((Equals("a", 1.0), Equals("b", 2.0))), Equals("c", 3.0)))),
        ("18<=age<30", Range("age", 18.0, 30.0)),
        ("18<=age", Range("age", 18.0)),
        ("age>=-1.5e3", Range("age", -1500.0)),
        ("country!=DK", Not(DANISH)),
        ("not exists country", Not(Exists("country"))),
        ("not not exists a", Not(Not(Exists("a")))),
        ('"in"=\'not\' and a="1"', AllOf((Equals("in", "not"), Equals("a", "1")))),
        ('"favourite genre"="Film-Noir, \\"B\\""', Equals("favourite genre", 'Film-Noir, "B"')),
        ("zip=02139 and floor=0.5", AllOf((Equals("zip", "02139"), Equals("floor", 0.5)))),
        ("land=Føroyar and sig=Sci-Fi", AllOf((Equals("land", "Føroyar"), Equals("sig", "Sci-Fi")))),
    ],
)
def test_a_line_says_a_segment(text: str, segment: Segment) -> None:
    assert parse_segment(text) == segment


WORDS = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["and", "Not", "in", "true", "1", "007", "-2e5", "a b", "DK", "<="]
)
VALUES = WORDS | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
BOUNDS = st.floats(-1e9, 1e9)
LEAVES = st.one_of(
    st.builds(Equals, WORDS, VALUES),
    st.builds(In, WORDS, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
    st.builds(Range, WORDS, BOUNDS, st.none()),
    st.builds(Range, WORDS, st.none(), BOUNDS),
    st.tuples(WORDS, BOUNDS, BOUNDS).filter(lambda one: one[1] < one[2]).map(lambda one: Range(*one)),
    st.builds(Exists, WORDS),
)


def nested(least: int) -> st.SearchStrategy[Segment]:
    """Segments whose `and` and `or` have at least so many children."""
    return st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=least, max_size=3).map(lambda children: AllOf(tuple(children))),
            st.lists(inner, min_size=least, max_size=3).map(lambda children: AnyOf(tuple(children))),
        ),
        max_leaves=5,
    )


@settings(max_examples=200, deadline=None)
@given(nested(2))
def test_a_segment_is_read_back_as_it_is_written(segment: Segment) -> None:
    assert parse_segment(segment_text(segment)) == segment


@settings(max_examples=60, deadline=None)
@given(nested(1), st.dictionaries(WORDS, VALUES, max_size=3))
def test_nodes_of_one_child_are_left_out_without_a_change_of_meaning(
    segment: Segment, attributes: dict[str, str | float | bool]
) -> None:
    assert evaluate(parse_segment(segment_text(segment)), attributes) is evaluate(segment, attributes)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", 1, "expected an attribute, `not`, `exists` or a bracket, found the end"),
        ("country=DK and )", 16, "found ')'"),
        ("country=", 9, "expected a value, found the end"),
        ("country=DK country=SE", 12, "expected `and`, `or` or the end, found 'country=SE'"),
        ("country", 8, "expected `=`, `!=`, `>=`, `<` or `in`"),
        ("age<=30", 4, "a range holds its lower bound and not its upper one"),
        ("age>30", 4, "expected `>=` or `<`"),
        ("age<old", 5, "expected a number, found 'old'"),
        ("a in (1, 2", 11, "expected `)`, found the end"),
        ("a in 1", 6, "expected `(`, found '1'"),
        ("(a=1", 5, "expected `)`"),
        ('a="open', 3, "expected a name, a value or a sign"),
        ('a="\\q"', 3, "a text whose backslashes are those of JSON"),
        ("(" * 50, 33, "fewer brackets"),
        ("not " * 40 + "a=1", 129, "fewer brackets"),
    ],
)
def test_a_line_that_cannot_be_read_shows_the_place(text: str, place: int, words: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        parse_segment(text)
    said, line, caret = str(error.value).split("\n")
    assert f"at character {place}: " in said
    assert words in said
    assert line == f"  {text}"
    assert caret == " " * (place + 1) + "^"


def test_what_can_be_read_and_not_be_asked_is_refused_as_everywhere() -> None:
    with pytest.raises(InvalidRequestError, match="holds nothing; swap the bounds"):
        parse_segment("30<=age<18")
