/**
 * One token on several ranks through whole layers as one kernel, which sums over the ranks: the same logits as from one rank
 * that reads the text at once. The same of a prompt, and of several sequences, read and decoded. Of GPUs, so it is no test of `bun test`.
 *
 *   bun bench/ranks.ts 2 test/rank-kernels.ts [part of a case's name]
 */
import { joinedGroup } from "../bench/group";
import { cacheBytes } from "../src/generate/cache-room";
import * as mx from "../src/mlx";
import type { LanguageModel } from "../src/models";
import { KVCache, mergeCaches, Residual, RotatingKVCache } from "../src/nn";
import { gemma3, kernelModel, llama, llama3Scaling, someTokens, withExperts } from "./kernel-model";

const qwen3 = { ...llama, model_type: "qwen3", head_dim: 128, num_attention_heads: 8, num_key_value_heads: 4 };
const wide = { ...llama, hidden_size: 1024, intermediate_size: 4096, num_attention_heads: 16, num_key_value_heads: 8 };
const experts = withExperts(qwen3, 1024);
/** Norms behind its halves, ahead of which ranks' parts are summed. */
const gemma = { ...gemma3, intermediate_size: 2368, num_key_value_heads: 2 };
/** Widths that the warps of a block share unevenly. */
const uneven = { ...wide, hidden_size: 896, intermediate_size: 2368, num_attention_heads: 14, num_key_value_heads: 2 };
const cases = [
  ["Llama", wide, null],
  ["Llama, 4 bits in groups of 32", { ...wide, intermediate_size: 2048 }, { bits: 4, groupSize: 32 }],
  ["Llama, 4 bits in groups of 64", wide, { bits: 4, groupSize: 64 }],
  ["Llama, 8 bits", wide, { bits: 8, groupSize: 64 }],
  ["Llama with other frequencies", { ...wide, rope_scaling: llama3Scaling }, null],
  ["Qwen 2, whose projections have biases", { ...wide, model_type: "qwen2" }, { bits: 4, groupSize: 64 }],
  ["Qwen 3, which norms heads", qwen3, null],
  ["heads that do not divide evenly", { ...wide, num_attention_heads: 6, num_key_value_heads: 3 }, null],
  ["Qwen 3 with experts", experts, null],
  ["Qwen 3 with experts, 4 bits", experts, { bits: 4, groupSize: 64 }],
  ["Llama of other widths", uneven, null],
  ["Llama of other widths, 4 bits in groups of 32", uneven, { bits: 4, groupSize: 32 }],
  ["Gemma 3", gemma, null],
  ["Gemma 3, 4 bits in groups of 32", gemma, { bits: 4, groupSize: 32 }],
] as const;

const group = joinedGroup();
if (!group) throw new Error("bun bench/ranks.ts 2 test/rank-kernels.ts");

/** How many layers, or their attentions, were one operation. */
let whole = 0;
for (const { prototype } of [KVCache, RotatingKVCache]) {
  const { filledBy } = prototype;
  prototype.filledBy = function (writer) {
    whole++;
    filledBy.call(this as KVCache & RotatingKVCache, writer);
  };
}

/** Logits of sequences, (B, T, V). */
const read = (model: LanguageModel, sequences: readonly (readonly number[])[]) =>
  mx.scope(() => {
    const logits = model.forward(mx.array(sequences as number[][], "int32")).astype("float32");
    mx.eval(logits);
    return logits;
  });

const furthest = (a: mx.Tensor, b: mx.Tensor) => mx.scope(() => a.subtract(b).abs().max().item());

/** Layers of several sequences that were one operation. */
let together = 0;
const { through } = Residual.prototype;
Residual.prototype.through = function (layer) {
  const stream = through.call(this, layer);
  if (stream) together++;
  return stream;
};

const texts = [40, 23, 60].map((length, row) => someTokens(length, row));
const decoded = 8;

/** How far the logits of the texts' last tokens, decoded together, are from those of each text by itself. */
function furthestDecoded(model: LanguageModel, wanted: readonly mx.Tensor[]): number {
  const begun = texts.map((text) => {
    const cache = model.makeCache();
    mx.scope(() => mx.eval(model.forward(mx.array([text.slice(0, -decoded)], "int32"), { cache })));
    return cache;
  });
  const own = (layer: number) => begun.map((caches) => caches[layer]!);
  const cache = begun[0]!.map((_, layer) => mergeCaches(own(layer)));
  let off = 0;
  for (let i = decoded; i > 0; i--) {
    mx.scope(() => {
      const tokens = mx.array(
        texts.map((text) => [text.at(-i)!]),
        "int32",
      );
      const logits = model.forward(tokens, { cache }).at(":", -1).astype("float32");
      for (const [row, all] of wanted.entries()) off = Math.max(off, furthest(logits.at(row), all.at(0, -i)));
    });
  }
  for (const one of [...cache, ...begun.flat()]) one.dispose();
  return off;
}

let failed = 0;
/** Many short sequences: their sums are made together with the norms behind them. */
const beginnings = Array.from({ length: 24 }, (_, row) => someTokens(1, row));
const named = process.argv[2] ?? "";
for (const [name, config, how] of cases.filter(([name]) => name.includes(named))) {
  const tokens = someTokens(330);
  const alone = await kernelModel(config, how);
  const all = read(alone, [tokens]);
  const apart = read(alone, beginnings);
  const wanted = texts.map((text) => read(alone, [text]));
  alone.dispose();
  const model = await kernelModel(config, how, group);
  // Asked for by one rank alone, and never computed.
  if (group.rank === 0) cacheBytes(model, 64);
  const cache = model.makeCache();
  whole = 0;
  const [off, scale] = mx.scope(() => {
    mx.eval(model.forward(mx.array([tokens.slice(0, 300)], "int32"), { cache }));
    let off = 0;
    for (let i = 300; i < tokens.length; i++) {
      const step = model.forward(mx.array([[tokens[i]!]], "int32"), { cache }).at(0, -1);
      off = Math.max(off, step.astype("float32").subtract(all.at(0, i)).abs().max().item());
    }
    return [off, all.abs().max().item()];
  });
  const others = read(model, beginnings);
  const besides = furthest(others, apart);
  // A ring takes the first token behind a prompt the long way.
  const rings = cache.filter((layer) => layer instanceof RotatingKVCache).length;
  const steps = name.includes("evenly") ? 0 : 30 * config.num_hidden_layers - rings;
  together = 0;
  const apartDecoded = furthestDecoded(model, wanted);
  const atOnce = steps === 0 || name.includes("experts") ? 0 : decoded * config.num_hidden_layers;
  const isRight =
    [off, besides, apartDecoded].every((far) => far / scale < (rings > 0 ? 0.15 : 0.05)) &&
    whole === steps &&
    together >= atOnce;
  if (!isRight) failed++;
  console.log(
    `${isRight ? "right" : "WRONG"}: ${name}, ${(off / scale).toFixed(4)}, ${(besides / scale).toFixed(4)}, ${(apartDecoded / scale).toFixed(4)}, ${whole} of ${steps}, ${together} of ${atOnce}`,
  );
  for (const one of cache) one.dispose();
  model.dispose();
  for (const logits of [all, apart, others, ...wanted]) logits.dispose();
}
process.exit(failed === 0 ? 0 : 1);
