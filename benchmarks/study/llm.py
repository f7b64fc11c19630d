"""A language model as describer and verifier, on the concepts of most activation mass, beside the rules and controls.

    python -m benchmarks.study.llm --data DATA --url http://127.0.0.1:8080/v1 --model NAME --latents 100

Every description is written from construction users and rated on verification users (`recsae.concepts.llm`). Beside its
scores stand those of the rule of the same concept on the very same cases, of a description of another concept, and of
chance. Not here: the material (`material`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.material import load_base, open_up
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.inputs import DictionaryInputs, read_part
from recsae.concepts.llm.agreement import agreement, mean_over
from recsae.concepts.llm.asking import Asker
from recsae.concepts.llm.cache import FolderCache
from recsae.concepts.llm.cases import DEFAULT_MIX, Mix
from recsae.concepts.llm.labelling import LlmRun, figures, label_concepts, largest_concepts
from recsae.concepts.llm.options import LlmOptions
from recsae.concepts.llm.ten_cases import COIN_FLIP_PASSES, PASS, TEN_CASES
from recsae.concepts.llm.usage import Spend
from recsae.concepts.records import LlmRecord
from recsae.concepts.rules import compile_item_sets, compile_rules
from recsae.concepts.splits import UserPart

_SHOWN = 10
_SCORES = ("correlation", "precision", "recall", "f1")


def llm_study(
    dictionary: Dictionary,
    inputs: DictionaryInputs,
    settings: LlmOptions,
    latents: int = 100,
    *,
    cache: str = ".cache/bench/llm",
    mix: Mix = DEFAULT_MIX,
) -> dict[str, Any]:
    """Figures over the `latents` concepts of most mass: means over concepts, concepts resampled for the interval."""
    started = time.perf_counter()
    asker = Asker(settings, FolderCache(cache))
    chosen = largest_concepts(dictionary, latents)
    run = label_concepts(dictionary, inputs, asker, chosen, mix=mix, progress=_say)
    rated = {latent: record for latent, record in run.records.items() if record.cases}
    found: dict[str, Any] = {"model": settings.model, "latents": len(chosen), "mix": asdict(mix)}
    found |= {name: round(value, 4) for name, value in figures(run).items()}
    found |= {name: _mean([getattr(record, name).value for record in rated.values()]) for name in _SCORES}
    found["correlation_above_0_share"] = _mean([record.correlation.low > 0 for record in rated.values()])
    found["always_true_f1"] = _always_true_f1(mix)
    found["rules_f1"] = _mean(_rules_f1(dictionary, inputs, run, sorted(rated)))
    found["recsae_10_case"] = _ten_cases(list(rated.values()))
    found["unrated_share"] = _share_unrated(list(run.records.values()))
    found["failures"] = [record.failure for record in run.records.values() if record.failure][:_SHOWN]
    found["examples"] = [_example(dictionary, latent, record) for latent, record in rated.items()][:_SHOWN]
    return found | {"stopped": run.spend.stopped, "seconds": round(time.perf_counter() - started, 1)}


def _rules_f1(dictionary: Dictionary, inputs: DictionaryInputs, run: LlmRun, latents: Sequence[int]) -> list[float]:
    """F1 of each concept's own rule on the cases its description was rated on."""
    part = read_part(inputs, UserPart.VERIFICATION)
    rules = [concept.rule for concept in dictionary.concepts]
    asked = np.array(latents, np.int64)
    facets = compile_rules(rules).predictor(part.features)(asked).tocsr()
    sets = compile_item_sets(rules, inputs.item_ids).predictor(part.features, inputs.n_items)(asked).tocsr()
    scores = []
    for at, latent in enumerate(latents):
        cases = run.cases[latent]
        truth = (sets if rules[latent].item_ids else facets)[at, [case.row for case in cases]].toarray().ravel()
        found = agreement(
            (10.0 * (truth > 0)).tolist(), [case.strength for case in cases], [case.user for case in cases]
        )
        scores.append(found.f1.value)
    return scores


def _ten_cases(records: Sequence[LlmRecord]) -> dict[str, Any]:
    own = [record.recsae_10_case for record in records if record.recsae_10_case is not None]
    swapped = [record.swapped_10_case for record in records if record.swapped_10_case is not None]
    enough = PASS / TEN_CASES
    return {
        "mean": _mean(own),
        "passes": _mean([share >= enough for share in own]),
        "swapped_mean": _mean(swapped),
        "swapped_passes": _mean([share >= enough for share in swapped]),
        "coin_flip_passes": round(COIN_FLIP_PASSES, 4),
    }


def _always_true_f1(mix: Mix) -> float:
    """Of a verifier that says yes to everything."""
    precision = mix.positives / (mix.positives + mix.random + mix.matched + mix.hard)
    return round(2 * precision / (1 + precision), 4)


def _share_unrated(records: Sequence[LlmRecord]) -> float:
    asked = sum(record.cases + record.unrated for record in records)
    return round(sum(record.unrated for record in records) / max(1, asked), 4)


def _example(dictionary: Dictionary, latent: int, record: LlmRecord) -> dict[str, Any]:
    return {
        "rule": dictionary.by_latent(latent).label,
        "label": record.label,
        "description": record.description,
        "correlation": round(record.correlation.value, 3),
    }


def _mean(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(mean_over([float(value) for value in values])).items()}


def _say(message: str, share: float, spend: Spend) -> None:
    print(f"{share:6.1%}  {message}; {spend.requests:,} requests, {spend.usage.tokens:,} tokens", flush=True)  # noqa: T201


def main() -> None:
    """Runs the study on one base model and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description="A language model as describer and verifier.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--base", default="ml-1m-d64")
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--latents", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--cases", type=int, nargs=4, default=list(asdict(DEFAULT_MIX).values()))
    arguments = parser.parse_args()
    material = open_up(load_base(arguments.base, arguments.data, arguments.cache), arguments.cache, k=arguments.k,
                       width=arguments.width)  # fmt: skip
    settings = LlmOptions(
        arguments.url, arguments.model, concurrency=arguments.concurrency, timeout_s=arguments.timeout
    )
    found = llm_study(
        material.dictionary,
        material.inputs,
        settings,
        arguments.latents,
        cache=str(arguments.cache / "llm"),
        mix=Mix(*arguments.cases),
    )
    print(json.dumps(found, ensure_ascii=False, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
