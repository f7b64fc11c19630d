"""A small interpreter in memory that steers every second row, and broken ones, with the check that has to find each."""

from __future__ import annotations

import grpc
import numpy as np

from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import steering_pb2

_MOVES_BY = 0.5


class SmallInterpreter:
    """Adds half a unit along the first axis to the rows of even requests."""

    found_by = ""
    """Of a broken one: the check that has to find it."""

    def add_to(self, server: grpc.Server) -> None:
        steer = grpc.unary_unary_rpc_method_handler(
            self.Steer,
            request_deserializer=steering_pb2.SteerRequest.FromString,
            response_serializer=steering_pb2.SteerResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("recsae.v1.Steering", {"Steer": steer})])

    def matches(self, context: steering_pb2.SteerContext) -> bool:
        return context.request_id[-1] in "02468"

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        rows = from_tensor(request.batch.activations, name="activations", dtype=np.float32).copy()
        triple = common.Triple(model_version=request.batch.model_version)
        receipts = []
        for row, whose in zip(rows, request.contexts, strict=True):
            if self.matches(whose):
                row[0] += np.float32(_MOVES_BY)
                applied = [common.PolicyRef(policy_id="p-1", revision=1)]
                receipts.append(common.Receipt(applied=applied, triple=triple, delta_norm=_MOVES_BY))
            else:
                receipts.append(common.Receipt(reason=common.UNSTEERED_REASON_NONE_MATCHED, triple=triple))
        return steering_pb2.SteerResponse(activations=to_tensor(rows), receipts=receipts)


class ReceiptsMissing(SmallInterpreter):
    found_by = "steering.receipts"

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        answer = super().Steer(request, context)
        del answer.receipts[-1]
        return answer


class UnsteeredRowsMove(SmallInterpreter):
    found_by = "steering.unsteered"

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        answer = super().Steer(request, context)
        rows = from_tensor(answer.activations, name="activations", dtype=np.float32)
        answer.activations.CopyFrom(to_tensor(rows * np.float32(1.000001)))
        return answer


class MovesFurtherThanItSays(SmallInterpreter):
    found_by = "steering.unsteered"

    def Steer(self, request: steering_pb2.SteerRequest, context: grpc.ServicerContext) -> steering_pb2.SteerResponse:
        answer = super().Steer(request, context)
        for receipt in answer.receipts:
            receipt.delta_norm /= 2
        return answer


BROKEN_INTERPRETERS: list[type[SmallInterpreter]] = [ReceiptsMissing, UnsteeredRowsMove, MovesFurtherThanItSays]
