"""The whole state of a training run in one safetensors file, replaced atomically. No pickle.

`kill -9` leaves the last checkpoint. Batches and schedule follow from the step number (`batches`, `config`), so there
is no generator to save. Not here: when to save (`training`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recsae.errors import CorruptArtifactError, FailedPreconditionError
from recsae.sae.batches import Rows
from recsae.sae.config import SaeConfig
from recsae.sae.model import Parameters
from recsae.sae.optimiser import Adam
from recsae.sae.state import TrainingState
from recsae.sae.weights import SaeWeights
from recsae.store.files import canonical_json, write_atomic

_SCHEMA_VERSION = 1


def training_identity(config: SaeConfig, rows: Rows, start: SaeWeights | None = None) -> str:
    """Names what is trained on what, from where; a checkpoint of another identity must not be continued."""
    value = {
        "config": config.as_dict(),
        "rows": rows.n,
        "data": rows.fingerprint,
        "start": start.fingerprint if start else "",
        "schema": _SCHEMA_VERSION,
    }
    return hashlib.sha256(canonical_json(value)).hexdigest()


def save_checkpoint(path: Path, state: TrainingState, identity: str) -> None:
    """Replaces the checkpoint at `path`."""
    groups = {"parameters": state.parameters, "first": state.adam.first, "second": state.adam.second}
    tensors = {
        f"{group}.{name}": tensor.cpu() for group, held in groups.items() for name, tensor in held.tensors().items()
    }
    facts = {"identity": identity, "step": state.step, "adam_steps": state.adam.steps}
    metadata = {"training": json.dumps(facts)}
    write_atomic(path, safetensors.torch.save({**tensors, "idle_rows": state.idle_rows.cpu()}, metadata))


def load_checkpoint(path: Path, identity: str) -> TrainingState | None:
    """The state saved last; None when there is none.

    FailedPreconditionError when it belongs to another configuration or other data, CorruptArtifactError when it
    cannot be read.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        saved = TrainingState(
            parameters=_group("parameters", tensors),
            adam=Adam(_group("first", tensors), _group("second", tensors), int(facts["adam_steps"])),
            idle_rows=tensors["idle_rows"],
            step=int(facts["step"]),
        )
        found = str(facts["identity"])
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise CorruptArtifactError(f"cannot read checkpoint {path} ({error}); delete it to start over") from error
    if found != identity:
        raise FailedPreconditionError(
            f"checkpoint {path} was made with another configuration or other activations; delete it to start over"
        )
    return saved


def _group(prefix: str, tensors: dict[str, Tensor]) -> Parameters:
    # Cloned: they are changed in place, and must not lie in a file that is about to be replaced.
    return Parameters(
        **{name: tensors[f"{prefix}.{name}"].to(torch.float32).clone() for name in ("w_enc", "b_enc", "w_dec", "b_dec")}
    )
