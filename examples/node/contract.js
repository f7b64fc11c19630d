// The contract as this process needs it: the services of protos/, tensors, and refusals that say why.

import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = process.env.RECSAE_PROTOS ?? fileURLToPath(new URL("../../protos", import.meta.url));

const definition = protoLoader.loadSync(["recsae/v1/recommender.proto", "recsae/v1/steering.proto"], {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});

export const { ActivationExporter, Recommender, Steering } = grpc.loadPackageDefinition(definition).recsae.v1;
export const MESSAGE_BYTES = 64 << 20;

// Thrown where a request cannot be answered; reaches the caller as a gRPC status with the sentence.
export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = grpc.status[status];
  }
}

// A gRPC method from a function of the request, which may be asynchronous and may throw a Refusal.
export function method(answer) {
  return async (call, callback) => {
    try {
      callback(null, await answer(call.request, call));
    } catch (error) {
      if (!(error instanceof Refusal)) console.error(error);
      const details = error instanceof Refusal ? error.message : "internal error; the server's log has it";
      callback({ code: error.status ?? grpc.status.INTERNAL, details });
    }
  };
}

// float32 [n, d] of rows (Float32Arrays), or [n] of one array: little-endian whatever the machine.
export function toTensor(rows, dim) {
  const values = dim === undefined ? rows : rows.flatMap((row) => Array.from(row));
  const data = Buffer.alloc(4 * values.length);
  values.forEach((value, place) => data.writeFloatLE(value, 4 * place));
  const shape = dim === undefined ? [values.length] : [rows.length, dim];
  return { element_type: "ELEMENT_TYPE_FLOAT32", shape, data };
}

// Rows of a float32 [n, dim]; INVALID_ARGUMENT for anything else.
export function fromTensor(tensor, dim) {
  const [rows, width] = tensor?.shape ?? [];
  if (tensor?.element_type !== "ELEMENT_TYPE_FLOAT32" || tensor.shape.length !== 2 || width !== dim) {
    throw new Refusal("INVALID_ARGUMENT", `activations have shape [${tensor?.shape}]; send float32 [n, ${dim}]`);
  }
  if (tensor.data.length !== 4 * rows * dim) {
    throw new Refusal("INVALID_ARGUMENT", `${tensor.data.length} bytes came for shape [${tensor.shape}]`);
  }
  const found = Array.from({ length: rows }, (_, row) =>
    Float32Array.from({ length: dim }, (_, axis) => tensor.data.readFloatLE(4 * (row * dim + axis))),
  );
  if (!found.every((row) => row.every(Number.isFinite))) {
    throw new Refusal("INVALID_ARGUMENT", "activations hold NaN or infinite values; send finite numbers");
  }
  return found;
}
