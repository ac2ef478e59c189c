/** Models of GGUF files that run with weights in the file's own blocks. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomAdapter } from "../../../test/adapter";
import { ggufBytes, type RawTensor, raw, tinyLlama } from "../../../test/gguf-file";
import { blocksOf, everyType } from "../../../test/parity/gguf-blocks";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { isBlockLayer } from "../../nn";
import { applyAdapters } from "../../tune/adapter-files";
import { AdapterPool } from "../../tune/adapter-pool";
import { linearToLora } from "../../tune/linear-to-lora";
import { loadModel, openWeights } from "../load";
import { saveModel } from "../save";
import { readConfig } from "../source";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-blocks-"));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(() => mx.random.seed(1));

const width = 256;

/** A Llama of two layers with every matrix in one type, but for values and down projections where another is given. */
function model(typeName: string, otherName = typeName): string {
  let seed = 0;
  const matrix = (name: string, rows: number): RawTensor => {
    const wanted = /attn_v|ffn_down/.test(name) ? otherName : typeName;
    const type = everyType.find(({ name }) => name === wanted)!;
    const data = blocksOf(type, (rows * width) / type.block + ++seed).subarray(seed * type.bytes);
    return { name, dims: [width, rows], code: type.code, data };
  };
  // The matrices' numbers are large: float16 has room for what they make of little.
  const norm = (name: string): RawTensor => ({
    ...{ name, dims: [width], code: 0 },
    data: new Uint8Array(new Float32Array(width).fill(1e-5).buffer),
  });
  const layer = (i: number) => [
    norm(`blk.${i}.attn_norm.weight`),
    norm(`blk.${i}.ffn_norm.weight`),
    ...["attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map((name) =>
      matrix(`blk.${i}.${name}.weight`, width),
    ),
    ...["attn_k", "attn_v"].map((name) => matrix(`blk.${i}.${name}.weight`, width / 2)),
  ];
  const path = join(folder, `${typeName}-${otherName}.gguf`);
  const changed: Record<string, ReturnType<typeof raw.u32>> = {
    "llama.embedding_length": raw.u32(width),
    "llama.feed_forward_length": raw.u32(width),
    "llama.block_count": raw.u32(2),
  };
  const metadata = tinyLlama.metadata.map(([key, value]) => [key, changed[key] ?? value] as [string, typeof value]);
  const tensors = [
    { ...matrix("token_embd.weight", 4) },
    norm("output_norm.weight"),
    { ...matrix("output.weight", 4) },
    ...layer(0),
    ...layer(1),
  ];
  writeFileSync(path, ggufBytes({ metadata, tensors }));
  return path;
}

const prompt = () => mx.array([[0, 1, 2]], "uint32");

test.each(["Q4_K", "Q5_K", "Q6_K", "Q3_K", "IQ3_S", "TQ1_0"])(
  "%s: little memory, and the numbers of the file",
  async (name) => {
    const path = model(name);
    const live = mx.liveHandles();
    const { model: loaded } = await loadModel(path);
    const weights = loaded.namedParameters();
    const bytes = weights.reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
    expect(loaded.namedModules().filter(([, module]) => isBlockLayer(module))).toHaveLength(16);
    expect(bytes).toBeLessThan(1.15 * statSync(path).size);
    const opened = await openWeights(path, await readConfig(path));
    expect(opened.model.namedModules().some(([, module]) => isBlockLayer(module))).toBe(false);
    mx.scope(() => {
      const logits = loaded.forward(prompt()).astype("float32");
      const forms = opened.model.forward(prompt()).astype("float32");
      const off = logits.subtract(forms).abs().max().item() / forms.abs().max().item();
      expect(off).toBeLessThan(0.1);
    });
    loaded.dispose();
    opened.model.dispose();
    expect(mx.liveHandles()).toBe(live);
  },
);

test("types whose form in MLX is as small keep that", async () => {
  const { model: loaded } = await loadModel(model("Q4_1"));
  expect(loaded.namedModules().some(([, module]) => isBlockLayer(module))).toBe(false);
  loaded.dispose();
});

test.each([
  ["Q3_K", "Q3_K"],
  ["Q4_K", "Q6_K"],
])("in %s and %s a token after the others is what it is among them", async (most, others) => {
  const { model: loaded } = await loadModel(model(most, others));
  mx.scope(() => {
    const whole = loaded.forward(prompt()).at(0, -1).astype("float32");
    const cache = loaded.makeCache();
    loaded.forward(prompt().at(mx.ellipsis, mx.slice(0, 2)), { cache });
    mx.eval(cache.flatMap((one) => one.state));
    const last = loaded
      .forward(prompt().at(mx.ellipsis, mx.slice(2)), { cache })
      .at(0, -1)
      .astype("float32");
    expect(last.subtract(whole).abs().max().item()).toBeLessThan(2e-3 * whole.abs().max().item());
  });
  loaded.dispose();
});

