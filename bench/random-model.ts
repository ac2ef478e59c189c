/**
 * Saves a model of one shape with random weights, with the demo's tokenizer: for commands that need a folder.
 *
 *   bun bench/random-model.ts llama-8b /tmp/llama-8b [--dtype bfloat16] [--bits 4] [--layers 8] [--words]
 *
 * With --words each token has a text: the tokenizer gets words until there are as many as the model has tokens.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { saveModel } from "../src/convert/save";
import { demoFolder } from "../src/demo/folder";
import * as mx from "../src/mlx";
import { createModel } from "../src/models";
import { quantize } from "../src/nn";
import shapes from "./shapes.json";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    layers: { type: "string" },
    words: { type: "boolean", default: false },
  },
});
const [name, folder] = positionals;
const shape = shapes[name as keyof typeof shapes];
if (!shape || !folder) throw new Error(`bun bench/random-model.ts SHAPE FOLDER, with one of ${Object.keys(shapes)}`);
const config = { ...shape, ...(values.layers && { num_hidden_layers: Number(values.layers) }) };

mx.random.seed(0);
const model = await createModel(config, "bench/shapes.json");
mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(values.dtype as mx.Dtype)])));
const quantization = values.bits ? { groupSize: 64, bits: Number(values.bits) } : null;
if (quantization) quantize(model, quantization);
await saveModel(
  folder,
  model,
  {
    ...config,
    torch_dtype: values.dtype,
    ...(quantization && { quantization: { group_size: quantization.groupSize, bits: quantization.bits } }),
  },
  { source: demoFolder() },
);

if (values.words) {
  const file = join(folder, "tokenizer.json");
  const tokenizer = (await Bun.file(file).json()) as { model: { vocab: Record<string, number> } };
  const { vocab } = tokenizer.model;
  for (let id = Object.keys(vocab).length; id < config.vocab_size; id++) vocab[`Ġw${id}`] = id;
  await Bun.write(file, JSON.stringify(tokenizer));
}
