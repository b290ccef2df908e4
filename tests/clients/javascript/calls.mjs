// Calls of the npm clients: node calls.mjs URL CALL. The first wrong answer ends the process with 1.
// What the pods saw is checked by tests/clients/test_javascript.py.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { AzureOpenAI, toFile } from "openai";

const TEXT = "Hello there";
const MODELS = ["base", "sql", "chat", "team/law"];
const REPEATS = 20;
const HELLO = { role: "user", content: "Hello" };
const SCHEMA = { type: "object", properties: { city: { type: "string" } } };

const [url, name] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });

async function collect(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

const calls = {
  async chat(model) {
    const answer = await openai.chat.completions.create({ model, messages: [HELLO] });
    assert.equal(answer.choices[0].message.content, TEXT);
  },

  // A string that ends in the middle of an emoji. JSON.stringify escapes the half of it.
  async chat_with_half_an_emoji(model) {
    const messages = [{ role: "user", content: "cut \ud83d" }];
    const answer = await openai.chat.completions.create({ model, messages });
    assert.equal(answer.choices[0].message.content, TEXT);
  },

  async chat_stream(model) {
    const asked = { model, messages: [HELLO], stream: true };
    const chunks = await collect(await openai.chat.completions.create(asked));
    assert.equal(chunks.map((each) => each.choices[0]?.delta.content ?? "").join(""), TEXT);
  },

  async chat_tools(model) {
    const tools = [{ type: "function", function: { name: "weather", parameters: SCHEMA } }];
    const answer = await openai.chat.completions.create({ model, messages: [HELLO], tools });
    assert.equal(answer.choices[0].message.tool_calls[0].function.arguments, '{"city":"Paris"}');
  },

  async embeddings(model) {
    const answer = await openai.embeddings.create({ model, input: ["one", "two"] });
    assert.deepEqual(answer.data[1].embedding, [0.5, -0.5]);
  },

  async transcription(model) {
    const file = await toFile(Buffer.alloc(300_000, "RIFF\r\n--"), "sound.wav");
    const answer = await openai.audio.transcriptions.create({ model, file });
    assert.equal(answer.text, TEXT);
  },

  async azure(model) {
    if (model.includes("/")) return; // A deployment is one segment of the path.
    const azure = new AzureOpenAI({
      endpoint: url, apiKey: "none", apiVersion: "2024-10-21", maxRetries: 0,
    });
    const answer = await azure.chat.completions.create({ model, messages: [HELLO] });
    assert.equal(answer.choices[0].message.content, TEXT);
  },

  async models(model) {
    const listed = await collect(openai.models.list());
    assert.deepEqual(listed.map((each) => each.id), [...MODELS].sort());
    assert.equal((await openai.models.retrieve(model)).id, model);
  },

  async unknown_model() {
    const asked = { model: "nobody", messages: [HELLO] };
    await assert.rejects(openai.chat.completions.create(asked), { status: 404 });
  },

  async responses(model) {
    for (let n = 0; n < REPEATS; n++) {
      const first = await openai.responses.create({ model, input: "Hello" });
      const asked = { model, input: "And then?", previous_response_id: first.id };
      const second = await openai.responses.create(asked);
      const stream = await openai.responses.create({
        ...asked, previous_response_id: second.id, stream: true,
      });
      const begun = (await collect(stream))[0].response;
      assert.equal((await openai.responses.retrieve(begun.id)).output_text, TEXT);
    }
  },

  async files_and_batches() {
    for (let n = 0; n < REPEATS; n++) {
      const content = await toFile(Buffer.from("{}\n"), "lines.jsonl");
      const file = await openai.files.create({ file: content, purpose: "batch" });
      assert.equal((await openai.files.retrieve(file.id)).bytes, 3);
      const batch = await openai.batches.create({
        input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h",
      });
      assert.equal((await openai.batches.retrieve(batch.id)).id, batch.id);
    }
  },

  async messages(model) {
    const asked = { model, max_tokens: 16, messages: [HELLO] };
    assert.equal((await anthropic.messages.create(asked)).content[0].text, TEXT);
    assert.equal(await anthropic.messages.stream(asked).finalText(), TEXT);
    const tools = [{ name: "weather", input_schema: SCHEMA }];
    const called = await anthropic.messages.stream({ ...asked, tools }).finalMessage();
    assert.deepEqual(called.content[0].input, { city: "Paris" });
  },

  async count_tokens(model) {
    const counted = await anthropic.messages.countTokens({ model, messages: [HELLO] });
    assert.equal(counted.input_tokens, 3);
  },

  async models_of_anthropic(model) {
    const listed = await collect(anthropic.models.list({ limit: 1 }));
    assert.deepEqual(listed.map((each) => each.id), [...MODELS].sort());
    assert.equal((await anthropic.models.retrieve(model)).id, model);
  },
};

for (const model of MODELS) await calls[name](model);
