/** Models in GGUF files: saved as the reference saves them, loaded as they were; broken files end in errors. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ggufBytes, type RawGguf, type RawTensor, raw, text, tinyLlama, u32, zeros } from "../../../test/gguf-file";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../../test/parity/formula-model";
import { ExitCode, UserError } from "../../errors";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { dequantize } from "../../nn";
import { convertModel } from "../convert";
import { loadModel, openWeights } from "../load";
import { saveModel } from "../save";
import { readConfig } from "../source";
import { exportGguf } from "./export";
import { readGgufHeader } from "./header";
import { GgufData } from "./tensors";

const checkpoint = join(import.meta.dir, "../../../test/fixtures/checkpoint");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-"));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };

const sentences = ["Hello world", "  two  spaces\n\nand lines ", "It's 12345 and ünïcode 🦊", "", "<|begin|>x<|end|>"];

/** Of the last position, in float32. */
async function logitsOf(path: string, ids: readonly number[]): Promise<Float32Array> {
  const { model } = await openWeights(path, await readConfig(path));
  dequantize(model);
  return inFloat32(model, ids);
}

function inFloat32(model: LanguageModel, ids: readonly number[]): Float32Array {
  const logits = mx.scope(() => {
    model.update(model.namedParameters().map(([name, tensor]) => [name, tensor.astype("float32")]));
    return model
      .forward(row([...ids]))
      .at(0, -1)
      .toArray() as Float32Array;
  });
  model.dispose();
  return logits;
}

describe("export", () => {
  const theirs = fixture<{
    tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
    metadata: Record<string, unknown>;
  }>("gguf.json");

  test("tensors are mlx-lm's, and so are the metadata that it has right", async () => {
    const live = mx.liveHandles();
    await exportGguf(checkpoint, at("f16.gguf"));
    expect(mx.liveHandles()).toBe(live);
    const bytes = readFileSync(at("f16.gguf"));
    const { tensors, metadata } = await readGgufHeader(at("f16.gguf"));
    const hashed = [...tensors].map(([name, { type, shape, start, bytes: length }]) => {
      const hash = createHash("sha256").update(bytes.subarray(start, start + length));
      return [name, [{ F16: "float16", F32: "float32" }[type.name], shape, hash.digest("hex").slice(0, 16)]];
    });
    expect(Object.fromEntries(hashed)).toEqual(theirs.tensors);

    // Theirs calls every tokenizer SentencePiece's, names every model "llama", and has an old version of the layout.
    const tokenizer = ["model", "scores", "token_type"].map((field) => `tokenizer.ggml.${field}`);
    const different = [...tokenizer, "general.name", "general.quantization_version"];
    const asTheirs = [...metadata].filter(([key]) => Object.hasOwn(theirs.metadata, key) && !different.includes(key));
    expect(Object.fromEntries(asTheirs)).toEqual(
      Object.fromEntries(asTheirs.map(([key]) => [key, theirs.metadata[key] as never])),
    );
    expect(Object.keys(theirs.metadata).filter((key) => !metadata.has(key))).toEqual(["tokenizer.ggml.scores"]);
  });

  test("a file is loaded as the model that it was, with its tokenizer", async () => {
    await exportGguf(checkpoint, at("loaded.gguf"));
    const before = await loadModel(checkpoint);
    const after = await loadModel(at("loaded.gguf"));
    for (const sentence of sentences) {
      expect(await after.tokenizer.encode(sentence)).toEqual(await before.tokenizer.encode(sentence));
    }
    const ids = await before.tokenizer.encode(sentences.join(" "));
    expect(after.tokenizer.decode(ids)).toBe(before.tokenizer.decode(ids));
    expect(after.tokenizer.eosTokenIds).toEqual(before.tokenizer.eosTokenIds);
    const messages = [{ role: "user", content: "Hi" }];
    expect(after.tokenizer.applyChatTemplate(messages)).toBe(before.tokenizer.applyChatTemplate(messages));
    before.model.dispose();
    after.model.dispose();
    expectValues(await logitsOf(at("loaded.gguf"), ids), await logitsOf(checkpoint, ids), { tolerance: 1e-4 });
  });

  test("Q8_0 stays packed, and converts to a folder", async () => {
    await exportGguf(checkpoint, at("q8.gguf"), { type: "Q8_0" });
    await convertModel({ path: at("q8.gguf") }, at("from q8"), {});
    const config = JSON.parse(readFileSync(join(at("from q8"), "config.json"), "utf8"));
    expect(config.quantization).toEqual({ group_size: 32, bits: 8 });
    const [one, other] = [await loadModel(at("q8.gguf")), await loadModel(at("from q8"))];
    mx.scope(() => {
      const logits = ({ model }: typeof one) =>
        model
          .forward(row([1, 2, 3]))
          .astype("float32")
          .toArray();
      expect(logits(one)).toEqual(logits(other));
    });
    expect(await other.tokenizer.encode(sentences[0]!)).toEqual(await one.tokenizer.encode(sentences[0]!));
    one.model.dispose();
    other.model.dispose();
  });

  test("what GGUF has no form for is refused before anything is written", async () => {
    const refused = async (change: (folder: string) => void, message: RegExp) => {
      const copy = at("copy");
      cpSync(checkpoint, copy, { recursive: true });
      change(copy);
      const live = mx.liveHandles();
      const error = await exportGguf(copy, at("never.gguf")).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(UserError);
      expect(error.message).toMatch(message);
      expect(mx.liveHandles()).toBe(live);
      expect(readdirSync(folder)).not.toContain("never.gguf");
      rmSync(copy, { recursive: true });
    };
    const edit = (name: string, change: (json: Record<string, object>) => void) => (copy: string) => {
      const json = JSON.parse(readFileSync(join(copy, name), "utf8"));
      change(json);
      writeFileSync(join(copy, name), JSON.stringify(json));
    };
    await refused(
      edit("config.json", (json) => Object.assign(json, { model_type: "gptj" })),
      /"gptj" cannot be saved as GGUF/,
    );
    await refused(
      edit("config.json", (json) => Object.assign(json, { rope_scaling: { type: "dynamic", factor: 2 } })),
      /a rotation of type "dynamic"/,
    );
    await refused((copy) => rmSync(join(copy, "tokenizer.json")), /has no tokenizer\.json/);
    await refused(
      edit("tokenizer.json", (json) => Object.assign(json, { pre_tokenizer: { ...byteLevel, use_regex: false } })),
      /splits words by a rule/,
    );
    await refused(
      edit("tokenizer.json", ({ model }) => Object.assign(model!, { type: "Unigram" })),
      /of the type Unigram/,
    );
  });
});

