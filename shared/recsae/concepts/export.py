"""A whole dictionary as one file for other tools: JSON, or Parquet with one row per concept and nested columns.

The Parquet schema is read off `ConceptRecord`, so what a release knows about a concept is what it exports. Not here:
which dictionary, and where to (`recsae.cli`). pyarrow, of the role worker, is imported on use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.records import ConceptRecord, concept_from_json
from recsae.errors import InvalidRequestError
from recsae.store.files import write_atomic

if TYPE_CHECKING:
    import pyarrow

FORMAT = "recsae.dictionary"
SCHEMA_VERSION = 1
_METADATA = b"recsae"
# Arrays of the dictionary that records do not hold; p95 and density they do.
_ARRAYS = ("p50", "p99", "mean")


class Format(StrEnum):
    """What a dictionary is written as."""

    PARQUET = "parquet"
    JSON = "json"


@dataclass(frozen=True)
class About:
    """What an exported dictionary is of. Versions are those of the artifacts."""

    model: str
    model_version: str
    sae_version: str
    dictionary_version: str
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """What was read back: `values` holds p50, p99 and mean of positive latent values by name, one per concept."""

    about: About
    concepts: tuple[ConceptRecord, ...]
    values: Mapping[str, tuple[float, ...]]


def write_export(dictionary: Dictionary, model: str, format: Format, path: Path) -> None:
    """Writes the dictionary; a reader sees the old file or the new one, never a part."""
    about = About(model, dictionary.model_version, dictionary.sae_version, dictionary.version, dict(dictionary.summary))
    rows = _rows(dictionary)
    write_atomic(path, _json(about, rows) if format is Format.JSON else _parquet(about, rows))


def read_export(path: Path) -> Exported:
    """Reads what `write_export` wrote, by the file's content.

    InvalidRequestError when it is no exported dictionary or of another schema.
    """
    content = path.read_bytes()
    stored, rows = _from_parquet(path) if content[:4] == b"PAR1" else _from_json(content, path)
    if stored.get("format") != FORMAT or stored.get("schema_version") != SCHEMA_VERSION:
        raise InvalidRequestError(
            f"{path} is no dictionary this release reads (format {stored.get('format')!r}, schema "
            f"{stored.get('schema_version')!r}); export it again"
        )
    values = {name: tuple(row.pop(name) for row in rows) for name in _ARRAYS}
    about = About(**{name: stored[name] for name in (field.name for field in fields(About))})
    return Exported(about, tuple(concept_from_json(row) for row in rows), values)


def parquet_schema() -> pyarrow.Schema:
    """The columns: those of `ConceptRecord`, nested ones as structs, lists and a map, and p50, p99, mean."""
    import pyarrow

    of_records = [(name, _arrow_type(hint)) for name, hint in get_type_hints(ConceptRecord).items()]
    return pyarrow.schema([*of_records, *((name, pyarrow.float64()) for name in _ARRAYS)])


def _rows(dictionary: Dictionary) -> list[dict[str, Any]]:
    arrays = {name: getattr(dictionary.arrays, name) for name in _ARRAYS}
    return [
        concept.as_json() | {name: float(f"{array[concept.latent]:.6g}") for name, array in arrays.items()}
        for concept in dictionary.concepts
    ]


def _stored(about: About) -> dict[str, Any]:
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(about)}


def _json(about: About, rows: list[dict[str, Any]]) -> bytes:
    plain = json.dumps(_stored(about) | {"concepts": rows}, ensure_ascii=False, allow_nan=False, indent=1)
    return plain.encode()


def _from_json(content: bytes, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        stored = json.loads(content)
    except ValueError as error:
        raise InvalidRequestError(
            f"{path} is neither JSON nor Parquet ({error}); name an exported dictionary"
        ) from error
    if not isinstance(stored, dict):
        raise InvalidRequestError(f"{path} holds no dictionary; name a file that `recsae concepts export` wrote")
    return stored, stored.pop("concepts", [])


def _parquet(about: About, rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    schema = parquet_schema().with_metadata({_METADATA: json.dumps(_stored(about), allow_nan=False).encode()})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_parquet(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    stored = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
    return stored, rows


def _arrow_type(hint: Any) -> pyarrow.DataType:
    """Arrow's type for a field of a record: dataclasses are structs, tuples lists, mappings maps, None is null."""
    import pyarrow

    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return _arrow_type(inner)
    if origin is tuple:
        return pyarrow.list_(_arrow_type(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return pyarrow.map_(*map(_arrow_type, arguments))
    if is_dataclass(hint):
        return pyarrow.struct([(name, _arrow_type(inner)) for name, inner in get_type_hints(hint).items()])
    if issubclass(hint, str):
        return pyarrow.string()
    return {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}[hint]
