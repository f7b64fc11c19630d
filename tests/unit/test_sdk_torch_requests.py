"""Steering where requests meet: threads, tasks, compiled models, and what no hook can see."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tests.unit.torch_models import DIM, ITEM_IDS, USER_IDS, Matrix, Sasrec, seeded
from tests.unit.torch_plans import CONTEXTS, HISTORIES, plan, steered_by
from torch import nn

from recsae.errors import FailedPreconditionError
from recsae.rpc.limits import Page
from recsae.sdk.torch import attach
from recsae.steering.receipts import UnsteeredReason


def test_requests_served_at_the_same_time_do_not_mix() -> None:
    model = seeded(Matrix())
    results: dict[str, Any] = {}
    with attach(model, "users", hook="h") as tap:
        steered_by(tap, plan("h"))
        barrier = threading.Barrier(2, timeout=20)

        def serve(user: str, *, inside: bool) -> None:
            with torch.no_grad(), tap.steering(user_id=user) as steering:
                barrier.wait()
                scores = model(torch.tensor([4]))
                barrier.wait()
            results[user] = (scores, steering.reason) if inside else None

        threads = [threading.Thread(target=serve, args=(user,), kwargs={"inside": True}) for user in ("u-2", "u-9")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        with torch.no_grad():
            bare = model(torch.tensor([4]))
    assert results["u-2"][1] is UnsteeredReason.STEERED
    assert results["u-9"][1] is UnsteeredReason.NONE_MATCHED
    assert torch.equal(results["u-9"][0], bare)
    assert not torch.equal(results["u-2"][0], bare)


def test_exports_run_the_model_one_at_a_time_and_with_the_servers_own_lock() -> None:
    model, inside, overlaps = seeded(Matrix()), threading.Semaphore(1), []
    own = threading.Lock()

    def embed(batch: Any) -> None:
        overlaps.append(not inside.acquire(blocking=False) or not own.locked())
        model(batch.user)
        inside.release()

    with attach(model, "users") as tap:
        values: dict[str, Any] = {"users": USER_IDS[1:], "reads_history": False, "lock": own}
        exporter = tap.exporter(name="bpr", items=ITEM_IDS, embed=embed, **values)
        with ThreadPoolExecutor(4) as pool:
            pages = list(pool.map(lambda _: exporter.export_users(Page()), range(20)))
    assert len(overlaps) > 20
    assert not any(overlaps)
    first = pages[0].exported.activations
    assert all((page.exported.activations == first).all() for page in pages)


def test_steering_ends_at_once_when_nobody_is_followed_any_more() -> None:
    model = seeded(Matrix())
    with attach(model, "users", hook="h") as tap:
        steered_by(tap, plan("h"))
        tap.unfollow()
        with tap.steering(user_id="u-2") as steering:
            model(torch.tensor([4]))
    assert steering.reason is UnsteeredReason.NO_PLAN


def test_tasks_of_one_event_loop_do_not_mix() -> None:
    model = seeded(Matrix())
    with attach(model, "users", hook="h") as tap:
        steered_by(tap, plan("h"))

        async def serve(user: str) -> UnsteeredReason:
            with tap.steering(user_id=user) as steering:
                await asyncio.sleep(0)
                await asyncio.to_thread(model, torch.tensor([4]))
            return steering.reason

        async def both() -> list[UnsteeredReason]:
            return list(await asyncio.gather(serve("u-2"), serve("u-9")))

        assert asyncio.run(both()) == [UnsteeredReason.STEERED, UnsteeredReason.NONE_MATCHED]


@pytest.mark.parametrize("attached", ["before", "after"])
def test_compiled_models_are_steered_and_else_give_what_they_gave(attached: str) -> None:
    torch._dynamo.reset()
    model = seeded(Sasrec())
    compiled: Any = torch.compile(model, backend="eager")
    if attached == "after":
        compiled(HISTORIES)
    with attach(model, "norm", row="last", hook="h") as tap, torch.no_grad():
        bare = compiled(HISTORIES)
        steered_by(tap, plan("h"))
        assert torch.equal(compiled(HISTORIES), bare)
        with tap.steering(CONTEXTS) as steering:
            scores = compiled(HISTORIES)
        assert steering.receipts[1].reason is UnsteeredReason.STEERED
        assert torch.equal(scores[[0, 2]], bare[[0, 2]])
        assert not torch.equal(scores[1], bare[1])


def test_torchscript_and_data_parallel_are_refused_with_a_way_out() -> None:
    trace: Any = torch.jit.trace

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with pytest.warns(DeprecationWarning, match="trace"):
                self.inner = trace(nn.Linear(DIM, DIM), torch.zeros(1, DIM))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    with pytest.raises(FailedPreconditionError, match="TorchScript"):
        attach(Outer(), "inner")
    spread = nn.DataParallel(seeded(Matrix()))
    spread.device_ids = [0, 1]
    with pytest.raises(FailedPreconditionError, match="DistributedDataParallel"):
        attach(spread, "module.users")


def test_closing_takes_every_hook_off() -> None:
    model = seeded(Sasrec())
    tap = attach(model, "norm", row="last")
    assert model._forward_pre_hooks
    assert model.norm._forward_hooks
    tap.close()
    tap.close()
    assert not model._forward_pre_hooks
    assert not model.norm._forward_hooks
