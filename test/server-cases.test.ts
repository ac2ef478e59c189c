/** The server's limits, case by case: each with the test that holds it. A test that is renamed or gone is missed here. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { testNames } from "./test-names";

const guard = "src/serve/guard.test.ts";
const limits = "src/serve/limits.test.ts";
const life = "src/serve/server.test.ts";
const chat = "src/serve/routes/openai/chat.test.ts";
const numbers = [limits, "numbers: %s %s outside of %d to %d, infinite, or no number"] as const;

const slowHeaders =
  "headers that stop, that drip, that never begin: the connection ends, and others are answered meanwhile";

const cases: [what: string, file: string, name: string][] = [
  // Bodies
  ["a body that says that it is beyond the limit: 413", guard, "a body beyond the limit, told or chunked"],
  ["a body in chunks that goes beyond the limit: 413", guard, "a body beyond the limit, told or chunked"],
  ["a body that stops: 408", guard, "a body that does not come to its end"],
  ["a body that drips: 408", guard, "a body that drips for as long as it is taken"],
  ["a body in chunks, slowly, is read", guard, "a body in chunks, slowly"],
  ["a Content-Length that is negative, no number, or there twice", guard, "%j"],
  ["no body", guard, "no body, and an unknown path"],
  ["headers that stop, drip, or never begin", guard, slowHeaders],
  ["JSON that is cut, or none", chat, "the body %j"],
  ["JSON that is no object", chat, "the body %j"],
  ["NaN in JSON", chat, "the body %j"],
  ["bytes that are no UTF-8", chat, "bytes that are no UTF-8, and JSON that is nested deep"],
  ["JSON that is nested deep", chat, "bytes that are no UTF-8, and JSON that is nested deep"],
  ["keys that every object has", limits, "are no fields: %s"],
  ["a field that is not supported is a 400 that names it", chat, "%s: %j"],
  // Numbers
  ["temperature below 0, above 100, a string, infinite", ...numbers],
  ["top_p and min_p", ...numbers],
  ["top_k", ...numbers],
  ["seed beyond 2⁵³", ...numbers],
  ["xtc_probability and xtc_threshold", ...numbers],
  ["penalties", ...numbers],
  ["how far penalties look back", ...numbers],
  ["logit_bias", ...numbers],
  ["n", ...numbers],
  ["max_tokens 0, on every route", ...numbers],
  ["top_logprobs", ...numbers],
  ["Ollama's options", ...numbers],
  ["dimensions of embeddings", ...numbers],
  // What a model cannot do
  ["64 stop texts are taken", limits, "64 stop texts are taken, and the last one ends the answer"],
  ["65 stop texts", chat, "%s: %j"],
  ["logit_bias of a token that there is not", chat, "%s: %j"],
  ["a prompt beyond the context: 400 before any work", chat, "a prompt beyond the context"],
  ["a chat template from a request", chat, "%s: %j"],
  ["a path from a request", guard, "%s reads no file"],
  // Who may ask
  ["a wrong key: 401", guard, "%j does not open"],
  ["keys are compared in constant time", guard, "all keys are compared, in full"],
  ["a foreign Host: rebinding", guard, "%j is not"],
  ["a foreign Origin", guard, "of other origins are refused, and no CORS is spoken"],
  ["no CORS unless it is asked for", guard, "of other origins are refused, and no CORS is spoken"],
  ["an address of the network without a key is refused at the start", guard, "%s needs a key, or a word"],
  // Its life
  ["200 clients that only listen", life, "200 clients that only listen keep no one from an answer"],
  ["a full queue: 429 with Retry-After", life, "a full queue answers 429 with Retry-After"],
  ["a client that leaves stops the model within a step", limits, "a client that leaves stops the model within a step"],
  ["one row that fails ends alone", life, "fails alone: the others in the batch go on"],
  ["SIGTERM drains", "test/server.test.ts", "answers, and ends clean on SIGTERM when running answers are done"],
];

test.each(cases)("%s", async (_, file, name) => {
  expect(await testNames(join(import.meta.dir, "..", file))).toContain(name);
});

test("there are 45", () => {
  expect(new Set(cases.map(([what]) => what)).size).toBe(45);
});
