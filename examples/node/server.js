// Serves the model: node server.js [--port 50061] [--interpreter HOST:PORT] [--deadline-ms 50]

import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { ActivationExporter, MESSAGE_BYTES, Recommender } from "./contract.js";
import { exporter } from "./exporter.js";
import { NAME, VERSION } from "./model.js";
import { recommender } from "./recommender.js";
import { steeringFrom } from "./steering.js";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "50061" },
    interpreter: { type: "string", default: "" },
    "deadline-ms": { type: "string", default: "50" },
  },
});

const server = new grpc.Server({
  "grpc.max_receive_message_length": MESSAGE_BYTES,
  "grpc.max_send_message_length": MESSAGE_BYTES,
  "grpc.so_reuseport": 0,
});
server.addService(ActivationExporter.service, exporter);
server.addService(Recommender.service, recommender(steeringFrom(values.interpreter, Number(values["deadline-ms"]))));

// Loopback alone: other machines need TLS and credentials.
server.bindAsync(`127.0.0.1:${values.port}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    console.error(`cannot listen on 127.0.0.1:${values.port}: ${error.message}`);
    process.exit(1);
  }
  console.log(`${NAME} ${VERSION} on 127.0.0.1:${port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => server.tryShutdown(() => process.exit(0)));
