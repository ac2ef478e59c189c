/**
 * Grammars put together by chance, with rules that refer to one another and to themselves, schemas with references in circles,
 * regular expressions; and walks along those that compile. `bun test/fuzz/grammars.ts [COUNT] [SEED]`
 */
import * as mx from "../../src/mlx";
import { type GrammarLanguage, type Matcher, maskOf, Vocabulary } from "../../src/mlx/grammar";
import { type Dice, dice, pick } from "./dice";
import { fuzzMain } from "./supervise";

const rules = ["root", "a", "b", "c", "d"];
const repetitions = ["*", "+", "?", "{0}", "{1}", "{2}", "{1,3}", "{0,2}", "{3,}", "{0,}", "{0,200}", "{150,}"];

function expression(roll: Dice, depth: number): string {
  const inner = () => expression(roll, depth - 1);
  switch (depth > 0 ? roll(12) : 0) {
    case 0:
    case 1:
    case 2:
    case 3:
      return pick(roll, [
        ...rules,
        roll(60) ? "[0-9]" : "nothing",
        '"x"',
        '"yz"',
        '""',
        "[a-c]",
        "[^a]",
        '"é"',
        "[\\u4e00-\\u9fff]",
      ]);
    case 4:
    case 5:
      return `(${inner()})${pick(roll, repetitions)}`;
    case 6:
    case 7:
      return `${pick(roll, rules)}${pick(roll, repetitions)}`;
    case 8:
    case 9:
      return `${inner()} ${inner()}`;
    case 10:
      return `(=${inner()})`;
    default:
      return `(${inner()} | ${inner()})`;
  }
}

const ebnf = (roll: Dice) => rules.map((rule) => `${rule} ::= ${expression(roll, 1 + roll(3))}`).join("\n");

function regularExpression(roll: Dice, depth: number): string {
  const inner = () => regularExpression(roll, depth - 1);
  switch (depth > 0 ? roll(6) : 0) {
    case 0:
    case 1:
      return pick(roll, ["a", "[a-z]", ".", "\\d", "\\w", "é", "^", "$", "\\b", "[^]"]);
    case 2:
    case 3:
      return `(${inner()})${pick(roll, [...repetitions, "*?"])}`;
    case 4:
      return inner() + inner();
    default:
      return `(${inner()}|${inner()}|)`;
  }
}

function schema(roll: Dice, depth: number): unknown {
  const inner = () => schema(roll, depth - 1);
  switch (depth > 0 ? roll(8) : 0) {
    case 0:
    case 1:
      return pick<unknown>(roll, [
        ...[true, false, {}, { $ref: "#" }, { $ref: "#/$defs/a" }, { $ref: "#/$defs/b" }],
        ...[{ type: "string" }, { type: "integer" }, { enum: [1, "a", null] }, { const: { a: [] } }],
        { type: "string", pattern: regularExpression(roll, 2) },
        { type: "string", minLength: 2, maxLength: pick(roll, [1, 3, 300]) },
        { type: "integer", minimum: -3, maximum: pick(roll, [-4, 7, 1_000_000_007]) },
      ]);
    case 2:
    case 3:
      return {
        type: "object",
        properties: { a: inner(), b: inner() },
        required: pick(roll, [[], ["a"], ["a", "b"], ["c"]]),
        additionalProperties: pick<unknown>(roll, [true, false, inner()]),
      };
    case 4:
      return { type: "array", items: inner(), minItems: roll(4), prefixItems: roll(2) ? [inner()] : [] };
    case 5:
      return { anyOf: [inner(), inner()] };
    case 6:
      return { allOf: [inner()] };
    default:
      return { oneOf: [inner(), inner()] };
  }
}

function jsonSchema(roll: Dice): string {
  const $defs = { a: schema(roll, 2), b: schema(roll, 2) };
  return JSON.stringify({ ...(schema(roll, 3) as object), $defs });
}

function grammar(roll: Dice): [GrammarLanguage, string] {
  switch (roll(5)) {
    case 0:
      return ["json_schema", jsonSchema(roll)];
    case 1:
      return ["regex", regularExpression(roll, 4)];
    default:
      return ["ebnf", ebnf(roll)];
  }
}

/** All bytes, and a token that ends a text. */
const tokens = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), new Uint8Array()];
const vocabulary = new Vocabulary(tokens, [256]);

function walk(roll: Dice, matcher: Matcher): void {
  let taken = 0;
  for (let step = 0; step < 12; step++) {
    const forced = matcher.forced();
    mx.scope(() => maskOf([{ matcher }], tokens.length));
    const next = [forced[0] ?? roll(257), ...Buffer.from('xabyz"{}[],:1')];
    if (!next.some((token) => matcher.state !== "ended" && matcher.accept(token))) break;
    taken += 1;
  }
  matcher.rollback(taken);
}

/** @throws whatever is no refusal of xgrammar's to compile the grammar */
export async function fuzzGrammar(seed: number): Promise<"sound" | "refused"> {
  const roll = dice(seed);
  const [language, text] = grammar(roll);
  const compiled = await vocabulary.compile(language, text, { timeout: 5000 }).catch((error) => {
    if (error instanceof mx.MlxError) return null;
    throw error;
  });
  if (!compiled) return "refused";
  const matcher = compiled.matcher();
  compiled.dispose();
  walk(roll, matcher);
  matcher.dispose();
  return "sound";
}

if (import.meta.main) await fuzzMain(import.meta.path, fuzzGrammar);
