/** Makes, loads and runs the inputs of seeds FIRST to LAST of a KIND, and says what came of each, one JSON line a seed. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../src/convert/load";
import { UserError } from "../../src/errors";
import * as mx from "../../src/mlx";
import { onWarning } from "../../src/warnings";
import { row } from "../parity/decode";
import { hostileCheckpoint } from "./checkpoint";
import { hostileGguf } from "./gguf";
import type { Line } from "./run";

const makers: Record<string, (seed: number, folder: string) => string | Promise<string>> = {
  gguf: hostileGguf,
  checkpoint: hostileCheckpoint,
};

const [kind = "", first, last] = process.argv.slice(2);
const make = makers[kind]!;
const folder = mkdtempSync(join(tmpdir(), "mlxlm-fuzz-"));
onWarning(() => {});

/** A prompt of two tokens, and a step after it. */
async function run(path: string): Promise<void> {
  const { model, tokenizer } = await loadModel(path);
  try {
    await tokenizer.encode("abab");
    const cache = model.makeCache();
    for (const ids of [[0, Math.min(1, model.vocabSize - 1)], [0]]) {
      mx.scope(() => mx.eval(model.forward(row(ids), { cache })));
    }
    for (const one of cache) one.dispose();
  } finally {
    model.dispose();
    mx.clearCache();
  }
}

/** MLX begins its messages with the name of the operation, in brackets. */
const soundsLikeMlx = (message: string) => /\[(?!\d)[a-z_:]+\] |mlx::|std::/.test(message);

for (let seed = Number(first); seed <= Number(last); seed++) {
  const began = performance.now();
  const path = await make(seed, folder);
  let line: Line = { seed, outcome: "sound" };
  try {
    await run(path);
  } catch (error) {
    const { name, message } = error as Error;
    if (!(error instanceof UserError))
      line = { seed, outcome: "fault", fault: `${name}: ${message}`, stack: (error as Error).stack };
    else if (soundsLikeMlx(message)) line = { seed, outcome: "fault", fault: `MLX's words: ${message}` };
    else line = { seed, outcome: "refused", message };
  }
  console.log(JSON.stringify({ ...line, ms: Math.round(performance.now() - began), rss: process.memoryUsage.rss() }));
}
rmSync(folder, { recursive: true });
process.exit();
