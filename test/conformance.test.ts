/** Every field that a route of the server takes acts: with another value something else comes of the request. */
import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { join } from "node:path";
import * as anthropic from "./conformance/anthropic";
import { fieldsOf } from "./conformance/fields";
import * as ollama from "./conformance/ollama";
import * as openai from "./conformance/openai";
import * as own from "./conformance/own";
import { responses } from "./conformance/responses";
import type { Body, Route } from "./conformance/table";
import { testServer } from "./serve";
import { testNames } from "./test-names";
import { thinkingTokenizer } from "./thinking-tokenizer";
import { tinyModel } from "./tiny-model";

const server = testServer({
  open: async () => ({
    model: await tinyModel({ vocab_size: 400 }),
    tokenizer: await thinkingTokenizer(),
    ...{ config: { model_type: "llama" }, folder: "/nowhere", contextLength: 2048 },
  }),
  settings: { promptCacheSize: 0 },
});
/** What the chat template is given. */
const templates: unknown[] = [];
beforeAll(async () => {
  const { served, release } = await server.context.models.lease();
  const write = served.tokenizer.applyChatTemplate.bind(served.tokenizer);
  spyOn(served.tokenizer, "applyChatTemplate").mockImplementation((...given) => {
    templates.push(given);
    return write(...given);
  });
  release();
});
afterAll(() => server.stop());

/** What comes of a request: the answer, but for names, times and what it only says again; the template's input; the log. */
async function comesOf(path: string, body: Body): Promise<{ status: number; what: string }> {
  for (const list of [templates, server.log]) list.splice(0);
  const response = await server.post(path, body);
  const text = await response.text();
  const answer = text.startsWith('{"id":"resp_') ? itemsIn(text) : text;
  const steady = answer
    .replaceAll(/"(id|item_id|created|created_at|total_duration|load_duration)":("[^"]*"|\d+)/g, "")
    .replaceAll(/"\w*eval_duration":\d+/g, "");
  const log = server.log.map((line) => line.replace(/^\S+ \S+/, ""));
  return { status: response.status, what: JSON.stringify([steady, templates, log]) };
}

function itemsIn(text: string): string {
  const { output, usage, incomplete_details } = JSON.parse(text);
  return JSON.stringify({ output, usage, incomplete_details });
}

const routes: Route[] = [
  ...[openai.chat, openai.completions, openai.embeddings, responses],
  ...[anthropic.messages, anthropic.counts],
  ...[ollama.chat, ollama.generate, ollama.embed, ollama.show],
  ...[own.tokenize, own.detokenize],
];

describe.each(routes.map((route) => [route.path, route] as const))("%s", (path, { schema, usual, fields }) => {
  test("no field is without a row, no row without a field", () => {
    expect(Object.keys(fields).sort()).toEqual(fieldsOf(schema).sort());
  });

  for (const [field, row] of Object.entries(fields)) {
    if ("change" in row) {
      test(field, async () => {
        const before = await comesOf(path, { ...usual, ...row.of });
        expect(before.status).toBe(200);
        // What changes by itself shows nothing.
        expect(await comesOf(path, { ...usual, ...row.of })).toEqual(before);
        const after = await comesOf(path, { ...usual, ...row.of, ...row.change });
        expect(after.status).toBe(row.status ?? 200);
        expect(after.what).not.toBe(before.what);
      });
    } else if ("shown" in row) {
      test(`${field}: shown elsewhere`, async () => {
        const [file, name] = row.shown;
        expect(await testNames(join(import.meta.dir, "../src/serve", file))).toContain(name);
      });
    }
  }
});
