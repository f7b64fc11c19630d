"""How functions here are compiled: without the interpreter's lock, once per machine where that can be remembered.

numba remembers compiled code under NUMBA_CACHE_DIR, else beside the source, and trusts what it finds there as Python
trusts its own `__pycache__`. It would look at the file of a function alone and miss a change to what that function
calls, so the folder is named after the content of the whole package. Where nothing can be written, every process
compiles anew: about ten seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.options import DefaultOptions

Compiled = TypeVar("Compiled", bound=Callable[..., object])

_HERE = Path(__file__).parent
# Sums may be taken in any order. NaN needs no care: `recsae.sae.training` looks for it in the loss and the parameters.
_ANY_ORDER = {"reassoc", "contract", "nsz", "nnan"}


# References to arrays need not be counted: functions here allocate nothing, and who calls them holds on to every array.
# Counting costs a fifth of a step at d = 64. The option's name is private, so it may be gone one day.
_UNCOUNTED = {"_nrt": False} if "_nrt" in vars(DefaultOptions) else {}


def compiled(function: Compiled) -> Compiled:
    """Compiles when first called, for the types it is called with; a division by 0 gives infinity, not an error."""
    return _compiled(function, fastmath=False)


def compiled_any_order(function: Compiled) -> Compiled:
    """The same, with sums free to be taken in the order that suits the vector units."""
    return _compiled(function, fastmath=_ANY_ORDER)


def _compiled(function: Compiled, fastmath: bool | set[str]) -> Compiled:
    config, njit = cast(Any, numba.config), cast(Any, numba.njit)
    before = config.CACHE_DIR
    config.CACHE_DIR = _FOLDER  # read by the decorator and not afterwards
    try:
        made = njit(nogil=True, cache=bool(_FOLDER), error_model="numpy", fastmath=fastmath, **_UNCOUNTED)(function)
    finally:
        config.CACHE_DIR = before
    return cast(Compiled, made)


def _cache_folder() -> str:
    """Where compiled code is remembered; empty = nowhere."""
    digest = hashlib.sha256()
    for source in sorted(_HERE.glob("*.py")):
        digest.update(source.read_bytes())
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or _HERE / "__pycache__") / f"recsae-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""


_FOLDER = _cache_folder()
