"""The version of a torch model: a hash of its weights and of where it is read.

Two processes that loaded the same checkpoint get the same version; a retrained model gets another, and with it its
own SAE, dictionary and plans.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

_DIGITS = 16
# Moved off a device and hashed in pieces, so that a table of embeddings needs no second copy in memory.
_CHUNK = 1 << 22


def version_of(model: nn.Module, place: str = "") -> str:
    """16 hex digits: BLAKE2b of names, dtypes, shapes and bytes of the state (parameters, persistent buffers), by name.

    `place` says where the model is read; activations of another place are another version's. The device does not count.
    """
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    digest.update(repr(("recsae-torch-1", place)).encode())
    for name, tensor in sorted(_tensors(model).items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        flat = tensor.detach().reshape(-1)
        for start in range(0, flat.numel(), _CHUNK):
            piece = flat[start : start + _CHUNK].contiguous().cpu()
            digest.update(piece.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state's tensors; extra state of modules, which may be any object, is left out."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
