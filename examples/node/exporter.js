// ActivationExporter: what the model is, and its activations, for histories given or for every item.

import { Refusal, method, toTensor } from "./contract.js";
import * as model from "./model.js";

const MOST_ROWS = 4096;
const MOST_HISTORIES = 4096;
const MOST_ITEMS = 65536;

// NOT_FOUND for another model or hook, FAILED_PRECONDITION for another version: versions never mix.
export function check({ model: name, model_version: version, hook }) {
  if (name && name !== model.NAME) throw new Refusal("NOT_FOUND", `there is no model ${name}; there is ${model.NAME}`);
  if (hook && hook !== model.HOOK) throw new Refusal("NOT_FOUND", `there is no hook ${hook}; there is ${model.HOOK}`);
  if (version && version !== model.VERSION) {
    throw new Refusal("FAILED_PRECONDITION", `version ${model.VERSION} is loaded, not ${version}; ask for that one`);
  }
}

// Places of a history's items; INVALID_ARGUMENT when the model knows none of them.
export function read(history, index = 0) {
  const places = model.known(history?.item_ids ?? []);
  if (!places.length) {
    throw new Refusal("INVALID_ARGUMENT", `history ${index} has no item of ${model.NAME}; send at least one`);
  }
  return places;
}

export function batch(rows) {
  return {
    model: model.NAME,
    model_version: model.VERSION,
    hook: model.HOOK,
    side: "SIDE_USER",
    activations: toTensor(rows.map((row) => row.activation), model.DIM),
    subjects: rows.map(({ activation, ...subject }) => subject),
  };
}

// Rows of one history: its last position, or every one that is read. Positions count the whole history, from 1.
function rowsOf(history, index, every, names = {}) {
  const places = read(history, index);
  const found = model.activations(places);
  const first = places.length - found.length + 1;
  const rows = found.map((activation, row) => ({ activation, position: first + row, history_index: index, ...names }));
  return every ? rows : rows.slice(-1);
}

// [start, end) of a page and the cursor of the next: the number of items before it.
function span({ cursor, limit } = {}, total) {
  if (limit > MOST_ITEMS) throw new Refusal("INVALID_ARGUMENT", `limit is ${limit}; ask for at most ${MOST_ITEMS}`);
  const start = Number(cursor || 0);
  if (!Number.isInteger(start)) throw new Refusal("INVALID_ARGUMENT", `cursor ${cursor} is none of this server's`);
  const end = Math.min(start + Math.min(limit || MOST_ROWS, MOST_ROWS), total);
  return [start, end, end < total ? String(end) : ""];
}

function getModel(request) {
  check(request);
  const hook = { name: model.HOOK, side: "SIDE_USER", dim: model.DIM, steerable: true, all_positions: true };
  return {
    model: {
      name: model.NAME,
      version: model.VERSION,
      family: "item means",
      hooks: [{ ...hook, rows: "ROW_KIND_SUBJECT" }],
      max_history: model.MAX_HISTORY,
      item_count: model.ITEMS.length,
      head: "HEAD_KIND_DOT_PRODUCT",
      max_export_rows: MOST_ROWS,
    },
    available_models: [model.NAME],
  };
}

function embed(request) {
  check(request);
  if (request.candidate_item_ids.length) refuseCandidates();
  if (!request.history) throw new Refusal("INVALID_ARGUMENT", "no history came; this server keeps none, send one");
  return { batch: batch(rowsOf(request.history, 0, false, { user_id: request.user_id })), history: request.history };
}

function exportActivations(request) {
  check(request);
  if (request.candidate_item_ids.length) refuseCandidates();
  if (request.source === "items") {
    const [start, end, cursor] = span(request.items, model.ITEMS.length);
    const rows = model.ITEMS.slice(start, end).flatMap(({ id }, index) =>
      rowsOf({ item_ids: [id] }, index, false, { item_id: id }),
    );
    return { batch: batch(rows), next_cursor: cursor };
  }
  if (request.source === "users") {
    throw new Refusal("FAILED_PRECONDITION", "this server keeps no histories of users; send histories");
  }
  const subjects = request.subjects?.subjects ?? request.histories?.histories.map((history) => ({ history })) ?? [];
  if (subjects.length > MOST_HISTORIES) {
    throw new Refusal("INVALID_ARGUMENT", `${subjects.length} histories came; send at most ${MOST_HISTORIES}`);
  }
  const every = request.positions === "POSITIONS_ALL";
  const rows = subjects.flatMap(({ history, user_id }, index) => rowsOf(history, index, every, { user_id }));
  if (rows.length > MOST_ROWS) {
    throw new Refusal("INVALID_ARGUMENT", `${rows.length} rows would come back, the most is ${MOST_ROWS}; send fewer`);
  }
  return { batch: batch(rows) };
}

function exportItems(request) {
  check(request);
  const [start, end, cursor] = span(request.page ?? {}, model.ITEMS.length);
  const items = model.ITEMS.slice(start, end);
  return {
    item_ids: items.map((item) => item.id),
    titles: items.map((item) => item.title),
    vectors: toTensor(items.map((_, place) => model.vectorOf(start + place)), model.DIM),
    model_version: model.VERSION,
    next_cursor: cursor,
  };
}

function refuseCandidates() {
  throw new Refusal("INVALID_ARGUMENT", `hook ${model.HOOK} has one row per subject; leave the candidates out`);
}

export const exporter = {
  GetModel: method(getModel),
  Embed: method(embed),
  ExportActivations: method(exportActivations),
  ExportItems: method(exportItems),
};
