"""Run records: validation, transitions, compare-and-set, JSON."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from recsae.errors import ConflictError, FailedPreconditionError, InvalidRequestError, NotFoundError
from recsae.pipeline.contracts import (
    AdvanceRun,
    ArchiveAudit,
    CompareDrift,
    RunStep,
    SweepRuns,
    Task,
    from_payload,
    queue_of,
    to_payload,
)
from recsae.pipeline.run_json import run_from_json, run_to_json
from recsae.pipeline.run_store import InMemoryRunStore, cancel, start_refresh, update
from recsae.pipeline.runs import RunConfig, RunState, Stage, ended, new_run
from recsae.pipeline.sweeps import PointResult, SweepGrid

CONFIG = RunConfig(model="sasrec", dataset_version="0123456789abcdef")


def test_defaults_follow_the_dimension() -> None:
    completed = CONFIG.completed(64)
    assert (completed.width, completed.k) == (256, 8)
    assert RunConfig("m", "0" * 16, width=32, k=4).completed(64).width == 32


@pytest.mark.parametrize(("rows", "width"), [(20, 32), (514, 32), (1_949, 51), (10**6, 256)])
def test_few_rows_to_judge_by_make_a_narrow_default(rows: int, width: int) -> None:
    """A latent of mean density then fires on about 300 of them; whoever asks for a width gets it."""
    completed = CONFIG.completed(64, rows)
    assert (completed.width, completed.k) == (width, 8)
    assert replace(CONFIG, width=512).completed(64, rows).width == 512


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": ""}, "model ''"),
        ({"model": "sasrec@"}, "model 'sasrec@'"),
        ({"model": "sasrec@a@b"}, "model 'sasrec@a@b'"),
        (
            {"model": "sasrec@block_0", "control_model": "none"},
            "another hook than 'sasrec@block_0'; name 'none@block_0'",
        ),
        ({"control_model": "untrained@block_0"}, "name 'untrained'"),
        ({"dataset_version": "x"}, "dataset_version 'x'"),
        ({"width": 8}, "width 8"),
        ({"k": 2000}, "k 2000"),
        ({"width": 16, "k": 17}, "choose k <= width"),
        ({"control_model": "sasrec"}, "control_model"),
        ({"seed": -1}, "seed -1"),
        ({"variant": "vanilla"}, "variant 'vanilla'"),
        ({"sweep": SweepGrid(), "promote": True}, "a sweep promotes nothing"),
        ({"sweep": SweepGrid(), "warm_start": True}, "starts cold"),
        ({"sweep": SweepGrid(ks=(2000,))}, "k 2000"),
    ],
)
def test_a_config_that_can_never_work_is_refused_by_field(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        new_run(replace(CONFIG, **change), 0.0)  # type: ignore[arg-type]


def test_another_hook_of_a_model_is_refreshed_by_its_address() -> None:
    run = new_run(replace(CONFIG, model="sasrec@block_0", control_model="sasrec-untrained@block_0"), 0.0)
    assert run.config.model == "sasrec@block_0"


def test_stages_include_control_and_promotion_only_when_asked() -> None:
    plain = [stage.name for stage in new_run(CONFIG, 0.0).stages]
    full = [stage.name for stage in new_run(replace(CONFIG, control_model="untrained", promote=True), 0.0).stages]
    assert plain == ["collect", "train", "evaluate", "evidence", "describe", "verify", "causal", "publish"]
    assert full[-1] == "promote"
    assert "control_train" in full


def test_a_record_comes_back_from_json_equal() -> None:
    run = new_run(CONFIG, 1_790_000_000.5)
    run = run.with_stage(Stage("train", RunState.RUNNING, 0.5, "epoch 3", 1.0, None, {"": 2}, measures={"l0": 15.5}))
    run = replace(run, scores={"sae.fvu": 0.1}, revision=4)
    assert run_from_json(run_to_json(run)) == run


def test_a_record_of_another_schema_is_refused() -> None:
    with pytest.raises(FailedPreconditionError, match="schema 4"):
        run_from_json(run_to_json(new_run(CONFIG, 0.0)).replace('"schema_version": 3', '"schema_version": 4'))


def test_records_of_releases_before_are_read() -> None:
    run = new_run(CONFIG, 0.0)
    old = json.loads(run_to_json(run))
    for field in ("variant", "warm_start", "sweep"):
        del old["config"][field]
    for stage in old["stages"]:
        del stage["measures"]
    del old["points"], old["config"]["llm_concepts"]
    for version in (1, 2):
        assert run_from_json(json.dumps({**old, "schema_version": version})) == run


def test_a_sweep_comes_back_from_json_equal() -> None:
    grid = SweepGrid.of((32, 64), (2,), ("topk", "matryoshka"), (0, 1))
    run = new_run(replace(CONFIG, sweep=grid), 0.0)
    results = [PointResult(point, {"sae.fvu": 0.5}) for point in grid.points()[:2]]
    run = replace(run, points=(*results, PointResult(grid.points()[2], {}, "it diverged")))
    assert run_from_json(run_to_json(run)) == run


def test_a_sweep_has_stages_of_its_own_and_its_points_wait_with_training() -> None:
    run = new_run(replace(CONFIG, sweep=SweepGrid()), 0.0)
    assert [stage.name for stage in run.stages] == ["collect", "sweep", "report"]
    assert queue_of(RunStep(run.id, "sweep", "w32-k2-topk-s0")) == queue_of(RunStep(run.id, "train", "all"))
    assert run.config.completed(64).sweep == SweepGrid((256,), (8,))


def test_the_same_key_returns_the_first_run() -> None:
    store = InMemoryRunStore()
    first = start_refresh(store, CONFIG, "key")
    assert start_refresh(store, CONFIG, "key").id == first.id
    assert start_refresh(store, CONFIG).id != first.id


def test_an_old_revision_does_not_overwrite() -> None:
    store = InMemoryRunStore()
    run = start_refresh(store, CONFIG)
    store.replace(replace(run, reason="one"))
    with pytest.raises(ConflictError, match="at revision 2, not 1"):
        store.replace(replace(run, reason="two"))


def test_concurrent_updates_all_land() -> None:
    store = InMemoryRunStore()
    run = start_refresh(store, CONFIG)

    def count() -> None:
        for _ in range(20):
            update(store, run.id, lambda r: replace(r, scores={"n": r.scores.get("n", 0.0) + 1}))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(run.id).scores["n"] == 80


def test_cancelling_ends_the_run_once_and_keeps_its_reason() -> None:
    store = InMemoryRunStore()
    run = start_refresh(store, CONFIG)
    store.replace(run.with_stage(Stage("collect", RunState.RUNNING)))
    cancelled = cancel(store, run.id, "wrong data set")
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, "wrong data set")
    assert cancelled.stage("collect").state is RunState.CANCELLED
    assert cancel(store, run.id, "again") == cancelled
    assert ended(cancelled, RunState.FAILED, "late", 0.0) is cancelled


def test_listing_is_newest_first_by_model_and_by_activity() -> None:
    store = InMemoryRunStore()
    old = start_refresh(store, CONFIG, clock=lambda: 1.0)
    new = start_refresh(store, CONFIG, clock=lambda: 2.0)
    start_refresh(store, replace(CONFIG, model="other"), clock=lambda: 3.0)
    cancel(store, old.id, "not needed")
    assert [run.id for run in store.list("sasrec")] == [new.id, old.id]
    assert [run.id for run in store.list("sasrec", active_only=True)] == [new.id]
    assert len(store.list(limit=1)) == 1


def test_an_unknown_run_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="r-0"):
        InMemoryRunStore().get("r-0")


@pytest.mark.parametrize(
    "task", [AdvanceRun("r"), RunStep("r", "train", ""), SweepRuns(), CompareDrift("m"), ArchiveAudit()]
)
def test_payloads_come_back_equal(task: Task) -> None:
    assert from_payload(type(task), to_payload(task)) == task  # type: ignore[type-var]


def test_a_payload_of_another_version_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="version 2"):
        from_payload(AdvanceRun, {"payload_version": 2, "run_id": "r"})


def test_steps_wait_in_the_queue_of_their_kind() -> None:
    steps = {stage: queue_of(RunStep("r", stage, "")) for stage in ("collect", "train", "verify", "control_train")}
    assert steps == {"collect": "collect", "train": "train", "verify": "concepts", "control_train": "train"}
