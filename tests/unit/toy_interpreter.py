"""A recommender in memory whose answers can be worked out by hand, and small triples to explain it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.errors import NotFoundError
from recsae.pipeline.triples import Triple
from recsae.recommenders.address import split_address
from recsae.recommenders.description import RowKind
from recsae.rpc.deadline import Deadline
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights
from recsae.steering.segments import Equals, validate_segment
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import PRODUCTION, Channel, ModelChannels
from recsae_interpreter.library import Library
from recsae_interpreter.loading import load_triple
from recsae_interpreter.metrics import InterpreterMetrics
from recsae_interpreter.readings import (
    HeadRows,
    HookFacts,
    ItemTable,
    ModelFacts,
    Reading,
    Rows,
    ScoredItem,
    Subject,
    UserIds,
    UserPage,
)

D, WIDTH, K, ITEMS = 8, 20, 4, 15
MODEL_VERSION = "a" * 16
IDS = tuple(f"i-{item}" for item in range(ITEMS))
VECTORS = np.random.default_rng(1).normal(size=(ITEMS, D)).astype(np.float32)
Floats = NDArray[np.float32]


def activations(user: str, rows: int = 1) -> Floats:
    """Whatever a user id or a history stands for, float32 [rows, D]: the same for the same words."""
    seed = int.from_bytes(user.encode()[-6:].rjust(1), "big")
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)


@dataclass(frozen=True)
class ToyRecommender:
    """See `recsae_interpreter.recommender.Recommender`.

    Scores: item vector . row, the largest over interests; of a pair its row bent by tanh. `calls` are counted by name.
    """

    rows: RowKind = "subject"
    interests: int = 1
    hooks: tuple[str, ...] = ("final",)
    fixed: Mapping[str, Floats] = field(default_factory=dict)
    ignores_history: bool = False
    stored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads_segments: bool = True
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def describe(self, model: str, model_version: str, deadline: Deadline) -> ModelFacts:
        hooks = tuple(HookFacts(name, self.rows, self.interests) for name in self.hooks)
        return ModelFacts(
            split_address(model).model, MODEL_VERSION, hooks, ignores_history=self.ignores_history, item_count=ITEMS
        )

    def embed(self, model: str, subject: Subject, deadline: Deadline, candidates: Sequence[str] = ()) -> Reading:
        address = split_address(model)
        self.calls.append(("embed", (model, subject, tuple(candidates))))
        hook = address.hook or self.hooks[0]
        base = self.of(subject) if hook == self.hooks[0] else self.of(subject)[:, ::-1].copy()
        ids: tuple[str, ...] = ()
        if self.rows == "pair":
            ids = tuple(candidates) or IDS[:10]
            base = base * self.bent(ids)
        if subject.history is None and self.stored and subject.user_id not in self.stored:
            raise NotFoundError(f"user {subject.user_id!r} is not in the history store")
        history = tuple(self.stored.get(subject.user_id, ()) if subject.history is None else subject.history)
        return Reading(address.model, MODEL_VERSION, base, hook, self.rows, ids, history, position=len(history))

    def of(self, subject: Subject) -> Floats:
        """Rows of a subject before candidates come in."""
        words = "+".join(subject.history or ()) or subject.user_id
        return self.fixed.get(words, activations(words, self.interests))

    def bent(self, ids: Sequence[str]) -> Floats:
        return np.asarray(1.0 + 0.5 * VECTORS[[IDS.index(item) for item in ids]], np.float32)

    def embed_histories(
        self,
        model: str,
        model_version: str,
        histories: Sequence[Sequence[str]],
        deadline: Deadline,
        candidates: Sequence[str] = (),
    ) -> Rows:
        each = [self.embed(model, Subject(history=one), deadline, candidates or one[-1:]) for one in histories]
        subject = np.repeat(np.arange(len(each)), [len(one) for one in each])
        return Rows(MODEL_VERSION, np.concatenate([one.activations for one in each]), subject)

    def embed_subjects(
        self, model: str, model_version: str, subjects: Sequence[Subject], deadline: Deadline
    ) -> list[Reading]:
        self.calls.append(("embed_subjects", tuple(subjects)))
        return [self.embed(model, one, deadline) for one in subjects]

    def users(self, page: UserPage, deadline: Deadline) -> UserIds:
        """Three at most on a page; a segment `Equals("letter", x)` holds those whose id begins so."""
        self.calls.append(("users", page))
        if page.segment is not None and self.reads_segments:
            validate_segment(page.segment)
        begin = int(page.cursor or 0)
        end = min(begin + 3, len(self.stored))
        wanted = page.segment.value if isinstance(page.segment, Equals) else ""
        found = [one for one in list(self.stored)[begin:end] if one.startswith(str(wanted))]
        return UserIds(tuple(found[: page.limit]), str(end) if end < len(self.stored) else "")

    def best_items(self, model: str, subject: Subject, k: int, deadline: Deadline) -> list[str]:
        self.calls.append(("best_items", k))
        return list(IDS[:k])

    def rank(
        self, reading: Reading, lists: Sequence[HeadRows], *, k: int, deadline: Deadline, candidates: Sequence[str] = ()
    ) -> list[list[ScoredItem]]:
        return [self.ranked(reading, one, k, candidates) for one in lists]

    def ranked(self, reading: Reading, rows: HeadRows, k: int, candidates: Sequence[str]) -> list[ScoredItem]:
        if self.rows == "pair":
            ids: Sequence[str] = [reading.item_ids[place] for place in rows.places.tolist()]
            scores = np.tanh(rows.activations).sum(axis=1)
        else:
            ids = list(candidates) or [item for item in IDS if item not in reading.history]
            scores = self.scores(rows.activations)[[IDS.index(item) for item in ids]]
        best = sorted(zip(ids, scores.tolist(), strict=True), key=lambda one: -one[1])[:k]
        return [ScoredItem(item, score, item.upper()) for item, score in best]

    def scores(self, x: Floats) -> Floats:
        return np.asarray((x @ VECTORS.T).max(axis=0), np.float32)

    def rank_each(
        self, readings: Sequence[Reading], lists: Sequence[HeadRows], *, k: int, deadline: Deadline
    ) -> list[list[ScoredItem]]:
        self.calls.append(("rank_each", len(lists)))
        return [self.ranked(of, one, k, ()) for of, one in zip(readings, lists, strict=True)]

    def items(self, reading: Reading, deadline: Deadline) -> ItemTable | None:
        if self.rows != "subject":
            return None
        vectors = np.concatenate([np.zeros((1, D), np.float32), VECTORS])
        return ItemTable({item: place for place, item in enumerate(IDS, 1)}, vectors, None)


def publish(folder: Path, address: str, *, hook: str = "final", seed: int = 0, **facts: Any) -> Triple:
    """Publishes an SAE of `address` with random directions and a dictionary of it.

    `facts`: error_p99, steerable, and the `catalogue` that lies beside it.
    """
    rng = np.random.default_rng(seed)
    store = ArtifactStore(str(folder / "store"))
    work = folder / f"work-{address}-{seed}"
    w_dec = rng.normal(size=(WIDTH, D)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(D, np.float32)
    training = TrainingFacts(error_p99=facts.pop("error_p99", 10.0), mean_norm=1.0)
    export_sae(SaeWeights(w_dec, np.zeros(WIDTH, np.float32), w_dec, zeros, zeros), K, training, work / "sae")
    catalogue = facts.pop("catalogue", None)
    config = {"hook": hook, "model": address, **facts}
    sae = store.publish("sae", work / "sae", config=config, lineage={"model": MODEL_VERSION})
    ones = np.ones(WIDTH, np.float32)
    p95 = np.linspace(0.5, 2.0, WIDTH, dtype=np.float32)
    concepts = tuple(
        ConceptRecord(f"c-{address}-{latent}", latent, label=f"Concept {latent}", status=ConceptStatus.VERIFIED)
        for latent in range(WIDTH)
    )
    (work / "dictionary").mkdir(exist_ok=True)
    arrays = replace(ConceptArrays(ones, ones, ones, ones, ones), p95=p95)
    Dictionary("", MODEL_VERSION, sae, concepts, arrays, {}).save(work / "dictionary")
    if catalogue is not None:
        catalogue.save(work / "dictionary")
    lineage = {"model": MODEL_VERSION, "sae": sae}
    version = store.publish("dictionary", work / "dictionary", config={"model": address, "hook": hook}, lineage=lineage)
    return Triple(MODEL_VERSION, sae, version)


def library_of(folder: Path, promoted: Mapping[str, Triple]) -> Library:
    """A library that has loaded these triples, all in production."""
    store = ArtifactStore(str(folder / "store"))
    library = Library(lambda model, triple: load_triple(store, model, triple))
    complete = library.update(
        {
            address: ModelChannels({PRODUCTION: Channel(PRODUCTION, triple, 1)}, {triple.model_version: triple})
            for address, triple in promoted.items()
        }
    )
    assert complete, library.shelf.failed
    return library


def metrics() -> InterpreterMetrics:
    """Metrics of a registry of their own."""
    return InterpreterMetrics(CollectorRegistry())