/** Of the models' fixtures: what Python computes for weights by formula. */
interface Logits extends FormulaModel {
  prompt: number[];
  prefill: { last: string };
}

const tokenizerJson = {
  version: "1.0",
  added_tokens: [],
  pre_tokenizer: byteLevel,
  decoder: byteLevel,
  model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: [["a", "b"]] },
};

/** With weights that a float16 can be. */
const rounded = (model: FormulaModel) => formulaModel(model, "float16");

/** A folder with the model of a fixture, and its GGUF file. */
async function exported(name: string, model: FormulaModel): Promise<string> {
  const source = at(`${name} source`);
  mkdirSync(source);
  writeFileSync(join(source, "tokenizer.json"), JSON.stringify(tokenizerJson));
  await saveModel(at(name), await rounded(model), { max_position_embeddings: 256, ...model.config }, { source });
  await exportGguf(at(name), at(`${name}.gguf`));
  return at(`${name}.gguf`);
}

describe("architectures come back, with the logits that Python has for the original", () => {
  const names = ["llama", "llama_bias", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_yarn", "gemma3_text", "gpt_oss"];
  test.each([...names, "gemma3_text_untied"])("%s", async (name) => {
    const model = fixture<Logits>(`models/${name}.json`);
    const path = await exported(name, model);
    const logits = await logitsOf(path, model.prompt);
    expectValues(logits, inFloat32(await rounded(model), model.prompt), { tolerance: 1e-5 });
    // As far apart as weights in float16 put them.
    expectValues(logits, float32(model.prefill.last), { tolerance: 5e-2 });
  });

  test("Llama 3's stretched rotation", async () => {
    const { config, ...rest } = fixture<Logits>("models/llama_llama3.json");
    const bands = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
    const scaling = { rope_type: "llama3", factor: 32, ...bands };
    const model = { ...rest, config: { ...config, rope_theta: 500_000, rope_scaling: scaling } };
    const path = await exported("llama 3", model);
    expect((await readConfig(path)).rope_scaling).toEqual(scaling);
    const original = inFloat32(await rounded(model), rest.prompt);
    expectValues(await logitsOf(path, rest.prompt), original, { tolerance: 1e-5 });
  });
});

describe("blocks", () => {
  const columns = 96;
  const rows = 3;
  /** Codes and bytes of a block of 32. */
  const types: Record<string, [code: number, bytes: number]> = { Q4_0: [2, 18], Q4_1: [3, 20], Q8_0: [8, 34] };

  test.each(Object.entries(types))("%s: as MLX's own reader unpacks them", async (_, [code, size]) => {
    const data = new Uint8Array((rows * columns * size) / 32);
    for (let i = 0; i < data.length; i++) data[i] = (i * 131 + (i >> 3) * 17) & 255;
    // Scales and minima that are ordinary numbers.
    for (let block = 0; block < data.length; block += size) {
      data.set(new Uint8Array(new Uint16Array([0x2e66, 0xb4cd]).buffer).subarray(0, code === 3 ? 4 : 2), block);
    }
    const path = at("blocks.gguf");
    writeFileSync(path, ggufBytes({ tensors: [{ name: "x.weight", dims: [columns, rows], code, data }] }));
    const { tensors } = await readGgufHeader(path);
    const file = new GgufData();
    mx.scope(() => {
      const { weight, scales, biases } = file.read(tensors.get("x.weight")!);
      const theirs = mx.loadGguf(path).arrays;
      expect(weight.toList()).toEqual(theirs.get("x.weight")!.toList());
      expect(scales!.toList()).toEqual(theirs.get("x.scales")!.toList());
      expect(biases!.toList()).toEqual(theirs.get("x.biases")!.toList());
    });
    file.close();
  });

  test("BF16 is the upper half of float32", async () => {
    const path = at("halves.gguf");
    const data = new Uint8Array(new Uint16Array([0x3f80, 0xc000, 0x3e80, 0x0000]).buffer);
    writeFileSync(path, ggufBytes({ tensors: [{ name: "x", dims: [2, 2], code: 30, data }] }));
    const file = new GgufData();
    const tensor = (await readGgufHeader(path)).tensors.get("x")!;
    expect(mx.scope(() => file.read(tensor).weight.astype("float32").toList())).toEqual([
      [1, -2],
      [0.25, 0],
    ]);
    file.close();
  });
});

describe("a file in parts", () => {
  const { metadata, tensors } = tinyLlama;
  const partName = (part: number, count = 3) => `model-0000${part + 1}-of-0000${count}.gguf`;
  /** tinyLlama in three parts; `change` breaks one. */
  const parts = (folder: string, change: (part: RawGguf, index: number) => RawGguf | null = (part) => part) => {
    mkdirSync(at(folder), { recursive: true });
    for (const index of [0, 1, 2]) {
      const part = change(
        {
          metadata: [
            ...(index === 0 ? metadata : []),
            ["split.no", raw.u32(index)],
            ["split.count", raw.u32(3)],
            ["split.tensors.count", raw.u32(tensors.length)],
          ],
          tensors: tensors.filter((_, i) => i % 3 === index),
        },
        index,
      );
      if (part) writeFileSync(join(at(folder), partName(index)), ggufBytes(part));
    }
    return join(at(folder), partName(0));
  };
  const failure = async (path: string) => {
    const live = mx.liveHandles();
    const error = await loadModel(path).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect(error.hint).toBeTruthy();
    expect(mx.liveHandles()).toBe(live);
    return error.message as string;
  };

  test("is loaded whole, given the first part or the folder", async () => {
    const first = parts("in parts");
    writeFileSync(at("whole.gguf"), ggufBytes(tinyLlama));
    const expected = await logitsOf(at("whole.gguf"), [0, 1, 2]);
    expect(await logitsOf(first, [0, 1, 2])).toEqual(expected);
    expect(await logitsOf(at("in parts"), [0, 1, 2])).toEqual(expected);
  });

  test("a later part names the first; a part that is missing is named", async () => {
    const first = parts("lacking", (part, index) => (index === 2 ? null : part));
    expect(await failure(first)).toBe(`${partName(0)} is part 1 of 3, and part 3 is missing: ${partName(2)}`);
    expect(await failure(join(at("lacking"), partName(1)))).toBe(`${partName(1)} is part 2 of 3 of a model`);
  });

  test("parts of different wholes, names that say nothing, tensors twice or too few", async () => {
    const with1 = (key: string, value: number) => (part: RawGguf, index: number) =>
      index === 1
        ? { ...part, metadata: [...part.metadata!.filter(([k]) => k !== key), [key, raw.u32(value)] as never] }
        : part;
    expect(await failure(parts("other", with1("split.count", 2)))).toMatch(/says that it is not part 2 of 3/);
    expect(await failure(parts("other", with1("split.no", 2)))).toMatch(/says that it is not part 2 of 3/);
    const twice = (part: RawGguf, index: number) => (index === 1 ? { ...part, tensors } : part);
    expect(await failure(parts("other", twice))).toMatch(/is in two parts/);
    const fewer = (part: RawGguf, index: number) => (index === 1 ? { ...part, tensors: part.tensors!.slice(1) } : part);
    expect(await failure(parts("other", fewer))).toMatch(/have 10 tensors, not 11/);
    renameSync(parts("other"), at("renamed.gguf"));
    expect(await failure(at("renamed.gguf"))).toMatch(/is part 1 of 3 of a model, and its name does not say so/);
  });
});

describe("what a user names", () => {
  test("a file without the usual ending is known by its first bytes", async () => {
    writeFileSync(at("model"), ggufBytes(tinyLlama));
    expect((await readConfig(at("model"))).model_type).toBe("llama");
  });

  test("a folder with nothing but a GGUF file is that file; of several, one must be named", async () => {
    mkdirSync(at("only"));
    writeFileSync(join(at("only"), "README.md"), "");
    writeFileSync(join(at("only"), "one.gguf"), ggufBytes(tinyLlama));
    const { model, tokenizer } = await loadModel(at("only"));
    expect(await tokenizer.encode("abb")).toEqual([2, 1]);
    model.dispose();
    writeFileSync(join(at("only"), "two.gguf"), ggufBytes(tinyLlama));
    expect(loadModel(at("only"))).rejects.toThrow(/has 2 GGUF files and no config\.json: one\.gguf, two\.gguf/);
  });
});

describe("where an answer ends", () => {
  const ends = async (special: string[], named: Record<string, number>, types = special.map(() => 3)) => {
    const own = tinyLlama.metadata.filter(([key]) => !/tokens|token_type|eos/.test(key));
    const tokens = ["a", "b", "ab", ...special];
    const metadata: RawGguf["metadata"] = [
      ...own,
      ["tokenizer.ggml.tokens", raw.texts(tokens)],
      ["tokenizer.ggml.token_type", raw.list(5, [1, 1, 1, ...types].map(u32))],
      ...Object.entries(named).map(([name, id]) => [`tokenizer.ggml.${name}_token_id`, raw.u32(id)] as const),
    ] as RawGguf["metadata"];
    const [embedding, ...tensors] = tinyLlama.tensors;
    const path = at("ends.gguf");
    writeFileSync(path, ggufBytes({ metadata, tensors: [zeros(embedding!.name, [32, tokens.length]), ...tensors] }));
    return (await readConfig(path)).eos_token_id;
  };

  test("the file's own ids come first, then tokens whose texts are known for it", async () => {
    expect(await ends(["<eos>", "<start_of_turn>", "<end_of_turn>"], { eos: 3 })).toEqual([3, 5]);
    expect(await ends(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], { eos: 3 })).toEqual([3, 5]);
    expect(await ends(["<|eom_id|>", "<|eot_id|>"], { eos: 4, eom: 3 })).toEqual([4, 3]);
    expect(await ends(["<end>"], { eos: 3 })).toBe(3);
    expect(await ends([], {})).toBeUndefined();
  });

  test("words of the text are no ends", async () => {
    expect(await ends(["<eos>", "<|im_end|>"], { eos: 3 }, [3, 1])).toBe(3);
  });

  test("Harmony's messages end without ending the answer", async () => {
    expect(await ends(["<|return|>", "<|end|>", "<|call|>"], { eos: 3 })).toEqual([3, 5]);
    expect(await ends(["<|calls|>", "<|end|>", "<|flush|>"], { eos: 3 })).toEqual([3, 5]);
    expect(await ends(["<eos>", "<turn|>", "<|ifm|im_end|>"], {})).toEqual([3, 4, 5]);
    expect(await ends(["<|endoftext|>", "<|end|>"], { eos: 3 })).toEqual([3, 4]);
  });
});

