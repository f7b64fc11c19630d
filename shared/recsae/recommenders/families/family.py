"""What every model family offers: train, stay untrained as a control, export. Needs no torch.

Not here: which families there are (`table`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recsae.datasets.schema import Dataset
from recsae.datasets.splits import Split
from recsae.recommenders.bundle import ModelBundle


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean loss in nats, validation HR@10 and NDCG@10 (full ranking), seconds since the start."""

    epoch: int
    epochs: int
    loss: float
    hr_at_10: float
    ndcg_at_10: float
    seconds: float


Progress = Callable[[EpochReport], None]


class TrainedFamily(Protocol):
    """A network of a family, trained or not, ready to be exported."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Validation figures of the weights kept; empty when untrained. The same for the same seed."""

    def export(self, dataset: Dataset, out: Path, name: str, *, user_ids: Sequence[str] = ()) -> ModelBundle:
        """Writes the bundle `name` into the folder `out`, checks it against the network and returns it, unpublished.

        `user_ids` stand for `dataset.users` in its order and are written into the bundle where the model reads users:
        pseudonyms, where it gets published. FailedPreconditionError when a graph differs from the network.
        """


class Family(Protocol):
    """A kind of model. Equal seeds give equal weights."""

    @property
    def name(self) -> str:
        """What users call it, e.g. `gru4rec`; the family of its bundles."""

    @property
    def reads_users(self) -> bool:
        """True when its networks know the users they were trained with by id, so that an export needs `user_ids`."""

    def train(self, dataset: Dataset, split: Split, *, seed: int, epochs: int, progress: Progress) -> TrainedFamily:
        """Learns from `split.train`, keeps what ranks `split.valid` best; `epochs` 0 is the family's own schedule.

        `progress` is called after each epoch; what it raises ends the training. InvalidRequestError when the split
        leaves nothing to learn from.
        """

    def untrained(self, dataset: Dataset, split: Split, *, seed: int) -> TrainedFamily:
        """A network as initialised: the control that no concept of a trained model should survive on."""
