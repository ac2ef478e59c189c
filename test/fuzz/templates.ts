/**
 * Chat templates put together from parts that cost: long texts, lists in lists, loops, every filter, test and method; and
 * models' templates with something changed. `bun test/fuzz/templates.ts [COUNT] [SEED]`
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../src/errors";
import { type ChatMessage, ChatTemplate } from "../../src/text/chat-template";
import { type Dice, dice, pick } from "./dice";
import { fuzzMain } from "./supervise";

const fixtures = join(import.meta.dir, "../fixtures/text/templates");
const models = readdirSync(fixtures).map((name) => readFileSync(join(fixtures, name), "utf8"));

const words = (text: string) => text.trim().split(/\s+/);
const filters = words(
  "abs batch capitalize center count d default dictsort e escape first float forceescape indent int items join last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum title tojson trim unique upper urlencode wordcount nothing",
);
const tests = words(
  "boolean callable defined undefined divisibleby even odd true false integer float number none string mapping sequence iterable lower upper sameas in eq ne gt ge lt le nothing",
);
const methods = words(
  "upper lower swapcase strip lstrip rstrip replace split rsplit splitlines partition rpartition join find rfind index count startswith endswith removeprefix removesuffix capitalize title zfill ljust rjust isupper isdigit isalpha isspace items keys values get append nothing __class__ constructor",
);
const keywords = words(
  "attribute width first indent separators sort_keys reverse case_sensitive default start d count fill_with by",
);
const constants = [
  ...[
    "1",
    "0",
    "-1",
    "0.5",
    "1000000000",
    "99999999999999999999",
    "2 ** 62",
    "true",
    "none",
    '""',
    '"a"',
    '"é😀"',
    "[]",
    "{}",
    "()",
  ],
  ...[
    '"x" * 900000',
    '"ab" * 300000',
    "[1] * 200000",
    '"a b " * 20000',
    "range(100000)",
    '{"a": [1, {"b": "c"}]}',
    '" " * 50000',
  ],
  ...[
    '"." * 100000',
    "messages",
    "messages[0]",
    "messages[0].content",
    "ns",
    "ns.x",
    "v",
    "w",
    "loop",
    "missing",
    "tools",
  ],
];

function value(roll: Dice, depth = 0): string {
  if (depth > 2) return pick(roll, constants);
  const inner = () => value(roll, depth + 1 + roll(2));
  switch (roll(24)) {
    case 0:
    case 1:
    case 2:
      return `(${inner()}) | ${filter(roll, inner)}`;
    case 3:
      return `(${inner()}).${pick(roll, methods)}(${args(roll, inner)})`;
    case 4:
      return `(${inner()} ${pick(roll, ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"])} ${inner()})`;
    case 5:
      return `(${inner()} is ${pick(roll, ["", "not "])}${pick(roll, tests)})`;
    case 6:
      return `[${inner()}, ${inner()}]`;
    case 7:
      return `(${inner()})[${inner()}]`;
    case 8:
      return `(${inner()})[${pick(roll, ["0", "-1", "::2", "::-1", "1:", ":5", "10:-10"])}]`;
    case 9:
      return `{"k": ${inner()}, ${inner()}: ${inner()}}`;
    case 10:
      return `(${inner()} if ${inner()} else ${inner()})`;
    case 11:
      return pick(roll, [
        `range(${inner()})`,
        `dict(a=${inner()})`,
        `strftime_now(${inner()})`,
        `raise_exception(${inner()})`,
        `m(${inner()})`,
      ]);
    default:
      return pick(roll, constants);
  }
}

function args(roll: Dice, inner: () => string): string {
  const given = Array.from({ length: roll(3) }, inner);
  if (roll(4) === 0) given.push(`${pick(roll, keywords)}=${inner()}`);
  return given.join(", ");
}

function filter(roll: Dice, inner: () => string): string {
  const name = pick(roll, filters);
  if (/^(map|select|reject)/.test(name) && roll(2) === 0)
    return `${name}("${pick(roll, [...filters, ...tests])}", ${inner()})`;
  return roll(2) === 0 ? name : `${name}(${args(roll, inner)})`;
}

function statement(roll: Dice, depth = 0): string {
  const expression = value(roll);
  const body = () => (depth > 2 ? `{{ ${value(roll)} }}` : statement(roll, depth + 1) + statement(roll, depth + 1));
  switch (roll(9)) {
    case 0:
      return `{% set v = ${expression} %}`;
    case 1:
      return `{% set ns.x = ${expression} %}`;
    case 2:
      return `{% set ns.x = ns.x + ns.x %}`.repeat(1 + roll(40));
    case 3:
      return `{% set ns.x = [ns.x, ns.x] %}`.repeat(1 + roll(80));
    case 4:
      return `{% for w in ${expression} %}${body()}{% if loop.index > 3 %}{% ${pick(roll, ["break", "continue"])} %}{% endif %}{% else %}${body()}{% endfor %}`;
    case 5:
      return `{% for i in range(${pick(roll, [3, 1000, 100000])}) %}${body()}{% endfor %}`;
    case 6:
      return `{% if ${expression} %}${body()}{% else %}${body()}{% endif %}`;
    case 7:
      return `{% macro m(a=${expression}) %}${body()}{% endmacro %}`;
    default:
      return `{{ ${expression} }}`;
  }
}

/** A model's template with a part cut out, doubled, or put in. */
function changed(source: string, roll: Dice): string {
  let text = source;
  for (let left = 1 + roll(3); left > 0; left--) {
    const at = roll(text.length);
    const part = text.slice(at, at + roll(200));
    const put = pick(roll, [
      "",
      part + part,
      statement(roll),
      `{{ ${value(roll)} }}`,
      "{%",
      "}}",
      "'",
      "(".repeat(roll(3000)),
      "\n".repeat(300),
    ]);
    text = text.slice(0, at) + put + text.slice(at + part.length);
  }
  return text;
}

const chats: ChatMessage[][] = [
  [{ role: "user", content: "hi" }],
  [
    { role: "system", content: "be brief" },
    { role: "user", content: [{ type: "text", text: "a".repeat(2000) }] },
    {
      role: "assistant",
      content: null,
      tool_calls: [{ type: "function", function: { name: "f", arguments: { x: [1] } } }],
    },
    { role: "tool", content: "é\u001b[2J" },
  ],
];

/** @throws Error with the seed, for anything but a text or a UserError in our own words */
export async function fuzzTemplate(seed: number): Promise<"sound" | "refused"> {
  const roll = dice(seed);
  const own = ["{% set ns = namespace(x=[1]) %}", ...Array.from({ length: 1 + roll(2) }, () => statement(roll))].join(
    "\n",
  );
  const source = roll(4) === 0 ? changed(pick(roll, models), roll) : own;
  try {
    new ChatTemplate(source, "a model").render(pick(roll, chats), { addGenerationPrompt: true, now: new Date(0) });
    return "sound";
  } catch (error) {
    const isOurs =
      error instanceof UserError && !/undefined is not|reading '|evaluating '|RangeError|Maximum/.test(error.message);
    if (!isOurs) throw new Error(`the template of seed ${seed}: ${error}\n${source.slice(0, 1000)}`, { cause: error });
    return "refused";
  }
}

if (import.meta.main) await fuzzMain(import.meta.path, fuzzTemplate);
