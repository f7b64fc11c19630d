"""Models as other people's tools export them: small torch networks, each with a habit of its own, as one ONNX graph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

N_ITEMS, N_USERS, DIM, LENGTH = 20, 7, 8, 6


class LastOfSequence(nn.Module):
    """Self-attention in miniature: items and places, a causal mean, the row of the newest item, a dot product."""

    def __init__(self, *, padding: str = "right", first_index: int = 1, columns: int = N_ITEMS + 1) -> None:
        super().__init__()
        self.padding, self.first_index = padding, first_index
        self.items = nn.Embedding(N_ITEMS + 1, DIM)
        self.places = nn.Embedding(LENGTH, DIM)
        self.layer = nn.Sequential(nn.Linear(DIM, DIM), nn.GELU(), nn.LayerNorm(DIM))
        self.out = nn.Parameter(torch.randn(columns, DIM))

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        x = self.items(item_seq) + self.places(torch.arange(item_seq.shape[1]))
        x = self.layer(torch.cumsum(x, dim=1) / 10 + x)
        last = item_seq_len - 1 if self.padding == "right" else torch.full_like(item_seq_len, LENGTH - 1)
        row = x.gather(1, last.to(torch.int64).view(-1, 1, 1).expand(-1, 1, DIM)).squeeze(1)
        scores: Tensor = row @ self.out.T
        return scores


class Gru(nn.Module):
    """A GRU over histories padded on the left; reads nothing but them."""

    def __init__(self, padding_index: int = 0) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=padding_index)
        self.gru = nn.GRU(DIM, 2 * DIM, batch_first=True)
        self.dense = nn.Linear(2 * DIM, DIM)
        self.bias = nn.Parameter(torch.randn(N_ITEMS))

    def forward(self, sessions: Tensor) -> Tensor:
        hidden, _ = self.gru(self.items(sessions))
        scores: Tensor = self.dense(hidden[:, -1]) @ self.items.weight[1:].T + self.bias
        return scores


class Residual(nn.Module):
    """What comes out of the layers is added to the mean of the items, behind every tensor of the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM)
        self.layer = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh())
        self.out = nn.Linear(DIM, N_ITEMS + 1)

    def forward(self, history: Tensor) -> Tensor:
        mean = self.items(history).mean(dim=1)
        scores: Tensor = self.out(self.layer(mean) + mean)
        return scores


class Factors(nn.Module):
    """Matrix factorisation: one vector per user, one per item."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(N_USERS + first, DIM), nn.Embedding(N_ITEMS + 1, DIM)

    def forward(self, user_id: Tensor) -> Tensor:
        scores: Tensor = self.users(user_id) @ self.items.weight.T
        return scores


class Pair(nn.Module):
    """A ranker in DIN's manner: the candidate weighs the history; age and gender join; a click's probability."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.gender = nn.Embedding(N_ITEMS + 1, DIM, padding_idx=0), nn.Embedding(3, DIM)
        self.mlp = nn.Sequential(
            nn.Linear(3 * DIM + 1, 12), nn.ReLU(), nn.Linear(12, DIM), nn.ReLU(), nn.Linear(DIM, 1)
        )

    def forward(self, history: Tensor, target: Tensor, gender: Tensor, age: Tensor) -> Tensor:
        items, asked = self.items(history), self.items(target)
        weights = torch.sigmoid((items * asked[:, None]).sum(-1, keepdim=True)) * (history > 0).float()[:, :, None]
        read = (weights * items).sum(1)
        return torch.sigmoid(self.mlp(torch.cat([read, asked, self.gender(gender), age[:, None] / 50], dim=1)))


class Interests(nn.Module):
    """Three vectors per subject; the one that suits an item best gives its score."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM)
        self.attend = nn.Linear(DIM, 3)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        items = self.items(history)
        weights = torch.softmax(self.attend(items).masked_fill(~mask[:, :, None], -1e4), dim=1)
        interests = weights.transpose(1, 2) @ items
        scores: Tensor = (interests @ self.items.weight.T).max(dim=1).values
        return scores


class TwoOutputs(nn.Module):
    """A mean of item vectors that also hands out its hidden vector, the scores being none of its outputs' first."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + 1, DIM)
        self.layer = nn.Linear(DIM, DIM)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.layer(self.items(history).mean(dim=1)))
        return hidden, hidden @ self.items.weight.T


def export(
    module: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str] = ("scores",),
    *,
    free: Sequence[int] = (0,),
    opset: int = 17,
    drawn: bool = True,
) -> Path:
    """The module as one graph; axes in `free` (0 the batch, 1 the history) are dynamic, weights are drawn by random."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if drawn and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5)
    axes = {name: {axis: f"axis{axis}" for axis in free if axis < value.dim()} for name, value in inputs.items()}
    if 0 in free:
        axes |= {name: {0: "axis0"} for name in outputs}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), str(path), dynamo=False, opset_version=opset,
            input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes,
        )  # fmt: skip
    return path


def histories(rows: int = 2, dtype: torch.dtype = torch.int64) -> Tensor:
    """An example of histories, int64 [rows, LENGTH]."""
    return torch.ones((rows, LENGTH), dtype=dtype)


def numbers(rows: int = 2, dtype: torch.dtype = torch.int64) -> Tensor:
    """An example of lengths, users or items, int64 [rows]."""
    return torch.ones(rows, dtype=dtype)


def by_hand(path: Path, dtype: Any, batch: str | int, *, random: bool = False, mixes: bool = False) -> Path:
    """history -> mean of vectors -> relu -> scores, operator by operator; with a fixed batch it cannot do without."""
    draw = np.random.default_rng(0)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {
        "table": draw.normal(size=(N_ITEMS + 1, DIM)).astype(dtype),
        "weights": draw.normal(size=(DIM, DIM)).astype(dtype),
        "out": draw.normal(size=(DIM, N_ITEMS)).astype(dtype),
        "shape": np.array([batch if isinstance(batch, int) else -1, DIM]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["activation"]),  # our own name, which must not be in the way
        helper.make_node("MatMul", ["activation", "out"], ["plain"]),
    ]
    last = "plain"
    if random:
        nodes.append(helper.make_node("RandomNormalLike", ["plain"], ["noise"]))
        nodes.append(helper.make_node("Add", ["plain", "noise"], ["noisy"]))
        last = "noisy"
    if mixes:
        nodes.append(helper.make_node("ReduceMean", ["inner"], ["of_all"], axes=[0, 1], keepdims=1))
        nodes.append(helper.make_node("Add", [last, "of_all"], ["mixed"]))
        last = "mixed"
    nodes.append(helper.make_node("Identity", [last], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info("history", TensorProto.INT64, [batch, LENGTH])],
        [helper.make_tensor_value_info("scores", element, [batch, N_ITEMS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
