// One conversation of the official OpenAI SDK with a server; what it saw goes to standard output as JSON.
// usage: node openai.mjs FOLDER_OF_THE_SDK BASE_URL CONVERSATION
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL, conversation] = process.argv.slice(2);
const OpenAI = (await import(pathToFileURL(createRequire(`${folder}/x.js`).resolve("openai")))).default;
const client = new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0, timeout: 30_000 });
const asking = (content) => ({ model: "m", messages: [{ role: "user", content }] });

const conversations = {
  async stream() {
    const { data, response, request_id } = await client.chat.completions
      .create({ ...asking("count"), stream: true, stream_options: { include_usage: true } })
      .withResponse();
    const chunks = [];
    for await (const chunk of data) chunks.push(chunk);
    return { chunks, request_id, generation: response.headers.get("x-generation-id") };
  },

  async resume() {
    const headers = { "X-On-Disconnect": "continue" };
    const { data, response } = await client.chat.completions
      .create({ ...asking("count"), stream: true }, { headers })
      .withResponse();
    let text = "";
    let chunks = 0;
    for await (const chunk of data) {
      text += chunk.choices[0].delta.content ?? "";
      if (++chunks === 4) break; // the one that opens the answer, and three tokens
    }
    const generation = response.headers.get("x-generation-id");
    const rest = await client.get(`/generations/${generation}/events`, {
      query: { format: "openai" }, headers: { "Last-Event-ID": "4" }, stream: true,
    }); // event 1 said that it waits, 2 to 4 were the tokens
    for await (const chunk of rest) text += chunk.choices[0]?.delta.content ?? "";
    return { text };
  },

  async abort() {
    const { data, response } = await client.chat.completions
      .create({ ...asking("hang"), stream: true })
      .withResponse();
    let chunks = 0;
    for await (const _ of data) if (++chunks === 3) data.controller.abort();
    return { chunks, generation: response.headers.get("x-generation-id") };
  },

  async abort_of_a_whole_answer() {
    const controller = new AbortController();
    const headers = { "X-Abort-Token": "mine" };
    const answer = client.chat.completions.create(asking("hang"), { signal: controller.signal, headers });
    setTimeout(() => controller.abort(), 300);
    return { error: await name_of(answer) };
  },

  async errors() {
    const wrong = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
    return {
      no_model: await name_of(client.chat.completions.create({ ...asking("x"), model: "other" })),
      no_message: await name_of(client.chat.completions.create({ model: "m", messages: [] })),
      lacking: await name_of(client.chat.completions.create({ ...asking("x"), verbosity: "high" })),
      wrong_key: await name_of(wrong.models.list()),
      overloaded: await name_of(client.chat.completions.create(asking("overload"))),
      broken_stream: await name_of(consumed(asking("collapse"))),
    };
  },

  async responses() {
    const made = await client.responses.create({ model: "m", input: "count", metadata: { a: "b" } });
    const read = await client.responses.retrieve(made.id);
    const followed = await client.responses.create({ model: "m", input: "sunny", previous_response_id: made.id });
    const items = [];
    for await (const item of client.responses.inputItems.list(followed.id)) items.push(item.content[0].text);
    await client.responses.delete(made.id);
    return {
      text: made.output_text, same: JSON.stringify(read.output) === JSON.stringify(made.output),
      metadata: read.metadata, followed: followed.output_text, items,
      deleted: await name_of(client.responses.retrieve(made.id)),
    };
  },

  async the_rest() {
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    const completion = await client.completions.create({ model: "m", prompt: ["sunny", "sunny"] });
    let streamed = "";
    const stream = await client.completions.create({ model: "m", prompt: "sunny", stream: true });
    for await (const chunk of stream) streamed += chunk.choices[0]?.text ?? "";
    const unstored = await client.responses.create({ model: "m", input: "sunny", store: false });
    return {
      models, model: (await client.models.retrieve("m")).id, streamed,
      texts: completion.choices.map((choice) => choice.text),
      unstored: [unstored.output_text, await name_of(client.responses.retrieve(unstored.id))],
      compacted: await name_of(client.responses.compact({ model: "m", input: "sunny" })),
      effort: await name_of(client.responses.create({ model: "m", input: "x", reasoning: { effort: "low" } })),
    };
  },

  async background() {
    const stream = await client.responses.create({ model: "m", input: "slowly", background: true, stream: true });
    const seen = [];
    for await (const event of stream) if (seen.push(event) === 12) break;
    const { id } = seen[0].response;
    const rest = await client.responses.retrieve(id, { stream: true, starting_after: 11 });
    for await (const event of rest) seen.push(event);
    const hanging = await client.responses.create({ model: "m", input: "hang", background: true });
    return {
      numbers: seen.map((event) => event.sequence_number), last: seen.at(-1).type,
      text: seen.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""),
      cancelled: (await client.responses.cancel(hanging.id)).status,
    };
  },

  async response_tools() {
    const tools = [{ type: "function", name: "weather", parameters: { type: "object", properties: {} }, strict: null }];
    const stream = client.responses.stream({ model: "m", input: "weather?", tools });
    const first = await stream.finalResponse();
    const [call] = first.output;
    const output = [{ type: "function_call_output", call_id: call.call_id, output: "sunny" }];
    const input = [{ role: "user", content: "weather?" }, ...first.output, ...output];
    const asked = [
      await client.responses.create({ model: "m", input, tools }),
      await client.responses.create({ model: "m", input: output, tools, previous_response_id: first.id }),
    ];
    return { name: call.name, arguments: call.arguments, answers: asked.map((one) => one.output_text) };
  },

  async tools() {
    const called = [];
    const weather = async ({ city }) => { called.push(city); return "sunny"; };
    const runner = client.chat.completions.runTools({
      ...asking("weather?"),
      stream: true,
      tools: [{
        type: "function",
        function: {
          name: "weather", parse: JSON.parse, function: weather,
          parameters: { type: "object", properties: { city: { type: "string" } } },
        },
      }],
    });
    const content = await runner.finalContent();
    return { called, content, roles: runner.messages.map((message) => message.role) };
  },
};

async function consumed(request) {
  for await (const _ of await client.chat.completions.create({ ...request, stream: true }));
}

async function name_of(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    const { status = null, code = null, param = null, message } = error;
    return { name: error.constructor.name, status, code, param, message };
  }
}

console.log(JSON.stringify(await conversations[conversation]()));
process.exit(0);
