// What the tests of gRPC ask of every client alike; each client comes as a few functions.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { base64Decode } from "@bufbuild/protobuf/wire";

export const registryOf = (base64) => createFileRegistry(fromBinary(FileDescriptorSetSchema, base64Decode(base64)));
const service = (registry) => registry.getService("headrace.v1.InferenceService");
const message = (registry, name) => registry.getMessage(`headrace.v1.${name}`);

// A transport of Connect's own library: gRPC-Web, gRPC or Connect, in a browser or in node.
export function connectClient(registry, transport) {
  const client = createClient(service(registry), transport);
  return {
    infer: (asked, options) => client.infer(asked, options),
    stream: (asked, options) => client.streamInfer(asked, options),
    converse: (messages) => client.converse(messages),
    model: async () => (await client.getModelInfo({})).name, // by GET, where the transport does
    failure: (error) => {
      const found = ConnectError.from(error);
      const details = found.findDetails(message(registry, "Error"));
      return { code: found.code, message: found.rawMessage, detail: details[0]?.code ?? null };
    },
  };
}

// Google's library, whose messages and methods are made by hand here instead of by its generator.
export function googleClient(registry, library, base, format) {
  const google = library.GrpcWebClientBase ? library : library.default;
  const client = new google.GrpcWebClientBase({ format });
  const method = (name, kind, input, output) => new google.MethodDescriptor(
    `/headrace.v1.InferenceService/${name}`, kind, Object, Object,
    (asked) => toBinary(message(registry, input), create(message(registry, input), asked)),
    (bytes) => fromBinary(message(registry, output), bytes),
  );
  const metadata = (options) => ({
    ...options?.headers, ...(options?.timeoutMs ? { deadline: String(Date.now() + options.timeoutMs) } : {}),
  });
  return {
    infer: (asked, options) => new Promise((resolve, reject) => client.rpcCall(
      `${base}/headrace.v1.InferenceService/Infer`, asked, metadata(options), method("Infer", "unary", "InferRequest", "InferResponse"),
      (error, answer) => (error ? reject(error) : resolve(answer)),
    )),
    async *stream(asked, options) {
      const call = client.serverStreaming(
        `${base}/headrace.v1.InferenceService/StreamInfer`, asked, metadata(options),
        method("StreamInfer", "server_streaming", "StreamInferRequest", "Event"),
      );
      const come = [];
      let wake = () => {};
      const put = (item) => { come.push(item); wake(); };
      call.on("data", (event) => put({ event }));
      call.on("error", (error) => put({ error }));
      call.on("end", () => put({}));
      options?.signal?.addEventListener("abort", () => { call.cancel(); put({}); });
      try {
        for (;;) {
          while (!come.length) await new Promise((resolve) => { wake = resolve; });
          const { event, error } = come.shift();
          if (error) throw error;
          if (!event) return;
          yield event;
        }
      } finally { call.cancel(); }
    },
    failure: (error) => ({ code: error.code, message: error.message, detail: error.metadata?.["headrace-code"] ?? null }),
  };
}

const infer = (prompt) => ({ start: { case: "infer", value: { prompt } } });
const resume = (generationId, after) => ({ start: { case: "resume", value: { generationId, after } } });

// One client through everything; what it saw, as plain values.
export async function seen(client, { streams = true } = {}) {
  const failed = async (work) => { try { await work(); } catch (error) { return client.failure(error); } return null; };
  const told = {};
  told.text = (await client.infer({ prompt: "sunny" })).text;
  told.unknown = await failed(() => client.infer({ prompt: "Hi", model: "none" }));
  if (client.model) told.model = await client.model();
  told.deadline = await failed(() => client.infer({ prompt: "hang" }, { timeoutMs: 300 }));
  if (!streams) return told;
  let events = [];
  for await (const event of client.stream(infer("count"))) events.push(event);
  told.seqs = events.map((event) => event.seq);
  told.words = events.filter((event) => event.payload.case === "token").map((event) => event.payload.value.text);
  told.last = events.at(-1).payload.case;
  const cut = events.findIndex((event) => event.payload.case === "token") + 10;
  const again = [];
  for await (const event of client.stream(resume(events[0].generationId, events[cut].seq))) again.push(event.seq);
  told.resumed = again.length === events.length - cut - 1 && again.every((seq, at) => seq === events[cut + 1 + at].seq);
  events = [];
  told.broken = await failed(async () => { for await (const event of client.stream(infer("collapse"))) events.push(event); });
  told.brokenEnds = events.at(-1).payload.case;
  const leaving = new AbortController();
  try {
    for await (const event of client.stream(infer("hang"), { signal: leaving.signal })) {
      told.left = event.generationId;
      if (event.payload.case === "token") leaving.abort();
    }
  } catch (error) { if (!leaving.signal.aborted) throw error; }
  return told;
}

export { Code };
