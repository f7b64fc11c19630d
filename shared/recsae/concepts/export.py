"""A whole dictionary as one file for other tools: JSON, or Parquet with one row per concept and nested columns.

The columns are the fields of `ConceptRecord`, so what a release knows about a concept is what it exports. Not here:
which dictionary, and where to (`recsae.cli`). pyarrow, of the role worker, is imported on use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from recsae.concepts.columns import arrow_type, from_plain, plain
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.export_formats import Format
from recsae.concepts.records import ConceptRecord
from recsae.errors import InvalidRequestError
from recsae.store.files import write_atomic

if TYPE_CHECKING:
    import pyarrow

FORMAT = "recsae.dictionary"
SCHEMA_VERSION = 1
_METADATA = b"recsae"
# Arrays of the dictionary that records do not hold; p95 and density they do.
_ARRAYS = ("p50", "p99", "mean")
_TOLD = frozenset({"version", "model_version", "sae_version", "concepts", "arrays", "summary"})


@dataclass(frozen=True)
class About:
    """What an exported dictionary is of. Versions are those of the artifacts.

    `further` holds what else the dictionary has as a whole, as plain values by field name.
    """

    model: str
    model_version: str
    sae_version: str
    dictionary_version: str
    summary: Mapping[str, Any]
    further: Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """What was read back: `values` holds p50, p99 and mean of positive latent values by name, one per concept."""

    about: About
    concepts: tuple[ConceptRecord, ...]
    values: Mapping[str, tuple[float, ...]]


def write_export(dictionary: Dictionary, model: str, format: Format, path: Path) -> None:
    """Writes the dictionary; a reader sees the old file or the new one, never a part."""
    about = About(
        model=model,
        model_version=dictionary.model_version,
        sae_version=dictionary.sae_version,
        dictionary_version=dictionary.version,
        summary=plain(dictionary.summary),
        further={one.name: plain(getattr(dictionary, one.name)) for one in fields(dictionary) if one.name not in _TOLD},
    )
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
    values = {name: tuple(row[name] for row in rows) for name in _ARRAYS}
    about = About(**{one.name: stored[one.name] for one in fields(About)})
    return Exported(about, tuple(from_plain(ConceptRecord, row) for row in rows), values)


def parquet_schema() -> pyarrow.Schema:
    """The columns: those of `ConceptRecord`, nested ones as structs, lists and a map, and p50, p99, mean."""
    import pyarrow

    of_records = [(name, arrow_type(hint)) for name, hint in get_type_hints(ConceptRecord).items()]
    return pyarrow.schema([*of_records, *((name, pyarrow.float64()) for name in _ARRAYS)])


def _rows(dictionary: Dictionary) -> list[dict[str, Any]]:
    arrays = {name: getattr(dictionary.arrays, name).astype(float).tolist() for name in _ARRAYS}
    return [
        plain(concept) | {name: values[concept.latent] for name, values in arrays.items()}
        for concept in dictionary.concepts
    ]


def _stored(about: About) -> dict[str, Any]:
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(about)}


def _json(about: About, rows: list[dict[str, Any]]) -> bytes:
    document = _stored(about) | {"concepts": rows}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode()


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
