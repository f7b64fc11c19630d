"""Reads what a language model answered. An answer is untrusted text; what cannot be read is a failure in a sentence."""

from __future__ import annotations

import json
import re
from typing import Any

from recsae.concepts.describers import Words
from recsae.concepts.llm.prompts import DESCRIBE, MAX_DESCRIPTION, clean, repeats_prompt
from recsae.errors import InvalidRequestError

MAX_LABEL = 80
_STRONGEST = 10
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_STRENGTH = re.compile(r'"strength"\s*:\s*"?(\d{1,3}(?:\.\d+)?)')
_TRIES = 20
_SHOWN = 120


class UnreadableAnswerError(InvalidRequestError):
    """The model answered something else than what it was asked for."""


def read_words(answer: str) -> Words:
    """Label and description of an answer; UnreadableAnswerError shows its beginning.

    Its JSON object may be cut short: a model that rambles on after the two fields has answered.
    """
    found = _object(answer)
    label, description = (found.get(name) if found else _text(answer, name) for name in ("label", "description"))
    if not isinstance(label, str) or not isinstance(description, str):
        raise UnreadableAnswerError(f"the answer is no JSON object with a label and a description: {_shown(answer)}")
    words = Words(clean(label, MAX_LABEL), clean(description, MAX_DESCRIPTION))
    if not _says_something(words.label) or not _says_something(words.description):
        raise UnreadableAnswerError(f"the label or the description is empty: {_shown(answer)}")
    if repeats_prompt(words.label, DESCRIBE) or repeats_prompt(words.description, DESCRIBE):
        raise UnreadableAnswerError(f"the answer gives the instructions back: {_shown(answer)}")
    return words


def read_rating(answer: str) -> float:
    """The strength of an answer, 0 to 10.

    That of its JSON object, whole or cut short, else the one number the answer holds ("8", "8/10").
    """
    found = _object(answer)
    rating: Any = found.get("strength") if found else None
    if found is None:
        named = _STRENGTH.search(answer)
        rating = float(named[1]) if named else _only_number(answer)
    if isinstance(rating, str):
        rating = _only_number(rating)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= _STRONGEST:
        raise UnreadableAnswerError(f"the answer holds no strength from 0 to {_STRONGEST}: {_shown(answer)}")
    return float(rating)


def _object(answer: str) -> dict[str, Any] | None:
    """The first JSON object in an answer, whatever stands around it (fences, thoughts, a second try)."""
    decoder = json.JSONDecoder()
    at = -1
    for _ in range(_TRIES):
        at = answer.find("{", at + 1)
        if at < 0:
            break
        try:
            value, _ = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
    return None


def _only_number(text: str) -> float | None:
    numbers = {float(number) for number in _NUMBER.findall(text.replace("/10", ""))}
    return numbers.pop() if len(numbers) == 1 else None


def _text(answer: str, name: str) -> str | None:
    """A text field that is whole, of an object that is not."""
    found = re.search(rf'"{name}"\s*:\s*("(?:[^"\\]|\\.)*")', answer)
    try:
        return None if found is None else str(json.loads(found[1]))
    except ValueError:
        return None


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _shown(answer: str) -> str:
    return repr(clean(answer, _SHOWN))
