/** The dispatch table: every command of mlx-lm, and our own. Each is loaded when it is asked for. */
import type { Command } from "../src/cli/command";

/** null where it is not available yet. */
export const commands: Record<string, (() => Promise<{ default: Command }>) | null> = {
  awq: () => import("./awq"),
  benchmark: () => import("./benchmark"),
  cache_prompt: () => import("./cache_prompt"),
  chat: () => import("./chat"),
  convert: () => import("./convert"),
  doctor: () => import("./doctor"),
  dwq: () => import("./dwq"),
  dynamic_quant: () => import("./dynamic_quant"),
  evaluate: () => import("./evaluate"),
  fuse: () => import("./fuse"),
  generate: () => import("./generate"),
  gptq: () => import("./gptq"),
  launch: () => import("./launch"),
  licenses: () => import("./licenses"),
  lora: () => import("./lora"),
  manage: () => import("./manage"),
  models: () => import("./models"),
  paths: () => import("./paths"),
  perplexity: () => import("./perplexity"),
  server: () => import("./server"),
  share: null,
  upload: () => import("./upload"),
};

/** Those that are available. */
export async function loadedCommands(): Promise<Command[]> {
  const loaders = Object.values(commands).filter((load) => load !== null);
  return (await Promise.all(loaders.map((load) => load()))).map((module) => module.default);
}
