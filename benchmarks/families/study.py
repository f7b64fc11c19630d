"""One family on one data set: trained beside its untrained control, served, interpreted by a refresh, and steered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.families.here import Here, Say, refresh, serving
from benchmarks.families.requests import Requests
from benchmarks.families.steering import SteeringPanel, panel_size, steer_facets
from recsae.cli.training import train_models
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.splits import UserPart
from recsae.pipeline.runs import RunConfig
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.runtime import OnnxRecommender
from recsae.sae.runtime import SparseAutoencoder

# Requests of a user steering is chosen on, and measured on (those a base model did not learn from).
_CHOSEN_ON, _MEASURED_ON = 8, 2
_SCREENED = 128


@dataclass(frozen=True)
class Found:
    """Figures of one family: of its base model and of the refresh, which left the `triple`."""

    family: str
    rows: str
    base: dict[str, float]
    seconds: float
    scores: dict[str, float]
    triple: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def study(workspace: Workspace, dataset: DatasetEntry, family: str, *, threads: int, say: Say) -> Found:
    """The base model and the refresh of one family; what was trained on this very data is not trained again."""
    trained = train_models(
        workspace, dataset, family=family, name=family, reuse=True, progress=lambda _, words: say(words)
    )
    model, control = trained.model, trained.control
    here = Here(workspace.home, Path(dataset.folder), workspace.pseudonym_key_file())
    with serving(here, {model.name: model.version, control.name: control.version}) as address:
        config = RunConfig(model.name, dataset.version, control_model=control.name)
        run = refresh(here, address, config, threads=threads, say=say)
    bundle = ModelBundle.from_artifact(workspace.artifacts().fetch("model", model.version))
    return Found(
        family=bundle.description.family,
        rows=bundle.description.hooks[0].rows,
        base=dict(model.scores),
        seconds=round(run.updated_at - run.created_at, 1),
        scores=dict(run.scores),
        triple=asdict(run.triple),
    )


def steer(
    workspace: Workspace, dataset: DatasetEntry, triple: Mapping[str, str], *, threads: int
) -> list[dict[str, Any]]:
    """The gain of each facet the data set has, by the concepts of a triple; JSON types."""
    store = workspace.artifacts()
    recommender = OnnxRecommender(ModelBundle.from_artifact(store.fetch("model", triple["model_version"])), threads)
    sae = SparseAutoencoder.load(store.fetch("sae", triple["sae_version"]).folder, triple["sae_version"])
    dictionary = store.fetch("dictionary", triple["dictionary_version"])
    requests = Requests.of(workspace, dataset)

    def panel(part: UserPart, newest: int, most: int) -> SteeringPanel:
        users = requests.users(recommender, part, newest=newest, most=min(most, panel_size(recommender)))
        return SteeringPanel(recommender, users, requests.facets, sae)

    every = requests.whole.n_users * _CHOSEN_ON
    found = steer_facets(
        panel(UserPart.CONSTRUCTION, _CHOSEN_ON, every),
        panel(UserPart.CONSTRUCTION, _MEASURED_ON, _SCREENED),
        panel(UserPart.VERIFICATION, _MEASURED_ON, every),
        Dictionary.load(dictionary.folder, dictionary.version),
        requests.names,
    )
    return [asdict(one) for one in found]
