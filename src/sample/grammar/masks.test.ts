/** Masks say of every token what the matcher says when it is given one: tokens reach over the ends of what a grammar counts. */
import { afterAll, expect, test } from "bun:test";
import * as mx from "../../mlx";
import { checkFormat, type TextFormat } from "./formats";

let state = 7;
const draw = (below: number) => {
  state = (state * 1664525 + 1013904223) >>> 0;
  return (state >>> 8) % below;
};
const letters = [...' abc"",:}{0123é'];
const word = () => Buffer.from(Array.from({ length: 2 + draw(9) }, () => letters[draw(letters.length)]).join(""));
const size = 900;
const tokens = Array.from({ length: size }, (_, id) =>
  id < 256 ? Uint8Array.of(id) : id === size - 1 ? new Uint8Array() : word(),
);
const vocabulary = new mx.grammar.Vocabulary(tokens, [size - 1]);
afterAll(() => vocabulary.dispose());

const string = (more: object): TextFormat => ({ type: "json_schema", schema: { type: "string", ...more } });
const formats: Record<string, TextFormat> = {
  "a short string": string({ minLength: 3, maxLength: 9 }),
  "a long string": string({ maxLength: 500 }),
  "a string of a least length": string({ minLength: 300 }),
  "a string of one length": string({ minLength: 200, maxLength: 200 }),
  "a pattern with an optional part": string({ pattern: "^(a+b*)?(c[0-3]+)?$" }),
  "a long run": { type: "regex", pattern: "[a-c]{150,160}:[0-9]+" },
  "an object": {
    type: "json_schema",
    schema: { type: "object", properties: { a: { type: "string" }, b: { type: "integer" } } },
  },
  "a long array": { type: "json_schema", schema: { type: "array", items: { type: "boolean" }, minItems: 150 } },
};

for (const [name, format] of Object.entries(formats)) {
  test(name, async () => {
    const { language, text } = checkFormat(format);
    const grammar = await vocabulary.compile(language, text);
    for (let walk = 0; walk < 2; walk++) {
      const matcher = grammar.matcher();
      for (let step = 0; step < 40; step++) {
        const allowed = mx.scope(() => {
          const { bits } = mx.grammar.maskOf([{ matcher }], size);
          const logits = mx.grammar.maskLogits(mx.zeros([1, size]), bits).toArray() as Float32Array;
          return new Set([...logits.keys()].filter((token) => logits[token] === 0));
        });
        for (let token = draw(5); token < size; token += 1 + draw(9)) {
          const accepted = matcher.accept(token);
          if (accepted) matcher.rollback(1);
          expect([token, accepted]).toEqual([token, allowed.has(token)]);
        }
        const token = [...allowed][draw(allowed.size)]!;
        matcher.accept(token);
        if (token === size - 1) break;
      }
      matcher.dispose();
    }
    grammar.dispose();
  });
}
