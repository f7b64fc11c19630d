"""What a dictionary is built from, and the rows of one part of the users made ready.

Activations come in as `EvidenceSums`, however many shards there are, or as shards, which are then read here. Not here:
where the inputs come from (the pipeline) and what is done with them (`construction`, `judgement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence import Embed
from recsae.concepts.evidence_reading import RowFacts, read_shard
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import RowFeatures, Windows, build_features, locate, log_item_counts, popularity_deciles
from recsae.concepts.firings import Encoder, Firings, encode_rows
from recsae.concepts.labels import label_of, shared_facets
from recsae.concepts.near_misses import Scores
from recsae.concepts.output_differences import Rank
from recsae.concepts.records import RuleRecord
from recsae.concepts.sampling import ROWS_PER_PART, ActivationRows, RowPlaces, RowSample, drawn_or_refused
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

    `shards`: activation rows of all users, and item probes with user -1; `evidence` gives their merged sums where they
    were added up before, and is asked once at most. `histories` are those the activations were collected from,
    `pseudonyms` [n_users] the users' ids there, cut to the newest `max_history`. `item_ids`, `titles`: position i is
    item index i + 1. `item_vectors` [n_items + 1, d] of a dot-product head, None for any other. `embed` maps histories
    and users to activations [B, d]; `reads_history` False = by the user alone, so that nothing can be left out;
    `names_users` = the user matters. `scores` activations [n, d] to what every latent would have before the cut [n, w]
    (None = no near misses); `rank` lists items for activations where the head is no dot product (None = no outputs
    then). `rows_per_part` and `seed` fix the sample; `control` is the summary of a control dictionary; `previous` the
    dictionary whose ids are kept.
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
    evidence: Callable[[], EvidenceSums] | None = None
    scores: Scores | None = None
    rank: Rank | None = None
    reads_history: bool = True
    names_users: bool = False

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
    def index_of(self) -> dict[str, int]:
        """Item indices, from 1, by item id."""
        return {item_id: at for at, item_id in enumerate(self.item_ids, 1)}

    def label(self, rule: RuleRecord) -> str:
        """The label of a rule, in words of these items and facets."""
        shared = shared_facets([self.index_of[item_id] for item_id in rule.item_ids], self.facets)
        return label_of(rule, self.title_of, shared)

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

    @cached_property
    def sums(self) -> EvidenceSums:
        """The sums of all rows: those given, else the shards', read one after the other."""
        if self.evidence is not None:
            return self.evidence()
        facts = RowFacts(self.parts, self.histories, self.log_counts, self.rows_per_part, self.seed)
        return EvidenceSums.merge(read_shard(shard, self.sae, facts) for shard in self.shards)

    def windows(self, rows: RowPlaces) -> Windows:
        """The histories behind some rows; FailedPreconditionError when they are of other histories."""
        return locate(self.histories, rows, self.max_history)


@dataclass(frozen=True)
class PartRows:
    """Rows of one part of the users: sample, firings, histories and features, all in the same order."""

    sample: RowSample
    firings: Firings
    windows: Windows
    features: RowFeatures


def read_part(inputs: DictionaryInputs, part: UserPart) -> PartRows:
    """Encodes and describes the rows drawn of one part. FailedPreconditionError when there are none."""
    sample = drawn_or_refused(inputs.sums.samples[part])
    windows = inputs.windows(sample)
    features = build_features(windows, inputs.facets, inputs.log_counts)
    return PartRows(sample, encode_rows(inputs.sae, sample.x), windows, features)
