"""SAEs and activations as they are named on the command line: an artifact version or a folder, and shard folders.

Not here: what is done with them. Packages of the role worker are imported on use, since the command runs without them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsae.cli.workspace import Workspace
from recsae.errors import CorruptArtifactError, InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from recsae.sae.latents import Latents
    from recsae.sae.runtime import SparseAutoencoder

_FACTS = "sae.json"
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class ProbeRows:
    """Activations `x` float32 [n, d] and what they are of: `user`, `position`, `item` int32 [n]."""

    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


def sae_folder(workspace: Workspace, name: str) -> Path:
    """Folder of the SAE called `name`: a folder that holds one, else a version in the workspace's artifact store.

    NotFoundError when it is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / _FACTS).is_file():
            raise NotFoundError(f"{folder} holds no SAE (no {_FACTS}); name a folder that training wrote, or a version")
        return folder
    try:
        return workspace.artifacts().fetch("sae", name).folder
    except (NotFoundError, InvalidRequestError) as error:
        known = ", ".join(sorted(workspace.artifacts().versions("sae"))) or "none"
        raise NotFoundError(
            f"{name!r} is neither a folder nor an SAE of {workspace.home}; SAEs published there: {known}"
        ) from error


def sae_facts(folder: Path) -> dict[str, Any]:
    """Content of `sae.json`."""
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_bytes())
    except ValueError as error:
        raise CorruptArtifactError(f"{folder / _FACTS} is not JSON ({error}); publish the SAE again") from error
    return facts


def load_sae(workspace: Workspace, name: str) -> SparseAutoencoder:
    """The SAE called `name`, ready to encode."""
    from recsae.sae.runtime import SparseAutoencoder

    return SparseAutoencoder.load(sae_folder(workspace, name), name)


def probe_rows(folder: Path, limit: int) -> ProbeRows:
    """At most `limit` rows, drawn evenly from the activation shards in `folder` in the order of their names.

    `folder` holds shard files, or is the work folder of a run (then those of its collect stage). A subject's interests,
    where it has several, are rows of their own. InvalidRequestError when there are none.
    """
    from recsae.sae.shards import ShardReader

    places = (folder, folder / "collect")
    files = next((found for place in places if (found := sorted(place.glob("*.safetensors")))), [])
    if not files:
        raise InvalidRequestError(
            f"{folder} holds no activation shards (*.safetensors); name a folder of shards or a run's work folder"
        )
    reader = ShardReader.open_files(files)
    rows = np.unique(np.linspace(0, reader.n - 1, min(limit, reader.n)).astype(np.int64))
    d = reader.d // reader.interests
    picked: list[ProbeRows] = []
    start = 0
    for shard in reader.mapped():
        mine = rows[(rows >= start) & (rows < start + len(shard.user))] - start
        whose = np.repeat(mine, reader.interests)
        columns = shard.user[whose], shard.position[whose], shard.item[whose]
        picked.append(ProbeRows(np.asarray(shard.x[mine], np.float32).reshape(len(whose), d), *columns))
        start += len(shard.user)
    names = ("x", "user", "position", "item")
    return ProbeRows(*(np.concatenate([getattr(part, name) for part in picked]) for name in names))


def check_paired(new: ProbeRows, old: ProbeRows) -> None:
    """InvalidRequestError unless both are of the same histories, row by row."""
    for name in ("user", "position", "item"):
        if not np.array_equal(getattr(new, name), getattr(old, name)):
            raise InvalidRequestError(
                f"the activations of the two models differ in {name}: they are not of the same histories in the same "
                "order; collect both over one data set"
            )


def latents_of(sae: SparseAutoencoder, probe: ProbeRows) -> Latents:
    """The SAE's latents on the probe rows; InvalidRequestError when it reads another length."""
    from recsae.sae.codes import concatenate
    from recsae.sae.latents import Latents

    starts = range(0, len(probe.x), _ROWS_AT_ONCE)
    return Latents(sae.w_dec, concatenate([sae.encode(probe.x[at : at + _ROWS_AT_ONCE]) for at in starts]))
