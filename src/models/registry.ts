/** Architectures by the `model_type` of config.json. Each is loaded when it is asked for. */
import type { z } from "zod";
import { ExitCode, UserError } from "../errors";
import type { Quantization } from "../mlx";
import * as mx from "../mlx";
import { nearest } from "../nearest";
import type { Joins } from "../nn";
import type { AwqFacts } from "./awq-facts";
import type { GgufDescription, GgufFacts } from "./gguf/facts";
import type { LanguageModel } from "./language-model";
import type { MtpFacts } from "./mtp/facts";
import { parseArgs } from "./parse-args";

/**
 * What a model file exports: the schema of its configuration, the model, and the facts that other rooms ask for, where the
 * architecture has them.
 */
export interface Architecture {
  Args: z.ZodType;
  Model: new (
    // biome-ignore lint/suspicious/noExplicitAny: each model takes what its own Args give
    args: any,
  ) => LanguageModel;
  /** Names of projections that take the same input and may run as one; those of most architectures where absent. */
  joins?: Joins;
  /** How AWQ scales it. */
  awq?: AwqFacts;
  /** What `convert -q` does with a layer unless it is told otherwise; undefined: what it does with all. */
  quantize?: (path: string, config: Record<string, unknown>) => Quantization | "leave" | undefined;
  /** Whether a weight keeps its dtype when the model is cast to another. */
  keepsDtype?: (path: string) => boolean;
  /** The architecture in GGUF files. */
  gguf?: GgufFacts;
  /** What its tokenizer goes by where a checkpoint does not say; field names of tokenizer_config.json, and stop tokens. */
  tokenizer?: { chat_template_type: string; tool_parser_type: string; eos_token_ids: number[] };
  /** Its own layers for drafting. */
  mtp?: MtpFacts;
  /** It keeps the part for images where config.json has a `vision_config`. */
  seesImages?: boolean;
}

