"""The language model as a verifier: it rates histories by a description and never sees how strongly the latent fires.

A question holds a description and titles and nothing else, so there is nowhere for the true value to come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsae.concepts.llm.answers import UnreadableAnswerError, read_rating
from recsae.concepts.llm.asking import Asked, Asker
from recsae.concepts.llm.chat import ChatRequest
from recsae.concepts.llm.prompts import VERIFY, verify_messages


@dataclass(frozen=True)
class Question:
    """Asks how strongly the unit so described responds to a history of these titles, oldest first."""

    description: str
    titles: tuple[str, ...]


@dataclass(frozen=True)
class Rating:
    """A strength from 0 to 10, None without a readable answer; `asked` is False where the budget ended before."""

    strength: float | None
    asked: bool = True


def rate(asker: Asker, questions: Sequence[Question], asked: Asked = lambda _done, _spend: None) -> list[Rating]:
    """A rating per question, in the same order."""
    options = asker.options
    requests = [
        ChatRequest(options.model, VERIFY, verify_messages(one.description, one.titles), options.rating_tokens)
        for one in questions
    ]
    ratings = []
    for answer in asker.ask_all(requests, asked):
        try:
            strength = None if answer.failure else read_rating(answer.text)
        except UnreadableAnswerError:
            strength = None
        ratings.append(Rating(strength, answer.asked))
    return ratings
