/** Every way in which a checkpoint can be broken ends in an error that says what, where and what to do. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { warningsOf } from "../warnings";
import { convertModel } from "./convert";
import { foreignFormat } from "./formats/foreign";
import { loadModel } from "./load";

const sound = join(import.meta.dir, "../../test/fixtures/checkpoint");
const temporary = mkdtempSync(join(tmpdir(), "mlxlm-load-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);

let folders = 0;

/** A copy of the sound checkpoint, broken by `change`. */
function broken(change: (folder: string) => void): string {
  const folder = join(temporary, `${folders++}`);
  cpSync(sound, folder, { recursive: true });
  change(folder);
  return folder;
}

const write = (folder: string, name: string, content: string | object) =>
  writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));

const json = (folder: string, name: string) => JSON.parse(readFileSync(join(folder, name), "utf8"));

const config = (change: object) => (folder: string) =>
  write(folder, "config.json", { ...json(folder, "config.json"), ...change });

const weights = (change: (arrays: Map<string, mx.Tensor>) => unknown) => (folder: string) =>
  mx.scope(() => {
    const path = join(folder, "model.safetensors");
    const { arrays } = mx.loadSafetensors(path);
    mx.eval(arrays);
    change(arrays);
    rmSync(join(folder, "model.safetensors.index.json"), { force: true });
    rmSync(path);
    mx.saveSafetensors(path, arrays);
  });

const index = (change: (map: Record<string, string>) => unknown) => (folder: string) => {
  const content = json(folder, "model.safetensors.index.json");
  change(content.weight_map);
  write(folder, "model.safetensors.index.json", content);
};

const firstName = Object.keys(json(sound, "model.safetensors.index.json").weight_map)[0]!;

/** Gives a tensor of bytes a dtype and the shape that goes with it. */
const retyped = (dtype: "F64" | "F8_E5M2") => (folder: string) => {
  const path = join(folder, "model.safetensors");
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<string, Record<string, unknown>>;
  const tensor = header["model.norm.weight"]!;
  const [start, end] = tensor.data_offsets as [number, number];
  header["model.norm.weight"] = { ...tensor, dtype, shape: [(end - start) / (dtype === "F64" ? 8 : 1)] };
  const text = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([prefix, text, bytes.subarray(8 + length)]));
};

