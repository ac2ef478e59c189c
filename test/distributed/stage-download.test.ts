/** A pipeline's rank downloads the weight files that hold its layers, and those that hold what all need. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { filesOfLayers } from "../../src/convert/stage-files";
import { demoFolder } from "../../src/demo/folder";
import { openModel } from "../../src/generate/open-model";
import { resolveModel } from "../../src/hub/resolve";
import * as mx from "../../src/mlx";
import { startHub } from "../hub-server";
import { row } from "../parity/decode";
import { expectValues } from "../parity/fixtures";
import { runRanks } from "./ranks";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-stage-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The demo model with a file for each layer, and one for the rest. */
function inParts(): { files: Record<string, string | Uint8Array>; layers: number } {
  const { arrays } = mx.loadSafetensors(join(demoFolder(), "model.safetensors"));
  const partOf = (name: string) => /\.layers\.(\d+)\./.exec(name)?.[1];
  const layers = new Set([...arrays.keys()].map(partOf).filter((part) => part !== undefined)).size;
  const fileOf = (name: string) => {
    const number = String(Number(partOf(name) ?? -1) + 2).padStart(5, "0");
    return `model-${number}-of-${String(layers + 1).padStart(5, "0")}.safetensors`;
  };
  const files: Record<string, string | Uint8Array> = {};
  for (const name of readdirSync(demoFolder())) {
    if (!name.endsWith(".safetensors")) files[name] = readFileSync(join(demoFolder(), name));
  }
  const map = Object.fromEntries([...arrays.keys()].map((name) => [name, fileOf(name)]));
  for (const file of new Set(Object.values(map))) {
    mx.saveSafetensors(join(folder, file), new Map([...arrays].filter(([name]) => map[name] === file)));
    files[file] = readFileSync(join(folder, file));
  }
  files["model.safetensors.index.json"] = JSON.stringify({ weight_map: map });
  return { files, layers };
}

test("its own layers come, the others' are known by their headers, and the answer is the whole model's", async () => {
  const { files, layers } = inParts();
  const weights = Object.keys(files)
    .filter((name) => name.endsWith(".safetensors"))
    .sort();
  const hub = startHub({ "org/name": { files, large: weights } });
  try {
    const prompt = [5, 6, 7, 8];
    mx.random.seed(7);
    const { model } = await openModel(demoFolder());
    const expected = [...mx.scope(() => model.forward(row(prompt)).at(0, -1).toArray() as Float32Array)];
    const drawn = mx.random.state.get().toList();
    model.dispose();

    const half = Math.floor(layers / 2);
    const env = { HF_ENDPOINT: hub.url, HF_HUB_DISABLE_XET: "1", HF_HUB_OFFLINE: "0" };
    const ranks = await runRanks<
      Record<"first" | "again", { logits: number[]; drawn: number[]; files: string[] }> & {
        bytes: number;
        leaked: number;
      }
    >("stage-download-rank.ts", 2, { env, args: [folder, ...prompt.map(String)] });
    for (const [rank, { bytes, first, again, leaked }] of ranks.entries()) {
      const own = rank === 0 ? weights.slice(1, 1 + half) : weights.slice(1 + half);
      expect(first.files).toEqual([weights[0]!, ...own]);
      expect(bytes).toBe(first.files.reduce((sum, name) => sum + files[name]!.length, 0));
      expectValues(first.logits, expected, { tolerance: 1e-4 });
      expect(first.drawn).toEqual(drawn as number[]);
      expect(again).toEqual(first);
      expect(leaked).toBe(0);
    }

    // One process wants all of it.
    process.env.HF_ENDPOINT = hub.url;
    process.env.HF_HUB_CACHE = join(folder, "cache-1");
    const { path } = await resolveModel("org/name", { offline: false });
    expect(
      readdirSync(path)
        .filter((name) => name.endsWith(".safetensors"))
        .sort(),
    ).toEqual(weights);
  } finally {
    delete process.env.HF_ENDPOINT;
    delete process.env.HF_HUB_CACHE;
    hub.stop();
  }
}, 60_000);

test.each([
  ["layers", { "model.embed": "a", "model.layers.0.x": "a", "model.layers.1.x": "b", "model.norm": "c" }, ["a", "c"]],
  ["other names", { "transformer.h.0.x": "a", "transformer.h.1.x": "b", "transformer.h.1.experts.0.y": "b" }, ["a"]],
  [
    "layers of a picture's encoder",
    { "vision.layers.0.x": "v", "vision.layers.1.x": "v", "m.layers.0.x": "a", "m.layers.1.x": "b" },
    ["v", "a"],
  ],
  [
    "layers for drafts behind them",
    { "model.layers.0.x": "a", "model.layers.1.x": "b", "model.layers.2.x": "c" },
    ["a", "c"],
  ],
  ["two trunks", { "a.layers.0.x": "a", "a.layers.1.x": "a", "b.layers.0.x": "b", "b.layers.1.x": "b" }, null],
  ["no layers", { "model.layers.0.x": "a", x: "b" }, null],
] as const)("files of %s", (_, index, expected) => {
  const chosen = filesOfLayers(new Map(Object.entries(index)), { start: 0, end: 1, count: 2 });
  expect(chosen && [...chosen]).toEqual(expected as string[] | null);
});
