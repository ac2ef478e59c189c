import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors";
import { type ChatMessage, ChatTemplate } from "./chat-template";

const FIXTURES = join(import.meta.dir, "../../test/fixtures/text");
const source = (name: string) => readFileSync(join(FIXTURES, "templates", `${name}.jinja`), "utf8");
const USER: ChatMessage[] = [{ role: "user", content: "Hi" }];
const render = (template: string, messages = USER, options = {}) =>
  new ChatTemplate(template, "the model").render(messages, options);

interface Chat {
  template: string;
  messages: ChatMessage[];
  tools?: unknown[];
  add_generation_prompt?: boolean;
  continue_final_message?: boolean;
  kwargs?: Record<string, unknown>;
  text?: string;
  error?: string;
}
const chats: Chat[] = await Bun.file(join(FIXTURES, "chats.json")).json();

describe.each([...new Set(chats.map(({ template }) => template))])("%s, as transformers renders it", (name) => {
  const template = new ChatTemplate(source(name), "the model");
  test.each(chats.filter((chat) => chat.template === name).map((chat, i) => [i, chat] as const))(
    "chat %d",
    (_, chat) => {
      const rendered = () =>
        template.render(chat.messages, {
          tools: chat.tools,
          addGenerationPrompt: chat.add_generation_prompt,
          continueFinalMessage: chat.continue_final_message,
          kwargs: { bos_token: "<|endoftext|>", eos_token: "<|im_end|>", enable_thinking: true, ...chat.kwargs },
          now: new Date(2026, 2, 5, 14, 7, 9),
        });
      if (chat.error) expect(rendered).toThrow(`The chat template of the model refuses these messages: ${chat.error}`);
      else expect(rendered()).toBe(chat.text!);
    },
  );
});

describe("continuing the last message", () => {
  const open = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}";
  const prefill = (content: ChatMessage["content"]): ChatMessage[] => [...USER, { role: "assistant", content }];

  test("the last part that has text goes on", () => {
    const parts = "{% for m in messages %}{% for p in m.content %}[{{ p.text or p.type }}]{% endfor %}{% endfor %}";
    const content = [{ type: "text", text: "one" }, { type: "image" }];
    expect(render(parts, [{ role: "assistant", content }], { continueFinalMessage: true })).toBe("[one");
  });

  test("another field can be named, by any of reasoning's names", () => {
    const template = "{{ messages[0].reasoning_content }}!{{ messages[0].content }}";
    const messages = [{ role: "assistant", content: "x", reasoning: "so" }];
    expect(render(template, messages, { continueFinalMessage: "reasoning" })).toBe("so");
  });

  test("is refused where it can't be", () => {
    const options = { continueFinalMessage: true };
    expect(() => render(open, prefill(null), options)).toThrow('has no text in "content" to continue');
    expect(() => render("fixed text", prefill("x"), options)).toThrow('has no place for "content"');
    expect(() => render(`${open.replace("m.content", "m.content | upper")}`, prefill("x"), options)).toThrow(
      "changes the last message",
    );
    expect(() => render(open, prefill("x"), { ...options, addGenerationPrompt: true })).toThrow("can't both");
  });
});

test("a message's nulls are left out, and its reasoning is found by each name", () => {
  expect(render("{{ messages[0] }}", [{ role: "user", content: null, name: undefined }])).toBe("{'role': 'user'}");
  expect(render("{{ messages[0].thinking }}{{ messages[0].reasoning_content }}", [{ role: "a", reasoning: "r" }])).toBe(
    "rr",
  );
});

test("an empty chat is refused", () => {
  expect(() => render("x", [])).toThrow("at least one message");
});

