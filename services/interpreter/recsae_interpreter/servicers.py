"""gRPC adapters of `Interpreter` and `Pipeline`: convert, call one handler, convert."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from recsae.rpc.request import require_request
from recsae.steering.wire_plans import triple_from
from recsae.v1 import interpreter_pb2, interpreter_pb2_grpc, pipeline_pb2, pipeline_pb2_grpc
from recsae_interpreter import convert, convert_compare, convert_effects, convert_identity, convert_pipeline
from recsae_interpreter.handlers.channels import ChannelsHandler
from recsae_interpreter.handlers.compare import CompareHandler
from recsae_interpreter.handlers.concepts import ConceptsHandler
from recsae_interpreter.handlers.edits import EditsHandler
from recsae_interpreter.handlers.encode import EncodeHandler
from recsae_interpreter.handlers.explain import ExplainHandler
from recsae_interpreter.handlers.observe import ObserveHandler
from recsae_interpreter.handlers.runs import RunsHandler

INTERPRETER = "recsae.v1.Interpreter"
PIPELINE = "recsae.v1.Pipeline"


@dataclass(frozen=True)
class InterpreterServicer(interpreter_pb2_grpc.InterpreterServicer):
    """`recsae.v1.Interpreter`."""

    explain: ExplainHandler
    encode: EncodeHandler
    concepts: ConceptsHandler
    edits: EditsHandler
    observe: ObserveHandler
    compare: CompareHandler

    def Explain(
        self, request: interpreter_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ExplainResponse:
        """Which concepts fire, and what they contribute."""
        return convert.explain_response(self.explain(convert.explain_query(request, require_request())))

    def Encode(
        self, request: interpreter_pb2.EncodeRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.EncodeResponse:
        """Activations to latents."""
        return convert.encode_response(self.encode(*convert.encode_arguments(request)))

    def ListConcepts(
        self, request: interpreter_pb2.ListConceptsRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ListConceptsResponse:
        """A page of concepts."""
        status, order = convert.status_from(request.status), convert.order_from(request.order)
        page = self.concepts.page(request.model, status, order, request.page_size, request.page_token)
        return convert.concepts_response(page)

    def GetConcept(
        self, request: interpreter_pb2.GetConceptRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.GetConceptResponse:
        """One concept."""
        return convert.concept_response(self.concepts.get(request.model, request.concept_id))

    def SearchConcepts(
        self, request: interpreter_pb2.SearchConceptsRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.SearchConceptsResponse:
        """Concepts by words or by meaning."""
        by_meaning = convert.by_meaning(request.mode)
        found = self.concepts.search(request.model, request.query, request.limit, by_meaning=by_meaning)
        return convert.search_response(found)

    def CompareGroups(
        self, request: interpreter_pb2.CompareGroupsRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.CompareGroupsResponse:
        """Which concepts tell two groups apart."""
        query = convert_compare.compare_query(request, require_request())
        return convert_compare.compare_response(self.compare(query))

    def EditConcept(
        self, request: interpreter_pb2.EditConceptRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.EditConceptResponse:
        """Writes an edit."""
        shown = self.edits.write(convert_identity.edit_query(request), require_request())
        return interpreter_pb2.EditConceptResponse(edit=convert_identity.edit_message(shown))

    def ListLabelEdits(
        self, request: interpreter_pb2.ListLabelEditsRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ListLabelEditsResponse:
        """Edits of a model."""
        return convert_identity.edits_response(self.edits.listed(request.model))

    def GetLineage(
        self, request: interpreter_pb2.GetLineageRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.GetLineageResponse:
        """What became of the dictionary before."""
        return convert_identity.lineage_response(self.concepts.lineage(request.model, request.concept_id))

    def ListHandles(
        self, request: interpreter_pb2.ListHandlesRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ListHandlesResponse:
        """Handles of the promoted dictionary."""
        return convert_effects.handles_response(self.concepts.handles(request.model))

    def Observe(
        self, request: interpreter_pb2.ObserveRequest, context: grpc.ServicerContext
    ) -> interpreter_pb2.ObserveResponse:
        """Counts sampled activations."""
        return interpreter_pb2.ObserveResponse(accepted=self.observe(convert.observation(request)))


@dataclass(frozen=True)
class PipelineServicer(pipeline_pb2_grpc.PipelineServicer):
    """`recsae.v1.Pipeline`."""

    runs: RunsHandler
    channels: ChannelsHandler

    def StartRefresh(
        self, request: pipeline_pb2.StartRefreshRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.StartRefreshResponse:
        """Records and enqueues a run."""
        run = self.runs.start(
            convert_pipeline.run_config(request.config), request.idempotency_key, require_request().deadline
        )
        return pipeline_pb2.StartRefreshResponse(run=convert_pipeline.run_message(run))

    def StartSweep(
        self, request: pipeline_pb2.StartSweepRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.StartSweepResponse:
        """Records and enqueues a sweep."""
        run = self.runs.start(
            convert_pipeline.sweep_config(request), request.idempotency_key, require_request().deadline
        )
        return pipeline_pb2.StartSweepResponse(run=convert_pipeline.run_message(run))

    def GetRun(self, request: pipeline_pb2.GetRunRequest, context: grpc.ServicerContext) -> pipeline_pb2.GetRunResponse:
        """One run."""
        return pipeline_pb2.GetRunResponse(run=convert_pipeline.run_message(self.runs.get(request.run_id)))

    def ListRuns(
        self, request: pipeline_pb2.ListRunsRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.ListRunsResponse:
        """Runs, newest first."""
        runs = self.runs.list(request.model, request.limit)
        return pipeline_pb2.ListRunsResponse(runs=[convert_pipeline.run_message(run, points=False) for run in runs])

    def CancelRun(
        self, request: pipeline_pb2.CancelRunRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.CancelRunResponse:
        """Ends a run."""
        run = self.runs.cancel(request.run_id, request.reason)
        return pipeline_pb2.CancelRunResponse(run=convert_pipeline.run_message(run))

    def Promote(
        self, request: pipeline_pb2.PromoteRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.PromoteResponse:
        """Points production at a triple."""
        expected = request.expected_revision if request.HasField("expected_revision") else None
        channel = self.channels.promote(
            request.model, triple_from(request.triple), expected, request.reason, require_request()
        )
        return pipeline_pb2.PromoteResponse(channel=convert_pipeline.channel_message(channel))

    def Rollback(
        self, request: pipeline_pb2.RollbackRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.RollbackResponse:
        """Points production at the triple before."""
        channel = self.channels.roll_back(request.model, request.reason, require_request())
        return pipeline_pb2.RollbackResponse(channel=convert_pipeline.channel_message(channel))

    def GetChannels(
        self, request: pipeline_pb2.GetChannelsRequest, context: grpc.ServicerContext
    ) -> pipeline_pb2.GetChannelsResponse:
        """Where the channels of a model point."""
        channels = self.channels.channels(request.model)
        return pipeline_pb2.GetChannelsResponse(
            channels=[convert_pipeline.channel_message(channel) for channel in channels]
        )
