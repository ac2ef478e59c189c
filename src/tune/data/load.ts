/** Datasets in memory: every record of the sources as tokens, in the reference's order. */
import { ExitCode, UserError } from "../../errors";
import { breathe } from "../../macrotask";
import type { Tokenizer } from "../../text/tokenizer";
import type { Dataset } from "./batches";
import { type Encoded, encoderFor } from "./encoder";
import { type DataSettings, openSources, type Source, type SourceOptions, splitNames } from "./sources";

export type Datasets = Record<(typeof splitNames)[number], Dataset>;

export interface LoadDataOptions extends SourceOptions {
  /** Called as records become tokens. */
  onEncode?: (done: number, total: number) => void;
}

/** How many records are encoded at a time: the tokenizer has threads of its own. */
const atOnce = 64;

/**
 * The sets that the settings need; others are empty.
 * @throws UserError where a set that is needed is missing, or a record cannot be read
 */
export async function loadDatasets(
  settings: DataSettings & { mask_prompt: boolean },
  tokenizer: Tokenizer,
  options: LoadDataOptions = {},
): Promise<Datasets> {
  const sources = await openSources(settings, options);
  const total = splitNames.flatMap((name) => sources[name]).reduce((sum, { rows }) => sum + rows.length, 0);
  let done = 0;
  const load = (name: (typeof splitNames)[number]) =>
    encodeAll(sources[name], tokenizer, settings.mask_prompt, options.signal, (count) => {
      done += count;
      options.onEncode?.(done, total);
    });
  const datasets = { train: await load("train"), valid: await load("valid"), test: await load("test") };
  for (const name of ["train", "test"] as const) {
    if (!settings[name] || datasets[name].length > 0) continue;
    throw new UserError(`there is no ${name} set in ${placeOf(settings)}, or it is empty`, {
      code: ExitCode.notFound,
      hint: "A folder holds train.jsonl, valid.jsonl and test.jsonl, or the same as .parquet; a dataset, splits.",
    });
  }
  return datasets;
}

const placeOf = ({ hf_dataset, data }: DataSettings) =>
  hf_dataset
    ? [hf_dataset]
        .flat()
        .map(({ path }) => path)
        .join(", ")
    : data;

interface Sample {
  tokens: Int32Array;
  offset: number;
  /** How many fields its record has. */
  fields: number;
  where: () => string;
}

async function encodeAll(
  sources: readonly Source[],
  tokenizer: Tokenizer,
  masked: boolean,
  signal: AbortSignal | undefined,
  onEncode: (count: number) => void,
): Promise<Dataset> {
  const samples: Sample[] = [];
  for (const { rows, features } of sources) {
    if (rows.length === 0) continue;
    const encode = encoderFor(await rows.at(0), rows.where(0), tokenizer, { features, masked });
    for (let start = 0; start < rows.length; start += atOnce) {
      const indices = Array.from({ length: Math.min(atOnce, rows.length - start) }, (_, i) => start + i);
      const records = await Promise.all(indices.map((i) => rows.at(i)));
      // Async: a record that is refused at once must not leave the others' promises behind.
      const encoded = await settled(records.map(async (row, i) => encode(row, rows.where(start + i))));
      for (const [i, { tokens, offset }] of encoded.entries()) {
        const where = () => rows.where(start + i);
        samples.push({ tokens: Int32Array.from(tokens), offset, fields: Object.keys(records[i]!).length, where });
      }
      onEncode(indices.length);
      await breathe();
      if (signal?.aborted) throw new UserError("interrupted", { code: ExitCode.interrupted });
    }
  }
  // mlx-lm means to sort by length, and sorts by the number of fields.
  samples.sort((a, b) => a.fields - b.fields);
  return {
    length: samples.length,
    at: (index) => samples[index]!,
    where: (index) => samples[index]!.where(),
  };
}

/** What all of them come to; the first error in their order, once none is under way any more. */
async function settled(promises: readonly Promise<Encoded>[]): Promise<Encoded[]> {
  const results = await Promise.allSettled(promises);
  return results.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}