const architectures: Record<string, () => Promise<Architecture>> = {
  Klear: () => import("./Klear"),
  afm7: () => import("./afm7"),
  afmoe: () => import("./afmoe"),
  apertus: () => import("./apertus"),
  baichuan_m1: () => import("./baichuan_m1"),
  bailing_hybrid: () => import("./bailing_hybrid"),
  bailing_moe: () => import("./bailing_moe"),
  bailing_moe_linear: () => import("./bailing_moe_linear"),
  bailing_moe_v3: () => import("./bailing_moe_v3"),
  bitnet: () => import("./bitnet"),
  cohere2: () => import("./cohere2"),
  cohere2_moe: () => import("./cohere2_moe"),
  cohere: () => import("./cohere"),
  dbrx: () => import("./dbrx"),
  deepseek: () => import("./deepseek"),
  deepseek_v2: () => import("./deepseek_v2"),
  deepseek_v32: () => import("./deepseek_v32"),
  deepseek_v3: () => import("./deepseek_v3"),
  deepseek_v4: () => import("./deepseek_v4"),
  deepseek_v41: () => import("./deepseek_v41"),
  dots1: () => import("./dots1"),
  ernie4_5: () => import("./ernie4_5"),
  ernie4_5_moe: () => import("./ernie4_5_moe"),
  exaone4: () => import("./exaone4"),
  exaone: () => import("./exaone"),
  exaone_moe: () => import("./exaone_moe"),
  falcon_h1: () => import("./falcon_h1"),
  gear: () => import("./gear"),
  gemma2: () => import("./gemma2"),
  gemma3: () => import("./gemma3"),
  gemma3_text: () => import("./gemma3_text"),
  gemma3n: () => import("./gemma3n"),
  gemma4: () => import("./gemma4"),
  gemma4_text: () => import("./gemma4_text"),
  gemma: () => import("./gemma"),
  glm4: () => import("./glm4"),
  glm4_moe: () => import("./glm4_moe"),
  glm4_moe_lite: () => import("./glm4_moe_lite"),
  glm5_next: () => import("./glm5_next"),
  glm: () => import("./glm"),
  glm_moe_dsa: () => import("./glm_moe_dsa"),
  gpt2: () => import("./gpt2"),
  gpt_bigcode: () => import("./gpt_bigcode"),
  gpt_neox: () => import("./gpt_neox"),
  gpt_oss: () => import("./gpt_oss"),
  gptj: () => import("./gptj"),
  granite: () => import("./granite"),
  granitemoe: () => import("./granitemoe"),
  granitemoehybrid: () => import("./granitemoehybrid"),
  helium: () => import("./helium"),
  hf_olmo: () => import("./hf_olmo"),
  hunyuan: () => import("./hunyuan"),
  hunyuan_v1_dense: () => import("./hunyuan_v1_dense"),
  hy_v4: () => import("./hy_v4"),
  internlm2: () => import("./internlm2"),
  internlm3: () => import("./internlm3"),
  iquestloopcoder: () => import("./iquestloopcoder"),
  jamba: () => import("./jamba"),
  k2_horizon: () => import("./k2_horizon"),
  kimi_k25: () => import("./kimi_k25"),
  kimi_k3: () => import("./kimi_k3"),
  kimi_linear: () => import("./kimi_linear"),
  kimi_vl: () => import("./kimi_vl"),
  laguna: () => import("./laguna"),
  "lfm2-vl": () => import("./lfm2-vl"),
  lfm2: () => import("./lfm2"),
  lfm2_moe: () => import("./lfm2_moe"),
  "lille-130m": () => import("./lille-130m"),
  llama4: () => import("./llama4"),
  llama4_text: () => import("./llama4_text"),
  llama: () => import("./llama"),
  longcat_flash: () => import("./longcat_flash"),
  longcat_flash_ngram: () => import("./longcat_flash_ngram"),
  mamba2: () => import("./mamba2"),
  mamba: () => import("./mamba"),
  mellum: () => import("./mellum"),
  mimo: () => import("./mimo"),
  mimo_v2: () => import("./mimo_v2"),
  mimo_v2_flash: () => import("./mimo_v2_flash"),
  minicpm3: () => import("./minicpm3"),
  minicpm: () => import("./minicpm"),
  minimax: () => import("./minimax"),
  minimax_m3_vl: () => import("./minimax_m3_vl"),
  ministral3: () => import("./ministral3"),
  mistral3: () => import("./mistral3"),
  mistral4: () => import("./mistral4"),
  mixtral: () => import("./mixtral"),
  muse_glimmer: () => import("./muse_glimmer"),
  muse_spark: () => import("./muse_spark"),
  nanbeige: () => import("./nanbeige"),
  nanochat: () => import("./nanochat"),
  "nemotron-nas": () => import("./nemotron-nas"),
  nemotron: () => import("./nemotron"),
  nemotron_h: () => import("./nemotron_h"),
  olmo: () => import("./olmo"),
  olmo2: () => import("./olmo2"),
  olmo3: () => import("./olmo3"),
  olmo_hybrid: () => import("./olmo_hybrid"),
  olmoe: () => import("./olmoe"),
  openelm: () => import("./openelm"),
  phi3: () => import("./phi3"),
  phi3small: () => import("./phi3small"),
  phi: () => import("./phi"),
  phimoe: () => import("./phimoe"),
  phixtral: () => import("./phixtral"),
  plamo: () => import("./plamo"),
  plamo2: () => import("./plamo2"),
  plamo3: () => import("./plamo3"),
  prism_hadamard_qwen35: () => import("./prism_hadamard_qwen35"),
  qwen2: () => import("./qwen2"),
  qwen2_moe: () => import("./qwen2_moe"),
  qwen2_vl: () => import("./qwen2_vl"),
  qwen3: () => import("./qwen3"),
  qwen3_5: () => import("./qwen3_5"),
  qwen3_5_moe: () => import("./qwen3_5_moe"),
  qwen4_exp: () => import("./qwen4_exp"),
  qwen3_moe: () => import("./qwen3_moe"),
  qwen3_next: () => import("./qwen3_next"),
  qwen3_vl: () => import("./qwen3_vl"),
  qwen3_vl_moe: () => import("./qwen3_vl_moe"),
  qwen: () => import("./qwen"),
  recurrent_gemma: () => import("./recurrent_gemma"),
  rwkv7: () => import("./rwkv7"),
  seed_oss: () => import("./seed_oss"),
  smollm3: () => import("./smollm3"),
  solar_open: () => import("./solar_open"),
  spark2_5: () => import("./spark2_5"),
  stablelm: () => import("./stablelm"),
  starcoder2: () => import("./starcoder2"),
  step3p5: () => import("./step3p5"),
  step3p7: () => import("./step3p7"),
  talkie: () => import("./talkie"),
  telechat3: () => import("./telechat3"),
  youtu_llm: () => import("./youtu_llm"),
};

