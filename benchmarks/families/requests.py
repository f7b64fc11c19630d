"""Requests of some users for which the item that followed is known: what steering is chosen and measured on.

The newest two of a user predict its test and its validation item, which no base model learnt from. Of users steering is
chosen on there are earlier ones too: more of them make a loss of 2 % visible, and only losses are compared there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.families.steering import Users
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.attributes import typed_rows
from recsae.datasets.facets import build_facets
from recsae.datasets.schema import Histories, load_dataset
from recsae.datasets.splits import leave_one_out
from recsae.recommenders.evaluation import UserFacts
from recsae.recommenders.runtime import OnnxRecommender
from recsae.store.pseudonyms import pseudonym

# The facets of the study of concepts (docs/results.md): genres both MovieLens sets have.
FACETS = ("genre=Sci-Fi", "genre=Horror", "genre=Children's", "genre=Romance", "genre=War")


@dataclass(frozen=True)
class Requests:
    """The users of a data set as a model reads them, whole histories with their test items, and parts of users.

    `facets` 0/1 [n_items + 1, F] are those of `names` [F].
    """

    facts: UserFacts
    whole: Histories
    parts: NDArray[np.int8]
    names: tuple[str, ...]
    facets: sparse.csr_matrix

    @classmethod
    def of(cls, workspace: Workspace, dataset: DatasetEntry) -> Requests:
        """Those of a data set of the workspace; facets are those of training data."""
        data = load_dataset(Path(dataset.folder))
        key = workspace.pseudonym_key()
        ids = [pseudonym(key, user_id) for user_id in data.users.ids]
        table = build_facets(data.items, leave_one_out(data.histories).train)
        names = tuple(name for name in FACETS if name in table.names)
        columns = table.matrix[:, [table.names.index(name) for name in names]].tocsr()
        facts = UserFacts(ids, typed_rows(data.users.columns, len(ids)))
        return cls(facts, data.histories, split_users(ids), names, columns)

    def users(self, recommender: OnnxRecommender, part: UserPart, *, newest: int, most: int) -> Users:
        """The `newest` requests of each user of a part who has a test item, spread evenly where `most` is fewer."""
        lengths = self.whole.lengths
        owners = np.flatnonzero((self.parts == part) & (lengths >= 3))
        user = np.repeat(owners, newest)
        position = lengths[user] - 1 - np.tile(np.arange(newest), len(owners))
        user, position = user[position >= 1], position[position >= 1]
        kept = np.unique(np.linspace(0, len(user) - 1, min(most, len(user))).astype(np.int64))
        histories = [
            self.whole.of(one)[:end] for one, end in zip(user[kept].tolist(), position[kept].tolist(), strict=True)
        ]
        attributes = [self.facts.attributes[one] for one in user[kept].tolist()]
        inputs = recommender.inputs(histories, [self.facts.ids[one] for one in user[kept].tolist()], attributes)
        targets = self.whole.items[self.whole.offsets[user[kept]] + position[kept]]
        return Users.of(inputs, histories, targets)
