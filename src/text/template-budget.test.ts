import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { supervise } from "../../test/fuzz/supervise";
import { UserError } from "../errors";
import { ChatTemplate } from "./chat-template";

const render = (source: string) =>
  new ChatTemplate(source, "a test").render([{ role: "user", content: "hi" }], { now: new Date(0) });

function failure(source: string): UserError {
  try {
    render(source);
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error("it rendered");
}

const long = '{% set s = "x" * 900000 %}';
const nested = `{% set ns = namespace(x=["a"]) %}${"{% set ns.x = [ns.x, ns.x] %}".repeat(60)}`;

describe("templates that cost more than they look like", () => {
  test.each([
    ["a list of nothing, repeated", "{{ ([] * 1000000000) | length }}", "0"],
    ["a text of nothing, repeated", "{{ ('' * 1000000000) | length }}", "0"],
    [
      "a search in periodic texts",
      '{% set t = "ab" * 350000 %}{% set n = "ab" * 60000 ~ "ba" ~ "ab" * 60000 %}{{ n in t }}',
      "False",
    ],
    [
      "the first character of a long text",
      `${long}{% for i in range(2000) %}{% set y = s | first %}{% endfor %}{{ s | first }}`,
      "x",
    ],
    ["the last one", `${long}{% for i in range(2000) %}{% set y = s | last %}{% endfor %}{{ s[-1] }}`, "x"],
  ])("%s", (_, source, expected) => {
    const began = performance.now();
    expect(render(source)).toBe(expected);
    expect(performance.now() - began).toBeLessThan(2000);
  });

  test.each([
    ["the length of a long text", `${long}{% for i in range(2500) %}{% set y = s | length %}{% endfor %}`],
    ["a test of a long text", `${long}{% for i in range(2500) %}{% set y = s is lower %}{% endfor %}`],
    ["searches, one after another", `${long}{% for i in range(2500) %}{% set y = s.find("y" * 40) %}{% endfor %}`],
    ["a long attribute, for each item", '{{ ([1] * 8000) | map(attribute="." * 400000) | list | length }}'],
    ["a long attribute in selectattr", '{{ ([1] * 8000) | selectattr("." * 400000) | list | length }}'],
    ["a long attribute in sort", '{{ ([1] * 8000) | sort(attribute="." * 400000) | length }}'],
    ["a long attribute in unique", '{{ ([1] * 8000) | unique(attribute="." * 400000) | list | length }}'],
    ["a long attribute in join", '{{ ([1] * 8000) | join(attribute="." * 400000) }}'],
    ["long characters to strip", `${long}{% for i in range(2500) %}{% set y = "a".strip(s) %}{% endfor %}`],
    ["a long filler", `{{ "a".ljust(100000) * 100000 }}`],
    [
      "a negative indent, which must not give steps back",
      `{% for i in range(3000) %}{% set y = "a" | indent(-1000000) %}{% set z = "x" * 400000 %}{% endfor %}`,
    ],
    ["a nested list, joined", `${nested}{{ [ns] | join(attribute="x") }}`],
    ["a nested list, made safe", `${nested}{{ ns.x | safe }}`],
    ["a nested list behind ~", `${nested}{{ ns.x ~ "" }}`],
    ["a nested list in raise_exception", `${nested}{{ raise_exception(ns.x) }}`],
    ["a nested list, its words counted", `${nested}{{ ns.x | wordcount }}`],
    ["a nested list for an index", `${nested}{{ "a"[ns.x] }}`],
    ["a nested list in a loop's changed()", `${nested}{% for i in range(3) %}{{ loop.changed(ns.x) }}{% endfor %}`],
    [
      "lists without end",
      "{% set ns = namespace(x=[1]) %}{% for i in range(10000) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    ],
  ])("%s is too much", (_, source) => {
    const began = performance.now();
    expect(failure(source).message).toMatch(/takes too much work|nested too deep/);
    expect(performance.now() - began).toBeLessThan(4000);
  });

  test("arguments that mean nothing are named", () => {
    expect(failure("{{ [1] | tojson(separators=[]) }}").message).toContain("separators must be two texts, not 0");
    expect(failure('{{ "12" | int(0, 99) }}').message).toContain("a base from 2 to 36, not 99");
    expect(failure('{{ "a".ljust(5, "xy") }}').message).toContain("filled up with one character");
    expect(failure('{{ "a".rsplit("") }}').message).toContain("a separator that is not empty");
  });
});

test("400 templates of parts that cost end in words, or in a text", async () => {
  const { sound, refused } = await supervise(join(import.meta.dir, "../../test/fuzz/templates.ts"), 400, 1);
  expect(sound).toBeGreaterThan(50);
  expect(refused).toBeGreaterThan(50);
}, 120_000);
