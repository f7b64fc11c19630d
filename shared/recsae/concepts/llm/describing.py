"""The language model as a describer: evidence in, label and description out."""

from __future__ import annotations

from collections.abc import Sequence

from recsae.concepts.describers import LatentEvidence, Words
from recsae.concepts.llm.answers import UnreadableAnswerError, read_words
from recsae.concepts.llm.asking import Answer, Asked, Asker
from recsae.concepts.llm.chat import ChatRequest
from recsae.concepts.llm.prompts import DESCRIBE, describe_messages


class LlmDescriber:
    """Implements `recsae.concepts.describers.Describer`."""

    def __init__(self, asker: Asker, asked: Asked = lambda _done, _spend: None) -> None:
        """`asked` hears of progress."""
        self._asker, self._asked = asker, asked

    @property
    def name(self) -> str:
        """The model's name."""
        return self._asker.options.model

    @property
    def version(self) -> str:
        """The prompt's version."""
        return DESCRIBE

    def describe(self, evidence: Sequence[LatentEvidence]) -> list[Words]:
        """Words for each latent; a latent the model cannot be understood about says so in `failure`."""
        options = self._asker.options
        requests = [
            ChatRequest(options.model, DESCRIBE, describe_messages(one), options.answer_tokens) for one in evidence
        ]
        return [_words(answer) for answer in self._asker.ask_all(requests, self._asked)]


def _words(answer: Answer) -> Words:
    if answer.failure:
        return Words(failure=answer.failure)
    try:
        return read_words(answer.text)
    except UnreadableAnswerError as error:
        return Words(failure=str(error))
