/** /tokenize and /detokenize, field by field. */
import { DetokenizeRequest, TokenizeRequest } from "../../src/serve/routes/tokens";
import { acts, type Route, shown } from "./table";

const model = shown("models/models.test.ts", "of several, each gets its own, and others are told that there is none");
const chat = (content: string, role = "user") => ({ content: null, messages: [{ role, content }] });

export const tokenize: Route = {
  path: "/tokenize",
  schema: TokenizeRequest,
  usual: { content: "a small fox" },
  fields: {
    model,
    content: acts({ content: "a bird" }),
    prompt: acts({ prompt: "a bird" }, { content: null, prompt: "a small fox" }),
    "messages.role": acts(chat("Hello.", "system"), chat("Hello.")),
    "messages.content": acts(chat("And you?"), chat("Hello.")),
    add_special: acts({ add_special: true }),
    add_special_tokens: acts({ add_special_tokens: true }),
    with_pieces: acts({ with_pieces: true }),
  },
};

export const detokenize: Route = {
  path: "/detokenize",
  schema: DetokenizeRequest,
  usual: { tokens: [70, 71] },
  fields: { model, tokens: acts({ tokens: [72] }) },
};
