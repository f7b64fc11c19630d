"""What the service config retries is what the contract calls idempotent; deadlines shrink on the way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsae.errors import DeadlineExceededError
from recsae.rpc.client import IDEMPOTENT
from recsae.rpc.deadline import Deadline

PROTOS = Path(__file__).parents[2] / "protos" / "recsae" / "v1"
# Its only effect is a best-effort sample for drift.
READS_ONLY = {("recsae.v1.Recommender", "Recommend")}


def documented_as_idempotent() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for proto in PROTOS.glob("*.proto"):
        service, comment = "", ""
        for line in proto.read_text().splitlines():
            if match := re.match(r"service (\w+)", line):
                service = f"recsae.v1.{match[1]}"
            elif re.match(r"\s*//", line):
                comment += line
                continue
            elif (match := re.match(r"\s*rpc (\w+)\(.*returns \((stream )?", line)) and "Idempotent." in comment:
                if not match[2]:
                    found.add((service, match[1]))
            elif (match := re.match(r"\s*rpc (\w+)", line)) and "Idempotent;" in comment:
                found.add((service, match[1]))
            comment = ""
    return found


def test_exactly_the_documented_idempotent_methods_are_retried() -> None:
    retried = {(service, method) for service, methods in IDEMPOTENT.items() for method in methods}
    assert retried == documented_as_idempotent() | READS_ONLY


def test_budget_is_the_smaller_of_wish_and_rest_less_a_margin() -> None:
    assert Deadline().budget(3.0) == 3.0
    assert Deadline.after(100).budget(3.0) == 3.0
    assert 0.8 < Deadline.after(1).budget(3.0, margin_s=0.1) <= 0.9


def test_no_call_is_started_without_time_left() -> None:
    with pytest.raises(DeadlineExceededError, match="longer deadline"):
        Deadline.after(0.001).budget(3.0, margin_s=0.005)
    assert Deadline.after(-1).expired
    assert not Deadline().expired
