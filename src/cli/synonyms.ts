/** Words that people bring from other tools, and what they are called here. */

/** What to type, or what to know, in place of a command that there is not. */
const commands: Readonly<Record<string, string>> = {
  run: 'It is mlxlm chat MODEL, or mlxlm generate MODEL "PROMPT" for one answer.',
  ask: 'It is mlxlm generate MODEL "PROMPT".',
  complete: 'It is mlxlm generate MODEL "PROMPT".',
  serve: "It is mlxlm server.",
  pull: "A model is downloaded when it is first used: mlxlm chat REPO",
  download: "A model is downloaded when it is first used: mlxlm chat REPO",
  get: "A model is downloaded when it is first used: mlxlm chat REPO",
  install: "A model is downloaded when it is first used: mlxlm chat REPO",
  search: "Look for models on https://huggingface.co/mlx-community, and then: mlxlm chat REPO",
  list: "It is mlxlm models list.",
  ls: "It is mlxlm models list.",
  show: "It is mlxlm models info NAME.",
  info: "It is mlxlm models info NAME.",
  inspect: "It is mlxlm models info NAME.",
  rm: "It is mlxlm models rm NAME.",
  remove: "It is mlxlm models rm NAME.",
  delete: "It is mlxlm models rm NAME.",
  ps: "No model stays in memory when a command ends. Those on disk: mlxlm models list",
  stop: "No model stays in memory when a command ends.",
  push: "It is mlxlm upload --path FOLDER --upload-repo REPO.",
  cp: "A model is a folder: copy it with cp -r.",
  create: "It is mlxlm convert, or mlxlm lora to fine-tune.",
  fit: "It is mlxlm models fit NAME.",
  arch: "It is mlxlm models arch.",
  quantize: "It is mlxlm convert -q.",
  quant: "It is mlxlm convert -q.",
  gguf: "It is mlxlm fuse --export-gguf; GGUF files are read by every command.",
  train: "It is mlxlm lora --train.",
  finetune: "It is mlxlm lora --train.",
  "fine-tune": "It is mlxlm lora --train.",
  merge: "It is mlxlm fuse.",
  bench: "It is mlxlm benchmark.",
  speed: "It is mlxlm benchmark.",
  eval: "It is mlxlm evaluate.",
  ppl: "It is mlxlm perplexity.",
  cache: "It is mlxlm models list, or mlxlm cache_prompt for a prompt's KV cache.",
  version: "It is mlxlm --version.",
  completions: "It is mlxlm completion SHELL.",
};

/** The flag that a flag of another tool is here, first that which a command has. */
const flags: Readonly<Record<string, readonly string[]>> = {
  "--temperature": ["--temp"],
  "--max-new-tokens": ["--max-tokens"],
  "--max-length": ["--max-tokens", "--max-seq-length"],
  "--n-predict": ["--max-tokens"],
  "--num-predict": ["--max-tokens"],
  "--num-ctx": ["--max-kv-size"],
  "--ctx-size": ["--max-kv-size"],
  "--context-length": ["--max-kv-size"],
  "--lora": ["--adapter-path"],
  "--adapter": ["--adapter-path"],
  "--stop": ["--extra-eos-token"],
  "--lr": ["--learning-rate"],
  "--epochs": ["--iters"],
  "--steps": ["--iters"],
  "--max-steps": ["--iters"],
  "--num-epochs": ["--iters"],
  "--dataset": ["--data", "--data-path"],
  "--output": ["--mlx-path", "--save-path", "--output-dir"],
  "--out": ["--mlx-path", "--save-path", "--output-dir"],
  "--outfile": ["--mlx-path", "--save-path"],
  "--rank": ["--config"],
  "--wbits": ["--bits", "--q-bits"],
  "--w-bit": ["--bits", "--q-bits"],
};

/** What to do in place of the command; undefined for a word of no known meaning. */
export function commandMeaning(word: string): string | undefined {
  const name = word.toLowerCase();
  return Object.hasOwn(commands, name) ? commands[name] : undefined;
}

/** Which of the known flags the word means; undefined where it is none of them. */
export function flagMeaning(spelling: string, known: readonly string[]): string | undefined {
  const name = spelling.toLowerCase().replaceAll("_", "-");
  return Object.hasOwn(flags, name) ? flags[name]!.find((flag) => known.includes(flag)) : undefined;
}
