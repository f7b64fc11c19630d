// Steering by the interpreter's `Steer`: within a deadline, checked, and never in the way of an answer.
//
// A service that can hold a plan applies it by itself, which costs microseconds (WatchPlans); a remote call is for
// those that cannot. Whatever happens to it, the activation goes on as it was and the receipt says why.

import grpc from "@grpc/grpc-js";
import { Steering, fromTensor } from "./contract.js";
import * as model from "./model.js";

const unsteered = (reason) => ({ reason, applied: [], triple: { model_version: model.VERSION } });

// steer(batch, context) -> { activation, receipt }; `address` empty = never steered.
export function steeringFrom(address, deadlineMs = 50) {
  const client = address && new Steering(address, grpc.credentials.createInsecure());

  return async function steer(batch, activation, context) {
    if (!client) return { activation, receipt: unsteered("UNSTEERED_REASON_NO_PLAN") };
    let answer;
    try {
      answer = await new Promise((resolve, reject) => {
        const deadline = Date.now() + deadlineMs;
        const request = { batch, contexts: [context] };
        client.Steer(request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
      });
    } catch (error) {
      const late = error.code === grpc.status.DEADLINE_EXCEEDED;
      return { activation, receipt: unsteered(late ? "UNSTEERED_REASON_DEADLINE" : "UNSTEERED_REASON_ERROR") };
    }
    const [receipt] = answer.receipts;
    if (!receipt?.applied.length) return { activation, receipt: receipt ?? unsteered("UNSTEERED_REASON_ERROR") };
    try {
      if (receipt.triple.model_version !== model.VERSION) {
        return { activation, receipt: unsteered("UNSTEERED_REASON_VERSION_MISMATCH") };
      }
      const [steered, ...more] = fromTensor(answer.activations, model.DIM);
      if (!steered || more.length) throw new Error("another number of rows came back");
      return { activation: steered, receipt };
    } catch {
      return { activation, receipt: unsteered("UNSTEERED_REASON_INVALID_CHANGE") };
    }
  };
}
