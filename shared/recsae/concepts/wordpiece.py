"""Text to the token ids a BERT model reads: clean, split, then the longest known pieces of each word.

The uncased variant of Devlin et al. 2018 (BERT) with WordPiece (Wu et al. 2016, section 4.1). Not here: the model.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Longer "words" are noise; the reference tokenizer calls them unknown too.
_LONGEST_WORD = 100
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True)
class WordPiece:
    """A vocabulary: `ids` maps pieces to ids; pieces inside a word begin with "##"."""

    ids: Mapping[str, int]

    @classmethod
    def load(cls, vocabulary: Path) -> WordPiece:
        """Reads `vocab.txt`: one piece per line, its id the line number from 0."""
        return cls({piece: at for at, piece in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())})

    def encode(self, text: str, longest: int) -> list[int]:
        """Ids of a text between [CLS] and [SEP], at most `longest` of them with these two."""
        found: list[int] = []
        for word in _words(text):
            found += self._pieces(word)
            if len(found) >= longest - 2:
                break
        return [self.ids["[CLS]"], *found[: longest - 2], self.ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        """The longest known beginning, again and again; [UNK] for the word when a rest has none."""
        unknown = [self.ids["[UNK]"]]
        if len(word) > _LONGEST_WORD:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in self.ids:
                    found.append(self.ids[piece])
                    start = end
                    break
            else:
                return unknown
        return found


def _words(text: str) -> Iterator[str]:
    """Lower-case words without accents; every punctuation mark and every CJK sign is a word of its own."""
    plain = "".join(_cleaned(character) for character in text)
    plain = "".join(c for c in unicodedata.normalize("NFD", plain) if unicodedata.category(c) != "Mn").lower()
    for run in plain.split():
        word = ""
        for character in run:
            if _is_punctuation(character):
                if word:
                    yield word
                    word = ""
                yield character
            else:
                word += character
        if word:
            yield word


def _cleaned(character: str) -> str:
    point = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if point in (0, 0xFFFD) or unicodedata.category(character).startswith("C"):
        return ""
    return f" {character} " if any(low <= point <= high for low, high in _CJK) else character


def _is_punctuation(character: str) -> bool:
    """Also ASCII signs that Unicode calls symbols, such as $ and ^."""
    ascii_sign = character.isascii() and not character.isalnum() and not character.isspace()
    return ascii_sign or unicodedata.category(character).startswith("P")
