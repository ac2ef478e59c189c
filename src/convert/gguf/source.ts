/** A GGUF file as a source of a checkpoint. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { removeLeftovers, uniqueMark } from "../../leftovers";
import { rwkvFile } from "../../text/rwkv-vocabulary";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer";
import { tokenizerOptions } from "../config";
import { Metadata } from "./metadata";
import { tokenizerFiles } from "./tokenizer";
import { blockLayers, dtypeOf, type GgufModel, ggufTensors, openGguf } from "./weights";

/** @throws UserError for a file that is unsound or of a kind that is not supported */
export async function ggufSource(path: string) {
  const file = await openGguf(path);
  const { config, header } = file;
  const companions = <T>(use: (folder: string) => Promise<T>): Promise<T> => withTokenizerFolder(file, use);
  const elementTypes = new Map<string, number>();
  for (const { type } of header.tensors.values()) elementTypes.set(type.name, (elementTypes.get(type.name) ?? 0) + 1);
  return {
    folder: null,
    config,
    elementTypes,
    entries: async () =>
      new Map(
        [...header.tensors].map(
          ([name, { type, shape, bytes }]) => [name, { dtype: type.name, shape, bytes }] as const,
        ),
      ),
    tensors: async () => ({
      lacking: null,
      fileOf: () => basename(path),
      count: header.tensors.size,
      read: () => ggufTensors(file),
      inBlocks(accepts: (path: string) => boolean) {
        const blocks = blockLayers(file, accepts);
        return { blocks, dtype: dtypeOf(header), read: () => ggufTensors(file, blocks) };
      },
    }),
    tokenizer: (): Promise<Tokenizer> =>
      companions(async (folder) => loadTokenizer(folder, await tokenizerOptions(config))),
    companions,
  };
}

const prefix = "mlxlm-gguf-";

/** Writes the tokenizer's files for those that read such files; they are gone afterwards. */
async function withTokenizerFolder<T>(model: GgufModel, use: (folder: string) => Promise<T>): Promise<T> {
  const { tokenizer, config, rwkv } = tokenizerFiles(new Metadata(model.header.metadata, model.path));
  await removeLeftovers(tmpdir(), (name) => name.startsWith(prefix));
  const folder = await mkdtemp(join(tmpdir(), `${prefix}${uniqueMark()}.`));
  try {
    if (tokenizer) await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
    if (rwkv !== undefined) await writeFile(join(folder, rwkvFile), rwkv);
    await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(config));
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
