/** Every construct that templates use, in a small template of its own: the text is transformers'. */
import { expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { UserError } from "../errors";
import { type ChatMessage, ChatTemplate } from "./chat-template";

interface Snippets {
  messages: ChatMessage[];
  snippets: { template: string; text?: string; error?: string }[];
  /** What transformers can and this engine cannot. */
  beyond: string[];
}

const { messages, snippets, beyond } = fixture<Snippets>("text/snippets.json");
const setup = "{%- set s, u, a = messages[0], messages[1], messages[2] -%}";

const render = (template: string) =>
  new ChatTemplate(setup + template, "the model").render(messages, {
    kwargs: { bos_token: "<|endoftext|>" },
    now: new Date(2026, 2, 5, 14, 7, 9),
  });

test.each(snippets)("$template", ({ template, text, error }) => {
  if (error === undefined) expect(render(template)).toBe(text!);
  else expect(() => render(template)).toThrow(UserError);
});

test.each(beyond)("%s is refused", (template) => {
  expect(() => render(template)).toThrow(UserError);
});