/** Model types that are another one by name only. */
const remapping: Record<string, string> = {
  deepseek_v41_text: "deepseek_v41",
  falcon_mamba: "mamba",
  gemma4_unified: "gemma4",
  hunyuan_v1_moe: "hunyuan",
  iquestcoder: "llama",
  joyai_llm_flash: "deepseek_v3",
  kimi_k2: "deepseek_v3",
  lfm2_vl: "lfm2-vl",
  llava: "mistral3",
  minimax_m2: "minimax",
  mistral: "llama",
  "phi-msft": "phixtral",
  pixtral: "mistral3",
  qwen2_5_vl: "qwen2_vl",
  xverse: "llama",
};

/** Model types that several architectures have, by which of config.json's `architectures` is another one. */
const remappedArchitectures: Record<string, Record<string, string>> = {
  bailing_hybrid: { BailingMoeV3ForCausalLM: "bailing_moe_v3" },
  olmo: { OLMoForCausalLM: "hf_olmo" },
};

/** The model types that can be loaded, in alphabetical order. */
export const modelTypes: readonly string[] = [...Object.keys(architectures), ...Object.keys(remapping)].sort();

/** The model type that another one is by name only; itself where it is its own. */
export const ownName = (modelType: string): string =>
  Object.hasOwn(remapping, modelType) ? remapping[modelType]! : modelType;

/**
 * @param hasCode whether the checkpoint brings Python code for it, which nothing here runs
 * @throws UserError for a model type that is not supported
 */
export async function architecture(modelType: string, hasCode = false): Promise<Architecture> {
  const name = ownName(modelType);
  if (Object.hasOwn(architectures, name)) return architectures[name]!();
  const similar = nearest(modelType, modelTypes);
  const unrun = hasCode ? ": they are Python code in the checkpoint, and mlxlm runs no code of a model" : "";
  throw new UserError(`models of type "${modelType}" are not supported${unrun}`, {
    code: ExitCode.notFound,
    hint: similar.length > 0 ? `The nearest supported: ${similar.join(", ")}` : `Supported: ${modelTypes.join(", ")}`,
  });
}

/** The same by a configuration: its model type, and `architectures` where several have that type. */
export async function architectureOf(config: Record<string, unknown>): Promise<Architecture> {
  const { model_type: modelType, architectures: named, auto_map: code } = config;
  const type = String(modelType);
  const others = Object.hasOwn(remappedArchitectures, type) ? remappedArchitectures[type]! : {};
  const [other] = [named].flat().filter((name) => typeof name === "string" && Object.hasOwn(others, name));
  return architecture(other === undefined ? type : others[other as string]!, Boolean(code));
}

/** The model types of which a fact is known. */
export async function modelTypesWith(fact: keyof Architecture): Promise<string[]> {
  const known = await Promise.all(modelTypes.map(async (type) => [type, await architecture(type)] as const));
  return known.filter(([, facts]) => facts[fact] !== undefined).map(([type]) => type);
}

