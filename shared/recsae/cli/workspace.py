"""The folder a local platform lives in: data sets, artifacts, server data, logs, and which addresses are in use.

Not here: starting anything (`recsae.cli.supervisor`), and who may (`recsae.cli.claim`).
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsae.cli.claim import Claim
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.recommenders.address import split_address
from recsae.store.artifacts import ArtifactStore
from recsae.store.files import write_atomic, write_json_atomic

_KEY_BYTES = 32
_NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True)
class DatasetEntry:
    """A data set of this workspace: the pseudonymous artifact, and the private folder with real user ids."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class ModelEntry:
    """A model and the data set it was trained on (empty when it is not known).

    A published bundle, or, with an `address`, a model another server serves; `version` is then the one seen last.
    """

    name: str
    version: str
    dataset: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True)
class Addresses:
    """Where the processes of a running platform listen; `recommender` may be routes (`recsae.rpc.routes`)."""

    recommender: str
    interpreter: str
    state_url: str
    bus_url: str
    metrics: dict[str, str]


class Workspace:
    """Paths and small records under one home folder; every write is atomic."""

    def __init__(self, home: Path) -> None:
        """`home` is made on the first write."""
        self.home = home.resolve()
        self.claim = Claim(self.home / "supervisor.lock")

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

    @property
    def exposures(self) -> Path:
        """The exposure log of the platform's own recommender."""
        return self.home / "exposures"

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
        return self.pseudonym_key_file().read_bytes()

    def pseudonym_key_file(self) -> Path:
        """Where the key lies."""
        path = self.home / "pseudonym.key"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(_KEY_BYTES))
            path.chmod(0o600)
        return path

    def datasets(self) -> list[DatasetEntry]:
        """Data sets, oldest first."""
        return [DatasetEntry(**entry) for entry in self._record()["datasets"]]

    def models(self) -> list[ModelEntry]:
        """Models that `recsae up` serves, oldest first; the first one is the default."""
        return [ModelEntry(**entry) for entry in self._record()["models"]]

    def bundles(self) -> list[ModelEntry]:
        """Models our own recommender serves."""
        return [model for model in self.models() if not model.address]

    def dataset(self, name: str) -> DatasetEntry:
        """A data set by name (empty = the only or newest one); FailedPreconditionError says how to get one."""
        entries = [entry for entry in self.datasets() if not name or entry.name == name]
        if not entries:
            wanted = f"no data set {name!r}" if name else "no data set"
            raise FailedPreconditionError(f"{wanted} in {self.home}; run `recsae data fetch` or `recsae data import`")
        return entries[-1]

    def model(self, name: str) -> ModelEntry:
        """A model by name or by the address of a hook of it (empty = the default one).

        FailedPreconditionError says how to get one.
        """
        base = split_address(name).model
        entries = [entry for entry in self.models() if not name or entry.name == base]
        if not entries:
            wanted = f"no model {name!r}" if name else "no model"
            raise FailedPreconditionError(f"{wanted} in {self.home}; run `recsae model train` or `recsae model import`")
        return entries[0]

    def add_dataset(self, entry: DatasetEntry) -> None:
        """Adds a data set or replaces the one of that name."""
        check_name(entry.name)
        record = self._record()
        record["datasets"] = [old for old in record["datasets"] if old["name"] != entry.name] + [asdict(entry)]
        self._write(record)

    def add_model(self, entry: ModelEntry) -> None:
        """Adds a model, or replaces the one of that name in its place, so that the default stays the default.

        FailedPreconditionError for a bundle under the name of a model that another server serves.
        """
        check_name(entry.name)
        record = self._record()
        names = [old["name"] for old in record["models"]]
        known = {old["name"]: old.get("address", "") for old in record["models"]}
        if known.get(entry.name) and not entry.address:
            raise FailedPreconditionError(
                f"a model {entry.name!r} of this workspace is served at {known[entry.name]}; take another name, "
                f"e.g. --name {entry.name}-2"
            )
        if entry.name in names:
            record["models"][names.index(entry.name)] = asdict(entry)
        else:
            record["models"].append(asdict(entry))
        self._write(record)

    def addresses(self) -> Addresses | None:
        """Addresses of the platform that is up here, None when none is (yet)."""
        found = _read_json(self._addresses_path())
        return Addresses(**found) if found is not None and self.claim.holder() is not None else None

    def write_addresses(self, addresses: Addresses) -> None:
        """Says that a platform is up here; for the holder of the claim."""
        write_json_atomic(self._addresses_path(), asdict(addresses))

    def clear_addresses(self) -> None:
        """Says that no platform is up here; for the holder of the claim."""
        self._addresses_path().unlink(missing_ok=True)

    def _addresses_path(self) -> Path:
        return self.home / "running.json"

    def _record(self) -> dict[str, Any]:
        return _read_json(self.home / "workspace.json") or {"datasets": [], "models": []}

    def _write(self, record: dict[str, Any]) -> None:
        write_json_atomic(self.home / "workspace.json", record)


def check_name(name: str) -> str:
    """A name that is fit for a folder and a setting; InvalidRequestError for any other."""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} is no name for a data set or model: take letters, digits, _, - and dots, at most 64, "
            "e.g. --name orders-2026"
        )
    return name


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FailedPreconditionError(f"{path} is not JSON ({error}); restore it or delete it") from error
    return content
