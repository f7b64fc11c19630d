"""What passes without an SAE or without training: the controls every figure of the study stands beside.

The untrained network's SAE, and two codes that need no SAE, raw neurons and principal axes: of each row the k largest
coordinates with their sign. All go through the same describer and verification.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_models import TrainedBase
from benchmarks.study.material import Material, open_up
from recsae.concepts.build import build_dictionary
from recsae.concepts.dictionary import Dictionary
from recsae.recommenders.families.sasrec import untrained_sasrec
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.codes import Codes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AxisCode:
    """A sparse code over 2 d signed axes: latents 2 j and 2 j + 1 are the two sides of axis j.

    `mean` float32 [d]; `axes` float32 [d, d], rows orthonormal; the `k` largest coordinates of a row fire.
    """

    mean: Floats
    axes: Floats
    k: int
    version: str

    @property
    def width(self) -> int:
        """Number of latents, 2 d."""
        return 2 * len(self.axes)

    @property
    def w_dec(self) -> Floats:
        """Both sides of every axis, float32 [2 d, d]."""
        return np.repeat(self.axes, 2, axis=0) * np.tile([1.0, -1.0], len(self.axes))[:, None].astype(np.float32)

    @property
    def b_dec(self) -> Floats:
        """The mean [d]."""
        return self.mean

    def encode(self, x: Floats) -> Codes:
        """The k largest coordinates of each row of `x` [n, d]."""
        coordinates = (x - self.mean) @ self.axes.T
        best = np.argpartition(-np.abs(coordinates), self.k - 1, axis=1)[:, : self.k]
        values = np.take_along_axis(coordinates, best, axis=1)
        order = np.argsort(-np.abs(values), axis=1, kind="stable")
        best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
        return Codes((2 * best + (values < 0)).astype(np.int32), np.abs(values).astype(np.float32))

    def decode(self, codes: Codes) -> Floats:
        """Reconstructions float32 [n, d]."""
        return np.asarray(np.einsum("nk,nkd->nd", codes.values, self.w_dec[codes.indices]) + self.mean, np.float32)


def raw_neurons(material: Material) -> AxisCode:
    """The activation's own coordinates."""
    axes = PrincipalAxes.fit(material.activations.training())
    d = material.sae.d
    return AxisCode(axes.mean.astype(np.float32), np.eye(d, dtype=np.float32), material.sae.k, "raw-neurons")


def principal_axes(material: Material) -> AxisCode:
    """Principal axes of the SAE's training rows."""
    axes = PrincipalAxes.fit(material.activations.training())
    return AxisCode(axes.mean.astype(np.float32), axes.axes.astype(np.float32), material.sae.k, "principal-axes")


def described_code(material: Material, code: AxisCode) -> Dictionary:
    """The dictionary of a code that is no SAE, described and judged as an SAE's is."""
    ranked = replace(material.ranked, sae=code)
    return build_dictionary(replace(material.inputs, sae=code, scores=None), ranked=ranked)


def untrained(base: TrainedBase, seed: int = 0) -> TrainedBase:
    """The same network as it was initialised."""
    network = untrained_sasrec(base.model.shape, seed)
    identity = hashlib.sha256(f"{base.record['identity']}-untrained-{seed}".encode()).hexdigest()[:16]
    record = {**base.record, "name": f"{base.record['name']}-untrained", "identity": identity}
    return replace(base, model=network, record=record)


def untrained_material(material: Material, cache: Path, threads: int = 1) -> Material:
    """The untrained network opened up by an SAE of the same settings."""
    made = open_up(untrained(material.base), cache, k=material.sae.k, width=material.sae.width, threads=threads)
    return replace(made, facets=material.facets, rows_per_part=material.rows_per_part, seed=material.seed)