/** Model types by llama.cpp's name of their architecture; of several, the more special ones first. */
const ggufArchitectures: Record<string, readonly string[]> = {
  afmoe: ["afmoe"],
  apertus: ["apertus"],
  bailingmoe: ["bailing_moe"],
  bailingmoe2: ["bailing_moe"],
  bailingmoe3: ["bailing_moe_v3"],
  bitnet: ["bitnet"],
  chatglm: ["glm"],
  cohere2: ["cohere2"],
  cohere2moe: ["cohere2_moe"],
  "command-r": ["cohere"],
  dbrx: ["dbrx"],
  deci: ["nemotron-nas"],
  deepseek: ["deepseek"],
  deepseek2: ["youtu_llm", "glm4_moe_lite", "deepseek_v3", "deepseek_v2"],
  deepseek32: ["deepseek_v32"],
  deepseek4: ["deepseek_v4"],
  dots1: ["dots1"],
  ernie4_5: ["ernie4_5"],
  "ernie4_5-moe": ["ernie4_5_moe"],
  exaone: ["exaone"],
  "exaone-moe": ["exaone_moe"],
  exaone4: ["exaone4"],
  "falcon-h1": ["falcon_h1"],
  gemma: ["gemma"],
  gemma2: ["gemma2"],
  gemma3: ["gemma3_text"],
  gemma3n: ["gemma3n"],
  gemma4: ["gemma4_text"],
  "glm-dsa": ["glm_moe_dsa"],
  "glm5-next": ["glm5_next"],
  glm4: ["glm4"],
  glm4moe: ["glm4_moe"],
  "gpt-oss": ["gpt_oss"],
  gpt2: ["gpt2"],
  gptneox: ["gpt_neox"],
  granite: ["granite"],
  granitehybrid: ["granitemoehybrid"],
  granitemoe: ["granitemoe"],
  "hunyuan-dense": ["hunyuan_v1_dense"],
  "hunyuan-moe": ["hunyuan"],
  hy_v4: ["hy_v4"],
  internlm2: ["internlm2"],
  jamba: ["jamba"],
  "k2-horizon": ["k2_horizon"],
  "kimi-k3": ["kimi_k3"],
  "kimi-linear": ["kimi_linear"],
  laguna: ["laguna"],
  lfm2: ["lfm2"],
  lfm2moe: ["lfm2_moe"],
  llama: ["mixtral", "internlm3", "llama"],
  llama4: ["llama4"],
  mamba: ["mamba"],
  mamba2: ["mamba2"],
  mellum: ["mellum"],
  mimo2: ["mimo_v2_flash"],
  minicpm: ["minicpm"],
  minicpm3: ["minicpm3"],
  "minimax-m2": ["minimax"],
  "minimax-m3": ["minimax_m3_vl"],
  mistral3: ["ministral3"],
  mistral4: ["mistral4"],
  "muse-glimmer": ["muse_glimmer"],
  nanbeige: ["nanbeige"],
  nemotron: ["nemotron"],
  nemotron_h: ["nemotron_h"],
  nemotron_h_moe: ["nemotron_h"],
  olmo: ["olmo"],
  olmo2: ["olmo3", "olmo2"],
  olmoe: ["olmoe"],
  openelm: ["openelm"],
  phi2: ["phi"],
  phi3: ["phi3"],
  phimoe: ["phimoe"],
  plamo: ["plamo"],
  plamo2: ["plamo2"],
  plamo3: ["plamo3"],
  qwen: ["qwen"],
  qwen2: ["qwen2"],
  qwen2moe: ["qwen2_moe"],
  qwen2vl: ["qwen2_vl"],
  qwen3: ["qwen3"],
  qwen35: ["qwen3_5"],
  qwen35moe: ["qwen3_5_moe"],
  qwen3moe: ["qwen3_moe"],
  qwen3next: ["qwen3_next"],
  qwen3vl: ["qwen3_vl"],
  qwen3vlmoe: ["qwen3_vl_moe"],
  qwen4exp: ["qwen4_exp"],
  rwkv7: ["rwkv7"],
  seed_oss: ["seed_oss"],
  smollm3: ["smollm3"],
  spark2_5: ["spark2_5"],
  stablelm: ["stablelm"],
  starcoder: ["gpt_bigcode"],
  starcoder2: ["starcoder2"],
  step35: ["step3p5"],
  talkie: ["talkie"],
};

/** The architectures whose GGUF files can be read. */
export const ggufNames: readonly string[] = Object.keys(ggufArchitectures);

/** A model type, with what its file says of GGUF files. */
export interface GgufModelType extends Pick<Architecture, "keepsDtype"> {
  modelType: string;
  gguf: GgufFacts;
}

/**
 * The model type that a GGUF file is of, with its facts; null for an architecture that is not known.
 * @param name `general.architecture`
 */
export async function ggufArchitecture(name: string, file: GgufDescription): Promise<GgufModelType | null> {
  for (const modelType of Object.hasOwn(ggufArchitectures, name) ? ggufArchitectures[name]! : []) {
    const { gguf, keepsDtype } = await architecture(modelType);
    if (gguf && (gguf.matches?.(file) ?? true)) return { modelType, gguf, keepsDtype };
  }
  return null;
}

/**
 * A model of the configuration, with random weights that are drawn only if they are used. Lazy.
 * @param source what errors call the place of config.json: a folder or repo
 * @throws UserError for a model type that is not supported, or a field that is missing or wrong
 */
export async function createModel(config: Record<string, unknown>, source: string): Promise<LanguageModel> {
  const { model_type: modelType } = config;
  if (typeof modelType !== "string") {
    const problem = modelType === undefined ? "is missing" : `is ${JSON.stringify(modelType)}, but must be a text`;
    throw new UserError(`config.json of ${source}: "model_type" ${problem}`, {
      hint: `It must name an architecture: ${modelTypes.join(", ")}`,
    });
  }
  const { Args, Model } = await architectureOf(config);
  const args = parseArgs(Args, config, source);
  // Parameters are kept; what their making left over is freed.
  try {
    return mx.scope(() => new Model(args));
  } catch (error) {
    if (!(error instanceof mx.MlxError)) throw error;
    throw new UserError(`config.json of ${source}: its sizes make layers that MLX cannot have`, {
      hint: `Fix the file, or download the model again: mlxlm models rm ${source}`,
      cause: error,
    });
  }
}
