"""SAEs of RecSAE's published settings on the study's activations, for `coherence`: what its evidence is read from.

Not here: the study's SAE (`material`), networks and codes without training (`controls`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.study.material import Material
from recsae.sae.batches import Rows
from recsae.sae.config import SaeConfig
from recsae.sae.execution import Execution
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.training import train_sae
from recsae.store.files import canonical_json

# arXiv 2411.06112: expansion 16-32 x d, k 8-32, Adam at 5e-5..5e-4 without warm-up; the upper rate, since in as many
# epochs the lower one reconstructs worse. AuxK is the corrected one, which can only help them.
EXPANSION, KS, RATE = 16, (8, 16, 32), 5e-4
_BATCH = 1_024


def recsae_rivals(material: Material, cache: Path, *, threads: int = 1) -> dict[str, SparseAutoencoder]:
    """An SAE for each k, by name ("k8", ...), on the material's activations, from the cache or trained."""
    return recsae_saes(material.activations.training(), material.base.record["name"], cache, threads=threads)


def recsae_saes(
    rows: Rows, name: str, cache: Path, *, ks: Sequence[int] = KS, seed: int = 0, threads: int = 1, epochs: int = 0
) -> dict[str, SparseAutoencoder]:
    """The same on any rows; `name` says whose, in the cache; 0 `epochs` = as many as the engine's defaults."""
    found = {}
    for k in ks:
        config = SaeConfig.defaults_for(rows.d, rows.n, k=k, width=EXPANSION * rows.d, seed=seed, epochs=epochs)
        config = replace(config, batch_size=_BATCH, learning_rate=RATE, warm_up_share=0.0)
        identity = hashlib.sha256(canonical_json({"rows": rows.fingerprint, "config": asdict(config)})).hexdigest()[:16]
        folder = cache / "saes" / f"{name}-recsae-k{k}-s{seed}-{identity}"
        if not (folder / "done").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            train_sae(rows, config, folder, execution=Execution(threads=threads))
            (folder / "done").touch()
        found[f"k{k}"] = SparseAutoencoder.load(folder, identity)
    return found
