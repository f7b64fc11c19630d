"""Answers by content, on any file system; and prompts whose text never changes under their version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from recsae.concepts.llm.cache import FolderCache
from recsae.concepts.llm.chat import ChatReply
from recsae.concepts.llm.usage import Usage

PROMPTS = Path(__file__).parents[2] / "shared/recsae/concepts/llm/prompts"
# A changed prompt is a new file with a new number: figures of the old one stay what they were.
RELEASED = {
    "describe-1.md": "e3d8ef54706cab67",
    "verify-1.md": "48a84c7cac4e1bee",
}


@pytest.fixture(params=["local", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FolderCache:
    return FolderCache(str(tmp_path / "answers") if request.param == "local" else f"memory://{tmp_path.name}/answers")


@pytest.mark.parametrize("usage", [Usage(12, 3), None])
def test_an_answer_comes_back_as_it_was(cache: FolderCache, usage: Usage | None) -> None:
    key = "ab" * 32
    assert cache.get(key) is None
    cache.put(key, ChatReply("Amélie\n{}", usage))
    assert cache.get(key) == ChatReply("Amélie\n{}", usage)
    assert cache.get("cd" * 32) is None


def test_released_prompts_do_not_change() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in PROMPTS.iterdir()}
    assert found == RELEASED
