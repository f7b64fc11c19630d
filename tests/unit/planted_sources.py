"""Recommenders of every kind over the planted world: one vector per subject, several, one per pair, one per user id.

The SAE is the truth itself, a latent per planted concept, so that what a refresh makes of rows is all that is tested.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.unit.bare_source import BareSource

from recsae.datasets.planted_activations import PlantedActivations, PlantedSpec, make_planted_activations
from recsae.datasets.schema import publish_dataset
from recsae.pipeline.advance import StepResult, advance
from recsae.pipeline.contracts import AdvanceRun, InMemoryTaskQueue, RunStep
from recsae.pipeline.lanes import Lane
from recsae.pipeline.leases import InMemoryLeaseStore, Lease
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import InMemoryRunStore, start_refresh
from recsae.pipeline.runs import RunConfig
from recsae.pipeline.sources import (
    INTEREST,
    PAIR,
    Crossing,
    Floats,
    ItemActivations,
    ItemVectors,
    RankedItems,
    SourceModel,
    Subject,
    Tensors,
)
from recsae.pipeline.stages.table import STAGES, shards_of
from recsae.pipeline.steps import StageFunction, StepContext, run_step
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.weights import SaeWeights
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import InMemoryChannelStore
from recsae.store.pseudonyms import pseudonym

D, INTERESTS, K = 32, 2, 4
KEY = b"key"
MAIN = Lane("", "m", None)
SUBJECTS = SourceModel("m", "a" * 16, "sequence", D, 20, 120, 4_096, dot_product=True, all_positions=True)
_THRESHOLD = 1.0


def make_world(
    n_users: int = 400, n_items: int = 120, mean_length: int = 24, families: tuple[int, ...] = (8, 6)
) -> PlantedActivations:
    """Two families of facets; one concept for each value."""
    spec = PlantedSpec(
        d=D, families=families, n_users=n_users, n_items=n_items, mean_length=mean_length, noise_share=0.02
    )
    return make_planted_activations(spec)


@dataclass
class PlantedSource(BareSource):
    """Serves `model` over a planted world; `asked` counts subjects embedded. `known_items`: None = all of the world."""

    world: PlantedActivations
    model: SourceModel = SUBJECTS
    known_items: tuple[str, ...] | None = None
    key: bytes = KEY
    asked: list[int] = field(default_factory=list)

    @cached_property
    def index(self) -> dict[str, int]:
        return {item_id: at for at, item_id in enumerate(self.world.dataset.items.ids, 1)}

    @cached_property
    def of_user(self) -> dict[str, Floats]:
        """The vector of each user by pseudonym: of all it did but the last two."""
        histories, ids = self.world.dataset.histories, self.world.dataset.users.ids
        x = self.world.embed([histories.of(user)[:-2] for user in range(len(ids))])
        return {pseudonym(self.key, user_id): x[at] for at, user_id in enumerate(ids)}

    def indices(self, item_ids: Sequence[str]) -> NDArray[np.int32]:
        return np.array([self.index[item_id] for item_id in item_ids], np.int32)

    def vectors(self, subjects: Sequence[Subject]) -> Floats:
        """Rows [n, interests * d]; each interest carries its own of the planted concepts, so that any shows all."""
        self.asked.append(len(subjects))
        if self.model.ignores_history:
            return np.array([self.of_user.get(one.user_id, self.world.offset) for one in subjects], np.float32)
        histories = [self.indices(subject.history) for subject in subjects]
        if self.model.rows != INTEREST:
            return self.world.embed(histories)
        strengths, world = self.world.strengths(histories), self.world
        carried = [np.arange(strengths.shape[1]) % INTERESTS == at for at in range(INTERESTS)]
        return np.concatenate([world.offset + strengths[:, of] @ world.directions[of] for of in carried], axis=1)

    def describe(self, model: str) -> SourceModel:
        return self.model

    def every_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        assert model.all_positions
        prefixes = [Subject(one.history[: at + 1], one.user_id) for one in subjects for at in range(len(one.history))]
        return self.vectors(prefixes)

    def last_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        return self.vectors(subjects)

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        ids = self.item_ids(model)
        if self.model.ignores_history:
            yield ItemActivations(ids, self.world.embed([self.indices([item_id]) for item_id in ids]))
            return
        yield ItemActivations(ids, self.vectors([Subject((item_id,)) for item_id in ids]))

    def item_ids(self, model: SourceModel) -> tuple[str, ...]:
        return self.world.dataset.items.ids if self.known_items is None else self.known_items

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        if not model.dot_product:
            return None
        ids = self.item_ids(model)
        return ItemVectors(ids, self.world.item_vectors[self.indices(ids)], None)

    def crossing(self, model: SourceModel, subjects: Sequence[Subject], candidates: Sequence[str] = ()) -> Crossing:
        if self.model.rows != PAIR:
            return Crossing(self.vectors(subjects))
        pairs = [Subject((*one.history, candidate), one.user_id) for one in subjects for candidate in candidates]
        vectors = self.world.item_vectors[self.indices(candidates)]
        return Crossing(self.vectors(pairs), {"candidate": np.tile(vectors, (len(subjects), 1))})

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        ids = tuple(candidates) or self.item_ids(model)
        assert len(activations) == len(exclude) * (len(candidates) or model.interests)
        if candidates:
            assert passthrough is not None
            scores = (activations * passthrough["candidate"]).sum(axis=1).reshape(len(exclude), -1)
        else:
            every = activations @ self.world.item_vectors[self.indices(ids)].T
            scores = every.reshape(len(exclude), model.interests, -1).max(axis=1)
        lists = []
        for row, without in zip(scores, exclude, strict=True):
            left_out = set(without)
            order = [at for at in np.argsort(-row, kind="stable").tolist() if ids[at] not in left_out][:k]
            lists.append(RankedItems(tuple(ids[at] for at in order), tuple(float(row[at]) for at in order)))
        return lists


def true_sae(world: PlantedActivations) -> StageFunction:
    """Stage train: the planted directions as an SAE."""

    def train(context: StepContext) -> StepResult:
        w = world.directions
        bias = np.full(len(w), -_THRESHOLD, np.float32)
        weights = SaeWeights(w, bias, w, world.offset, world.offset)
        with tempfile.TemporaryDirectory() as folder:
            export_sae(weights, K, TrainingFacts(error_p99=0.5, mean_norm=1.0, scores={}, config={}), Path(folder))
            context.workspace.put_folder("train/sae", Path(folder))
        return StepResult({}, {"config": {}})

    return train


def platform_of(source: PlantedSource, root: Path) -> Platform:
    """Everything in memory but the files below `root`."""
    return Platform(
        runs=InMemoryRunStore(), leases=InMemoryLeaseStore(), queue=InMemoryTaskQueue(),
        artifacts=ArtifactStore(str(root)), artifact_root=str(root), source=source, channels=InMemoryChannelStore(),
    )  # fmt: skip


def refresh(
    source: PlantedSource,
    root: Path,
    *,
    only: Sequence[str] = (),
    platform: Platform | None = None,
    **config: bool,
) -> StepContext:
    """A refresh over the source's world, on a new platform unless one is given; a context to read its work with.

    With `only`, other stages do nothing.
    """

    def nothing(context: StepContext) -> StepResult:
        return StepResult({}, {})

    stages = dict(STAGES) | {"train": true_sae(source.world)}
    stages |= {name: nothing for name in stages if only and name not in only}
    platform = replace(platform or platform_of(source, root), source=source)
    version = publish_dataset(platform.artifacts, source.world.dataset, KEY)
    run = start_refresh(platform.runs, RunConfig(source.model.name, version, **config))  # type: ignore[arg-type]
    advance(platform, run.id, shards_of)
    queue = platform.queue
    assert isinstance(queue, InMemoryTaskQueue)
    while queue.tasks:
        match queue.tasks.pop(0):
            case AdvanceRun():
                advance(platform, run.id, shards_of)
            case RunStep() as step:
                run_step(platform, step, stages)
    step = RunStep(run.id, "describe", "all")
    return StepContext(platform, platform.runs.get(run.id), step, platform.workspace(run.id), Lease())
