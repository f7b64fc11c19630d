"""The folder a local platform lives in: data sets, artifacts, server data, logs, and which addresses are in use.

Not here: starting anything (`recsae.cli.supervisor`).
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsae.errors import FailedPreconditionError
from recsae.store.artifacts import ArtifactStore
from recsae.store.files import write_atomic, write_json_atomic

_KEY_BYTES = 32


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of this workspace: the pseudonymous artifact, and the private folder with real user ids."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class ModelEntry:
    """A published model bundle and the data set it was trained on (empty when it was imported without one)."""

    name: str
    version: str
    dataset: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Addresses:
    """Where the processes of a running platform listen, and which process supervises them."""

    recommender: str
    interpreter: str
    state_url: str
    bus_url: str
    metrics: dict[str, str]
    supervisor_pid: int


class Workspace:
    """Paths and small records under one home folder; every write is atomic."""

    def __init__(self, home: Path) -> None:
        """`home` is made on the first write."""
        self.home = home.resolve()

    @property
    def artifacts_url(self) -> str:
        """Root of the artifact store."""
        return str(self.home / "artifacts")

    @property
    def downloads(self) -> Path:
        """Cache of downloaded data sets."""
        return self.home / "downloads"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.home / "logs"

    def artifacts(self) -> ArtifactStore:
        """The artifact store of this workspace."""
        return ArtifactStore(self.artifacts_url)

    def dataset_folder(self, name: str) -> Path:
        """Private folder of a data set, with real user ids: read by the recommender's history store only."""
        return self.home / "datasets" / name

    def server_folder(self, name: str) -> Path:
        """Data folder of a Redis or Valkey server; private to the user."""
        folder = self.home / "servers" / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def pseudonym_key(self) -> bytes:
        """Key user ids are pseudonymised with in artifacts; made once, readable by the user alone."""
        path = self.home / "pseudonym.key"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(_KEY_BYTES))
            path.chmod(0o600)
        return path.read_bytes()

    def datasets(self) -> list[DatasetEntry]:
        """Data sets, oldest first."""
        return [DatasetEntry(**entry) for entry in self._record()["datasets"]]

    def models(self) -> list[ModelEntry]:
        """Models that `recsae up` serves, oldest first; the first one is the default."""
        return [ModelEntry(**entry) for entry in self._record()["models"]]

    def dataset(self, name: str) -> DatasetEntry:
        """A data set by name (empty = the only or newest one); FailedPreconditionError says how to get one."""
        entries = [entry for entry in self.datasets() if not name or entry.name == name]
        if not entries:
            wanted = f"no data set {name!r}" if name else "no data set"
            raise FailedPreconditionError(f"{wanted} in {self.home}; run `recsae data fetch` or `recsae data import`")
        return entries[-1]

    def model(self, name: str) -> ModelEntry:
        """A model by name (empty = the default one); FailedPreconditionError says how to get one."""
        entries = [entry for entry in self.models() if not name or entry.name == name]
        if not entries:
            wanted = f"no model {name!r}" if name else "no model"
            raise FailedPreconditionError(f"{wanted} in {self.home}; run `recsae model train` or `recsae model import`")
        return entries[0]

    def add_dataset(self, entry: DatasetEntry) -> None:
        """Adds a data set or replaces the one of that name."""
        record = self._record()
        record["datasets"] = [old for old in record["datasets"] if old["name"] != entry.name] + [asdict(entry)]
        self._write(record)

    def add_model(self, entry: ModelEntry) -> None:
        """Adds a model, or replaces the one of that name in its place, so that the default stays the default."""
        record = self._record()
        names = [old["name"] for old in record["models"]]
        if entry.name in names:
            record["models"][names.index(entry.name)] = asdict(entry)
        else:
            record["models"].append(asdict(entry))
        self._write(record)

    def addresses(self) -> Addresses | None:
        """Addresses of the platform that runs here, None when none does."""
        path = self._addresses_path()
        if not path.exists():
            return None
        addresses = Addresses(**json.loads(path.read_bytes()))
        return addresses if _is_alive(addresses.supervisor_pid) else None

    def write_addresses(self, addresses: Addresses) -> None:
        """Says that a platform runs here."""
        write_json_atomic(self._addresses_path(), asdict(addresses))

    def clear_addresses(self) -> None:
        """Says that no platform runs here."""
        self._addresses_path().unlink(missing_ok=True)

    def _addresses_path(self) -> Path:
        return self.home / "running.json"

    def _record(self) -> dict[str, Any]:
        path = self.home / "workspace.json"
        if not path.exists():
            return {"datasets": [], "models": []}
        record: dict[str, Any] = json.loads(path.read_bytes())
        return record

    def _write(self, record: dict[str, Any]) -> None:
        write_json_atomic(self.home / "workspace.json", record)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
