"""What became of every latent when an SAE was trained again: docs/method.md, section 8.

Latents of two SAEs are matched by where their decoders point, on which probe rows they fire, and, where a head's item
vectors are known, what they do to scores. Not here: how pairs are found (`latent_pairs`), latents that came apart
(`lineage`), matches by chance (`chance`), stability over seeds (`stability`), ids (`recsae.concepts.identity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsae.sae.alignment import Alignment
from recsae.sae.assignment import assign
from recsae.sae.latent_pairs import LatentPairs, latent_pairs
from recsae.sae.latents import Doubles, Ints, Latents
from recsae.sae.lineage import wholes_of

# Both at once make two latents the same (docs/method.md, sections 6 and 8).
SAME_COSINE = 0.7
SAME_CORRELATION = 0.5
SAME_FINGERPRINT = 0.7


class LatentStatus(StrEnum):
    """What became of a latent. `NEW` is for the new SAE only, `LOST` for the old one only.

    `STABLE`: one to one, cosine >= .7 and firing correlation >= .5 (and fingerprint >= .7 where known). `DRIFTED`: one
    to one, but only one of the two reached, the other at least half (or the effect on scores changed). `SPLIT`: an old
    latent that came apart, and its parts. `MERGED`: a new latent that is several old ones together, and these.
    `SILENT`: fires on fewer than 10 probe rows, so nothing is said of it. `NEW` and `LOST`: all others.
    """

    STABLE = "stable"
    DRIFTED = "drifted"
    SPLIT = "split"
    MERGED = "merged"
    NEW = "new"
    LOST = "lost"
    SILENT = "silent"


@dataclass(frozen=True)
class MatchedSide:
    """All w latents of one SAE. `partner` int64 [w] counts in the other one, -1 for new, lost and silent latents.

    Partners are one to one for stable and drifted latents; a part's partner is its whole, and a whole's its closest
    part. `cosine`, `correlation` and `fingerprint` float64 [w] are those of the pair (0, and NaN for an unknown
    fingerprint, where there is none). `mass` float64 [w] is the share of activation. `status` holds `LatentStatus`.
    """

    partner: Ints
    cosine: Doubles
    correlation: Doubles
    fingerprint: Doubles
    status: NDArray[np.str_]
    mass: Doubles

    def counts(self) -> dict[str, int]:
        """Latents per status, every status named."""
        return {status.value: int((self.status == status.value).sum()) for status in LatentStatus}

    def masses(self) -> dict[str, float]:
        """Share of activation mass per status; they add up to 1."""
        return {status.value: float(self.mass[self.status == status.value].sum()) for status in LatentStatus}

    @property
    def found(self) -> NDArray[np.bool_]:
        """Bool [w]: stable or drifted, that is matched one to one."""
        found: NDArray[np.bool_] = np.isin(self.status, [LatentStatus.STABLE, LatentStatus.DRIFTED])
        return found


@dataclass(frozen=True)
class LatentMatching:
    """What became of the latents of an old SAE in a new one, seen from both. `alignment` None = one base model."""

    new: MatchedSide
    old: MatchedSide
    alignment: Alignment | None


def match_latents(new: Latents, old: Latents, alignment: Alignment | None = None) -> LatentMatching:
    """Matches the latents of two SAEs on the same probe rows; `alignment` where their base models differ.

    Splits and merges are told apart first, then stable pairs are assigned so that the sum of scores (the mean of the
    signals) is largest, then drifted ones among what is left: no stable pair is given up for two weak ones.
    InvalidRequestError when the SAEs do not share probe rows, dimension (without `alignment`) or items.
    """
    pairs = latent_pairs(new, old, alignment)
    split_of = wholes_of(new, old, pairs)
    merged_into = wholes_of(old, new, pairs.swapped())
    _splits_first(split_of, merged_into)
    broken_new = (split_of >= 0) | _named_in(merged_into, new.width)
    broken_old = (merged_into >= 0) | _named_in(split_of, old.width)
    partner = one_to_one(pairs, _free(pairs, broken_new, broken_old) & same(pairs), new.width, old.width)
    stable = partner >= 0
    taken_old = broken_old | _named_in(partner, old.width)
    rest = _free(pairs, broken_new | stable, taken_old) & _drifted(pairs)
    drifted = one_to_one(pairs, rest, new.width, old.width)
    partner = np.where(stable, partner, drifted)
    back = _inverse(partner, old.width)
    return LatentMatching(
        _side(new, partner, stable, (split_of, merged_into), pairs, LatentStatus.NEW),
        _side(old, back, stable[back] & (back >= 0), (merged_into, split_of), pairs.swapped(), LatentStatus.LOST),
        alignment,
    )


def same(pairs: LatentPairs) -> NDArray[np.bool_]:
    """Bool [m]: pairs that are one latent: every signal reaches its threshold."""
    effect = np.isnan(pairs.fingerprint) | (pairs.fingerprint >= SAME_FINGERPRINT)
    both: NDArray[np.bool_] = (pairs.cosine >= SAME_COSINE) & (pairs.correlation >= SAME_CORRELATION) & effect
    return both


def one_to_one(pairs: LatentPairs, admissible: NDArray[np.bool_], new_width: int, old_width: int) -> Ints:
    """The assignment of largest summed score over the admissible pairs: old latent of each new one, or -1, [w]."""
    chosen = pairs.take(admissible)
    return assign(sparse.csr_matrix((chosen.score, (chosen.new, chosen.old)), shape=(new_width, old_width)))


def _splits_first(split_of: Ints, merged_into: Ints) -> None:
    """Takes out of the merges who has a part in a split: a latent is in one story only."""
    in_split = (merged_into >= 0) & (split_of >= 0)[merged_into]
    merged_into[in_split | _named_in(split_of, len(merged_into))] = -1
    parts = np.bincount(merged_into[merged_into >= 0], minlength=len(split_of))
    merged_into[(merged_into >= 0) & (parts[merged_into] < 2)] = -1


def _named_in(partners: Ints, width: int) -> NDArray[np.bool_]:
    named = np.zeros(width, bool)
    named[partners[partners >= 0]] = True
    return named


def _drifted(pairs: LatentPairs) -> NDArray[np.bool_]:
    # Pairs have at least half of both thresholds already.
    one: NDArray[np.bool_] = (pairs.cosine >= SAME_COSINE) | (pairs.correlation >= SAME_CORRELATION)
    return one


def _free(pairs: LatentPairs, new: NDArray[np.bool_], old: NDArray[np.bool_]) -> NDArray[np.bool_]:
    free: NDArray[np.bool_] = ~new[pairs.new] & ~old[pairs.old]
    return free


def _inverse(partner: Ints, width: int) -> Ints:
    back = np.full(width, -1, np.int64)
    found = partner >= 0
    back[partner[found]] = np.flatnonzero(found)
    return back


def _side(
    latents: Latents,
    matched: Ints,
    stable: NDArray[np.bool_],
    broken: tuple[Ints, Ints],
    pairs: LatentPairs,
    unmatched: LatentStatus,
) -> MatchedSide:
    """One side; `broken` are the wholes of this side's latents, and of the other side's latents in this one."""
    whole, parts = broken
    first, second = (
        (LatentStatus.SPLIT, LatentStatus.MERGED)
        if unmatched is LatentStatus.NEW
        else (LatentStatus.MERGED, LatentStatus.SPLIT)
    )
    status = np.full(latents.width, unmatched.value, dtype="<U8")
    status[latents.silent] = LatentStatus.SILENT.value
    status[matched >= 0] = LatentStatus.DRIFTED.value
    status[stable] = LatentStatus.STABLE.value
    status[whole >= 0] = first.value
    partner = np.where(whole >= 0, whole, matched)
    # A whole's closest part: the last one written is the one of largest score.
    to_part = pairs.take(parts[pairs.old] == pairs.new)
    strongest_last = np.argsort(to_part.score, kind="stable")
    partner[to_part.new[strongest_last]] = to_part.old[strongest_last]
    status[to_part.new] = second.value
    return MatchedSide(partner, *_signals(latents.width, partner, pairs), status, latents.mass)


def _signals(width: int, partner: Ints, pairs: LatentPairs) -> tuple[Doubles, Doubles, Doubles]:
    chosen = pairs.take(partner[pairs.new] == pairs.old)
    cosine, correlation, fingerprint = np.zeros(width), np.zeros(width), np.full(width, np.nan)
    cosine[chosen.new] = chosen.cosine
    correlation[chosen.new] = chosen.correlation
    fingerprint[chosen.new] = chosen.fingerprint
    return cosine, correlation, fingerprint
