"""The small made-up world of the fault run: a model, two triples of it and one of another version of it, and lists.

Lists that responses are held against are computed here, from the definition of each policy and the SAE's own weights,
without the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.effects import CausalRecord, DoseEffect, range_of
from recsae.concepts.estimates import UNKNOWN, Estimate
from recsae.concepts.records import ConceptRecord, ConceptStatus
from recsae.datasets.schema import ItemTable
from recsae.pipeline.triples import Triple
from recsae.recommenders.bundle import ModelBundle, publish_bundle
from recsae.recommenders.families.sasrec import SasrecShape, untrained_sasrec
from recsae.recommenders.families.sequence import export_network
from recsae.recommenders.runtime import OnnxRecommender
from recsae.rpc.deadline import Deadline
from recsae.sae.export import TrainingFacts, encoder_graph, export_sae
from recsae.sae.weights import SaeWeights
from recsae.steering.delta import Steered, Steerer
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import Operation, OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef
from recsae.store.artifacts import ArtifactStore
from recsae_recommender.pipeline import Job, ModelPipeline
from recsae_recommender.ranking import RankAsk

MODEL = "faulty"
N_ITEMS, N_USERS, MAX_HISTORY, DIM, WIDTH, K, LIST = 200, 8, 12, 16, 48, 6, 10
P95 = 0.5
USERS = tuple(f"u-{number}" for number in range(N_USERS))
Listed = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class World:
    """What the artifact store holds: two triples of the version served, and `elsewhere`, of another version."""

    root: Path
    version: str
    triples: tuple[Triple, Triple]
    elsewhere: Triple

    def histories(self) -> dict[str, list[str]]:
        """A history of known items per user."""
        random = np.random.default_rng(1)
        return {user: [f"i-{item}" for item in 1 + random.permutation(N_ITEMS)[:MAX_HISTORY]] for user in USERS}


def publish_world(folder: Path) -> World:
    """Makes and publishes it under `folder`."""
    store = ArtifactStore(str(folder / "artifacts"))
    numbers = range(1, N_ITEMS + 1)
    items = ItemTable(tuple(f"i-{item}" for item in numbers), tuple(f"Item {item}" for item in numbers), {})
    versions = []
    for seed in range(2):
        bundle = folder / f"bundle-{seed}"
        bundle.mkdir()
        export_network(untrained_sasrec(SasrecShape(N_ITEMS, MAX_HISTORY, dim=DIM), seed), items, bundle, MODEL)
        versions.append(publish_bundle(store, bundle))
    first, second = (_publish_triple(store, folder, versions[0], seed) for seed in range(2))
    return World(folder / "artifacts", versions[0], (first, second), _publish_triple(store, folder, versions[1], 2))


def made_weights(seed: int) -> SaeWeights:
    """Random unit decoder rows, tied; nothing is learnt."""
    w_dec = np.random.default_rng(seed).standard_normal((WIDTH, DIM)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    zeros = np.zeros(DIM, np.float32)
    return SaeWeights(w_dec.copy(), np.zeros(WIDTH, np.float32), w_dec, zeros, zeros.copy())


def concept(seed: int, latent: int) -> str:
    """Id of the concept a latent stands for."""
    return f"c-{seed}-{latent}"


@dataclass
class Reference:
    """The lists of the version served, bare and under policies of the first triple."""

    world: World
    _lists: dict[tuple[str, tuple[tuple[Operation, ...], ...]], Listed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bundle = ModelBundle.from_artifact(ArtifactStore(str(self.world.root)).fetch("model", self.world.version))
        self._recommender = OnnxRecommender(bundle, 1)
        self._weights = made_weights(0)
        self._encoder = OnnxEncoder(encoder_graph(self._weights, K), DIM)
        self._histories = self.world.histories()

    def listed(self, user: str, policies: Sequence[tuple[Operation, ...]]) -> Listed:
        """The list of a user under the operations of policies, in their order; none = the bare list."""
        key = (user, tuple(policies))
        if key not in self._lists:
            self._lists[key] = self._computed(user, key[1])
        return self._lists[key]

    def _computed(self, user: str, policies: tuple[tuple[Operation, ...], ...]) -> Listed:
        made = tuple(
            PlanPolicy(PolicyRef(str(place), 1), tuple(map(self._planned, operations)), Scope(), Window(), "")
            for place, operations in enumerate(policies)
        )
        plan = Plan(1, MODEL, self.world.triples[0], made, DIM, "sequence", 0.0)
        indices = self._recommender.bundle.index_of_known(self._histories[user])
        job = Job(indices, SteerContext(user), RankAsk(LIST, np.unique(indices)))
        pipeline = ModelPipeline(self._recommender, _Fixed(Steerer(plan, self._encoder)), None)  # type: ignore[arg-type]
        (ranking,) = pipeline.serve([job])
        ids = self._recommender.bundle.item_ids
        found = zip(ranking.items.indices, ranking.items.scores, strict=True)
        return tuple((ids[index - 1], float(np.float32(score))) for index, score in found)

    def _planned(self, operation: Operation) -> PlanOperation:
        latent = int(operation.concept_id.rsplit("-", 1)[1])
        value = operation.value if operation.kind is OperationKind.SCALE else operation.value * P95
        return PlanOperation(latent, operation.kind, float(np.float32(value)), self._weights.w_dec[latent])


@dataclass(frozen=True)
class _Fixed:
    """Steers by one plan, always."""

    steerer: Steerer

    def steer(
        self,
        x: Floats,
        contexts: Sequence[SteerContext],
        _sizes: Sequence[int],
        _deadlines: Sequence[Deadline] = (),
    ) -> Steered:
        return self.steerer.steer(x, contexts, 0.0)


def _publish_triple(store: ArtifactStore, folders: Path, model_version: str, seed: int) -> Triple:
    folder = folders / f"sae-{seed}"
    folder.mkdir()
    export_sae(made_weights(seed), K, TrainingFacts(error_p99=10.0, mean_norm=1.0), folder)
    config: dict[str, object] = {"hook": "sequence", "model": MODEL, "steerable": True}
    sae_version = store.publish("sae", folder, config=config, lineage={"model": model_version})
    effects = _harmless()
    records = tuple(
        ConceptRecord(
            id=concept(seed, latent),
            latent=latent,
            label=f"Concept {latent} of {seed}",
            status=ConceptStatus.VERIFIED,
            density=0.1,
            p95=P95,
            confidence=0.5,
            causal=effects,
        )
        for latent in range(WIDTH)
    )
    halves: NDArray[np.float32] = np.full(WIDTH, P95, np.float32)
    folder = folders / f"dictionary-{seed}"
    folder.mkdir()
    arrays = ConceptArrays(halves, halves, halves, halves, np.full(WIDTH, 0.1, np.float32))
    Dictionary("", model_version, sae_version, records, arrays, {}).save(folder)
    lineage = {"model": model_version, "sae": sae_version}
    version = store.publish("dictionary", folder, config={"model": MODEL, "hook": "sequence"}, lineage=lineage)
    return Triple(model_version, sae_version, version)


def _harmless() -> CausalRecord:
    """As if every dose had been measured and cost next to nothing: the run is about faults, not about safety."""
    nothing, doses = Estimate(1.0, 1.0, 1.0), []
    for operation, measured in (("add", (-2.0, 2.0)), ("ablate", (0.0,)), ("scale", (0.0, 3.0))):
        doses += [
            DoseEffect(operation, dose, UNKNOWN, nothing, nothing, nothing, UNKNOWN, 0.5, 0.009, 0.01, 0.5, 0.25)
            for dose in measured
        ]
    ranges = tuple(range_of(operation, tuple(doses)) for operation in ("add", "ablate", "scale"))
    return CausalRecord("genre=Horror", 2_000, tuple(doses), ranges, True, 0.99, 0.98, 0.2, "f" * 16)
