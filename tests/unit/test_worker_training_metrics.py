"""What the exporter says of training: the newest run at work of each model, and nothing when nothing trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recsae.pipeline.run_store import InMemoryRunStore, start_refresh, update
from recsae.pipeline.runs import Run, RunConfig, RunState, Stage, ended
from recsae_worker.exporter import run_metrics, training_metrics

MEASURES = {"activations_per_s": 41_234.0, "fvu": 0.08, "l0": 15.9, "dead": 3.0, "eta_s": 12.5}


def training(store: InMemoryRunStore, model: str, at: float, measures: Mapping[str, float] = MEASURES) -> Run:
    run = start_refresh(store, RunConfig(model, "0" * 16), clock=lambda: at)
    stage = Stage("train", RunState.RUNNING, measures=measures)
    return update(store, run.id, lambda r: replace(r, state=RunState.RUNNING).with_stage(stage))


def samples(store: InMemoryRunStore) -> dict[tuple[str, str, str], float]:
    return {
        (sample.name, sample.labels["model"], sample.labels["stage"]): sample.value
        for family in training_metrics(store.list(limit=500))
        for sample in family.samples
    }


def test_measures_are_exported_in_base_units_by_model_and_stage() -> None:
    store = InMemoryRunStore()
    training(store, "sasrec", 1.0)
    assert samples(store) == {
        ("recsae_training_activations_per_second", "sasrec", "train"): 41_234.0,
        ("recsae_training_fvu", "sasrec", "train"): 0.08,
        ("recsae_training_l0", "sasrec", "train"): 15.9,
        ("recsae_training_dead_latents", "sasrec", "train"): 3.0,
        ("recsae_training_eta_seconds", "sasrec", "train"): 12.5,
    }
    assert {family.name for family in run_metrics(store)} >= {"recsae_runs", "recsae_training_fvu"}


def test_each_model_has_one_series_that_of_its_newest_run_at_work() -> None:
    store = InMemoryRunStore()
    training(store, "sasrec", 1.0, {"fvu": 0.5})
    training(store, "sasrec", 2.0, {"fvu": 0.25})
    training(store, "other", 3.0, {"fvu": 0.125})
    done = training(store, "sasrec", 4.0, {"fvu": 0.75})
    update(store, done.id, lambda run: ended(run, RunState.SUCCEEDED, "", 5.0))
    assert samples(store) == {
        ("recsae_training_fvu", "sasrec", "train"): 0.25,
        ("recsae_training_fvu", "other", "train"): 0.125,
    }


def test_a_stage_that_is_done_measures_nothing_any_more() -> None:
    store = InMemoryRunStore()
    run = training(store, "sasrec", 1.0)
    done = replace(run.stage("train"), state=RunState.SUCCEEDED)
    update(store, run.id, lambda r: r.with_stage(done))
    assert samples(store) == {}
