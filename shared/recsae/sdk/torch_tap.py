"""A tap on a live torch model: the hooks of `attach`, and what runs in them.

With nothing to do a hook returns at once and looks at no tensor, so the model's outputs are what they were, bit for
bit. Whatever goes wrong in one leaves the forward as it was; the receipt says why.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import torch
from torch import Tensor, nn

from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.rpc.client import ClientOptions, channel
from recsae.sdk.exporter import Exporter
from recsae.sdk.torch_change import ServedPlace
from recsae.sdk.torch_exporter import TorchSource, exporter_of
from recsae.sdk.torch_place import Place, tensor_in
from recsae.sdk.torch_scope import Capture, Forward, Scope, Steering
from recsae.steering.delta import Steerer
from recsae.steering.follower import PlanFollower
from recsae.steering.matching import SteerContext
from recsae.steering.receipts import UnsteeredReason
from recsae.steering.segments import Attribute
from recsae.telemetry.observing import ActivationSampler

P = ParamSpec("P")
R = TypeVar("R")


def _told_by(
    make: Callable[P, TorchSource],
) -> Callable[[Callable[[Tap, TorchSource], R]], Callable[Concatenate[Tap, P], R]]:
    """Lets a method take the arguments of a source in place of the source, typed as they are there."""

    def told(method: Callable[[Tap, TorchSource], R]) -> Callable[Concatenate[Tap, P], R]:
        @functools.wraps(method)
        def called(tap: Tap, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(tap, make(*args, **kwargs))

        return called

    return told


class Tap:
    """A model's places of reading and steering. Made by `attach`; safe to use from several threads."""

    def __init__(
        self, model: nn.Module, places: Sequence[Place], modules: Mapping[str, nn.Module], padding: int
    ) -> None:
        """`modules` by place name, without those whose place names no module; `padding` fills up histories."""
        self.model = model
        self.places = tuple(places)
        self.padding = padding
        self._scope: ContextVar[Scope | None] = ContextVar("recsae_scope", default=None)
        self._forward: ContextVar[Forward | None] = ContextVar("recsae_forward", default=None)
        self._name, self._version = "", ""
        self._interpreter: grpc.Channel | None = None
        self._follower: PlanFollower | None = None
        self._serving = ServedPlace(self.places[0], padding)
        self._handles: list[Any] = []
        if any(place.row == "last" for place in self.places):
            called = _outside_graphs(self._called)
            self._handles.append(model.register_forward_pre_hook(called, with_kwargs=True))
        for place in self.places:
            if (module := modules.get(place.name)) is not None:
                self._handles.append(self._hooked(module, place))

    def __call__(self, x: Tensor) -> Tensor:
        """The tap put by hand, where no module ends: returns `x`, steered where a policy says so."""
        changed = self._passed(self.places[0], x)
        return x if changed is None else changed

    @_told_by(TorchSource)
    def exporter(self, source: TorchSource) -> Exporter:
        """The exporter of the model read here; its arguments are the fields of `TorchSource`."""
        exporter = exporter_of(self, source)
        self._name, self._version = exporter.name, exporter.version
        return exporter

    def follow(
        self,
        interpreter: str,
        *,
        model: str = "",
        version: str = "",
        options: ClientOptions | None = None,
        max_age_s: float = 600.0,
    ) -> Self:
        """Follows the plans of a model version from the interpreter at `host:port`, from the background.

        Name and version are the exporter's when one was made here. A plan that nobody confirmed for `max_age_s` is not
        applied any more. Call it after a server has forked its workers.
        """
        name, version = model or self._name, version or self._version
        if not name or not version:
            raise InvalidRequestError("follow() needs `model=` and `version=`, unless exporter() was called before")
        self.unfollow()
        self._name, self._version = name, version
        self._interpreter = channel(interpreter, options)
        watcher = f"{socket.gethostname()}:{os.getpid()}"
        self._follower = PlanFollower(self._interpreter, name, version, watcher=watcher, max_age_s=max_age_s).start()
        return self.apply_plans_of(name, version, self._follower.current, self._follower.now)

    def apply_plans_of(
        self,
        model: str,
        version: str,
        current: Callable[[], Steerer | UnsteeredReason],
        now: Callable[[], float] = time.time,
    ) -> Self:
        """Steers by whatever `current` holds at each forward, where plans come another way than by `follow`.

        `now` is the time by which policies begin and end.
        """
        self._name, self._version = model, version
        self._serving.start(model, version, current, now)
        return self

    def unfollow(self) -> None:
        """Steers and observes nothing any more, from the next forward on: the switch to have at hand."""
        sampler, self._serving.sampler = self._serving.sampler, None
        self._serving.stop()
        if sampler is not None:
            sampler.close()
        if self._follower is not None:
            self._follower.close()
        if self._interpreter is not None:
            self._interpreter.close()
        self._follower = self._interpreter = None

    def wait_for_plan(self, timeout_s: float) -> bool:
        """Blocks until the interpreter has sent a first plan; False when that took longer."""
        return self._follower is not None and self._follower.wait_for_revision(1, timeout_s)

    @property
    def plan_revision(self) -> int:
        """Revision of the plan held; 0 = none."""
        return self._follower.revision if self._follower is not None else 0

    def observe(self, *, share: float, capacity: int = 4_096) -> ActivationSampler:
        """Sends a share of live activations to the interpreter followed, for drift; it drops and never blocks."""
        if self._interpreter is None:
            raise FailedPreconditionError("observe() sends to the interpreter that is followed; call follow() first")
        if not 0 < share <= 1:
            raise InvalidRequestError(f"share = {share}; give one above 0 and at most 1")
        if self._serving.sampler is not None:
            self._serving.sampler.close()
        self._serving.sampler = sampler = ActivationSampler(self._interpreter, share=share, capacity=capacity)
        return sampler

    @contextmanager
    def steering(
        self,
        contexts: Sequence[SteerContext] | None = None,
        *,
        user_id: str = "",
        request_id: str = "",
        attributes: Mapping[str, Attribute] | None = None,
        lengths: Any = None,
    ) -> Iterator[Steering]:
        """Steers the forwards of this thread or task inside the block; what it yields says afterwards what was done.

        One context per row of the batch, or one user (`user_id`, `attributes`) for all of its rows. `lengths`
        int [batch]: items of each right-padded history, where the model's own argument does not say. Never raises.
        """
        shared = contexts is None
        given = [SteerContext(user_id, request_id, dict(attributes or {}))] if contexts is None else list(contexts)
        scope = Steering(lengths=lengths, contexts=given, shared=shared)
        token = self._scope.set(scope)
        try:
            yield scope
        finally:
            self._scope.reset(token)
            scope.close(f"{self.places[0].name!r}")

    @contextmanager
    def capturing(self, lengths: Any, *, left: bool) -> Iterator[Capture]:
        """Keeps the tensors of every place that this thread's forwards pass inside the block; for exporters."""
        scope = Capture(lengths=lengths, left=left)
        token = self._scope.set(scope)
        try:
            yield scope
        finally:
            self._scope.reset(token)

    def close(self) -> None:
        """Takes the hooks off and ends what runs in the background; the model is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.unfollow()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hooked(self, module: nn.Module, place: Place) -> Any:
        if place.at == "input":
            return module.register_forward_pre_hook(_outside_graphs(lambda _module, args: self._passed(place, args)))
        return module.register_forward_hook(_outside_graphs(lambda _module, _args, value: self._passed(place, value)))

    def _called(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the model's own forward: notes its arguments where somebody may ask for them."""
        scope = self._scope.get()
        if scope is not None:
            scope.arguments = (args, kwargs)
        elif self._serving.sampler is not None:
            self._forward.set(Forward(arguments=(args, kwargs)))

    def _passed(self, place: Place, value: Any) -> Any:
        """What the hook of a place does; None = the value stays the object it is."""
        scope = self._scope.get()
        if scope is None and self._serving.sampler is None:
            return None
        if isinstance(scope, Capture):
            # A copy: the modules after this one may work in place.
            scope.seen.setdefault(place.name, []).append(tensor_in(value, place.part).detach().clone())
            return None
        if place is not self.places[0]:
            return None
        forward = scope or self._forward.get() or Forward()
        changed = self._serving.passed(value, scope, forward)
        # Arguments are of one forward: the next one may come past the model's own hooks.
        forward.arguments = None
        return changed


def _outside_graphs(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook kept out of what torch.compile compiles: it asks each time what there is to do."""
    kept: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return kept
