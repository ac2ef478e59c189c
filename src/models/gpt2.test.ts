import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { Args, Model } from "./gpt2";

test("a checkpoint's head stays beside the trunk where the embedding is not its", () => {
  const sizes = { n_embd: 32, n_head: 2, n_layer: 1, n_positions: 8, layer_norm_epsilon: 1e-5, vocab_size: 16 };
  for (const tie_word_embeddings of [true, false]) {
    const model = new Model(Args.parse({ ...sizes, tie_word_embeddings }));
    mx.scope(() => {
      const named = ["lm_head.weight", "transformer.wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.bias"];
      const sanitized = model.sanitize(new Map(named.map((name) => [name, mx.zeros([2, 3])])));
      const head = tie_word_embeddings ? [] : ["lm_head.weight"];
      expect([...sanitized.keys()]).toEqual([...head, "model.wte.weight", "model.h.0.attn.c_attn.weight"]);
      expect(sanitized.get("model.h.0.attn.c_attn.weight")!.shape).toEqual([3, 2]);
    });
    expect(model.namedParameters().some(([name]) => name === "lm_head.weight")).toBe(!tie_word_embeddings);
    model.dispose();
  }
});
