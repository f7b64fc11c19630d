"""A RecBole model in RecBole's own process, plugged in with the SDK: started by test_recbole.py, in that environment.

    python live_recbole.py MODEL FOLDER INTERPRETER

Trains an epoch, writes its item and user ids into FOLDER/ids.json, prints "ready PORT VERSION" and answers lines of
JSON, {"users": [...], "histories": [[...], ...]}, with each row's reason and the bytes of its scores in hexadecimal,
from the model with a tap on it and from a copy nobody touched.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.recbole.material import Material, example_folder, material, prepare
from benchmarks.recbole.training import train
from benchmarks.recbole.workplace import recbole_workplace
from torch import Tensor

from recsae.sdk.exporter import Exporter
from recsae.sdk.torch import SteerContext, Tap, attach

NAME, HOOK, DIM, MAX_HISTORY = "tiny", "sequence", 16, 8
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "SASRec": {"hidden_size": DIM, "inner_size": DIM, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": MAX_HISTORY},
    "GRU4Rec": {"embedding_size": DIM, "hidden_size": 2 * DIM, "MAX_ITEM_LIST_LENGTH": MAX_HISTORY},
    "BPR": {"embedding_size": DIM},
    "LightGCN": {"embedding_size": DIM},
}

Inputs = Mapping[str, Tensor]
Scores = Callable[[Any, Inputs], Tensor]


def trained(name: str) -> tuple[Any, Material]:
    """A RecBole model after one epoch by RecBole's own trainer."""
    with tempfile.TemporaryDirectory() as scratch:
        dataset = prepare(example_folder(), Path(scratch))
        with recbole_workplace():
            made = material(dataset, Path(scratch), name, {**SETTINGS[name], "train_batch_size": 2048}, "cpu", 0)
            model = train(made, epochs=1, patience=1, say=lambda _: None).model
    return model.eval(), made


def plugged_in(name: str, model: Any, made: Material) -> tuple[Tap, Exporter, Scores]:
    """What a team writes: where the activations are, how the model is run, and how it answers requests."""
    same: dict[str, Any] = {"name": NAME, "items": made.item_ids, "max_history": MAX_HISTORY}
    if name in ("SASRec", "GRU4Rec"):
        place = {"SASRec": "trm_encoder.layer.1", "GRU4Rec": "dense"}[name]
        tap = attach(model, place, row="last", hook=HOOK)
        exporter = tap.exporter(
            embed=lambda batch: model.forward(batch.history, batch.lengths),
            item_vectors=model.item_embedding.weight[1:],
            **same,
        )
        return tap, exporter, lambda one, inputs: one.full_sort_predict(inputs)
    same |= {"users": made.user_ids, "reads_history": False}
    if name == "BPR":
        tap = attach(model, "user_embedding", hook=HOOK)
        exporter = tap.exporter(
            embed=lambda batch: model.get_user_embedding(batch.user),
            item_vectors=model.item_embedding.weight[1:],
            **same,
        )
        return tap, exporter, lambda one, inputs: one.full_sort_predict(inputs).view(len(inputs["user_id"]), -1)
    # LightGCN's propagated vectors come out of no module: the server puts the tap where it scores.
    tap = attach(model, hook=HOOK)
    with torch.no_grad():
        users, items = model.forward()
    exporter = tap.exporter(embed=lambda batch: users[batch.user], item_vectors=items[1:], **same)

    def scores(one: Any, inputs: Inputs) -> Tensor:
        if one is model:
            return torch.matmul(tap(users[inputs["user_id"]]), items.transpose(0, 1))
        found: Tensor = one.full_sort_predict(inputs).view(len(inputs["user_id"]), -1)
        return found

    return tap, exporter, scores


def inputs_of(name: str, made: Material, request: Mapping[str, Any]) -> Inputs:
    """RecBole's inputs for the users or histories asked about."""
    if name in ("BPR", "LightGCN"):
        places = {user: place for place, user in enumerate(made.user_ids, start=1)}
        return {"user_id": torch.tensor([places[user] for user in request["users"]])}
    places = {item: place for place, item in enumerate(made.item_ids, start=1)}
    histories = [[places[item] for item in history] for history in request["histories"]]
    padded = [[*history, *[0] * (MAX_HISTORY - len(history))] for history in histories]
    return {"item_id_list": torch.tensor(padded), "item_length": torch.tensor([len(one) for one in histories])}


def main() -> None:
    """Serves until its input ends."""
    name, folder, interpreter = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    model, made = trained(name)
    bare = copy.deepcopy(model)
    tap, exporter, scores = plugged_in(name, model, made)
    (folder / "ids.json").write_text(json.dumps({"items": made.item_ids, "users": made.user_ids}))
    serving = exporter.serve("127.0.0.1:0")
    tap.follow(interpreter)
    print("ready", serving.port, exporter.version, flush=True)  # noqa: T201
    for line in sys.stdin:
        request = json.loads(line)
        inputs = inputs_of(name, made, request)
        with torch.no_grad():
            untouched = scores(bare, inputs)
            contexts = [SteerContext(user) for user in request["users"]]
            with tap.steering(contexts, lengths=inputs.get("item_length")) as steering:
                found = scores(model, inputs)
            outside = scores(model, inputs)
        answer = {"reasons": [str(one.reason) for one in steering.receipts], "error": str(steering.error or "")}
        kinds = {"steered": found, "bare": untouched, "outside": outside}
        answer |= {kind: [row.numpy().tobytes().hex() for row in rows] for kind, rows in kinds.items()}
        print(json.dumps(answer), flush=True)  # noqa: T201
    serving.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
