"""What the study's own SAE is compared with: SAEs of RecSAE's published settings, and the network nobody trained.

Not here: the study's SAE (`material`), what is measured on any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.base_models import TrainedBase
from benchmarks.study.material import Material
from recsae.recommenders.sasrec import untrained_sasrec
from recsae.sae.config import SaeConfig
from recsae.sae.execution import Execution
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.training import train_sae
from recsae.store.files import canonical_json

# arXiv 2411.06112: expansion 16-32 x d, k 8-32, Adam at 5e-5..5e-4 without warm-up; the upper rate, since the lower
# leaves FVU higher in as many epochs. AuxK is the corrected one, which can only help them.
EXPANSION, KS, RATE = 16, (8, 16, 32), 5e-4
_BATCH = 1_024


def recsae_saes(
    material: Material, cache: Path, *, ks: Sequence[int] = KS, seed: int = 0, threads: int = 1
) -> dict[str, SparseAutoencoder]:
    """SAEs of RecSAE's settings on the material's activations, by name ("k8", ...), from the cache or trained."""
    rows = material.activations.training()
    found = {}
    for k in ks:
        config = SaeConfig.defaults_for(rows.d, rows.n, k=k, width=EXPANSION * rows.d, seed=seed)
        config = replace(config, batch_size=_BATCH, learning_rate=RATE, warm_up_share=0.0)
        identity = hashlib.sha256(canonical_json({"rows": rows.fingerprint, "config": asdict(config)})).hexdigest()[:16]
        folder = cache / "saes" / f"{material.base.record['name']}-recsae-k{k}-s{seed}-{identity}"
        if not (folder / "done").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            train_sae(rows, config, folder, execution=Execution(threads=threads))
            (folder / "done").touch()
        found[f"k{k}"] = SparseAutoencoder.load(folder, identity)
    return found


def untrained(base: TrainedBase, seed: int = 0) -> TrainedBase:
    """The same network as initialised; its name and identity say so, so that caches keep the two apart."""
    name = f"{base.record['name']}-untrained"
    identity = hashlib.sha256(f"{base.record['identity']} untrained {seed}".encode()).hexdigest()[:16]
    return replace(
        base, model=untrained_sasrec(base.model.shape, seed), record=base.record | {"name": name, "identity": identity}
    )
