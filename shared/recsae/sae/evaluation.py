"""How well an SAE reconstructs activations it has not seen, and which latents live. As sums, so that parts add up.

Ratios are taken once, over the whole set: a mean of batch ratios would depend on how the set was cut. Not here: what
densities are (`sparsity`), and what reconstruction costs in ranking quality (`fidelity`). numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsae.errors import InvalidRequestError
from recsae.sae.codes import Codes
from recsae.sae.flat_rows import FlatRows
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.shards import ITEM_PROBE, ShardReader
from recsae.sae.sparsity import PROBE_ROWS, FiringSums, evenly_spread

_CHUNK_ROWS = 8_192

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ReconstructionSums:
    """Sums over `n` rows; two of them add up to those of both sets.

    `squared_error` = sum |x - x_hat|^2; `spread` = sum |x - mean|^2 around the *training* mean; `centred` [d] = sum
    (x - mean) and `residual` [d] = sum (x - x_hat), for explained variance; `cosine_sum` over rows; `fired` int64 [w].
    """

    n: int
    squared_error: float
    spread: float
    centred: Doubles
    residual: Doubles
    cosine_sum: float
    fired: NDArray[np.int64]

    @classmethod
    def zero(cls, d: int, width: int) -> ReconstructionSums:
        """Of no rows."""
        return cls(0, 0.0, 0.0, np.zeros(d), np.zeros(d), 0.0, np.zeros(width, np.int64))

    @classmethod
    def of(cls, x: Floats, codes: Codes, x_hat: Floats, mean: Floats, width: int) -> ReconstructionSums:
        """Of rows `x` [n, d], their codes and reconstructions `x_hat` [n, d]; `mean` [d] is the training mean."""
        exact, approximate = x.astype(np.float64), x_hat.astype(np.float64)
        residual, centred = exact - approximate, exact - mean
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(approximate, axis=1)
        products = np.einsum("nd,nd->n", exact, approximate)
        return cls(
            n=len(x),
            squared_error=float(np.square(residual).sum()),
            spread=float(np.square(centred).sum()),
            centred=centred.sum(axis=0),
            residual=residual.sum(axis=0),
            cosine_sum=float(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).sum()),
            fired=codes.firing_counts(width),
        )

    def __add__(self, other: ReconstructionSums) -> ReconstructionSums:
        return ReconstructionSums(
            n=self.n + other.n,
            squared_error=self.squared_error + other.squared_error,
            spread=self.spread + other.spread,
            centred=self.centred + other.centred,
            residual=self.residual + other.residual,
            cosine_sum=self.cosine_sum + other.cosine_sum,
            fired=self.fired + other.fired,
        )

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, in original units; 0 is exact, 1 is no better than the mean."""
        return self.squared_error / self.spread if self.spread > 0 else 0.0

    @property
    def explained_variance(self) -> float:
        """1 - Var(x - x_hat) / Var(x), both summed over dimensions: a constant offset of x_hat goes unpunished."""
        if self.n == 0:
            return 0.0
        total = self.spread - float(self.centred @ self.centred) / self.n
        missed = self.squared_error - float(self.residual @ self.residual) / self.n
        return 1.0 - missed / total if total > 0 else 0.0

    @property
    def cosine(self) -> float:
        """Mean cosine of x and x_hat."""
        return self.cosine_sum / max(1, self.n)

    @property
    def l0(self) -> float:
        """Mean number of latents that fire per row."""
        return float(self.fired.sum()) / max(1, self.n)

    @property
    def firings(self) -> FiringSums:
        """How often each latent fires in these rows."""
        return FiringSums(self.n, self.fired)

    @property
    def dead_share(self) -> float:
        """Share of latents that fire in no row."""
        return self.firings.dead_share


@dataclass(frozen=True)
class Evaluation:
    """Sums over all positions of users, over their last positions only, and over item probes; evaluations add up.

    `probe_users` and `probe_items` count firings in the fixed probe set: at most `PROBE_ROWS` of the same rows.
    """

    positions: ReconstructionSums
    last: ReconstructionSums
    items: ReconstructionSums
    probe_users: FiringSums
    probe_items: FiringSums

    @classmethod
    def zero(cls, d: int, width: int) -> Evaluation:
        """Of no rows."""
        rows, firings = ReconstructionSums.zero(d, width), FiringSums.zero(width)
        return cls(rows, rows, rows, firings, firings)

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation(
            positions=self.positions + other.positions,
            last=self.last + other.last,
            items=self.items + other.items,
            probe_users=self.probe_users + other.probe_users,
            probe_items=self.probe_items + other.probe_items,
        )

    @property
    def probe(self) -> FiringSums:
        """Firings over the whole probe set, users and items."""
        return self.probe_users + self.probe_items

    def scores(self) -> dict[str, float]:
        """Flat, for run records and reports. `dead`, `rare` and densities are over users and items together."""
        return {
            "fvu": self.positions.fvu,
            "fvu_last": self.last.fvu,
            "fvu_items": self.items.fvu,
            "explained_variance": self.positions.explained_variance,
            "explained_variance_last": self.last.explained_variance,
            "cosine": self.positions.cosine,
            "cosine_last": self.last.cosine,
            "l0": self.positions.l0,
            "l0_items": self.items.l0,
            "dead": self.probe.dead_share,
            "dead_users": self.probe_users.dead_share,
            "dead_items": self.probe_items.dead_share,
            "rare": self.probe.rare_share,
            "rare_users": self.probe_users.rare_share,
            "rare_items": self.probe_items.rare_share,
            "rows": float(self.positions.n),
            "probe_rows": float(self.probe.n),
        } | self.probe.histogram.shares()

    def densities(self) -> dict[str, Any]:
        """Histograms of firing density over the probe's users, its items and both, as JSON types."""
        sets = {"users": self.probe_users, "items": self.probe_items, "both": self.probe}
        return {name: {"rows": firings.n} | firings.histogram.facts() for name, firings in sets.items()}