test("an adapter lies over blocks", async () => {
  const path = model("Q6_K");
  const live = mx.liveHandles();
  const { model: loaded } = await loadModel(path);
  const before = mx.scope(() => loaded.forward(prompt()).astype("float32").toArray() as Float32Array);
  mx.eval(mx.random.state.get());
  mx.scope(() => linearToLora(loaded, 0, { rank: 4, scale: 1, dropout: 0, keys: ["self_attn.q_proj", "lm_head"] }));
  const same = mx.scope(() => loaded.forward(prompt()).astype("float32").toArray() as Float32Array);
  const most = Math.max(...before.map(Math.abs));
  for (const [i, value] of same.entries()) expect(Math.abs(value - before[i]!)).toBeLessThan(2e-3 * most);
  loaded.dispose();
  expect(mx.liveHandles()).toBe(live);
});

test("adapters of a pool lie over blocks", async () => {
  const path = model("Q6_K");
  const adapter = join(folder, "adapter");
  const keys = ["self_attn.q_proj", "lm_head"];
  await randomAdapter(adapter, (await loadModel(path)).model, { rank: 4, seed: 1, keys, spread: 0.1 });
  const alone = (await loadModel(path)).model;
  await applyAdapters(alone, adapter);
  const shared = (await loadModel(path)).model;
  const pool = new AdapterPool(shared);
  const pooled = await pool.load(adapter);
  mx.scope(() => {
    const [own, other] = [alone, shared].map((one) =>
      pool.reading([pooled], () => one.forward(prompt()).astype("float32").toArray() as Float32Array),
    ) as [Float32Array, Float32Array];
    const most = Math.max(...own.map(Math.abs));
    for (const [i, value] of other.entries()) expect(Math.abs(value - own[i]!)).toBeLessThan(2e-3 * most);
  });
  pool.dispose();
  alone.dispose();
  shared.dispose();
});

test("such a model cannot be saved, and the error says what can", async () => {
  const { model: loaded, config } = await loadModel(model("Q6_K"));
  const live = mx.liveHandles();
  const saving = saveModel(join(folder, "saved"), loaded, config, { source: folder });
  const error = (await saving.catch((error: unknown) => error)) as UserError;
  expect(error).toBeInstanceOf(UserError);
  expect(`${error.message} ${error.hint}`).toContain("mlxlm convert");
  expect(mx.liveHandles()).toBeLessThan(live);
});

test("a model whose file is cut says so, and the next one runs", async () => {
  const path = model("Q6_K");
  const { model: cut } = await loadModel(path);
  truncateSync(path, 8192);
  const answer = (from: typeof cut) =>
    mx.scope(() =>
      from
        .forward(mx.array([[1, 2, 3]], "int32"))
        .sum()
        .item(),
    );
  expect(() => answer(cut)).toThrow(new UserError(`${path} became shorter while it was in use`));
  cut.dispose();
  const whole = model("Q3_K");
  const { model: next } = await loadModel(whole);
  expect(Number.isFinite(answer(next))).toBe(true);
  next.dispose();
});

test("a mapped file is let go with its tensors, and must be long enough", () => {
  const path = join(folder, "bytes");
  writeFileSync(
    path,
    Uint8Array.from({ length: 10_000 }, (_, i) => i),
  );
  const live = mx.liveHandles();
  for (const start of [0, 1, 31, 4095, 4096, 4100]) {
    if (start < 64) {
      expect(() => mx.mapFile(path, start, [4])).toThrow("cannot be mapped");
      continue;
    }
    mx.scope(() => {
      const bytes = mx.mapFile(path, start, [2, 1000]);
      expect([...(bytes.toArray() as Uint8Array)]).toEqual([...readFileSync(path).subarray(start, start + 2000)]);
      // Writing to a result that takes over its memory leaves the file alone.
      expect(bytes.add(1).flatten().at(0).item()).toBe((start + 1) & 255);
    });
  }
  expect(mx.liveHandles()).toBe(live);
  const maps = () => readFileSync("/proc/self/maps", "utf8").split(path).length;
  if (process.platform === "linux") expect(maps()).toBe(1);
  expect(() => mx.mapFile(path, 9000, [2000])).toThrow("cannot be mapped");
  expect(() => mx.mapFile(join(folder, "none"), 4096, [1])).toThrow("cannot be opened");
  truncateSync(path, 100);
  expect(() => mx.mapFile(path, 4096, [1])).toThrow("cannot be mapped");
});
