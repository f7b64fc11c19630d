"""Which of RecBole's models are run, and the settings tried for each.

The defaults are those of RecBole's own yaml files (`properties/overall.yaml`, `properties/model/*.yaml`); what differs
is written here. BPR and LightGCN, which train in minutes, are searched: of both, one candidate is the best setting that
RecBole publishes for ML-1M (benchmarks/recbole/published.json), exactly or nearly. The others run as RecBole ships
them: each further setting would cost a CPU another ten minutes or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]

_NEGATIVES = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}

# The protocol: the last item of a user is for test, the one before for validation; every item is ranked.
PROTOCOL: Settings = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
    "metrics": ["Hit", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "eval_batch_size": 2048,
    "metric_decimal_place": 6,
    "threshold": None,
    "train_neg_sample_args": _NEGATIVES,
    "show_progress": False,
    "save_dataset": False,
    "save_dataloaders": False,
    "log_wandb": False,
}

# Columns the context models read beside the ids; of ML-100K those of RecBole's own quick start.
FEATURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ml-100k": {"user": ("age", "gender", "occupation"), "item": ("release_year", "class")},
    "ml-1m": {"user": ("age", "gender", "occupation"), "item": ("release_year", "genre")},
}


@dataclass(frozen=True)
class Model:
    """One of RecBole's models: `kind` says what it reads: "general", "sequential" or "context".

    `family` is the one of ours it is compared with; `settings` hold for every candidate. Training ends after `epochs`,
    or `patience` epochs without a better validation NDCG@10, or after the epoch that passes `minutes` of processor time
    (0 = never): not of the clock's, which on a busy machine would end RecBole's models half trained.
    """

    family: str
    kind: str
    epochs: int
    patience: int
    candidates: tuple[Settings, ...]
    settings: Settings = field(default_factory=dict)
    note: str = ""
    minutes: float = 0.0


# Cross-entropy over all items needs no sampled negatives. A batch of 128 instead of 2,048: an epoch over the 98,000
# training sequences costs a CPU a minute or two whatever the batch, so that more of its steps should count.
_SEQUENTIAL: Settings = {"train_neg_sample_args": None, "train_batch_size": 128}
_MINUTES = 6.0
_CTR_NOTE = (
    "RecBole evaluates it by AUC on labelled pairs; here it is trained with one uniformly drawn negative per "
    "interaction, RecBole's own way for ranking, and every item is scored for every user"
)

MODELS: Mapping[str, Model] = {
    "BPR": Model("bpr", "general", 400, 30, ({}, {"learning_rate": 5e-4}, {"learning_rate": 5e-3})),
    "LightGCN": Model(
        "lightgcn",
        "general",
        300,
        30,
        ({}, {"learning_rate": 5e-3}, {"learning_rate": 2e-3, "n_layers": 1, "reg_weight": 1e-2}),
        note="its NDCG@10 rests at that of popularity for tens of epochs before it rises; hence the patience",
    ),
    "DeepFM": Model(
        "din",
        "context",
        60,
        8,
        ({},),
        note="a click-through ranker, beside our DIN. " + _CTR_NOTE,
    ),
    "DSSM": Model(
        "two_tower",
        "context",
        60,
        8,
        ({},),
        note="the two-tower model. " + _CTR_NOTE,
    ),
    "GRU4Rec": Model("gru4rec", "sequential", 20, 3, ({},), _SEQUENTIAL, minutes=_MINUTES),
    "SASRec": Model(
        "sasrec",
        "sequential",
        20,
        3,
        ({},),
        _SEQUENTIAL,
        "RecBole's own search on ML-1M varies the learning rate alone, which moves NDCG@10 by .007 at most",
        8.0,
    ),
    "SINE": Model(
        "comirec",
        "sequential",
        20,
        3,
        ({},),
        _SEQUENTIAL,
        "RecBole 1.2.1 has neither ComiRec nor TiMiRec; SINE is nearest: several interests per user, merged into one "
        "vector before items are scored",
        _MINUTES,
    ),
}