describe("a broken file", () => {
  const { metadata, tensors } = tinyLlama;
  const without = (key: string) => metadata.filter(([name]) => name !== key);
  const having = (key: string, value: (typeof metadata)[number][1]): RawGguf => ({
    metadata: [...without(key), [key, value]],
    tensors,
  });
  const also = (tensor: RawTensor): RawGguf => ({ metadata, tensors: [...tensors, tensor] });
  const whole = ggufBytes(tinyLlama);

  test("is told from a sound one", async () => {
    writeFileSync(at("sound.gguf"), whole);
    const { model, tokenizer } = await loadModel(at("sound.gguf"));
    expect(model.vocabSize).toBe(4);
    expect(await tokenizer.encode("abb<end>")).toEqual([2, 1, 3]);
    model.dispose();
  });

  const huge = 2n ** 60n;
  const cases: [name: string, file: RawGguf | Uint8Array, message: RegExp, code?: number][] = [
    ["of no bytes", new Uint8Array(0), /ends within its first four bytes/],
    ["of another format", { magic: "GGML" }, /does not begin with "GGUF"/],
    ["of a later version", { version: 4 }, /version 4/],
    ["of big-endian numbers", { version: 3 << 24 }, /little-endian/],
    ["cut off in the header", whole.subarray(0, 800), /cut off/],
    ["cut off in the data", whole.subarray(0, whole.length - 64), /ends at byte \d+.*cut off/],
    ["with more tensors than bytes", { counts: [huge, 0n] }, /claims 1152921504606846976 tensors|beyond any file/],
    ["with more metadata than bytes", { counts: [0n, 1n << 40n] }, /claims 1099511627776 metadata/],
    ["with a list that is longer than the file", having("x", raw.list(4, [], huge)), /entries of "x"/],
    ["with a list of an unknown type", having("x", raw.list(13, [])), /unknown type 13/],
    ["with lists in lists in lists", having("x", nested(6)), /nests deeper/],
    ["with a value of an unknown type", having("x", [13, u32(0)]), /unknown type 13/],
    ["with a key twice", { metadata: [...metadata, metadata[0]!], tensors }, /occurs twice/],
    ["with a tensor twice", also(zeros("output_norm.weight", [32])), /"output_norm.weight" occurs twice/],
    ["with overlapping tensors", also({ ...zeros("rope_freqs.weight", [8]), offset: 0 }), /overlaps/],
    [
      "with a tensor at an odd place",
      also({ ...zeros("rope_freqs.weight", [8]), offset: 20_001 }),
      /no multiple of 32/,
    ],
    ["with a tensor outside", also({ ...zeros("rope_freqs.weight", [8]), offset: 2 ** 30 }), /cut off/],
    ["with five dimensions", also(zeros("rope_freqs.weight", [1, 1, 1, 1, 1])), /5 dimensions/],
    ["with a tensor of no size", also({ ...zeros("rope_freqs.weight", [1]), dims: [0] }), /has the shape \(0\)/],
    [
      "with a shape that overflows",
      also({ ...zeros("rope_freqs.weight", [1]), dims: new Array(4).fill(2 ** 31 - 1) }),
      /too large/,
    ],
    ["with rows that are no blocks", also({ ...zeros("x", [33]), code: 8 }), /no multiple of 32/],
    ["with a nameless tensor", also(zeros("", [1])), /no proper name/],
    ["with an alignment of three", having("general.alignment", raw.u32(3)), /alignment is 3/],
    ["with an alignment that is a text", having("general.alignment", raw.text("32")), /alignment is 32/],
    [
      "with a type that is not read",
      also({ ...zeros("blk.1.ffn_up.weight", [256]), code: 24 }),
      /"blk\.1\.ffn_up\.weight" is I8; mlxlm reads F32, F16, Q4_0, Q4_1, Q5_0, .*, BF16/,
      ExitCode.notFound,
    ],
    ["with a type of the future", also({ ...zeros("x", [256]), code: 99 }), /type 99/, ExitCode.notFound],
    ["with a tensor of no known place", also(zeros("blk.0.mystery.weight", [8])), /"blk\.0\.mystery\.weight"/],
    ["without an architecture", { metadata: without("general.architecture"), tensors }, /"general\.architecture"/],
    [
      "of an unknown architecture",
      having("general.architecture", raw.text("constructor")),
      /"constructor" are not supported/,
      ExitCode.notFound,
    ],
    ["without a size", { metadata: without("llama.block_count"), tensors }, /"llama\.block_count" is missing/],
    ["with a size as a text", having("llama.block_count", raw.text("1")), /"llama\.block_count" must be a number/],
    ["with a size that is none", having("llama.block_count", raw.u32(0)), /num_hidden_layers/],
    [
      "with a size of billions",
      having("llama.block_count", raw.u32(2 ** 32 - 1)),
      /4294967295 layers, but there are only 11 tensors/,
    ],
    ["with heads that do not divide", having("llama.attention.head_count", raw.u32(3)), /head/],
    ["of half a rotation", having("llama.rope.dimension_count", raw.u32(8)), /8 of the 16 features/],
    ["without an embedding", { metadata, tensors: tensors.slice(1) }, /token_embd/],
    [
      "without a norm",
      { metadata, tensors: tensors.filter(({ name }) => name !== "output_norm.weight") },
      /model\.norm/,
    ],
    [
      "with a matrix of the wrong shape",
      { metadata, tensors: [...tensors.slice(0, -1), zeros("blk.0.ffn_down.weight", [32, 8])] },
      /down_proj/,
    ],
    [
      "with queries of an odd number of rows",
      { metadata, tensors: tensors.map((t) => (t.name.includes("attn_q") ? zeros(t.name, [32, 30]) : t)) },
      /30 rows for 2 heads/,
    ],
    ["with a stretched rotation of its own", also(zeros("rope_freqs.weight", [8])), /not Llama 3's/],
    ["without a tokenizer", { metadata: without("tokenizer.ggml.model"), tensors }, /no tokenizer/],
    [
      "with a tokenizer of another kind",
      having("tokenizer.ggml.model", raw.text("plamo2")),
      /"plamo2"/,
      ExitCode.notFound,
    ],
    ["with words split in another way", having("tokenizer.ggml.pre", raw.text("superbpe")), /"superbpe"/, 3],
    ["without tokens", { metadata: without("tokenizer.ggml.tokens"), tensors }, /tokens" is missing/],
    ["with a token twice", having("tokenizer.ggml.tokens", raw.texts(["a", "b", "a", "c"])), /tokens 0 and 2/],
    ["with too few token types", having("tokenizer.ggml.token_type", raw.list(5, [u32(1)])), /4 tokens, but 1/],
    ["with token types as texts", having("tokenizer.ggml.token_type", raw.texts(["a"])), /list of numbers/],
    ["with a merge of no tokens", having("tokenizer.ggml.merges", raw.texts(["a z"])), /the merge "a z"/],
    ["with a merge of one part", having("tokenizer.ggml.merges", raw.texts(["ab"])), /the merge "ab"/],
    ["with an end beyond the tokens", having("tokenizer.ggml.eos_token_id", raw.u32(4)), /is 4, but there are 4/],
    [
      "with more tokens than bytes",
      having("tokenizer.ggml.tokens", raw.list(8, [text("a")], 4)),
      /more than fit into the file/,
    ],
  ];

  test.each(cases)("%s", async (_, file, message, code = ExitCode.failure) => {
    const path = at("broken.gguf");
    writeFileSync(path, file instanceof Uint8Array ? file : ggufBytes(file));
    const live = mx.liveHandles();
    const error = await loadModel(path).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
    expect(error.code).toBe(code);
    expect(mx.liveHandles()).toBe(live);
  });

  test("is not there", async () => {
    expect(loadModel(at("none.gguf"))).rejects.toThrow(/none\.gguf cannot be opened/);
  });
});

function nested(depth: number): (typeof tinyLlama.metadata)[number][1] {
  let value = raw.list(4, [u32(1)]);
  for (let i = 0; i < depth; i++) value = raw.list(9, [value[1]]);
  return value;
}
