/** A GGUF file's companions as the files of a checkpoint folder, for those that read such files. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeLeftovers, uniqueMark } from "../../leftovers";
import { Metadata } from "./metadata";
import { tokenizerFiles } from "./tokenizer";
import type { GgufModel } from "./weights";

const prefix = "mlxlm-gguf-";

/** Calls `use` with a folder that holds tokenizer.json and tokenizer_config.json; it is gone afterwards. */
export async function withTokenizerFolder<T>(model: GgufModel, use: (folder: string) => Promise<T>): Promise<T> {
  const { tokenizer, config } = tokenizerFiles(new Metadata(model.header.metadata, model.path));
  await removeLeftovers(tmpdir(), (name) => name.startsWith(prefix));
  const folder = await mkdtemp(join(tmpdir(), `${prefix}${uniqueMark()}.`));
  try {
    await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
    await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
