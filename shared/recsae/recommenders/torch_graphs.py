"""Graphs from torch modules: the one exporter call, and the shapes a bundle's graphs state.

Not here: what the modules compute (each family's own), written heads (`heads`), the bundle around them (`export`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from recsae.recommenders.description import BundleDescription, Hook
from recsae.recommenders.heads import OPSET


def export_graph(module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Writes `module` as an ONNX graph that takes any number of rows.

    `inputs` names the module's arguments in their order, with example values to trace it by; `outputs` names what it
    returns, a tensor or a tuple. The module is in evaluation mode afterwards.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The TorchScript exporter is deprecated and ten times faster; the networks keep to operators it handles.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            )
    finally:
        logger.setLevel(level)


def hook_outputs(first: str, description: BundleDescription) -> list[str]:
    """What a graph calls the outputs of each hook: `first`, then `first.NAME` of the others."""
    return [first, *(f"{first}.{hook.name}" for hook in description.hooks[1:])]


class TrunkGraph(nn.Module):
    """A trunk whose graph states its sizes, which an import compares with the head's; the values stay as they are."""

    def __init__(self, trunk: nn.Module, description: BundleDescription) -> None:
        super().__init__()
        self.trunk, self.hooks = trunk, description.hooks

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each hook's activation [batch, d] or [batch, interests, d], then the pass-through tensors."""
        given = _as_tuple(self.trunk(*inputs))
        stated = (rows.reshape(-1, *_sizes(hook)) for rows, hook in zip(given, self.hooks, strict=False))
        return (*stated, *given[len(self.hooks) :])


class PositionsGraph(nn.Module):
    """Every position's activations, zero at padding: a row that means nothing must not look like an activation."""

    def __init__(self, positions: nn.Module, description: BundleDescription) -> None:
        super().__init__()
        self.positions, self.hooks, self.max_history = positions, description.hooks, description.max_history

    def forward(self, history: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Each hook's activations [batch, max_history, d] or [batch, max_history, interests, d]."""
        real = (history > 0).to(torch.float32)
        given = _as_tuple(self.positions(history, *others))
        return tuple(
            (rows * real.reshape(*real.shape, *(1 for _ in _sizes(hook)))).reshape(-1, self.max_history, *_sizes(hook))
            for rows, hook in zip(given, self.hooks, strict=True)
        )


def _sizes(hook: Hook) -> tuple[int, ...]:
    return (hook.interests, hook.dim) if hook.rows == "interest" else (hook.dim,)


def _as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)
