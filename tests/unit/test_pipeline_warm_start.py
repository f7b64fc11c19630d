"""Where training starts: from the SAE in production, turned when the model was retrained, and else from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.bare_source import BareSource

from recsae.concepts.features import Windows
from recsae.concepts.probe_set import ProbeSet
from recsae.datasets.planted import make_planted
from recsae.datasets.schema import publish_dataset
from recsae.pipeline.contracts import InMemoryTaskQueue, RunStep
from recsae.pipeline.lanes import Lane
from recsae.pipeline.leases import InMemoryLeaseStore, Lease
from recsae.pipeline.platform import Platform
from recsae.pipeline.run_store import InMemoryRunStore
from recsae.pipeline.runs import RunConfig, new_run
from recsae.pipeline.sources import Floats, SourceModel, Subject
from recsae.pipeline.stages.before import triple_before
from recsae.pipeline.stages.warm_start import start_folder, start_of
from recsae.pipeline.steps import StepContext
from recsae.pipeline.triples import Triple
from recsae.sae.weights import SaeWeights, load_weights, save_weights
from recsae.store.artifacts import ArtifactStore
from recsae.store.channels import PRODUCTION, InMemoryChannelStore
from recsae.store.events import change_now

DIM, WIDTH, N_ITEMS = 8, 24, 40
MAIN = Lane("", "m", None)
OLD, NEW = "0" * 16, "1" * 16


@dataclass
class Source(BareSource):
    """Reads a history as the sum of its newest three items' vectors."""

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    asked: list[int] = field(default_factory=list)

    def describe(self, model: str) -> SourceModel:
        return SourceModel(model, NEW, "sequence", DIM, 20, N_ITEMS, 512, dot_product=True, all_positions=True)

    def last_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        self.asked.append(len(subjects))
        newest = [[self.ids.index(item) for item in subject.history[-3:]] for subject in subjects]
        return np.array([self.vectors[items].sum(axis=0) for items in newest], np.float32)


@dataclass(frozen=True)
class World:
    """A platform whose production is of model version OLD, and a source that reads version NEW."""

    platform: Platform
    source: Source
    weights: SaeWeights
    rotation: NDArray[np.float32]
    context: StepContext

    @property
    def model(self) -> SourceModel:
        return self.source.describe("m")


def weights_of(seed: int) -> SaeWeights:
    random = np.random.default_rng(seed)
    w_dec = random.normal(size=(WIDTH, DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(DIM, np.float32)
    return SaeWeights(w_dec.copy(), np.zeros(WIDTH, np.float32), w_dec, zeros, zeros.copy())


def make_world(tmp_path: Path, *, probe_rows: int = 200, same: float = 1.0, model_version: str = OLD) -> World:
    """`same`: how much of the new space is the old one turned; the rest is something else."""
    random = np.random.default_rng(0)
    artifacts, channels = ArtifactStore(str(tmp_path)), InMemoryChannelStore()
    dataset = make_planted(seed=1, n_users=40, n_items=N_ITEMS, mean_length=10).dataset
    version = publish_dataset(artifacts, dataset, b"key")
    old_vectors = random.normal(size=(N_ITEMS, DIM)).astype(np.float32)
    rotation = np.linalg.qr(random.normal(size=(DIM, DIM)))[0].astype(np.float32)
    other = random.normal(size=(N_ITEMS, DIM)).astype(np.float32)
    source = Source(tuple(dataset.items.ids), same * old_vectors @ rotation + (1 - same) * other)
    items = random.integers(1, N_ITEMS + 1, size=3 * probe_rows).astype(np.int32)
    start = np.arange(probe_rows, dtype=np.int64) * 3
    x = old_vectors[items.reshape(-1, 3) - 1].sum(axis=1)
    folder = tmp_path / "published"
    for name in ("sae", "dictionary"):
        (folder / name).mkdir(parents=True)
    save_weights(weights_of(3), folder / "sae")
    sae = artifacts.publish("sae", folder / "sae", config={}, lineage={"model": model_version})
    (folder / "dictionary" / "concepts.json").write_text("{}")
    if probe_rows:
        probe = ProbeSet(x, Windows(items, start, start + 3), tuple(dataset.items.ids), np.zeros((0, DIM), np.float32))
        probe.save(folder / "dictionary")
    dictionary = artifacts.publish("dictionary", folder / "dictionary", config={}, lineage={"model": model_version})
    change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
    channels.point("m", PRODUCTION, Triple(model_version, sae, dictionary), change)
    platform = Platform(
        runs=InMemoryRunStore(), leases=InMemoryLeaseStore(), queue=InMemoryTaskQueue(), artifacts=artifacts,
        artifact_root=str(tmp_path), source=source, channels=channels,
    )  # fmt: skip
    run = new_run(RunConfig(model="m", dataset_version=version, width=WIDTH, k=4, warm_start=True), 0.0)
    context = StepContext(platform, run, RunStep(run.id, "train", "all"), platform.workspace(run.id), Lease())
    return World(platform, source, weights_of(3), rotation, context)


def test_the_sae_of_a_model_before_is_turned_into_the_new_space_once(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    start = start_of(world.context, MAIN, world.model, WIDTH)
    assert start.turned
    assert f"of model version {OLD}, turned (100% of the variance explained)" in start.words
    folder = start_folder(world.context, MAIN, start)
    assert folder is not None
    np.testing.assert_allclose(load_weights(folder).w_dec, world.weights.w_dec @ world.rotation, atol=1e-4)
    asked = list(world.source.asked)
    assert start_of(world.context, MAIN, world.model, WIDTH) == start
    assert world.source.asked == asked


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({"probe_rows": 0}, "left too few probe rows to turn it"),
        ({"probe_rows": DIM - 1}, "left too few probe rows to turn it"),
        ({"same": 0.0}, "has little in common with this one"),
    ],
)
def test_what_cannot_be_turned_starts_cold_and_says_why(tmp_path: Path, world: dict[str, float], words: str) -> None:
    made = make_world(tmp_path, **world)  # type: ignore[arg-type]
    start = start_of(made.context, MAIN, made.model, WIDTH)
    assert (start.sae_version, start.turned) == ("", False)
    assert words in start.words
    assert start_folder(made.context, MAIN, start) is None


def test_an_sae_of_this_very_version_is_taken_as_it_is(tmp_path: Path) -> None:
    world = make_world(tmp_path, model_version=NEW)
    start = start_of(world.context, MAIN, world.model, WIDTH)
    assert (start.turned, world.source.asked) == (False, [])
    folder = start_folder(world.context, MAIN, start)
    assert folder is not None
    np.testing.assert_array_equal(load_weights(folder).w_dec, world.weights.w_dec)


def test_what_was_in_production_when_the_run_first_asked_stays_its_start(tmp_path: Path) -> None:
    """A promotion in the middle of a run changes neither its start nor the concepts it looks for."""
    world = make_world(tmp_path, model_version=NEW)
    first = triple_before(world.context)
    change = change_now(actor="test", action="channel.promote", reason="a test", request_id="r")
    world.platform.channels.point("m", PRODUCTION, replace(first, sae_version="9" * 16), change)
    assert triple_before(world.context) == first
    assert start_of(world.context, MAIN, world.model, WIDTH).sae_version == first.sae_version
