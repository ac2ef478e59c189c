/** Checkpoints as people have them: indexes, links, split files, rotary settings, sizes, snapshots. */
import { copyFileSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commit, startHub } from "../hub-server";
import { type Case, generate, refused, same, sound } from "./case";
import {
  answered,
  byteLevelTokenizer,
  chainFolder,
  chainWeights,
  filled,
  llamaConfig,
  random,
  safetensors,
  type Tensors,
  writeFolder,
} from "./checkpoints";
import { chatmlGguf, gemmaGguf, splitGguf } from "./ggufs";

const staleIndex: Case = {
  name: "stale-index",
  right: "an index of another build is passed over, aloud",
  async check({ folder, run }) {
    const model = chainFolder(join(folder, "stale"));
    const names = Object.keys(chainWeights(258, []));
    const weight_map = Object.fromEntries(
      names.map((name, i) => [name, `model-0000${(i % 5) + 1}-of-00005.safetensors`]),
    );
    writeFileSync(join(model, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map }));
    const ran = await run(generate("stale"));
    sound(ran);
    same(ran.text, answered, "the answer");
    if (!ran.problems.includes("passed over")) throw new Error("nothing is said of the index");
  },
};

const linkedWeights: Case = {
  name: "linked-weights",
  right: "links of the user's own are followed",
  async check({ folder, run }) {
    chainFolder(join(folder, "store"));
    mkdirSync(join(folder, "links"));
    mkdirSync(join(folder, "one"));
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
      symlinkSync(`../store/${name}`, join(folder, "links", name));
      if (name !== "model.safetensors") copyFileSync(join(folder, "store", name), join(folder, "one", name));
    }
    symlinkSync("../store/model.safetensors", join(folder, "one/model.safetensors"));
    for (const model of ["links", "one"]) same((await run(generate(model))).text, answered, model);
  },
};

const ggufEnds: Case = {
  name: "gguf-end-of-turn",
  right: "a GGUF's answer ends at the turn's end",
  async check({ folder, run }) {
    writeFileSync(join(folder, "gemma3.gguf"), gemmaGguf());
    writeFileSync(join(folder, "chatml.gguf"), chatmlGguf());
    for (const model of ["gemma3.gguf", "chatml.gguf"]) same((await run(generate(model, "x"))).text, "hi", model);
  },
};

const ggufSplit: Case = {
  name: "gguf-split",
  right: "the parts of a GGUF are loaded together",
  async check({ folder, run }) {
    splitGguf().forEach((bytes, i) => {
      writeFileSync(join(folder, `m-0000${i + 1}-of-00002.gguf`), bytes);
    });
    same((await run(generate("m-00001-of-00002.gguf", "x"))).text, "hi", "the first part");
    refused(await run(generate("m-00002-of-00002.gguf", "x")), 3, /part 2 of 2[\s\S]*m-00001-of-00002\.gguf/);
    renameSync(join(folder, "m-00002-of-00002.gguf"), join(folder, "elsewhere"));
    refused(await run(generate("m-00001-of-00002.gguf", "x")), 3, /m-00002-of-00002\.gguf/);
  },
};

const gemma = {
  ...{ model_type: "gemma3_text", vocab_size: 258, hidden_size: 64, num_hidden_layers: 2, intermediate_size: 64 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, rms_norm_eps: 1e-6, sliding_window: 32 },
  ...{ query_pre_attn_scalar: 16, max_position_embeddings: 2048, eos_token_id: 257 },
};

function gemmaWeights(): Tensors {
  const tensors: Tensors = {
    "model.embed_tokens.weight": random([258, 64], 1),
    "model.norm.weight": filled([64]),
  };
  for (const layer of [0, 1]) {
    const block = `model.layers.${layer}`;
    const shapes: Record<string, number[]> = {
      ...{ "self_attn.q_proj": [64, 64], "self_attn.k_proj": [32, 64], "self_attn.v_proj": [32, 64] },
      ...{
        "self_attn.o_proj": [64, 64],
        "mlp.gate_proj": [64, 64],
        "mlp.up_proj": [64, 64],
        "mlp.down_proj": [64, 64],
      },
    };
    Object.entries(shapes).forEach(([name, shape], i) => {
      tensors[`${block}.${name}.weight`] = random(shape, 10 + 10 * layer + i);
    });
    const norms = ["input", "post_attention", "pre_feedforward", "post_feedforward"];
    // Attention counts for more than the embedding does, and looks at few tokens: the settings show.
    for (const name of norms)
      tensors[`${block}.${name}_layernorm.weight`] = filled([64], name === "post_attention" ? 15 : 0);
    for (const name of ["q_norm", "k_norm"]) tensors[`${block}.self_attn.${name}.weight`] = filled([16], 2);
  }
  return tensors;
}

const ropePerLayerType: Case = {
  name: "rope-per-layer-type",
  right: "rotary settings of each layer type give the text of the old fields",
  async check({ folder, run }) {
    const types = { layer_types: ["sliding_attention", "full_attention"] };
    const pattern = { sliding_window_pattern: 2 };
    const ropes = { rope_theta: 1e6, rope_local_base_freq: 5000, rope_scaling: { rope_type: "linear", factor: 8 } };
    const rope_parameters = {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
      sliding_attention: { rope_type: "default", rope_theta: 5000 },
    };
    const texts: string[] = [];
    for (const [name, config] of Object.entries({
      old: { ...gemma, ...pattern, ...ropes },
      rope: { ...gemma, ...pattern, rope_parameters },
      types: { ...gemma, _sliding_window_pattern: 2, ...types, ...ropes },
      other: { ...gemma, ...pattern },
    })) {
      const tokenizer = byteLevelTokenizer();
      writeFolder(join(folder, name), { config, tokenizer, weights: gemmaWeights() });
      const ran = await run(generate(name, "hello", 16));
      sound(ran);
      texts.push(ran.text);
    }
    const [old, rope, layerTypes, other] = texts;
    same(rope, old, "nested rope_parameters");
    same(layerTypes, old, "layer_types");
    if (other === old) throw new Error("the settings change nothing: the case shows nothing");
  },
};

