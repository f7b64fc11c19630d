"""Makes model bundles of torch networks: graphs from torch, the description and ids beside them, checked at the end.

Whatever the family, `write_bundle` runs the files it wrote and compares them with torch before it returns. Not here:
heads that are written rather than traced (`heads`), the comparison (`torch_check`), what a family's network is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from recsae.recommenders.blocked_head import dot_product_head
from recsae.recommenders.bundle import (
    HEAD,
    HEAD_TENSORS,
    TRUNK,
    TRUNK_POSITIONS,
    ModelBundle,
    write_items,
    write_users,
)
from recsae.recommenders.description import BundleDescription
from recsae.recommenders.made_up_feed import made_up_feed
from recsae.recommenders.torch_check import check_against_torch
from recsae.recommenders.torch_graphs import PositionsGraph, TrunkGraph, export_graph, hook_outputs

_TRACED_ROWS = 2


class Items(Protocol):
    """The item table, position i = item index i + 1 (`recsae.datasets.schema.ItemTable` is one)."""

    @property
    def ids(self) -> Sequence[str]:
        """Item ids."""

    @property
    def titles(self) -> Sequence[str]:
        """Titles for people."""


@dataclass(frozen=True)
class DotProduct:
    """A head that is a dot product: vectors float32 [n_items + 1, d] and bias float32 [n_items + 1], row 0 padding."""

    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]


Head: TypeAlias = DotProduct | onnx.ModelProto | nn.Module


@dataclass(frozen=True)
class Parts:
    """What a bundle is made of.

    `trunk` takes the inputs its description names, one argument each: history, user, attributes in their order,
    candidate. It returns the activation of each hook, then the pass-through tensors: a tensor, or a tuple of them.
    `positions` takes the same without a candidate and returns each hook's activations at every position; what it gives
    at padding does not matter. `head` is a dot product, a written graph, or a torch module from activation and
    pass-through tensors to one score [batch] per row (pair hooks).
    """

    trunk: nn.Module
    head: Head
    positions: nn.Module | None = None


def write_bundle(
    parts: Parts, description: BundleDescription, items: Items, out: Path, *, user_ids: Sequence[str] = ()
) -> ModelBundle:
    """Writes the bundle into the folder `out`, checks it against torch and returns it, still unpublished.

    `user_ids` are what users.json will hold, in the order of the user index: pseudonyms, where it gets published.
    FailedPreconditionError when an exported graph differs from torch by more than 1e-5 relative to its scale.
    """
    out.mkdir(parents=True, exist_ok=True)
    feed = made_up_feed(description, _TRACED_ROWS, np.random.default_rng(0))
    inputs = {name: torch.from_numpy(values) for name, values in feed.items()}
    trunk = TrunkGraph(parts.trunk, description).eval()
    export_graph(trunk, out / TRUNK, inputs, [*hook_outputs("activation", description), *description.passthrough])
    positions = None
    if parts.positions is not None:
        positions = PositionsGraph(parts.positions, description).eval()
        every = {name: tensor for name, tensor in inputs.items() if name != "candidate"}
        export_graph(positions, out / TRUNK_POSITIONS, every, hook_outputs("activations", description))
    with torch.no_grad():
        made = trunk(*inputs.values())
    _write_head(parts.head, description, made, out)
    write_items(out, items.ids, items.titles)
    if description.inputs.user:
        write_users(out, user_ids)
    description.write(out)
    bundle = ModelBundle.load(out, version="unpublished")
    check_against_torch(bundle, trunk, positions, parts.head if isinstance(parts.head, nn.Module) else None)
    return bundle


def _write_head(head: Head, description: BundleDescription, made: tuple[Tensor, ...], out: Path) -> None:
    """`made` is what the trunk gives, to trace a torch head by."""
    if isinstance(head, DotProduct):
        onnx.save(dot_product_head(head.vectors, head.bias), out / HEAD)
        save_file({"item_vectors": head.vectors, "item_bias": head.bias}, out / HEAD_TENSORS)
    elif isinstance(head, onnx.ModelProto):
        onnx.save(head, out / HEAD)
    else:
        names = ["activation", *description.passthrough]
        rows = [made[0], *made[len(description.hooks) :]]
        export_graph(head, out / HEAD, dict(zip(names, rows, strict=True)), ["score"])
