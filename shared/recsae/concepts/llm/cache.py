"""Answers kept by content: a question asked before, by this run or another, is not paid for again.

One small file per answer, whole or not there at all, under any fsspec URL. A file that cannot be read counts as not
there. Not here: what the key covers (`chat`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from recsae.concepts.llm.chat import ChatReply
from recsae.concepts.llm.usage import Usage
from recsae.store.files import canonical_json, write_atomic


class AnswerCache(Protocol):
    """Where answers are kept."""

    def get(self, key: str) -> ChatReply | None:
        """The answer of that key, if there is one."""
        ...

    def put(self, key: str, reply: ChatReply) -> None:
        """Keeps an answer."""
        ...


class FolderCache:
    """Answers below a URL, in folders by the first two digits of their keys."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet."""
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def get(self, key: str) -> ChatReply | None:
        """See `AnswerCache`."""
        try:
            stored = json.loads(self._fs.cat_file(self._at(key)))
            usage = stored["usage"]
            return ChatReply(str(stored["content"]), None if usage is None else Usage(*usage))
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None

    def put(self, key: str, reply: ChatReply) -> None:
        """See `AnswerCache`."""
        usage = None if reply.usage is None else [reply.usage.tokens_in, reply.usage.tokens_out]
        content = canonical_json({"content": reply.content, "usage": usage})
        if isinstance(self._fs, LocalFileSystem):
            write_atomic(Path(self._at(key)), content)
        else:
            self._fs.pipe_file(self._at(key), content)  # object stores replace whole objects

    def _at(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}.json"
