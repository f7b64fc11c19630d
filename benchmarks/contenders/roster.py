"""Who is measured: names, where each runs, and what its arithmetic is. Values only.

A contender of ours is added by one line here and one function `Task -> Contender` in `ours`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """`factory` is "module:function"; `environment` the virtual environment it runs in.

    `exact` means fp32 throughout. `needs`: it is left out unless the CPU has one of these features.
    """

    name: str
    factory: str
    environment: Literal["own", "peers"]
    public: bool
    exact: bool = True
    needs: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """Its name as a file name."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)

    def runs_on(self, features: Collection[str]) -> bool:
        """Whether a CPU with these features can run it at a speed that says anything."""
        return not self.needs or bool(set(self.needs) & set(features))


_INT8 = ("avx512_vnni",)
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
OURS_TORCH = "ours, torch"

ROSTER = (
    Entry("ours, numba + int8", "benchmarks.contenders.ours:fast_int8", "own", False, exact=False, needs=_INT8),
    Entry("ours, numba", "benchmarks.contenders.ours:fast_exact", "own", public=False),
    Entry("ours, torch + bf16", "benchmarks.contenders.ours:torch_bf16", "own", False, exact=False, needs=_BF16),
    Entry(OURS_TORCH, "benchmarks.contenders.ours:torch_exact", "own", public=False),
    Entry("dense PyTorch", "benchmarks.contenders.dense:fp32", "own", public=True),
    Entry("dense PyTorch, bf16", "benchmarks.contenders.dense:bf16", "own", public=True, exact=False, needs=_BF16),
    Entry("sae-lens", "benchmarks.contenders.sae_lens_topk:fp32", "peers", public=True),
    Entry("sae-lens, bf16", "benchmarks.contenders.sae_lens_topk:bf16", "peers", public=True, exact=False, needs=_BF16),
    Entry("dictionary-learning", "benchmarks.contenders.dictionary_learning_topk:fp32", "peers", public=True),
    Entry("eai-sparsify, Adam", "benchmarks.contenders.sparsify_topk:adam", "peers", public=True),
    Entry(
        "eai-sparsify, bf16", "benchmarks.contenders.sparsify_topk:adam_bf16", "peers", True, exact=False, needs=_BF16
    ),
    Entry("eai-sparsify, signum", "benchmarks.contenders.sparsify_topk:signum", "peers", public=True),
)
