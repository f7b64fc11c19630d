"""What a dictionary is built from, and the rows of one part of the users made ready.

Not here: where the inputs come from (the pipeline) and what is done with them (`construction`, `judgement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence import Embed
from recsae.concepts.features import RowFeatures, Windows, build_features, locate, log_item_counts, popularity_deciles
from recsae.concepts.firings import Encoder, Firings, encode_rows
from recsae.concepts.sampling import ROWS_PER_PART, ActivationRows, RowSample, sample_rows
from recsae.concepts.splits import UserPart, split_users, unseen_items
from recsae.datasets.facets import FacetTable
from recsae.datasets.schema import Histories
from recsae.errors import InvalidRequestError

if TYPE_CHECKING:
    from recsae.concepts.identity import Previous

# Called with what is being done and the share done, 0 to 1.
Progress = Callable[[str, float], None]


class Autoencoder(Encoder, Protocol):
    """What is needed of an SAE: encode, decoder rows `w_dec` [w, d] and a version."""

    @property
    def w_dec(self) -> NDArray[np.float32]:
        """Decoder rows [w, d]."""
        ...

    @property
    def version(self) -> str:
        """Version of the artifact."""
        ...


@dataclass(frozen=True)
class DictionaryInputs:
    """Everything a dictionary is built from.

    `shards`: activation rows of all users, and item probes with user -1. `histories` are those the activations were
    collected from, `pseudonyms` [n_users] the users' ids there, cut to the newest `max_history`. `item_ids`, `titles`:
    position i is item index i + 1. `item_vectors` [n_items + 1, d] of a dot-product head, None for any other. `embed`
    maps histories to activations [B, d]. `rows_per_part` and `seed` fix the sample; `control` is the summary of a
    control dictionary; `previous` the dictionary whose ids are kept.
    """

    model: str
    model_version: str
    sae: Autoencoder
    shards: Sequence[ActivationRows]
    histories: Histories
    pseudonyms: Sequence[str]
    item_ids: Sequence[str]
    titles: Sequence[str]
    facets: FacetTable
    embed: Embed
    max_history: int
    item_vectors: NDArray[np.float32] | None = None
    previous: Previous | None = None
    control: Mapping[str, Any] | None = None
    rows_per_part: int = ROWS_PER_PART
    seed: int = 0

    def __post_init__(self) -> None:
        """InvalidRequestError when the tables do not describe the same users and items."""
        if len(self.pseudonyms) != self.histories.n_users:
            raise InvalidRequestError(
                f"{len(self.pseudonyms)} pseudonyms for {self.histories.n_users} histories; pass one per user"
            )
        sizes = {len(self.item_ids), len(self.titles), self.facets.matrix.shape[0] - 1}
        if self.item_vectors is not None:
            sizes.add(len(self.item_vectors) - 1)
        if len(sizes) != 1:
            raise InvalidRequestError(
                f"item ids, titles, facets and vectors are of {sorted(sizes)} items; take all from one data set"
            )

    @property
    def n_items(self) -> int:
        """Number of items, padding not counted."""
        return len(self.item_ids)

    @cached_property
    def title_of(self) -> dict[str, str]:
        """Titles by item id."""
        return dict(zip(self.item_ids, self.titles, strict=True))

    @cached_property
    def log_counts(self) -> NDArray[np.float32]:
        """ln(1 + interactions) per item, [n_items + 1]."""
        return log_item_counts(self.histories, self.n_items)

    @cached_property
    def deciles(self) -> NDArray[np.int32]:
        """Popularity decile per item, [n_items + 1], -1 for padding."""
        return popularity_deciles(self.log_counts)

    @cached_property
    def unseen(self) -> NDArray[np.bool_]:
        """Items no label is built from, [n_items + 1]."""
        return unseen_items(self.item_ids, self.seed)

    @cached_property
    def parts(self) -> NDArray[np.int8]:
        """Part of each user, [n_users + 1]; the last entry speaks for item probes and belongs to the SAE's."""
        return np.append(split_users(self.pseudonyms, self.seed), np.int8(UserPart.SAE))


@dataclass(frozen=True)
class PartRows:
    """Rows of one part of the users: sample, firings, histories and features, all in the same order."""

    sample: RowSample
    firings: Firings
    windows: Windows
    features: RowFeatures


def read_part(inputs: DictionaryInputs, part: UserPart) -> PartRows:
    """Samples, encodes and describes the rows of one part."""
    sample = sample_rows(inputs.shards, inputs.parts == part, cap=inputs.rows_per_part, seed=inputs.seed)
    windows = locate(inputs.histories, sample, inputs.max_history)
    features = build_features(windows, inputs.facets, inputs.log_counts)
    return PartRows(sample, encode_rows(inputs.sae, sample.x), windows, features)


def probe(inputs: DictionaryInputs) -> Firings | None:
    """Firings on rows the SAE was trained on, item probes included: they only say who is alive. None without any."""
    wanted = inputs.parts == UserPart.SAE
    if not any(wanted[np.asarray(shard.user)].any() for shard in inputs.shards):
        return None
    return encode_rows(inputs.sae, sample_rows(inputs.shards, wanted, cap=inputs.rows_per_part, seed=inputs.seed).x)
