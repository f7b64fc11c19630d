"""How an SAE is trained. Values only: no torch, no arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from recsae.errors import InvalidRequestError

# Rows seen over all epochs. On 61,000 SASRec activations (d = 64, width 1,024, k = 16) FVU is .031 after 2 M and .020
# after 6 M.
_ROWS_TO_SEE = 6_000_000
# At the rate 4e-3 SASRec activations leave 47 of 1,024 latents dead at d = 64, k = 16, at 2e-3 none; at d = 256, k = 32
# it takes 1e-3 to leave at most one of 2,048. A rate three times lower costs fidelity (NDCG@20 kept .972, not .99).
_RATE, _RATE_D, _RATE_K_SHARE = 4e-3, 64, 1 / 8
_GENTLE_RATE = 0.1
_MAX_EPOCHS = 1_000
_BATCH_SLOTS = 4  # bounds memory; rows of real activations use up to about 3 k


Variant = Literal["topk", "batchtopk", "matryoshka"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class SaeConfig:
    """Shape and schedule. `defaults_for` fills in what depends on the data.

    `width` latents, of which `k` stay per row. `variant` says how they are chosen and what they must explain:
    "topk" keeps the k largest of every row (Gao et al. 2024); "batchtopk" the k n largest of a batch of n rows, and
    above a fixed threshold at inference (Bussmann et al. 2024); "matryoshka" keeps k per row, and the first
    `prefix_shares` of the latents must each reconstruct by themselves (Bussmann et al. 2025).

    The learning rate rises over `warm_up_share` of the steps and then falls along a half cosine to 0. A latent that has
    not fired for `dead_after` rows is dead and is trained by AuxK: the `aux_k` best dead latents of a row predict its
    residual, at weight `aux_alpha`. `buffer_rows` are shuffled at
    a time; memory grows with them, and with `batch_size` x `width`. `fitted_start` begins with an encoder of the
    length that reconstructs best instead of unit length: ahead in the first few hundred batches (planted data, d = 64,
    width 2,048, 200 batches of 1,024: FVU .15 against .29), behind at the end of a whole run (SASRec activations: more
    dead latents, FVU .035 against .031), so it is for short runs only.
    """

    d: int
    width: int
    k: int
    variant: Variant = "topk"
    prefix_shares: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    epochs: int = 32
    batch_size: int = 512
    learning_rate: float = 4e-3
    warm_up_share: float = 0.2
    aux_alpha: float = 1 / 32
    aux_k: int = 32
    dead_after: int = 10_000
    buffer_rows: int = 65_536
    seed: int = 0
    fitted_start: bool = False

    def __post_init__(self) -> None:
        """InvalidRequestError names the value that cannot work."""
        if self.variant not in VARIANTS:
            raise InvalidRequestError(f"SAE variant {self.variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        if not self.prefix_shares or list(self.prefix_shares) != sorted({*self.prefix_shares, 1.0}):
            raise InvalidRequestError(f"prefix_shares must rise to 1.0, not {list(self.prefix_shares)}")
        if not self.prefix_shares[0] > 0:
            raise InvalidRequestError(f"prefix_shares must be > 0, not {list(self.prefix_shares)}")
        for name in ("d", "width", "k", "epochs", "batch_size", "aux_k", "dead_after"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.k > self.width:
            raise InvalidRequestError(f"k = {self.k} latents cannot be kept of width {self.width}; lower k")
        if self.epochs > _MAX_EPOCHS:
            raise InvalidRequestError(f"epochs must be <= {_MAX_EPOCHS}, not {self.epochs}")
        if self.buffer_rows < self.batch_size:
            raise InvalidRequestError(
                f"buffer_rows {self.buffer_rows} must hold a batch of {self.batch_size}; raise it or lower batch_size"
            )
        if not self.learning_rate > 0 or not self.aux_alpha >= 0 or not 0 <= self.warm_up_share < 1:
            raise InvalidRequestError(
                "learning_rate must be > 0, aux_alpha >= 0 and warm_up_share within [0, 1), not "
                f"{self.learning_rate}, {self.aux_alpha}, {self.warm_up_share}"
            )

    @classmethod
    def defaults_for(
        cls,
        d: int,
        rows: int,
        *,
        width: int = 0,
        k: int = 0,
        epochs: int = 0,
        seed: int = 0,
        variant: Variant = "topk",
    ) -> SaeConfig:
        """Fills zeros in: width 4 d, k d / 8, epochs from the number of training `rows`; the rate follows d and k."""
        k = k or max(1, d // 8)
        return cls(
            d=d,
            width=width or 4 * d,
            k=k,
            learning_rate=_RATE * _RATE_D / d * min(1.0, _RATE_K_SHARE * d / k),
            epochs=epochs or min(200, max(1, math.ceil(_ROWS_TO_SEE / max(1, rows)))),
            aux_k=max(1, d // 2),
            seed=seed,
            variant=variant,
        )

    def gentle(self) -> Self:
        """The configuration to train on with, from an SAE that is good already: a tenth of the rate.

        At the full rate the first steps scatter what the start knew: of 505 live latents of a SASRec SAE (d = 64,
        k = 8) turned into the space of a retrained model some 220 were found again unchanged, at a tenth of it some
        380, at about the same FVU.
        """
        return replace(self, learning_rate=self.learning_rate * _GENTLE_RATE)

    def as_dict(self) -> dict[str, Any]:
        """For manifests, as JSON types."""
        return {**asdict(self), "prefix_shares": list(self.prefix_shares)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `as_dict`; InvalidRequestError on an unknown name."""
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise InvalidRequestError(f"unknown SAE settings {sorted(unknown)}; made by a newer release?")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}  # JSON has no tuples
        return cls(**{**values, **lists})

    @property
    def slots(self) -> int:
        """Latents one row may keep: k, or 4 k when a batch shares out k per row."""
        return min(self.width, _BATCH_SLOTS * self.k) if self.variant == "batchtopk" else self.k

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of latents that must reconstruct by themselves, rising to `width`; one unless "matryoshka"."""
        if self.variant != "matryoshka":
            return (self.width,)
        return tuple(sorted({max(1, round(share * self.width)) for share in self.prefix_shares}))

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Rate of step `step` of `steps`, counted from 0."""
        warm_up = max(1, round(self.warm_up_share * steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
