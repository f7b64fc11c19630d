"""Renders prompts from the versioned files in `prompts/`. Everything that comes from a catalogue is untrusted text.

A title becomes one JSON string between tags: control and formatting characters are gone, it has no line breaks, quotes
are escaped, angle brackets are replaced so that it cannot close a tag, and it is cut to a length. The verifier's prompt
is rendered from a description and titles alone: it takes no argument that could carry the true value.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from recsae.concepts.describers import Example, LatentEvidence
from recsae.concepts.llm.chat import Message

DESCRIBE, VERIFY = "describe-1", "verify-1"
MAX_TITLE = 120
# The newest titles of a history that are sent: sequence models read mostly these (`recsae.concepts.features`).
MAX_TITLES = 10
MAX_DESCRIPTION = 600

_SECTION = re.compile(r"^# (system|user)$", re.MULTILINE)
_FIELD = re.compile(r"\{\{(\w+)\}\}")
_NONE = "(none)"
# Shorter phrases ("a genre") may be said by chance.
_PHRASE = 16


def describe_messages(evidence: LatentEvidence) -> tuple[Message, ...]:
    """The describer's prompt for a latent."""
    parts = {name: getattr(evidence, name) for name in ("strongest", "firing", "near_misses", "silent")}
    return _rendered(DESCRIBE, {name: _examples(examples) for name, examples in parts.items()})


def verify_messages(description: str, titles: Sequence[str]) -> tuple[Message, ...]:
    """The verifier's prompt for a description and one history, oldest first."""
    return _rendered(VERIFY, {"description": clean(description, MAX_DESCRIPTION), "titles": _titles(titles)})


def repeats_prompt(text: str, version: str) -> bool:
    """True when a text is one of the prompt's own phrases: small models give the instructions back."""
    words = _plain(text)
    return len(words) >= _PHRASE and any(words in _plain(part) for _, part in _sections(version))


def clean(text: str, limit: int = MAX_TITLE) -> str:
    """Untrusted text as one line of at most `limit` characters that cannot close a tag."""
    spaced = "".join(" " if character.isspace() else character for character in unicodedata.normalize("NFC", text))
    kept = "".join(character for character in spaced if unicodedata.category(character)[0] != "C")
    line = " ".join(kept.replace("<", "‹").replace(">", "›").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _examples(examples: Sequence[Example]) -> str:
    return "\n".join(_line(example) for example in examples) or _NONE


def _line(example: Example) -> str:
    deciding = f" deciding item: <titles>{_titles([example.deciding])}</titles>" if example.deciding else ""
    return f"strength {example.rating}: <titles>{_titles(example.titles)}</titles>{deciding}"


def _titles(titles: Sequence[str]) -> str:
    return json.dumps([clean(title) for title in titles[-MAX_TITLES:]], ensure_ascii=False)


def _rendered(version: str, values: Mapping[str, str]) -> tuple[Message, ...]:
    """The messages of a prompt. One pass: what is put in is never searched for fields."""
    return tuple(
        Message(role, _FIELD.sub(lambda found: values[found[1]], text) if role == "user" else text)
        for role, text in _sections(version)
    )


@cache
def _sections(version: str) -> tuple[tuple[str, str], ...]:
    text = resources.files("recsae.concepts.llm").joinpath("prompts", f"{version}.md").read_text(encoding="utf-8")
    parts = _SECTION.split(text)[1:]
    return tuple((role, body.strip()) for role, body in zip(parts[::2], parts[1::2], strict=True))
