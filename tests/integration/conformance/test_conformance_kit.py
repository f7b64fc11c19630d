"""The kit passes whoever keeps the contract, and fails whoever breaks it on the line that is broken."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from tests.integration.conformance import broken_activations, broken_models, broken_ranking, broken_refusals
from tests.integration.conformance.garbled_exporter import Garbled
from tests.integration.conformance.small_exporter import SmallExporter, serving
from tests.integration.conformance.small_interpreter import BROKEN_INTERPRETERS, SmallInterpreter
from tests.integration.conformance.small_variants import (
    Attributes,
    Interests,
    Pairs,
    Passthrough,
    TwoHooks,
    UsersAlone,
)

from recsae.conformance.outcomes import Outcome, Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.conformance.suite import all_checks, run
from recsae.rpc.client import channel

BAD = (Verdict.FAILED, Verdict.DOUBTFUL)
HONEST = [SmallExporter, Interests, Pairs, Attributes, UsersAlone, TwoHooks, Passthrough]
BROKEN = [*broken_models.BROKEN, *broken_activations.BROKEN, *broken_ranking.BROKEN, *broken_refusals.BROKEN]
# Rank that answers equal rows differently is found by ranking.alone before.
FOUND_ELSEWHERE = {"steering.ranked"}


def outcomes_of(
    exporter: SmallExporter, interpreter: SmallInterpreter | None = None, timeout_s: float = 10.0
) -> list[Outcome]:
    with ExitStack() as stack:
        opened = stack.enter_context(channel(stack.enter_context(serving(exporter.add_to))))
        steers = stack.enter_context(channel(stack.enter_context(serving(interpreter.add_to)))) if interpreter else None
        return list(run(GrpcService(opened, steers, timeout_s)))


@pytest.mark.parametrize("kind", HONEST, ids=lambda kind: str(kind.__name__))
def test_whoever_keeps_the_contract_passes(kind: type[SmallExporter]) -> None:
    outcomes = outcomes_of(kind(), SmallInterpreter())
    assert [one for one in outcomes if one.verdict in BAD] == []
    assert sum(one.verdict == Verdict.PASSED for one in outcomes) > 45


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: str(kind.__name__))
def test_a_broken_exporter_fails_on_the_line_that_is_broken(kind: Any) -> None:
    exporter = kind()
    try:
        outcomes = outcomes_of(exporter, timeout_s=2.0 if hasattr(exporter, "end") else 10.0)
    finally:
        if hasattr(exporter, "end"):
            exporter.end.set()
    assert found_bad(outcomes) == [kind.found_by]
    assert len(outcomes) == len(all_checks())


@pytest.mark.parametrize("kind", BROKEN_INTERPRETERS, ids=lambda kind: str(kind.__name__))
def test_a_broken_interpreter_fails_on_the_line_that_is_broken(kind: Any) -> None:
    assert found_bad(outcomes_of(SmallExporter(), kind())) == [kind.found_by]


def test_every_check_has_a_defect_that_it_finds() -> None:
    found = {kind.found_by for kind in BROKEN} | {kind.found_by for kind in BROKEN_INTERPRETERS}
    assert {check.name for check in all_checks()} - found == FOUND_ELSEWHERE


def test_checks_need_only_what_was_run_before_them() -> None:
    names = [check.name for check in all_checks()]
    assert len(set(names)) == len(names)
    for place, check in enumerate(all_checks()):
        assert set(check.needs) <= set(names[:place]), check.name


def test_nobody_there_is_one_failure_and_no_crash() -> None:
    with channel("127.0.0.1:1") as opened:
        outcomes = list(run(GrpcService(opened, timeout_s=1.0)))
    assert found_bad(outcomes) == ["model.answers"]
    assert {one.verdict for one in outcomes} == {Verdict.FAILED, Verdict.SKIPPED}


@pytest.mark.parametrize("kind", HONEST, ids=lambda kind: str(kind.__name__))
def test_whatever_comes_back_the_kit_ends_with_an_outcome_for_every_check(kind: type[SmallExporter]) -> None:
    garbled = type("Garbled", (Garbled, kind), {})
    found = 0
    for seed in range(4):
        outcomes = outcomes_of(garbled(seed))
        assert len(outcomes) == len(all_checks())
        found += len(found_bad(outcomes))
    assert found


def found_bad(outcomes: list[Outcome]) -> list[str]:
    """Names of the checks that failed or are doubtful; each says what was asked, what came and what to do."""
    bad = [one for one in outcomes if one.verdict in BAD]
    assert all(one.asked and one.came and one.remedy for one in bad)
    return [one.check.name for one in bad]