const cases: [name: string, change: (folder: string) => void, message: RegExp, code?: number][] = [
  ["no config", (f) => rmSync(join(f, "config.json")), /has no config\.json/, ExitCode.notFound],
  ["an empty config", (f) => write(f, "config.json", ""), /config\.json .* is empty/],
  [
    "a config that is cut off",
    (f) => write(f, "config.json", '{"model_type": "lla'),
    /config\.json .* not JSON: line 1, column 16/,
  ],
  [
    "a config with a comma too many",
    (f) => write(f, "config.json", '{\n  "model_type": "llama",\n}'),
    /config\.json .* not JSON: line 3, column 1: expected a name in double quotes$/,
  ],
  [
    "an index that is cut off",
    (f) => write(f, "model.safetensors.index.json", '{"weight_map": {\n"a": "b"'),
    /index\.json .* not JSON: line 2, column 9: expected "," or "}", but the text ends$/,
  ],
  ["a config that is a list", (f) => write(f, "config.json", "[]"), /must hold an object, not a list/],
  ["a config that is null", (f) => write(f, "config.json", "null"), /must hold an object, not null/],
  [
    "a config that nests too deep",
    (f) => write(f, "config.json", `{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}`),
    /nests deeper/,
  ],
  ["no model_type", config({ model_type: undefined }), /"model_type" is missing/],
  ["a model_type that is a number", config({ model_type: 7 }), /"model_type" is 7/],
  ["an unknown model_type", config({ model_type: "lama" }), /"lama" are not supported/, ExitCode.notFound],
  ["a model_type that is a path", config({ model_type: "../../etc/passwd" }), /not supported/, ExitCode.notFound],
  ["a model_type that every object has", config({ model_type: "constructor" }), /not supported/, ExitCode.notFound],
  ["a size as text", config({ hidden_size: "64" }), /"hidden_size" is "64"/],
  ["a negative size", config({ num_hidden_layers: -1 }), /"num_hidden_layers" is -1/],
  [
    "layers without end",
    config({ num_hidden_layers: 2 ** 40 }),
    /1099511627776 layers, but there are only \d+ tensors/,
  ],
  ["a missing size", config({ hidden_size: undefined }), /"hidden_size"/],
  ["heads that don't divide", config({ num_attention_heads: 3 }), /num_attention_heads/],
  ["Python code", config({ model_file: "model.py" }), /Python/, ExitCode.notFound],
  [
    "another tool's quantization",
    config({ quantization: undefined, quantization_config: { quant_method: "quip" } }),
    /"quip"/,
    ExitCode.notFound,
  ],
  [
    "no weights",
    (f) => rmSync(join(f, "model.safetensors.index.json")) ?? rmSync(join(f, "model.safetensors")),
    /has no weights/,
    ExitCode.notFound,
  ],
  [
    "a shard that is missing",
    (f) => rmSync(join(f, "model.safetensors")),
    /lacks the weight file model\.safetensors/,
    ExitCode.notFound,
  ],
  ["an index without a map", (f) => write(f, "model.safetensors.index.json", { metadata: {} }), /"weight_map"/],
  [
    "an index that names a parent folder",
    index((map) => {
      map[firstName] = "../model.safetensors";
    }),
    /outside the folder/,
  ],
  [
    "an index that names an absolute path",
    index((map) => {
      map[firstName] = "/etc/hostname";
    }),
    /outside the folder/,
  ],
  ["a part that is missing", (f) => halves(f) ?? rmSync(join(f, parts[1]!)), /lacks the weight file model-00002/, 3],
  ["a link to nothing", (f) => linked(f) ?? rmSync(join(f, "../elsewhere"), { recursive: true }), /no config\.json/, 3],
  [
    "a part that is a link to nothing",
    (f) => halves(f) ?? rmSync(join(f, parts[0]!)) ?? symlinkSync("/nowhere/at/all", join(f, parts[0]!)),
    /lacks the weight file model-00001/,
    3,
  ],
  ["weights that are cut off", (f) => truncateSync(join(f, "model.safetensors"), 5000), /cut off/],
  ["weights of zero bytes", (f) => truncateSync(join(f, "model.safetensors"), 0), /has 0 bytes/],
  ["weights that are text", (f) => write(f, "model.safetensors", "<html>not found</html>"), /not a sound safetensors/],
  [
    "a missing tensor",
    weights((arrays) => {
      arrays.delete("model.norm.weight");
    }),
    /missing: model\.norm\.weight/,
  ],
  [
    "an unknown tensor",
    weights((arrays) => {
      arrays.set("extra.weight", mx.ones([2]));
    }),
    /unknown: extra\.weight/,
  ],
  [
    "a tensor of the wrong shape",
    weights((arrays) => {
      arrays.set("model.norm.weight", mx.ones([3]));
    }),
    /model\.norm\.weight is \(3\)/,
  ],
  ...(
    [
      ["a group size of none", { group_size: 0 }, /"quantization\.group_size" is 0, but must be 32, 64 or 128/],
      ["a group size that is a text", { group_size: "64" }, /"quantization\.group_size" is "64"/],
      ["bits that MLX lacks", { bits: 7 }, /"quantization\.bits" is 7, but must be 1, 2, 3, 4, 5, 6 or 8/],
      ["a mode of its own", { mode: "fp3" }, /"quantization\.mode" is "fp3", but must be "affine", "mxfp4"/],
      ["a norm that is quantized", { "model.norm": { bits: 4 } }, /entry for model\.norm, which cannot be quantized/],
      [
        "a layer's own bits that its weights have not",
        { lm_head: { group_size: 64, bits: 8 } },
        /layer lm_head has weight \(\d+, 8\), but 8 bits in groups of 64 need \(\d+, 16\) \(model\.safetensors\)/,
      ],
    ] as const
  ).map(([name, change, message]): (typeof cases)[number] => [
    `a quantization with ${name}`,
    (f) => config({ quantization: { ...json(f, "config.json").quantization, ...change } })(f),
    message,
  ]),
  [
    "a width that no group divides",
    config({ intermediate_size: 2 }),
    /layer model\.layers\.0\.mlp\.gate_proj has weight/,
  ],
  ...(["weight", "scales", "biases"] as const).flatMap((part): typeof cases => {
    const name = `model.layers.1.self_attn.v_proj.${part}`;
    const other = { weight: "float32", scales: "int32", biases: "uint32" } as const;
    const set = (tensor: (is: mx.Tensor) => mx.Tensor) =>
      weights((arrays) => arrays.set(name, tensor(arrays.get(name)!)));
    const layer = /layer model\.layers\.1\.self_attn\.v_proj has/;
    return [
      [`${part} of no columns`, set((is) => mx.zeros([is.dim(0), 0], is.dtype)), layer],
      [`${part} of other rows`, set((is) => mx.zeros([is.dim(0) + 1, is.dim(1)], is.dtype)), layer],
      [`${part} with a third dimension`, set((is) => is.expandDims(0)), layer],
      [`${part} of another dtype`, set((is) => is.astype(other[part])), layer],
    ];
  }),
  [
    "weights of integers",
    weights((arrays) => arrays.set("model.norm.weight", mx.ones([64], "int32"))),
    /tensor model\.norm\.weight \(model\.safetensors\) is int32, but the model has floating point there/,
  ],
  ["numbers of 64 bits", retyped("F64"), /is F64, which MLX does not read/],
  ["numbers of 8 bits of another kind", retyped("F8_E5M2"), /is F8_E5M2, which MLX does not read/],
  [
    "weights that are not numbers",
    weights((arrays) => arrays.set("model.norm.weight", mx.full([64], Number.NaN, "bfloat16"))),
    /tensor model\.norm\.weight \(model\.safetensors\) holds NaN/,
  ],
  ["experts without end", config({ num_local_experts: 2 ** 40 }), /"num_local_experts" is 1099511627776, more than/],
  ["no tokenizer", (f) => rmSync(join(f, "tokenizer.json")), /tokenizer/i, ExitCode.notFound],
  ["a tokenizer that is cut off", (f) => truncateSync(join(f, "tokenizer.json"), 100), /tokenizer\.json/],
  ["a tokenizer of zero bytes", (f) => truncateSync(join(f, "tokenizer.json"), 0), /tokenizer\.json/],
];

const parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/** The weights in two files, with an index of them. */
function halves(folder: string): undefined {
  const map: Record<string, string> = {};
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(join(folder, "model.safetensors"));
    const all = [...arrays];
    for (const [i, part] of parts.entries()) {
      const half = all.filter((_, k) => k % 2 === i);
      for (const [name] of half) map[name] = part;
      mx.saveSafetensors(join(folder, part), new Map(half));
    }
  });
  rmSync(join(folder, "model.safetensors"));
  write(folder, "model.safetensors.index.json", { weight_map: map });
}

/** Everything elsewhere, the folder full of links to it. */
function linked(folder: string): undefined {
  const elsewhere = join(folder, "../elsewhere");
  rmSync(elsewhere, { recursive: true, force: true });
  cpSync(folder, elsewhere, { recursive: true });
  for (const name of readdirSync(folder)) {
    rmSync(join(folder, name), { recursive: true });
    symlinkSync(join(elsewhere, name), join(folder, name));
  }
}

/** Tensors of the whole model, each by a number. */
async function loadedSums(folder: string): Promise<Record<string, number>> {
  const { model } = await loadModel(folder);
  const sums = mx.scope(() => model.namedParameters().map(([name, x]) => [name, x.astype("float32").sum().item()]));
  model.dispose();
  return Object.fromEntries(sums);
}

describe("an index of another build beside weights that are whole", () => {
  const everywhere = (file: (i: number) => string) =>
    index((map) => {
      for (const [i, name] of Object.keys(map).entries()) map[name] = file(i);
    });
  const builds: [string, (folder: string) => void][] = [
    ["it names more files", (f) => halves(f) ?? everywhere((i) => `model-0000${(i % 5) + 1}-of-00005.safetensors`)(f)],
    ["it names one file that is not there", index((map) => Object.assign(map, { [firstName]: "model-2.safetensors" }))],
    ["it has tensors in the other file", (f) => halves(f) ?? everywhere((i) => parts[(i + 1) % 2]!)(f)],
    ["it has a tensor that is nowhere", index((map) => Object.assign(map, { "layers.9.ghost": "model.safetensors" }))],
    [
      "it knows of the first part only",
      (f) =>
        halves(f) ??
        index((map) => {
          for (const name of Object.keys(map)) if (map[name] === parts[1]) delete map[name];
        })(f),
    ],
  ];
  test.each(builds)("%s: a warning, and all of it", async (_, change) => {
    const folder = broken(change);
    let sums = {};
    const warnings = await warningsOf(async () => {
      sums = await loadedSums(folder);
    });
    expect(warnings).toEqual([
      `model.safetensors.index.json of ${folder} is of other files than the folder has: it is passed over`,
    ]);
    expect(sums).toEqual(await loadedSums(sound));
  });
});

