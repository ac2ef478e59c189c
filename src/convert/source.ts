/** Where a checkpoint comes from: a folder or a GGUF file. No other file of this room asks which. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import type { Dtype, Tensor } from "../mlx";
import * as mx from "../mlx";
import type { BlockType } from "../nn";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { type AbsentFiles, openCheckpoint, type Shard } from "./checkpoint";
import { type ModelConfig, readFolderConfig, tokenizerOptions } from "./config";
import { wholes } from "./gguf/parts";
import { ggufSource } from "./gguf/source";
import { standIns } from "./stand-ins";
import type { WeightEntry } from "./weight-plan";

export interface CheckpointSource {
  /** The folder; null where all is in one file. */
  readonly folder: string | null;
  readonly config: ModelConfig;
  /** How many tensors there are of each element type; of GGUF files alone, where nothing else says how they are packed. */
  readonly elementTypes?: ReadonlyMap<string, number>;
  /** What the weight files hold, by their headers alone. @throws UserError for files that are missing or unsound */
  entries(): Promise<Map<string, WeightEntry>>;
  /** Checks the weight files. @throws UserError for files that are missing or unsound */
  tensors(): Promise<SourceTensors>;
  tokenizer(): Promise<Tokenizer>;
  /** Calls `use` with a folder that holds what belongs to the weights: the tokenizer's files, and more in a real folder. */
  companions<T>(use: (folder: string) => Promise<T>): Promise<T>;
}

export interface SourceTensors {
  count: number;
  /** Under the checkpoint's names. Those of safetensors are read when they are first needed. */
  read(): Map<string, Tensor>;
  /** Of GGUF files: the same with weights in the file's own blocks, for layers that `accepts` holds for. */
  inBlocks?(accepts: (path: string) => boolean): TensorsInBlocks;
  /** Name of the file that a tensor is in; undefined for one that is made of others. */
  fileOf(name: string): string | undefined;
  /** What to say where they do not make the model whole; null where nothing better is known than what fails. */
  lacking: UserError | null;
}

export interface TensorsInBlocks {
  /** By the paths of their layers. */
  blocks: ReadonlyMap<string, BlockType>;
  /** Of what embeddings give. */
  dtype: Dtype;
  read(): Map<string, Tensor>;
}

/**
 * @param elsewhere weight files of a folder that may be missing: nobody needs what is in them
 * @throws UserError where there is none, or its configuration is missing or broken
 */
export async function openSource(path: string, elsewhere?: AbsentFiles): Promise<CheckpointSource> {
  const facts = await stat(path).catch(() => null);
  const file = facts?.isDirectory() ? await ggufIn(path) : isGguf(path) || facts?.isFile() ? path : null;
  return file === null ? folderSource(path, elsewhere) : ggufSource(file);
}

const isGguf = (name: string) => /\.gguf$/i.test(name);

/** The GGUF file that a folder without a configuration holds; null where there is none. */
async function ggufIn(folder: string): Promise<string | null> {
  const names = await readdir(folder);
  if (names.includes("config.json")) return null;
  const files = wholes(names.filter(isGguf)).sort();
  if (files.length <= 1) return files[0] === undefined ? null : join(folder, files[0]);
  throw new UserError(`${folder} has ${files.length} GGUF files and no config.json: ${files.join(", ")}`, {
    code: ExitCode.usage,
    hint: `Name one of them: ${join(folder, files[0]!)}`,
  });
}

/** The configuration alone. */
export async function readConfig(path: string): Promise<ModelConfig> {
  return (await openSource(path)).config;
}

async function folderSource(folder: string, elsewhere?: AbsentFiles): Promise<CheckpointSource> {
  const config = await readFolderConfig(folder);
  return {
    folder,
    config,
    async entries() {
      const { shards } = await openCheckpoint(folder);
      return new Map(
        shards.flatMap(({ header }) =>
          [...header.tensors].map(([name, { dtype, shape, start, end }]): [string, WeightEntry] => [
            name,
            { dtype, shape, bytes: end - start },
          ]),
        ),
      );
    },
    async tensors() {
      const { shards, lacking } = await openCheckpoint(folder, elsewhere);
      checkTypes(shards);
      return {
        lacking,
        fileOf: (tensor) => shards.find(({ header }) => header.tensors.has(tensor))?.name,
        count: shards.reduce((sum, { header }) => sum + header.tensors.size, 0),
        read: () =>
          new Map(
            shards.flatMap(({ path, header }) => [
              ...(path === null ? standIns(header) : mx.loadSafetensors(path).arrays),
            ]),
          ),
      };
    },
    tokenizer: async () => loadTokenizer(folder, await tokenizerOptions(config)),
    companions: (use) => use(folder),
  };
}

/** Types of safetensors files that MLX does not read. */
const unread = new Set(["F64", "F8_E5M2"]);

/** @throws UserError that names the first tensor that MLX cannot read */
function checkTypes(shards: readonly Shard[]): void {
  for (const { name: file, header } of shards) {
    for (const [name, { dtype }] of header.tensors) {
      if (!unread.has(dtype)) continue;
      throw new UserError(`the tensor ${name} (${file}) is ${dtype}, which MLX does not read`, {
        hint: "Save the model in float32 or bfloat16 with the program that wrote it.",
      });
    }
  }
}
