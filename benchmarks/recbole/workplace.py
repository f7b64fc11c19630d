"""Makes RecBole 1.2.1 run with current numpy, scipy and torch, and keeps what it writes out of the way.

What newer releases took away is put back here, openly, before RecBole is imported. Nothing of RecBole is changed.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.sparse
import torch

# RecBole 1.2.1 reads names that numpy 2 no longer has; each is what numpy 1 said it was.
_NUMPY_1 = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "string_": np.bytes_}


@contextlib.contextmanager
def recbole_workplace() -> Iterator[None]:
    """A scratch folder as current folder: RecBole writes logs and event files there, and reads the command line."""
    _restore_names()
    arguments = sys.argv
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch), warnings.catch_warnings():
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


def _restore_names() -> None:
    for name, kind in _NUMPY_1.items():
        if not hasattr(np, name):
            setattr(np, name, kind)
    if not hasattr(scipy.sparse.dok_matrix, "_update"):
        # Gone since scipy 1.13; LightGCN fills its adjacency matrix by it.
        scipy.sparse.dok_matrix._update = lambda self, values: self._dict.update(values)
