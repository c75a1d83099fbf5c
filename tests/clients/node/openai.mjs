// OpenAI's client: node openai.mjs BASE_URL EMBEDDING_BASE_URL

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { WEATHER, report, weather } from "./scenarios.mjs";

const [, , url, embeddingUrl] = process.argv;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 });
const embedder = new OpenAI({ baseURL: `${embeddingUrl}/v1`, apiKey: "-", maxRetries: 0 });

const model = "fake";
const messages = [{ role: "user", content: "hi" }];
const tool = { type: "function", function: { name: "weather", parameters: WEATHER } };
const flatTool = { type: "function", name: "weather", parameters: WEATHER, strict: true };
const Forecast = z.object({ city: z.string(), degrees: z.number().int() });

async function gathered(stream, pick) {
  let text = "";
  for await (const event of stream) text += pick(event) ?? "";
  return text;
}

await report({
  async chat() {
    const answer = await client.chat.completions.create({ model, messages });
    return { text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason };
  },

  async chat_stream() {
    const options = { model, messages, stream: true, stream_options: { include_usage: true } };
    let usage = null;
    const text = await gathered(await client.chat.completions.create(options), (chunk) => {
      usage = chunk.usage ?? usage;
      return chunk.choices[0]?.delta.content;
    });
    return { text, tokens: usage.completion_tokens };
  },

  async chat_stream_helper() {
    const stream = client.chat.completions.stream({ model, messages });
    const text = await gathered(stream, (chunk) => chunk.choices[0]?.delta.content);
    return { text, final: await stream.finalContent() };
  },

  async chat_tool_loop() {
    const said = [...messages];
    const first = await client.chat.completions.create({ model, messages: said, tools: [tool] });
    const { message, finish_reason: finish } = first.choices[0];
    const [call] = message.tool_calls;
    const content = weather(JSON.parse(call.function.arguments));
    said.push(message, { role: "tool", tool_call_id: call.id, content });
    const last = await client.chat.completions.create({ model, messages: said, tools: [tool] });
    return { finish, name: call.function.name, text: last.choices[0].message.content };
  },

  async chat_run_tools() {
    const asked = [];
    const called = {
      ...tool.function,
      parse: JSON.parse,
      function: (given) => (asked.push(given), weather(given)),
    };
    const outcome = {};
    for (const stream of [false, true]) {
      const tools = [{ type: "function", function: called }];
      const runner = client.chat.completions.runTools({ model, messages, tools, stream });
      outcome[stream ? "streamed" : "whole"] = await runner.finalContent();
    }
    return { ...outcome, asked };
  },

  async chat_structured() {
    const answer = await client.chat.completions.parse({
      model,
      messages,
      response_format: zodResponseFormat(Forecast, "forecast"),
    });
    return answer.choices[0].message.parsed;
  },

  async completions() {
    const whole = await client.completions.create({ model, prompt: "hi" });
    const stream = await client.completions.create({ model, prompt: "hi", stream: true });
    const text = await gathered(stream, (chunk) => chunk.choices[0]?.text);
    return { whole: whole.choices[0].text, text };
  },

  async responses() {
    const first = await client.responses.create({ model, input: "hi" });
    const input = "and then?";
    const next = await client.responses.create({ model, input, previous_response_id: first.id });
    const kept = await client.responses.retrieve(first.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(next.id)) items.push(item.type);
    return { text: first.output_text, next: next.output_text, kept: kept.output_text, items };
  },

  async responses_stream() {
    const stream = client.responses.stream({ model, input: "hi" });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    const final = await stream.finalResponse();
    return { text: final.output_text, first: kinds[0], last: kinds.at(-1) };
  },

  async responses_tool_loop() {
    const input = [{ role: "user", content: "weather?" }];
    const first = await client.responses.create({ model, input, tools: [flatTool] });
    const call = first.output.find((item) => item.type === "function_call");
    const output = weather(JSON.parse(call.arguments));
    input.push(...first.output);
    input.push({ type: "function_call_output", call_id: call.call_id, output });
    const last = await client.responses.create({ model, input, tools: [flatTool] });
    return { name: call.name, text: last.output_text };
  },

  async responses_structured() {
    const format = zodTextFormat(Forecast, "forecast");
    const answer = await client.responses.parse({ model, input: "hi", text: { format } });
    return answer.output_parsed;
  },

  async responses_input_tokens() {
    const counted = await client.responses.inputTokens.count({ model, input: "hi" });
    return { object: counted.object, positive: counted.input_tokens > 0 };
  },

  async models() {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    return { names, one: (await client.models.retrieve("alias")).id };
  },

  async errors() {
    try {
      await client.chat.completions.create({ model: "other", messages });
    } catch (error) {
      const { status, code, param } = error;
      return { kind: error.constructor.name, status, code, param };
    }
    return null;
  },

  // The client asks for base64 unless it is told otherwise.
  async embeddings() {
    const input = ["hi", "there"];
    const packed = await embedder.embeddings.create({ model, input });
    const plain = await embedder.embeddings.create({ model, input, encoding_format: "float" });
    const rounded = (answer) =>
      answer.data.map(({ embedding }) => Array.from(embedding, (x) => x.toFixed(6)));
    return { packed: rounded(packed), plain: rounded(plain) };
  },
});
