"""How many concepts survive a refresh: the base retrained from a new seed on 10 % more interactions, warm and cold.

The old base has seed 1 and the oldest ten elevenths of every history, the new one another seed and all of it. Warm: the
old SAE is turned into the new space (Procrustes on the probe rows) and trained on gently; cold: trained from nothing.
Kept: found again, and the old rule, unchanged, verifies on the new activations. Beside them what bounds both: the SAE
trained on, and trained anew, upon the *same* base reading 10 % more; the very same SAE and base reading 10 % more,
where only chance at the thresholds loses a concept; and latents matched in an unrelated dictionary.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.base_models import TrainedBase
from benchmarks.study.material import Material, load_base, open_up
from recsae.concepts.build import build_dictionary
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.identity import Previous
from recsae.concepts.origins import Lineage
from recsae.concepts.probe_set import Reader, make_probe_set, read_again
from recsae.sae.alignment import align
from recsae.sae.config import SaeConfig
from recsae.sae.execution import Execution
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.training import train_sae
from recsae.sae.turning import turn_weights
from recsae.sae.weights import SaeWeights, load_weights
from recsae.significance import wilson
from recsae.store.files import canonical_json

_OLD, _NEW = "ml-1m-d64-older", "ml-1m-d64"
_BATCH = 1_024

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """Of every SAE of the study; `seeds` are those of the SAEs, of one pair of base models."""

    k: int = 8
    width: int = 512
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 1


def refresh_study(
    data: Path, cache: Path, setting: Setting = Setting(), say: Say = lambda _words: None
) -> dict[str, Any]:
    """`{warm, cold, same_base_warm, same_base_cold, same_sae, false_match, ...}`.

    Shares are {value, low, high, count, of} with Wilson's 95 % interval over the concepts verified before, those of all
    seeds together. Base models come from `cache`/base, or are trained; SAEs and activations are kept in `cache`.
    """
    bases = [load_base(name, data, cache, threads=setting.threads) for name in (_OLD, _NEW)]
    found: dict[str, list[dict[str, Any]]] = {}
    live = 0
    for seed in setting.seeds:
        old, new = (_opened(base, cache, setting, seed) for base in bases)
        before = replace(old.dictionary, version="0" * 16)
        live += before.summary["live"]
        say(f"old dictionary of seed {seed}: {json.dumps(_facts(before))}")
        previous = Previous(before, old.sae, make_probe_set(old.inputs))
        for name, material in _refreshed(old, new, previous, cache, setting).items():
            dictionary = build_dictionary(replace(material.inputs, previous=previous))
            assert dictionary.lineage is not None
            one = survival(dictionary.lineage) | {"fvu": material.sae.scores["train_fvu"]}
            one |= {"before": _facts(before), "after": _facts(dictionary)}
            found.setdefault(name, []).append(one)
            say(f"{name}: {json.dumps(one)}")
    result: dict[str, Any] = {"setting": asdict(setting)} | {name: pooled(ones) for name, ones in found.items()}
    by_chance = max(one["by_chance"] for ones in found.values() for one in ones)
    result["false_match"] = _share(round(by_chance * live), live)
    return result


def _refreshed(old: Material, new: Material, previous: Previous, cache: Path, setting: Setting) -> dict[str, Material]:
    grown = _grown(old, new, cache, setting)
    old_weights = load_weights(old.folder)
    return {
        "warm": _trained_on(new, _turned(previous, old_weights, new), cache, setting),
        "cold": new,
        "same_base_warm": _trained_on(grown, old_weights, cache, setting),
        "same_base_cold": grown,
        "same_sae": replace(grown, sae=old.sae, folder=old.folder),
    }


def _opened(base: TrainedBase, cache: Path, setting: Setting, seed: int) -> Material:
    return open_up(base, cache, k=setting.k, width=setting.width, seed=seed, threads=setting.threads)


def _grown(old: Material, new: Material, cache: Path, setting: Setting) -> Material:
    """The old base, which stays of its version, reading the histories of the new one."""
    record = {**old.base.record, "name": f"{old.base.record['name']}-grown"}
    return _opened(replace(old.base, split=new.split, record=record), cache, setting, int(old.sae.config["seed"]))


def _turned(previous: Previous, weights: SaeWeights, new: Material) -> SaeWeights:
    """The old SAE in the space of the new base, as a warm start turns it."""
    assert previous.probe is not None
    inputs = new.inputs
    reading = read_again(previous.probe, Reader(inputs.item_ids, inputs.embed, inputs.max_history))
    return turn_weights(weights, align(reading.new, reading.old), reading.new, reading.old)


def _trained_on(material: Material, start: SaeWeights, cache: Path, setting: Setting) -> Material:
    rows = material.activations.training()
    config = SaeConfig.defaults_for(rows.d, rows.n, k=setting.k, width=setting.width).gentle()
    config = replace(config, batch_size=_BATCH)
    facts = {"rows": rows.fingerprint, "config": config.as_dict(), "start": start.fingerprint}
    settings = hashlib.sha256(canonical_json(facts)).hexdigest()[:16]
    folder = cache / "saes" / f"{material.base.record['name']}-warm-{settings}"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train_sae(rows, config, folder, start=start, execution=Execution(threads=setting.threads))
        (folder / "done").touch()
    return replace(material, sae=SparseAutoencoder.load(folder, folder.name), folder=folder)


def _facts(dictionary: Dictionary) -> dict[str, Any]:
    summary = dictionary.summary
    return {"live": summary["live"], "verified": summary["verified"]["count"], "item_set": summary["item_set"]["count"]}


def survival(lineage: Lineage) -> dict[str, Any]:
    """Shares of the concepts verified before: kept, and by what became of them.

    `kept_of_judged` leaves out those found again with too few cases of a class (mostly hard negatives) to be judged.
    """
    summary = lineage.summary()
    verified = [fate for fate in lineage.fates if fate.verified]
    found = {status: int(one["count"]) for status, one in summary["verified"].items()}
    matched = [fate for fate in verified if fate.id in fate.to_ids]
    return {
        "kept": _share(sum(bool(fate.kept) for fate in verified), len(verified)),
        "kept_of_judged": _share(sum(bool(fate.kept) for fate in verified), summary["judged"]),
        "kept_share_of_mass": summary["kept_share_of_mass"],
        "matched": _share(len(matched), len(verified)),
        "verified_became": found,
        "live_became": {status: int(one["count"]) for status, one in summary["live"].items()},
        "explained": lineage.explained,
        "by_chance": lineage.by_chance,
    }


def pooled(ones: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several `survival`s together: counts added up, the rest as means; `seeds` holds each."""
    result: dict[str, Any] = {}
    for name in ("kept", "kept_of_judged", "matched"):
        result[name] = _share(sum(one[name]["count"] for one in ones), sum(one[name]["of"] for one in ones))
    for name in ("verified_became", "live_became"):
        result[name] = {status: sum(one[name][status] for one in ones) for status in ones[0][name]}
    for name in ("kept_share_of_mass", "explained", "by_chance", "fvu"):
        known = [one[name] for one in ones if one.get(name) is not None]
        result[name] = sum(known) / len(known) if known else None
    return result | {"seeds": list(ones)}


def _share(count: int, of: int) -> dict[str, float]:
    """With Wilson's 95 % interval."""
    if not of:
        return {"value": 0.0, "low": 0.0, "high": 1.0, "count": 0, "of": 0}
    value = count / of
    low, high = wilson(value, of)
    return {"value": value, "low": float(low), "high": float(high), "count": count, "of": of}


def main() -> None:
    """Prints the result as JSON."""
    parser = argparse.ArgumentParser(description="Concepts kept over a refresh, warm and cold.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    setting = Setting(threads=arguments.threads)
    print(json.dumps(refresh_study(arguments.data, arguments.cache, setting, _print), indent=1))  # noqa: T201


def _print(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
