"""Models that know users by id: a vector for each user and each item, scores by dot product, no history read.

What BPR-MF and LightGCN come down to once they are trained. The trunk looks a user up; row 0 of its table, for anybody
it was not trained with, is the mean of those it was. Not here: how the vectors are learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsae.datasets.schema import Dataset
from recsae.datasets.splits import Split
from recsae.errors import InvalidRequestError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.description import BundleDescription, Hook, Inputs
from recsae.recommenders.export import DotProduct, Parts, write_bundle

HOOK = "user"


@dataclass(frozen=True)
class UserItemVectors:
    """users float32 [n_users, d]; items float32 [n_items + 1, d] and bias float32 [n_items + 1], row 0 padding.

    A `family.TrainedFamily`; `known` bool [n_users] are the users it has learnt from.
    """

    family: str
    users: Tensor
    items: Tensor
    bias: Tensor
    known: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, family: str, users: Tensor, items: Tensor, bias: Tensor, split: Split, metrics: Mapping[str, float]
    ) -> UserItemVectors:
        """The vectors as learnt from `split`, out of the network's hands."""
        known = torch.from_numpy(split.train.lengths > 0)
        return cls(family, users.detach().clone(), items.detach().clone(), bias.detach().clone(), known, metrics)

    def export(self, dataset: Dataset, out: Path, name: str, *, user_ids: Sequence[str] = ()) -> ModelBundle:
        """Writes the bundle; InvalidRequestError unless there is one of `user_ids` for every user."""
        if len(user_ids) != len(self.users):
            raise InvalidRequestError(
                f"{name} knows {len(self.users)} users and {len(user_ids)} ids came; give one per user of the data set"
            )
        dim = self.users.shape[1]
        description = BundleDescription(
            name=name,
            family=self.family,
            max_history=1,  # none is read
            n_items=dataset.items.count,
            head="dot_product",
            hooks=(Hook(HOOK, "user", dim, all_positions=False),),
            metrics=self.metrics,
            inputs=Inputs(history=False, user=True, empty_history=True),
            n_users=len(self.users),
        )
        head = DotProduct(self.items.numpy(), self.bias.numpy())
        return write_bundle(Parts(self._lookup(), head), description, dataset.items, out, user_ids=user_ids)

    def _lookup(self) -> nn.Module:
        mean = self.users[self.known].mean(dim=0) if self.known.any() else self.users.mean(dim=0)
        vectors = torch.where(self.known[:, None], self.users, mean)
        return _Lookup(torch.cat([mean[None], vectors]))


class _Lookup(nn.Module):
    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, user: Tensor) -> Tensor:
        return functional.embedding(user, self.table)


def bpr_loss(users: Tensor, positives: Tensor, negatives: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Mean over rows [b, d] of -ln sigmoid(user . (positive - negative) + margin), in nats.

    Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit Feedback"
    (UAI 2009), BPR-Opt without its penalty.
    """
    advantage = (users * (positives - negatives)).sum(dim=1) + margin
    return functional.softplus(-advantage).mean()


def penalty(*vectors: Tensor) -> Tensor:
    """Mean over rows of the summed squares of all `vectors` [b, d]: what BPR-Opt holds against large vectors."""
    return cast(Tensor, sum(one.square().sum() for one in vectors)) / len(vectors[0])
