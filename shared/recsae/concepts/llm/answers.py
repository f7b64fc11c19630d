"""Reads what a language model answered. An answer is untrusted text; what cannot be read is a failure in a sentence."""

from __future__ import annotations

import json
import re
from typing import Any

from recsae.concepts.describers import Words
from recsae.concepts.llm.prompts import MAX_DESCRIPTION, clean
from recsae.errors import InvalidRequestError

MAX_LABEL = 80
_STRONGEST = 10
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SHOWN = 120


class UnreadableAnswerError(InvalidRequestError):
    """The model answered something else than what it was asked for."""


def read_words(answer: str) -> Words:
    """Label and description of an answer; UnreadableAnswerError shows its beginning."""
    found = _object(answer)
    label, description = (found.get(name) if found else None for name in ("label", "description"))
    if not isinstance(label, str) or not isinstance(description, str):
        raise UnreadableAnswerError(f"the answer is no JSON object with a label and a description: {_shown(answer)}")
    words = Words(clean(label, MAX_LABEL), clean(description, MAX_DESCRIPTION))
    if not words.label or not words.description:
        raise UnreadableAnswerError(f"the label or the description is empty: {_shown(answer)}")
    return words


def read_rating(answer: str) -> float:
    """The strength of an answer, 0 to 10: of its JSON object, else the one number it holds ("8", "8/10")."""
    found = _object(answer)
    rating = found.get("strength") if found else _only_number(answer)
    if isinstance(rating, str):
        rating = _only_number(rating)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= _STRONGEST:
        raise UnreadableAnswerError(f"the answer holds no strength from 0 to {_STRONGEST}: {_shown(answer)}")
    return float(rating)


def _object(answer: str) -> dict[str, Any] | None:
    """The first JSON object in an answer, whatever stands around it (fences, thoughts, a second try)."""
    decoder = json.JSONDecoder()
    at = answer.find("{")
    while at >= 0:
        try:
            value, _ = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        at = answer.find("{", at + 1)
    return None


def _only_number(text: str) -> float | None:
    numbers = {float(number) for number in _NUMBER.findall(text.replace("/10", ""))}
    return numbers.pop() if len(numbers) == 1 else None


def _shown(answer: str) -> str:
    return repr(clean(answer, _SHOWN))
