"""gRPC adapter of `Steering`: convert, call one handler, convert."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import structlog

from recsae.errors import InvalidRequestError
from recsae.rpc.request import require_request
from recsae.steering.wire import policy_message, seconds
from recsae.v1 import steering_pb2, steering_pb2_grpc
from recsae_interpreter import convert_policies, convert_policy_import, convert_preview, convert_steering
from recsae_interpreter.convert import activations_of
from recsae_interpreter.handlers.kill_switches import KillSwitchesHandler
from recsae_interpreter.handlers.policies import PoliciesHandler
from recsae_interpreter.handlers.policy_changes import PolicyChanges
from recsae_interpreter.handlers.policy_import import PolicyImportHandler
from recsae_interpreter.handlers.preview import PreviewHandler
from recsae_interpreter.handlers.preview_panel import PreviewPanelHandler
from recsae_interpreter.handlers.resolve import ResolveHandler
from recsae_interpreter.handlers.steer import SteerHandler
from recsae_interpreter.handlers.watch import WatchHandler
from recsae_interpreter.library import Library
from recsae_interpreter.metrics import InterpreterMetrics

STEERING = "recsae.v1.Steering"
_LONGEST_WATCHER = 120

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SteeringServicer(steering_pb2_grpc.SteeringServicer):
    """`recsae.v1.Steering`. `draining` is set when open streams have to end."""

    policies: PoliciesHandler
    changes: PolicyChanges
    switches: KillSwitchesHandler
    imports: PolicyImportHandler
    resolve: ResolveHandler
    preview: PreviewHandler
    panel: PreviewPanelHandler
    steer: SteerHandler
    watch: WatchHandler
    library: Library
    metrics: InterpreterMetrics
    draining: threading.Event

    def CreatePolicy(
        self, request: steering_pb2.CreatePolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.CreatePolicyResponse:
        """Makes a policy."""
        written = self.policies.create(convert_policies.create_query(request), require_request())
        return steering_pb2.CreatePolicyResponse(
            policy=policy_message(written.policy), plan_revision=written.plan_revision
        )

    def GetPolicy(
        self, request: steering_pb2.GetPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetPolicyResponse:
        """One policy."""
        return steering_pb2.GetPolicyResponse(policy=policy_message(self.policies.get(request.policy_id)))

    def ListPolicies(
        self, request: steering_pb2.ListPoliciesRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ListPoliciesResponse:
        """Policies, oldest first."""
        found = self.policies.listed(request.model, include_ended=request.include_ended)
        return steering_pb2.ListPoliciesResponse(policies=[policy_message(policy) for policy in found])

    def UpdatePolicy(
        self, request: steering_pb2.UpdatePolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.UpdatePolicyResponse:
        """Replaces what a policy says."""
        written = self.changes.update(convert_policies.update_query(request), require_request())
        return steering_pb2.UpdatePolicyResponse(
            policy=policy_message(written.policy), plan_revision=written.plan_revision
        )

    def SetPolicyState(
        self, request: steering_pb2.SetPolicyStateRequest, context: grpc.ServicerContext
    ) -> steering_pb2.SetPolicyStateResponse:
        """Moves a policy between draft, shadow, live and paused."""
        written = self.changes.set_state(
            convert_policies.change_query(request, request.policy_id),
            convert_policies.state_from(request.state),
            allow=request.allow_outside_safe_range,
            info=require_request(),
        )
        return steering_pb2.SetPolicyStateResponse(
            policy=policy_message(written.policy), plan_revision=written.plan_revision
        )

    def RevertPolicy(
        self, request: steering_pb2.RevertPolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.RevertPolicyResponse:
        """Brings an earlier revision back."""
        query = convert_policies.change_query(request, request.policy_id)
        written = self.changes.revert(query, request.to_revision, require_request())
        return steering_pb2.RevertPolicyResponse(
            policy=policy_message(written.policy), plan_revision=written.plan_revision
        )

    def ListPolicyRevisions(
        self, request: steering_pb2.ListPolicyRevisionsRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ListPolicyRevisionsResponse:
        """The revisions of a policy, newest first."""
        kept = self.policies.revisions(request.policy_id)
        return steering_pb2.ListPolicyRevisionsResponse(revisions=[policy_message(one) for one in kept])

    def ResolvePolicies(
        self, request: steering_pb2.ResolvePoliciesRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ResolvePoliciesResponse:
        """Which policies would win for a request, and why the others would not."""
        at = seconds(request.at) if request.HasField("at") else None
        found = self.resolve(request.model, convert_policies.context_from(request.context), at)
        return convert_policies.resolve_response(found)

    def SetKillSwitch(
        self, request: steering_pb2.SetKillSwitchRequest, context: grpc.ServicerContext
    ) -> steering_pb2.SetKillSwitchResponse:
        """Switches all steering of a model, or of every model, off or on again."""
        done = self.switches.set(request.model, on=request.on, reason=request.reason, info=require_request())
        return steering_pb2.SetKillSwitchResponse(
            kill_switch=convert_policies.switch_message(done.switch), plan_revision=done.plan_revision
        )

    def ListKillSwitches(
        self, request: steering_pb2.ListKillSwitchesRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ListKillSwitchesResponse:
        """The kill switches that were ever set."""
        switches = [convert_policies.switch_message(one) for one in self.switches.listed()]
        return steering_pb2.ListKillSwitchesResponse(kill_switches=switches)

    def ImportPolicies(
        self, request: steering_pb2.ImportPoliciesRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ImportPoliciesResponse:
        """Writes policies as they were exported."""
        done = self.imports(convert_policy_import.import_query(request), require_request())
        return convert_policy_import.import_response(done)

    def DeletePolicy(
        self, request: steering_pb2.DeletePolicyRequest, context: grpc.ServicerContext
    ) -> steering_pb2.DeletePolicyResponse:
        """Takes a policy out of force."""
        written = self.policies.delete(request.policy_id, request.revision, request.reason, require_request())
        return steering_pb2.DeletePolicyResponse(
            policy=policy_message(written.policy), plan_revision=written.plan_revision
        )

    def ListAudit(
        self, request: steering_pb2.ListAuditRequest, context: grpc.ServicerContext
    ) -> steering_pb2.ListAuditResponse:
        """Audit events, newest first."""
        events = self.policies.audit(request.policy_id, request.limit, request.before_id)
        return steering_pb2.ListAuditResponse(events=[convert_steering.event_message(event) for event in events])

    def Preview(
        self, request: steering_pb2.PreviewRequest, context: grpc.ServicerContext
    ) -> steering_pb2.PreviewResponse:
        """Before and after for one user."""
        return convert_preview.preview_response(self.preview(convert_preview.preview_query(request, require_request())))

    def PreviewPanel(
        self, request: steering_pb2.PreviewPanelRequest, context: grpc.ServicerContext
    ) -> steering_pb2.PreviewPanelResponse:
        """Before and after for many users."""
        return convert_preview.panel_response(self.panel(convert_preview.panel_query(request, require_request())))

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        """Steers activations."""
        batch = request.batch
        steered = self.steer(
            batch.model, batch.hook, batch.model_version, activations_of(batch), convert_steering.contexts_from(request)
        )
        return convert_steering.steer_response(steered)

    def WatchPlans(
        self, request: steering_pb2.WatchPlansRequest, context: grpc.ServicerContext
    ) -> Iterator[steering_pb2.WatchPlansResponse]:
        """Plans, then changes and heartbeats, until the server drains or the stream's life is over."""
        if not request.model or len(request.watcher) > _LONGEST_WATCHER:
            raise InvalidRequestError(f"name a model, and a watcher of at most {_LONGEST_WATCHER} characters")
        # Only models known here become a label: names are the callers' own.
        label = request.model if request.model in self.library.shelf.served else "unknown"
        _log.info("plan_watcher_joined", model=label, watcher=request.watcher)
        self.metrics.watchers.labels(label).inc()
        try:
            for event in self.watch(request.model, lambda: self.draining.is_set() or not context.is_active()):
                yield convert_steering.watch_response(event, time.time())
        finally:
            self.metrics.watchers.labels(label).dec()

    def GetEncoder(
        self, request: steering_pb2.GetEncoderRequest, context: grpc.ServicerContext
    ) -> steering_pb2.GetEncoderResponse:
        """The encoder a plan names."""
        file = self.library.sae(request.sae_version).encoder_file
        return steering_pb2.GetEncoderResponse(onnx=file.onnx, sha256=file.sha256)
