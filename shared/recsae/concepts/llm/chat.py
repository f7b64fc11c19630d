"""One call of the chat-completions protocol as values: the request with its key and worst case, the reply.

Not here: sending (`transport`), retries and caching (`client`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from recsae.concepts.llm.usage import Usage
from recsae.store.files import canonical_json

# Chat templates wrap each message in a few special tokens; no known one takes more.
_TOKENS_PER_MESSAGE = 32


@dataclass(frozen=True)
class Message:
    """One turn; `role` is "system" or "user"."""

    role: str
    content: str


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of which model; `prompt` is the version of the prompt it was rendered from."""

    model: str
    prompt: str
    messages: tuple[Message, ...]
    answer_tokens: int
    temperature: float = 0.0

    def body(self) -> dict[str, Any]:
        """As the protocol wants it."""
        return {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "max_tokens": self.answer_tokens,
            "temperature": self.temperature,
        }

    @property
    def key(self) -> str:
        """SHA-256 of everything the answer depends on, 64 hex digits."""
        return hashlib.sha256(canonical_json({"prompt": self.prompt, **self.body()})).hexdigest()

    @property
    def worst(self) -> Usage:
        """A bound on its tokens: byte-level tokenisers never make more tokens than there are bytes."""
        size = sum(len(message.content.encode()) + _TOKENS_PER_MESSAGE for message in self.messages)
        return Usage(size, self.answer_tokens)


@dataclass(frozen=True)
class ChatReply:
    """What came back; `usage` is None when the server did not say."""

    content: str
    usage: Usage | None


def read_reply(body: bytes) -> ChatReply | None:
    """The reply in a response's body; None when it is not a chat completion."""
    try:
        value = json.loads(body)
        content = value["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(content, str):
        return None
    return ChatReply(content, _usage(value.get("usage")))


def _usage(found: Any) -> Usage | None:
    if not isinstance(found, dict):
        return None
    tokens_in, tokens_out = found.get("prompt_tokens"), found.get("completion_tokens")
    if not isinstance(tokens_in, int) or not isinstance(tokens_out, int) or min(tokens_in, tokens_out) < 0:
        return None
    return Usage(tokens_in, tokens_out)
