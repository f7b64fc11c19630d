"""Exporters of the torch models, and what a test sees of a model without them."""

from __future__ import annotations

from typing import Any

import torch
from tests.unit.torch_models import (
    ITEM_IDS,
    MAX_HISTORY,
    USER_IDS,
    BackwardGru,
    Gru,
    Interests,
    Matrix,
    Ranker,
    Sasrec,
    seeded,
)

from recsae.sdk.exporter import Exporter
from recsae.sdk.subjects import Subject
from recsae.sdk.torch import Place, attach

HISTORIES = (("i-3", "i-60", "i-7"), ("i-1",), ("i-9", "unheard-of", "i-2", "i-2", "i-5"))
KNOWN = ((3, 60, 7), (1,), (9, 2, 2, 5))


def given(*histories: tuple[str, ...]) -> list[Subject]:
    return [Subject(item_ids=history) for history in histories]


def sasrec(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(Sasrec())
    tap = attach(model, "norm", row="last", hook="sequence", also=[Place("block_0", "blocks.0", "last")])
    values = {"item_vectors": model.items.weight[1:], "max_history": MAX_HISTORY, **more}
    values = {"items": ITEM_IDS, **values}
    return model, tap.exporter(name="sasrec", embed=lambda batch: model(batch.history), **values)


def gru(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(Gru())
    tap = attach(model, "gru", row="last")
    values = {"head": lambda x: x @ model.items.weight.T, "max_history": MAX_HISTORY, **more}
    embed = lambda batch: model(batch.history, batch.lengths)  # noqa: E731
    return model, tap.exporter(name="gru", items=ITEM_IDS, embed=embed, **values)


def backward(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(BackwardGru())
    tap = attach(model, "norm", row=-1)
    values = {"item_vectors": model.items.weight[1:], "max_history": MAX_HISTORY, "padding": "left", **more}
    return model, tap.exporter(name="backward", items=ITEM_IDS, embed=lambda batch: model(batch.history), **values)


def matrix(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(Matrix())
    values = {"item_vectors": model.items.weight, "item_bias": model.bias, "reads_history": False, **more}
    exporter = attach(model, "users").exporter(
        name="bpr",
        items={one: place for place, one in enumerate(ITEM_IDS)},
        users={one: place for place, one in enumerate(USER_IDS)},
        embed=lambda batch: model(batch.user),
        **values,
    )
    return model, exporter


def interests(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(Interests())
    tap = attach(model, "out", row="interest")
    values = {"item_vectors": model.items.weight[1:], "max_history": MAX_HISTORY, **more}
    return model, tap.exporter(name="multi", items=ITEM_IDS, embed=lambda batch: model(batch.history), **values)


def ranker(**more: Any) -> tuple[Any, Exporter]:
    model = seeded(Ranker())
    tap = attach(model, "hidden", row="pair")
    values = {"head": model.out, "max_history": MAX_HISTORY, "empty_history": True, **more}
    embed = lambda batch: model(batch.history, batch.candidate)  # noqa: E731
    return model, tap.exporter(name="ctr", items=ITEM_IDS, embed=embed, **values)


def padded(*histories: tuple[int, ...], left: bool = False) -> torch.Tensor:
    zeros = [[0] * (MAX_HISTORY - len(one)) for one in histories]
    rows = [[*zero, *one] if left else [*one, *zero] for zero, one in zip(zeros, histories, strict=True)]
    return torch.tensor(rows)


def seen(model: Any, path: str, *inputs: torch.Tensor) -> torch.Tensor:
    """What a module gives, seen by a hook of the test's own."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda *call: kept.append(call[2]))
    with torch.no_grad():
        model(*inputs)
    handle.remove()
    return kept[0]
