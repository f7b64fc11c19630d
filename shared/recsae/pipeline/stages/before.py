"""What was in production when a run first asked: the dictionary whose concepts are found again, with its SAE.

Chosen once per run, since production may change between its stages and their attempts. Not here: finding concepts again
(`recsae.concepts.identity`), training on from the SAE (`warm_start`).
"""

from __future__ import annotations

from dataclasses import asdict

from recsae.concepts.dictionary import Dictionary
from recsae.concepts.identity import Previous
from recsae.concepts.probe_set import load_probe_set
from recsae.pipeline.steps import StepContext
from recsae.pipeline.triples import Triple
from recsae.sae.pooling import subject_encoder
from recsae.sae.runtime import SparseAutoencoder
from recsae.store.channels import PRODUCTION

_FILE = "before.json"


def triple_before(context: StepContext) -> Triple:
    """The triple in production when this run first asked; an empty one when there was none."""
    if context.workspace.exists(_FILE):
        return Triple(**context.workspace.read_json(_FILE))
    triple = context.platform.channels.read(context.run.config.model).channel(PRODUCTION).triple
    context.workspace.write_json(_FILE, asdict(triple))
    return triple


def dictionary_before(context: StepContext) -> Previous | None:
    """Its dictionary, SAE and probe rows; None when nothing was in production."""
    triple = triple_before(context)
    if not triple.dictionary_version:
        return None
    artifacts = context.platform.artifacts
    folder = artifacts.fetch("dictionary", triple.dictionary_version).folder
    sae = SparseAutoencoder.load(artifacts.fetch("sae", triple.sae_version).folder, triple.sae_version)
    probe = load_probe_set(folder)
    # Its model may have had another number of interests; its rows tell.
    interests = probe.x.shape[1] // sae.d if probe is not None else 1
    return Previous(Dictionary.load(folder, triple.dictionary_version), subject_encoder(sae, interests), probe)
