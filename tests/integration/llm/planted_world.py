"""A world whose concepts are known, and a language model of the tests' own that can read them.

Item n has genre (n - 1) mod 4 and the title "Item n"; latent j of the SAE reads genre j, the last one never fires. The
model finds the genre of the deciding items' numbers, names it, and rates a history by the genre of its newest items.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.integration.llm.chat_server import Says, prompt_of

from recsae.concepts.evidence import of_histories
from recsae.concepts.inputs import DictionaryInputs
from recsae.datasets.facets import build_facets
from recsae.datasets.planted import make_planted
from recsae.sae.codes import Codes

GENRES, D, K = 4, 8, 2
WIDTH = GENRES + 1
_DECAY = 0.75


@dataclass(frozen=True)
class Shard:
    x: NDArray[np.float32]
    user: NDArray[np.int32]
    position: NDArray[np.int32]
    item: NDArray[np.int32]


@dataclass(frozen=True)
class Sae:
    w_dec: NDArray[np.float32]
    version: str = "b" * 16
    width: int = WIDTH

    def encode(self, x: NDArray[np.float32]) -> Codes:
        z = x @ self.w_dec.T - 0.3
        z[:, -1] = -1
        order = np.argsort(-z, axis=1, kind="stable")[:, :K]
        return Codes(order.astype(np.int32), np.maximum(np.take_along_axis(z, order, axis=1), 0).astype(np.float32))


def make_inputs() -> DictionaryInputs:
    planted = make_planted(seed=5, n_users=500, n_items=80, n_concepts=GENRES, mean_length=20)
    dataset, histories = planted.dataset, planted.dataset.histories
    vectors = np.zeros((dataset.items.count + 1, D), np.float32)
    # Items of a genre differ a little, so that strengths do.
    depth = np.random.default_rng(0).uniform(0.8, 1.2, dataset.items.count)
    vectors[np.arange(1, len(vectors)), planted.concept_of_item[1:]] = depth

    def embed(asked: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        rows = []
        for history in asked:
            newest = np.asarray(history)[-10:][::-1]
            weights = _DECAY ** np.arange(len(newest))
            rows.append(weights @ vectors[newest] / weights.sum())
        return np.array(rows, dtype=np.float32)

    user = np.repeat(np.arange(histories.n_users), histories.lengths).astype(np.int32)
    position = np.concatenate([np.arange(length) for length in histories.lengths]).astype(np.int32)
    x = embed([histories.of(u)[: p + 1] for u, p in zip(user.tolist(), position.tolist(), strict=True)])
    return DictionaryInputs(
        model="planted",
        model_version="a" * 16,
        sae=Sae(np.eye(D, dtype=np.float32)[:WIDTH].copy()),
        shards=[Shard(x, user, position, histories.items)],
        histories=histories,
        pseudonyms=dataset.users.ids,
        item_ids=dataset.items.ids,
        titles=dataset.items.titles,
        facets=build_facets(dataset.items, histories),
        embed=of_histories(embed),
        max_history=200,
        item_vectors=vectors,
    )


def reads_genres(body: dict[str, Any]) -> Says:
    """A model that understands this world."""
    prompt = prompt_of(body)
    if "<description>" not in prompt.split("Description:")[-1]:
        deciding = re.findall(r'deciding item: <titles>\["Item (\d+)"\]', prompt)
        genre, _ = Counter((int(number) - 1) % GENRES for number in deciding).most_common(1)[0]
        return Says(json.dumps({"label": f"Genre {genre}", "description": f"Histories that end in genre {genre}."}))
    genre = int(re.findall(r"genre (\d)\.", prompt)[-1])
    titles = json.loads(prompt.split("<titles>")[-1].split("</titles>")[0])
    weights = _DECAY ** np.arange(len(titles))
    mine = [(int(title.split()[1]) - 1) % GENRES == genre for title in reversed(titles)]
    return Says(json.dumps({"strength": round(10 * float(np.dot(weights, mine) / weights.sum()))}))


def is_rating(body: dict[str, Any]) -> bool:
    return "You predict how strongly" in prompt_of(body)