test("links are the user's own: a folder of them, and weights on another disk", async () => {
  const folder = broken(linked);
  expect(await warningsOf(async () => expect(await loadedSums(folder)).toEqual(await loadedSums(sound)))).toEqual([]);
});

describe("a broken checkpoint", () => {
  test.each(cases)("%s", async (_, change, message, code = ExitCode.failure) => {
    const folder = broken(change);
    const before = mx.liveHandles();
    const error = await loadModel(folder).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
    expect(error.code).toBe(code);
    expect(mx.liveHandles()).toBe(before);
  });
});

test("settings of another tool that say nothing are none", () => {
  expect(foreignFormat({ quantization_config: {} }, "./my-model")).toBeNull();
});

test("a sound checkpoint loads, and frees all it took", async () => {
  mx.eval(mx.random.state.get());
  const before = mx.liveHandles();
  const { model, tokenizer } = await loadModel(sound);
  // The weights that the file replaced leave no graph behind.
  expect(mx.isEvaluated(mx.random.state.get())).toBe(true);
  expect(model.vocabSize).toBeGreaterThan(100);
  expect(tokenizer.vocabSize).toBeLessThanOrEqual(model.vocabSize);
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("links into the blobs of the same cached repo are followed", async () => {
  const repo = join(temporary, "models--org--name");
  const snapshot = join(repo, "snapshots/abc");
  mkdirSync(join(repo, "blobs"), { recursive: true });
  mkdirSync(snapshot, { recursive: true });
  for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
    cpSync(join(sound, name), join(repo, "blobs", name));
    symlinkSync(`../../blobs/${name}`, join(snapshot, name));
  }
  const { model } = await loadModel(snapshot);
  model.dispose();
});

describe("a head of its own that config.json does not speak of", () => {
  test("is passed over with a warning, as mlx-lm reads the embedding there", async () => {
    const folder = join(temporary, "headed");
    await convertModel({ path: sound }, folder, { dequantize: true });
    const warned = async (change: object) => {
      config(change)(folder);
      return (await warningsOf(async () => (await loadModel(folder)).model.dispose())).map((line) => line.slice(0, 80));
    };
    const warning = `${folder} has a lm_head.weight that is not used: config.json has no "tie_word_embeddings"`;
    expect(await warned({ tie_word_embeddings: undefined })).toEqual([warning.slice(0, 80)]);
    expect(await warned({ tie_word_embeddings: false })).toEqual([]);
    // A file that says it is tied, and holds another head than the embedding, contradicts itself.
    const other = `${folder} has a lm_head.weight of its own that is not used: config.json says`;
    expect(await warned({ tie_word_embeddings: true })).toEqual([other.slice(0, 80)]);
  });

  test("is used where config.json has null", async () => {
    const folder = join(temporary, "null-tied");
    await convertModel({ path: sound }, folder, { dequantize: true });
    config({ tie_word_embeddings: null })(folder);
    const warnings = await warningsOf(async () => {
      const { model } = await loadModel(folder);
      expect(model.namedParameters().map(([name]) => name)).toContain("lm_head.weight");
      model.dispose();
    });
    expect(warnings).toEqual([]);
  });

  test("is no news where config.json says tied, and it is the embedding again", async () => {
    const folder = join(temporary, "tied");
    await convertModel({ path: sound }, folder, { dequantize: true });
    config({ tie_word_embeddings: true })(folder);
    const path = join(folder, "model.safetensors");
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(path);
      arrays.set("lm_head.weight", arrays.get("model.embed_tokens.weight")!);
      mx.eval(arrays);
      mx.saveSafetensors(path, arrays);
    });
    expect(await warningsOf(async () => (await loadModel(folder)).model.dispose())).toEqual([]);
  });

  test("is dropped with its scales where it is packed", async () => {
    const folder = join(temporary, "packed-head");
    await convertModel({ path: sound }, folder, {});
    config({ tie_word_embeddings: true })(folder);
    const path = join(folder, "model.safetensors");
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(path);
      for (const part of ["weight", "scales", "biases"]) {
        arrays.set(`lm_head.${part}`, arrays.get(`model.embed_tokens.${part}`)!);
      }
      mx.eval(arrays);
      mx.saveSafetensors(path, arrays);
    });
    const { model } = await loadModel(folder);
    expect(model.namedParameters().some(([name]) => name.startsWith("lm_head"))).toBe(false);
    model.dispose();
  });
});
