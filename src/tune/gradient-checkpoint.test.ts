/** Recomputed blocks have the gradients of stored ones, also where later blocks attend to what an earlier one gave. */
import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import { tinyModel, tinySharing } from "../../test/tiny-model";
import * as mx from "../mlx";
import { checkpointBlocks } from "./gradient-checkpoint";
import { trainableParameters } from "./linear-to-lora";

/** Every other layer takes what the one ahead made of keys and values, and the first one gives. */
const pairs = {
  model_type: "hunyuan",
  num_hidden_layers: 4,
  num_experts: 4,
  moe_topk: 2,
  moe_intermediate_size: 8,
  use_cla: true,
};

for (const [name, config] of Object.entries({ llama: {}, gemma4_text: tinySharing, hunyuan: pairs })) {
  test(name, async () => {
    const model = await tinyModel(config);
    const named = trainableParameters(model);
    const inputs = mx.array([[5, 9, 2, 33, 41, 8]], "uint32");
    const gradients = () =>
      mx.scope(() => {
        const [, found] = mx.valueAndGrad((parameters: mx.Tensor[]) => {
          model.update(parameters.map((tensor, i) => [named[i]![0], tensor]));
          return model.forward(inputs).square().mean();
        })(named.map(([, tensor]) => tensor));
        return (found as mx.Tensor[]).map((gradient) => gradient.toArray() as Float32Array);
      });
    const keep = named.map(([, tensor]) => mx.keep(tensor));
    const stored = gradients();
    model.update(named);
    const undo = checkpointBlocks(model.layers);
    const again = gradients();
    undo();
    model.update(named);
    expect(again.length).toBe(stored.length);
    for (const [i, gradient] of again.entries()) expectValues(gradient, stored[i]!, { tolerance: 1e-5 });
    expect(stored.some((gradient) => gradient.some((value) => value !== 0))).toBe(true);
    mx.release(keep);
    model.dispose();
  });
}
