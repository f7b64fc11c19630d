"""A small interpreter in memory that steers every second row, and broken ones, with the check that has to find each."""

from __future__ import annotations

import grpc
import numpy as np

from recsae.rpc.tensors import from_tensor, to_tensor
from recsae.v1 import common_pb2 as common
from recsae.v1 import steering_pb2, steering_pb2_grpc

_MOVES_BY = 0.5


class SmallInterpreter(steering_pb2_grpc.SteeringServicer):
    """Adds half a unit along the first axis to the rows of even requests."""

    def add_to(self, server: grpc.Server) -> None:
        steering_pb2_grpc.add_SteeringServicer_to_server(self, server)

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


BROKEN_INTERPRETERS = [ReceiptsMissing, UnsteeredRowsMove, MovesFurtherThanItSays]