describe("templates that would not end", () => {
  const grow = (start: string, step: string) =>
    `{% set ns = namespace(s=${start}) %}{% for i in range(64) %}{% set ns.s = ${step} %}{% endfor %}{{ ns.s }}`;
  const BIG = "{% set big = 'abcdefgh' * 20000 %}";

  test.each([
    ["a long range", "{% for i in range(20000000) %}{% endfor %}"],
    ["nested ranges", "{% for i in range(3000) %}{% for j in range(3000) %}{{ i * j }}{% endfor %}{% endfor %}"],
    ["nested loops over nothing", "{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}"],
    ["missing names", "{% for i in range(3000) %}{% for j in range(3000) %}{{ gone }}{% endfor %}{% endfor %}"],
    ["a doubling text", grow("'ab'", "ns.s + ns.s")],
    ["a doubling text, by ~", grow("'ab'", "ns.s ~ ns.s")],
    ["a doubling list", grow("[1]", "ns.s + ns.s")],
    ["a list of itself twice", grow("[1]", "[ns.s, ns.s]")],
    ["a mapping of itself twice", grow("{}", "{'a': ns.s, 'b': ns.s}")],
    [
      "a doubling block",
      grow("'ab'", "1").replace("{% set ns.s = 1 %}", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
    ],
    ["a repeated text", "{{ 'a' * 100000000000 }}"],
    ["replace", `${BIG}{{ big.replace('', big) }}`],
    ["replace, by another name", `${BIG}{% set f = big['rep' ~ 'lace'] %}{{ f('', big) }}`],
    ["replace, the filter", `${BIG}{{ big | replace('', big) }}`],
    ["join", `${BIG}{{ range(50000) | join(big) }}`],
    ["join, the method", `${BIG}{{ big.join(range(50000)) }}`],
    ["indent", "{{ ('a\\n' * 1000) | indent(100000000) }}"],
    ["tojson", "{{ [1, [2]] | tojson(indent=1000000000) }}"],
    ["a macro of itself", "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}"],
    [
      "a tree of macros",
      "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    ],
    ["slices", "{% set x = 'a' * 1000000 %}{% for i in range(1000) %}{% set y = x[::-1] %}{% endfor %}"],
    ["splits", "{% set x = 'a ' * 1000000 %}{% for i in range(1000) %}{% set y = x.split(' ') %}{% endfor %}"],
    ["searches in a list", "{% set x = range(9000) %}{% for i in x %}{% if i in x %}{% endif %}{% endfor %}"],
    ["comparisons", "{% set x = range(9000) %}{% set y = range(9000) %}{% for i in x %}{{ x == y }}{% endfor %}"],
    ["sorts", "{% set x = range(9000) %}{% for i in x %}{% set y = x | sort %}{% endfor %}"],
    [
      "unpacked arguments",
      "{% macro f() %}{{ varargs | length }}{% endmacro %}{% set r = range(90000) %}{% for i in range(900) %}{{ f(*r) }}{% endfor %}",
    ],
    [
      "prefixes",
      `${BIG}{% set x = [big, big, big] %}{% for i in range(9000) %}{{ ('y' ~ big).startswith(x) }}{% endfor %}`,
    ],
    ["prints", "{% set x = range(2000) %}{% for i in range(9000) %}{{ x }}{% endfor %}"],
  ])("%s", (_, template) => {
    expect(() => render(template)).toThrow("takes too much work to render");
  });

  test.each([
    ["brackets", `{{ ${"(".repeat(20_000)}1${")".repeat(20_000)} }}`, "nested too deep"],
    ["a deep list", grow("[1]", "[ns.s]").replace("range(64)", "range(2000)"), "nested too deep"],
    ["JSON of a namespace", "{% set a = namespace() %}{% set a.b = a %}{{ a | tojson }}", "not JSON"],
    ["whitespace", `a${" ".repeat(100_000)}b`, "too large"],
    ["size", "a".repeat(500_001), "too large"],
    ["a range by small steps", "{{ range(0, 1, 0.0000001) | length }}", "range() takes integers"],
    ["a range by zero", "{{ range(0, 10, 0) }}", "a step other than 0"],
  ])("and %s", (_, template, problem) => {
    expect(() => render(template)).toThrow(problem);
  });

  test("a namespace may hold itself", () => {
    expect(render("{% set a = namespace() %}{% set a.b = [a] %}{{ a.b }}{{ a.b == a.b }}")).toBe("[<Namespace>]True");
  });

  test("each stops within a moment", () => {
    const template =
      "{% for i in range(3000) %}{% for j in range(3000) %}{{ i }}{{ gone }}{{ 'x' * 9 }}{% endfor %}{% endfor %}";
    const began = performance.now();
    expect(() => render(template)).toThrow(UserError);
    // About 0.1 s on an idle machine; without a bound, half a minute.
    expect(performance.now() - began).toBeLessThan(3000);
  });
});

describe("chats that are large for good reason render", () => {
  const turns = (count: number, content: string): ChatMessage[] =>
    Array.from({ length: count }, (_, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));
  const parameters = { type: "object", properties: { a: { type: "string", description: "x".repeat(200) } } };
  const tools = Array.from({ length: 200 }, (_, i) => ({ type: "function", function: { name: `f${i}`, parameters } }));

  test.each(["chatml", "llama3", "gemma", "mistral", "phi", "qwen3", "macros"])("%s", (name) => {
    const template = new ChatTemplate(source(name), "the model");
    const kwargs = { bos_token: "<s>", eos_token: "</s>" };
    expect(template.render(turns(1001, "Hello there."), { kwargs }).match(/Hello there\./g)).toHaveLength(1001);
    expect(template.render(turns(1, "a line of a book\n".repeat(100_000)), { kwargs }).length).toBeGreaterThan(
      1_690_000,
    );
    expect(template.render(turns(3, "Hello there."), { kwargs, tools })).toContain("Hello there.");
  });
});

describe("what a template does wrong is said", () => {
  test.each([
    ["{% if %}", "does not parse"],
    ["{% for m in messages %}", "does not parse"],
    ["{{ messages | no_such_filter }}", 'failed: there is no filter "no_such_filter"'],
    ["{{ no_such_function() }}", "failed: Cannot call something that is not a function"],
    ["{{ [1] | abs }}", "failed: the filter abs takes numbers"],
    ["{{ raise_exception('no, thanks!') }}", "refuses these messages: no, thanks!"],
  ])("%s", (template, problem) => {
    expect(() => render(template)).toThrow(UserError);
    expect(() => render(template)).toThrow(`The chat template of the model ${problem}`);
  });

  test("and prototypes stay out of reach", () => {
    for (const name of ["constructor", "__proto__", "__class__", "toString"]) {
      expect(render(`{{ messages[0].${name} is defined }}{{ messages[0].content.${name} is defined }}`)).toBe(
        "FalseFalse",
      );
    }
  });
});

test("a variable cannot take the chat's place", () => {
  expect(() => render("{{ messages }}", USER, { kwargs: { messages: [] } })).toThrow('"messages" can\'t be a variable');
});
