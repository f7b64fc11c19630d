"""Known concepts: how many an SAE finds and the describer names rightly, beside an SAE whose directions are random.

Not here: making the data (`recsae.datasets.planted_activations`), what counts as found (`recsae.concepts.recovery`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recsae.concepts.build import build_dictionary
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.evidence import of_histories
from recsae.concepts.firings import encode_rows
from recsae.concepts.inputs import Autoencoder, DictionaryInputs
from recsae.concepts.recovery import match_planted, rightly_labelled
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.planted_activations import PlantedActivations, PlantedSpec, make_planted_activations
from recsae.sae.batches import ArrayRows
from recsae.sae.config import SaeConfig
from recsae.sae.execution import Execution
from recsae.sae.export import TrainingFacts, export_sae
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ActivationShard, item_probes
from recsae.sae.training import train_sae
from recsae.sae.weights import SaeWeights
from recsae.significance import wilson

_VERSION = "0" * 16
_MAX_HISTORY = 200
_PAIRS = 6

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """What is planted, and the SAE that looks for it: `latents_per_concept` times as wide as there are concepts."""

    spec: PlantedSpec = field(default_factory=PlantedSpec)
    k: int = 4
    latents_per_concept: float = 1.5
    rows_to_see: int = 3_000_000

    @property
    def width(self) -> int:
        """Latents of the SAE."""
        return round(self.latents_per_concept * self.spec.concepts)


def planted_study(threads: int = 1, seeds: Sequence[int] = (0, 1, 2), setting: Setting | None = None) -> dict[str, Any]:
    """`mcc`, `recovered` and `verified` of an SAE trained on each seed's world, and of a frozen random one.

    Means over seeds with t intervals; each seed draws items, histories, directions, noise and the SAE's start anew.
    `with_pairs` is the same where some concepts ask for two facets at once, beside concepts that ask for each of them:
    there an SAE may give a part of the single concept to the pair (absorption, Chanin et al. 2024).
    """
    setting = setting or Setting()
    figures: dict[str, Any] = {"concepts": setting.spec.concepts, "width": setting.width, "d": setting.spec.d}
    figures |= {"seeds": len(seeds), "noise_share": setting.spec.noise_share, "k": setting.k}
    harder = replace(setting, spec=replace(setting.spec, pairs=min(_PAIRS, setting.spec.families[0])))
    return figures | _worlds(setting, seeds, threads) | {"with_pairs": _worlds(harder, seeds, threads)}


def _worlds(setting: Setting, seeds: Sequence[int], threads: int) -> dict[str, Any]:
    found = [one_world(replace(setting, spec=replace(setting.spec, seed=seed)), threads) for seed in seeds]
    trained, random = (_over_seeds([one[side] for one in found]) for side in (0, 1))
    for one in (trained, random):
        one["recovered_ci"] = _at_least_wilson(
            one["recovered_ci"], one["recovered"], len(seeds) * setting.spec.concepts
        )
    return trained | {"frozen_random": random}


def one_world(setting: Setting, threads: int = 1) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of the trained and of the frozen random SAE in one planted world."""
    world = make_planted_activations(setting.spec)
    rows = activation_rows(world)
    parts = split_users(world.dataset.users.ids)
    of_sae = rows.x[parts[rows.user] == UserPart.SAE]
    with tempfile.TemporaryDirectory() as folder:
        trained = _trained(of_sae, setting, Path(folder) / "trained", threads)
        frozen = frozen_random(of_sae, setting.width, setting.k, Path(folder) / "frozen", setting.spec.seed)
    return _figures(world, rows, trained), _figures(world, rows, frozen)


def planted_inputs(world: PlantedActivations, rows: ActivationShard, sae: Autoencoder) -> DictionaryInputs:
    """What a dictionary of the planted world is built from, item probes included."""
    items = np.arange(1, world.dataset.items.count + 1, dtype=np.int32)
    probes = item_probes(world.embed([items[at : at + 1] for at in range(len(items))]), items)
    return DictionaryInputs(
        model="planted",
        model_version=_VERSION,
        sae=sae,
        shards=[rows, probes],
        histories=world.dataset.histories,
        pseudonyms=world.dataset.users.ids,
        item_ids=world.dataset.items.ids,
        titles=world.dataset.items.titles,
        facets=world.facets,
        embed=of_histories(world.embed),
        max_history=_MAX_HISTORY,
        item_vectors=world.item_vectors,
    )


