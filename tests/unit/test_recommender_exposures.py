"""What the recommender writes of a response: receipt, list, pseudonym, and the list that shadow policies would make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from recsae.errors import FailedPreconditionError
from recsae.exposures.reader import ExposureReader
from recsae.exposures.record import OWN_KEY, Exposure, overlap
from recsae.pipeline.triples import Triple
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.store.pseudonyms import pseudonym
from recsae.telemetry.metrics import RecommenderMetrics
from recsae_recommender.exposures import Exposures, open_exposures
from recsae_recommender.pipeline import Ranking
from recsae_recommender.ranking import RankAsk, rank_rows
from recsae_recommender.rows import embed_rows
from recsae_recommender.settings import RecommenderSettings
from recsae_recommender.shadows import shadow_rows

KEY = b"k" * 32
SHADOW = ShadowOutcome((PolicyRef("p-9", 2),), 3.0, 0.5)
RECEIPT = Receipt(
    UnsteeredReason.STEERED,
    (PolicyRef("p-1", 3),),
    7,
    Triple("m", "s", "d"),
    2.0,
    0.25,
    (PolicyRef("p-2", 1),),
    SHADOW,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxRecommender:
    return OnnxRecommender(tiny_bundle(tmp_path_factory.mktemp("tiny")))


class Opened:
    """A log of every response, its metrics, and what was written."""

    def __init__(self, folder: Path, **values: object) -> None:
        self.registry = CollectorRegistry()
        (folder / "key").write_bytes(KEY)
        arguments = {"models": ("x=y",), "exposures": str(folder / "log"), "exposure_sample": 1.0} | values
        made = open_exposures(RecommenderSettings(**arguments), RecommenderMetrics(self.registry))  # type: ignore[arg-type]
        assert made is not None
        self.exposures: Exposures = made
        self._folder = folder / "log"

    def written(self) -> list[Exposure]:
        self.exposures.close()
        return list(ExposureReader(self._folder))

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path, pseudonym_key_file=tmp_path / "key")
    yield made
    made.exposures.close()


def ranking(model: OnnxRecommender, receipt: Receipt, move: float = 0.0) -> tuple[Ranking, list[str]]:
    """A list, and the list its rows would have got had they been moved."""
    asks = [RankAsk(k=10)]
    rows = embed_rows(model, model.inputs([np.array([1, 2, 3])], [""], [{}]), asks)
    random = np.random.default_rng(1)
    moved = rows.activation + np.float32(move) * random.standard_normal(rows.activation.shape).astype(np.float32)
    (items,), (others,) = (rank_rows(model, one, rows.passthrough, asks) for one in (rows.activation, moved))
    shadow = shadow_rows(rows, {0: moved}, asks)[0] if move else None
    return Ranking(items, receipt, shadow), [model.bundle.item_ids[index - 1] for index in others.indices]


def test_a_response_is_written_with_its_receipt_and_a_pseudonym_in_place_of_the_user(
    model: OnnxRecommender, opened: Opened, tmp_path: Path
) -> None:
    served, _ = ranking(model, replace(RECEIPT, shadow=None))
    opened.exposures.offer(model, served, user_id="anna", request_id="r-1")
    (found,) = opened.written()
    assert found.user == pseudonym(KEY, "anna")
    assert found.item_ids == tuple(model.bundle.item_ids[index - 1] for index in served.items.indices)
    assert (found.applied, found.held_out) == (RECEIPT.applied, RECEIPT.held_out)
    assert (found.plan_revision, found.delta_share, found.triple) == (7, 0.25, RECEIPT.triple)
    assert (found.reason, found.shadow) == (UnsteeredReason.STEERED, None)
    assert all(b"anna" not in path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert opened.count("recsae_exposures_written_total") == 1


def test_the_list_of_shadow_policies_is_written_beside_the_one_served(model: OnnxRecommender, opened: Opened) -> None:
    served, others = ranking(model, RECEIPT, move=0.5)
    opened.exposures.offer(model, served, user_id="anna", request_id="r-1")
    (found,) = opened.written()
    assert found.shadow is not None
    assert found.shadow.item_ids == tuple(others) != found.item_ids
    assert found.shadow.overlap == overlap(found.item_ids, others) < 1
    assert (found.shadow.policies, found.shadow.delta_share) == (SHADOW.policies, 0.5)
    assert opened.count("recsae_shadow_overlap_count", model="tiny") == 1
    assert opened.count("recsae_shadow_overlap_sum", model="tiny") == pytest.approx(found.shadow.overlap)


def test_shadow_policies_that_would_not_have_applied_have_no_list(model: OnnxRecommender, opened: Opened) -> None:
    refused = replace(SHADOW, reason=UnsteeredReason.OVER_NORM_BUDGET)
    served, _ = ranking(model, replace(RECEIPT, shadow=refused), move=0.5)
    opened.exposures.offer(model, served, user_id="anna", request_id="r-1")
    (found,) = opened.written()
    assert found.shadow is not None
    assert (found.shadow.reason, found.shadow.item_ids) == (UnsteeredReason.OVER_NORM_BUDGET, None)
    assert opened.count("recsae_shadow_overlap_count", model="tiny") == 0


def test_a_shadow_list_that_cannot_be_ranked_costs_that_list_alone(model: OnnxRecommender, opened: Opened) -> None:
    served, _ = ranking(model, RECEIPT, move=0.5)
    assert served.shadow is not None
    wrong = replace(served.shadow, rows=replace(served.shadow.rows, activation=np.zeros((1, 3), np.float32)))
    opened.exposures.offer(model, served._replace(shadow=wrong), user_id="anna", request_id="r-1")
    (found,) = opened.written()
    assert found.shadow is not None
    assert (found.shadow.policies, found.shadow.item_ids, found.shadow.overlap) == (SHADOW.policies, None, None)


def test_an_offer_never_raises(model: OnnxRecommender, opened: Opened) -> None:
    served, _ = ranking(model, RECEIPT, move=0.5)
    assert served.shadow is not None
    broken = replace(served.shadow, rows=replace(served.shadow.rows, passthrough=None))  # type: ignore[arg-type]
    opened.exposures.offer(model, served._replace(shadow=broken), user_id="anna", request_id="r-1")
    assert opened.count("recsae_exposures_dropped_total", reason="error") == 1


def test_without_a_key_pseudonyms_are_this_processs_own_and_say_so(model: OnnxRecommender, tmp_path: Path) -> None:
    found: list[str] = []
    for process in ("one", "two"):
        (tmp_path / process).mkdir()
        log, (served, _) = Opened(tmp_path / process), ranking(model, RECEIPT)
        for user_id in ("anna", "anna", "bert", ""):
            log.exposures.offer(model, served, user_id=user_id, request_id="r-1")
        users = [one.user for one in log.written()]
        assert users[0] == users[1] != users[2]
        assert users[3] == ""
        assert users[0].startswith(OWN_KEY)
        found.append(users[0])
    assert found[0] != found[1]


@pytest.mark.parametrize("values", [{"exposures": ""}, {"exposures": "x", "exposure_sample": 0}])
def test_no_log_is_opened_where_none_is_asked_for(values: dict[str, object]) -> None:
    settings = RecommenderSettings(models=("x=y",), **values)  # type: ignore[arg-type]
    assert open_exposures(settings, RecommenderMetrics(CollectorRegistry())) is None


def test_a_folder_that_cannot_be_written_to_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = RecommenderSettings(models=("x=y",), exposures=str(tmp_path / "file" / "log"))
    with pytest.raises(FailedPreconditionError, match="name a folder"):
        open_exposures(settings, RecommenderMetrics(CollectorRegistry()))
