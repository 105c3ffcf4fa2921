// Clients in node; what each saw goes to standard output as JSON. usage: node BUNDLE BASE_URL GRPC_ADDRESS DESCRIPTORS PROTO_FOLDER
import { compressionGzip, createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { connectClient, registryOf, seen } from "./grpc_calls.mjs";

const [base, address, descriptors, protos] = process.argv.slice(2);
const registry = registryOf(descriptors);
const zipped = { sendCompression: compressionGzip, compressMinBytes: 0 };
const transports = {
  "connect-node grpc": createGrpcTransport({ baseUrl: `http://${address}` }),
  "connect-node grpc-web h1": createGrpcWebTransport({ baseUrl: base, httpVersion: "1.1" }),
  "connect-node grpc-web h2": createGrpcWebTransport({ baseUrl: base, httpVersion: "2" }),
  "connect-node connect h1": createConnectTransport({ baseUrl: base, httpVersion: "1.1" }),
  "connect-node connect h2": createConnectTransport({ baseUrl: base, httpVersion: "2" }),
  "connect-node grpc gzip": createGrpcTransport({ baseUrl: `http://${address}`, ...zipped }),
  "connect-node grpc-web gzip": createGrpcWebTransport({ baseUrl: base, httpVersion: "1.1", ...zipped }),
  "connect-node connect gzip": createConnectTransport({ baseUrl: base, httpVersion: "1.1", useHttpGet: true, ...zipped }),
  "connect-node connect gzip binary": createConnectTransport({ baseUrl: base, httpVersion: "2", useHttpGet: true, useBinaryFormat: true, ...zipped }),
};
const told = {};
for (const [name, transport] of Object.entries(transports)) told[name] = await seen(connectClient(registry, transport));

// grpc-js, with a conversation that it aborts.
const made = grpc.loadPackageDefinition(loader.loadSync("headrace/v1/headrace.proto", { includeDirs: [protos] }));
const client = new made.headrace.v1.InferenceService(address, grpc.credentials.createInsecure());
told["grpc-js"] = await new Promise((resolve) => {
  const call = client.converse();
  const kinds = [];
  call.on("data", (event) => {
    kinds.push(event.payload ?? Object.keys(event).find((key) => ["token", "progress", "error", "finish"].includes(key) && event[key]));
    if (event.token && !call.writableEnded) { call.write({ abort: {} }); call.end(); }
  });
  call.on("error", (error) => resolve({ kinds, code: error.code, codes: error.metadata.get("headrace-code") }));
  call.write({ infer: { prompt: "hang" } });
});
process.stdout.write(JSON.stringify(told), () => process.exit(0));