/** A packed Llama of 4 bits in groups of 32, all of whose numbers are zero. */
function packedWeights(): Tensors {
  const packed = Object.entries(chainWeights(258, [])).flatMap(([name, { shape }]): [string, Tensors[string]][] => {
    const [rows = 0, columns] = shape;
    if (columns === undefined) return [[name, filled(shape, 1)]];
    const layer = name.replace(/\.weight$/, "");
    return [
      [name, { shape: [rows, columns / 8], data: new Uint32Array((rows * columns) / 8) }],
      [`${layer}.scales`, filled([rows, columns / 32])],
      [`${layer}.biases`, filled([rows, columns / 32])],
    ];
  });
  return Object.fromEntries(packed);
}

const groupSize: Case = {
  name: "quant-groupsize-sigfpe",
  right: "a width that the groups do not divide is refused in words",
  async check({ folder, run }) {
    const quantization = { group_size: 32, bits: 4 };
    const config = { ...llamaConfig(258), quantization };
    const parts = { tokenizer: byteLevelTokenizer(), weights: packedWeights() };
    writeFolder(join(folder, "sound"), { config, ...parts });
    sound(await run(generate("sound", "hi", 1)));
    writeFolder(join(folder, "q"), { config: { ...config, intermediate_size: 2 }, ...parts });
    refused(await run(generate("q", "hi", 1)), 1, /the layer model\.layers\.0\.mlp\.\w+ has weight/);
  },
};

const partialSnapshot: Case = {
  name: "partial-snapshot",
  right: "what a cached snapshot lacks is fetched; offline it is named",
  async check({ folder, run }) {
    const source = chainFolder(join(folder, "repo"));
    const names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    const contents = await Promise.all(names.map((name) => Bun.file(join(source, name)).bytes()));
    const files = Object.fromEntries(names.map((name, i) => [name, contents[i]!]));
    const hub = startHub({ "org/x": { files } });
    try {
      for (const lacking of [["tokenizer_config.json"], ["tokenizer_config.json", "tokenizer.json"]]) {
        const home = join(folder, lacking.join());
        const repo = join(home, "hub/models--org--x");
        mkdirSync(join(repo, "snapshots", commit), { recursive: true });
        mkdirSync(join(repo, "refs"));
        writeFileSync(join(repo, "refs/main"), commit);
        for (const name of names.filter((one) => !lacking.includes(one))) {
          writeFileSync(join(repo, "snapshots", commit, name), files[name]!);
        }
        const offline = await run(generate("org/x"), { env: { HF_HOME: home } });
        if (!lacking.every((name) => offline.problems.includes(name))) throw new Error(`offline: ${offline.problems}`);
        const env = { HF_HOME: home, HF_ENDPOINT: hub.url, HF_HUB_OFFLINE: "0" };
        same((await run(generate("org/x"), { env })).text, answered, `without ${lacking}`);
      }
    } finally {
      hub.stop();
    }
  },
};

const minor: Case = {
  name: "minor",
  right: "nothing quantized, no such file, a lone GGUF, a dropped head: each is said",
  async check({ folder, run }) {
    const model = chainFolder(join(folder, "m"));
    const convert = (...words: string[]) => run(["convert", "--hf-path", "m", "--mlx-path", "out", "-q", ...words]);
    refused(await convert("--q-group-size", "48"), 2, /affine has no groups of 48/);
    writeFolder(join(folder, "packed"), {
      config: { ...llamaConfig(258), quantization: { group_size: 32, bits: 4 } },
      tokenizer: byteLevelTokenizer(),
      weights: packedWeights(),
    });
    const again = ["convert", "--hf-path", "packed", "--mlx-path", "out", "-q", "--q-bits", "8"];
    refused(await run(again), 2, /quantized already[\s\S]*--dequantize/);
    refused(await run(generate("gg/none.gguf")), 3, /there is no file gg\/none\.gguf/);
    mkdirSync(join(folder, "lone"));
    writeFileSync(join(folder, "lone/chatml.gguf"), chatmlGguf());
    same((await run(generate("lone", "x"))).text, "hi", "a folder with a GGUF");
    const { tie_word_embeddings: _, ...config } = llamaConfig(258);
    writeFileSync(join(model, "config.json"), JSON.stringify(config));
    const tied = await run(generate("m"));
    if (tied.text !== answered && !tied.problems.includes("lm_head")) throw new Error("the head is dropped in silence");
    rmSync(join(model, "tokenizer.json"));
    writeFileSync(join(model, "model.safetensors"), safetensors({}));
    const hint = (await run(generate("m"))).problems;
    if (hint.includes("models rm")) throw new Error(`a local folder: ${hint}`);
    writeFileSync(join(folder, "train.jsonl"), '{"text": "a"}\n{"text": "b"}\n');
    writeFileSync(join(folder, "c.yaml"), "optimizer: AdamW\n");
    const tune = ["lora", "--train", "--model", "demo", "--data", ".", "--iters", "1", "--batch-size", "1"];
    sound(await run([...tune, "--adapter-path", "a", "-c", "c.yaml"]));
  },
};

export const checkpointCases: readonly Case[] = [
  staleIndex,
  linkedWeights,
  ggufEnds,
  ggufSplit,
  ropePerLayerType,
  groupSize,
  partialSnapshot,
  minor,
];
