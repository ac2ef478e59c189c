/** The dispatch table: every command of mlx-lm, and our own. Each is loaded when it is asked for. */
import type { Command } from "../src/cli/command";

export const commands: Record<string, () => Promise<{ default: Command }>> = {
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
  share: () => import("./share"),
  upload: () => import("./upload"),
};

export async function loadedCommands(): Promise<Command[]> {
  return (await Promise.all(Object.values(commands).map((load) => load()))).map((module) => module.default);
}
