"""One family on one data set: trained beside its untrained control, served, interpreted by a refresh, and steered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.families.here import Here, Say, refresh, serving
from benchmarks.families.steering import Steered, SteeringPanel, Users, panel_size, steer_facets
from recsae.cli.training import train_models
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.splits import UserPart, split_users
from recsae.datasets.attributes import typed_rows
from recsae.datasets.facets import build_facets
from recsae.datasets.schema import load_dataset
from recsae.datasets.splits import leave_one_out
from recsae.pipeline.runs import Run, RunConfig
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.evaluation import UserFacts
from recsae.recommenders.runtime import OnnxRecommender
from recsae.sae.runtime import SparseAutoencoder
from recsae.store.pseudonyms import pseudonym

# The facets of the study of concepts (docs/results.md): genres both MovieLens sets have.
FACETS = ("genre=Sci-Fi", "genre=Horror", "genre=Children's", "genre=Romance", "genre=War")
_SCREENED_USERS = 64


@dataclass(frozen=True)
class Found:
    """Figures of one family: of its base model, of the refresh, and of steering by facet."""

    family: str
    version: str
    rows: str
    base: dict[str, float]
    seconds: float
    scores: dict[str, float]
    steered: tuple[Steered, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def study(workspace: Workspace, dataset: DatasetEntry, family: str, *, threads: int, say: Say) -> Found:
    """Everything about one family; what was trained before on this very data is not trained again."""
    trained = train_models(
        workspace, dataset, family=family, name=family, reuse=True, progress=lambda _, words: say(words)
    )
    model, control = trained.model, trained.control
    here = Here(workspace.home, Path(dataset.folder), workspace.pseudonym_key_file())
    with serving(here, {model.name: model.version, control.name: control.version}) as address:
        config = RunConfig(model.name, dataset.version, control_model=control.name)
        run = refresh(here, address, config, threads=threads, say=say)
    say("steering")
    bundle = ModelBundle.from_artifact(workspace.artifacts().fetch("model", model.version))
    recommender = OnnxRecommender(bundle, threads)
    return Found(
        family=bundle.description.family,
        version=model.version,
        rows=recommender.hooks[0].rows,
        base=dict(model.scores),
        seconds=round(run.updated_at - run.created_at, 1),
        scores=dict(run.scores),
        steered=tuple(steer(workspace, dataset, recommender, run)),
    )


def steer(workspace: Workspace, dataset: DatasetEntry, recommender: OnnxRecommender, run: Run) -> Sequence[Steered]:
    """The gain of each facet the data set has, by the concepts the run found."""
    data = load_dataset(Path(dataset.folder))
    split = leave_one_out(data.histories)
    key = workspace.pseudonym_key()
    facts = UserFacts(
        [pseudonym(key, user_id) for user_id in data.users.ids], typed_rows(data.users.columns, len(data.users.ids))
    )
    histories, parts = split.before_test, split_users(facts.ids)
    usable = (split.test > 0) & (histories.lengths > 0)
    table = build_facets(data.items, split.train)
    names = [name for name in FACETS if name in table.names]
    columns = table.matrix[:, [table.names.index(name) for name in names]].tocsr()

    store, most = workspace.artifacts(), histories.n_users
    sae = SparseAutoencoder.load(store.fetch("sae", run.triple.sae_version).folder, run.triple.sae_version)

    def panel(part: UserPart, most: int) -> SteeringPanel:
        users = np.flatnonzero(usable & (parts == part)).astype(np.int64)
        size = min(panel_size(recommender, len(users)), most)
        users = users[np.unique(np.linspace(0, len(users) - 1, size).astype(np.int64))]
        requests = Users.of(
            facts.inputs(recommender, histories, users),
            [histories.of(user) for user in users.tolist()],
            split.test[users],
        )
        return SteeringPanel(recommender, requests, columns, sae)

    found = store.fetch("dictionary", run.triple.dictionary_version)
    return steer_facets(
        panel(UserPart.CONSTRUCTION, most),
        panel(UserPart.CONSTRUCTION, _SCREENED_USERS),
        panel(UserPart.VERIFICATION, most),
        Dictionary.load(found.folder, found.version),
        names,
    )
