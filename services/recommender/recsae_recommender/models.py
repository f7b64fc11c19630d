"""The models a server has, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsae.errors import FailedPreconditionError, NotFoundError
from recsae.recommenders.runtime import OnnxRecommender
from recsae_recommender.batcher import Batcher
from recsae_recommender.pipeline import Job, Ranking
from recsae_recommender.subjects import SubjectReader


@dataclass(frozen=True)
class ServedModel:
    """A loaded model that answered a warm-up request, and where it finds its subjects."""

    recommender: OnnxRecommender
    batcher: Batcher[Job, Ranking]
    subjects: SubjectReader


class ModelTable:
    """Finds models by name; the first one is the default."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        """At least one; names are unique."""
        self._models = {model.recommender.name: model for model in models}
        self._default = models[0]

    @property
    def names(self) -> list[str]:
        """Names of all models, the default one first."""
        return list(self._models)

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model of that name, or the default one for ""; `version`, when given, must be the one loaded.

        NotFoundError for an unknown name; FailedPreconditionError for another version, so that versions never mix.
        """
        model = self._models.get(name) if name else self._default
        if model is None:
            raise NotFoundError(f"no model {name!r} is served here; there are {', '.join(self._models)}")
        loaded = model.recommender.version
        if version and version != loaded:
            raise FailedPreconditionError(
                f"model {model.recommender.name} is loaded in version {loaded}, not {version}; "
                "compute with the loaded version or call a replica that has the other"
            )
        return model

    def close(self) -> None:
        """Refuses new requests; those queued are computed."""
        for model in self._models.values():
            model.batcher.close()
