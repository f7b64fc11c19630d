"""The triple a run publishes: one model, its SAE and that SAE's dictionary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Triple:
    """Versions that belong together, 16 hex digits each; empty strings until they exist."""

    model_version: str = ""
    sae_version: str = ""
    dictionary_version: str = ""
