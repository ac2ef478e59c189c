/** Families of model types, by the beginnings of their names: for lists that people read. */

const families: Readonly<Record<string, string>> = {
  bailing: "Ling",
  bitnet: "BitNet",
  cohere: "Cohere",
  deepseek: "DeepSeek",
  ernie: "ERNIE",
  exaone: "EXAONE",
  falcon: "Falcon",
  gemma: "Gemma",
  glm: "GLM",
  gpt_oss: "OpenAI",
  granite: "Granite",
  hunyuan: "Hunyuan",
  iquest: "IQuest",
  jamba: "Jamba",
  joyai: "JoyAI",
  kimi: "Kimi",
  laguna: "Laguna",
  lfm: "LFM",
  llama: "Llama",
  llava: "Mistral",
  mamba: "Mamba",
  mimo: "MiMo",
  minicpm: "MiniCPM",
  minimax: "MiniMax",
  ministral: "Mistral",
  mistral: "Mistral",
  mixtral: "Mistral",
  muse: "Muse",
  nanbeige: "Nanbeige",
  nemotron: "Nemotron",
  olmo: "OLMo",
  phi: "Phi",
  prism_hadamard_qwen: "Qwen",
  qwen: "Qwen",
  rwkv: "RWKV",
  seed_oss: "Seed",
  smollm: "SmolLM",
  step: "Step",
  xverse: "XVERSE",
};

/** The family of a model type; its own name where it is of none that is known. */
export function familyOf(modelType: string): string {
  const beginning = Object.keys(families).find((one) => modelType.startsWith(one));
  return beginning === undefined ? modelType : families[beginning]!;
}
