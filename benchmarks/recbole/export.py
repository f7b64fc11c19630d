"""Writes a RecBole model as one ONNX graph, the way a team would hand over a model this project has never seen.

    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole.export --model SASRec --epochs 1 --out FOLDER
    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole.export --checkpoint saved/NAME.pth --out FOLDER

FOLDER/model.onnx computes RecBole's own `full_sort_predict` from inputs of RecBole's own names: `item_id_list` int64
[batch, L], oldest first, right-padded with 0, and `item_length` int64 [batch], or `user_id` int64 [batch]; its output
`scores` is float32 [batch, n_items + 1], index 0 being padding. items.json and, where users are read, users.json hold
the ids of index 1, 2, ...; reference.safetensors inputs and RecBole's scores of them. No other part of this project
opens a checkpoint, a pickle; RecBole does so here, in its own environment. What becomes of the graph:
`recsae model import`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from benchmarks.recbole.material import example_folder, material, prepare
from benchmarks.recbole.settings import MODELS
from benchmarks.recbole.training import train
from benchmarks.recbole.workplace import pickles_opened_by_recbole, recbole_workplace
from recsae.datasets.atomic import load_atomic
from recsae.errors import InvalidRequestError
from recsae.store.files import write_atomic, write_json_atomic

_OPSET = 17
_REFERENCES = 64
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Recommender:
    """A RecBole model and what its inputs mean: `inputs` are examples by RecBole's name, [n, ...] each."""

    model: Any
    inputs: Mapping[str, NDArray[np.int64]]
    item_ids: Sequence[str]
    titles: Sequence[str]
    user_ids: Sequence[str]


class FullSort(nn.Module):
    """`full_sort_predict` of a RecBole model as a module of its named inputs."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Scores float32 [batch, n_items + 1]."""
        scores: Tensor = self.model.full_sort_predict(dict(zip(self.names, inputs, strict=True)))
        return scores.reshape(inputs[0].shape[0], -1)


def main() -> None:
    """Trains or opens a model and writes its folder."""
    arguments = _arguments()
    out = arguments.out.resolve()
    torch.set_num_threads(1)
    recommender = _opened(arguments) if arguments.checkpoint else _trained(arguments)
    export(recommender, out)
    _say(f"{out / 'model.onnx'}: {', '.join(recommender.inputs)} -> scores, {len(recommender.item_ids)} items")


def export(recommender: Recommender, out: Path) -> None:
    """Writes the folder, after the graph gave the scores of the model on batches of one and of all examples.

    InvalidRequestError when it does not.
    """
    module = FullSort(recommender.model, list(recommender.inputs)).eval()
    examples = {name: torch.from_numpy(values) for name, values in recommender.inputs.items()}
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated; RecBole's models keep to what it handles
        scores = module(*examples.values()).numpy()
        torch.onnx.export(
            module,
            tuple(values[:2] for values in examples.values()),
            str(out / "model.onnx"),
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(examples),
            output_names=["scores"],
            dynamic_axes={name: {0: "batch"} for name in (*examples, "scores")},
        )
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    for rows in (slice(0, 1), slice(None)):
        (found,) = session.run(None, {name: values[rows] for name, values in recommender.inputs.items()})
        worst = float(np.abs(found - scores[rows]).max())
        if worst > _TOLERANCE * max(1.0, float(np.abs(scores).max())):
            raise InvalidRequestError(f"the graph's scores differ from RecBole's by up to {worst:.2g}; not exported")
    write_atomic(out / "reference.safetensors", save({**recommender.inputs, "scores": np.ascontiguousarray(scores)}))
    write_json_atomic(out / "items.json", {"ids": list(recommender.item_ids), "titles": list(recommender.titles)})
    if "user_id" in recommender.inputs:
        write_json_atomic(out / "users.json", {"ids": list(recommender.user_ids)})


def _trained(arguments: argparse.Namespace) -> Recommender:
    settings = json.loads(arguments.settings)
    folder = (arguments.data or example_folder()).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        dataset = prepare(folder, Path(scratch))
        with recbole_workplace():
            made = material(dataset, Path(scratch), arguments.model, settings, "cpu", arguments.seed)
            trained = train(made, epochs=arguments.epochs, patience=MODELS[arguments.model].patience, say=_say)
            inputs = _examples(trained.model, made.test)
    return Recommender(trained.model, inputs, made.item_ids, made.titles, made.user_ids)


def _opened(arguments: argparse.Namespace) -> Recommender:
    checkpoint = arguments.checkpoint.resolve()
    with recbole_workplace(arguments.within.resolve()), pickles_opened_by_recbole():
        from recbole.quick_start.quick_start import load_data_and_model

        config, model, whole, _, _, test = load_data_and_model(str(checkpoint))
        data = Path(config["data_path"]).resolve()
    item_ids, user_ids = ([str(token) for token in whole.field2id_token[name][1:]] for name in ("item_id", "user_id"))
    items = load_atomic(data, config["dataset"]).dataset.items
    titles = dict(zip(items.ids, items.titles, strict=True))
    model.to("cpu")
    return Recommender(model, _examples(model, test), item_ids, [titles[item] for item in item_ids], user_ids)


def _examples(model: Any, test: Any) -> Mapping[str, NDArray[np.int64]]:
    """The first test rows as the model reads them; histories are cut to every length there is."""
    rows = test.dataset.inter_feat[:_REFERENCES]
    if not hasattr(model, "ITEM_SEQ"):
        return {"user_id": rows["user_id"].numpy().astype(np.int64)}
    items = rows["item_id_list"].numpy().astype(np.int64)
    lengths = np.minimum(rows["item_length"].numpy(), 1 + np.arange(len(items)) % items.shape[1]).astype(np.int64)
    return {"item_id_list": np.where(np.arange(items.shape[1]) < lengths[:, None], items, 0), "item_length": lengths}


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    exportable = [name for name, model in MODELS.items() if model.kind != "context"]
    parser = argparse.ArgumentParser(description="A RecBole model as one ONNX graph.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=exportable, default="SASRec", help="train this one; 1 epoch takes seconds")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--settings", default="{}", help='RecBole settings as JSON, such as {"hidden_size": 32}')
    parser.add_argument("--data", type=Path, default=None, help="folder with NAME.inter; ML-100K out of RecBole itself")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument(
        "--checkpoint", type=Path, default=None, help="open this one instead: a pickle, trust its source"
    )
    parser.add_argument(
        "--within", type=Path, default=Path(), help="folder RecBole was run in, for paths in a checkpoint"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
