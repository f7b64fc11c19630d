"""A recommender nobody asks: sources of tests override what their stages read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsae.pipeline.sources import (
    Crossing,
    Floats,
    ItemActivations,
    ItemVectors,
    RankedItems,
    SourceModel,
    Subject,
    Tensors,
)


class BareSource:
    """See `ModelSource`; every call is an error."""

    def describe(self, model: str) -> SourceModel:
        raise NotImplementedError

    def every_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        raise NotImplementedError

    def last_position(self, model: SourceModel, subjects: Sequence[Subject]) -> Floats:
        raise NotImplementedError

    def items(self, model: SourceModel) -> Iterator[ItemActivations]:
        raise NotImplementedError

    def item_ids(self, model: SourceModel) -> tuple[str, ...]:
        raise NotImplementedError

    def item_vectors(self, model: SourceModel) -> ItemVectors | None:
        raise NotImplementedError

    def crossing(self, model: SourceModel, subjects: Sequence[Subject], candidates: Sequence[str] = ()) -> Crossing:
        raise NotImplementedError

    def rank(
        self,
        model: SourceModel,
        activations: Floats,
        k: int,
        exclude: Sequence[Sequence[str]],
        candidates: Sequence[str] = (),
        passthrough: Tensors | None = None,
    ) -> list[RankedItems]:
        raise NotImplementedError
