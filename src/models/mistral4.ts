/**
 * Mistral Small 4: DeepSeek V3's latent attention with queries that grow with their position, and experts by a softmax,
 * in groups.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  groupedSoftmax,
  initializeRope,
  joinHeads,
  LatentAttention,
  type LatentHeads,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  type PositionScale,
  SwitchGLU,
  scaleByPosition,
  yarnTemperature,
} from "../nn";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { precise } from "./gguf/decoder";
import { latent } from "./gguf/deepseek2";
import { f32, type GgufFacts, u32 } from "./gguf/facts";
import { Block } from "./llama";
import { GrowingRope, growthOf } from "./ministral3";

export const Args = z
  .object({
    ...deepseek.fields,
    n_routed_experts: size,
    scoring_func: z.literal("softmax").default("softmax"),
    topk_method: z.string().nullish(),
    rope_parameters: GrowingRope,
    rope_interleave: z.boolean().nullish(),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

class Attention extends LatentAttention {
  readonly growth: PositionScale;

  constructor(args: Args) {
    const { rope_parameters: scaling, qk_rope_head_dim: dims, max_position_embeddings: maxPositions } = args;
    const stretch = scaling.mscale_all_dim ? yarnTemperature(scaling.factor ?? 1, scaling.mscale_all_dim) : 1;
    const traditional = args.rope_interleave ?? true;
    super(
      deepseek.attentionSizes(args),
      initializeRope({ dims, base: scaling.rope_theta ?? 10_000, traditional, scaling, maxPositions }),
      (args.qk_nope_head_dim + dims) ** -0.5 * stretch ** 2,
    );
    this.growth = growthOf(scaling);
  }

  protected override project(x: Tensor, offset: number | Tensor = 0): LatentHeads {
    const own = super.project(x, offset);
    const grown = (queries: Tensor) => scaleByPosition(queries, offset, this.growth);
    return { ...own, plain: grown(own.plain), rotated: grown(own.rotated) };
  }

  /** Several tokens: plain and rotated features side by side, so that one kernel makes the scores and masks them. */
  protected override attend(heads: LatentHeads, mask: Mask): Tensor {
    const { plain, rotated, latent, key } = heads;
    if (plain.dim(2) === 1) return super.attend(heads, mask);
    const keys = this.embed_q.backward(latent);
    const shared = mx.broadcastTo(key, [...keys.shape.slice(0, 3), key.dim(-1)]);
    const beside = (a: Tensor, b: Tensor) => mx.concatenate([a, b], { axis: -1 });
    const values = this.unembed_out.forward(latent);
    const out = attention(beside(plain, rotated), beside(keys, shared), values, { scale: this.scale, mask });
    return this.o_proj.forward(joinHeads(out));
  }
}

class MoE extends Module {
  switch_mlp: SwitchGLU;
  gate: Layer;
  shared_experts?: Layer;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, n_shared_experts: shared } = args;
    this.switch_mlp = new SwitchGLU(dims, hidden, args.n_routed_experts);
    this.gate = new Linear(dims, args.n_routed_experts, { bias: false });
    if (shared) this.shared_experts = deepseek.mlpOf(dims, hidden * shared);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { args } = this;
    const routing = groupedSoftmax(this.gate.forward(x), {
      groups: args.n_group,
      groupsPerToken: args.topk_group,
      expertsPerToken: args.num_experts_per_tok,
      normalize: args.norm_topk_prob,
      scale: args.routed_scaling_factor,
    });
    const mixed = mixExperts(x, this.switch_mlp, routing).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

export class Model extends deepseek.LatentLM {
  constructor(args: Args) {
    super(args, (index) => {
      const attention = new Attention(args);
      const isSparse = index >= args.first_k_dense_replace;
      const mlp = isSparse ? new MoE(args) : deepseek.mlpOf(args.hidden_size, args.intermediate_size);
      return new Block(attention, mlp, args);
    });
  }

  /** Splits the experts' first two projections, which checkpoints have as one tensor (E, 2 N, K). */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const split = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      const [path, part] = name.split(".mlp.experts.") as [string, string?];
      const to = `${path}.mlp.switch_mlp`;
      if (part === "gate_up_proj") {
        const [gate, up] = weight.split(2, 1) as [Tensor, Tensor];
        split.set(`${to}.gate_proj.weight`, gate).set(`${to}.up_proj.weight`, up);
      } else if (part === "down_proj") split.set(`${to}.down_proj.weight`, weight);
      else split.set(name, weight);
    }
    return super.sanitize(split);
  }
}

export const { joins } = deepseek;

export const awq = blockAwq();

const latentFacts = latent({ architecture: "mistral4", scores: "softmax", normalizes: true });

export const gguf: GgufFacts = {
  ...latentFacts,
  read(file) {
    const { rope_theta, rope_scaling, ...common } = latentFacts.read(file);
    const scaling = (rope_scaling ?? { type: "default" }) as Record<string, unknown>;
    return {
      ...common,
      rope_parameters: {
        ...scaling,
        original_max_position_embeddings:
          scaling.original_max_position_embeddings ?? file.number("rope.scaling.original_context_length"),
        rope_theta,
        llama_4_scaling_beta: precise(file.number("attention.temperature_scale") ?? 0),
      },
    };
  },
  write(config, source) {
    const { rope_parameters: rope } = config as Args;
    const written = latentFacts.write(config, source);
    const { llama_4_scaling_beta: beta, original_max_position_embeddings: original } = rope;
    return {
      ...written,
      fields: {
        ...written.fields,
        "rope.scaling.original_context_length": u32(original),
        ...(beta ? { "attention.temperature_scale": f32(beta), "attention.temperature_length": u32(original) } : {}),
      },
    };
  },
};
