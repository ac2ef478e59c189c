/** LFM 2 VL, its language model: LFM 2. */
import type { z } from "zod";
import type { AwqFacts } from "./awq-facts";
import * as lfm2 from "./lfm2";
import { NestedLM, nestedArgs } from "./nested";

export const Args = nestedArgs(lfm2.Args);

export class Model extends NestedLM {
  constructor(args: z.infer<typeof Args>) {
    super(new lfm2.Model(args));
  }
}

export const { joins } = lfm2;

export const awq: AwqFacts = { inner: "language_model", ...lfm2.awq };

export const gguf = lfm2.facts("language_model.");
