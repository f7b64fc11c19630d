// Recommender: lists from histories, steered on the way, and lists from activations that the caller has.

import { randomUUID } from "node:crypto";
import { Refusal, fromTensor, method } from "./contract.js";
import { batch, check, read } from "./exporter.js";
import * as model from "./model.js";

const MOST_K = 1000;
const MOST_LISTS = 1024;

function listLength(k) {
  if (k > MOST_K) throw new Refusal("INVALID_ARGUMENT", `k is ${k}; ask for at most ${MOST_K}`);
  return k || 10;
}

// Places of candidates, undefined for none; INVALID_ARGUMENT names one that is unknown.
function candidatesOf(ids = []) {
  const unknown = ids.find((id) => model.placeOf(id) === undefined);
  if (unknown !== undefined) {
    throw new Refusal("INVALID_ARGUMENT", `item ${unknown} is unknown to ${model.NAME}; leave it out`);
  }
  return ids.length ? ids.map(model.placeOf) : undefined;
}

function rank(request) {
  check(request);
  const k = listLength(request.k);
  const rows = fromTensor(request.activations, model.DIM);
  if (rows.length > MOST_LISTS) {
    throw new Refusal("INVALID_ARGUMENT", `${rows.length} lists came; send at most ${MOST_LISTS}`);
  }
  for (const what of ["exclude", "candidates"]) {
    const count = request[what].length;
    if (count && count !== rows.length) {
      throw new Refusal("INVALID_ARGUMENT", `${what} has ${count} lists for ${rows.length} rows; send one each`);
    }
  }
  const lists = rows.map((activation, row) => {
    const excluded = new Set(model.known(request.exclude[row]?.item_ids ?? []));
    return { items: model.rank(activation, k, excluded, candidatesOf(request.candidates[row]?.item_ids)) };
  });
  return { lists, model_version: model.VERSION };
}

const recommend = (steer) => async (request, call) => {
  check(request);
  const k = listLength(request.k);
  if (!request.history) throw new Refusal("INVALID_ARGUMENT", "no history came; this server keeps none, send one");
  const places = read(request.history);
  const candidates = candidatesOf(request.candidate_item_ids);
  const excluded = new Set(model.known(request.exclude_item_ids));
  if (!request.include_seen) places.forEach((place) => excluded.add(place));

  const requestId = String(call.metadata.get("x-request-id")[0] ?? randomUUID());
  const activation = model.activations(places).at(-1);
  const subject = { activation, user_id: request.user_id, position: places.length };
  const context = { user_id: request.user_id, request_id: requestId, attributes: request.attributes };
  const steered = await steer(batch([subject]), activation, context);
  return {
    items: model.rank(steered.activation, k, excluded, candidates),
    model: model.NAME,
    triple: steered.receipt.triple,
    receipt: steered.receipt,
    request_id: requestId,
  };
};

export const recommender = (steer) => ({ Rank: method(rank), Recommend: method(recommend(steer)) });
