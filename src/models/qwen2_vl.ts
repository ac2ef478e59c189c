/** Qwen 2 VL and 2.5 VL, their language model: Qwen 2. */
import type { z } from "zod";
import type { AwqFacts } from "./awq-facts";
import { sections } from "./gguf/sections";
import { NestedLM, nestedArgs } from "./nested";
import * as qwen2 from "./qwen2";

export const Args = nestedArgs(qwen2.Args);

export class Model extends NestedLM {
  constructor(args: z.infer<typeof Args>) {
    super(new qwen2.Model(args));
  }
}

export const awq: AwqFacts = { inner: "language_model", ...qwen2.awq };

export const gguf = sections("qwen2vl", { ropeBase: 1_000_000 });
