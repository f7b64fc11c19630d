"""Use case: which concepts fire for one subject, and what they contribute to each recommended item.

Embed (recommender) -> encode -> pool the rows -> join the dictionary -> rank and attribute (`attribute`), or a refusal
in a sentence when this activation is reconstructed worse than 99 in 100 were in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.attribution import refusal
from recsae.concepts.row_pooling import pooled_firings, unexplained_share
from recsae.errors import InvalidRequestError
from recsae.pipeline.triples import Triple
from recsae.rpc.deadline import Deadline
from recsae_interpreter.handlers.attribute import Attribution, Firing, ItemAttributor
from recsae_interpreter.handlers.candidates import Candidates, check_candidates
from recsae_interpreter.library import Library
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.readings import Batch, Floats, Reading, Subject, first_subject
from recsae_interpreter.recommender import NotOfferedError, Recommender

MOST_CONCEPTS = 256
MOST_ITEMS = 100
DEFAULT_ITEMS = 10


@dataclass(frozen=True)
class ExplainQuery:
    """Whom to explain: a subject, or rows the caller has. 0 = every concept, ten items.

    `candidates` are the items to explain of a hook with a row per pair, none = those the model would recommend.
    """

    model: str = ""
    subject: Subject = field(default_factory=Subject)
    batch: Batch | None = None
    candidates: Sequence[str] = ()
    concept_limit: int = 0
    item_limit: int = 0
    deadline: Deadline = field(default_factory=Deadline)


@dataclass(frozen=True)
class Explanation:
    """What fires, strongest first, and where scores come from; `refusal` says why not when it is not empty.

    `shares` float32 [n] are the unexplained shares of the rows of the `reading`, `used` bool [n] those that count;
    `no_items` says why there are none when they could be expected.
    """

    triple: Triple
    firings: tuple[Firing, ...]
    unexplained_share: float
    refusal: str
    items: tuple[Attribution, ...]
    reading: Reading
    shares: Floats
    used: NDArray[np.bool_]
    no_items: str = ""
    model: str = ""


class ExplainHandler:
    """Explains activations."""

    def __init__(self, library: Library, recommender: Recommender, metrics: InterpreterMetrics) -> None:
        """Keeps its collaborators."""
        self._library = library
        self._recommender = recommender
        self._candidates = Candidates(library, recommender)
        self._attributor = ItemAttributor(recommender)
        self._metrics = metrics

    def __call__(self, query: ExplainQuery) -> Explanation:
        """The explanation; FailedPreconditionError when this model version has no promoted SAE."""
        _check(query)
        reading = self._given(query.batch, query.deadline) if query.batch else self._embed(query)
        loaded = self._library.version(self._library.address(reading.model, reading.hook), reading.model_version)
        x = reading.activations
        codes = loaded.sae.encode(x)
        x_hat = loaded.sae.decode(codes)
        shares = loaded.sae.relative_error(x, x_hat)
        used = shares <= loaded.sae.error_p99
        refused = "" if used.any() else _refusal(shares, loaded.sae.error_p99, reading)
        # Of rows that are all refused people still see what fires.
        firings = tuple(
            Firing(loaded.dictionary.by_latent(one.latent), one.value, one.strength, one.at)
            for one in pooled_firings(
                codes, loaded.dictionary.strengths(codes.indices, codes.values), used | bool(refused)
            )
        )
        named = query.concept_limit or len(firings)
        self._metrics.explained.labels(loaded.model, "refused" if refused else "yes").inc()
        items: tuple[Attribution, ...] = ()
        no_items = "" if loaded.steerable else loaded.read_only("no scores follow from it")
        if not refused and not no_items:
            k = query.item_limit or DEFAULT_ITEMS
            try:
                items = self._attributor.attribute(loaded, reading, used, firings, named, k, query.deadline)
            except NotOfferedError as error:
                no_items = str(error)
        return Explanation(
            triple=loaded.triple,
            firings=firings[:named],
            unexplained_share=unexplained_share(x, x_hat, loaded.sae.mean),
            refusal=refused,
            items=items,
            reading=reading,
            shares=shares,
            used=used,
            no_items=no_items,
            model=loaded.model,
        )

    def _embed(self, query: ExplainQuery) -> Reading:
        address = query.model or self._library.model("").model
        candidates = query.candidates
        if not candidates and query.item_limit > DEFAULT_ITEMS:  # up to that many a recommender chooses by itself
            candidates = self._candidates.best(address, query.subject, query.item_limit, query.deadline)
        return self._recommender.embed(address, query.subject, query.deadline, candidates)

    def _given(self, batch: Batch, deadline: Deadline) -> Reading:
        facts = self._recommender.describe(batch.model, batch.model_version, deadline)
        return first_subject(batch, facts.hook(batch.hook))


def _check(query: ExplainQuery) -> None:
    if query.concept_limit > MOST_CONCEPTS:
        raise InvalidRequestError(f"concept_limit {query.concept_limit}; ask for at most {MOST_CONCEPTS}, 0 for all")
    if query.item_limit > MOST_ITEMS:
        raise InvalidRequestError(f"item_limit {query.item_limit}; ask for at most {MOST_ITEMS}")
    if query.batch is None and not query.subject.named:
        raise InvalidRequestError("no subject came; set user_id, history or activation")
    if query.batch is not None and query.candidates:
        raise InvalidRequestError("an activation has its candidates already; leave candidate_item_ids out")
    check_candidates(query.candidates)


def _refusal(shares: Floats, error_p99: float, reading: Reading) -> str:
    best = refusal(float(shares.min()), error_p99)
    return best if len(shares) == 1 else f"{best}; this is the best of {len(shares)} {reading.kind_words}"
