"""How functions here are compiled: without the interpreter's lock, once per machine where that can be remembered.

numba remembers compiled code beside the source, or in NUMBA_CACHE_DIR, and trusts what it finds there as Python trusts
its own `__pycache__`. It looks at the file of a function alone: after a change to a function that others call, delete
`__pycache__`. Where neither place can be written, every process compiles anew: about ten seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

Compiled = TypeVar("Compiled", bound=Callable[..., object])

_REMEMBERS = bool(os.environ.get("NUMBA_CACHE_DIR")) or os.access(Path(__file__).parent, os.W_OK)
# Sums may be taken in any order; NaN needs no care, since it shows in the loss, which is checked.
_ANY_ORDER = {"reassoc", "contract", "nsz", "nnan"}


def compiled(function: Compiled) -> Compiled:
    """Compiles when first called, for the types it is called with."""
    return cast(Compiled, njit(nogil=True, cache=_REMEMBERS)(function))


def compiled_any_order(function: Compiled) -> Compiled:
    """The same, with sums free to be taken in the order that suits the vector units."""
    return cast(Compiled, njit(nogil=True, cache=_REMEMBERS, fastmath=_ANY_ORDER)(function))
