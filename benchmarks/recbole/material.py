"""One data set as RecBole reads it, held to our own split.

The order of a user's interactions is ours (`recsae.datasets.schema.Histories`: time, then the order of the file) and is
written as their timestamps: RecBole sorts real timestamps after rounding them to float32, steps of a minute and more.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recbole.settings import FEATURES, MODELS, PROTOCOL, Settings
from recsae.datasets.atomic import load_atomic
from recsae.datasets.schema import Dataset, Histories
from recsae.datasets.splits import Split, leave_one_out
from recsae.errors import CorruptArtifactError, NotFoundError

# Not the data set's own name: whatever is called ml-100k RecBole reads from inside its package.
_NAME = "prepared"


@dataclass(frozen=True)
class Material:
    """RecBole's configuration, data and loaders, and our split in RecBole's item index.

    `users` int64 [n_users]: RecBole's index of each user of `split`. `item_ids` and `user_ids` are in RecBole's order
    from index 1.
    """

    name: str
    fingerprint: str
    split: Split
    users: NDArray[np.int64]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    user_ids: tuple[str, ...]
    config: Any
    train: Any
    test: Any

    @property
    def dataset(self) -> Any:
        """RecBole's training data set: what its models are built from."""
        return self.train._dataset


def example_folder() -> Path:
    """Folder of ML-100K inside the installed RecBole."""
    found = importlib.util.find_spec("recbole")
    if found is None or found.origin is None:
        raise NotFoundError("RecBole is not installed in this Python; use the one of requirements/recbole.txt")
    return Path(found.origin).parent / "dataset_example" / "ml-100k"


def prepare(folder: Path, scratch: Path) -> Dataset:
    """Reads the atomic files in `folder` and writes them into `scratch` with the order as timestamps."""
    dataset = load_atomic(folder).dataset
    out = scratch / _NAME
    out.mkdir(parents=True, exist_ok=True)
    histories = dataset.histories
    order = np.arange(len(histories.items)) - histories.offsets[histories.users]
    rows = zip(histories.users.tolist(), histories.items.tolist(), order.tolist(), strict=True)
    lines = (f"{dataset.users.ids[user]}\t{dataset.items.ids[item - 1]}\t{place}" for user, item, place in rows)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (out / f"{_NAME}.inter").write_text("\n".join([header, *lines]) + "\n")
    for suffix in ("item", "user"):
        if (folder / f"{dataset.name}.{suffix}").is_file():
            shutil.copyfile(folder / f"{dataset.name}.{suffix}", out / f"{_NAME}.{suffix}")
    return dataset


def material(dataset: Dataset, scratch: Path, model: str, settings: Settings, device: str, seed: int) -> Material:
    """What RecBole makes of the prepared files for `model`; call inside `recbole_workplace`.

    CorruptArtifactError when RecBole's test items are not those of our split.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    columns: dict[str, list[str]] = {"inter": ["user_id", "item_id", "timestamp"]}
    if MODELS[model].kind == "context":
        for table, names in FEATURES.get(dataset.name, {}).items():
            columns[table] = [f"{table}_id", *names]
    chosen = {**PROTOCOL, **MODELS[model].settings, **settings, "load_col": columns, "data_path": str(scratch)}
    chosen |= {"use_gpu": device != "cpu", "gpu_id": "0", "seed": seed}
    config = Config(model=model, dataset=_NAME, config_dict=chosen)
    init_seed(config["seed"], config["reproducibility"])
    whole = create_dataset(config)
    item_ids, user_ids = _ids(whole, "item_id"), _ids(whole, "user_id")
    items = np.array([0, *_places(dataset.items.ids, item_ids)])
    train, _, test = data_preparation(config, whole)
    titles = dict(zip(dataset.items.ids, dataset.items.titles, strict=True))
    made = Material(
        name=dataset.name,
        fingerprint=dataset.fingerprint(),
        split=_renumbered(leave_one_out(dataset.histories), items),
        users=np.array(_places(dataset.users.ids, user_ids)),
        item_ids=item_ids,
        titles=tuple(titles[item] for item in item_ids),
        user_ids=user_ids,
        config=config,
        train=train,
        test=test,
    )
    _check(made)
    return made


def _ids(whole: Any, column: str) -> tuple[str, ...]:
    return tuple(str(token) for token in whole.field2id_token[column][1:])


def _places(ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[int]:
    places: Mapping[str, int] = {token: place for place, token in enumerate(theirs, start=1)}
    return [places[token] for token in ours]


def _renumbered(split: Split, items: NDArray[np.int64]) -> Split:
    def histories(of: Histories) -> Histories:
        return Histories(of.offsets, items[of.items].astype(np.int32), of.timestamps)

    valid, test = items[split.valid].astype(np.int32), items[split.test].astype(np.int32)
    return Split(histories(split.train), valid, test, histories(split.before_test))


def _check(made: Material) -> None:
    rows = made.test.dataset.inter_feat
    theirs = np.zeros(len(made.user_ids) + 1, dtype=np.int64)
    theirs[rows["user_id"].numpy()] = rows["item_id"].numpy()
    tested = made.split.test > 0
    wrong = int((theirs[made.users[tested]] != made.split.test[tested]).sum())
    if wrong:
        raise CorruptArtifactError(f"RecBole tests {wrong} of {int(tested.sum())} users on another item than we do")
