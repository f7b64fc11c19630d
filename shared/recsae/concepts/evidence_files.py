"""`EvidenceSums` as safetensors: the sums in one file, each part's rows in one of their own.

Rows lie apart so that describing never opens those of verification. Equal sums are equal files, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts import evidence_buckets, evidence_draws
from recsae.concepts.evidence_buckets import ValueBuckets
from recsae.concepts.evidence_draws import DrawnFirings
from recsae.concepts.evidence_sums import DRAWS, SAMPLED, EvidenceSums
from recsae.concepts.sampling import RowSample
from recsae.concepts.splits import UserPart
from recsae.errors import CorruptArtifactError
from recsae.store.files import write_atomic

SCHEMA_VERSION = 1
_SUMS = "sums.safetensors"
_PLAIN = ("rows", "log_count", "verification_fired", "last_fired")
_VALUES = ("construction", "others")
_ROWS = ("x", "user", "position", "item")


def save_sums(sums: EvidenceSums, folder: Path) -> None:
    """Writes `sums.safetensors` and `rows-<part>.safetensors` for each sampled part into `folder`, each whole."""
    arrays = {name: getattr(sums, name) for name in _PLAIN}
    arrays["facts"] = np.array([SCHEMA_VERSION, sums.width, sums.rows_per_part, sums.seed], np.int64)
    for name in _VALUES:
        arrays |= {f"{name}.{column}": getattr(getattr(sums, name), column) for column in evidence_buckets.COLUMNS}
    for name, drawn in sums.draws.items():
        arrays |= {f"{name}.{column}": getattr(drawn, column) for column in evidence_draws.COLUMNS}
    for part, sample in sums.samples.items():
        rows = {name: getattr(sample, name) for name in _ROWS} | {"available": np.array([sample.available], np.int64)}
        _write(folder / _rows_file(part), rows)
    _write(folder / _SUMS, arrays)


def load_sums(folder: Path, rows_of: Sequence[UserPart] = SAMPLED) -> EvidenceSums:
    """Reads what `save_sums` wrote, with the rows of some parts only; the others have none.

    CorruptArtifactError when a file is missing, broken or of another release.
    """
    arrays = _read(folder / _SUMS)
    try:
        schema, width, rows_per_part, seed = arrays["facts"].tolist()
        if schema != SCHEMA_VERSION:
            raise CorruptArtifactError(
                f"{folder.name} holds sums of schema {schema}, this release reads {SCHEMA_VERSION}; start a new run"
            )
        samples = EvidenceSums.none(width).samples
        values = {name: _values(arrays, name) for name in _VALUES}
        return EvidenceSums(
            width=width,
            rows_per_part=rows_per_part,
            seed=seed,
            rows=arrays["rows"],
            log_count=arrays["log_count"],
            construction=values["construction"],
            others=values["others"],
            verification_fired=arrays["verification_fired"],
            last_fired=arrays["last_fired"],
            draws={name: _draws(arrays, name) for name in DRAWS},
            samples=dict(samples) | {part: _rows(folder / _rows_file(part)) for part in rows_of},
        )
    except KeyError as error:
        raise CorruptArtifactError(f"{folder.name}/{_SUMS} lacks {error}; start a new run") from error


def _rows(path: Path) -> RowSample:
    arrays = _read(path)
    available = int(arrays["available"][0])
    return RowSample(arrays["x"], arrays["user"], arrays["position"], arrays["item"], available)


def _values(arrays: dict[str, NDArray[Any]], name: str) -> ValueBuckets:
    return ValueBuckets(*(arrays[f"{name}.{column}"] for column in evidence_buckets.COLUMNS))


def _draws(arrays: dict[str, NDArray[Any]], name: str) -> DrawnFirings:
    key, order, user, position, item, value = (arrays[f"{name}.{column}"] for column in evidence_draws.COLUMNS)
    return DrawnFirings(key, order, user, position, item, value)


def _rows_file(part: UserPart) -> str:
    return f"rows-{part.name.lower()}.safetensors"


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    write_atomic(path, bytes(safetensors.numpy.save(contiguous)))


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CorruptArtifactError(f"{path} cannot be read ({error}); start a new run") from error
    return arrays
