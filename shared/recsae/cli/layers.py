"""The hooks of a model as the platform has them: what is published at each, and what each makes of the same histories.

The histories are the probe rows a dictionary carries, so that nothing else is needed; the recommender reads them again
at every hook. Not here: comparing (`recsae.concepts.layers`), and how it looks (`layer_views`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsae.cli.context import CliContext
from recsae.errors import FailedPreconditionError
from recsae.recommenders.address import address_of, split_address
from recsae.rpc.tensors import from_tensor
from recsae.v1 import common_pb2, pipeline_pb2, recommender_pb2

if TYPE_CHECKING:  # commands that read no dictionary start without what reading one needs
    from recsae.concepts.dictionary import Dictionary
    from recsae.concepts.layers import Layer
    from recsae.concepts.probe_set import ProbeSet
    from recsae.sae.codes import Codes
    from recsae.sae.runtime import SparseAutoencoder

# Production first: what a candidate would change is asked for by name.
CHANNELS = ("production", "candidate")
_SUBJECTS_AT_ONCE = 256
_CALL_S = 60.0


@dataclass(frozen=True)
class PublishedLayer:
    """A hook with an SAE and its dictionary; `scores` are those of its run, `probe` the rows its dictionary carries."""

    address: str
    hook: str
    channel: str
    model_version: str
    steerable: bool
    sae: SparseAutoencoder
    dictionary: Dictionary
    scores: Mapping[str, float]
    probe: ProbeSet | None

    @property
    def verified(self) -> NDArray[np.bool_]:
        """Which latents [w] are verified concepts."""
        from recsae.concepts.records import is_verified

        return np.array([is_verified(concept) for concept in self.dictionary.concepts])


@dataclass(frozen=True)
class Hooks:
    """The hooks of a model: those with a published SAE, in the model's own order, and the addresses of the others."""

    info: recommender_pb2.ModelInfo
    layers: tuple[PublishedLayer, ...]
    bare: tuple[str, ...]


def published_layers(context: CliContext, model: str, channel: str) -> Hooks:
    """What is published at each hook of a model; `channel` "" = production, else the candidate."""
    name = split_address(model or context.workspace.model("").name).model
    request = recommender_pb2.GetModelRequest(model=name)
    info = context.platform.call(context.platform.exporter.GetModel, request).model
    layers: list[PublishedLayer] = []
    bare: list[str] = []
    for hook in info.hooks:
        address = address_of(info.name, hook.name, info.hooks[0].name)
        found = _published(context, address, hook, channel)
        if found is None:
            bare.append(address)
        else:
            layers.append(found)
    return Hooks(info, tuple(layers), tuple(bare))


def _published(
    context: CliContext, address: str, hook: recommender_pb2.HookInfo, channel: str
) -> PublishedLayer | None:
    from recsae.concepts.dictionary import Dictionary
    from recsae.concepts.probe_set import load_probe_set
    from recsae.sae.runtime import SparseAutoencoder

    request = pipeline_pb2.GetChannelsRequest(model=address)
    reply = context.platform.call(context.platform.pipeline.GetChannels, request)
    pointing = {one.name: one.triple for one in reply.channels if one.triple.dictionary_version}
    name = next((one for one in ([channel] if channel else CHANNELS) if one in pointing), "")
    if not name:
        return None
    triple = pointing[name]
    artifacts = context.workspace.artifacts()
    sae, dictionary = (
        artifacts.fetch("sae", triple.sae_version),
        artifacts.fetch("dictionary", triple.dictionary_version),
    )
    return PublishedLayer(
        address=address,
        hook=hook.name,
        channel=name,
        model_version=triple.model_version,
        steerable=hook.steerable,
        sae=SparseAutoencoder.load(sae.folder, triple.sae_version),
        dictionary=Dictionary.load(dictionary.folder, triple.dictionary_version),
        scores={**sae.scores, **dictionary.scores},
        probe=load_probe_set(dictionary.folder),
    )


def read_on_probe(context: CliContext, hooks: Hooks) -> list[Layer]:
    """Every layer on the same probe rows, in order; of several interests a concept counts where it is strongest.

    FailedPreconditionError when no dictionary carries probe rows, or a layer is of a version that is not served.
    """
    from recsae.concepts.layers import layer_of

    probe = next((layer.probe for layer in hooks.layers if layer.probe is not None and len(layer.probe)), None)
    if probe is None:
        raise FailedPreconditionError("no dictionary of these hooks carries probe rows; refresh one of them")
    for layer in hooks.layers:
        if layer.model_version != hooks.info.version:
            raise FailedPreconditionError(
                f"{layer.address} was read from version {layer.model_version} of the model, and {hooks.info.version} "
                "is served; refresh it"
            )
    return [layer_of(_codes(context, hooks, layer, probe), layer.sae.width, layer.verified) for layer in hooks.layers]


def _codes(context: CliContext, hooks: Hooks, layer: PublishedLayer, probe: ProbeSet) -> Codes:
    from recsae.concepts.row_pooling import pool_rows
    from recsae.sae.codes import Codes

    indices, values, subjects = [], [], []
    for x, subject in _activations(context, hooks, layer, probe):
        codes = layer.sae.encode(x)
        indices.append(codes.indices)
        values.append(codes.values)
        subjects.append(subject)
    pooled = pool_rows(np.concatenate(indices), np.concatenate(values), np.concatenate(subjects))
    return Codes(pooled.latents.astype(np.int32), pooled.strengths)


def _activations(
    context: CliContext, hooks: Hooks, layer: PublishedLayer, probe: ProbeSet
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Activations [n, d] of the probe's histories at a hook and which history each is of."""
    platform = context.platform
    rows_each = max(1, hooks.info.hooks[0].interests)
    at_once = max(1, min(_SUBJECTS_AT_ONCE, (hooks.info.max_export_rows or _SUBJECTS_AT_ONCE) // rows_each))
    for start in range(0, len(probe), at_once):
        stop = min(start + at_once, len(probe))
        request = recommender_pb2.ExportActivationsRequest(
            model=hooks.info.name,
            model_version=hooks.info.version,
            hook=layer.hook,
            positions=recommender_pb2.POSITIONS_LAST,
        )
        _name_subjects(request, probe, start, stop)
        batch = platform.call(platform.exporter.ExportActivations, request, _CALL_S).batch
        x = from_tensor(batch.activations, name="activations", dtype=np.float32, shape=(None, layer.sae.d), finite=True)
        subject = np.array([one.history_index for one in batch.subjects], np.int64)
        if len(subject) != len(x) or not np.array_equal(np.unique(subject), np.arange(stop - start)):
            raise FailedPreconditionError(
                f"the recommender answered {len(x)} rows of {len(np.unique(subject))} histories when asked for "
                f"{stop - start}; it must answer each"
            )
        yield x, subject + start


def _name_subjects(request: recommender_pb2.ExportActivationsRequest, probe: ProbeSet, start: int, stop: int) -> None:
    """Rows `start` to `stop` of the probe: whose they are too, where the model reads more than a history."""
    windows, ids, users = probe.windows, probe.item_ids, probe.user_ids
    for row in range(start, stop):
        items = windows.items[windows.start[row] : windows.end[row]].tolist()
        history = common_pb2.History(item_ids=[ids[item - 1] for item in items])
        if users:
            request.subjects.subjects.append(recommender_pb2.Subject(user_id=users[row], history=history))
        else:
            request.histories.histories.append(history)
