"""An exported dictionary reads back as it was, in both formats, and other readers find its columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from recsae.concepts.dictionary import ConceptArrays, Dictionary
from recsae.concepts.effects import CausalRecord, DoseEffect, SafeRange
from recsae.concepts.estimates import Estimate
from recsae.concepts.export import parquet_schema, read_export, write_export
from recsae.concepts.export_formats import Format
from recsae.concepts.origins import Origin
from recsae.concepts.records import (
    ConceptRecord,
    ConceptStatus,
    Evidence,
    EvidenceItem,
    LabelSource,
    LiteralRecord,
    LlmRecord,
    QuantileBand,
    RuleRecord,
)
from recsae.errors import InvalidRequestError


def make_dictionary() -> Dictionary:
    evidence = Evidence(1.5, (EvidenceItem("7", "Amélie (2001)", 0.9, True), EvidenceItem("8", "Heat")))
    half = Estimate(0.5, 0.25, 0.75)
    dose = DoseEffect("scale", 2.0, half, half, half, half, half, 0.25)
    full = ConceptRecord(
        id="c-00000001",
        latent=0,
        label="Recent: Horror",
        status=ConceptStatus.VERIFIED,
        f1=half,
        evidence=(evidence,),
        bands=(QuantileBand(0.0, 0.5, 3, None), QuantileBand(0.5, 1.0, 3, evidence)),
        rule=RuleRecord((LiteralRecord("", "recent", "genre=Horror", 0.123456789),)),
        label_source=LabelSource.HUMAN,
        origin=Origin("merged", ("c-a", "c-b"), 0.9, 0.8, True),
        causal=CausalRecord("genre=Horror", 2_000, (dose,), (SafeRange("scale", 0.0, 2.0, "ndcg"),), True, 0.98),
        llm=LlmRecord("Scary", "Films that frighten.", "small", "v1", 200, half),
        scores={"lift": 12.5, "prevalence": 0.04},
    )
    bare = ConceptRecord(id="c-00000002", latent=1, status=ConceptStatus.DEAD)
    arrays = ConceptArrays(*(np.array([value, 0.0], np.float32) for value in (0.5, 1.0, 2.0, 0.75, 0.1)))
    return Dictionary("d" * 16, "a" * 16, "b" * 16, (full, bare), arrays, {"live": 1, "verified": {"count": 1}})


@pytest.mark.parametrize("format", list(Format))
def test_an_exported_dictionary_reads_back_equal(tmp_path: Path, format: Format) -> None:
    dictionary = make_dictionary()
    write_export(dictionary, "movies", format, tmp_path / "out")
    read = read_export(tmp_path / "out")
    assert read.concepts == dictionary.concepts
    assert read.values == {"p50": (0.5, 0.0), "p99": (2.0, 0.0), "mean": (0.75, 0.0)}
    assert (read.about.model, read.about.dictionary_version) == ("movies", dictionary.version)
    assert (read.about.model_version, read.about.sae_version) == (dictionary.model_version, dictionary.sae_version)
    assert read.about.summary == dictionary.summary


def test_parquet_has_a_column_per_field_with_types_other_readers_know(tmp_path: Path) -> None:
    write_export(make_dictionary(), "movies", Format.PARQUET, tmp_path / "out")
    table = parquet.read_table(tmp_path / "out")
    assert table.schema.equals(parquet_schema(), check_metadata=False)
    assert set(ConceptRecord.__dataclass_fields__) <= set(table.schema.names)
    assert table.schema.field("confidence").type == pyarrow.float64()
    assert table.schema.field("f1").type == pyarrow.struct(
        [(name, pyarrow.float64()) for name in ("value", "low", "high")]
    )
    assert table.column("f1").combine_chunks().field("low").to_pylist() == [0.25, 0.0]
    assert table.column("causal").to_pylist()[1] is None


def test_json_is_one_document_with_plain_values(tmp_path: Path) -> None:
    write_export(make_dictionary(), "movies", Format.JSON, tmp_path / "out")
    document = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert document["format"] == "recsae.dictionary"
    assert [concept["status"] for concept in document["concepts"]] == ["verified", "dead"]
    assert "Amélie (2001)" in (tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[1]", "holds no dictionary"),
        (b"{}", "no dictionary this release reads"),
        (b'{"format": "recsae.dictionary", "schema_version": 99}', "schema 99"),
        (b"\x00\x01", "neither JSON nor Parquet"),
    ],
)
def test_what_is_no_exported_dictionary_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=why):
        read_export(tmp_path / "file")


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InvalidRequestError, match="no dictionary this release reads"):
        read_export(tmp_path / "other.parquet")


def test_writing_again_replaces_the_whole_file(tmp_path: Path) -> None:
    dictionary = make_dictionary()
    write_export(dictionary, "movies", Format.JSON, tmp_path / "out")
    write_export(replace(dictionary, version="e" * 16), "movies", Format.PARQUET, tmp_path / "out")
    assert read_export(tmp_path / "out").about.dictionary_version == "e" * 16
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
