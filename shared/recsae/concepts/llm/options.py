"""How the language model is reached and what it may cost. Read from the worker's settings or given by a caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsae.errors import InvalidRequestError

SETTINGS_PREFIX = "RECSAE_WORKER_LLM_"


@dataclass(frozen=True)
class LlmOptions:
    """An endpoint and its bounds.

    `url` is the base URL (".../v1") of a server that speaks the chat-completions protocol; `timeout_s` the deadline of
    one call; `retries` how often a call is tried again. Prices are per million tokens, `max_cost` is in their currency;
    `max_tokens` bounds tokens in and out together, whatever they cost. `answer_tokens` bounds a description and
    `rating_tokens` a rating; a model that thinks aloud before it answers needs more.
    """

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    concurrency: int = 4
    timeout_s: float = 60.0
    retries: int = 4
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float = 5.0
    max_tokens: int = 5_000_000
    answer_tokens: int = 300
    rating_tokens: int = 32

    def __post_init__(self) -> None:
        """InvalidRequestError names the setting that can never work."""
        if not self.url.startswith(("http://", "https://")):
            raise InvalidRequestError(f"{SETTINGS_PREFIX}URL is {self.url!r}; give an http(s) URL that ends in /v1")
        if not self.model:
            raise InvalidRequestError(
                f"{SETTINGS_PREFIX}URL is set and {SETTINGS_PREFIX}MODEL is not; name the model the endpoint serves"
            )
        for name, least in (
            ("concurrency", 1),
            ("retries", 0),
            ("answer_tokens", 1),
            ("rating_tokens", 1),
            ("max_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise InvalidRequestError(
                    f"{SETTINGS_PREFIX}{name.upper()} is {getattr(self, name)}; give at least {least}"
                )
        if self.timeout_s <= 0 or min(self.price_in, self.price_out, self.max_cost) < 0:
            raise InvalidRequestError("an LLM timeout must be above 0, and prices and cost must not be negative")
