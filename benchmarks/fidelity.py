"""How much of a recommender's NDCG@20 survives the SAE, on users it was not trained on: `make bench-fidelity`.

SASRec on MovieLens-1M and Amazon Beauty (`DATA=` a folder with `ml-1m` and `amazon-beauty` as atomic files; see
benchmarks/convert.py). For each base model and k: NDCG@20 kept with its 95 % interval, PCA-k and adaptive PCA-k beside
it with the interval of the difference, dead latents, FVU, as a table. The last line is the result as JSON.

"Unseen" is meant for the SAE; the base model has learnt from all users' training items. k >= d / 2 is not sparse.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.base_models import BASES, TrainedBase, base_model
from benchmarks.fidelity_rows import Activations, Targets, export_activations, target_rows
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.config import VARIANTS, SaeConfig
from recsae.sae.dot_product import DotProductRanker, ExcludedItems
from recsae.sae.evaluation import evaluate
from recsae.sae.execution import Execution
from recsae.sae.fidelity import fidelity
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.sparsity import is_sparse
from recsae.sae.training import train_sae

# d = 64 and its k; the wide model is judged at k/d = 1/8 and 1/4.
_PLANS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ml-1m": ("ml-1m-d64", (4, 8, 16, 32)),
    "amazon-beauty": ("amazon-beauty-d64", (4, 8, 16, 32)),
    "ml-1m-d256": ("ml-1m-d256", (32, 64)),
}
_MOST_LATENTS, _BATCH = 2_048, 1_024
_KEPT = "ndcg@20_kept"
# Our names of what `recsae.sae.evaluation` and `recsae.sae.fidelity` measure.
_REPORTED = {
    "ndcg_kept": _KEPT,
    "adaptive_pca": f"{_KEPT}_adaptive_pca",
    "pca": f"{_KEPT}_pca",
    "diff": f"{_KEPT}_minus_adaptive_pca",
    "dead_all": "dead",
    "dead_items": "dead_items",
    "rare": "rare",
    "rare_items": "rare_items",
    "l0": "l0",
    "fvu": "fvu",
    "fvu_last": "fvu_last",
    "fvu_items": "fvu_items",
    "overlap@10": "overlap@10",
}


def main() -> None:
    """Runs the plans, one line of JSON per SAE and one for all at the end."""
    parser = argparse.ArgumentParser(description="NDCG kept by SAEs on SASRec.")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--only", nargs="*", choices=list(_PLANS), default=list(_PLANS))
    parser.add_argument("--k", nargs="*", type=int, default=None)
    parser.add_argument("--width", type=int, default=0, help="latents; 0 is 8 d at k <= d/16, else 2,048")
    parser.add_argument("--epochs", type=int, default=0, help="of the SAE; 0 is what sees 6 M rows")
    parser.add_argument("--variant", choices=list(VARIANTS), default="topk")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {"bench": "fidelity"}
    for name in arguments.only:
        base_name, ks = _PLANS[name]
        folder = arguments.data / BASES[base_name].data if arguments.data else None
        if folder is None or not folder.is_dir():
            missing = f"{folder} is not there" if folder else "DATA= is not given"
            _say(f"{name} is skipped: {missing}; README.md says how to get the data")
            continue
        result[name] = measure(base_name, arguments.k or ks, arguments)
    _print(result)


def measure(base_name: str, ks: Sequence[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """The base model's own figures, then those of one SAE per k."""
    config = replace(BASES[base_name].candidates[0], threads=arguments.threads)
    base = base_model(base_name, arguments.data, arguments.cache / "base", config)
    activations = export_activations(base, arguments.cache / "activations")
    targets = target_rows(base, activations)
    axes = PrincipalAxes.fit(activations.training())
    found: dict[str, Any] = {"base": {"valid": base.record["valid"], "test": base.record["test"]}}
    for k in ks:
        found[f"k{k}"] = one_sae(base, activations, targets, axes, k, arguments)
        _say(f"{base_name}, k = {k}: trained and scored in {found[f'k{k}']['seconds']:.0f} s and a little")
    Console(width=150).print(table(base_name, base.record, {k: found[f"k{k}"] for k in ks}))
    return found


