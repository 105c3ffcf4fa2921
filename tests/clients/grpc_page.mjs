// The page of the browser test: `?base=URL`, and the descriptors in `window.DESCRIPTORS`. What it saw is posted to its server.
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import * as google from "grpc-web";
import { connectClient, googleClient, registryOf, seen } from "./grpc_calls.mjs";

const base = new URLSearchParams(location.search).get("base");
const registry = registryOf(window.DESCRIPTORS);
const clients = {
  "connect-web grpc-web": [connectClient(registry, createGrpcWebTransport({ baseUrl: base }))],
  "connect-web connect": [connectClient(registry, createConnectTransport({ baseUrl: base, useHttpGet: true }))],
  "connect-web connect binary": [connectClient(registry, createConnectTransport({ baseUrl: base, useBinaryFormat: true, useHttpGet: true }))],
  "grpc-web text": [googleClient(registry, google, base, "text")],
  "grpc-web binary": [googleClient(registry, google, base, "binary"), { streams: false }], // it cannot stream
};
for (const [name, [client, options]] of Object.entries(clients)) {
  let told;
  try { told = await seen(client, options); } catch (error) { told = { crash: String(error?.stack ?? error) }; }
  await fetch("/", { method: "POST", body: JSON.stringify({ name, told }) });
}
await fetch("/", { method: "POST", body: JSON.stringify({ name: "done" }) });
