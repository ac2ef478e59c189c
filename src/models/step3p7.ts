/** Step 3.7: Step 3.5 in a checkpoint that also sees. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { blockAwq } from "./awq-facts";
import { NestedLM, nestedArgs } from "./nested";
import * as step from "./step3p5";

/** The first layers with experts, where no list says it, are behind three dense ones. */
const usuallyDense = 3;

/** Its configuration in Step 3.5's words, whose defaults are others. */
const TextArgs = z
  .record(z.string(), z.unknown())
  .transform((config): Record<string, unknown> => {
    const { num_hidden_layers: layers, moe_layers_enum: sparse, share_expert_dims } = config;
    const behind = () => Array.from({ length: Number(layers) }, (_, i) => i).filter((i) => i >= usuallyDense);
    return {
      moe_router_scaling_factor: 1,
      ...config,
      ...(share_expert_dims ? { share_expert_dim: share_expert_dims } : {}),
      moe_layers_enum: typeof sparse === "string" ? sparse : (Array.isArray(sparse) ? sparse : behind()).join(","),
    };
  })
  .pipe(step.Args);

export const Args = nestedArgs(TextArgs);

/** Its parts for images, by the names of checkpoints of either kind. */
const otherParts =
  /^(model\.)?(vision_model|vit_large_projector|multi_modal_projector|vit_downsampler\d*|conv1|ln_pre|ln_post|transformer|positional_embedding|class_embedding)(\.|$)/;

export class Model extends NestedLM {
  constructor(args: z.infer<typeof Args>) {
    super(new step.Model(args));
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return super.sanitize(new Map([...weights].filter(([name]) => !otherParts.test(name))));
  }
}

export const { keepsDtype, mtp, quantize } = step;

export const awq = blockAwq({ inner: "language_model", router: "gate.gate", isLinear: false });

export const gguf = step.ggufFacts("language_model.");
