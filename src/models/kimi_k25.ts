/** Kimi K2.5: DeepSeek V3 in a checkpoint that also sees. */

import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { latent } from "./gguf/deepseek2";
import { NestedLM, nestedArgs } from "./nested";

export const Args = nestedArgs(deepseek.Args);

export class Model extends NestedLM {
  constructor(args: deepseek.Args) {
    super(new deepseek.Model(args));
  }
}

export const { joins, keepsDtype, mtp } = deepseek;

export const gguf = latent({ prefix: "language_model." });

export const awq = blockAwq({ inner: "language_model" });
