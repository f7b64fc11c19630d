"""What every part of the study reads: a base model, its activations, an SAE trained on them, and its dictionary.

SAEs are kept in the cache by their settings. Not here: what is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base_models import BASES, TrainedBase, base_model
from benchmarks.fidelity_rows import Activations, Targets, export_activations, target_rows
from recsae.concepts.build import build_dictionary
from recsae.concepts.described import RankedRows
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.evidence import Embed, of_histories
from recsae.concepts.features import build_features
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.facets import FacetSpec, build_facets
from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import Split
from recsae.recommenders.families.sasrec import Sasrec
from recsae.sae.config import SaeConfig, Variant
from recsae.sae.dot_product import DotProductRanker, ExcludedItems
from recsae.sae.execution import Execution
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ShardReader
from recsae.sae.training import train_sae
from recsae.sae.weights import load_weights
from recsae.store.files import canonical_json

_EMBEDDED_AT_ONCE = 256
_BATCH = 1_024


@dataclass(frozen=True)
class RowPlace:
    """Where rows stand: user, position and newest item, int32 [n]."""

    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]

    @classmethod
    def of(cls, targets: Targets) -> RowPlace:
        """The rows of `targets`: what a row has consumed ends with its newest item."""
        ends = targets.offsets[1:]
        newest = targets.consumed[ends - 1]
        return cls(
            targets.user.astype(np.int32),
            (np.diff(targets.offsets) - 1).astype(np.int32),
            newest.astype(np.int32),
        )


@dataclass(frozen=True)
class Material:
    """One base model opened up by one SAE.

    `folder` holds the SAE. `activations` are shards of the SAE's users, of all others and of single items; `targets`
    the two newest rows of every held-out user. A dictionary reads at most `rows_per_part` rows of each part.
    """

    base: TrainedBase
    activations: Activations
    targets: Targets
    sae: SparseAutoencoder
    folder: Path
    facets: FacetSpec = field(default_factory=FacetSpec)
    rows_per_part: int = 50_000
    seed: int = 0

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.base.dataset

    @property
    def split(self) -> Split:
        """Leave-one-out histories and targets."""
        return self.base.split

    @property
    def model(self) -> Sasrec:
        """The network, in evaluation mode."""
        return self.base.model

    @cached_property
    def item_vectors(self) -> NDArray[np.float32]:
        """E, float32 [n_items + 1, d], row 0 = padding."""
        vectors: NDArray[np.float32] = self.model.items.weight.detach().numpy().copy()
        vectors[0] = 0
        return vectors

    @cached_property
    def item_bias(self) -> NDArray[np.float32]:
        """b, float32 [n_items + 1]."""
        bias: NDArray[np.float32] = self.model.item_bias.detach().numpy()
        return bias

    @cached_property
    def inputs(self) -> DictionaryInputs:
        """What a dictionary is built from."""
        items, histories = self.dataset.items, self.split.before_test
        return DictionaryInputs(
            model=self.base.record["name"],
            model_version=self.base.record["identity"],
            sae=self.sae,
            shards=ShardReader.open_folders(
                self.activations.sae, self.activations.held_out, self.activations.items
            ).mapped(),
            histories=histories,
            pseudonyms=self.dataset.users.ids,
            item_ids=items.ids,
            titles=items.titles,
            facets=build_facets(items, histories, self.facets, self._sae_users(histories)),
            embed=embedder(self.model),
            max_history=self.model.shape.max_history,
            item_vectors=self.item_vectors,
            rows_per_part=self.rows_per_part,
            scores=load_weights(self.folder).scores,
            seed=self.seed,
        )

    def _sae_users(self, histories: Histories) -> Histories:
        parts = split_users(self.dataset.users.ids, self.seed)
        return histories.keep((parts == UserPart.SAE)[histories.users])

    @cached_property
    def ranked(self) -> RankedRows:
        """The two newest rows of verification users with what they predict, ranked in full by the model's own head."""
        rows = np.flatnonzero(self.inputs.parts[self.targets.user] == UserPart.VERIFICATION)
        return self.ranked_rows(rows)

    def ranked_rows(self, rows: NDArray[np.int64]) -> RankedRows:
        """Some rows of `targets`."""
        targets, inputs = self.targets.take(rows), self.inputs
        places = RowPlace.of(targets)
        features = build_features(inputs.windows(places), inputs.facets, inputs.log_counts)
        ranker = DotProductRanker(
            self.item_vectors[1:],
            targets.item - 1,
            biases=self.item_bias[1:],
            excluded=ExcludedItems(targets.offsets, targets.consumed - 1),
        )
        return RankedRows(self.sae, targets.x, targets.user, features, ranker)

    @cached_property
    def dictionary(self) -> Dictionary:
        """Described and verified, with described NDCG."""
        return build_dictionary(self.inputs, ranked=self.ranked)


def load_base(name: str, data: Path, cache: Path, *, threads: int = 1) -> TrainedBase:
    """The base model of that name, from the cache or trained."""
    config = replace(BASES[name].candidates[0], threads=threads)
    return base_model(name, data, cache / "base", config)


def open_up(
    base: TrainedBase, cache: Path, *, k: int, width: int, seed: int = 0, threads: int = 1, variant: Variant = "topk"
) -> Material:
    """The base model with an SAE of these settings, from the cache or trained."""
    activations = export_activations(base, cache / "activations")
    folder = trained_sae(base, activations, cache, k=k, width=width, seed=seed, threads=threads, variant=variant)
    sae = SparseAutoencoder.load(folder, folder.name)
    return Material(base, activations, target_rows(base, activations), sae, folder)


def trained_sae(
    base: TrainedBase,
    activations: Activations,
    cache: Path,
    *,
    k: int,
    width: int,
    seed: int,
    threads: int,
    variant: Variant = "topk",
) -> Path:
    """Folder of an SAE on the rows of its users and the items."""
    rows = activations.training()
    config = replace(
        SaeConfig.defaults_for(rows.d, rows.n, k=k, width=width, seed=seed, variant=variant), batch_size=_BATCH
    )
    settings = hashlib.sha256(canonical_json({"rows": rows.fingerprint, "config": asdict(config)})).hexdigest()[:16]
    folder = cache / "saes" / f"{base.record['name']}-w{width}-k{k}-s{seed}-{settings}"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train_sae(rows, config, folder, execution=Execution(threads=threads))
        (folder / "done").touch()
    return folder


def embedder(model: Sasrec) -> Embed:
    """Histories of item indices to their last activation, float32 [B, d]."""

    def embed(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        out = np.zeros((len(histories), model.shape.dim), np.float32)
        cut = [history[-model.shape.max_history :] for history in histories]
        lengths = np.array([len(history) for history in cut])
        # Like lengths together, so that little is padding.
        order = np.argsort(lengths, kind="stable")
        for at in range(0, len(order), _EMBEDDED_AT_ONCE):
            chosen = order[at : at + _EMBEDDED_AT_ONCE]
            padded = np.zeros((len(chosen), int(lengths[chosen].max())), np.int64)
            for row, one in enumerate(chosen):
                padded[row, : lengths[one]] = cut[one]
            with torch.no_grad():
                states = model(torch.from_numpy(padded)).numpy()
            out[chosen] = states[np.arange(len(chosen)), lengths[chosen] - 1]
        return out

    return of_histories(embed)
