// The model: a user is the mean of the vectors of what they consumed, an item scores by its dot product with it.
//
// It stands for whatever model a service has. RecSAE needs three things of it: the activation of a history, the
// activation at every position, and a ranking that goes on from an activation, changed or not.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const SOURCES = ["items.json", "model.js"].map((name) => readFileSync(new URL(name, import.meta.url)));

export const NAME = "film-means";
export const HOOK = "mean";
export const MAX_HISTORY = 50;

// What activations depend on makes the version: another file, another version, and nothing learnt is mixed up.
export const VERSION = createHash("sha256").update(SOURCES[0]).update(SOURCES[1]).digest("hex").slice(0, 16);

export const ITEMS = JSON.parse(SOURCES[0]);
export const DIM = ITEMS[0].vector.length;
const VECTORS = ITEMS.map((item) => Float32Array.from(item.vector));
const PLACES = new Map(ITEMS.map((item, place) => [item.id, place]));

export const vectorOf = (place) => VECTORS[place];
export const placeOf = (id) => PLACES.get(id);

// Places of the newest items that the model knows, oldest first; unknown ids are left out.
export function known(itemIds) {
  return itemIds.map(placeOf).filter((place) => place !== undefined);
}

// One Float32Array per position: row t is the mean of the first t items, as if the history had ended there.
export function activations(places) {
  const sum = new Float64Array(DIM);
  return places.slice(-MAX_HISTORY).map((place, index) => {
    VECTORS[place].forEach((value, axis) => (sum[axis] += value));
    return Float32Array.from(sum, (value) => value / (index + 1));
  });
}

// The best k of the candidates (places; default all) that are not excluded, best first.
export function rank(activation, k, excluded = new Set(), candidates = PLACES.values()) {
  const scored = [];
  for (const place of candidates) {
    if (excluded.has(place)) continue;
    let score = 0;
    VECTORS[place].forEach((value, axis) => (score += value * activation[axis]));
    scored.push({ item_id: ITEMS[place].id, title: ITEMS[place].title, score });
  }
  return scored.sort((left, right) => right.score - left.score).slice(0, k);
}
