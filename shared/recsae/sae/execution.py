"""How training runs on a machine: engine, precision, device, threads, which of several processes. No torch or numba."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from typing import Literal, get_args

from recsae.errors import InvalidRequestError

Backend = Literal["auto", "torch", "fast"]
Nomination = Literal["exact", "int8", "bf16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
NOMINATIONS: tuple[Nomination, ...] = get_args(Nomination)
_RANK, _SIZE, _MEET = "RECSAE_RANK", "RECSAE_RANKS", "RECSAE_RANKS_MEET"


@dataclass(frozen=True)
class Execution:
    """How training runs; what it learns depends on it by rounding alone.

    `backend` "auto" takes the fast engine on a CPU where numba is installed. `nomination` says in which precision
    latents are nominated: "exact" float32, or "int8" (fast engine, CPUs with AVX-512 VNNI) and "bf16" (torch engine),
    after which float32 decides among those `nominated`. Parameters, values and gradients are float32 always.
    `device` is torch's name of it; `threads` are those of one process, 0 = every core, shared among the processes.
    """

    backend: Backend = "auto"
    nomination: Nomination = "exact"
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        """InvalidRequestError names the value that cannot be."""
        if self.backend not in BACKENDS:
            raise InvalidRequestError(f"engine {self.backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
        if self.nomination not in NOMINATIONS:
            raise InvalidRequestError(
                f"nomination {self.nomination!r} is unknown; choose one of {', '.join(NOMINATIONS)}"
            )
        if self.backend == "fast" and self.nomination == "bf16":
            raise InvalidRequestError("the fast engine nominates exactly or in int8; for bf16 choose engine torch")
        if self.backend == "fast" and self.device != "cpu":
            raise InvalidRequestError(f"the fast engine runs on the CPU, not on {self.device!r}; choose engine torch")
        if self.nomination == "int8" and (self.backend == "torch" or self.device != "cpu"):
            raise InvalidRequestError(
                f"int8 nomination is the fast engine's, on the CPU, not engine {self.backend}'s on {self.device!r}; "
                "choose exact or bf16 nomination"
            )
        if self.threads < 0:
            raise InvalidRequestError(f"threads must be >= 0 (0 = every core), not {self.threads}")

    @property
    def fast(self) -> bool:
        """True when the fast engine is what this asks for."""
        if self.backend == "auto":
            return self.device == "cpu" and self.nomination != "bf16" and importlib.util.find_spec("numba") is not None
        return self.backend == "fast"

    def shared_by(self, processes: int) -> Execution:
        """For one of several processes on this machine: its share of the cores unless `threads` says otherwise."""
        threads = self.threads or max(1, (os.cpu_count() or 1) // processes)
        return replace(self, threads=threads) if processes > 1 else self


def nominated(slots: int) -> int:
    """How many latents rounded scores nominate for `slots` places: a quarter more, and at least 8 more."""
    return slots + max(8, slots // 4)


@dataclass(frozen=True)
class Place:
    """Which of how many ranks this process is, and where they meet: a file:// or tcp:// address of torch's."""

    rank: int = 0
    size: int = 1
    meet: str = ""

    @classmethod
    def from_environment(cls) -> Place:
        """As `environment` set it; alone without."""
        rank, size = (int(os.environ.get(name, default)) for name, default in ((_RANK, "0"), (_SIZE, "1")))
        return cls(rank, size, os.environ.get(_MEET, ""))

    def environment(self) -> dict[str, str]:
        """Variables that tell a process its place."""
        return {_RANK: str(self.rank), _SIZE: str(self.size), _MEET: self.meet}
