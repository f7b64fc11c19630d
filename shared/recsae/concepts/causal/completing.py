"""Completes a verified dictionary with what turning its concepts does, and with handles.

One call for the pipeline. Not here: where rows and the head come from (`recsae.pipeline.stages.causal`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.causal.board import Head
from recsae.concepts.causal.doses import OPERATIONS
from recsae.concepts.causal.handles import HandleFinder, HandlePanels, find_handles, handle_facets
from recsae.concepts.causal.measuring import MOST_CONCEPTS, Effects, measure
from recsae.concepts.causal.panel import Panel, build_panel
from recsae.concepts.deletion import validate_attribution
from recsae.concepts.dictionary import Dictionary
from recsae.concepts.handles import Handle
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.sampling import ActivationRows
from recsae.errors import FailedPreconditionError

_ABOVE_NULL = 0.95
# Of the time it takes, measuring concepts is about two thirds.
_MEASURING = 0.7

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Completed:
    """The dictionary with effects; `facts` over all measured concepts; `detail` in a sentence."""

    dictionary: Dictionary
    facts: Mapping[str, Any]
    detail: str


def _deletion(inputs: DictionaryInputs, panel: Panel, head: Head) -> dict[str, float]:
    """How much better attribution guides deletion than chance and than strength do, on verification users if any."""
    if not panel.verifies.any():
        return {}
    scored = panel.of(panel.verifies)
    found = validate_attribution(inputs.sae, scored.x, scored.user, head.vectors, head.biases)
    return {f"deletion_{name}": round(area.value, 4) for name, area in found.areas.items()} | {
        f"deletion_{name}_low": round(area.low, 4) for name, area in found.areas.items()
    }


def complete(
    dictionary: Dictionary,
    inputs: DictionaryInputs,
    head: Head,
    rows: Sequence[ActivationRows],
    targets: NDArray[np.int32],
    *,
    most: int = MOST_CONCEPTS,
    progress: Progress = lambda _message, _share: None,
) -> Completed:
    """Effects of the concepts with the most mass, and handles; `targets` [n_users] are what follows each history.

    A dictionary whose users have nothing to be scored on comes back as it was, and says so.
    """

    def panel_of(back: int) -> Panel | None:
        try:
            parts = inputs.parts[:-1]
            return build_panel(rows, inputs.histories, targets, inputs.pseudonyms, parts, back=back, seed=inputs.seed)
        except FailedPreconditionError:
            return None

    panel = panel_of(0)
    if panel is None:
        return not_measured(dictionary, "no user outside SAE training has an item to be scored on")
    found = measure(
        panel,
        head,
        inputs.facets,
        inputs.sae,
        dictionary,
        most=most,
        seed=inputs.seed,
        progress=lambda text, done: progress(text, _MEASURING * done),
    )
    handles = _handles(
        panel,
        panel_of(1),
        head,
        inputs,
        dictionary,
        lambda text, done: progress(text, _MEASURING + (1 - _MEASURING) * done),
    )
    facts = {**_summary(found, panel), **_deletion(inputs, panel, head), "handles": len(handles)}
    concepts = tuple(replace(one, causal=found.records.get(one.latent)) for one in dictionary.concepts)
    summary = {**dictionary.summary, "causal": facts}
    detail = (
        f"{found.measured:,} of {found.live:,} live concepts turned on {len(panel):,} users, {len(handles)} handles"
    )
    return Completed(replace(dictionary, concepts=concepts, summary=summary, handles=handles), facts, detail)


def not_measured(dictionary: Dictionary, why: str) -> Completed:
    """The dictionary without effects: policies on its concepts have no safe range."""
    return Completed(dictionary, {"measured": 0}, f"effects not measured: {why}")


def _summary(found: Effects, panel: Panel) -> dict[str, Any]:
    """How many were measured, on whom, and shares of them."""
    records = list(found.records.values())
    shares: dict[str, float] = {}
    if records:
        for operation in OPERATIONS:
            ranges = [one.safe_range(operation) for one in records]
            shares[f"safe_{operation}_share"] = float(np.mean([one is not None and not one.empty for one in ranges]))
        shares["agreement_share"] = float(np.mean([one.agreement for one in records]))
        shares["above_null_share"] = float(np.mean([one.null_percentile >= _ABOVE_NULL for one in records]))
    return {
        "panel": panel.fingerprint,
        "panel_users": len(panel),
        "measured": found.measured,
        "live": found.live,
        **{name: round(value, 6) for name, value in shares.items()},
    }


def _handles(
    panel: Panel,
    before: Panel | None,
    head: Head,
    inputs: DictionaryInputs,
    dictionary: Dictionary,
    progress: Progress,
) -> tuple[Handle, ...]:
    """Handles of the facets worth one; none where a part of the users has nobody on the panel."""
    constructs = ~panel.verifies
    if before is None or before.verifies.all() or constructs.all() or not constructs.any():
        return ()
    panels = HandlePanels(before.of(~before.verifies), panel.of(constructs), panel.of(panel.verifies))
    finder = HandleFinder(panels, head, inputs.facets, inputs.sae.w_dec, dictionary)
    # Which facets get one is chosen like everything else of a handle, on construction users.
    return find_handles(finder, handle_facets(dictionary, inputs.facets, finder.sizing), progress)
