// Anthropic's client: node anthropic.mjs URL

import Anthropic from "@anthropic-ai/sdk";

import { WEATHER, report, weather } from "./scenarios.mjs";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "-", maxRetries: 0 });

const model = "fake";
const asked = { model, max_tokens: 100, messages: [{ role: "user", content: "hi" }] };
const tool = { name: "weather", description: "the weather", input_schema: WEATHER };

await report({
  async messages() {
    const answer = await client.messages.create(asked);
    return { text: answer.content[0].text, stop: answer.stop_reason };
  },

  async stream() {
    let text = "";
    const stream = client.messages.stream(asked).on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    return { text, final: final.content[0].text, tokens: final.usage.output_tokens > 0 };
  },

  async tool_loop() {
    const messages = [...asked.messages];
    const first = await client.messages.create({ ...asked, messages, tools: [tool] });
    const call = first.content.find((block) => block.type === "tool_use");
    const content = weather(call.input);
    messages.push({ role: "assistant", content: first.content });
    messages.push({
      role: "user",
      content: [{ type: "tool_result", tool_use_id: call.id, content }],
    });
    const last = await client.messages.create({ ...asked, messages, tools: [tool] });
    return { stop: first.stop_reason, input: call.input, text: last.content[0].text };
  },

  async streamed_tool_use() {
    const final = await client.messages.stream({ ...asked, tools: [tool] }).finalMessage();
    const call = final.content.find((block) => block.type === "tool_use");
    return { stop: final.stop_reason, input: call.input };
  },

  async structured() {
    const schema = {
      type: "object",
      properties: { city: { type: "string" }, degrees: { type: "integer" } },
      required: ["city", "degrees"],
      additionalProperties: false,
    };
    const output_config = { format: { type: "json_schema", schema } };
    const answer = await client.messages.create({ ...asked, output_config });
    return JSON.parse(answer.content[0].text);
  },

  async count_tokens() {
    const { input_tokens: count } = await client.messages.countTokens({
      model,
      messages: asked.messages,
    });
    return { positive: count > 0 };
  },

  async errors() {
    try {
      await client.messages.create({ ...asked, model: "other" });
    } catch (error) {
      return { kind: error.constructor.name, status: error.status };
    }
    return null;
  },
});
