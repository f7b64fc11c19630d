"""What the exposure log costs a recommender: `python -m benchmarks.exposures`.

Processor time of a response that is not drawn, of one that is (on the request's thread and on the log's, with and
without a list of shadow policies at 3,700 items, synced to disk), and of reading an exposure into the arms of an
experiment. The last line is the result as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.machine import this_machine
from recsae.exposures.log import ExposureLog
from recsae.exposures.reader import ExposureReader
from recsae.exposures.segments import SegmentWriter
from recsae.exposures.units import LogArms
from recsae.pipeline.triples import Triple
from recsae.recommenders.runtime import OnnxRecommender
from recsae.recommenders.synthetic import tiny_bundle
from recsae.steering.receipts import PolicyRef, Receipt, ShadowOutcome, UnsteeredReason
from recsae.telemetry.metrics import RecommenderMetrics, new_registry
from recsae_recommender.exposures import Exposures
from recsae_recommender.pipeline import Ranking
from recsae_recommender.ranking import RankAsk, rank_rows
from recsae_recommender.rows import embed_rows
from recsae_recommender.shadows import shadow_rows

ITEMS, DIM, K = 3_700, 64, 10
CALLS, OFFERS, ROUNDS, FACETS = 200_000, 1_000, 7, 100
RECEIPT = Receipt(UnsteeredReason.STEERED, (PolicyRef("p-1", 1),), 3, Triple("m" * 16, "s" * 16, "d" * 16), 1.0, 0.1)
SHADOW = replace(RECEIPT, shadow=ShadowOutcome((PolicyRef("p-2", 1),), 1.0, 0.1))


def rankings(recommender: OnnxRecommender) -> tuple[Ranking, Ranking]:
    """A list, and the same with rows that shadow policies would have made."""
    asks = [RankAsk(k=K)]
    rows = embed_rows(recommender, recommender.inputs([np.arange(1, 40)], [""], [{}]), asks)
    (items,) = rank_rows(recommender, rows.activation, rows.passthrough, asks)
    shadow = shadow_rows(rows, {0: rows.activation * np.float32(1.1)}, asks)[0]
    return Ranking(items, RECEIPT), Ranking(items, SHADOW, shadow)


def call_ns(call: Callable[[], object]) -> float:
    """Nanoseconds of processor time a call, median over rounds."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.thread_time()
        for _ in range(CALLS):
            call()
        seconds.append((time.thread_time() - begin) / CALLS)
    return statistics.median(seconds) * 1e9


def offer_us(recommender: OnnxRecommender, ranking: Ranking, folder: Path) -> tuple[float, float]:
    """Microseconds of processor time of one offer, and of all the rest that it takes, medians over rounds."""
    asked, rest = [], []
    for turn in range(ROUNDS):
        segments = SegmentWriter(folder / str(turn), retention_days=7)
        log = ExposureLog(segments, share=1.0, capacity=OFFERS, most_bytes=1 << 30)
        exposures = Exposures(log, b"k" * 32, RecommenderMetrics(new_registry()))
        whole, begin = time.process_time(), time.thread_time()
        for user in range(OFFERS):
            exposures.offer(recommender, ranking, user_id=f"user-{user}", request_id="0" * 32)
        asked.append((time.thread_time() - begin) / OFFERS)
        exposures.close()
        rest.append((time.process_time() - whole) / OFFERS - asked[-1])
        assert log.written == OFFERS, dict(log.dropped)
    return statistics.median(asked) * 1e6, statistics.median(rest) * 1e6


def reading_us(recommender: OnnxRecommender, folder: Path) -> float:
    """Microseconds of processor time to read an exposure and add it to its arm, over 100 facets."""
    index = {item_id: at for at, item_id in enumerate(recommender.bundle.item_ids, 1)}
    facets = (np.random.default_rng(0).random((ITEMS + 1, FACETS)) < 0.1).astype(np.float32)
    arms = LogArms("p-1", index, facets)
    begin = time.thread_time()
    for turn in range(ROUNDS):
        for exposure in ExposureReader(folder / str(turn)):
            arms.add(exposure)
    return (time.thread_time() - begin) / arms.exposures * 1e6


def main() -> None:
    """Prints the machine, then the JSON line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recommender = OnnxRecommender(tiny_bundle(folder / "model", n_items=ITEMS, dim=DIM, max_history=50))
        plain, shadow = rankings(recommender)
        log = ExposureLog(SegmentWriter(folder / "none", retention_days=7), share=0.0)
        exposures = Exposures(log, b"k" * 32, RecommenderMetrics(new_registry()))
        not_drawn = call_ns(exposures.drawn)
        exposures.close()
        drawn, written = offer_us(recommender, plain, folder / "plain")
        drawn_shadow, written_shadow = offer_us(recommender, shadow, folder / "shadow")
        line = sum(path.stat().st_size for path in (folder / "plain").rglob("*.jsonl")) / (ROUNDS * OFFERS)
        result = {
            "bench": "exposures",
            "not_drawn_ns": round(not_drawn),
            "request_us": {"plain": round(drawn, 2), "shadow": round(drawn_shadow, 2)},
            "log_us": {"plain": round(written, 1), "shadow": round(written_shadow, 1)},
            "reading_us": round(reading_us(recommender, folder / "plain"), 1),
            "bytes": round(line),
        }
    sys.stdout.write(f"{this_machine().processor}\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main()
