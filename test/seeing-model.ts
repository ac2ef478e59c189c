/** A small model that takes pictures, and what mlx-lm answers it about two of them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { saveCheckpoint } from "./parity/checkpoint-files";
import { fixture } from "./parity/fixtures";

export const { salt, runs, pictures, answer } = fixture<{
  salt: number;
  runs: { config: object; weights: Record<string, number[]> }[];
  pictures: Record<string, { file: string }>;
  answer: { asked: string; tokens: number[] };
}>("vision.json");

/** Words "w<id>", and the special ones. */
const special = { 248: "<|image_start|>", 249: "<|image_end|>", 250: "<|patch|>", 255: "<unk>" } as const;
const words = Array.from({ length: 256 }, (_, id) => special[id as keyof typeof special] ?? `w${id}`);
const shape = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
const tokenizer = {
  version: "1.0",
  added_tokens: [248, 249, 250].map((id) => ({ id, content: words[id], ...shape })),
  pre_tokenizer: { type: "WhitespaceSplit" },
  model: { type: "WordLevel", vocab: Object.fromEntries(words.map((word, id) => [word, id])), unk_token: "<unk>" },
};

/** Writes it to `path`, with `settings` of its tokenizer beside their class. Returns the path. */
export function saveSeeingModel(path: string, config: object = runs[0]!.config, settings: object = {}): string {
  const shapes = Object.entries(runs[0]!.weights);
  const source = Object.fromEntries(
    shapes.map(([name, shape]) => [name, ["weight", "F32", shape] as [string, string, number[]]]),
  );
  const folder = saveCheckpoint(path, config, source, salt);
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  const tokenizerConfig = { tokenizer_class: "PreTrainedTokenizerFast", ...settings };
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(tokenizerConfig));
  return folder;
}
