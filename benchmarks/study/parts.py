"""The parts of the study, each a function of a `Study` to a plain dict; a part's result is kept in the cache.

A part is computed again when its settings change. Not here: what the figures are shown beside (`page`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.study.coherence import coherence_study
from benchmarks.study.combinations import combination_study
from benchmarks.study.controls import untrained_material
from benchmarks.study.debiasing import debiasing_study
from benchmarks.study.deletion import deletion_study
from benchmarks.study.dictionaries import dictionary_figures, figures
from benchmarks.study.intruder import intruder_study
from benchmarks.study.llm import llm_study
from benchmarks.study.material import Material, load_base, open_up
from benchmarks.study.planted import planted_study
from benchmarks.study.probing import probing_study
from benchmarks.study.quality import kept_study
from benchmarks.study.rating import rating_study
from benchmarks.study.refresh import Setting as RefreshSetting
from benchmarks.study.refresh import refresh_study
from benchmarks.study.rivals import recsae_rivals
from benchmarks.study.stability import stability_study
from benchmarks.study.steering import steering, untagged
from recsae.concepts.llm.options import LlmOptions
from recsae.store.files import canonical_json, write_json_atomic

KEPT_KS = (4, 8, 16, 32)
ROWS_PER_PART = 200_000
OTHER_SIZES = ((4, 128), (8, 128), (4, 256), (8, 256), (8, 512))


@dataclass(frozen=True)
class Setting:
    """One data set of the study: its base model, and the SAE whose dictionary is published."""

    base: str
    k: int
    width: int

    @property
    def sae(self) -> dict[str, int]:
        """K and width."""
        return {"k": self.k, "width": self.width}


SETTINGS = {"ml-1m": Setting("ml-1m-d64", 5, 128), "amazon-beauty": Setting("amazon-beauty-d64", 5, 128)}


@dataclass(frozen=True)
class Study:
    """What parts read: one data set's material, where things are kept, and a language model where one is set.

    The rating sheet goes into the cache: it shows items of data that may not be passed on.
    """

    name: str
    data: Path
    cache: Path
    threads: int = 1
    llm: LlmOptions | None = None

    @property
    def setting(self) -> Setting:
        """Base model and SAE."""
        return SETTINGS[self.name]

    @cached_property
    def material(self) -> Material:
        """The base model opened up."""
        base = load_base(self.setting.base, self.data, self.cache, threads=self.threads)
        setting = self.setting
        opened = open_up(base, self.cache, k=setting.k, width=setting.width, threads=self.threads)
        return replace(opened, rows_per_part=ROWS_PER_PART)

    @cached_property
    def untrained(self) -> Material:
        """The same network as it was initialised."""
        return untrained_material(self.material, self.cache, self.threads)


Part = Callable[[Study], Mapping[str, Any]]


def _base(study: Study) -> Mapping[str, Any]:
    record, dataset = study.material.base.record, study.material.dataset
    return {
        "users": len(dataset.users.ids),
        "items": dataset.items.count,
        "interactions": len(dataset.histories.items),
        "test": record["test"],
        "trained_on": record["device"],
        "sae": study.setting.sae,
    }


def _kept(study: Study) -> Mapping[str, Any]:
    material = study.material
    return kept_study(material.base, material.activations, material.targets, KEPT_KS, study.threads)


def _steering(study: Study) -> Mapping[str, Any]:
    found = steering(study.material)
    more = {"untagged": untagged(study.material), "combinations": combination_study(study.material)}
    return {"facets": found.facets, "mean": found.mean} | more


def _refresh(study: Study) -> Mapping[str, Any]:
    setting = RefreshSetting(k=study.setting.k, width=study.setting.width, threads=study.threads)
    return refresh_study(study.data, study.cache, setting)


def _unseen(study: Study) -> Mapping[str, Any]:
    """The dictionary of a base model that never saw construction and verification users either."""
    setting = study.setting
    base = load_base(f"{setting.base}-unseen", study.data, study.cache, threads=study.threads)
    opened = open_up(base, study.cache, k=setting.k, width=setting.width, threads=study.threads)
    return figures(replace(opened, rows_per_part=ROWS_PER_PART).dictionary)


def _settings(study: Study) -> Mapping[str, Any]:
    """The same dictionary at other sizes: what a wider or denser SAE costs in trust and gains in quality."""
    base = study.material.base
    found = {}
    for k, width in OTHER_SIZES:
        opened = open_up(base, study.cache, k=k, width=width, threads=study.threads)
        found[f"{k}/{width}"] = figures(replace(opened, rows_per_part=ROWS_PER_PART).dictionary)
    return found


def _llm(study: Study) -> Mapping[str, Any]:
    if study.llm is None:
        return {"skipped": "no endpoint is set"}
    return llm_study(study.material.dictionary, study.material.inputs, study.llm, cache=str(study.cache / "llm"))


# Of every data set, and those that need attributes or base models only MovieLens-1M has.
PARTS: Mapping[str, Part] = {
    "base": _base,
    "ndcg_kept": _kept,
    "dictionary": lambda study: dictionary_figures(study.material, study.cache, study.threads),
    "probing": lambda study: probing_study(study.material, study.untrained),
    "coherence": lambda study: coherence_study(
        study.material, recsae_rivals(study.material, study.cache, threads=study.threads)
    ),
    "intruder": lambda study: intruder_study(study.material),
    "deletion": lambda study: deletion_study(study.material),
    "seed_stability": lambda study: stability_study(study.material, study.cache, study.threads),
}
MOVIELENS_PARTS: Mapping[str, Part] = {
    "steering": _steering,
    "debiasing": lambda study: debiasing_study(study.material),
    "refresh": _refresh,
    "planted": lambda study: planted_study(study.threads),
    "unseen_users": _unseen,
    "settings": _settings,
    "llm": _llm,
    "rating": lambda study: rating_study(study.material, study.cache / "study" / "rating"),
}


def parts_of(name: str) -> Mapping[str, Part]:
    """The parts of a data set."""
    return {**PARTS, **(MOVIELENS_PARTS if name == "ml-1m" else {})}


def run_part(study: Study, part: str, say: Callable[[str], None], *, again: bool = False) -> dict[str, Any]:
    """The part's result, from the cache when it is there; `seconds` says how long it took when it was computed."""
    settings = {"setting": vars(study.setting), "rows": ROWS_PER_PART, "llm": study.llm.model if study.llm else ""}
    identity = hashlib.sha256(canonical_json(settings)).hexdigest()[:12]
    file = study.cache / "study" / f"{study.name}-{part}-{identity}.json"
    if file.is_file() and not again:
        kept: dict[str, Any] = json.loads(file.read_bytes())
        return kept
    say(f"{study.name}: {part} ...")
    started = time.perf_counter()
    found = {**parts_of(study.name)[part](study), "seconds": round(time.perf_counter() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(file, found)
    say(f"{study.name}: {part} took {found['seconds']:.0f} s")
    return found