def reconstruction_sums(sae: SparseAutoencoder, parts: Iterable[Floats]) -> ReconstructionSums:
    """Sums over all rows of `parts`, each float32 [n, d]."""
    sums = ReconstructionSums.zero(sae.d, sae.width)
    for x in parts:
        codes = sae.encode(x)
        sums += ReconstructionSums.of(x, codes, sae.decode(codes), sae.mean, sae.width)
    return sums


def evaluate(
    sae: SparseAutoencoder, reader: ShardReader, *, probe_rows: int = PROBE_ROWS, first_item: int | None = None
) -> Evaluation:
    """Encodes every row of the shards once, in bounded memory. A user's rows must lie together, oldest first.

    Interests of a subject are rows of their own. Users from index `first_item` on are items, like item probes. The
    probe set is every item (at most half of `probe_rows`, spread evenly) and user rows, spread evenly, for the rest of
    `probe_rows`: the same rows for every SAE.
    """
    rows = reader.flat()
    if rows.d != sae.d:
        raise InvalidRequestError(f"activations have length {rows.d}, the SAE reads {sae.d}; use its own model's")
    found = Evaluation.zero(sae.d, sae.width)
    for chunk in _chunks(rows, probe_rows, first_item):
        x = rows.read(chunk.start, chunk.stop)
        codes = sae.encode(x)
        x_hat = sae.decode(codes)
        positions, last, items = (
            ReconstructionSums.of(x[rows], codes.take(rows), x_hat[rows], sae.mean, sae.width)
            for rows in (chunk.users, chunk.last, chunk.items)
        )
        probe_users, probe_items = (
            FiringSums(len(rows), codes.take(rows).firing_counts(sae.width))
            for rows in (chunk.probe_users, chunk.probe_items)
        )
        found += Evaluation(positions, last, items, probe_users, probe_items)
    return found


@dataclass(frozen=True)
class _Chunk:
    """Rows start..stop-1 of a reader, and which of them, counted from `start`, belong to which set: int64 each."""

    start: int
    stop: int
    users: Rows
    last: Rows
    items: Rows
    probe_users: Rows
    probe_items: Rows


def _chunks(reader: FlatRows, probe_rows: int, first_item: int | None) -> Iterator[_Chunk]:
    spans = [(start, min(start + _CHUNK_ROWS, reader.n)) for start in range(0, reader.n, _CHUNK_ROWS)]
    all_items = sum(int(_are_items(reader, *span, first_item).sum()) for span in spans)
    all_users = reader.n - all_items
    most_items = min(all_items, probe_rows // 2)
    users_before, items_before = 0, 0
    for start, stop in spans:
        is_item = _are_items(reader, start, stop, first_item)
        users, items = np.flatnonzero(~is_item), np.flatnonzero(is_item)
        users_after, items_after = users_before + len(users), items_before + len(items)
        yield _Chunk(
            start=start,
            stop=stop,
            users=users,
            last=users[_is_last(reader, start, stop)[users]],
            items=items,
            probe_users=users[evenly_spread(users_before, users_after, all_users, probe_rows - most_items)],
            probe_items=items[evenly_spread(items_before, items_after, all_items, most_items)],
        )
        users_before, items_before = users_after, items_after


def _are_items(reader: FlatRows, start: int, stop: int, first_item: int | None) -> NDArray[np.bool_]:
    user = reader.users(start, stop)
    is_item: NDArray[np.bool_] = user == ITEM_PROBE
    return is_item if first_item is None else is_item | (user >= first_item)


def _is_last(reader: FlatRows, start: int, stop: int) -> NDArray[np.bool_]:
    """Rows of a user's newest subject: as many rows on as it has interests, another user begins, or nothing does."""
    user, step = reader.users(start, min(stop + reader.interests, reader.n)), reader.interests
    changes = user[step:] != user[:-step]
    return np.concatenate([changes, np.ones(step, bool)])[: stop - start]
