"""Makes RecBole 1.2.1 run with current numpy, scipy and torch, and keeps what it writes out of the way.

What newer releases took away is put back here, openly, before RecBole is imported. Nothing of RecBole is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

# RecBole 1.2.1 reads names that numpy 2 no longer has; each is what numpy 1 said it was.
_NUMPY_1 = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "string_": np.bytes_}

# What a torch.load of a library's own reads; RecBole saves its whole configuration object beside the weights.
_ANY_PICKLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def recbole_workplace(folder: Path | None = None) -> Iterator[None]:
    """`folder` as current folder, or a scratch one: RecBole writes logs and event files there.

    It also reads the command line, which is empty meanwhile.
    """
    _restore_names()
    arguments = sys.argv
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), contextlib.chdir(folder or scratch):
        warnings.simplefilter("ignore")
        sys.argv = sys.argv[:1]
        try:
            import recbole.model.sequential_recommender  # noqa: F401

            # Importing one of those models (SINE) turns on autograd's debugging for the whole process.
            torch.autograd.set_detect_anomaly(False)
            logging.disable(logging.INFO)
            yield
        finally:
            logging.disable(logging.NOTSET)
            sys.argv = arguments


@contextlib.contextmanager
def pickles_opened_by_recbole() -> Iterator[None]:
    """Lets RecBole open its own checkpoints, which are pickles: only for a file you would also run as a program.

    Its loader is in a module that imports ray for tuning alone; an empty stand-in is enough.
    """
    if importlib.util.find_spec("ray") is None and "ray" not in sys.modules:
        ray = types.ModuleType("ray")
        ray.tune = types.ModuleType("ray.tune")  # type: ignore[attr-defined]
        sys.modules["ray"] = ray
    before = os.environ.get(_ANY_PICKLE)
    os.environ[_ANY_PICKLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ANY_PICKLE]
        else:
            os.environ[_ANY_PICKLE] = before


def _restore_names() -> None:
    for name, kind in _NUMPY_1.items():
        if not hasattr(np, name):
            setattr(np, name, kind)
    if not hasattr(scipy.sparse.dok_matrix, "_update"):
        # Gone since scipy 1.13; LightGCN fills its adjacency matrix by it.
        scipy.sparse.dok_matrix._update = lambda self, values: self._dict.update(values)
