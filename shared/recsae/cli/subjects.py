"""Whom a command asks about, as it is written on the command line: candidates and attributes of a request.

Not here: what is asked about them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from recsae.datasets.attributes import typed_column
from recsae.errors import InvalidRequestError
from recsae.v1 import common_pb2

_FLAGS = {"true": True, "false": False}
Candidates = Annotated[
    list[str] | None,
    typer.Option("--candidate", help="Item to score, for a model that scores pairs of a user and an item; repeatable"),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", help="NAME=VALUE the model reads, in place of the stored one; repeatable"),
]


def attribute_values(texts: Iterable[str] | None) -> dict[str, common_pb2.AttributeValue]:
    """`age=25` and the like by name: a number where it is one, true and false as flags, as in segments, else text.

    InvalidRequestError shows the form.
    """
    found: dict[str, common_pb2.AttributeValue] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        (typed,) = typed_column([value])
        if not name or not equals or typed is None or name in found:
            raise InvalidRequestError(f"{text!r} is not an attribute, or names one again; write e.g. age=25")
        if isinstance(typed, float):
            found[name] = common_pb2.AttributeValue(number=typed)
        elif typed in _FLAGS:
            found[name] = common_pb2.AttributeValue(flag=_FLAGS[typed])
        else:
            found[name] = common_pb2.AttributeValue(text=typed)
    return found
