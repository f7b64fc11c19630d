"""`recsae model train`: every family from a data set to a published model beside its untrained control."""

import pytest
from typer.testing import CliRunner

from recsae.cli.app import app
from recsae.cli.commands.data import add_dataset
from recsae.cli.training import TrainedModels, train_models
from recsae.cli.workspace import DatasetEntry, Workspace
from recsae.datasets.planted import make_planted
from recsae.errors import NotFoundError
from recsae.recommenders.bundle import ModelBundle
from recsae.recommenders.families.table import FAMILIES
from recsae.store.pseudonyms import pseudonym

DATA = make_planted(seed=0, n_users=40, n_items=30, n_concepts=3, mean_length=12).dataset
NAMES = [one.name for one in FAMILIES]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def dataset(workspace: Workspace) -> DatasetEntry:
    return add_dataset(workspace, DATA)


@pytest.fixture(scope="module")
def trained(workspace: Workspace, dataset: DatasetEntry) -> dict[str, TrainedModels]:
    """One epoch of each family, under its own name."""
    return {name: train_models(workspace, dataset, family=name, epochs=1) for name in NAMES}


def bundle_of(workspace: Workspace, version: str) -> ModelBundle:
    return ModelBundle.from_artifact(workspace.artifacts().fetch("model", version))


@pytest.mark.parametrize("family", NAMES)
def test_a_family_is_published_with_scores_beside_an_untrained_control(
    workspace: Workspace, dataset: DatasetEntry, trained: dict[str, TrainedModels], family: str
) -> None:
    made = trained[family]
    assert (made.model.name, made.control.name) == (family, f"{family}-untrained")
    assert {"hr@10", "ndcg@10", "popularity_ndcg@10"} <= set(made.model.scores)
    assert made.model.version != made.control.version
    assert not made.control.scores
    for entry in (made.model, made.control):
        artifact = workspace.artifacts().fetch("model", entry.version)
        assert artifact.lineage["dataset"] == dataset.version
        assert artifact.config["family"] == family
        assert bundle_of(workspace, entry.version).name == entry.name


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_users_stand_in_a_bundle_by_pseudonym_and_only_where_the_model_reads_them(
    workspace: Workspace, trained: dict[str, TrainedModels], family: object
) -> None:
    chosen = next(one for one in FAMILIES if one is family)
    ids = bundle_of(workspace, trained[chosen.name].model.version).user_ids
    key = workspace.pseudonym_key()
    assert ids == (tuple(pseudonym(key, user) for user in DATA.users.ids) if chosen.reads_users else ())


def test_what_was_trained_on_this_data_is_used_again_by_its_own_family_alone(
    workspace: Workspace, dataset: DatasetEntry, trained: dict[str, TrainedModels]
) -> None:
    said: list[str] = []
    again = train_models(workspace, dataset, family="gru4rec", reuse=True, progress=lambda _, words: said.append(words))
    assert again == trained["gru4rec"]
    assert said == ["gru4rec is trained already"]
    first = train_models(workspace, dataset, family="gru4rec", name="mine", epochs=1)
    other = train_models(workspace, dataset, family="sasrec", name="mine", epochs=1, reuse=True)
    assert other.model.version != first.model.version


def test_an_unknown_family_is_refused_with_the_list_of_those_there_are(
    workspace: Workspace, dataset: DatasetEntry
) -> None:
    with pytest.raises(NotFoundError, match=r"'word2vec'.*sasrec, gru4rec, comirec"):
        train_models(workspace, dataset, family="word2vec")


def test_the_command_trains_the_family_asked_for_and_its_help_names_them_all(
    workspace: Workspace, dataset: DatasetEntry
) -> None:
    arguments = ["--home", str(workspace.home), "model", "train", "--family", "gru4rec", "--epochs", "1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert '"gru4rec-untrained"' in done.stdout
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["model", "train", "--help"]).stdout
    assert [name for name in NAMES if name not in shown] == []
