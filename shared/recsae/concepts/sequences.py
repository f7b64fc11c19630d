"""Histories as evidence for people: the newest items of rows, with titles. No figure is computed here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsae.concepts.evidence_draws import Rule
from recsae.concepts.evidence_sums import EvidenceSums
from recsae.concepts.features import Windows
from recsae.concepts.firings import STRONG
from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.records import Evidence, EvidenceItem

# Random positives shown, and newest items of a sequence nobody left items out of.
_SHOWN = Rule(5, "user")
_ITEMS = 5


@dataclass(frozen=True)
class Sequences:
    """Rows chosen as examples, by latent: `latent`, `row` in `windows` and `strength` [m].

    `drop` float32 [m, items] and `lag` [m] of the deciding item where items were left out, else NaN and -1; as many
    newest items are shown as there are drops.
    """

    windows: Windows
    latent: NDArray[np.int64]
    row: NDArray[np.int64]
    strength: NDArray[np.float32]
    drop: NDArray[np.float32]
    lag: NDArray[np.int8]

    @classmethod
    def plain(
        cls, windows: Windows, latent: NDArray[np.int64], row: NDArray[np.int64], strength: NDArray[np.float32],
        items: int = _ITEMS,
    ) -> Sequences:  # fmt: skip
        """Sequences nobody left items out of."""
        unknown = np.full((len(row), items), np.nan, np.float32)
        return cls(windows, latent, row, strength, unknown, np.full(len(row), -1, np.int8))

    def record(self, inputs: DictionaryInputs, at: int) -> Evidence:
        """One of them."""
        end, start = int(self.windows.end[self.row[at]]), int(self.windows.start[self.row[at]])
        drop, lag = self.drop[at], int(self.lag[at])
        newest = self.windows.items[max(start, end - len(drop)) : end].tolist()
        items = []
        for place, item in enumerate(newest):
            back = len(newest) - 1 - place
            lost = 0.0 if np.isnan(drop[back]) else float(drop[back])
            items.append(EvidenceItem(inputs.item_ids[item - 1], inputs.titles[item - 1], lost, back == lag))
        return Evidence(float(self.strength[at]), tuple(items))

    def by_latent(self, inputs: DictionaryInputs) -> list[tuple[Evidence, ...]]:
        """All of them, one tuple per latent, in the order given."""
        records: list[list[Evidence]] = [[] for _ in range(inputs.sae.width)]
        for at, latent in enumerate(self.latent.tolist()):
            records[latent].append(self.record(inputs, at))
        return [tuple(each) for each in records]


def random_positives(inputs: DictionaryInputs, sums: EvidenceSums, p95: NDArray[np.float32]) -> Sequences:
    """At most 5 firings per latent of strength >= .5, drawn evenly, of distinct users."""
    drawn = sums.draws["at_random"]
    drawn = drawn.take(drawn.value >= STRONG * p95[drawn.group])
    drawn = drawn.drawn(_SHOWN)
    strength = drawn.value / p95[drawn.group]
    return Sequences.plain(inputs.windows(drawn), drawn.group, np.arange(len(drawn)), strength)
