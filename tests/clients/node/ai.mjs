// The AI SDK with each of its providers: node ai.mjs URL

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

import { WEATHER, report, weather } from "./scenarios.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const baseURL = `${process.argv[2]}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "-" });
const models = {
  responses: openai("fake"),
  chat: openai.chat("fake"),
  compatible: createOpenAICompatible({ name: "server", baseURL, includeUsage: true })("fake"),
  anthropic: createAnthropic({ baseURL, apiKey: "-" })("fake"),
};
const tools = {
  weather: tool({ inputSchema: jsonSchema(WEATHER), execute: async (input) => weather(input) }),
};
const FORECAST = jsonSchema({
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
});

function scenarios(model) {
  const asked = { model, prompt: "hi", maxRetries: 0 };
  const loop = { ...asked, tools, stopWhen: stepCountIs(3) };
  return {
    async text() {
      return (await generateText({ ...asked, system: "Be brief." })).text;
    },

    async stream() {
      let text = "";
      for await (const piece of streamText(asked).textStream) text += piece;
      return text;
    },

    async tool_loop() {
      const { steps, text } = await generateText(loop);
      return { steps: steps.length, text };
    },

    async streamed_tool_loop() {
      const answer = streamText(loop);
      const text = await answer.text;
      return { steps: (await answer.steps).length, text };
    },

    async next_turn() {
      const { messages } = (await generateText(asked)).response;
      const user = { role: "user", content: "and?" };
      const said = [{ role: "user", content: "hi" }, ...messages, user];
      return (await generateText({ model, messages: said, maxRetries: 0 })).text;
    },

    async structured() {
      return (await generateText({ ...asked, output: Output.object({ schema: FORECAST }) })).output;
    },
  };
}

const all = Object.entries(models).map(([provider, model]) =>
  Object.entries(scenarios(model)).map(([name, scenario]) => [`${provider} ${name}`, scenario]),
);
await report(Object.fromEntries(all.flat()));
