"""Trains one RecBole model with one set of settings, by RecBole's own trainer, epoch by epoch.

After every epoch both countings are measured on the validation items; the weights of the best epoch of each are kept.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.recbole.material import Material
from benchmarks.recbole.measures import COUNTINGS, figures


@dataclass(frozen=True)
class Trained:
    """The model with the weights of the best epoch of a counting, and what happened."""

    model: Any
    record: Mapping[str, Any]


@dataclass
class _Best:
    """The best epoch so far of one counting, and its weights."""

    valid: Mapping[str, float]
    epoch: int
    weights: Mapping[str, Any]


def train(
    made: Material, *, epochs: int, patience: int, minutes: float = 0.0, say: Callable[[str], None] = print
) -> Trained:
    """Trains until neither counting has improved for `patience` epochs, or for `epochs`, or `minutes` (0: no bound).

    Minutes are of processor time where the model is on the CPU, else of the clock.

    The model is left with the weights of the best epoch by RecBole's own counting.
    """
    from recbole.utils import get_model, get_trainer, init_seed

    config, name = made.config, made.config["model"]
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(name)(config, made.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    best: dict[str, _Best] = {}
    started, cpu_started, epoch, stopped_by = time.perf_counter(), time.process_time(), 0, "epochs"
    for epoch in range(1, epochs + 1):
        trainer._train_epoch(made.train, epoch - 1, show_progress=False)
        _reset_cache(model)
        found = figures(model, made, "valid")
        for counting in COUNTINGS:
            if counting not in best or found[counting]["ndcg10"] > best[counting].valid["ndcg10"]:
                best[counting] = _Best(found[counting], epoch, copy.deepcopy(model.state_dict()))
        seconds = time.perf_counter() - started
        say(f"{name} epoch {epoch}: {seconds:.0f} s, {_brief(found)}")
        if epoch - max(one.epoch for one in best.values()) >= patience:
            stopped_by = "patience"
            break
        spent = time.process_time() - cpu_started if str(config["device"]) == "cpu" else seconds
        if minutes and spent > 60 * minutes:
            stopped_by = "minutes"
            break
    record: dict[str, Any] = {"epochs": epoch, "stopped_by": stopped_by}
    record["seconds"] = round(time.perf_counter() - started, 1)
    record["cpu_seconds"] = round(time.process_time() - cpu_started, 1)
    own = recbole_counting(made)
    for counting in sorted(COUNTINGS, key=lambda one: one == own):  # its own last, so that those weights stay
        _load(model, best[counting].weights)
        tested = figures(model, made, "test")[counting]
        record[counting] = {"kept_epoch": best[counting].epoch, "valid": dict(best[counting].valid), "test": tested}
    trainer.eval_collector.data_collect(made.train)
    reported = trainer.evaluate(made.test, load_best_model=False)
    record["recbole_reports"] = {"ndcg10": round(float(reported["ndcg@10"]), 4), "hr10": round(reported["hit@10"], 4)}
    return Trained(model, record)


def recbole_counting(made: Material) -> str:
    """How RecBole's own evaluation counts this kind of model."""
    return "consumed_compete" if made.config["MODEL_TYPE"].name == "SEQUENTIAL" else "excluding_consumed"


def _load(model: Any, weights: Mapping[str, Any]) -> None:
    model.load_state_dict(weights)
    _reset_cache(model)


def _reset_cache(model: Any) -> None:
    """LightGCN keeps its propagated vectors between calls, and forgets them only when it trains."""
    if hasattr(model, "restore_user_e"):
        model.restore_user_e, model.restore_item_e = None, None


def _brief(found: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{counting} {values['ndcg10']:.4f}" for counting, values in found.items())
