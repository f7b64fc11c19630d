"""Segments as people write them on the command line, read into segments.

    any      = all ("or" all)*
    all      = unary ("and" unary)*
    unary    = "not" unary | "(" any ")" | leaf
    leaf     = "exists" NAME | NAME "in" "(" VALUE ("," VALUE)* ")" | NAME ("=" | "!=") VALUE
             | NAME (">=" | "<") NUMBER | NUMBER "<=" NAME ["<" NUMBER]

A VALUE is a number (02139 is a code, and a text), true, false or a text; a text or NAME that is one of these words,
looks like a number, or holds a blank or a sign of the grammar stands in quotes. Ranges include their lower bound and
not their upper one, as segments do. `recsae.steering.segment_words.segment_text` writes what is read here. Not here:
what may be asked (`validate_segment`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from recsae.errors import InvalidRequestError
from recsae.steering.segment_words import BARE, KEYWORDS, NUMBER
from recsae.steering.segments import (
    MAX_DEPTH,
    AllOf,
    AnyOf,
    Attribute,
    Equals,
    Exists,
    In,
    Not,
    Range,
    Segment,
    validate_segment,
)

_TOKEN = re.compile(
    rf"(?P<sign>[(),]|<=|>=|!=|=|<|>)|(?P<quoted>\"(?:[^\"\\]|\\.)*\"|'[^']*')|(?P<word>{BARE.pattern})"
)
_BLANK = re.compile(r"\s")
# A segment has at most eight levels; brackets that nest deeper than this say nothing.
_DEEPEST = 4 * MAX_DEPTH
EXAMPLE = "country=DK and not age<18"


@dataclass(frozen=True)
class _Token:
    """One piece of the text and where it begins; `kind` is sign, name, number, keyword or end."""

    kind: str
    text: str
    at: int


def parse_segment(text: str) -> Segment:
    """The segment a line says; InvalidRequestError shows the place where it cannot be read on."""
    segment = _Reader(text).whole()
    validate_segment(segment)
    return segment


class _Reader:
    """Reads one line from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenised()
        self._next = 0
        self._depth = 0

    def whole(self) -> Segment:
        segment = self._any()
        if self._seen.kind != "end":
            self._refuse("`and`, `or` or the end")
        return segment

    @property
    def _seen(self) -> _Token:
        return self._tokens[self._next]

    def _tokenised(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self._text):
            if self._text[at].isspace():
                at += 1
                continue
            match = _TOKEN.match(self._text, at)
            if match is None:
                self._refuse("a name, a value or a sign", at)
            tokens.append(self._token(match))
            at = match.end()
        return [*tokens, _Token("end", "", len(self._text))]

    def _token(self, match: re.Match[str]) -> _Token:
        text, at = match[0], match.start()
        if match["sign"]:
            return _Token("sign", text, at)
        if match["word"]:
            if text.lower() in KEYWORDS:
                return _Token("keyword", text.lower(), at)
            return _Token("number" if NUMBER.fullmatch(text) else "name", text, at)
        if text[0] == "'":
            return _Token("name", text[1:-1], at)
        try:
            return _Token("name", json.loads(text, strict=False), at)
        except ValueError:
            self._refuse("a text whose backslashes are those of JSON, or single quotes", at)

    def _any(self) -> Segment:
        children = [self._all()]
        while self._take("keyword", "or"):
            children.append(self._all())
        return children[0] if len(children) == 1 else AnyOf(tuple(children))

    def _all(self) -> Segment:
        children = [self._unary()]
        while self._take("keyword", "and"):
            children.append(self._unary())
        return children[0] if len(children) == 1 else AllOf(tuple(children))

    def _unary(self) -> Segment:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse("fewer brackets: they nest too deep here")
        found = self._unary_within()
        self._depth -= 1
        return found

    def _unary_within(self) -> Segment:
        if self._take("keyword", "not"):
            return Not(self._unary())
        if self._take("sign", "("):
            segment = self._any()
            self._need("sign", ")")
            return segment
        if self._take("keyword", "exists"):
            return Exists(self._need("name").text)
        if self._seen.kind == "number":
            return self._range_from_its_lower_bound()
        if self._seen.kind != "name":
            self._refuse("an attribute, `not`, `exists` or a bracket")
        return self._comparison(self._need("name").text)

    def _comparison(self, name: str) -> Segment:
        if self._take("sign", "="):
            return Equals(name, self._value())
        if self._take("sign", "!="):
            return Not(Equals(name, self._value()))
        if self._take("sign", ">="):
            return Range(name, min=self._number())
        if self._take("sign", "<"):
            return Range(name, max=self._number())
        if self._take("keyword", "in"):
            return In(name, self._values())
        if self._seen.text in ("<=", ">"):
            self._refuse("`>=` or `<`: a range holds its lower bound and not its upper one")
        self._refuse("`=`, `!=`, `>=`, `<` or `in`")

    def _range_from_its_lower_bound(self) -> Segment:
        low = self._number()
        self._need("sign", "<=")
        name = self._need("name").text
        return Range(name, low, self._number() if self._take("sign", "<") else None)

    def _values(self) -> tuple[Attribute, ...]:
        self._need("sign", "(")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
        self._need("sign", ")")
        return tuple(values)

    def _value(self) -> Attribute:
        if self._seen.kind == "number":
            return self._number()
        if self._take("keyword", "true"):
            return True
        if self._take("keyword", "false"):
            return False
        if self._seen.kind != "name":
            self._refuse("a value")
        return self._need("name").text

    def _number(self) -> float:
        return float(self._need("number").text)

    def _take(self, kind: str, text: str) -> bool:
        if (self._seen.kind, self._seen.text) != (kind, text):
            return False
        self._next += 1
        return True

    def _need(self, kind: str, text: str = "") -> _Token:
        token = self._seen
        if token.kind != kind or text not in ("", token.text):
            self._refuse(f"`{text}`" if text else {"name": "an attribute", "number": "a number"}[kind])
        self._next += 1
        return token

    def _refuse(self, wanted: str, at: int | None = None) -> NoReturn:
        place = self._seen.at if at is None else at
        found = repr(self._text[place:].split()[0][:20]) if self._text[place:].strip() else "the end"
        raise InvalidRequestError(
            f"the segment cannot be read at character {place + 1}: expected {wanted}, found {found}; "
            f"write e.g. {EXAMPLE}\n  {_BLANK.sub(' ', self._text)}\n  {' ' * place}^"
        )
