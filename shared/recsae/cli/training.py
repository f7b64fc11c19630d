"""From a data set of the workspace to two published bundles: a trained model of a family, and the same one untrained.

The untrained one is the control concepts are judged against: what its dictionary passes, any network would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsae.cli.workspace import DatasetEntry, ModelEntry, Workspace

if TYPE_CHECKING:  # a command that trains nothing loads none of these
    from recsae.datasets.schema import Dataset
    from recsae.datasets.splits import Split
    from recsae.recommenders.bundle import ModelBundle
    from recsae.recommenders.families.family import TrainedFamily

Report = Callable[[float, str], None]
CONTROL_SUFFIX = "-untrained"


@dataclass(frozen=True)
class TrainedModels:
    """The model, with its test scores, and its untrained control."""

    model: ModelEntry
    control: ModelEntry


def train_models(
    workspace: Workspace,
    dataset: DatasetEntry,
    *,
    family: str = "sasrec",
    name: str = "",
    epochs: int = 0,
    seed: int = 0,
    progress: Report = lambda share, text: None,
    reuse: bool = False,
) -> TrainedModels:
    """Trains, exports, scores on the test items and publishes; both models are entered in the workspace.

    `name` "" is the family's. `epochs` 0 is the default schedule. `reuse` returns what is there already when it is of
    this family and was trained on this very data. NotFoundError names the families when there is none of that name.
    """
    from recsae.datasets.schema import load_dataset
    from recsae.datasets.splits import leave_one_out
    from recsae.recommenders.families.family import EpochReport
    from recsae.recommenders.families.table import family as family_named

    chosen, name = family_named(family), name or family
    if reuse and (found := _existing(workspace, dataset, name, family)) is not None:
        progress(1.0, f"{name} is trained already")
        return found

    def report(done: EpochReport) -> None:
        text = f"epoch {done.epoch}: loss {done.loss:.3f}, validation HR@10 {done.hr_at_10:.3f}"
        progress(0.9 * done.epoch / done.epochs, text)

    progress(0.0, f"{name}: reading {dataset.name}")
    data = load_dataset(dataset.folder)
    split = leave_one_out(data.histories)
    source = _Source(workspace, dataset, data, split, reads_users=chosen.reads_users)
    trained = chosen.train(data, split, seed=seed, epochs=epochs, progress=report)
    progress(0.9, f"{name}: exporting and testing")
    model = source.publish(trained, name, scored=True)
    progress(0.97, f"{name}: exporting the untrained control")
    control = source.publish(chosen.untrained(data, split, seed=seed), name + CONTROL_SUFFIX, scored=False)
    progress(1.0, f"published {name} {model.version}")
    return TrainedModels(model, control)


@dataclass(frozen=True)
class _Source:
    """The data a model comes from, and where it goes."""

    workspace: Workspace
    entry: DatasetEntry
    data: Dataset
    split: Split
    reads_users: bool

    def publish(self, trained: TrainedFamily, name: str, *, scored: bool) -> ModelEntry:
        """Exports and publishes a model, with its test scores when it has learnt something; enters it."""
        from recsae.recommenders.bundle import publish_bundle

        ids = self._pseudonyms()
        with tempfile.TemporaryDirectory() as folder:
            bundle = trained.export(self.data, Path(folder), name, user_ids=ids)
            scores = self._scores(bundle, ids) if scored else {}
            lineage = {"dataset": self.entry.version}
            version = publish_bundle(self.workspace.artifacts(), Path(folder), lineage=lineage, scores=scores)
        entry = ModelEntry(name, version, self.entry.name, scores)
        self.workspace.add_model(entry)
        return entry

    def _pseudonyms(self) -> Sequence[str]:
        """What stands for the users in a bundle that knows them; a model that does not needs no key."""
        if not self.reads_users:
            return ()
        from recsae.store.pseudonyms import pseudonym

        key = self.workspace.pseudonym_key()
        return tuple(pseudonym(key, user_id) for user_id in self.data.users.ids)

    def _scores(self, bundle: ModelBundle, ids: Sequence[str]) -> dict[str, float]:
        from recsae.datasets.attributes import typed_rows
        from recsae.recommenders.evaluation import UserFacts, evaluate
        from recsae.recommenders.runtime import OnnxRecommender

        facts = UserFacts(ids, typed_rows(self.data.users.columns, self.data.histories.n_users))
        return evaluate(OnnxRecommender(bundle), self.split, facts=facts).as_scores()


def _existing(workspace: Workspace, dataset: DatasetEntry, name: str, family: str) -> TrainedModels | None:
    """Both models, when their artifacts say that they are of this family and from this version of the data."""
    store = workspace.artifacts()
    entries = {entry.name: entry for entry in workspace.models()}
    model, control = entries.get(name), entries.get(name + CONTROL_SUFFIX)
    if model is None or control is None:
        return None
    for entry in (model, control):
        artifact = store.fetch("model", entry.version)
        if artifact.lineage.get("dataset") != dataset.version or artifact.config.get("family") != family:
            return None
    return TrainedModels(model, control)