def activation_rows(world: PlantedActivations) -> ActivationShard:
    """The activation of every history up to each of its interactions."""
    histories = world.dataset.histories
    user = histories.users.astype(np.int32)
    position = (np.arange(len(user)) - histories.offsets[user]).astype(np.int32)
    x = world.embed(_prefixes(world, user, position))
    return ActivationShard(x, user, position, histories.items.astype(np.int32))


def frozen_random(x: Floats, width: int, k: int, out: Path, seed: int) -> SparseAutoencoder:
    """An SAE that learnt nothing: random unit directions, the encoder their transpose, centred on the mean of `x`."""
    rng = np.random.default_rng((seed, width))
    w_dec = rng.normal(size=(width, x.shape[1]))
    w_dec = (w_dec / np.linalg.norm(w_dec, axis=1, keepdims=True)).astype(np.float32)
    mean = x.mean(axis=0)
    weights = SaeWeights(w_dec, np.zeros(width, np.float32), w_dec, mean, mean)
    export_sae(weights, k, TrainingFacts(error_p99=1.0, mean_norm=float(np.linalg.norm(x, axis=1).mean())), out)
    return SparseAutoencoder.load(out, "2" * 16)


def _trained(x: Floats, setting: Setting, out: Path, threads: int) -> SparseAutoencoder:
    config = SaeConfig.defaults_for(
        x.shape[1],
        len(x),
        width=setting.width,
        k=setting.k,
        seed=setting.spec.seed,
        epochs=max(1, setting.rows_to_see // len(x)),
    )
    train_sae(ArrayRows(x), config, out, execution=Execution(threads=threads))
    return SparseAutoencoder.load(out, "1" * 16)


def _figures(world: PlantedActivations, rows: ActivationShard, sae: SparseAutoencoder) -> dict[str, float]:
    """On verification users' rows: matched correlation, share recovered with the right label, share verified."""
    inputs = planted_inputs(world, rows, sae)
    dictionary = build_dictionary(inputs)
    verified = np.flatnonzero(inputs.parts[rows.user] == UserPart.VERIFICATION)
    truth = world.strengths(_prefixes(world, rows.user[verified], rows.position[verified]))
    found = match_planted(truth, encode_rows(sae, rows.x[verified]))
    right = rightly_labelled(found, dictionary.concepts, world.concept_facets)
    return {"mcc": found.mcc, "recovered": float(right.mean()), "verified": _verified_share(dictionary)}


def _verified_share(dictionary: Dictionary) -> float:
    return float(dictionary.summary["verified"]["share_of_live"])


def _prefixes(
    world: PlantedActivations, user: NDArray[np.int32], position: NDArray[np.int32]
) -> list[NDArray[np.int32]]:
    histories = world.dataset.histories
    ends = histories.offsets[user] + position + 1
    # The model reads ten items; more of a prefix would only be copied.
    starts = np.maximum(histories.offsets[user], ends - 10)
    return [histories.items[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _over_seeds(figures: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean of each figure over seeds and its 95 % t interval as `<name>_ci`, within what a share can be."""
    result: dict[str, Any] = {}
    n = len(figures)
    for name in figures[0]:
        values = np.array([one[name] for one in figures])
        mean = float(values.mean())
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
        result[name] = round(mean, 4)
        result[f"{name}_ci"] = [round(max(0.0, mean - half), 4), round(min(1.0, mean + half), 4)]
    return result


def _at_least_wilson(interval: list[float], share: float, n: int) -> list[float]:
    """No narrower than Wilson's for `n` concepts: seeds that all find everything leave no spread, and yet are few."""
    low, high = wilson(share, n)
    return [round(min(interval[0], float(low)), 4), round(max(interval[1], float(high)), 4)]


def main() -> None:
    """Prints the study as one line of JSON."""
    parser = argparse.ArgumentParser(description="Planted concepts: how many are found and rightly named.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    print(json.dumps(planted_study(arguments.threads, arguments.seeds)))  # noqa: T201


if __name__ == "__main__":
    main()
