"""What a tap costs a live torch model, as ratios in one run: `python -m benchmarks.sdk_hook`.

A GRU of d = 64 over 50 positions and 3,700 items, one thread, batches of 1 and 64 users. Beside the bare model: tapped
with nothing to do, inside a `steering` block whose policy matches nobody, and with one added concept for every row.
Rounds of all four are interleaved and medians of processor time compared, which other programs hardly change. The last
line is the result as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from recsae.pipeline.triples import Triple
from recsae.sdk.torch import SteerContext, Tap, attach
from recsae.steering.delta import Steerer
from recsae.steering.plans import Plan, PlanOperation, PlanPolicy
from recsae.steering.policies import OperationKind, Scope, Window
from recsae.steering.receipts import PolicyRef, UnsteeredReason

DIM, ITEMS, LENGTH = 64, 3_700, 50
ROUNDS, CALLS = 41, 20
VERSION = "0" * 16


class Recommender(nn.Module):
    """Scores every item from the newest state of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, DIM)
        self.gru = nn.GRU(DIM, DIM, batch_first=True)

    def forward(self, history: Tensor) -> Tensor:
        """Scores [batch, items + 1] of histories [batch, length]."""
        states, _ = self.gru(self.items(history))
        scores: Tensor = states[:, -1] @ self.items.weight.T
        return scores


def main() -> None:
    """Prints a table, then the JSON line."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = {str(batch): _ratios(batch) for batch in (1, 64)}
    sys.stdout.write(json.dumps({"bench": "sdk_hook", "ratio_to_bare_by_batch": result}) + "\n")


def _ratios(batch: int) -> dict[str, float]:
    bare, tapped = Recommender().eval(), Recommender().eval()
    tap = attach(tapped, "gru", row="last")
    history = torch.randint(1, ITEMS, (batch, LENGTH))
    matched, others = ([SteerContext(user)] * batch for user in ("u", "nobody"))
    _hold_a_plan(tap)

    def steered(contexts: list[SteerContext], reason: UnsteeredReason) -> None:
        with tap.steering(contexts) as steering:
            tapped(history)
        assert steering.reason is reason, steering.error

    cases: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(history),
        "tapped": lambda: tapped(history),
        "unmatched": lambda: steered(others, UnsteeredReason.NONE_MATCHED),
        "steered": lambda: steered(matched, UnsteeredReason.STEERED),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, case in cases.items():
                start = time.thread_time()
                for _ in range(CALLS):
                    case()
                seconds[name].append((time.thread_time() - start) / CALLS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        line = f"batch {batch:3}  {name:10} {median * 1e6:9.1f} us  x{median / medians['bare']:.3f}\n"
        sys.stdout.write(line)
    return {name: round(median / medians["bare"], 3) for name, median in medians.items() if name != "bare"}


def _hold_a_plan(tap: Tap) -> None:
    """Gives the tap a plan as if an interpreter had sent it."""
    operation = PlanOperation(0, OperationKind.ADD, 0.1, np.eye(DIM, dtype=np.float32)[0])
    policy = PlanPolicy(PolicyRef("p", 1), (operation,), Scope(user_ids=("u",)), Window(), "salt")
    plan = Plan(1, "m", Triple(VERSION, "1" * 16, "2" * 16), (policy,), DIM, "gru", time.time(), norm_budget=100.0)
    steerer = Steerer(plan)
    tap.apply_plans_of("m", VERSION, lambda: steerer)


if __name__ == "__main__":
    main()