def table(base_name: str, record: Mapping[str, Any], found: Mapping[int, Mapping[str, Any]]) -> Table:
    """One row per SAE."""
    test = record["test"]
    made = Table(
        title=f"{base_name}: test NDCG@10 {test['ndcg@10']:.4f}, HR@10 {test['hr@10']:.4f} (full ranking)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    columns = (
        "k",
        "k/d",
        "width",
        "NDCG@20 kept",
        "adaptive PCA",
        "SAE - adaptive PCA",
        "PCA",
        "FVU",
        "dead",
        "dead, items",
    )
    for column in (*columns, "rare"):
        made.add_column(column, justify="right")
    for k, one in found.items():
        made.add_row(
            str(k), f"{one['k_over_d']:.3g}" + ("" if one["sparse"] else " (not sparse)"), f"{one['width']:,}",
            f"{one['ndcg_kept']:.3f} [{one['ci'][0]:.3f}, {one['ci'][1]:.3f}]", f"{one['adaptive_pca']:.3f}",
            f"{one['diff']:.3f} [{one['diff_ci'][0]:.3f}, {one['diff_ci'][1]:.3f}]", f"{one['pca']:.3f}",
            f"{one['fvu']:.4f}", f"{one['dead_all']:.1%}", f"{one['dead_items']:.1%}", f"{one['rare']:.1%}",
        )  # fmt: skip
    return made


def one_sae(
    base: TrainedBase,
    activations: Activations,
    targets: Targets,
    axes: PrincipalAxes,
    k: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Trains one SAE and scores it on held-out users and items."""
    rows = activations.training()
    config = settings(rows.d, rows.n, k, arguments)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_sae(rows, config, Path(folder), execution=Execution(threads=arguments.threads))
        seconds = time.perf_counter() - started
        sae = SparseAutoencoder.load(Path(folder), "bench")
    scores = evaluate(sae, activations.scoring()).scores()
    scores |= fidelity(sae, axes, targets.x, ranker(base, targets), users=targets.user).scores()
    rounded = {name: round(scores[source], 4) for name, source in _REPORTED.items()}
    intervals = {
        "ci": [round(scores[f"{_KEPT}_{end}"], 4) for end in ("low", "high")],
        "diff_ci": [round(scores[f"{_KEPT}_minus_adaptive_pca_{end}"], 4) for end in ("low", "high")],
    }
    shape = {"width": config.width, "k_over_d": round(k / rows.d, 4), "sparse": is_sparse(k, rows.d)}
    return rounded | intervals | shape | {"seconds": round(seconds, 1)}


def settings(d: int, rows: int, k: int, arguments: argparse.Namespace) -> SaeConfig:
    """The engine's defaults but for the batch, which may be larger on so many rows, and the width.

    On MovieLens-1M, d = 64: at k = 4 512 latents stay alive and of 1,024 some 5 % die; from k = 8 on 2,048 live.
    """
    width = arguments.width or (8 * d if 16 * k <= d else _MOST_LATENTS)
    config = SaeConfig.defaults_for(d, rows, k=k, width=width, epochs=arguments.epochs, variant=arguments.variant)
    return replace(config, batch_size=_BATCH)


def ranker(base: TrainedBase, targets: Targets) -> DotProductRanker:
    """Full ranking by the base model's own head; items a user has consumed are left out. Item 1 is index 0."""
    return DotProductRanker(
        base.model.items.weight.detach().numpy()[1:],
        targets.item - 1,
        biases=base.model.item_bias.detach().numpy()[1:],
        excluded=ExcludedItems(targets.offsets, targets.consumed - 1),
    )


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


def _print(values: dict[str, Any]) -> None:
    _say(json.dumps(values))


if __name__ == "__main__":
    main()
