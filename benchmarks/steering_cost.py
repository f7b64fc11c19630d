"""What steering costs in process, per request of a batch: `python -m benchmarks.steering_cost`.

Processor time of `Steerer.steer` at d = 64 for batches of 1, 8 and 32: where nothing matches, with additions, and with
operations that read latents of SAEs of width 2,048 and 4,096; beside it that of the encoder alone and of a receipt's
message. Rounds of all cases are interleaved and medians taken. The last line is the result as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.machine import this_machine
from recsae.pipeline.triples import Triple
from recsae.sae.export import encoder_graph
from recsae.sae.weights import SaeWeights
from recsae.steering.delta import Steerer
from recsae.steering.encoder import OnnxEncoder
from recsae.steering.matching import SteerContext
from recsae.steering.plans import Floats, Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef
from recsae.steering.segments import Equals
from recsae.steering.wire_plans import receipt_message

DIM, SLOTS = 64, 32
WIDTHS, BATCHES = (2_048, 4_096), (1, 8, 32)
ROUNDS, CALLS = 31, 40
NOW = 1_800_000_000.0
ADD, SCALE, ABLATE, CAP = OperationKind.ADD, OperationKind.SCALE, OperationKind.ABLATE, OperationKind.CAP
OPERATIONS: dict[str, list[tuple[OperationKind, float]]] = {
    "add 1": [(ADD, 0.3)],
    "add 3": [(ADD, 0.3)] * 3,
    "scale 1": [(SCALE, 3.0)],
    "scale, ablate, cap": [(SCALE, 3.0), (ABLATE, 0.0), (CAP, 0.1)],
}


def main() -> None:
    """Prints a table, then the JSON line."""
    sys.stdout.write(f"{this_machine().processor}; d = {DIM}, {SLOTS} latents a row, us per request\n")
    line = "{:>6}  {:24}" + " {:>9}" * len(BATCHES) + "\n"
    sys.stdout.write(line.format("width", "case", *(f"batch {batch}" for batch in BATCHES)))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for width in WIDTHS:
        by_batch = {batch: _measured(_cases(width, batch), batch) for batch in BATCHES}
        for case in by_batch[BATCHES[0]]:
            costs = {str(batch): round(found[case], 2) for batch, found in by_batch.items()}
            result.setdefault(str(width), {})[case] = costs
            sys.stdout.write(line.format(width, case, *(f"{cost:.1f}" for cost in costs.values())))
    sys.stdout.write(json.dumps({"bench": "steering_cost", "us_by_width": result}) + "\n")


def _measured(cases: dict[str, Callable[[], object]], batch: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            begin = time.thread_time()
            for _ in range(CALLS):
                case()
            if number:  # the first round warms up
                seconds[name].append((time.thread_time() - begin) / CALLS / batch)
    return {name: statistics.median(costs) * 1e6 for name, costs in seconds.items()}


def _cases(width: int, batch: int) -> dict[str, Callable[[], object]]:
    weights = _sae(width)
    encoder = OnnxEncoder(encoder_graph(weights, SLOTS), DIM)
    x: Floats = np.random.default_rng(1).standard_normal((batch, DIM)).astype(np.float32)
    contexts = [SteerContext(f"u-{row}", f"r-{row}", {"country": "DE", "surface": "home"}) for row in range(batch)]

    def steering(country: str, kinds: list[tuple[OperationKind, float]]) -> Steerer:
        operations = tuple(
            PlanOperation(latent, kind, value, weights.w_dec[latent]) for latent, (kind, value) in enumerate(kinds)
        )
        scope = Scope(segment=Equals("country", country))
        policy = PlanPolicy(PolicyRef("p", 1), operations, scope, Window(NOW - 10, NOW + 10), "salt")
        return Steerer(Plan(1, "m", Triple("0" * 16, "1" * 16, "2" * 16), (policy,), DIM, "sequence", NOW), encoder)

    def case(steerer: Steerer) -> Callable[[], object]:
        return lambda: steerer.steer(x, contexts, NOW)

    receipt = steering("DE", OPERATIONS["add 1"]).steer(x, contexts, NOW).receipts[0]
    return {
        "none matches": case(steering("US", OPERATIONS["add 1"])),
        **{name: case(steering("DE", kinds)) for name, kinds in OPERATIONS.items()},
        "the encoder alone": lambda: encoder(x),
        "a receipt's message": lambda: [receipt_message(receipt) for _ in range(batch)],
    }


def _sae(width: int) -> SaeWeights:
    rows = np.random.default_rng(0).standard_normal((width, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    nothing = np.zeros(DIM, np.float32)
    w_dec = rows.astype(np.float32)
    return SaeWeights(w_dec.copy(), np.full(width, -0.1, np.float32), w_dec, nothing, nothing)


if __name__ == "__main__":
    main()
