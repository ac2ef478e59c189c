/** A copy of a model that neither context nor end token stops, for tests that interrupt work: on a fast machine too it goes on. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A token that the model has no logit for. */
const never = {
  id: 100_000,
  content: "<|never|>",
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
};

export function copyWithoutEnd(model: string, to: string): string {
  cpSync(model, to, { recursive: true });
  const change = (name: string, changed: (json: Record<string, unknown>) => object) => {
    const file = join(to, name);
    writeFileSync(file, JSON.stringify(changed(JSON.parse(readFileSync(file, "utf8")))));
  };
  change("config.json", (config) => ({ ...config, max_position_embeddings: 1_000_000, eos_token_id: never.id }));
  writeFileSync(join(to, "generation_config.json"), JSON.stringify({ eos_token_id: never.id }));
  change("tokenizer_config.json", (config) => ({ ...config, eos_token: never.content, model_max_length: 1_000_000 }));
  change("tokenizer.json", (tokenizer) => {
    const added = tokenizer.added_tokens as object[];
    return { ...tokenizer, added_tokens: [...added, { ...never, special: true }] };
  });
  return to;
}
