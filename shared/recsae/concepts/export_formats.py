"""What a dictionary can be written as; apart from the writing, so that naming a format loads nothing."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What a dictionary is written as."""

    PARQUET = "parquet"
    JSON = "json"
