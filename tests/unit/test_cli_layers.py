"""Reading the hooks of a model on the probe rows of a dictionary: what is asked, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.unit.toy_interpreter import MODEL_VERSION, D, activations, library_of, publish

from recsae.cli.layers import Hooks, PublishedLayer, read_on_probe
from recsae.concepts.features import Windows
from recsae.concepts.layers import compare_layers
from recsae.concepts.probe_set import ProbeSet
from recsae.errors import FailedPreconditionError
from recsae.rpc.tensors import to_tensor
from recsae.v1 import common_pb2, recommender_pb2

ROWS, INTERESTS = 50, 2


def probe_set(users: bool) -> ProbeSet:
    """One row per item, its history that item and the one before."""
    items = np.arange(1, ROWS + 2, dtype=np.int32)
    start = np.arange(ROWS)
    ids = tuple(f"i-{number}" for number in items)
    named = tuple(f"u-{row}" for row in range(ROWS)) if users else ()
    nothing = np.zeros((0, D), np.float32)
    return ProbeSet(np.zeros((ROWS, D), np.float32), Windows(items, start, start + 2), ids, nothing, named)


class Exporter:
    """Answers two interests per history, the same at both hooks but for their sign; `skips` leaves a history out."""

    def __init__(self, skips: int = -1) -> None:
        self.asked: list[recommender_pb2.ExportActivationsRequest] = []
        self.skips = skips

    def ExportActivations(self, request: recommender_pb2.ExportActivationsRequest) -> Any:
        self.asked.append(request)
        histories = [one.history for one in request.subjects.subjects] or list(request.histories.histories)
        sign = -1 if request.hook == "second" else 1
        rows, subjects = [], []
        for place, history in enumerate(histories):
            if place != self.skips:
                rows.append(sign * activations("+".join(history.item_ids), INTERESTS))
                subjects += [common_pb2.RowSubject(history_index=place, interest=one) for one in range(INTERESTS)]
        batch = common_pb2.ActivationBatch(activations=to_tensor(np.concatenate(rows)), subjects=subjects)
        return recommender_pb2.ExportActivationsResponse(batch=batch)


def context_of(exporter: Exporter) -> Any:
    def call(method: Callable[..., Any], request: Any, timeout_s: float = 0) -> Any:
        return method(request)

    return SimpleNamespace(platform=SimpleNamespace(exporter=exporter, call=call))


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    library = library_of(tmp_path, {"toy": publish(tmp_path, "toy")})
    loaded = library.model("toy")
    layers = tuple(
        PublishedLayer(
            address, hook, "production", MODEL_VERSION, hook == "first", loaded.sae, loaded.dictionary, {}, None
        )
        for address, hook in (("toy", "first"), ("toy@second", "second"))
    )
    info = recommender_pb2.ModelInfo(name="toy", version=MODEL_VERSION, max_export_rows=30)
    for layer in layers:
        info.hooks.add(name=layer.hook, dim=D, rows=recommender_pb2.ROW_KIND_INTEREST, interests=INTERESTS)
    return Hooks(info, (layers[0], replace(layers[1], probe=probe_set(users=True))), ())


def test_every_hook_reads_the_same_histories_in_calls_the_server_takes(hooks: Hooks) -> None:
    exporter = Exporter()
    layers = read_on_probe(context_of(exporter), hooks)
    assert [len(layer.latents.codes) for layer in layers] == [ROWS, ROWS]
    assert [request.hook for request in exporter.asked] == ["first"] * 4 + ["second"] * 4
    assert [len(request.subjects.subjects) for request in exporter.asked[:4]] == [15, 15, 15, 5]
    first = exporter.asked[0].subjects.subjects[0]
    assert (first.user_id, list(first.history.item_ids)) == ("u-0", ["i-1", "i-2"])
    assert {request.model_version for request in exporter.asked} == {MODEL_VERSION}
    # What fires is the largest of both interests, once per history.
    sae = hooks.layers[0].sae
    values = sae.encode(activations("i-1+i-2", INTERESTS)).dense(sae.width).max(axis=0)
    np.testing.assert_allclose(layers[0].latents.codes.take(slice(0, 1)).dense(sae.width)[0], values, rtol=1e-6)
    assert compare_layers(*layers).rows == ROWS


def test_histories_alone_are_sent_where_a_model_reads_nothing_else(hooks: Hooks) -> None:
    exporter = Exporter()
    plain = replace(hooks, layers=(replace(hooks.layers[0], probe=probe_set(users=False)), hooks.layers[1]))
    read_on_probe(context_of(exporter), plain)
    assert len(exporter.asked[0].histories.histories) == 15
    assert not exporter.asked[0].HasField("subjects")


def test_layers_that_cannot_be_read_together_are_refused(hooks: Hooks) -> None:
    with pytest.raises(FailedPreconditionError, match="no dictionary of these hooks carries probe rows"):
        read_on_probe(context_of(Exporter()), replace(hooks, layers=hooks.layers[:1]))
    old = replace(hooks.layers[0], model_version="b" * 16)
    with pytest.raises(FailedPreconditionError, match=f"toy was read from version {'b' * 16}"):
        read_on_probe(context_of(Exporter()), replace(hooks, layers=(old, hooks.layers[1])))
    with pytest.raises(FailedPreconditionError, match="of 14 histories when asked for 15"):
        read_on_probe(context_of(Exporter(skips=3)), hooks)
