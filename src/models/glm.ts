/** GLM 4 (ChatGLM's successor): Llama that turns neighbours, with gate and value of the feed-forward block in one projection. */
import { z } from "zod";
import { JointGatedMLP } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({ ...denseFields, head_dim: size, num_key_value_heads: size, rope_traditional: z.boolean().default(true) })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const attention = () => new llama.Attention(args, { rope: ropeOf(args), outputBias: false });
    super(args, () => new llama.Block(attention(), new JointGatedMLP(args.hidden_size, args.intermediate_size), args));
  }
}

export const awq = blockAwq();
