"""What calls to a language model use: tokens, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from recsae.concepts.llm.options import LlmOptions


@dataclass(frozen=True)
class Usage:
    """Tokens read and written by a model; sums add."""

    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)

    def __sub__(self, other: Usage) -> Usage:
        """Without the other."""
        return Usage(self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)

    @property
    def tokens(self) -> int:
        """In and out together."""
        return self.tokens_in + self.tokens_out

    def cost(self, options: LlmOptions) -> float:
        """In the currency of the prices."""
        return (self.tokens_in * options.price_in + self.tokens_out * options.price_out) / 1e6


NOTHING = Usage()


@dataclass(frozen=True)
class Spend:
    """What a run used: requests sent, answers found in the cache, tokens, cost, and why it stopped early ("")."""

    requests: int
    cached: int
    usage: Usage
    cost: float
    stopped: str = ""
