/** Qwen 3 VL, its language model: Qwen 3. */
import type { z } from "zod";
import type { AwqFacts } from "./awq-facts";
import { sections } from "./gguf/sections";
import { NestedLM, nestedArgs } from "./nested";
import * as qwen3 from "./qwen3";

export const Args = nestedArgs(qwen3.Args);

export class Model extends NestedLM {
  constructor(args: z.infer<typeof Args>) {
    super(new qwen3.Model(args));
  }
}

export const awq: AwqFacts = { inner: "language_model", ...qwen3.awq };

export const gguf = sections("qwen3vl", { ropeBase: 10_000 });
